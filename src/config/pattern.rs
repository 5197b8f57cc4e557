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

/// What stands between two slashes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// This text, decoded.
    Literal(String),
    /// Any text but an empty one, under this name.
    Parameter(String),
}

/// Which paths a pattern takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Paths(bool, Vec<Option<String>>);

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

    /// What it is made of.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether it takes everything below, too.
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

    /// Which paths it takes: the same for two patterns of which one could never be reached.
    pub fn paths(&self) -> Paths {
        let segments = self.segments.iter().map(|segment| match segment {
            Segment::Literal(text) => Some(text.clone()),
            Segment::Parameter(_) => None,
        });
        Paths(self.tree, segments.collect())
    }

    /// A key that sorts the more specific pattern first.
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
        assert_eq!(exact("/{x}").paths(), exact("/{y}").paths());
        assert_ne!(exact("/{x}").paths(), exact("/y").paths());
    }

    #[test]
    fn mistakes_are_named() {
        for bad in ["ws", "/a b", "/a?b", "/x{y}", "/{}", "/{a}/{a}"] {
            assert!(Pattern::parse(bad, false).is_err(), "{bad}");
        }
    }
}
