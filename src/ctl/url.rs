//! URLs as people type them: `http://127.0.0.1:8888/publish/news`, `ws://[::1]:8888/ws?channel=news`,
//! `unix:/run/pushd/main.sock:/publish/news`.
//!
//! `http` and `ws` mean the same here, and so do `https` and `wss`, because the command decides which protocol is used.
//! Characters that are not allowed in a request line are percent-encoded, so that `'…?message=Grüß Gott'` works as typed.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// The characters that are encoded in a path and a query. `%` is not: what is encoded already stays as it is.
const IN_PATH: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`').add(b'{').add(b'|').add(b'}');

/// The address of a server, and a path on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    /// Where it listens.
    pub address: Address,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// The path and query of the request line.
    pub path: String,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A host, without the brackets of an IPv6 literal, and a port.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Url {
    /// Whether `text` is meant as a URL, and not as the name of a channel.
    pub fn is_meant(text: &str) -> bool {
        text.contains("://") || text.starts_with("unix:")
    }

    /// Host and port for the `Host` field.
    pub fn authority(&self) -> String {
        match &self.address {
            Address::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            Address::Tcp(host, port) => format!("{host}:{port}"),
            Address::Unix(_) => "localhost".to_owned(),
        }
    }

    /// Whether the query has a value for `name`.
    pub fn has_argument(&self, name: &str) -> bool {
        let query = self.path.split_once('?').map_or("", |(_, query)| query);
        form_urlencoded::parse(query.as_bytes()).any(|(key, _)| key == name)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp(host, port) => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Tcp(..) if self.tls => write!(f, "https://{}{}", self.address, self.path),
            Address::Tcp(..) => write!(f, "http://{}{}", self.address, self.path),
            Address::Unix(_) => write!(f, "{}:{}", self.address, self.path),
        }
    }
}

impl FromStr for Url {
    type Err = String;

    /// The error contains a hint.
    fn from_str(text: &str) -> Result<Url, String> {
        if let Some(rest) = text.strip_prefix("unix:") {
            return unix(rest);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("begin with a scheme: `http://{text}` (or `ws://`, which is the same here)"));
        };
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" | "ws" => false,
            "https" | "wss" => true,
            _ => {
                let known = "http, ws, https, wss, or unix:/path/of.sock:/path";
                return Err(format!("`{scheme}` is not supported here: use {known}"));
            }
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        Ok(Url { address: tcp(authority, if tls { 443 } else { 80 })?, tls, path: path_of(path)? })
    }
}

fn unix(rest: &str) -> Result<Url, String> {
    let rest = rest.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(rest);
    // As in nginx, the first colon before a slash ends the socket's path.
    let (socket, path) = rest.find(":/").map_or((rest, ""), |colon| (&rest[..colon], &rest[colon + 1..]));
    if socket.is_empty() {
        return Err("name the socket, as in `unix:/run/pushd/main.sock:/publish/news`".to_owned());
    }
    Ok(Url { address: Address::Unix(socket.into()), tls: false, path: path_of(path)? })
}

fn tcp(authority: &str, default_port: u16) -> Result<Address, String> {
    if authority.contains('@') {
        return Err("user names and passwords are not sent: leave out the part before the `@`".to_owned());
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("the `]` of the IPv6 address is missing")?;
            if host.parse::<Ipv6Addr>().is_err() {
                return Err(format!("`{host}` is not an IPv6 address"));
            }
            match port.strip_prefix(':') {
                None if !port.is_empty() => return Err(format!("`{port}` after the address: a port is `:8888`")),
                port => (host, port.unwrap_or("")),
            }
        }
        None => authority.rsplit_once(':').unwrap_or((authority, "")),
    };
    if !authority.starts_with('[') {
        if host.contains(':') {
            return Err(format!("an IPv6 address must be in brackets: `[{authority}]:8888`"));
        }
        let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if host.is_empty() || !host.bytes().all(name) {
            return Err(format!("`{host}` is not the name or the address of a host"));
        }
    }
    let port = match port {
        "" => default_port,
        _ => port.parse().ok().filter(|port| *port != 0).ok_or("the port is a number from 1 to 65535")?,
    };
    Ok(Address::Tcp(host.to_owned(), port))
}

fn path_of(text: &str) -> Result<String, String> {
    if text.contains('#') {
        return Err("what follows a `#` is never sent: write `%23` for the character".to_owned());
    }
    let slash = if text.starts_with('/') { "" } else { "/" };
    Ok(format!("{slash}{}", utf8_percent_encode(text, IN_PATH)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp_url(text: &str) -> (String, u16, String) {
        match text.parse().unwrap_or_else(|why: String| panic!("{text}: {why}")) {
            Url { address: Address::Tcp(host, port), path, .. } => (host, port, path),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn http_and_ws_are_the_same() {
        for scheme in ["http", "ws", "HTTP", "Ws"] {
            let found = tcp_url(&format!("{scheme}://127.0.0.1:8888/ws?channel=a"));
            assert_eq!(found, ("127.0.0.1".into(), 8888, "/ws?channel=a".into()));
        }
        assert_eq!(tcp_url("http://push.example"), ("push.example".into(), 80, "/".into()));
        assert_eq!(tcp_url("ws://localhost:9876?x=1"), ("localhost".into(), 9876, "/?x=1".into()));
        assert_eq!(tcp_url("http://localhost:/"), ("localhost".into(), 80, "/".into()));
    }

    #[test]
    fn https_and_wss_are_encrypted() {
        assert_eq!(tcp_url("wss://push.example/ws"), ("push.example".into(), 443, "/ws".into()));
        for text in ["https://h:9/x", "WSS://h:9/x"] {
            let url: Url = text.parse().unwrap();
            assert_eq!((url.tls, url.to_string().as_str()), (true, "https://h:9/x"));
        }
        assert!(!"http://h/".parse::<Url>().unwrap().tls && !"unix:/s".parse::<Url>().unwrap().tls);
    }

    #[test]
    fn ipv6_addresses_need_brackets() {
        assert_eq!(tcp_url("ws://[::1]:8888/ws"), ("::1".into(), 8888, "/ws".into()));
        assert_eq!(tcp_url("http://[2001:db8::7]"), ("2001:db8::7".into(), 80, "/".into()));
        let url: Url = "http://[::1]:8888/x".parse().unwrap();
        assert_eq!(url.authority(), "[::1]:8888");
        assert_eq!(url.to_string(), "http://[::1]:8888/x");
    }

    #[test]
    fn characters_that_are_not_allowed_are_encoded() {
        let (.., path) = tcp_url("http://h/pushtoall?message=Grüß Gott 100%25 \"x\"&y={z}");
        assert_eq!(path, "/pushtoall?message=Gr%C3%BC%C3%9F%20Gott%20100%25%20%22x%22&y=%7Bz%7D");
        assert!(path.parse::<http::Uri>().is_ok());
    }

    #[test]
    fn a_unix_socket_and_its_path_are_separated() {
        let url: Url = "unix:/run/pushd/main.sock:/publish/a:/b".parse().unwrap();
        assert_eq!(url.address, Address::Unix("/run/pushd/main.sock".into()));
        assert_eq!((url.path.as_str(), url.authority().as_str()), ("/publish/a:/b", "localhost"));
        assert_eq!("unix:///run/m.sock".parse::<Url>().unwrap().to_string(), "unix:/run/m.sock:/");
    }

    #[test]
    fn arguments_are_found_by_name() {
        let has = |text: &str| text.parse::<Url>().unwrap().has_argument("message");
        assert!(has("http://h/p?userid=1&message=hi"));
        assert!(has("http://h/p?message"));
        assert!(!has("http://h/p?xmessage=hi"));
        assert!(!has("http://h/message"));
    }

    #[test]
    fn an_error_contains_a_hint() {
        for (bad, hint) in [
            ("127.0.0.1:8888/ws", "http://127.0.0.1:8888/ws"),
            ("ftp://h/", "ftp"),
            ("http://", "host"),
            ("http:///x", "host"),
            ("http://::1/", "[::1]"),
            ("http://[::1/", "`]`"),
            ("http://[x]/", "IPv6"),
            ("http://[::1]8888/", ":8888"),
            ("http://h:port/", "65535"),
            ("http://h:0/", "65535"),
            ("http://h:99999/", "65535"),
            ("http://me:secret@h/", "`@`"),
            ("http://h/?message=a#b", "%23"),
            ("http://h h/", "host"),
            ("unix:", "unix:/run"),
        ] {
            let why = bad.parse::<Url>().unwrap_err();
            assert!(why.contains(hint), "{bad}: {why}");
        }
    }
}
