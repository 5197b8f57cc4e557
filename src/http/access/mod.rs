//! The access log: one line for each request, in the combined format of Apache and nginx.
//!
//! The line is written when the answer is known: for a file before it is sent, for a WebSocket, an event stream or a poll when the
//! session begins. Its size is the length of the body that is announced; a body without a length has 0. Requests that hyper refuses
//! to parse have no line.
//!
//! Nothing secret is in a line: arguments whose names say that they are (`masking`) are replaced, in the target and in the referrer,
//! and no other header field than `Referer` and `User-Agent` is read. Bytes that are not printable ASCII, quotes and backslashes are
//! escaped as in nginx, so a client cannot end a line or a field.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use http::header::{HeaderMap, HeaderName, REFERER, USER_AGENT};
use http::request::Parts;
use http::{Method, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::body::Body;
use crate::config::limits::ACCESS_FIELD_BYTES_MAX;

mod masking;

use masking::masked;

/// What writes a line.
type Write = Box<dyn Fn(&str) + Send + Sync>;

/// Where lines go.
struct Sink {
    /// Whether the access log is on.
    on: Arc<AtomicBool>,
    write: Write,
}

static SINK: OnceLock<Sink> = OnceLock::new();

thread_local! {
    static CLOCK: RefCell<Clock> = RefCell::new(Clock::default());
}

/// The time as lines have it, made once a second.
struct Clock {
    zone: TimeZone,
    second: i64,
    text: String,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock { zone: TimeZone::system(), second: i64::MIN, text: String::new() }
    }
}

/// The user that a request has authenticated as. A route adds it to its answer.
#[derive(Debug, Clone)]
pub struct User(pub Arc<str>);

/// Sends the lines to `write` from now on, while `on` is true. Only the first call has an effect.
pub fn install((on, write): (Arc<AtomicBool>, Write)) {
    // A second log of the same process would be a mistake of the program, not of the operator.
    let _ = SINK.set(Sink { on, write });
}

fn sink() -> Option<&'static Sink> {
    SINK.get().filter(|sink| sink.on.load(Ordering::Relaxed))
}

/// The part of a request that its line shows.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'r> {
    /// Its method.
    pub method: &'r Method,
    /// Its target.
    pub uri: &'r Uri,
    /// The version of HTTP.
    pub version: Version,
    /// Its header fields.
    pub headers: &'r HeaderMap,
}

impl<'r> Asked<'r> {
    /// Of a request with this head.
    pub fn of(head: &'r Parts) -> Asked<'r> {
        Asked { method: &head.method, uri: &head.uri, version: head.version, headers: &head.headers }
    }
}

/// Writes the line of a request from `peer` that gets this answer.
pub fn note(peer: &str, asked: Asked<'_>, answer: &Response<Body>) {
    let Some(sink) = sink() else { return };
    let user = answer.extensions().get::<User>().map(|user| &*user.0);
    let bytes = if *asked.method == Method::HEAD { 0 } else { answer.body().size_hint().exact().unwrap_or(0) };
    (sink.write)(&line(peer, user, asked, answer.status(), bytes));
}

/// Writes the line of a request from `peer` by which a session begins, with this status.
pub fn note_session(peer: &str, asked: Asked<'_>, status: StatusCode) {
    let Some(sink) = sink() else { return };
    (sink.write)(&line(peer, None, asked, status, 0));
}

/// A line whose peer is not known yet.
#[derive(Debug)]
pub struct Begun(String);

impl Begun {
    /// The line of a request by which a session begins. `None`: the access log is off.
    pub fn of(asked: Asked<'_>, status: StatusCode) -> Option<Begun> {
        sink()?;
        Some(Begun(line("", None, asked, status, 0)))
    }

    /// Writes it.
    pub fn note(self, peer: &str) {
        if let Some(sink) = sink() {
            (sink.write)(&format!("{}{}", host(peer), self.0));
        }
    }
}

fn line(peer: &str, user: Option<&str>, asked: Asked<'_>, status: StatusCode, bytes: u64) -> String {
    let Asked { method, uri, version, headers } = asked;
    let mut line = String::with_capacity(256);
    line.push_str(host(peer));
    line.push_str(" - ");
    push(&mut line, user.unwrap_or("-").as_bytes(), true);
    CLOCK.with_borrow_mut(|clock| {
        // Writing into a string cannot fail.
        let _ = write!(line, " [{}] \"", clock.now());
    });
    push(&mut line, method.as_str().as_bytes(), false);
    line.push(' ');
    push(&mut line, masked(&target(uri)).as_bytes(), false);
    let _ = write!(line, " {version:?}\" {} {bytes}", status.as_u16());
    for name in [REFERER, USER_AGENT] {
        line.push_str(" \"");
        push_field(&mut line, headers, &name);
        line.push('"');
    }
    line.push('\n');
    line
}

/// The target of a request as it was sent, without a name and a password before its host.
fn target(uri: &Uri) -> String {
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(authority)) => {
            let host = authority.as_str().rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        (None, Some(authority)) => authority.as_str().rsplit('@').next().unwrap_or_default().to_owned(),
        _ => path.to_owned(),
    }
}

fn push_field(line: &mut String, headers: &HeaderMap, name: &HeaderName) {
    match headers.get(name) {
        None => line.push('-'),
        Some(value) if *name == REFERER => {
            push(line, masked(&String::from_utf8_lossy(value.as_bytes())).as_bytes(), false)
        }
        Some(value) => push(line, value.as_bytes(), false),
    }
}

/// The host of a peer, as the log names it: without the port.
fn host(peer: &str) -> &str {
    let host = match peer.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => peer,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.split(' ').next().unwrap_or_default()
}

/// Appends a field, escaped and cut. `is_word`: spaces are escaped, too.
fn push(line: &mut String, field: &[u8], is_word: bool) {
    let (field, is_cut) = match field.get(..ACCESS_FIELD_BYTES_MAX) {
        Some(start) if field.len() > start.len() => (start, true),
        _ => (field, false),
    };
    for &byte in field {
        match byte {
            b'"' | b'\\' => {}
            b' ' if is_word => {}
            b' '..=b'~' => {
                line.push(char::from(byte));
                continue;
            }
            _ => {}
        }
        let _ = write!(line, "\\x{byte:02X}");
    }
    if is_cut {
        line.push_str("...");
    }
}

impl Clock {
    fn now(&mut self) -> &str {
        let now = Timestamp::now();
        if self.second != now.as_second() {
            let local: Zoned = now.to_zoned(self.zone.clone());
            self.second = now.as_second();
            self.text = local.strftime("%d/%b/%Y:%H:%M:%S %z").to_string();
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(uri: &str, fields: &[(&'static str, &[u8])], user: Option<&str>) -> String {
        let uri: Uri = uri.parse().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, http::HeaderValue::from_bytes(value).unwrap());
        }
        let asked = Asked { method: &Method::GET, uri: &uri, version: Version::HTTP_11, headers: &headers };
        let line = line("127.0.0.1:5555", user, asked, StatusCode::OK, 12);
        let (start, rest) = line.split_once('[').unwrap();
        format!("{start}{}", rest.split_once("] ").unwrap().1)
    }

    #[test]
    fn the_format_is_combined() {
        let fields: &[(&'static str, &[u8])] = &[("referer", b"https://a.example/b"), ("user-agent", b"curl/8")];
        let expected = "127.0.0.1 - - \"GET /a?b=c HTTP/1.1\" 200 12 \"https://a.example/b\" \"curl/8\"\n";
        assert_eq!(shown("/a?b=c", fields, None), expected);
        assert_eq!(shown("*", &[], Some("a b")), "127.0.0.1 - a\\x20b \"GET * HTTP/1.1\" 200 12 \"-\" \"-\"\n");
        let absolute = shown("http://u:p@host:1/x?token=1", &[], None);
        assert_eq!(absolute, "127.0.0.1 - - \"GET http://host:1/x?token=*** HTTP/1.1\" 200 12 \"-\" \"-\"\n");
    }

    #[test]
    fn a_client_cannot_end_a_field_or_a_line() {
        let fields: &[(&'static str, &[u8])] =
            &[("user-agent", b"x\" 200 \\ \t\xff\xc3\xa4"), ("authorization", b"Basic x")];
        let line = shown("/%22%0a\"", fields, None);
        assert_eq!(
            line,
            "127.0.0.1 - - \"GET /%22%0a\\x22 HTTP/1.1\" 200 12 \"-\" \"x\\x22 200 \\x5C \\x09\\xFF\\xC3\\xA4\"\n"
        );
        let long = "a".repeat(ACCESS_FIELD_BYTES_MAX + 1);
        let line = shown("/", &[("user-agent", long.as_bytes())], None);
        assert!(line.len() < ACCESS_FIELD_BYTES_MAX + 100 && line.ends_with("aaa...\"\n"));
    }

    #[test]
    fn a_peer_is_shown_without_its_port() {
        for (peer, expected) in
            [("192.0.2.1:80", "192.0.2.1"), ("[2001:db8::1]:80", "2001:db8::1"), ("unix socket", "unix"), ("", "")]
        {
            assert_eq!(host(peer), expected, "{peer}");
        }
    }
}
