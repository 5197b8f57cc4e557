//! Which names a server answers to (RFC 9110 §7.4): its defence against a foreign name that was pointed at this machine.
//!
//! A page of `http://attacker.example:8888`, a name that its owner has resolve to 127.0.0.1, is to its browser "the same
//! origin" as pushd on that port, and may read whatever pushd answers (DNS rebinding). The one thing that it cannot change is `Host`. So every route
//! asks for a name that no stranger can own: an address, a loopback name, one of the machine's, or one that the configuration
//! names. Anything else is 421 (Misdirected Request).
//!
//! The names are compiled once for each server. A request costs a comparison, or one look into a set, and no allocation.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;
use http::header::{HOST, HeaderMap};

use super::refusals::shown;
use crate::config::limits::HOST_BYTES_MAX;
use crate::config::{self, Origins};

/// The names that one server answers to.
#[derive(Debug)]
pub struct Hosts {
    any: bool,
    /// Lower case, without a port or the dot of the root.
    names: HashSet<Box<[u8]>>,
}

impl Hosts {
    /// Those of `server`, on a machine with the names `machine`.
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
        let names = of_pages.chain(own.iter().chain(machine).map(String::as_str));
        Hosts {
            any: server.hosts == config::Hosts::Any,
            names: names.map(|name| plain(name).to_ascii_lowercase().into_bytes().into_boxed_slice()).collect(),
        }
    }

    /// Whether a request may be answered: all names that it calls the server by are the server's.
    pub fn answer(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        self.any || named(uri, headers).all(|host| host.is_some_and(|host| self.are_own(host)))
    }

    /// Whether no stranger can own the name in `host`, with or without a port. A request that names nothing comes from no browser.
    pub fn are_own(&self, host: &str) -> bool {
        let name = split_port(host).0;
        if name.is_empty() || is_loopback(name) || address(plain(name)).is_some() {
            return true;
        }
        let name = plain(name);
        let mut lower = [0; HOST_BYTES_MAX];
        let Some(lower) = lower.get_mut(..name.len()) else { return false };
        lower.copy_from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        self.names.contains(&*lower)
    }

    /// Why a request is not answered, and what would allow it.
    pub fn refusal(&self, server: &str, uri: &Uri, headers: &HeaderMap) -> String {
        let host = named(uri, headers).flatten().find(|host| !self.are_own(host)).unwrap_or_default();
        let name = plain(split_port(host).0).to_ascii_lowercase();
        let which = if config::Hosts::can_list(&name) { format!("[\"{name}\"]") } else { "\"any\"".to_owned() };
        format!(
            "no server answers to the name {:?} here: hosts = {which} in [server.{server}] would allow it",
            shown(host)
        )
    }
}

/// What a request calls the server: the host of its target, where that names one, and its Host. `None` is one that is no text.
fn named<'r>(uri: &'r Uri, headers: &'r HeaderMap) -> impl Iterator<Item = Option<&'r str>> {
    let target = uri.authority().map(|authority| Some(authority.as_str()));
    target.into_iter().chain(headers.get_all(HOST).into_iter().map(|host| host.to_str().ok()))
}

/// Name and port of `name:port`, `[::1]:port` or either without its port.
pub(super) fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (name, Some(port)),
        _ => (authority, None),
    }
}

/// Whether `name`, without a port, is one that every browser takes for its own machine's (RFC 6761 §6.3).
pub(super) fn is_loopback(name: &str) -> bool {
    let name = plain(name);
    let last = name.rsplit_once('.').map_or(name, |(_, last)| last);
    last.eq_ignore_ascii_case("localhost") || address(name).is_some_and(|address| address.is_loopback())
}

/// The address that `name` is, as URLs write it.
fn address(name: &str) -> Option<IpAddr> {
    match name.as_bytes().first()? {
        b'[' => name.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        b'0'..=b'9' => name.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        _ => None,
    }
}

/// Without the dot of the root, which a name may end in.
fn plain(name: &str) -> &str {
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

    fn asked(hosts: &Hosts, target: &str, host: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(HOST, http::HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        hosts.answer(&target.parse().unwrap(), &headers)
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
            assert!(asked(&hosts, "/", Some(own)), "{own}");
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
            assert!(!asked(&hosts, "/", Some(foreign)), "{foreign}");
        }
        assert!(!asked(&hosts, "/", Some(&"a".repeat(300))));
        assert!(asked(&hosts, "/", None), "HTTP/1.0");
        assert!(!asked(&hosts, "http://attacker.example/", Some("localhost")));
        assert!(!asked(&hosts, "http://localhost/", Some("attacker.example")));
        assert!(asked(&super::tests::hosts("hosts = \"any\""), "/", Some("attacker.example")));
    }

    #[test]
    fn a_refusal_says_what_the_file_takes() {
        let hosts = hosts("");
        for (host, would) in [("Www.Example.com.:8888", "[\"www.example.com\"]"), ("zürich.example", "\"any\"")] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, http::HeaderValue::from_bytes(host.as_bytes()).unwrap());
            let refusal = hosts.refusal("main", &Uri::from_static("/"), &headers);
            assert!(refusal.contains(&format!("hosts = {would} in [server.main]")), "{refusal}");
        }
    }
}
