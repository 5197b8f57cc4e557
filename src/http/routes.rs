//! Finds the route of a path, in a tree of segments. The cost depends on the length of the path, not on the number of routes.
//!
//! A path is split and decoded once, up to the depth of the longest pattern. At each node the literal segment is tried before the
//! parameter, so that the most specific route is found first: an exact route before a tree, and among trees the deepest.

use std::borrow::Cow;
use std::collections::HashMap;

use percent_encoding::percent_decode_str;
use smallvec::SmallVec;

use crate::config::Pattern;
use crate::config::pattern::Segment;

/// The result for a path: parameters by name, and the rest below a tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Match<'p> {
    /// Parameters, percent-decoded, in order.
    pub parameters: Vec<(&'p str, String)>,
    /// The part of the path below a tree, percent-encoded as it was sent, without a leading slash.
    pub rest: &'p str,
}

/// The patterns, by number.
#[derive(Debug, Default)]
pub struct Routes {
    patterns: Vec<Pattern>,
    /// The first is the root.
    nodes: Vec<Node>,
    /// How many segments the longest pattern has.
    depth: usize,
}

/// A common prefix of patterns.
#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, usize>,
    parameter: Option<usize>,
    /// The route that ends here.
    exact: Option<usize>,
    /// The tree that begins here.
    tree: Option<usize>,
}

/// A path, split into segments.
struct Segments<'p> {
    path: &'p str,
    /// The decoded segments: at most as many as the longest pattern has, and only those before the first that is not UTF-8.
    decoded: SmallVec<[Cow<'p, str>; 8]>,
    /// How many segments it has. Counting stops when there are more than in any pattern.
    count: usize,
}

/// A route that was found, and how many segments it matched.
#[derive(Clone, Copy)]
struct Found {
    route: usize,
    depth: usize,
}

impl Routes {
    /// The patterns, numbered in their order. Of two that match the same paths, the first one is used.
    pub fn new(patterns: impl IntoIterator<Item = Pattern>) -> Routes {
        let mut routes = Routes { nodes: vec![Node::default()], ..Routes::default() };
        for pattern in patterns {
            routes.add(pattern);
        }
        routes
    }

    fn add(&mut self, pattern: Pattern) {
        let mut at = 0;
        for segment in pattern.segments() {
            let fresh = self.nodes.len();
            let node = &mut self.nodes[at];
            at = match segment {
                Segment::Literal(text) => *node.literals.entry(text.as_str().into()).or_insert(fresh),
                Segment::Parameter(_) => *node.parameter.get_or_insert(fresh),
            };
            if at == fresh {
                self.nodes.push(Node::default());
            }
        }
        let node = &mut self.nodes[at];
        let end = if pattern.is_tree() { &mut node.tree } else { &mut node.exact };
        end.get_or_insert(self.patterns.len());
        self.depth = self.depth.max(pattern.segments().len());
        self.patterns.push(pattern);
    }

    /// The number of the route of `path` (percent-encoded, without a query), and its match.
    pub fn find<'p>(&'p self, path: &'p str) -> Option<(usize, Match<'p>)> {
        let segments = Segments::of(path, self.depth)?;
        let mut tree = None;
        let found = self.descend(0, 0, &segments, &mut tree).or(tree)?;
        let pattern = &self.patterns[found.route];
        let decoded = pattern.segments().iter().zip(&segments.decoded);
        let parameters = decoded.filter_map(|(segment, value)| match segment {
            Segment::Parameter(name) => Some((name.as_str(), value.to_string())),
            Segment::Literal(_) => None,
        });
        let rest = if pattern.is_tree() { segments.from(found.depth) } else { "" };
        Some((found.route, Match { parameters: parameters.collect(), rest }))
    }

    /// The exact route at or below `node`, after `depth` segments. The deepest tree on the way is stored in `tree`.
    fn descend(&self, node: usize, depth: usize, segments: &Segments<'_>, tree: &mut Option<Found>) -> Option<Found> {
        let node = &self.nodes[node];
        if let Some(route) = node.tree
            && tree.is_none_or(|found| found.depth < depth)
        {
            *tree = Some(Found { route, depth });
        }
        if depth == segments.count {
            return node.exact.map(|route| Found { route, depth });
        }
        let segment = segments.decoded.get(depth)?;
        let literal = node.literals.get(&**segment);
        let parameter = node.parameter.as_ref().filter(|_| !segment.is_empty());
        literal.into_iter().chain(parameter).find_map(|next| self.descend(*next, depth + 1, segments, tree))
    }
}

impl<'p> Segments<'p> {
    /// Splits `path`, up to `most` segments. The path `/` has none. `None`: it does not begin with a slash.
    fn of(path: &'p str, most: usize) -> Option<Segments<'p>> {
        let inside = path.strip_prefix('/')?;
        let mut segments = Segments { path, decoded: SmallVec::new(), count: 0 };
        for part in inside.split('/').filter(|_| !inside.is_empty()) {
            segments.count += 1;
            if segments.count > most {
                break;
            }
            if segments.decoded.len() + 1 == segments.count
                && let Ok(decoded) = percent_decode_str(part).decode_utf8()
            {
                segments.decoded.push(decoded);
            }
        }
        Some(segments)
    }

    /// The part after the first `depth` segments.
    fn from(&self, depth: usize) -> &'p str {
        let end = self.path.match_indices('/').nth(depth);
        end.map_or("", |(slash, _)| &self.path[slash + 1..])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn routes(patterns: &[(&str, bool)]) -> Routes {
        Routes::new(patterns.iter().map(|(text, tree)| Pattern::parse(text, *tree).unwrap()))
    }

    fn found<'r>(routes: &'r Routes, path: &'r str) -> Option<(&'r str, Match<'r>)> {
        routes.find(path).map(|(route, found)| (routes.patterns[route].text(), found))
    }

    #[test]
    fn parameters_are_decoded_and_never_empty() {
        let routes = routes(&[("/publish/{channel}", false)]);
        let (_, given) = found(&routes, "/publish/a%2Fb").unwrap();
        assert_eq!(given.parameters, [("channel", "a/b".to_owned())]);
        for none in ["/publish/", "/publish", "/publish/a/b", "/publish/%ff", "publish/a", "*", ""] {
            assert_eq!(found(&routes, none), None, "{none}");
        }
    }

    #[test]
    fn the_root_matches_only_itself_unless_it_is_a_tree() {
        let root = routes(&[("/", false)]);
        assert!(found(&root, "/").is_some());
        assert!(found(&root, "/x").is_none());
        let trees = routes(&[("/", true), ("/doc/", true)]);
        for (path, route, rest) in [
            ("/", "/", ""),
            ("/a/b", "/", "a/b"),
            ("/a//%ff/", "/", "a//%ff/"),
            ("/doc", "/doc/", ""),
            ("/doc/", "/doc/", ""),
            ("/doc/a/b", "/doc/", "a/b"),
            ("/d%6fc/%2F", "/doc/", "%2F"),
            ("/docs", "/", "docs"),
        ] {
            let (text, given) = found(&trees, path).unwrap();
            assert_eq!((text, given.rest), (route, rest), "{path}");
        }
    }

    #[test]
    fn the_most_specific_route_wins() {
        let routes = routes(&[
            ("/", true),
            ("/{x}/{y}", false),
            ("/{x}/b", false),
            ("/a/{x}", false),
            ("/a/b/c", false),
            ("/doc", true),
            ("/{x}/deep", true),
        ]);
        for (path, route) in [
            ("/a/b", "/a/{x}"),
            ("/c/b", "/{x}/b"),
            ("/c/c", "/{x}/{y}"),
            ("/a/b/c", "/a/b/c"),
            ("/a/b/d", "/"),
            ("/doc/b", "/{x}/b"),
            ("/doc/b/c", "/doc"),
            ("/doc/deep/c", "/{x}/deep"),
            ("/a/deep", "/a/{x}"),
            ("/b/deep/x", "/{x}/deep"),
            ("/x", "/"),
        ] {
            assert_eq!(found(&routes, path).unwrap().0, route, "{path}");
        }
    }

    proptest! {
        /// The tree finds the same route as a search through all patterns, the most specific first.
        #[test]
        fn the_tree_finds_the_same_route_as_a_list(
            patterns in prop::collection::vec(("(/(a|b|\\{p\\})){0,3}", any::<bool>()), 1..8),
            path in "(/(a|b|c|)){1,4}",
        ) {
            let parsed = patterns.iter().enumerate().map(|(n, (text, tree))| {
                let mut text = text.clone();
                for name in 0..3 {
                    text = text.replacen("{p}", &format!("{{n{n}x{name}}}"), 1);
                }
                Pattern::parse(if text.is_empty() { "/" } else { &text }, *tree).unwrap()
            });
            let parsed: Vec<Pattern> = parsed.collect();
            let fits = |pattern: &&Pattern| {
                let parts: Vec<&str> = path[1..].split('/').filter(|_| path != "/").collect();
                let enough = if pattern.is_tree() { parts.len() >= pattern.segments().len() } else { parts.len() == pattern.segments().len() };
                enough && pattern.segments().iter().zip(&parts).all(|(segment, part)| match segment {
                    Segment::Literal(text) => text == part,
                    Segment::Parameter(_) => !part.is_empty(),
                })
            };
            let listed = parsed.iter().filter(fits).min_by_key(|pattern| pattern.rank());
            let routes = Routes::new(parsed.iter().cloned());
            let tree = routes.find(&path).map(|(route, _)| &routes.patterns[route]);
            prop_assert!(tree.map(Pattern::rank) == listed.map(Pattern::rank), "{:?} {:?}", tree, listed);
        }
    }
}
