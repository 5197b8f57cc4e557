//! The `redirect` route: where a path has moved to.

use percent_encoding::{AsciiSet, CONTROLS};

use super::keys::Section;
use super::reader::{Item, Table};
use super::report::Problem;
use super::routes::Routes;
use super::{Pattern, Template};

/// The hole for the rest of the path below the route's own.
pub const REST: &str = "rest";

/// What is encoded in the target as the file writes it: nothing that is allowed in a URL.
pub const NOT_IN_URL: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`').add(b'{').add(b'|').add(b'}');

/// A route that redirects.
#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    /// Where to: a path, or a URL with `http` or `https`. No hole is in the host.
    pub target: Template,
    /// 301, 302, 307 or 308.
    pub status: u16,
}

/// Whether a redirect takes all paths below its own: its target uses the rest.
pub(super) fn is_tree(section: Option<&Section>, item: &Item<'_>) -> bool {
    let is_redirect = section.is_some_and(|section| section.action().name == "redirect");
    let members = if is_redirect { item.members() } else { Vec::new() };
    let target = members.iter().find(|member| member.key() == "redirect").and_then(Item::as_text);
    target.and_then(|text| Template::parse(text).ok()).is_some_and(|target| target.names().any(|name| name == REST))
}

impl<'a> Routes<'_, 'a> {
    /// The route, whose path has these parameters.
    pub(super) fn redirect(&self, table: &Table<'a>, item: &Item<'a>, parameters: &[&str]) -> Option<Redirect> {
        let status = table.count("status");
        if let Some(item) = table.item("status").filter(|_| !matches!(status, 301 | 302 | 307 | 308)) {
            item.note(item.error("this status does not redirect").label("expected 301, 302, 307 or 308"));
        }
        let text = item.text("a URL or a path")?;
        let target = item.template()?;
        let known: Vec<&str> = parameters.iter().copied().chain([REST]).collect();
        item.only_holes(&target, &known, "a redirect uses the parts of its path; the query is kept as it is");
        if let Some(wrong) = mistake(text) {
            let problem = item.error("this is not where a redirect can lead").label(wrong);
            item.note(problem.help("for example `https://www.example.com/{rest}` or `/new`"));
            return None;
        }
        Some(Redirect { target, status: u16::try_from(status).ok()? })
    }
}

/// Reports a redirect of the paths of `pattern` to the same paths.
pub(super) fn note_loop(item: &Item<'_>, pattern: &Pattern, redirect: &Redirect) {
    let hole = |name: &str| Some(format!("{{{name}}}").into());
    let target = redirect.target.text(hole).unwrap_or_default();
    let (from, to) = match pattern.is_tree() {
        true => (format!("{}/{{{REST}}}", pattern.text().trim_end_matches('/')), target),
        false => (pattern.text().to_owned(), target),
    };
    if from == to {
        let problem = Problem::error(item.key_span(), "this route redirects to itself");
        item.note(
            problem.label("browsers would follow it for ever").help("redirect to another path, or to another host"),
        );
    }
}

/// What is wrong with a target.
fn mistake(text: &str) -> Option<&'static str> {
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some("expected the characters of a URL: others are written with `%`");
    }
    let after = match text.split_once("://") {
        Some(("http" | "https", after)) => after,
        _ if text.starts_with("//") || text.starts_with("/\\") => return Some("a path begins with one `/`"),
        _ if text.starts_with('/') => return None,
        _ => return Some("expected `https://`, `http://` or a path that begins with `/`"),
    };
    let host = after.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() {
        return Some("the host is missing");
    }
    if host.contains(['{', '}', '@', '\\']) {
        return Some("the host must be fixed: with a placeholder, a link could lead anywhere");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_a_fixed_host() {
        for good in ["/", "/new/{rest}", "https://example.com", "https://example.com/{a}?x={b}#c", "http://[::1]:8/x"] {
            assert_eq!(mistake(good), None, "{good}");
        }
        for bad in [
            "new",
            "//example.com",
            "/\\example.com",
            "https://",
            "https://{host}/",
            "https://example.com{rest}",
            "https://a@example.com/",
            "ftp://example.com/",
            "javascript:alert(1)",
            "/a b",
            "/ä",
        ] {
            assert!(mistake(bad).is_some(), "{bad}");
        }
    }
}
