//! The names that a server answers to (RFC 9110 §7.4): the defence against DNS rebinding.
//!
//! An attacker can let the name `attacker.example` resolve to 127.0.0.1. For a browser, a page of `http://attacker.example:8888`
//! then has the same origin as pushd on that port, and may read all its answers. But the page cannot change `Host`. So every route
//! requires a name that no stranger can own: an address, a loopback name, a name of the machine, or one from the configuration.
//! Other names are answered with 421 (Misdirected Request).
//!
//! The names are compiled once for each server. A request costs a comparison or a lookup in a set, and no allocation.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;
use http::header::{HOST, HeaderMap};

use super::refusals::shortened;
use crate::config::limits::HOST_BYTES_MAX;
use crate::config::{self, Origins};

/// The names that one server answers to.
#[derive(Debug)]
pub struct Hosts {
    any: bool,
    /// Whether the server has TLS: then only pages with `https` are its own.
    pub is_secure: bool,
    /// In lower case, without a port and without the dot of the root.
    names: HashSet<Box<[u8]>>,
}

impl Hosts {
    /// The names of `server`, on a machine with the names `machine`.
    pub fn new(server: &config::Server, machine: &[String]) -> Hosts {
        let of_routes = server.routes.iter().filter_map(|route| route.action.origins());
        let listed = of_routes.chain([&server.origins]).flat_map(|origins| match origins {
            Origins::Listed(list) => list.as_slice(),
            Origins::Same | Origins::Any => &[],
        });
        let of_pages = listed.filter_map(|origin| Some(split_port(origin.split_once("://")?.1).0));
        let own = match &server.hosts {
            config::Hosts::Any => &[][..],
            config::Hosts::Listed(names) => names,
        };
        let certificates = server.tls.iter().flat_map(|tls| &tls.certificates);
        let certified = certificates.flat_map(|one| &one.names).map(String::as_str);
        let names = of_pages.chain(own.iter().chain(machine).map(String::as_str)).chain(certified);
        Hosts {
            any: server.hosts == config::Hosts::Any,
            is_secure: server.tls.is_some(),
            names: names
                .map(|name| without_root_dot(name).to_ascii_lowercase().into_bytes().into_boxed_slice())
                .collect(),
        }
    }

    /// Whether a request may be answered: its target and its Host have only names of the server.
    pub fn allow(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        self.any || named(uri, headers).all(|host| host.is_some_and(|host| self.is_own(host)))
    }

    /// Whether no stranger can own the name in `host`, with or without a port. An empty name is allowed, because browsers never
    /// send one.
    pub fn is_own(&self, host: &str) -> bool {
        let name = split_port(host).0;
        if name.is_empty() || is_loopback(name) || address(without_root_dot(name)).is_some() {
            return true;
        }
        let name = without_root_dot(name);
        let mut lower = [0; HOST_BYTES_MAX];
        let Some(lower) = lower.get_mut(..name.len()) else { return false };
        lower.copy_from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        if self.names.contains(&*lower) {
            return true;
        }
        // A certificate for `*.example.com` is for each name of one more label.
        match lower.iter().position(|byte| *byte == b'.') {
            Some(dot @ 1..) => {
                lower[dot - 1] = b'*';
                self.names.contains(&lower[dot - 1..])
            }
            _ => false,
        }
    }

    /// Why a request is not answered, and the setting that would allow it.
    pub fn refusal(&self, server: &str, uri: &Uri, headers: &HeaderMap) -> String {
        let host = named(uri, headers).flatten().find(|host| !self.is_own(host)).unwrap_or_default();
        let name = without_root_dot(split_port(host).0).to_ascii_lowercase();
        let which = if config::Hosts::can_list(&name) { format!("[\"{name}\"]") } else { "\"any\"".to_owned() };
        format!(
            "no server answers to the name {:?} here: hosts = {which} in [server.{server}] would allow it",
            shortened(host)
        )
    }
}

/// The names of the server in a request: the host of its target, if it has one, and its Host. `None`: one is not text.
fn named<'r>(uri: &'r Uri, headers: &'r HeaderMap) -> impl Iterator<Item = Option<&'r str>> {
    let target = uri.authority().map(|authority| Some(authority.as_str()));
    target.into_iter().chain(headers.get_all(HOST).into_iter().map(|host| host.to_str().ok()))
}

/// The name and the optional port of an authority.
pub(super) fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (name, Some(port)),
        _ => (authority, None),
    }
}

/// Whether `name`, without a port, is a loopback name for every browser (RFC 6761 §6.3).
pub(super) fn is_loopback(name: &str) -> bool {
    let name = without_root_dot(name);
    let last = name.rsplit_once('.').map_or(name, |(_, last)| last);
    last.eq_ignore_ascii_case("localhost") || address(name).is_some_and(|address| address.is_loopback())
}

/// The address in `name`, in the syntax of URLs.
fn address(name: &str) -> Option<IpAddr> {
    match name.as_bytes().first()? {
        b'[' => name.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        b'0'..=b'9' => name.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        _ => None,
    }
}

/// The name without the dot of the root at its end.
pub(super) fn without_root_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn hosts(keys: &str) -> Hosts {
        let text = format!(
            "[server.s]\nlisten = \"127.0.0.1:1\"\n{keys}\n[server.s.routes]\n\"/\" = {{ health = true }}\n\
             \"/ws\" = {{ websocket = \"h\", origins = [\"https://route.example:8443\"] }}\n\
             \"/events\" = {{ events = \"h\", origins = [\"https://events.example\"] }}\n[hub.h]\n"
        );
        let config = config::parse(Path::new("x.toml"), &text).unwrap_or_else(|errors| panic!("{errors}"));
        Hosts::new(&config.servers[0], &["Machine.example.com".to_owned()])
    }

    fn is_allowed(hosts: &Hosts, target: &str, host: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(HOST, http::HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        hosts.allow(&target.parse().unwrap(), &headers)
    }

    #[test]
    fn a_server_answers_to_names_that_no_stranger_can_own() {
        let hosts = hosts("origins = [\"https://www.example.com\"]\nhosts = [\"Push.Example.com\"]");
        for own in [
            "localhost",
            "LocalHost:8888",
            "app.localhost",
            "localhost.",
            "127.0.0.1:1",
            "10.1.2.3",
            "[::1]:8888",
            "[2001:db8::1]",
            "machine.example.com",
            "MACHINE.example.com.:80",
            "www.example.com:444",
            "route.example",
            "events.example",
            "push.example.com",
            "",
        ] {
            assert!(is_allowed(&hosts, "/", Some(own)), "{own}");
        }
        for foreign in [
            "attacker.example",
            "attacker.example:8888",
            "localhost.attacker.example",
            "127.0.0.1.attacker.example",
            "notlocalhost",
            "www.example.com.attacker.example",
            "example.com",
            "x.push.example.com",
            "127.1",
            "2130706433",
            "[::1].attacker.example",
            "::1.example",
            "::1x",
            "attacker.example:x",
            "zürich.example",
            "localhost..",
        ] {
            assert!(!is_allowed(&hosts, "/", Some(foreign)), "{foreign}");
        }
        assert!(!is_allowed(&hosts, "/", Some(&"a".repeat(300))));
        assert!(is_allowed(&hosts, "/", None), "HTTP/1.0");
        assert!(!is_allowed(&hosts, "http://attacker.example/", Some("localhost")));
        assert!(!is_allowed(&hosts, "http://localhost/", Some("attacker.example")));
        assert!(is_allowed(&super::tests::hosts("hosts = \"any\""), "/", Some("attacker.example")));
    }

    #[test]
    fn a_refusal_names_a_setting_that_the_file_accepts() {
        let hosts = hosts("");
        for (host, would) in [("Www.Example.com.:8888", "[\"www.example.com\"]"), ("zürich.example", "\"any\"")] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, http::HeaderValue::from_bytes(host.as_bytes()).unwrap());
            let refusal = hosts.refusal("main", &Uri::from_static("/"), &headers);
            assert!(refusal.contains(&format!("hosts = {would} in [server.main]")), "{refusal}");
        }
    }
}
