//! `cache` of a static route: how long caches may keep which files.
//!
//! A rule is a duration, which may be followed by `immutable` and `private`, or one of the words `revalidate` and `never`.

use super::glob::Glob;
use super::reader::Item;
use super::units;

/// The rules of one route.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
pub struct Caching {
    /// The longest pattern first; each with the value of `Cache-Control`.
    rules: Vec<(Glob, String)>,
}

/// The longest time: caches treat more as a year (RFC 2616 §14.21).
const SECONDS_MAX: u64 = 365 * 86_400;

impl Caching {
    /// The value of `Cache-Control` for the file at `path` below the directory. If several patterns match, the longest decides.
    pub fn control(&self, path: &[u8]) -> Option<&str> {
        self.rules.iter().find(|(glob, _)| glob.matches(path)).map(|(_, control)| control.as_str())
    }
}

/// Reads the table of rules.
pub(super) fn read(item: Item<'_>) -> Caching {
    let mut rules = Vec::new();
    for item in item.members() {
        let glob = Glob::parse(item.key());
        if let Err(help) = &glob {
            let problem = super::report::Problem::error(item.key_span(), "this is not a pattern of files");
            item.note(problem.label(help.as_str()));
        }
        let Some(text) = item.text("how long caches may keep these files") else { continue };
        match (control(text), glob) {
            (Ok(control), Ok(glob)) => rules.push((glob, control)),
            (Err(help), _) => item.note(item.error("this is not a rule for caches").label(help)),
            _ => {}
        }
    }
    rules.sort_by(|(one, _), (other, _)| (other.text().len(), one.text()).cmp(&(one.text().len(), other.text())));
    Caching { rules }
}

/// The value of `Cache-Control` for a rule. The error says what would be right.
fn control(text: &str) -> Result<String, String> {
    const HELP: &str = "expected `revalidate`, `never`, or a duration such as `1h` or `365d immutable`";
    let mut words = text.split_ascii_whitespace();
    let first = words.next().ok_or(HELP)?;
    let rest: Vec<&str> = words.collect();
    match first {
        "revalidate" if rest.is_empty() => return Ok("no-cache".to_owned()),
        "never" if rest.is_empty() => return Ok("no-store".to_owned()),
        _ if !first.starts_with(|c: char| c.is_ascii_digit()) => return Err(HELP.to_owned()),
        _ => {}
    }
    let years = first.strip_suffix('y').filter(|number| number.bytes().all(|b| b.is_ascii_digit()));
    if let Some(number) = years {
        return Err(format!(
            "write years as days: `{}d`",
            number.parse::<u64>().unwrap_or(1).saturating_mul(365).min(365)
        ));
    }
    let seconds = units::duration(first)?.as_secs();
    if seconds > SECONDS_MAX {
        return Err("expected at most `365d`".to_owned());
    }
    if let Some(odd) = rest.iter().find(|word| !matches!(**word, "immutable" | "private")) {
        return Err(format!("`{odd}` is unknown: a duration can be followed by `immutable` and `private`"));
    }
    let private = if rest.contains(&"private") { "private, " } else { "" };
    let immutable = if rest.contains(&"immutable") { ", immutable" } else { "" };
    Ok(format!("{private}max-age={seconds}{immutable}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_a_duration_or_a_word() {
        for (text, expected) in [
            ("revalidate", Ok("no-cache")),
            ("never", Ok("no-store")),
            ("1h", Ok("max-age=3600")),
            ("365d immutable", Ok("max-age=31536000, immutable")),
            ("10m private", Ok("private, max-age=600")),
            ("10m immutable private", Ok("private, max-age=600, immutable")),
            ("1y", Err("write years as days: `365d`")),
            ("366d", Err("expected at most `365d`")),
            ("1h forever", Err("`forever` is unknown: a duration can be followed by `immutable` and `private`")),
            ("never private", Err("expected `revalidate`, `never`, or a duration such as `1h` or `365d immutable`")),
            (" ", Err("expected `revalidate`, `never`, or a duration such as `1h` or `365d immutable`")),
        ] {
            assert_eq!(control(text).as_deref().map_err(String::as_str), expected, "{text}");
        }
    }
}
