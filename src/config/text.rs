//! Writes TOML, with values on one line and keys quoted where necessary. And makes text from any source safe to show.

use std::borrow::Cow;
use std::fmt::Write as _;

use toml::de::DeValue;

/// Dotted keys: `server.main.routes."/ws"`.
pub(crate) fn path<T: AsRef<str>>(keys: &[T]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| self::key(key.as_ref())).collect();
    keys.join(".")
}

/// One key.
fn key(key: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if !key.is_empty() && key.bytes().all(bare) { key.to_owned() } else { string(key) }
}

/// A basic string.
pub(super) fn string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() => {
                // To write to a string cannot fail.
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A line of a file, with `*` in the place of what is quoted behind a key whose name contains `secret`: a secret should not be there, and
/// must not be shown.
pub(super) fn masked(line: &str) -> Cow<'_, str> {
    let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '"' | '\'' | ' ' | '\t');
    let mut shown = Cow::Borrowed(line);
    // As many bytes, so that positions stay the same.
    let mut mask = |start, end| shown.to_mut().replace_range(start..end, &"*".repeat(end - start));
    if let Some((start, end)) = user_of_url(line) {
        mask(start, end);
    }
    for (key, _) in line.match_indices("secret") {
        let Some(sign) = line[key..].find('=').map(|at| key + at) else { break };
        let value = line[sign + 1..].trim_start();
        let is_table = value.trim_start_matches(['[', ' ', '\t']).starts_with('{');
        if line[key..sign].chars().all(is_key) && value.starts_with(['"', '\'', '[']) && !is_table {
            mask(line.len() - value.len() + 1, line.len());
            break;
        }
    }
    shown
}

/// Where the user and the password of a URL are, if it has some.
fn user_of_url(line: &str) -> Option<(usize, usize)> {
    let start = line.find("://")? + 3;
    let authority = line[start..].split(['/', '"', '\'', '?', '#', ' ']).next()?;
    Some((start, start + authority.rfind('@')?))
}

/// A value, with `rewrite` applied to every string in it.
pub(super) fn value(value: &DeValue<'_>, rewrite: &mut dyn FnMut(&str) -> String) -> String {
    match value {
        DeValue::String(text) => string(&rewrite(text)),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| self::value(item.get_ref(), rewrite)).collect();
            format!("[{}]", items.join(", "))
        }
        DeValue::Table(entries) => {
            let mut written = Vec::new();
            for (name, item) in entries {
                written.push(format!("{} = {}", key(name.get_ref()), self::value(item.get_ref(), rewrite)));
            }
            format!("{{ {} }}", written.join(", "))
        }
    }
}

/// Text that is safe for a terminal: control characters are escaped.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c.is_control() { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    Cow::Owned(escaped)
}

/// The same, cut after `most` characters.
pub(super) fn cut(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((end, _)) => Cow::Owned(format!("{}…", shown(&text[..end]))),
        None => shown(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(shown("plain ü"), "plain ü");
        assert_eq!(shown("a\u{1b}[31m\n\u{9b}"), "a\\u{1b}[31m\\n\\u{9b}");
        assert_eq!(cut("äöü\u{1b}", 3), "äöü…");
        assert_eq!(cut("äöü", 3), "äöü");
    }

    #[test]
    fn a_written_value_is_read_as_the_same_value() {
        for text in ["", "plain", "a \"b\" \\ c", "tab\t, line\n, bell\u{7}, del\u{7f}", "ä€😀"] {
            let written = string(text);
            let read = DeValue::parse(&written).unwrap();
            assert!(matches!(read.get_ref(), DeValue::String(read) if read == text), "{written}");
        }
        for same in ["[1, 0o17, true, \"x\"]", "{ a = 1.5, \"b c\" = [] }", "1979-05-27"] {
            assert_eq!(value(DeValue::parse(same).unwrap().get_ref(), &mut str::to_owned), same);
        }
        assert_eq!(path(&["server", "a.b", "routes", "/x"]), "server.\"a.b\".routes.\"/x\"");
    }

    #[test]
    fn a_secret_on_a_line_is_masked() {
        assert_eq!(masked("secret = \"hunter2\""), "secret = \"********");
        assert_eq!(masked("x = { my_secret='ä' }"), "x = { my_secret='*****");
        assert_eq!(masked("secret = [\"hunter2\","), "secret = [**********");
        assert_eq!(masked("connect = \"http://me:it@host/a@b\""), "connect = \"http://*****@host/a@b\"");
        assert_eq!(masked("secret = \"hun{ter2\""), "secret = \"*********");
        assert_eq!(masked("my-secret = { secret = \"hunter2\" }"), "my-secret = { secret = \"**********");
        assert_eq!(masked("{ url = \"http://a:b@c\", secret = \"d\" }"), "{ url = \"http://***@c\", secret = \"****");
        for open in [
            "connect = \"http://host/a@b\"",
            "secret = { file = \"backend.key\" }",
            "secret = [{ file = \"a\" }]",
            "a secret place",
            "# secret: = \"x\"",
        ] {
            assert_eq!(masked(open), open);
        }
    }
}
