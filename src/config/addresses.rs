//! Addresses to listen on, the host names of a server, and the origins of web pages.
//!
//! People write all three from memory, so each common mistake has a message of its own: a port alone, a host name, an origin with a path.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::limits;
use super::reader::Item;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Listen {
    /// `127.0.0.1:8888`, `[::1]:8888`
    Tcp(SocketAddr),
    /// `unix:/run/pushd/hub.sock`
    Unix(PathBuf),
    /// `systemd:NAME`: a socket that the service manager passes under this name.
    Systemd(String),
}

/// Which web pages may use a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Only pages from the address that they connect to.
    Same,
    /// Every page.
    Any,
    /// As `Same`, and these origins, sorted: `https://example.com`, lower case, without the default port.
    Listed(Vec<String>),
}

impl Listen {
    /// Whether the kernel refuses one of two different addresses while the other is in use: `0.0.0.0` includes every address of IPv4.
    pub fn overlaps(&self, other: &Listen) -> bool {
        let (Listen::Tcp(one), Listen::Tcp(other)) = (self, other) else { return false };
        let of_a_kind = one.is_ipv4() == other.is_ipv4() && one.port() == other.port() && one.port() != 0;
        of_a_kind && one.ip() != other.ip() && (one.ip().is_unspecified() || other.ip().is_unspecified())
    }
}

/// The host names of a server: what `Host` may contain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hosts {
    /// Every name.
    Any,
    /// Its own names (addresses, loopback names, the machine's names, those in `origins`), and these: lower case, without a port.
    Listed(Vec<String>),
}

impl Hosts {
    /// Whether a list may contain `text`.
    pub fn can_list(text: &str) -> bool {
        host(text).is_ok()
    }
}

impl Origins {
    /// Whether a list may contain `text`. It may not contain `null`, the origin of pages that were opened from a file.
    pub fn can_list(text: &str) -> bool {
        origin(text).is_ok()
    }
}

/// Reads one address. The path of a Unix socket is relative to `base`. The error says what would be right.
pub(super) fn listen(text: &str, base: &Path) -> Result<Listen, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = base.join(path.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(path));
        return match path.as_os_str().len() {
            _ if path.as_os_str() == base.as_os_str() || text == "unix:" => {
                Err("add the path of the socket, for example `unix:/run/pushd/hub.sock`".to_owned())
            }
            n if n > limits::UNIX_PATH_BYTES_MAX => {
                Err(format!("the path of a socket has at most {} bytes, this one has {n}", limits::UNIX_PATH_BYTES_MAX))
            }
            _ => Ok(Listen::Unix(path)),
        };
    }
    if let Some(name) = text.strip_prefix("systemd:") {
        let odd = name.is_empty() || name.len() > 255 || name.contains(|c: char| c.is_control() || c == ':');
        return match odd {
            true => Err("write the name of FileDescriptorName=, for example `systemd:hub`".to_owned()),
            false => Ok(Listen::Systemd(name.to_owned())),
        };
    }
    text.parse::<SocketAddr>().map(Listen::Tcp).map_err(|_| listen_help(text))
}

fn listen_help(text: &str) -> String {
    let port = |port: &str| port.parse::<u16>().is_ok();
    if port(text) {
        return format!("write `127.0.0.1:{text}` for this machine only, `0.0.0.0:{text}` for all machines");
    }
    if text.starts_with('/') || text.starts_with("./") {
        return format!("for a Unix socket write `unix:{text}`");
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        return format!("write the address without `{scheme}://`: `{}`", rest.split('/').next().unwrap_or_default());
    }
    let number = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match text.rsplit_once(':') {
        Some(("" | "*", p)) if port(p) => format!("for every address write `0.0.0.0:{p}` (IPv4) or `[::]:{p}`"),
        Some(("localhost", p)) if port(p) => format!("write `127.0.0.1:{p}` or `[::1]:{p}`"),
        // Before the next arm, because `::1:8888` is also an address.
        Some((host, p)) if port(p) && host.parse::<IpAddr>().is_ok() => format!("write `[{host}]:{p}`"),
        _ if text.parse::<Ipv6Addr>().is_ok() => format!("add the port: `[{text}]:8888`"),
        _ if text.parse::<IpAddr>().is_ok() => format!("add the port: `{text}:8888`"),
        Some((_, p)) if port(p) => "write the address: host names are not looked up here".to_owned(),
        split if number(split.map_or(text, |(_, p)| p)) => "a port is a number up to 65535".to_owned(),
        _ => "write `127.0.0.1:8888`, `[::1]:8888`, `unix:/run/pushd.sock` or `systemd:NAME`".to_owned(),
    }
}

/// Reads `hosts`.
pub(super) fn hosts(item: Item<'_>) -> Option<Hosts> {
    const EXPECTED: &str = "\"any\" or a list such as [\"www.example.com\"]";
    if let Some(word) = item.as_text() {
        if word == "any" {
            return Some(Hosts::Any);
        }
        let problem = item.error(format!("`hosts` takes {EXPECTED}")).label("not one of these");
        item.note(match host(word) {
            Ok(name) if name.contains('.') => problem.help(format!("write a list, even for one: `[\"{word}\"]`")),
            Err(help) if word == "*" => problem.help(help),
            _ => problem.meant(word, ["any"]),
        });
        return None;
    }
    if !item.is_list() {
        item.mismatch(EXPECTED);
        return None;
    }
    listed(item, host, "this is not a host name", "expected a name alone").map(Hosts::Listed)
}

/// The strings of a list, each as `read` converts it. One that `read` refuses is reported with `problem`, `label` and the error as help.
fn listed(
    item: Item<'_>,
    read: fn(&str) -> Result<String, String>,
    problem: &'static str,
    label: &'static str,
) -> Option<Vec<String>> {
    let mut listed = Vec::new();
    for item in item.strings()? {
        match read(item.as_text()?) {
            Ok(text) => listed.push(text),
            Err(help) => item.note(item.error(problem).label(label).help(help)),
        }
    }
    Some(listed)
}

/// One name, as browsers send it: lower case, without the dot of the root. The error says what would be right.
pub(super) fn host(text: &str) -> Result<String, String> {
    if matches!(text, "*" | "any") {
        return Err("to accept every name, write `hosts = \"any\"`".to_owned());
    }
    let text = text.to_lowercase();
    if let Some((_, rest)) = text.split_once("://") {
        return Err(format!("write the name alone: `{}`", rest.split(['/', ':']).next().unwrap_or_default()));
    }
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    if bracketed.unwrap_or(&text).parse::<IpAddr>().is_ok() {
        // Allowed, but without effect: addresses are always accepted.
        return Ok(text);
    }
    if let Some((name, _)) = text.rsplit_once(':') {
        return Err(format!("remove the port, a name is valid for every port: `{name}`"));
    }
    named(text.strip_suffix('.').unwrap_or(&text))
}

/// A host name in ASCII.
fn named(host: &str) -> Result<String, String> {
    let name = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
    match host {
        _ if !host.is_ascii() => Err("write the name as browsers send it: `xn--...`".to_owned()),
        _ if host.is_empty() || host.len() > limits::HOST_BYTES_MAX || !host.bytes().all(name) => {
            Err("write the name of one host; there are no wildcards".to_owned())
        }
        _ => Ok(host.to_owned()),
    }
}

/// Reads `origins`.
pub(super) fn origins(item: Item<'_>) -> Option<Origins> {
    const EXPECTED: &str = "\"same\", \"any\" or a list such as [\"https://example.com\"]";
    if let Some(word) = item.as_text() {
        return match word {
            "same" => Some(Origins::Same),
            "any" => Some(Origins::Any),
            _ => {
                let problem = item.error(format!("`origins` takes {EXPECTED}")).label("not one of these");
                let problem = match origin(word) {
                    Ok(_) => problem.help(format!("write a list, even for one: `[\"{word}\"]`")),
                    Err(help) if word == "*" => problem.help(help),
                    Err(_) => problem.meant(word, ["same", "any"]),
                };
                item.note(problem);
                None
            }
        };
    }
    if !item.is_list() {
        item.mismatch(EXPECTED);
        return None;
    }
    let mut listed = listed(item, origin, "this is not an origin", "expected `https://host[:port]`")?;
    // Sorted for the binary search in it.
    listed.sort_unstable();
    Some(Origins::Listed(listed))
}

/// One origin, as browsers send it: lower case, without the default port. The error says what would be right.
pub(super) fn origin(text: &str) -> Result<String, String> {
    match text {
        "*" | "any" => return Err("to allow every page, write `origins = \"any\"`".to_owned()),
        "same" => return Err("remove it: pages from the same address are always allowed".to_owned()),
        _ => {}
    }
    let text = text.to_lowercase();
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err("start with `https://` or `http://`".to_owned());
    };
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        "ws" | "wss" => return Err(format!("write the scheme of the page: `http{}://{rest}`", &scheme[2..])),
        // Browser extensions and applications send a scheme of their own, without a port.
        _ => 0,
    };
    if let Some((host, _)) = rest.split_once('/') {
        return Err(format!("remove the path: `{scheme}://{host}`"));
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let port = port.parse::<u16>().ok().filter(|port| *port != 0);
            (host, Some(port.ok_or("the port is a number up to 65535")?))
        }
        _ => (rest, None),
    };
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) if address.parse::<Ipv6Addr>().is_err() => {
            return Err(format!("`{address}` is not an IPv6 address"));
        }
        Some(_) => {}
        None => named(host).map(drop)?,
    }
    let port = port.filter(|port| *port != default_port).map_or_else(String::new, |port| format!(":{port}"));
    Ok(format!("{scheme}://{host}{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_mistakes_in_addresses_have_their_own_help() {
        let read = |text| listen(text, Path::new("/etc/pushd"));
        assert_eq!(read("127.0.0.1:8888"), Ok(Listen::Tcp("127.0.0.1:8888".parse().unwrap())));
        assert_eq!(read("[::1]:80"), Ok(Listen::Tcp("[::1]:80".parse().unwrap())));
        assert_eq!(read("unix:/run/p.sock"), Ok(Listen::Unix("/run/p.sock".into())));
        assert_eq!(read("unix:///run/p.sock"), Ok(Listen::Unix("/run/p.sock".into())));
        assert_eq!(read("unix:p.sock"), Ok(Listen::Unix("/etc/pushd/p.sock".into())));
        assert_eq!(read("systemd:hub"), Ok(Listen::Systemd("hub".into())));
        for (bad, hint) in [
            ("8888", "127.0.0.1:8888"),
            (":8888", "0.0.0.0:8888"),
            ("*:8888", "0.0.0.0:8888"),
            ("localhost:80", "127.0.0.1:80"),
            ("example.com:80", "not looked up"),
            ("127.0.0.1", "127.0.0.1:8888"),
            ("::1", "[::1]:8888"),
            ("/run/p.sock", "unix:/run/p.sock"),
            ("unix:", "unix:/run"),
            ("systemd:", "FileDescriptorName"),
            ("::1:8888", "`[::1]:8888`"),
            (":::8888", "`[::]:8888`"),
            ("http://127.0.0.1:8888/", "`127.0.0.1:8888`"),
            ("127.0.0.1:99999", "up to 65535"),
            ("99999", "up to 65535"),
            ("127.0.0.1:", "127.0.0.1:8888"),
            ("", "systemd:NAME"),
        ] {
            assert!(read(bad).unwrap_err().contains(hint), "{bad}: {:?}", read(bad));
        }
        assert!(read(&format!("unix:/{}", "x".repeat(200))).is_err());
    }

    #[test]
    fn a_host_is_a_name_without_port_and_path() {
        assert_eq!(host("WWW.Example.com.").unwrap(), "www.example.com");
        assert_eq!(host("push").unwrap(), "push");
        for (bad, hint) in [
            ("*", "hosts = \"any\""),
            ("any", "hosts = \"any\""),
            ("*.example.com", "no wildcards"),
            ("", "the name of one host"),
            ("a b", "the name of one host"),
            ("https://www.example.com/x", "`www.example.com`"),
            ("www.example.com:8888", "`www.example.com`"),
            ("zürich.example", "xn--"),
        ] {
            assert!(host(bad).unwrap_err().contains(hint), "{bad}: {:?}", host(bad));
        }
    }

    #[test]
    fn the_address_of_all_interfaces_overlaps_each_single_one() {
        let tcp = |text: &str| Listen::Tcp(text.parse().unwrap());
        for (one, other, overlap) in [
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::]:80", "[::1]:80", true),
            ("0.0.0.0:80", "127.0.0.1:81", false),
            ("0.0.0.0:80", "[::]:80", false),
            ("0.0.0.0:80", "0.0.0.0:80", false),
            ("127.0.0.2:80", "127.0.0.1:80", false),
            ("0.0.0.0:0", "127.0.0.1:0", false),
        ] {
            assert_eq!(tcp(one).overlaps(&tcp(other)), overlap, "{one} {other}");
            assert_eq!(tcp(other).overlaps(&tcp(one)), overlap, "{other} {one}");
        }
    }

    #[test]
    fn origins_are_normalised_as_browsers_send_them() {
        assert_eq!(origin("HTTPS://Example.COM:443").unwrap(), "https://example.com");
        assert_eq!(origin("http://example.com:8080").unwrap(), "http://example.com:8080");
        assert_eq!(origin("https://[::1]:8443").unwrap(), "https://[::1]:8443");
        assert_eq!(origin("http://[::1]").unwrap(), "http://[::1]");
        assert_eq!(origin("chrome-extension://abcdef").unwrap(), "chrome-extension://abcdef");
        for bad in [
            "*",
            "same",
            "example.com",
            "https://",
            "https://a/",
            "https://*.a.com",
            "https://a:0",
            "https://ä.de",
            "https://[x]",
            "wss://a",
        ] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }
}
