//! Splits bytes that arrive in pieces into lines.
//!
//! A line ends at its newline. The newline is not part of the line, nor is a carriage return before it. A longer line
//! is cut at the limit and its rest dropped, so that a line without end cannot fill the memory. Invalid UTF-8 becomes
//! U+FFFD.

use super::Limit;

/// The current line, and the limit.
pub(super) struct Lines {
    begun: Vec<u8>,
    /// Bytes of this line were dropped.
    cut: bool,
    line_max: Limit,
}

impl Lines {
    /// Starts with no line. No line may be longer than `line_max`.
    pub(super) fn new(line_max: impl Into<Limit>) -> Lines {
        Lines { begun: Vec::new(), cut: false, line_max: line_max.into() }
    }

    /// Removes bytes from the front of `bytes` up to the end of the first line, and returns that line; `None` once all
    /// are used up.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Option<String> {
        let newline = bytes.iter().position(|&byte| byte == b'\n');
        let (piece, rest) = bytes.split_at(newline.unwrap_or(bytes.len()));
        // One byte more than the limit is kept, for the carriage return of a line that just fits.
        let free = (self.line_max.bytes() + 1).saturating_sub(self.begun.len());
        self.cut |= piece.len() > free;
        self.begun.extend_from_slice(&piece[..piece.len().min(free)]);
        *bytes = rest.get(1..).unwrap_or_default();
        newline.map(|_| self.take())
    }

    /// The current line, for the case that its end will not come; `None` if none has begun.
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

/// Drops the first bytes of a character that the cut has split.
fn drop_broken_end(line: &mut Vec<u8>) {
    let tail = line.len().saturating_sub(3);
    let Some(start) = line[tail..].iter().rposition(|&byte| byte >= 0xC0).map(|at| tail + at) else { return };
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
    fn lines_end_only_at_newlines_however_the_bytes_are_split() {
        let (whole, rest) = lines(&[b"one\ntw", b"o\r", b"\n\n\r\nr\rest"], 99);
        assert_eq!(whole, ["one", "two", "", ""]);
        assert_eq!(rest.as_deref(), Some("r\rest"));
        assert_eq!(lines(&[b"a\n"], 9), (vec!["a".into()], None));
    }

    #[test]
    fn long_lines_are_cut_and_the_next_line_is_complete() {
        assert_eq!(lines(&[b"abcdef", b"ghi\nxyz\n"], 4).0, ["abcd", "xyz"]);
        assert_eq!(lines(&[b"abcd\r\nabcde\r\n"], 4).0, ["abcd", "abcd"]);
        assert_eq!(lines(&[b"abcdef"], 4).1.as_deref(), Some("abcd"));
        // Never inside a character.
        assert_eq!(lines(&["abcé\nab€x\n€€\n".as_bytes()], 4).0, ["abc", "ab", "€"]);
        assert_eq!(lines(&["𝄞𝄞\n".as_bytes()], 7).0, ["𝄞"]);
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        assert_eq!(lines(&[b"a\xffb\n\xc3\n"], 9).0, ["a\u{fffd}b", "\u{fffd}"]);
    }

    proptest! {
        #[test]
        fn splitting_the_input_makes_no_difference(bytes in prop::collection::vec(prop::sample::select(&b"ab\r\n\xc3\xa9\xf0"[..]), 0..60), cut in 0..60_usize, max in 1..9_usize) {
            let cut = cut.min(bytes.len());
            prop_assert_eq!(lines(&[&bytes], max), lines(&[&bytes[..cut], &bytes[cut..]], max));
        }
    }
}
