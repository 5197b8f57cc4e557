//! Path patterns: `/publish/{channel}`, and which of several that match a path is meant.
//!
//! A pattern is literal segments and parameters (`{name}`, one whole segment, never empty). A route that serves a tree (static
//! directories) takes everything below its path. The most specific route wins: compared from the left, a literal
//! segment beats a parameter, and an exact route beats a tree.

use std::fmt;

use percent_encoding::percent_decode_str;

use super::template;

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    segments: Vec<Segment>,
    /// Takes everything below.
    tree: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Parameter(String),
}

/// What a path gave a pattern: parameters by name, and what is left below a tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Match<'p> {
    /// Parameters, percent-decoded, in order.
    pub parameters: Vec<(&'p str, String)>,
    /// What follows a tree's own path, as it was sent (still encoded), without a leading slash.
    pub rest: &'p str,
}

impl Pattern {
    /// Reads a pattern; `tree` says whether it takes everything below its path.
    ///
    /// # Errors
    /// A sentence for the operator: what is wrong, and what would do.
    pub fn parse(text: &str, tree: bool) -> Result<Pattern, String> {
        let Some(inside) = text.strip_prefix('/') else {
            if text.contains("://") {
                return Err("a path is what follows the address, as in `/ws`".to_owned());
            }
            return Err(format!("a path starts with `/`: write `/{text}`"));
        };
        if let Some(odd) = text.chars().find(|c| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#')) {
            return Err(format!("a path holds no {odd:?}: arguments are named in templates, as in `{{name}}`"));
        }
        let inside = if tree { inside.strip_suffix('/').unwrap_or(inside) } else { inside };
        let mut segments: Vec<Segment> = Vec::new();
        for part in inside.split('/').filter(|_| !inside.is_empty()) {
            let segment = Segment::parse(part)?;
            if matches!(segment, Segment::Parameter(_)) && segments.contains(&segment) {
                return Err(format!("`{part}` stands twice in one path"));
            }
            segments.push(segment);
        }
        Ok(Pattern { text: text.to_owned(), segments, tree })
    }

    /// The pattern as the file writes it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names of its parameters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Parameter(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }

    /// Whether both take exactly the same paths, so that one of them could never be reached.
    pub fn same_paths(&self, other: &Pattern) -> bool {
        let alike = |(a, b): (&Segment, &Segment)| match (a, b) {
            (Segment::Literal(a), Segment::Literal(b)) => a == b,
            (Segment::Parameter(_), Segment::Parameter(_)) => true,
            _ => false,
        };
        self.tree == other.tree
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(alike)
    }

    /// A key that sorts the more specific pattern first.
    pub fn rank(&self) -> impl Ord + use<> {
        let kinds: Vec<u8> = self.segments.iter().map(|s| u8::from(matches!(s, Segment::Parameter(_)))).collect();
        (self.tree, std::cmp::Reverse(if self.tree { self.segments.len() } else { 0 }), kinds)
    }

    /// What `path` (percent-encoded, without a query) gives this pattern; `None`: it does not match.
    pub fn matches<'p>(&'p self, path: &'p str) -> Option<Match<'p>> {
        let mut found = Match::default();
        let mut rest = Some(path.strip_prefix('/')?);
        for segment in &self.segments {
            let (part, after) = match rest?.split_once('/') {
                Some((part, after)) => (part, Some(after)),
                None => (rest?, None),
            };
            let part = percent_decode_str(part).decode_utf8().ok()?;
            match segment {
                Segment::Literal(text) if *text == part => {}
                Segment::Parameter(name) if !part.is_empty() => found.parameters.push((name, part.into_owned())),
                _ => return None,
            }
            rest = after;
        }
        match rest {
            None => Some(found),
            Some(rest) if self.tree => {
                found.rest = rest;
                Some(found)
            }
            // `/` itself has no segments, and leaves an empty rest.
            Some("") if self.segments.is_empty() || self.text.ends_with('/') => Some(found),
            Some(_) => None,
        }
    }
}

impl Segment {
    fn parse(part: &str) -> Result<Segment, String> {
        let name = part.strip_prefix('{').and_then(|p| p.strip_suffix('}'));
        match name {
            Some(name) => template::parameter_name(part, name).map(|name| Segment::Parameter(name.to_owned())),
            None if part.contains(['{', '}']) => {
                Err(format!("a parameter is a whole segment, as in `/publish/{{channel}}`; `{part}` is not"))
            }
            None => Ok(Segment::Literal(percent_decode_str(part).decode_utf8_lossy().into_owned())),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> Pattern {
        Pattern::parse(text, false).unwrap()
    }

    #[test]
    fn parameters_are_decoded_and_never_empty() {
        let pattern = exact("/publish/{channel}");
        let found = pattern.matches("/publish/a%2Fb").unwrap();
        assert_eq!(found.parameters, [("channel", "a/b".to_owned())]);
        assert!(pattern.matches("/publish/").is_none());
        assert!(pattern.matches("/publish").is_none());
        assert!(pattern.matches("/publish/a/b").is_none());
    }

    #[test]
    fn root_matches_only_itself_unless_a_tree() {
        assert!(exact("/").matches("/").is_some());
        assert!(exact("/").matches("/x").is_none());
        let tree = Pattern::parse("/", true).unwrap();
        assert_eq!(tree.matches("/a/b").unwrap().rest, "a/b");
        let below = Pattern::parse("/doc/", true).unwrap();
        assert_eq!(below.matches("/doc/a").unwrap().rest, "a");
        assert_eq!(below.matches("/doc").unwrap().rest, "");
        assert!(below.matches("/docs").is_none());
    }

    #[test]
    fn the_most_specific_sorts_first() {
        let mut all = [
            Pattern::parse("/", true).unwrap(),
            exact("/{x}"),
            exact("/ws"),
            Pattern::parse("/doc", true).unwrap(),
            exact("/{x}/b"),
            exact("/a/{x}"),
        ];
        all.sort_by_key(Pattern::rank);
        let order: Vec<_> = all.iter().map(Pattern::text).collect();
        assert_eq!(order, ["/ws", "/a/{x}", "/{x}", "/{x}/b", "/doc", "/"]);
        assert!(exact("/{x}").same_paths(&exact("/{y}")));
        assert!(!exact("/{x}").same_paths(&exact("/y")));
    }

    #[test]
    fn mistakes_are_named() {
        for bad in ["ws", "/a b", "/a?b", "/x{y}", "/{}", "/{a}/{a}"] {
            assert!(Pattern::parse(bad, false).is_err(), "{bad}");
        }
    }
}
