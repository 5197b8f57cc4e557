//! The kinds of sessions that subscribers open: WebSockets (RFC 6455), and event streams (WHATWG HTML, section 9.2).
//!
//! Everything that differs between them is here: the request, the response that opens the session, and the bytes around
//! a message.

use std::borrow::Cow;

use http::StatusCode;

use super::answer::Answer;
use crate::ctl::dial::AGENT;
use crate::ctl::url::Url;

/// The longest header of a WebSocket frame from a server.
pub const HEADER_BYTES_MAX: usize = 10;
/// The key of RFC 6455 §1.3 and the required answer to it. All connections use it, so nothing is computed here.
const KEY: (&str, &str) = ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
/// The first bytes of control frames.
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// The kind of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// A WebSocket: each message is a text frame.
    WebSocket,
    /// An event stream: each message is the data of an event. The client sends nothing after its request.
    EventStream,
}

/// A part of what a server sends on a session.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A message.
    Message(Cow<'a, [u8]>),
    /// A ping, which has to be answered.
    Ping(&'a [u8]),
    /// The end of the session; why.
    Close(String),
    /// A part without meaning for a load: a pong, a comment, an event without data.
    Nothing,
}

impl Framing {
    /// The request that opens a session.
    pub(super) fn request(self, url: &Url) -> String {
        let (path, host) = (&url.path, url.authority());
        let (version, fields) = match self {
            Framing::WebSocket => {
                let key = KEY.0;
                let fields = format!(
                    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n\
                     Sec-WebSocket-Version: 13\r\n"
                );
                ("HTTP/1.1", fields)
            }
            // A response to HTTP/1.0 has no chunks, so its body is the stream itself.
            Framing::EventStream => ("HTTP/1.0", "Accept: text/event-stream\r\n".to_owned()),
        };
        format!("GET {path} {version}\r\nHost: {host}\r\n{fields}User-Agent: {AGENT}\r\n\r\n")
    }

    /// Checks that a response opens a session.
    ///
    /// # Errors
    /// It does not; why.
    pub(super) fn check(self, answer: &Answer<'_>) -> Result<(), String> {
        let (expected, name) = match self {
            Framing::WebSocket => (StatusCode::SWITCHING_PROTOCOLS, "WebSocket"),
            Framing::EventStream => (StatusCode::OK, "event stream"),
        };
        if answer.status != expected {
            return match answer.status.is_success() {
                true => Err(format!("it answers {}, but serves no {name}", answer.status)),
                false => Err(answer.refusal()),
            };
        }
        match self {
            Framing::WebSocket if answer.field("sec-websocket-accept") != Some(KEY.1) => {
                Err("its answer is not a WebSocket handshake".to_owned())
            }
            Framing::EventStream => check_stream(answer),
            Framing::WebSocket => Ok(()),
        }
    }

    /// The bytes that a server sends before and after a message of `length` bytes that has no line breaks.
    pub(super) fn around(self, length: usize) -> (Vec<u8>, &'static [u8]) {
        match self {
            Framing::WebSocket => {
                let mut header = Vec::new();
                header_into(false, length, &mut header);
                (header, b"")
            }
            Framing::EventStream => (b"data: ".to_vec(), b"\n\n"),
        }
    }

    /// The part at the start of `bytes`, and its length; `None` if it is incomplete. Fails if it is invalid, or longer
    /// than `longest` bytes.
    pub(super) fn parse(self, bytes: &[u8], longest: usize) -> Result<Option<(Part<'_>, usize)>, ()> {
        match self {
            Framing::WebSocket => parse_frame(bytes, longest),
            Framing::EventStream => parse_block(bytes, longest),
        }
    }
}

fn check_stream(answer: &Answer<'_>) -> Result<(), String> {
    let kind = answer.field("content-type").unwrap_or("no Content-Type");
    let is_stream = kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"));
    if !is_stream {
        return Err(format!("it answers {} with {kind}, but serves no event stream", answer.status));
    }
    match answer.field("transfer-encoding").or(answer.field("content-encoding")) {
        Some(encoding) => Err(format!("its event stream is encoded ({encoding}), which was not requested")),
        None => Ok(()),
    }
}

/// The frame of a server at the start of `bytes`.
fn parse_frame(bytes: &[u8], longest: usize) -> Result<Option<(Part<'_>, usize)>, ()> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let (start, length) = match (second, rest) {
        (126, [a, b, ..]) => (4, u64::from(u16::from_be_bytes([*a, *b]))),
        (127, [a, b, c, d, e, f, g, h, ..]) => (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])),
        (126 | 127, _) => return Ok(None),
        (0..126, _) => (2, u64::from(*second)),
        // A server does not mask.
        _ => return Err(()),
    };
    if length > longest as u64 {
        return Err(());
    }
    let end = start + length as usize;
    let Some(payload) = bytes.get(start..end) else { return Ok(None) };
    let part = match *first {
        CLOSE => Part::Close(close_reason(payload)),
        PING => Part::Ping(payload),
        PONG => Part::Nothing,
        _ => Part::Message(Cow::Borrowed(payload)),
    };
    Ok(Some((part, end)))
}

/// The block of an event stream at the start of `bytes`: all lines up to an empty one, which ends the event. Only its
/// data is used, not its id or type.
fn parse_block(bytes: &[u8], longest: usize) -> Result<Option<(Part<'_>, usize)>, ()> {
    let mut data: Option<Cow<'_, [u8]>> = None;
    let mut used = 0;
    while let Some(length) = bytes[used..].iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        let (line, end) = bytes[used..].split_at(length);
        // A CR at the end of `bytes` may be half of a CRLF. Then the LF is a block without data.
        used += length + if end.starts_with(b"\r\n") { 2 } else { 1 };
        if line.is_empty() {
            return Ok(Some((data.map_or(Part::Nothing, Part::Message), used)));
        }
        let Some(value) = data_of(line) else { continue };
        match &mut data {
            None => data = Some(Cow::Borrowed(value)),
            Some(lines) => lines.to_mut().extend([b"\n", value].concat()),
        }
    }
    if bytes.len() > longest { Err(()) } else { Ok(None) }
}

/// The value of a line that is a `data` field.
fn data_of(line: &[u8]) -> Option<&[u8]> {
    match line.strip_prefix(b"data")? {
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        [] => Some(&[]),
        _ => None,
    }
}

/// Appends the header of an unfragmented text frame, without the mask.
pub fn header_into(masked: bool, length: usize, out: &mut Vec<u8>) {
    let bit = if masked { 0x80 } else { 0 };
    out.push(0x81);
    match length {
        0..126 => out.push(bit | length as u8),
        126..65536 => {
            out.push(bit | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(bit | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Appends the answer to a ping.
pub fn pong_into(payload: &[u8], out: &mut Vec<u8>) {
    // A mask of zeros is valid. The payload came from the server, so it need not be masked for real.
    out.extend_from_slice(&[PONG, 0x80 | payload.len() as u8, 0, 0, 0, 0]);
    out.extend_from_slice(payload);
}

/// The code and reason of a close frame as text.
fn close_reason(payload: &[u8]) -> String {
    match payload {
        [a, b, reason @ ..] => {
            let text = format!("{} {}", u16::from_be_bytes([*a, *b]), String::from_utf8_lossy(reason));
            text.trim_end().to_owned()
        }
        _ => "a close without a code".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> Option<(Part<'_>, usize)> {
        Framing::EventStream.parse(text.as_bytes(), 100).unwrap()
    }

    fn data(text: &str) -> Part<'_> {
        Part::Message(Cow::Borrowed(text.as_bytes()))
    }

    #[test]
    fn frames_that_no_server_sends_are_rejected() {
        assert_eq!(Framing::WebSocket.parse(&[0x81, 0x85, 0, 0, 0, 0], 100), Err(()));
        assert_eq!(Framing::WebSocket.parse(&[0x82, 126, 1, 0], 100), Err(()));
        assert_eq!(Framing::WebSocket.parse(&[0x82, 127, 0, 0, 0], 100), Ok(None));
    }

    #[test]
    fn the_data_of_an_event_is_found_among_other_fields() {
        for text in [
            "data: a b\n\n",
            "data:a b\n\n",
            "id: 7:0\nevent: news\ndata: a b\nretry: 5\n\n",
            ": hi\r\ndata: a b\r\n\r\n",
        ] {
            assert_eq!(block(text), Some((data("a b"), text.len())), "{text:?}");
            let incomplete = text.strip_suffix("\r\n").or(text.strip_suffix('\n')).unwrap();
            assert_eq!(block(incomplete), None, "{incomplete:?}");
        }
        assert_eq!(block("data: a\ndata\ndata:  b\n\nrest"), Some((data("a\n\n b"), 23)));
        assert_eq!(block("\ndata: a\n\n"), Some((Part::Nothing, 1)));
        for text in ["retry: 2000\n\n", ":\n\n", ": too slow\n\n", "database: a\n\n", "id: 7\n\n"] {
            assert_eq!(block(text), Some((Part::Nothing, text.len())), "{text:?}");
        }
    }

    #[test]
    fn every_line_ending_of_an_event_stream_may_arrive_in_pieces() {
        for end in ["\n", "\r", "\r\n"] {
            let stream = ["data: a", end, end, ": hi", end, end, "data: b", end, end].concat();
            for split in 0..=stream.len() {
                let mut found = Vec::new();
                let mut held = String::new();
                for piece in [&stream[..split], &stream[split..]] {
                    held += piece;
                    while let Some((part, used)) = block(&held) {
                        if let Part::Message(data) = part {
                            found.push(data.into_owned());
                        }
                        held.drain(..used);
                    }
                }
                assert_eq!((found, held.as_str()), (vec![b"a".to_vec(), b"b".to_vec()], ""), "{stream:?} at {split}");
            }
        }
    }

    #[test]
    fn an_event_that_is_too_long_is_rejected() {
        assert_eq!(Framing::EventStream.parse(&[b'x'; 101], 100), Err(()));
    }

    #[test]
    fn only_a_plain_event_stream_opens_one() {
        let check = |head: &str| {
            let head = format!("HTTP/1.1 {head}\r\n\r\n");
            Framing::EventStream.check(&Answer::parse(head.as_bytes()).unwrap().unwrap())
        };
        assert_eq!(check("200 OK\r\nContent-Type: text/event-stream"), Ok(()));
        assert_eq!(check("200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8"), Ok(()));
        for (head, words) in [
            ("200 OK\r\nContent-Type: text/html", "with text/html"),
            ("200 OK", "no Content-Type"),
            ("204 No Content", "serves no event stream"),
            ("404 Not Found", "404"),
            ("200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked", "chunked"),
        ] {
            let why = check(head).unwrap_err();
            assert!(why.contains(words), "{head:?}: {why}");
        }
    }
}
