//! Which pages may use a route (RFC 6454, and `Sec-Fetch-Site` of Fetch).
//!
//! A browser lets any page open a WebSocket or post a form to any address, including loopback addresses. It sends the origin of the
//! page in `Origin`. So by default a route accepts only pages of its own address. Programs that are not browsers send no `Origin`
//! and are accepted. A page is from the own address if its name and port equal those in `Host`; [`hosts`](super::hosts) has checked
//! that name before.
//!
//! One request has an effect and comes without an `Origin`: a GET to a publish route, by an image or a link. For it browsers send
//! `Sec-Fetch-Site`, but only over TLS and to a loopback address. Elsewhere the request of an image on a foreign page cannot be
//! distinguished from that of a program. So such a GET is refused unless its `Referer` shows that the page is allowed.

use http::HeaderName;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, HOST, HeaderMap, HeaderValue, ORIGIN, REFERER, VARY};
use http::request::Parts;

use super::hosts::{Hosts, is_loopback, split_port};
use super::refusals::shortened;
use crate::config::Origins;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Checks a request against `origins`. Returns its `Origin`, if it has one. `is_forgeable`: the request has an effect, and a browser may send it
/// without an origin. Browsers send one with every WebSocket (RFC 6455 §4.1), and with every request except GET and HEAD.
///
/// # Errors
/// A sentence for the developer of the page: what was refused, and the setting that would allow it.
pub fn check<'h>(
    origins: &Origins,
    request: &'h Parts,
    hosts: &Hosts,
    on_loopback: bool,
    is_forgeable: bool,
) -> Result<Option<&'h str>, String> {
    Page { headers: &request.headers, hosts, on_loopback }.check(origins, is_forgeable)
}

/// The origin of the page that sent a request, if `origins` allows it.
pub fn allowed<'h>(origins: &Origins, headers: &'h HeaderMap, hosts: &Hosts, on_loopback: bool) -> Option<&'h str> {
    Page { headers, hosts, on_loopback }.check(origins, false).ok().flatten()
}

/// Allows the page of a checked `origin` to read the answer with these header fields (Fetch, CORS). Returns whether `origin` can stand in one.
pub fn allow(fields: &mut HeaderMap, origin: &str) -> bool {
    let Ok(origin) = HeaderValue::from_str(origin) else { return false };
    fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    fields.insert(VARY, HeaderValue::from_static("Origin"));
    true
}

/// What is known of the page that sent a request, and where the request came in.
struct Page<'h, 's> {
    headers: &'h HeaderMap,
    hosts: &'s Hosts,
    on_loopback: bool,
}

impl<'h> Page<'h, '_> {
    fn check(&self, origins: &Origins, is_forgeable: bool) -> Result<Option<&'h str>, String> {
        let Some(origin) = self.headers.get(ORIGIN) else {
            return match self.text(&SEC_FETCH_SITE) {
                _ if *origins == Origins::Any => Ok(None),
                Some(site @ ("cross-site" | "same-site")) => Err(format!(
                    "a page of another origin ({site}) sent this request; origins = \"any\" on the route would allow it"
                )),
                None if is_forgeable && !self.has_fetch_metadata() && !self.is_referer_allowed(origins) => {
                    Err("a GET without an origin can come from an image on any page; use a POST, or \
                     origins = \"any\" on the route would allow it"
                        .to_owned())
                }
                _ => Ok(None),
            };
        };
        if self.headers.get_all(ORIGIN).iter().count() > 1 {
            return Err("there is more than one Origin".to_owned());
        }
        let origin = origin.to_str().map_err(|_| "Origin is not text".to_owned())?;
        if self.allows(origins, origin) {
            return Ok(Some(origin));
        }
        let which = if Origins::can_list(origin) { format!("[\"{origin}\"]") } else { "\"any\"".to_owned() };
        let origin = shortened(origin);
        Err(format!("Origin {origin} is not allowed here: origins = {which} on the route or its server would allow it"))
    }

    /// Whether a page of `origin` is allowed.
    fn allows(&self, origins: &Origins, origin: &str) -> bool {
        match origins {
            Origins::Any => true,
            Origins::Listed(list) if list.binary_search(&origin.to_ascii_lowercase()).is_ok() => true,
            Origins::Same | Origins::Listed(_) => {
                let host = self.text(&HOST).unwrap_or("");
                // Somebody on the way can write a page of plain HTTP.
                let is_forgeable = self.hosts.is_secure && (origin.starts_with("http:") || origin.starts_with("ws:"));
                let same = !is_forgeable && is_same(origin, host, self.on_loopback);
                // If a server answers to any name, an equal name proves nothing on a loopback address.
                same && (!self.on_loopback || self.hosts.is_own(host))
            }
        }
    }

    /// Whether a browser would have sent `Sec-Fetch-Site` with the request of a page.
    fn has_fetch_metadata(&self) -> bool {
        self.on_loopback && self.text(&HOST).is_none_or(|host| host.is_empty() || is_loopback(split_port(host).0))
    }

    /// Whether `Referer` names an allowed page. A page can omit the field, but cannot name another page.
    fn is_referer_allowed(&self, origins: &Origins) -> bool {
        let Some((scheme, rest)) = self.text(&REFERER).and_then(|page| page.split_once("://")) else { return false };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        self.allows(origins, &format!("{scheme}://{authority}"))
    }

    fn text(&self, name: &HeaderName) -> Option<&'h str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Whether `origin` has the same name and port as `host`. `on_loopback`: all loopback names are the same.
fn is_same(origin: &str, host: &str, on_loopback: bool) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    // No page has an origin with `ws:`, but the library ws4py sends it instead of `http:`.
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

    use http::Method;

    use super::*;
    use crate::config;

    fn check(
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
        Page { headers: &headers, hosts: &hosts, on_loopback }.check(origins, method == Method::GET).map(drop)
    }

    fn is_allowed(origins: &Origins, method: Method, fields: &[(&'static str, &str)], on_loopback: bool) -> bool {
        check(origins, method, fields, on_loopback).is_ok()
    }

    #[test]
    fn the_same_origin_has_the_same_name_and_port() {
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
    fn a_refusal_names_a_setting_that_the_file_accepts() {
        for (origin, would) in
            [("https://a.example", "[\"https://a.example\"]"), ("null", "\"any\""), ("evil", "\"any\"")]
        {
            let fields = [("host", "127.0.0.1:8888"), ("origin", origin)];
            let refusal = check(&Origins::Same, Method::GET, &fields, true).unwrap_err();
            assert!(refusal.contains(&format!(" origins = {would} on the route")), "{refusal}");
        }
    }

    #[test]
    fn a_page_of_another_site_is_refused_unless_allowed() {
        let foreign = [("host", "127.0.0.1:8888"), ("origin", "https://evil.example")];
        let image = [("host", "127.0.0.1:8888"), ("sec-fetch-site", "cross-site")];
        let listed = Origins::Listed(vec!["https://evil.example".into()]);
        for fields in [&foreign, &image] {
            assert!(!is_allowed(&Origins::Same, Method::GET, fields, true));
            assert!(is_allowed(&Origins::Any, Method::GET, fields, true));
        }
        assert!(is_allowed(&listed, Method::POST, &foreign, true));
        assert!(!is_allowed(&listed, Method::GET, &image, true), "the request of an image does not name its page");
    }

    #[test]
    fn programs_that_are_not_browsers_are_allowed() {
        for on_loopback in [true, false] {
            assert!(is_allowed(&Origins::Same, Method::POST, &[("host", "push.internal")], on_loopback));
            assert!(is_allowed(&Origins::Any, Method::GET, &[("host", "push.internal")], on_loopback));
        }
        assert!(is_allowed(&Origins::Same, Method::GET, &[("host", "127.0.0.1:8888")], true));
        assert!(is_allowed(&Origins::Same, Method::GET, &[], true));
        assert!(is_allowed(&Origins::Same, Method::GET, &[("host", "localhost"), ("sec-fetch-site", "none")], true));
    }

    #[test]
    fn a_get_that_may_come_from_an_image_is_refused_without_fetch_metadata() {
        let host = ("host", "192.0.2.1:8888");
        let referred = |page| [host, ("referer", page)];
        assert!(!is_allowed(&Origins::Same, Method::GET, &[host], false));
        assert!(!is_allowed(&Origins::Same, Method::GET, &[("host", "push.internal")], true), "a proxy without TLS");
        assert!(!is_allowed(&Origins::Same, Method::GET, &referred("http://attacker.example/"), false));
        assert!(!is_allowed(&Origins::Same, Method::GET, &referred("http://192.0.2.1:8888.attacker.example/"), false));
        assert!(is_allowed(&Origins::Same, Method::GET, &referred("http://192.0.2.1:8888/own/page?x"), false));
        assert!(
            is_allowed(&Origins::Same, Method::GET, &[host, ("sec-fetch-site", "same-origin")], false),
            "behind TLS"
        );
        let listed = Origins::Listed(vec!["https://a.example".into()]);
        assert!(is_allowed(&listed, Method::GET, &referred("https://a.example/page"), false));
    }

    #[test]
    fn a_foreign_name_for_a_loopback_address_is_another_origin() {
        let rebound = [("host", "evil.example:8888"), ("origin", "http://evil.example:8888")];
        assert!(!is_allowed(&Origins::Same, Method::POST, &rebound, true));
        assert!(!is_allowed(&Origins::Same, Method::GET, &rebound[..1], true));
        assert!(is_allowed(&Origins::Same, Method::POST, &rebound, false), "a server that answers to any name");
        let own = [("host", "push.internal"), ("origin", "https://push.internal")];
        assert!(is_allowed(&Origins::Same, Method::POST, &own, true), "as a proxy passes it on");
    }

    #[test]
    fn all_loopback_names_are_the_same_origin() {
        for (origin, host, same) in [
            ("http://localhost:8888", "localhost:8888", true),
            ("http://localhost:8888", "127.0.0.1:8888", true),
            ("http://[::1]:8888", "localhost:8888", true),
            ("http://127.0.0.1:9999", "localhost:8888", false),
            ("http://localhost.attacker.example:8888", "localhost:8888", false),
        ] {
            let fields = [("host", host), ("origin", origin)];
            assert_eq!(is_allowed(&Origins::Same, Method::POST, &fields, true), same, "{origin} {host}");
        }
        assert!(!is_allowed(
            &Origins::Same,
            Method::POST,
            &[("host", "127.0.0.1:8888"), ("origin", "http://localhost:8888")],
            false
        ));
    }
}
