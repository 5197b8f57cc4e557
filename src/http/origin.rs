//! Which pages may talk to a route (RFC 6454, Fetch's `Sec-Fetch-Site`).
//!
//! A browser lets any page open a WebSocket or post a form to any address, loopback included, and says in `Origin` which page
//! it was. So a route takes only pages from its own address unless it is told otherwise; programs that are not browsers send no `Origin` and are
//! not concerned. On a loopback address a page's own name must be a loopback name too: a foreign name that resolves to 127.0.0.1
//! (DNS rebinding) would otherwise look like "the same".

use http::HeaderName;
use http::header::{HOST, HeaderMap, ORIGIN};

use crate::config::Origins;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Checks a request against `origins`. The `Origin` it may be answered to, if it named one. `unnamed`: a page's browser may ask this without
/// naming its origin, as it does where it reads from what it takes for the same one.
///
/// # Errors
/// A sentence for the developer of the page: what was refused, and what would allow it.
pub fn check<'h>(
    origins: &Origins,
    headers: &'h HeaderMap,
    unnamed: bool,
    on_loopback: bool,
) -> Result<Option<&'h str>, String> {
    let host = text(headers, &HOST).unwrap_or("");
    let Some(origin) = headers.get(ORIGIN) else {
        return match text(headers, &SEC_FETCH_SITE) {
            _ if *origins == Origins::Any => Ok(None),
            Some(site @ ("cross-site" | "same-site")) => Err(format!(
                "a page of another origin ({site}) asked for this; origins = \"any\" on the route would allow it"
            )),
            _ if unnamed && on_loopback && !known_name(host, origins) => {
                Err(format!("Host {host:?} is no name of this machine's loopback address"))
            }
            _ => Ok(None),
        };
    };
    let origin = origin.to_str().map_err(|_| "Origin is not text".to_owned())?;
    let allowed = match origins {
        Origins::Any => true,
        Origins::Listed(list) if list.iter().any(|listed| listed.eq_ignore_ascii_case(origin)) => true,
        Origins::Same | Origins::Listed(_) => is_same(origin, host) && (!on_loopback || is_loopback_name(host)),
    };
    if allowed {
        return Ok(Some(origin));
    }
    let which = if Origins::can_list(origin) { format!("[\"{origin}\"]") } else { "\"any\"".to_owned() };
    Err(format!("Origin {origin} is not allowed here: origins = {which} on the route or its server would allow it"))
}

/// Whether a page of `origin` came from the very address that `host` names.
fn is_same(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    // No page has an origin of `ws:`, but ws4py says so where a page would say `http:`.
    let port = match scheme {
        "http" | "ws" => "80",
        "https" | "wss" => "443",
        _ => return false,
    };
    let (a, b) = (split_port(authority), split_port(host));
    !a.0.is_empty() && a.0.eq_ignore_ascii_case(b.0) && a.1.unwrap_or(port) == b.1.unwrap_or(port)
}

/// Name and port of `name:port`, `[::1]:port` or either without its port.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (name, Some(port)),
        _ => (authority, None),
    }
}

fn is_loopback_name(host: &str) -> bool {
    let name = split_port(host).0.to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || name.ends_with(".localhost")
        || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether `host` cannot be a foreign name pointed at this machine: an address, a loopback name, or one the route lists.
fn known_name(host: &str, origins: &Origins) -> bool {
    let name = split_port(host).0;
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let listed =
        |origin: &String| origin.split_once("://").is_some_and(|(_, o)| split_port(o).0.eq_ignore_ascii_case(name));
    address.parse::<std::net::IpAddr>().is_ok()
        || is_loopback_name(host)
        || matches!(origins, Origins::Listed(list) if list.iter().any(listed))
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn asked(origins: &Origins, method: Method, fields: &[(&'static str, &str)], on_loopback: bool) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, value.parse().unwrap());
        }
        check(origins, &headers, method == Method::GET, on_loopback).is_ok()
    }

    #[test]
    fn the_same_origin_is_name_and_port() {
        for (origin, host, same) in [
            ("http://example.com", "example.com", true),
            ("http://example.com", "example.com:80", true),
            ("https://example.com", "example.com", true),
            ("http://Example.com:8888", "example.COM:8888", true),
            ("http://[::1]:8888", "[::1]:8888", true),
            ("ws://127.0.0.1:8888", "127.0.0.1:8888", true),
            ("wss://example.com", "example.com:443", true),
            ("ws://example.com", "example.com:443", false),
            ("http://example.com", "example.com:8888", false),
            ("http://example.com.evil.org", "example.com", false),
            ("file://", "example.com", false),
            ("null", "null", false),
        ] {
            assert_eq!(is_same(origin, host), same, "{origin} {host}");
        }
    }

    #[test]
    fn what_would_allow_it_is_what_the_file_takes() {
        for (origin, would) in
            [("https://a.example", "[\"https://a.example\"]"), ("null", "\"any\""), ("evil", "\"any\"")]
        {
            let mut headers = HeaderMap::new();
            headers.insert("host", "127.0.0.1:8888".parse().unwrap());
            headers.insert("origin", origin.parse().unwrap());
            let refusal = check(&Origins::Same, &headers, true, true).unwrap_err();
            assert!(refusal.contains(&format!(" origins = {would} on the route")), "{refusal}");
        }
    }

    #[test]
    fn another_sites_page_reaches_nothing_unless_allowed() {
        let foreign = [("host", "127.0.0.1:8888"), ("origin", "https://evil.example")];
        let image = [("host", "127.0.0.1:8888"), ("sec-fetch-site", "cross-site")];
        let listed = Origins::Listed(vec!["https://evil.example".into()]);
        for fields in [&foreign, &image] {
            assert!(!asked(&Origins::Same, Method::GET, fields, true));
            assert!(asked(&Origins::Any, Method::GET, fields, true));
        }
        assert!(asked(&listed, Method::POST, &foreign, true));
        assert!(!asked(&listed, Method::GET, &image, true), "an image does not say whose page it is on");
    }

    #[test]
    fn programs_that_are_no_browsers_pass() {
        assert!(asked(&Origins::Same, Method::POST, &[("host", "push.internal")], true));
        assert!(asked(&Origins::Same, Method::GET, &[("host", "127.0.0.1:8888")], true));
        assert!(asked(&Origins::Same, Method::GET, &[("host", "localhost"), ("sec-fetch-site", "none")], true));
    }

    #[test]
    fn a_foreign_name_for_loopback_is_not_the_same() {
        let rebound = [("host", "evil.example:8888"), ("origin", "http://evil.example:8888")];
        assert!(!asked(&Origins::Same, Method::POST, &rebound, true));
        assert!(!asked(&Origins::Same, Method::GET, &rebound[..1], true));
        assert!(asked(&Origins::Same, Method::POST, &rebound, false));
        let localhost = [("host", "localhost:8888"), ("origin", "http://localhost:8888")];
        assert!(asked(&Origins::Same, Method::POST, &localhost, true));
    }
}
