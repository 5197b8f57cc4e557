//! Patterns of channel names: `news/*`, `user/**`.
//!
//! A name consists of segments with `/` between them. `*` in a pattern is any one segment (an empty one, too). `**` is any rest: one
//! segment or more; it can only be the last one. Every other segment is itself. A pattern without either is a single name.
//!
//! Which texts are patterns is decided where they are written: in `channels` of a route it is the text of the operator, never a value
//! that fills a placeholder. [`Template::channel`](super::Template::channel) escapes `*` in values.

use std::fmt;
use std::sync::Arc;

use super::limits::CHANNEL_BYTES_MAX;

/// A pattern of channel names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelPattern(Arc<str>);

/// The whole segments that stand for others.
const ONE: &str = "*";
const REST: &str = "**";

impl ChannelPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what is allowed.
    pub fn parse(text: &str) -> Result<ChannelPattern, String> {
        match text.len() {
            0 => return Err("the channel's name is empty".to_owned()),
            _ if text.contains(char::is_control) => {
                return Err("a channel's name has no control characters".to_owned());
            }
            1..=CHANNEL_BYTES_MAX => {}
            _ => return Err(format!("a channel's name may have at most {CHANNEL_BYTES_MAX} bytes")),
        }
        match mistake(text) {
            Some(mistake) => Err(mistake),
            None => Ok(ChannelPattern(text.into())),
        }
    }

    /// Whether it stands for more than one name.
    pub fn is_wild(&self) -> bool {
        is_wild(&self.0)
    }

    /// Whether the channel `name` is one of those that it stands for.
    pub fn matches(&self, name: &str) -> bool {
        ChannelPattern::text_matches(&self.0, name)
    }

    /// The same for a pattern as text.
    pub fn text_matches(pattern: &str, name: &str) -> bool {
        let (mut pattern, mut name) = (pattern.split('/'), name.split('/'));
        loop {
            match (pattern.next(), name.next()) {
                (Some(REST), Some(_)) | (None, None) => return true,
                (Some(one), Some(segment)) if one == ONE || one == segment => {}
                _ => return false,
            }
        }
    }

    /// Whether it stands for every name that `other` stands for.
    pub fn covers(&self, other: &ChannelPattern) -> bool {
        let (mut ours, mut theirs) = (self.0.split('/'), other.0.split('/'));
        loop {
            match (ours.next(), theirs.next()) {
                (Some(REST), Some(_)) | (None, None) => return true,
                // Theirs may be several segments.
                (Some(_), Some(REST)) => return false,
                (Some(one), Some(segment)) if one == ONE || one == segment => {}
                _ => return false,
            }
        }
    }

    /// Its text. [`parse`](ChannelPattern::parse) makes the same pattern of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether one of the segments of `text` stands for others.
pub(super) fn is_wild(text: &str) -> bool {
    text.split('/').any(|segment| segment == ONE || segment == REST)
}

/// What is wrong with the `*` in `text`, and what would be right.
pub(super) fn mistake(text: &str) -> Option<String> {
    let mut segments = text.split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            ONE => {}
            REST if segments.peek().is_none() => {}
            REST => return Some("`**` stands for any rest, so it can only be the last segment".to_owned()),
            _ if segment.contains('*') => {
                return Some(format!(
                    "`*` and `**` stand for whole segments, but `{segment}` has other characters, too"
                ));
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> ChannelPattern {
        ChannelPattern::parse(text).unwrap()
    }

    #[test]
    fn a_star_is_one_segment_and_two_are_any_rest() {
        for (text, name, matches) in [
            ("news", "news", true),
            ("news", "news/7", false),
            ("news/*", "news/7", true),
            ("news/*", "news/", true),
            ("news/*", "news", false),
            ("news/*", "news/7/8", false),
            ("news/*", "newsy/7", false),
            ("news/**", "news/7", true),
            ("news/**", "news/7/8", true),
            ("news/**", "news", false),
            ("*", "news", true),
            ("*", "news/7", false),
            ("**", "news/7", true),
            ("*/7", "news/7", true),
            ("*/7", "news/8", false),
            ("*/*/x/**", "a/b/x/c", true),
            ("*/*/x/**", "a/b/x", false),
            ("user/%2A/*", "user/%2A/1", true),
            ("user/%2A/*", "user/7/1", false),
            // Names may contain any characters.
            ("news/*", "news/*", true),
            ("zürich/*", "zürich/東京", true),
        ] {
            assert_eq!(pattern(text).matches(name), matches, "{text} {name}");
        }
    }

    #[test]
    fn a_pattern_covers_another_if_it_stands_for_all_its_names() {
        for (one, other, covers) in [
            ("news/*", "news/7", true),
            ("news/*", "news/*", true),
            ("news/*", "news/**", false),
            ("news/**", "news/*", true),
            ("news/**", "news/7/**", true),
            ("news/**", "news", false),
            ("**", "*/x", true),
            ("*/**", "**", false),
            ("news/7", "news/*", false),
            ("*/7", "news/7", true),
        ] {
            assert_eq!(pattern(one).covers(&pattern(other)), covers, "{one} {other}");
        }
    }

    #[test]
    fn a_star_beside_other_characters_is_a_mistake() {
        for (text, says) in [
            ("news*", "`news*` has other characters"),
            ("a/b*/c", "`b*` has other characters"),
            ("***", "`***` has other characters"),
            ("**/x", "only be the last"),
            ("a/**/**", "only be the last"),
            ("", "empty"),
            ("a\n", "control"),
        ] {
            let error = ChannelPattern::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        assert!(ChannelPattern::parse(&"x".repeat(CHANNEL_BYTES_MAX)).is_ok());
        assert!(ChannelPattern::parse(&"x".repeat(CHANNEL_BYTES_MAX + 1)).is_err());
        assert!(pattern("a/*").is_wild() && pattern("**").is_wild() && !pattern("a").is_wild());
        assert_eq!(pattern("a/*").as_str(), "a/*");
    }

    fn patterns() -> impl Strategy<Value = String> {
        let segment = prop::sample::select(vec!["a", "b", "*"]);
        (prop::collection::vec(segment, 0..4), any::<bool>()).prop_map(|(mut segments, rest)| {
            if rest || segments.is_empty() {
                segments.push("**");
            }
            segments.join("/")
        })
    }

    /// Every name of up to five segments of `a`, `b` and `c`. With them each two of the patterns above differ, unless they stand
    /// for the same names.
    fn names() -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let mut longest = vec![String::new()];
        for _ in 0..5 {
            let longer = |name: &String| ["a", "b", "c"].map(|segment| format!("{name}/{segment}"));
            longest = longest.iter().flat_map(longer).collect();
            all.extend(longest.iter().map(|name| name[1..].to_owned()));
        }
        all
    }

    proptest! {
        #[test]
        fn covers_says_what_matches_says(one in patterns(), other in patterns()) {
            let (one, other) = (pattern(&one), pattern(&other));
            let all = names().iter().all(|name| !other.matches(name) || one.matches(name));
            prop_assert_eq!(one.covers(&other), all);
        }
    }
}
