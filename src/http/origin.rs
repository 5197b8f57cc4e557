//! Which pages may talk to a route (RFC 6454, Fetch's `Sec-Fetch-Site`).
//!
//! A browser lets any page open a WebSocket or post a form to any address, loopback included, and says in `Origin` which page
//! it was. So a route takes only pages from its own address unless it is told otherwise; programs that are not browsers send no `Origin` and are
//! not concerned. That a page's address is the server's own is known by its name, which [`hosts`](super::hosts) looked at before.
//!
//! One request that does something comes without an `Origin`: a GET to a publish route, by an image or a link. Browsers tell of it
//! in `Sec-Fetch-Site`, but only where they trust the way to the server: over TLS, and on a loopback address. Elsewhere an image on
//! a foreign page looks like a program, and so is refused where its `Referer` does not show that the page is the server's own.

use http::HeaderName;
use http::Method;
use http::header::{HOST, HeaderMap, ORIGIN, REFERER};
use http::request::Parts;

use super::hosts::{Hosts, is_loopback, split_port};
use super::refusals::shown;
use crate::config::Origins;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Checks a request against `origins`. The `Origin` it may be answered to, if it named one.
///
/// # Errors
/// A sentence for the developer of the page: what was refused, and what would allow it.
pub fn check<'h>(
    origins: &Origins,
    request: &'h Parts,
    hosts: &Hosts,
    on_loopback: bool,
) -> Result<Option<&'h str>, String> {
    let asked = Asked { headers: &request.headers, hosts, on_loopback };
    // A browser names the origin of every WebSocket (RFC 6455 §4.1), and of every request but GET and HEAD.
    let unnamed = request.method == Method::GET && !request.headers.contains_key(http::header::UPGRADE);
    asked.judge(origins, unnamed)
}

/// What a request says of the page it comes from, and where it came in.
struct Asked<'h, 's> {
    headers: &'h HeaderMap,
    hosts: &'s Hosts,
    on_loopback: bool,
}

impl<'h> Asked<'h, '_> {
    /// `unnamed`: a browser asks this without naming an origin.
    fn judge(&self, origins: &Origins, unnamed: bool) -> Result<Option<&'h str>, String> {
        let Some(origin) = self.headers.get(ORIGIN) else {
            return match self.text(&SEC_FETCH_SITE) {
                _ if *origins == Origins::Any => Ok(None),
                Some(site @ ("cross-site" | "same-site")) => Err(format!(
                    "a page of another origin ({site}) asked for this; origins = \"any\" on the route would allow it"
                )),
                None if unnamed && !self.is_told_of_pages() && !self.is_referred(origins) => {
                    Err("a GET that names no origin can come from an image on any page; a POST would do, or \
                     origins = \"any\" on the route would allow it"
                        .to_owned())
                }
                _ => Ok(None),
            };
        };
        if self.headers.get_all(ORIGIN).iter().count() > 1 {
            return Err("Origin stands twice".to_owned());
        }
        let origin = origin.to_str().map_err(|_| "Origin is not text".to_owned())?;
        if self.allows(origins, origin) {
            return Ok(Some(origin));
        }
        let which = if Origins::can_list(origin) { format!("[\"{origin}\"]") } else { "\"any\"".to_owned() };
        let origin = shown(origin);
        Err(format!("Origin {origin} is not allowed here: origins = {which} on the route or its server would allow it"))
    }

    /// Whether a page of `origin` is let in.
    fn allows(&self, origins: &Origins, origin: &str) -> bool {
        match origins {
            Origins::Any => true,
            Origins::Listed(list) if list.binary_search(&origin.to_ascii_lowercase()).is_ok() => true,
            Origins::Same | Origins::Listed(_) => {
                let host = self.text(&HOST).unwrap_or("");
                let same = is_same(origin, host, self.on_loopback);
                // Where a server answers to any name, a name proves nothing of a page that talks to a loopback address.
                same && (!self.on_loopback || self.hosts.are_own(host))
            }
        }
    }

    /// Whether a browser would have said in `Sec-Fetch-Site` that a page asks.
    fn is_told_of_pages(&self) -> bool {
        self.on_loopback && self.text(&HOST).is_none_or(|host| host.is_empty() || is_loopback(split_port(host).0))
    }

    /// Whether the page that asks is said to be one that is let in. A page can keep that back, but not say that it is another one.
    fn is_referred(&self, origins: &Origins) -> bool {
        let Some((scheme, rest)) = self.text(&REFERER).and_then(|page| page.split_once("://")) else { return false };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        self.allows(origins, &format!("{scheme}://{authority}"))
    }

    fn text(&self, name: &HeaderName) -> Option<&'h str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Whether a page of `origin` came from the very address that `host` names. All loopback names are one address `on_loopback`.
fn is_same(origin: &str, host: &str, on_loopback: bool) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    // No page has an origin of `ws:`, but ws4py says so where a page would say `http:`.
    let port = match scheme {
        "http" | "ws" => "80",
        "https" | "wss" => "443",
        _ => return false,
    };
    let (a, b) = (split_port(authority), split_port(host));
    let one = a.0.eq_ignore_ascii_case(b.0) || (on_loopback && is_loopback(a.0) && is_loopback(b.0));
    !a.0.is_empty() && one && a.1.unwrap_or(port) == b.1.unwrap_or(port)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    fn judged(
        origins: &Origins,
        method: Method,
        fields: &[(&'static str, &str)],
        on_loopback: bool,
    ) -> Result<(), String> {
        let text =
            "[server.s]\nlisten = \"127.0.0.1:1\"\nhosts = [\"push.internal\"]\nroutes.\"/\" = { health = true }";
        let config = config::parse(Path::new("x.toml"), text).unwrap();
        let hosts = Hosts::new(&config.servers[0], &[]);
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, value.parse().unwrap());
        }
        Asked { headers: &headers, hosts: &hosts, on_loopback }.judge(origins, method == Method::GET).map(drop)
    }

    fn asked(origins: &Origins, method: Method, fields: &[(&'static str, &str)], on_loopback: bool) -> bool {
        judged(origins, method, fields, on_loopback).is_ok()
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
            assert_eq!(is_same(origin, host, false), same, "{origin} {host}");
        }
    }

    #[test]
    fn what_would_allow_it_is_what_the_file_takes() {
        for (origin, would) in
            [("https://a.example", "[\"https://a.example\"]"), ("null", "\"any\""), ("evil", "\"any\"")]
        {
            let fields = [("host", "127.0.0.1:8888"), ("origin", origin)];
            let refusal = judged(&Origins::Same, Method::GET, &fields, true).unwrap_err();
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
        for on_loopback in [true, false] {
            assert!(asked(&Origins::Same, Method::POST, &[("host", "push.internal")], on_loopback));
            assert!(asked(&Origins::Any, Method::GET, &[("host", "push.internal")], on_loopback));
        }
        assert!(asked(&Origins::Same, Method::GET, &[("host", "127.0.0.1:8888")], true));
        assert!(asked(&Origins::Same, Method::GET, &[], true));
        assert!(asked(&Origins::Same, Method::GET, &[("host", "localhost"), ("sec-fetch-site", "none")], true));
    }

    #[test]
    fn an_image_on_a_foreign_page_is_no_program_where_browsers_do_not_tell_of_it() {
        let host = ("host", "192.0.2.1:8888");
        let referred = |page| [host, ("referer", page)];
        assert!(!asked(&Origins::Same, Method::GET, &[host], false));
        assert!(!asked(&Origins::Same, Method::GET, &[("host", "push.internal")], true), "a proxy without TLS");
        assert!(!asked(&Origins::Same, Method::GET, &referred("http://attacker.example/"), false));
        assert!(!asked(&Origins::Same, Method::GET, &referred("http://192.0.2.1:8888.attacker.example/"), false));
        assert!(asked(&Origins::Same, Method::GET, &referred("http://192.0.2.1:8888/own/page?x"), false));
        assert!(asked(&Origins::Same, Method::GET, &[host, ("sec-fetch-site", "same-origin")], false), "behind TLS");
        let listed = Origins::Listed(vec!["https://a.example".into()]);
        assert!(asked(&listed, Method::GET, &referred("https://a.example/page"), false));
    }

    #[test]
    fn a_foreign_name_for_loopback_is_not_the_same() {
        let rebound = [("host", "evil.example:8888"), ("origin", "http://evil.example:8888")];
        assert!(!asked(&Origins::Same, Method::POST, &rebound, true));
        assert!(!asked(&Origins::Same, Method::GET, &rebound[..1], true));
        assert!(asked(&Origins::Same, Method::POST, &rebound, false), "a server that answers to any name");
        let own = [("host", "push.internal"), ("origin", "https://push.internal")];
        assert!(asked(&Origins::Same, Method::POST, &own, true), "as a proxy passes it on");
    }

    #[test]
    fn all_names_of_the_loopback_are_one() {
        for (origin, host, same) in [
            ("http://localhost:8888", "localhost:8888", true),
            ("http://localhost:8888", "127.0.0.1:8888", true),
            ("http://[::1]:8888", "localhost:8888", true),
            ("http://127.0.0.1:9999", "localhost:8888", false),
            ("http://localhost.attacker.example:8888", "localhost:8888", false),
        ] {
            let fields = [("host", host), ("origin", origin)];
            assert_eq!(asked(&Origins::Same, Method::POST, &fields, true), same, "{origin} {host}");
        }
        assert!(!asked(
            &Origins::Same,
            Method::POST,
            &[("host", "127.0.0.1:8888"), ("origin", "http://localhost:8888")],
            false
        ));
    }
}
