//! What a client subscribes to: one channel, or all channels whose names match a pattern.

use std::sync::Arc;

use crate::config::ChannelPattern;

/// One channel by its name, or a pattern of names. In a pattern `*` stands for one segment, and a final `**` for one or more.
/// Segments are separated by `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selector {
    /// The name, or the pattern.
    pub text: Arc<str>,
    /// Whether it is a pattern. A channel may have a name with `*` in it.
    pub is_pattern: bool,
}

impl Selector {
    /// One channel.
    pub fn name(name: impl Into<Arc<str>>) -> Selector {
        Selector { text: name.into(), is_pattern: false }
    }

    /// All channels that match.
    pub fn pattern(pattern: impl Into<Arc<str>>) -> Selector {
        Selector { text: pattern.into(), is_pattern: true }
    }

    /// Whether one of these patterns stands for all that is selected.
    pub fn is_one_of(&self, allowed: &[ChannelPattern]) -> bool {
        match ChannelPattern::parse(&self.text).ok().filter(|_| self.is_pattern) {
            Some(pattern) => allowed.iter().any(|one| one.covers(&pattern)),
            None => !self.is_pattern && allowed.iter().any(|one| one.matches(&self.text)),
        }
    }

    /// Whether a channel is selected.
    pub fn selects(&self, channel: &str) -> bool {
        if self.is_pattern { ChannelPattern::text_matches(&self.text, channel) } else { *self.text == *channel }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_select_by_segments() {
        let cases = [
            ("news/*", "news/7", true),
            ("news/*", "news", false),
            ("news/*", "news/7/x", false),
            ("*/7", "news/7", true),
            ("*", "news", true),
            ("*", "a/b", false),
            ("**", "a/b", true),
            ("**", "a", true),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a/*/c", "a/b/c", true),
            ("a/*/c", "a/b/d", false),
            ("a", "a", true),
        ];
        for (pattern, channel, expected) in cases {
            assert_eq!(Selector::pattern(pattern).selects(channel), expected, "{pattern} {channel}");
        }
        assert!(!Selector::name("*").selects("a") && Selector::name("*").selects("*"));
    }
}
