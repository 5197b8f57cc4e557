//! The content codings of a file, and which of them a request prefers (RFC 9110 §12.5.3).
//!
//! The coding with the highest quality is sent. Of several with the same quality, one that lies beside the file is sent before
//! one that pushd makes, and the file as it is comes last. A coding with the quality 0 is never sent. The exception is the file
//! as it is: it is sent if nothing else is available, because a client that cannot use it gains nothing from a refusal.

use http::header::{ACCEPT_ENCODING, HeaderMap};

/// A content coding. The order is that of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Brotli,
    Zstd,
    Gzip,
    /// The file as it is.
    Identity,
}

impl Coding {
    /// The codings that compress.
    pub(super) const COMPRESSED: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];
    /// How many codings there are.
    pub(super) const COUNT: usize = 4;

    /// Its name in `Content-Encoding`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
            Coding::Gzip => "gzip",
            Coding::Identity => "identity",
        }
    }

    /// What is appended to the name of a file for the compressed file beside it.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Coding::Brotli => ".br",
            Coding::Zstd => ".zst",
            Coding::Gzip => ".gz",
            Coding::Identity => "",
        }
    }

    fn of_name(name: &str) -> Option<Coding> {
        [
            ("br", Coding::Brotli),
            ("zstd", Coding::Zstd),
            ("gzip", Coding::Gzip),
            ("x-gzip", Coding::Gzip),
            ("identity", Coding::Identity),
        ]
        .into_iter()
        .find(|(known, _)| name.eq_ignore_ascii_case(known))
        .map(|(_, coding)| coding)
    }
}

/// A set of codings.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Codings(u8);

impl Codings {
    /// All that compress.
    pub(super) const COMPRESSED: Codings = Codings(0b111);

    pub(super) fn has(self, coding: Coding) -> bool {
        self.0 & 1 << coding as u8 != 0
    }

    pub(super) fn add(&mut self, coding: Coding) {
        self.0 |= 1 << coding as u8;
    }

    pub(super) fn remove(&mut self, coding: Coding) {
        self.0 &= !(1 << coding as u8);
    }
}

/// The codings in which a file can be sent, beside the file as it is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Available {
    /// Those that lie beside the file.
    pub(super) beside: Codings,
    /// Those that pushd can make.
    pub(super) made: Codings,
}

/// The qualities that a request gives to the codings, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Accepted([u16; Coding::COUNT]);

impl Accepted {
    /// Those of a request with these fields. Without `Accept-Encoding`, only the file as it is.
    pub(super) fn of(headers: &HeaderMap) -> Accepted {
        let mut given = [None; Coding::COUNT];
        let mut others = None;
        let lines = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
        for element in lines.flat_map(|line| line.split(',')) {
            let (name, parameters) = element.split_once(';').unwrap_or((element, ""));
            let quality = quality(parameters);
            match (name.trim(), Coding::of_name(name.trim())) {
                ("*", _) => others = others.max(Some(quality)),
                (_, Some(coding)) => given[coding as usize] = given[coding as usize].max(Some(quality)),
                _ => {}
            }
        }
        let mut qualities = given.map(|quality| quality.or(others).unwrap_or(0));
        // The file as it is is acceptable unless it is excluded.
        if given[Coding::Identity as usize].or(others).is_none() {
            qualities[Coding::Identity as usize] = 1;
        }
        Accepted(qualities)
    }

    /// The coding to send.
    pub(super) fn best(self, available: Available) -> Coding {
        let candidates = Coding::COMPRESSED.into_iter().filter(|coding| available.beside.has(*coding));
        let made = Coding::COMPRESSED.into_iter().filter(|coding| available.made.has(*coding));
        let mut best = (0, Coding::Identity);
        for coding in candidates.chain(made).chain([Coding::Identity]) {
            let quality = self.0[coding as usize];
            if quality > best.0 {
                best = (quality, coding);
            }
        }
        best.1
    }
}

/// The quality in the parameters of an element. One that cannot be read is 0: the element may mean anything.
fn quality(parameters: &str) -> u16 {
    let Some(value) = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then_some(value.trim())
    }) else {
        return 1000;
    };
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return 0;
    }
    match whole {
        "1" if fraction.bytes().all(|byte| byte == b'0') => 1000,
        "0" => fraction.bytes().zip([100, 10, 1]).map(|(digit, worth)| u16::from(digit - b'0') * worth).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codings(codings: &[Coding]) -> Codings {
        let mut set = Codings::default();
        codings.iter().for_each(|coding| set.add(*coding));
        set
    }

    fn best(lines: &[&str], available: Available) -> Coding {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT_ENCODING, line.parse().unwrap());
        }
        Accepted::of(&headers).best(available)
    }

    #[test]
    fn the_quality_decides_and_then_the_order() {
        use Coding::{Brotli, Gzip, Identity, Zstd};
        let all = Available { beside: Codings::COMPRESSED, made: Codings::default() };
        for (lines, expected) in [
            (&[][..], Identity),
            (&[""], Identity),
            (&["gzip"], Gzip),
            (&["x-gzip"], Gzip),
            (&["GZIP;Q=0.5"], Gzip),
            (&["gzip, deflate, br, zstd"], Brotli),
            (&["gzip", "zstd"], Zstd),
            (&["br;q=0.2, gzip;q=0.3"], Gzip),
            (&["br;q=0, gzip"], Gzip),
            (&["br;q=0.000, *"], Zstd),
            (&["*"], Brotli),
            (&["*;q=0"], Identity),
            (&["*;q=0, gzip"], Gzip),
            (&["identity, gzip;q=0.5"], Identity),
            (&["identity;q=0.5, gzip;q=0.5"], Gzip),
            (&["identity;q=0, gzip;q=0.001"], Gzip),
            (&["identity;q=0"], Identity),
            (&["deflate, compress"], Identity),
            (&["gzip;q=2"], Identity),
            (&["gzip;q=x"], Identity),
            (&["gzip;q=0.1234"], Identity),
            (&["gzip;q=1.001"], Identity),
            (&["gzip; q=1.000"], Gzip),
            (&["gzip;level=1;q=0.5, identity;q=0.4"], Gzip),
        ] {
            assert_eq!(best(lines, all), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_lies_beside_a_file_is_sent_before_what_is_made() {
        use Coding::{Brotli, Gzip, Identity, Zstd};
        let gzip_beside = Available { beside: codings(&[Gzip]), made: codings(&[Brotli, Zstd]) };
        assert_eq!(best(&["gzip, br, zstd"], gzip_beside), Gzip);
        assert_eq!(best(&["gzip;q=0.9, br, zstd"], gzip_beside), Brotli);
        assert_eq!(best(&["zstd"], gzip_beside), Zstd);
        assert_eq!(best(&["br", "zstd", "gzip"], Available::default()), Identity);
        let mut set = Codings::COMPRESSED;
        set.remove(Zstd);
        assert_eq!(set, codings(&[Brotli, Gzip]));
    }
}
