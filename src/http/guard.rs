//! Checks each request before its path is looked up: its target, its host, its framing, and its expectations.
//!
//! hyper accepts more than RFC 9112 allows: any Host, any form of target, and `chunked` after any other transfer coding. A server
//! behind a proxy must not be more lenient than the proxy. Otherwise the two find different requests in the same bytes (request
//! smuggling). A request that fails a check is refused, and its connection is closed, because the end of the request is not known
//! then. A valid request without content costs a lookup of one header field, and no allocation.
//!
//! hyper itself refuses folded lines, spaces before a colon, control characters, lengths that are not digits or contradict each
//! other, and transfer codings in HTTP/1.0. These are not checked again. It removes a Content-Length beside Transfer-Encoding, and
//! closes the connection after the answer, as RFC 9112 §6.1 requires.

use std::net::Ipv6Addr;

use http::header::{EXPECT, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::uri::Scheme;
use http::{Method, StatusCode, Uri, Version};

use super::answer::{self, Answer};

/// The methods of all routes: the answer to OPTIONS for the whole server, and to CONNECT.
pub const ALLOW: &str = "GET, HEAD, OPTIONS, POST, PUT";

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    status: StatusCode,
    why: &'static str,
}

impl Refusal {
    const fn bad(why: &'static str) -> Refusal {
        Refusal { status: StatusCode::BAD_REQUEST, why }
    }

    /// A sentence with the reason.
    pub fn why(self) -> &'static str {
        self.why
    }

    /// The answer, the last one of its connection.
    pub fn answer(self) -> Answer {
        let answer = match self.status {
            StatusCode::METHOD_NOT_ALLOWED => answer::method_not_allowed(ALLOW),
            status => answer::text(status, self.why),
        };
        answer::closing(answer)
    }
}

/// Checks a request. `length` is the length of its content. `None`: it is chunked.
///
/// # Errors
/// The check that failed.
pub fn check(
    method: &Method,
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
    length: Option<u64>,
) -> Result<(), Refusal> {
    check_target(method, uri)?;
    check_host(version, headers)?;
    if length == Some(0) { Ok(()) } else { check_content(headers, length) }
}

/// Checks the form of the target (RFC 9112 §3.2).
fn check_target(method: &Method, uri: &Uri) -> Result<(), Refusal> {
    if *method == Method::CONNECT {
        return Err(Refusal { status: StatusCode::METHOD_NOT_ALLOWED, why: "this server is not a proxy" });
    }
    match uri.authority() {
        None if uri.path().starts_with('/') => Ok(()),
        None if uri.path() == "*" && *method == Method::OPTIONS => Ok(()),
        None => Err(Refusal::bad("the target of a request begins with a slash; * is for OPTIONS")),
        Some(authority) => {
            if uri.scheme().is_none_or(|scheme| *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS) {
                return Err(Refusal::bad("the target of a request is a path, or a URL of http or https"));
            }
            if is_host(authority.as_str().as_bytes()) { Ok(()) } else { Err(Refusal::bad("the URL names no host")) }
        }
    }
}

/// Checks Host (RFC 9112 §3.2): it must be valid, and HTTP/1.1 requires it.
fn check_host(version: Version, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host.as_bytes()) => Ok(()),
        (Some(_), None) => Err(Refusal::bad("Host is a name or an address, and after a colon a port")),
        (None, _) if version < Version::HTTP_11 => Ok(()),
        _ => Err(Refusal::bad("a request names exactly one Host")),
    }
}

/// Checks the framing of the content (RFC 9112 §6) and the expectations (RFC 9110 §10.1.1).
fn check_content(headers: &HeaderMap, length: Option<u64>) -> Result<(), Refusal> {
    match length {
        Some(length) if i64::try_from(length).is_err() => {
            return Err(Refusal::bad("Content-Length is too large"));
        }
        Some(_) => {}
        None => check_codings(headers)?,
    }
    let is_known = |expected: &HeaderValue| expected.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if headers.get_all(EXPECT).iter().all(is_known) {
        return Ok(());
    }
    Err(Refusal { status: StatusCode::EXPECTATION_FAILED, why: "only 100-continue can be expected here" })
}

/// Checks the transfer codings: only `chunked` is allowed, and only once. No client needs other codings; a second `chunked` is used
/// to smuggle requests.
fn check_codings(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
    if let (Some(coding), None) = (codings.next(), codings.next())
        && is_chunked(coding.as_bytes())
    {
        return Ok(());
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter().flat_map(|line| line.as_bytes().split(|b| *b == b','));
    if codings.all(is_chunked) {
        return Err(Refusal::bad("Transfer-Encoding has chunked more than once"));
    }
    Err(Refusal { status: StatusCode::NOT_IMPLEMENTED, why: "the only transfer coding supported here is chunked" })
}

/// Whether `host` is a host with an optional port (RFC 3986 §3.2.2, §3.2.3). The host must not be empty; the port may be. The
/// grammar allows a comma in a name, but here it is refused: it probably comes from two fields that a proxy has joined.
fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host.first() {
        Some(b'[') => {
            let Some(end) = host.iter().position(|b| *b == b']') else { return false };
            if !is_ipv6(&host[1..end]) {
                return false;
            }
            (&host[..=end], &host[end + 1..])
        }
        _ => host.split_at(host.iter().position(|b| *b == b':').unwrap_or(host.len())),
    };
    !name.is_empty() && (name[0] == b'[' || is_name(name)) && is_port(port)
}

/// An address between brackets, with an optional zone (RFC 6874).
fn is_ipv6(address: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(address) else { return false };
    let (address, zone) = text.split_once("%25").map_or((text, None), |(address, zone)| (address, Some(zone)));
    address.parse::<Ipv6Addr>().is_ok() && zone.is_none_or(|zone| !zone.is_empty() && is_name(zone.as_bytes()))
}

fn is_name(name: &[u8]) -> bool {
    let mut rest = name;
    while let [byte, after @ ..] = rest {
        rest = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => after,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=' => after,
            b'%' => match after {
                [a, b, after @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => after,
                _ => return false,
            },
            _ => return false,
        };
    }
    true
}

/// Nothing, or a colon and an optional port number.
fn is_port(port: &[u8]) -> bool {
    let mut digits = match port {
        [] => return true,
        [b':', digits @ ..] => digits,
        _ => return false,
    };
    while let [b'0', rest @ ..] = digits {
        digits = rest;
    }
    // Numbers with the same count of digits compare as their bytes do.
    digits.iter().all(u8::is_ascii_digit) && (digits.len() < 5 || (digits.len() == 5 && digits <= b"65535".as_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_an_optional_port() {
        for good in [
            "localhost",
            "example.com:80",
            "127.0.0.1:8888",
            "[::1]",
            "[::1]:65535",
            "[fe80::1%25eth0]:80",
            "my_host-1.local.",
            "a:",
            "a:0",
            "a:00080",
            "a:65535",
            "a:0000065535",
            "%41.example",
        ] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a/b",
            "a@b",
            "a,b",
            "a, b",
            "a:b",
            "a:-1",
            "a:+80",
            "a:65536",
            "a:99999999999",
            "a:00065536",
            "a:0x0",
            "a:80:80",
            "::1",
            "[::1",
            "::1]",
            "[::1]80",
            "[]",
            "[1.2.3.4]",
            "[g::1]",
            "[::1%25]",
            "[::1%eth0]",
            "a\\b",
            "a?b",
            "a#b",
            "a\"b",
            "<a>",
            "%4",
            "%zz",
            "http://a",
            "\u{fc}.example",
            "a\t",
            "a|b",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    fn codings(lines: &[&'static str]) -> Option<u16> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(TRANSFER_ENCODING, HeaderValue::from_static(line));
        }
        check_codings(&headers).err().map(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn chunked_must_be_the_only_transfer_coding() {
        for (lines, refused) in [
            (&["chunked"][..], None),
            (&["Chunked"], None),
            (&["chunked, chunked"], Some(400)),
            (&["chunked", "chunked"], Some(400)),
            (&["gzip, chunked"], Some(501)),
            (&["gzip", "chunked"], Some(501)),
            (&["identity, chunked"], Some(501)),
            (&["xchunked, chunked"], Some(501)),
            (&[", chunked"], Some(501)),
        ] {
            assert_eq!(codings(lines), refused, "{lines:?}");
        }
    }

    fn target(method: Method, target: &str) -> bool {
        check_target(&method, &target.parse().unwrap()).is_ok()
    }

    #[test]
    fn a_target_is_a_path_or_an_http_url() {
        assert!(target(Method::GET, "/"));
        assert!(target(Method::GET, "//a/b?c"));
        assert!(target(Method::GET, "http://example.com/a"));
        assert!(target(Method::GET, "https://example.com"));
        assert!(target(Method::OPTIONS, "*"));
        for (method, bad) in [
            (Method::GET, "*"),
            (Method::GET, "example.com:80"),
            (Method::GET, "ftp://example.com/"),
            (Method::GET, "http://user@example.com/"),
            (Method::OPTIONS, "example.com"),
            (Method::CONNECT, "example.com:80"),
            (Method::CONNECT, "/"),
        ] {
            assert!(!target(method.clone(), bad), "{method} {bad}");
        }
    }
}
