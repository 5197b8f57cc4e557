//! Path patterns such as `/publish/{channel}`, and which one applies where several match a path.
//!
//! A pattern consists of literal segments and parameters (`{name}`, one whole segment, never empty). A route that serves a tree (a
//! static directory) takes all paths below its own. The most specific route applies: compared from the left, a literal segment is more
//! specific than a parameter, and an exact route is more specific than a tree.

use std::fmt;

use percent_encoding::percent_decode_str;

use super::template;

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    segments: Vec<Segment>,
    /// Whether it takes all paths below, too.
    tree: bool,
}

/// The part of a path between two slashes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// This text, decoded.
    Literal(String),
    /// Any text that is not empty; the name of the parameter.
    Parameter(String),
}

/// The paths that a pattern takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Paths(bool, Vec<Option<String>>);

impl Pattern {
    /// Reads a pattern; `tree`: it takes all paths below, too.
    ///
    /// # Errors
    /// A sentence for the operator: what is wrong, and what would be right.
    pub fn parse(text: &str, tree: bool) -> Result<Pattern, String> {
        let Some(inside) = text.strip_prefix('/') else {
            if text.contains("://") {
                return Err("write the path alone, without scheme and host, for example `/ws`".to_owned());
            }
            return Err(format!("a path starts with `/`: write `/{text}`"));
        };
        if let Some(odd) = text.chars().find(|c| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#')) {
            return Err(format!("a path cannot contain {odd:?}; query arguments are used in templates, as `{{name}}`"));
        }
        let inside = if tree { inside.strip_suffix('/').unwrap_or(inside) } else { inside };
        let mut segments: Vec<Segment> = Vec::new();
        for part in inside.split('/').filter(|_| !inside.is_empty()) {
            let segment = Segment::parse(part)?;
            if matches!(segment, Segment::Parameter(_)) && segments.contains(&segment) {
                return Err(format!("`{part}` is used twice in one path"));
            }
            segments.push(segment);
        }
        Ok(Pattern { text: text.to_owned(), segments, tree })
    }

    /// The pattern as the file writes it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its segments.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether it takes all paths below, too.
    pub fn is_tree(&self) -> bool {
        self.tree
    }

    /// The names of its parameters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Parameter(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }

    /// The paths that it takes. Two patterns for which this is equal hide each other.
    pub fn paths(&self) -> Paths {
        let segments = self.segments.iter().map(|segment| match segment {
            Segment::Literal(text) => Some(text.clone()),
            Segment::Parameter(_) => None,
        });
        Paths(self.tree, segments.collect())
    }

    /// A sort key; the more specific pattern is first.
    pub fn rank(&self) -> impl Ord + use<> {
        let kinds: Vec<u8> = self.segments.iter().map(|s| u8::from(matches!(s, Segment::Parameter(_)))).collect();
        (self.tree, std::cmp::Reverse(if self.tree { self.segments.len() } else { 0 }), kinds)
    }
}

impl Segment {
    fn parse(part: &str) -> Result<Segment, String> {
        let name = part.strip_prefix('{').and_then(|p| p.strip_suffix('}'));
        match name {
            Some(name) => template::parameter_name(part, name).map(|name| Segment::Parameter(name.to_owned())),
            None if part.contains(['{', '}']) => {
                Err(format!("a parameter is a whole segment, as in `/publish/{{channel}}`, but `{part}` is not"))
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
    fn the_most_specific_pattern_is_first() {
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
        assert_eq!(exact("/{x}").paths(), exact("/{y}").paths());
        assert_ne!(exact("/{x}").paths(), exact("/y").paths());
    }

    #[test]
    fn a_pattern_with_a_mistake_is_refused() {
        for bad in ["ws", "/a b", "/a?b", "/x{y}", "/{}", "/{a}/{a}"] {
            assert!(Pattern::parse(bad, false).is_err(), "{bad}");
        }
    }
}
