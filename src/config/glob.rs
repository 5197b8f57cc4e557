//! Patterns of paths below a directory: `*.html`, `assets/**`.
//!
//! `*` stands for any part of a name, `**` for any number of directories. A pattern without a slash is compared with the name of
//! a file, in whatever directory it is; others with the whole path.

/// A pattern of paths.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Glob {
    text: String,
}

impl Glob {
    /// Reads a pattern. The error says what would be right.
    pub(super) fn parse(text: &str) -> Result<Glob, String> {
        let inside = text.strip_prefix('/').unwrap_or(text);
        if inside.is_empty() {
            return Err("write a pattern such as `*.html` or `assets/**`".to_owned());
        }
        if inside.ends_with('/') {
            return Err(format!("for everything below a directory write `{inside}**`"));
        }
        for segment in inside.split('/') {
            if matches!(segment, "" | "." | "..") {
                return Err("a pattern has the names of directories, with one `/` between two".to_owned());
            }
            if segment.contains("**") && segment != "**" {
                return Err("`**` stands alone between slashes".to_owned());
            }
        }
        Ok(Glob { text: text.to_owned() })
    }

    /// The pattern as the file writes it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it stands for `path`, a path below the directory without a slash at its beginning.
    pub fn matches(&self, path: &[u8]) -> bool {
        if !self.text.contains('/') && self.text != "**" {
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            return is_name(self.text.as_bytes(), name);
        }
        let pattern: Vec<&[u8]> = self.text.trim_start_matches('/').split('/').map(str::as_bytes).collect();
        let path: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        fits(&pattern, &path, |pattern| *pattern == b"**", |pattern, name| is_name(pattern, name))
    }
}

/// Whether one name fits a pattern with `*`.
fn is_name(pattern: &[u8], name: &[u8]) -> bool {
    fits(pattern, name, |byte| *byte == b'*', |one, other| one == other)
}

/// Whether `given` fits `pattern`, in which some elements stand for any number of elements. It takes at most as many steps as the
/// product of both lengths: only the last of these elements is tried again.
fn fits<P, G>(pattern: &[P], given: &[G], is_any: impl Fn(&P) -> bool, is_one: impl Fn(&P, &G) -> bool) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut again: Option<(usize, usize)> = None;
    while seen < given.len() {
        match pattern.get(at) {
            Some(element) if is_any(element) => {
                at += 1;
                again = Some((at, seen));
            }
            Some(element) if is_one(element, &given[seen]) => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((after, from)) = again else { return false };
                (at, seen) = (after, from + 1);
                again = Some((after, from + 1));
            }
        }
    }
    pattern[at..].iter().all(is_any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_names_or_for_paths() {
        for (pattern, path, expected) in [
            ("*.html", "index.html", true),
            ("*.html", "a/b/index.html", true),
            ("*.html", "index.htm", false),
            ("*.min.*", "a.min.js", true),
            ("*", "a/b", true),
            ("**", "a/b", true),
            ("index.html", "a/index.html", true),
            ("/index.html", "index.html", true),
            ("/index.html", "a/index.html", false),
            ("assets/**", "assets/a/b.js", true),
            ("assets/**", "assets/b.js", true),
            ("assets/**", "other/assets/b.js", false),
            ("**/assets/*", "other/assets/b.js", true),
            ("**/assets/*", "assets/b.js", true),
            ("**/assets/*", "assets/c/b.js", false),
            ("a/*/c", "a/b/c", true),
            ("a/*/c", "a/b/b/c", false),
            ("a/**/c", "a/b/b/c", true),
            ("a/**/c", "a/c", true),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXc", false),
        ] {
            assert_eq!(Glob::parse(pattern).unwrap().matches(path.as_bytes()), expected, "{pattern} {path}");
        }
        for bad in ["", "/", "assets/", "a//b", "../a", "a/**b"] {
            assert!(Glob::parse(bad).is_err(), "{bad}");
        }
        // Bounded, although each star could stand for anything.
        assert!(!Glob::parse(&"*a".repeat(50)).unwrap().matches("a".repeat(4000).replace('a', "b").as_bytes()));
    }
}
