//! Lines out of bytes that come in pieces.
//!
//! A line ends at its newline, which is not part of it, nor is a carriage return before that. What is longer than
//! the limit is cut there, and the rest of that line dropped, so that nobody can fill memory by never ending a line. Text that is not
//! UTF-8 gets U+FFFD where it is not.

use super::Limit;

/// The line that has begun, and how long one may be.
pub(super) struct Lines {
    begun: Vec<u8>,
    /// Bytes of this line were dropped.
    cut: bool,
    line_max: Limit,
}

impl Lines {
    /// No line has begun; none is to be longer than `line_max`.
    pub(super) fn new(line_max: impl Into<Limit>) -> Lines {
        Lines { begun: Vec::new(), cut: false, line_max: line_max.into() }
    }

    /// Takes bytes off the front of `bytes`, to the end of the first line and returns it; `None` once they are used up.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Option<String> {
        let newline = bytes.iter().position(|&byte| byte == b'\n');
        let (piece, rest) = bytes.split_at(newline.unwrap_or(bytes.len()));
        // One more than the limit is kept, for the carriage return of a line that just fits.
        let room = (self.line_max.bytes() + 1).saturating_sub(self.begun.len());
        self.cut |= piece.len() > room;
        self.begun.extend_from_slice(&piece[..piece.len().min(room)]);
        *bytes = rest.get(1..).unwrap_or_default();
        newline.map(|_| self.take())
    }

    /// The line that has begun, when it is known that its end will not come; `None` if none has.
    pub(super) fn finish(&mut self) -> Option<String> {
        (!self.begun.is_empty() || self.cut).then(|| self.take())
    }

    fn take(&mut self) -> String {
        let mut line = std::mem::take(&mut self.begun);
        if !self.cut && line.last() == Some(&b'\r') {
            line.pop();
        }
        let bytes_max = self.line_max.bytes();
        if line.len() > bytes_max || self.cut {
            line.truncate(bytes_max);
            drop_broken_end(&mut line);
        }
        self.cut = false;
        match String::from_utf8(line) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        }
    }
}

/// Drops the beginning of a character that the cut went through.
fn drop_broken_end(line: &mut Vec<u8>) {
    let tail = line.len().saturating_sub(3);
    let Some(start) = line[tail..].iter().rposition(|&byte| byte >= 0xC0).map(|place| tail + place) else { return };
    if let Err(error) = std::str::from_utf8(&line[start..])
        && error.error_len().is_none()
    {
        line.truncate(start);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(pieces: &[&[u8]], bytes_max: usize) -> (Vec<String>, Option<String>) {
        let mut lines = Lines::new(bytes_max);
        let mut whole = Vec::new();
        for mut piece in pieces.iter().copied() {
            while let Some(line) = lines.next(&mut piece) {
                whole.push(line);
            }
        }
        (whole, lines.finish())
    }

    #[test]
    fn lines_end_at_newlines_wherever_the_pieces_do() {
        let (whole, rest) = lines(&[b"one\ntw", b"o\r", b"\n\n\r\nr\rest"], 99);
        assert_eq!(whole, ["one", "two", "", ""]);
        assert_eq!(rest.as_deref(), Some("r\rest"));
        assert_eq!(lines(&[b"a\n"], 9), (vec!["a".into()], None));
    }

    #[test]
    fn long_lines_are_cut_and_the_next_one_is_whole() {
        assert_eq!(lines(&[b"abcdef", b"ghi\nxyz\n"], 4).0, ["abcd", "xyz"]);
        assert_eq!(lines(&[b"abcd\r\nabcde\r\n"], 4).0, ["abcd", "abcd"]);
        assert_eq!(lines(&[b"abcdef"], 4).1.as_deref(), Some("abcd"));
        // Not through a character.
        assert_eq!(lines(&["abcé\nab€x\n€€\n".as_bytes()], 4).0, ["abc", "ab", "€"]);
        assert_eq!(lines(&["𝄞𝄞\n".as_bytes()], 7).0, ["𝄞"]);
    }

    #[test]
    fn what_is_not_utf8_becomes_text() {
        assert_eq!(lines(&[b"a\xffb\n\xc3\n"], 9).0, ["a\u{fffd}b", "\u{fffd}"]);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(bytes in prop::collection::vec(prop::sample::select(&b"ab\r\n\xc3\xa9\xf0"[..]), 0..60), cut in 0..60_usize, max in 1..9_usize) {
            let cut = cut.min(bytes.len());
            prop_assert_eq!(lines(&[&bytes], max), lines(&[&bytes[..cut], &bytes[cut..]], max));
        }
    }
}
