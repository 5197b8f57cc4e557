//! Finds braces and brackets that a file does not close.
//!
//! A TOML parser takes all that follows an open bracket as its content, so most of its messages are about correct lines. Therefore a
//! file that is not TOML is scanned here: the bracket that was opened last is reported, and the lines from the outermost open one to
//! the next that clearly begins something new are replaced by blanks. Then the rest can be checked. This is a guess, so valid files are
//! never scanned.

use std::ops::Range;

/// A text in which every bracket is closed.
pub(super) struct Mended {
    /// As long as the text of the file, so that all offsets stay the same.
    pub(super) text: String,
    /// The offset of each bracket that is not closed, and its lines, which are blank now.
    pub(super) unclosed: Vec<(usize, Range<usize>)>,
}

/// Finds the brackets that are not closed; `None`: all are closed.
pub(super) fn mend(text: &str) -> Option<Mended> {
    let mut unclosed = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let (mut at, mut last) = (0, b'\n');
    let mut fold = |open: &mut Vec<usize>, end: usize| {
        if let (Some(first), Some(inner)) = (open.first(), open.last()) {
            let start = text[..*first].rfind('\n').map_or(0, |i| i + 1);
            unclosed.push((*inner, start..end));
            open.clear();
        }
    };
    let bytes = text.as_bytes();
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\n' => {
                let next = text[at + 1..].trim_start_matches([' ', '\t', '\r', '\n']);
                if open.last().is_some_and(|inner| begins_anew(next, bytes[*inner], last)) {
                    fold(&mut open, at + 1);
                }
            }
            b'#' => at += text[at..].find('\n').unwrap_or(text.len() - at) - 1,
            b'"' | b'\'' => at = end_of_string(text, at) - 1,
            b'{' | b'[' => open.push(at),
            b'}' | b']' if open.last().is_some_and(|inner| bytes[*inner] + 2 != *byte) => {
                // It closes a bracket of the other kind, further out. The brackets between the two are not closed.
                let end = text[at..].find('\n').map_or(text.len(), |i| at + i + 1);
                fold(&mut open, end);
                at = end - 1;
            }
            b'}' | b']' => drop(open.pop()),
            _ => {}
        }
        if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'#') {
            last = *byte;
        }
        at += 1;
    }
    fold(&mut open, text.len());
    let blank = |c: char| if c == '\n' { "\n".to_owned() } else { " ".repeat(c.len_utf8()) };
    let mut mended = text.to_owned();
    for (_, lines) in &unclosed {
        mended.replace_range(lines.clone(), &text[lines.clone()].chars().map(blank).collect::<String>());
    }
    (!unclosed.is_empty()).then_some(Mended { text: mended, unclosed })
}

/// Whether `line` begins something new, and is not the content of the bracket `opener`; `last` is the last character before it.
fn begins_anew(line: &str, opener: u8, last: u8) -> bool {
    let line = line.split(['\n', '#']).next().unwrap_or_default().trim_end();
    let header = line.trim_start_matches('[').trim_end_matches(']');
    let is_header =
        line.len() > header.len() && line.ends_with(']') && header.starts_with(|c: char| c.is_ascii_alphabetic());
    let is_entry = line.split_once('=').is_some_and(|(key, _)| is_key(key.trim_end()));
    is_header || is_entry && (opener == b'[' || !matches!(last, b',' | b'{'))
}

/// Whether `text` could be the key before a `=`.
fn is_key(text: &str) -> bool {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let quoted = |quote: char| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    !text.is_empty() && (text.chars().all(bare) || quoted('"') || quoted('\''))
}

/// The offset behind the string that begins at `at`. A string on a single line ends with the line.
fn end_of_string(text: &str, at: usize) -> usize {
    let quote = &text[at..at + 1];
    let long = quote.repeat(3);
    let (mark, from) = if text[at..].starts_with(&long) { (long.as_str(), at + 3) } else { (quote, at + 1) };
    let mut escaped = false;
    for (i, c) in text[from..].char_indices() {
        if mark.len() == 1 && c == '\n' {
            return from + i;
        }
        if !escaped && text[from + i..].starts_with(mark) {
            return from + i + mark.len();
        }
        escaped = quote == "\"" && c == '\\' && !escaped;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bracket_that_is_not_closed_is_found_where_it_was_opened() {
        for (text, opener, left) in [
            ("a = { b = 1\n[c]\n", Some(4), "           \n[c]\n"),
            ("a = [1,\n[c]\nd = 1", Some(4), "       \n[c]\nd = 1"),
            ("a = { b = [1 }\nc = 1\n", Some(10), "              \nc = 1\n"),
            ("a = {\n b = 1\n}\nc = [\n  'x = ]',\n]\n", None, ""),
            ("a = \"{\" # {\nb = '''\n{[\n'''\nc = \"\\\"{\"", None, ""),
            ("a = { b = 1, # }\n", Some(4), "                \n"),
            ("a = \"ü", None, ""),
        ] {
            let mended = mend(text);
            assert_eq!(mended.as_ref().map(|mended| mended.unclosed[0].0), opener, "{text}");
            assert_eq!(mended.map_or_else(String::new, |mended| mended.text), left, "{text}");
        }
    }
}
