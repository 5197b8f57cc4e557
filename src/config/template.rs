//! Templates: text with named holes, `user/{userid}/{compid}`.
//!
//! `{name}` is filled with a value of the request (a path parameter, else a query argument). `{name=text}` has a default. `{{` and `}}`
//! are braces. In the name of a channel, values are escaped ([`Template::channel`]), so that two different sets of values never result in
//! the same channel: `a/b` + `c` is not `a` + `b/c`. A template that is a single hole uses its value unchanged, so that a name means the
//! same channel on every route.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::channel_pattern::{self, ChannelPattern};
use super::tokens::CLAIM;

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    /// Derived from the parts.
    is_pattern: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Hole { name: String, default: Option<String> },
}

/// A mistake in a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    /// Its offset in the template, in bytes.
    pub at: usize,
    /// What is wrong, and what would be right.
    pub what: String,
}

/// The name of a hole for which the request has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing(pub String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "missing argument `{}`", self.0)
    }
}

impl Template {
    /// Reads a template. Names are made of ASCII letters, digits, `_` and `-`.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut at = 0;
        while let Some(brace) = text[at..].find(['{', '}']).map(|i| at + i) {
            plain.push_str(&text[at..brace]);
            let (sign, after) = text[brace..].split_at(1);
            if after.starts_with(sign) {
                plain.push_str(sign);
                at = brace + 2;
                continue;
            }
            let end = after.find(['{', '}']).filter(|&i| after.as_bytes()[i] == b'}');
            let Some(end) = end.filter(|_| sign == "{") else {
                let other = if sign == "{" { "}" } else { "{" };
                return Err(TemplateError {
                    at: brace,
                    what: format!("`{sign}` has no `{other}`; to write a brace as text, double it: `{sign}{sign}`"),
                });
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::hole(&after[..end], brace + 1)?);
            at = brace + 1 + end + 1;
        }
        plain.push_str(&text[at..]);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        let is_pattern = channel_pattern::is_wild(&written(&parts, |name| format!("{{{name}}}")));
        Ok(Template { parts, is_pattern })
    }

    /// The names of its holes that have no default, in order.
    pub fn needs(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Hole { name, default: None } => Some(name.as_str()),
            _ => None,
        })
    }

    /// The names of all its holes, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Hole { name, .. } => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// Whether two of its holes have no `/` between them. As a channel, `x` + `yz` and `xy` + `z` would be the same.
    pub fn is_ambiguous(&self) -> bool {
        let mut filled = false;
        self.parts.iter().any(|part| match part {
            Part::Hole { .. } => std::mem::replace(&mut filled, true),
            Part::Text(text) => {
                filled &= !text.contains('/');
                false
            }
        })
    }

    /// Whether it stands for all channels that match, as one of `channels`: a segment of its text is `*` or `**`. A value that fills
    /// a hole never makes it a pattern, and neither does the default of a hole.
    pub fn is_pattern(&self) -> bool {
        self.is_pattern
    }

    /// What is wrong with the `*` in its text as a pattern, and what would be right.
    pub(super) fn pattern_mistake(&self) -> Option<String> {
        channel_pattern::mistake(&written(&self.parts, |name| format!("{{{name}}}")))
    }

    /// A pattern that stands at least for every channel that some values result in. `None`: its text is no channel.
    pub(super) fn as_pattern(&self) -> Option<ChannelPattern> {
        if self.is_whole() {
            return ChannelPattern::parse("**").ok();
        }
        let marked = written(&self.parts, |_| HOLE.to_string());
        let segments = marked.split('/').map(|segment| if segment.contains(HOLE) { "*" } else { segment });
        ChannelPattern::parse(&segments.collect::<Vec<_>>().join("/")).ok()
    }

    /// Its text, if it has no holes.
    pub fn fixed(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The template filled with the values that `value` returns, unchanged.
    pub fn text<'v>(&self, value: impl Fn(&str) -> Option<Cow<'v, str>>) -> Result<String, Missing> {
        self.fill(|filled, text| filled.push_str(text), value)
    }

    /// The template filled as the name of a channel. `/`, `%`, `*` and control characters in values are percent-encoded, unless a value is
    /// the whole name.
    pub fn channel<'v>(&self, value: impl Fn(&str) -> Option<Cow<'v, str>>) -> Result<String, Missing> {
        if self.is_whole() { self.text(value) } else { self.fill(push_escaped, value) }
    }

    /// Whether it is a single hole and nothing else.
    pub fn is_whole(&self) -> bool {
        matches!(self.parts.as_slice(), [Part::Hole { .. }])
    }

    /// Whether some values result in the channel `name`. It may be wrongly `true` for a name with a `%`.
    pub fn can_be(&self, name: &str) -> bool {
        if self.is_whole() {
            return true;
        }
        // The offsets in `name` where the parts so far can end.
        let mut ends = vec![0];
        for part in &self.parts {
            let mut next = Vec::new();
            match part {
                Part::Text(text) => {
                    next.extend(
                        ends.iter().filter(|at| name[**at..].starts_with(text.as_str())).map(|at| at + text.len()),
                    );
                }
                // A hole can end anywhere from where it begins to the next slash. No end is added twice.
                Part::Hole { .. } => {
                    for at in ends {
                        let most = name[at..].find('/').map_or(name.len(), |slash| at + slash);
                        let from = next.last().map_or(at, |last: &usize| at.max(last + 1));
                        next.extend((from..=most).filter(|at| name.is_char_boundary(*at)));
                    }
                }
            }
            ends = next;
        }
        ends.contains(&name.len())
    }

    fn fill<'v>(
        &self,
        push: impl Fn(&mut String, &str),
        value: impl Fn(&str) -> Option<Cow<'v, str>>,
    ) -> Result<String, Missing> {
        let mut filled = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Hole { name, default } => match (value(name), default) {
                    (Some(text), _) => push(&mut filled, &text),
                    (None, Some(text)) => push(&mut filled, text),
                    (None, None) => return Err(Missing(name.clone())),
                },
            }
        }
        Ok(filled)
    }

    /// The template filled with bytes, for messages that are not text: `name` is replaced by `bytes`, other holes by their default or
    /// nothing.
    pub fn bytes(&self, name: &str, bytes: &[u8]) -> Vec<u8> {
        let mut filled = Vec::with_capacity(bytes.len() + 16);
        for part in &self.parts {
            match part {
                Part::Text(text) => filled.extend_from_slice(text.as_bytes()),
                Part::Hole { name: hole, .. } if hole == name => filled.extend_from_slice(bytes),
                Part::Hole { default, .. } => filled.extend_from_slice(default.as_deref().unwrap_or("").as_bytes()),
            }
        }
        filled
    }
}

/// No text of a channel contains this control character.
const HOLE: char = '\0';

/// The text of a template, with `hole` of its name in the place of each hole.
fn written(parts: &[Part], hole: impl Fn(&str) -> String) -> String {
    let mut written = String::new();
    for part in parts {
        match part {
            Part::Text(text) => written.push_str(text),
            Part::Hole { name, .. } => written.push_str(&hole(name)),
        }
    }
    written
}

/// Appends `text`, and escapes the characters that a value may not add to the name of a channel: the separator, the escape character,
/// the sign of a pattern, and control characters. Letters of all scripts stay as they are, as in the names in the file.
fn push_escaped(filled: &mut String, text: &str) {
    for piece in text.split_inclusive(is_escaped) {
        let odd = piece.chars().next_back().filter(|c| is_escaped(*c)).map_or(0, char::len_utf8);
        let (plain, odd) = piece.split_at(piece.len() - odd);
        filled.push_str(plain);
        filled.extend(utf8_percent_encode(odd, NON_ALPHANUMERIC));
    }
}

fn is_escaped(c: char) -> bool {
    matches!(c, '/' | '%' | '*') || c.is_control()
}

impl Part {
    fn hole(inside: &str, at: usize) -> Result<Part, TemplateError> {
        let (name, default) = match inside.split_once('=') {
            Some((name, default)) => (name, Some(default.to_owned())),
            None => (inside, None),
        };
        // A claim of a token is no parameter of a request.
        let bare = name.strip_prefix(CLAIM).unwrap_or(name);
        parameter_name(&format!("{{{inside}}}"), bare).map_err(|what| TemplateError { at, what })?;
        Ok(Part::Hole { name: name.to_owned(), default })
    }
}

/// Checks the name of a parameter, in a path or a template. The error is a sentence about the text as `written`.
pub(super) fn parameter_name<'n>(written: &str, name: &'n str) -> Result<&'n str, String> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        return Err(format!("`{written}` is not a parameter: a name consists of letters, digits, `_` and `-`"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str) -> Option<Cow<'static, str>> {
        match name {
            "a" => Some("x/y".into()),
            "b" => Some("50%".into()),
            _ => None,
        }
    }

    #[test]
    fn holes_are_filled_and_doubled_braces_are_braces() {
        let template = Template::parse("{{{a}}}:{b}").unwrap();
        assert_eq!(template.text(value).unwrap(), "{x/y}:50%");
        assert_eq!(template.names().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn values_are_escaped_in_the_name_of_a_channel() {
        let template = Template::parse("user/{a}/{b}").unwrap();
        assert_eq!(template.channel(value).unwrap(), "user/x%2Fy/50%25");
        let odd = Template::parse("x{c=//a\n%\u{85}}").unwrap();
        assert_eq!(odd.channel(value).unwrap(), "x%2F%2Fa%0A%25%C2%85");
    }

    #[test]
    fn only_the_text_of_a_template_makes_it_a_pattern() {
        for (text, is_pattern, channel) in [
            ("news/*", true, "news/*"),
            ("user/{a}/**", true, "user/%2A%2A/**"),
            ("*", true, "*"),
            ("user/{a}", false, "user/%2A%2A"),
            ("user/{b=*}/x", false, "user/%2A/x"),
            ("{a}", false, "**"),
            ("{b=*}", false, "*"),
            ("a*b", false, "a*b"),
        ] {
            let template = Template::parse(text).unwrap();
            assert_eq!(template.is_pattern(), is_pattern, "{text}");
            let filled = template.channel(|name| (name == "a").then_some("**".into())).unwrap();
            assert_eq!(filled, channel);
        }
        assert!(Template::parse("user/{a}*").unwrap().pattern_mistake().unwrap().contains("`{a}*`"));
        assert_eq!(Template::parse("user/{a}/*").unwrap().pattern_mistake(), None);
        for (text, pattern) in
            [("{a}", "**"), ("user/{a}", "user/*"), ("user/x{a}{b}/**", "user/*/**"), ("{{a}}", "{a}")]
        {
            assert_eq!(Template::parse(text).unwrap().as_pattern().unwrap().as_str(), pattern);
        }
    }

    #[test]
    fn a_value_that_is_the_whole_name_is_not_changed() {
        for name in ["zürich", "東京 & 大阪", "news?#", "", "sys/load", "50%", "a%2Fb"] {
            let template = Template::parse("{channel}").unwrap();
            assert_eq!(template.channel(|_| Some(name.into())).unwrap(), name);
        }
        assert_eq!(Template::parse("{channel=sys/load}").unwrap().channel(|_| None).unwrap(), "sys/load");
    }

    #[test]
    fn a_template_can_be_a_channel_if_some_values_result_in_it() {
        for (template, name, can) in [
            ("all", "all", true),
            ("all", "al", false),
            ("{channel}", "sys/load", true),
            ("user/{a}/{b}", "user/1/2", true),
            ("user/{a}/{b}", "user/1/2/3", false),
            ("user/{a}/{b}", "user//", true),
            ("user/{a}", "sys/load", false),
            ("{a}-{b}/c", "x-y-z/c", true),
            ("{a}-{b}/c", "x-y/z/c", false),
            ("{a}{b}{a}", "ü", true),
            ("{a}{b}{a}", "ü/", false),
        ] {
            assert_eq!(Template::parse(template).unwrap().can_be(name), can, "{template} {name}");
        }
        let many = Template::parse(&"{a}".repeat(80)).unwrap();
        assert!(!many.can_be(&format!("{}/", "x".repeat(255))));
    }

    #[test]
    fn two_holes_without_a_slash_between_them_are_ambiguous() {
        for (text, ambiguous) in
            [("{a}/{b}", false), ("u/{a}-x/{b}", false), ("{a}", false), ("{a}{b}", true), ("{a}-{b}/c", true)]
        {
            assert_eq!(Template::parse(text).unwrap().is_ambiguous(), ambiguous, "{text}");
        }
    }

    #[test]
    fn a_missing_value_is_an_error_unless_it_has_a_default() {
        assert_eq!(Template::parse("{c}").unwrap().text(value), Err(Missing("c".into())));
        assert_eq!(Template::parse("{c=all}").unwrap().text(value).unwrap(), "all");
        assert_eq!(Template::parse("{c=}").unwrap().text(value).unwrap(), "");
    }

    #[test]
    fn a_mistake_has_its_offset_in_the_template() {
        assert_eq!(Template::parse("ab{c").unwrap_err().at, 2);
        assert_eq!(Template::parse("ab}c").unwrap_err().at, 2);
        assert_eq!(Template::parse("a{b{c}}").unwrap_err().at, 1);
        assert_eq!(Template::parse("a{b c}").unwrap_err().at, 2);
        assert_eq!(Template::parse("{}").unwrap_err().at, 1);
    }
}
