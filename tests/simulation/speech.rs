//! The frames that clients send and receive. The framings are implemented here a second time, so that server and simulation do not
//! share a mistake.

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use pushd::hub::{Kind, Position};
use pushd::wire::Framing;
use serde_json::Value;

use crate::model::Form;
use crate::random::Random;

/// The end of a compressed message that is not sent.
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// Something that the server sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A message, and its position and channel, where the client is told them.
    Message(Kind, Vec<u8>, Option<Position>, Option<String>),
    /// Messages of a channel are gone.
    Gap(String, Option<Position>),
    /// Everything up to here was received.
    Told(Position),
    Ping,
    Pong(Vec<u8>),
    /// The code and the reason, if the framing has them.
    Close(Option<(u16, String)>),
}

/// The decoder of a client.
pub struct Decoder {
    form: Form,
    pub bytes: Vec<u8>,
}

impl Decoder {
    pub fn new(form: Form) -> Decoder {
        Decoder { form, bytes: Vec::new() }
    }

    /// Decodes all complete frames.
    pub fn received(&mut self) -> Vec<Received> {
        let mut all = Vec::new();
        let mut at = 0;
        while let Some((received, length)) = match self.form.framing {
            Framing::Rfc6455 => rfc6455(&self.bytes[at..], false),
            Framing::Deflate => rfc6455(&self.bytes[at..], true),
            Framing::Hixie76 => hixie76(&self.bytes[at..]),
            Framing::EventStream => chunk(&self.bytes[at..]),
            Framing::BareEventStream => event(&self.bytes[at..]),
            Framing::Poll | Framing::BarePoll => panic!("no world has polls, whose sessions end with one answer"),
        } {
            all.push(if self.form.envelope { opened(received) } else { received });
            at += length;
        }
        self.bytes.drain(..at);
        all
    }
}

/// Opens the envelope of a message. Greetings, echoes and gap notices have none.
fn opened(received: Received) -> Received {
    let Received::Message(Kind::Text, text, None, None) = &received else { return received };
    if !text.starts_with(b"{") {
        return received;
    }
    let envelope: serde_json::Map<String, Value> = serde_json::from_slice(text).unwrap();
    let text = |name: &str| envelope.get(name).map(|value| value.as_str().unwrap().to_owned());
    let names: Vec<_> = envelope.keys().filter(|name| *name != "id").map(String::as_str).collect();
    let id = text("id").map(|id| Position::parse(&id).unwrap());
    match names[..] {
        [] => Received::Told(id.unwrap()),
        ["channel", "gap"] => Received::Gap(text("channel").unwrap(), id),
        ["channel", "data"] => {
            Received::Message(Kind::Text, text("data").unwrap().into_bytes(), id, Some(text("channel").unwrap()))
        }
        ["base64", "channel"] => {
            let payload = BASE64.decode(text("base64").unwrap()).unwrap();
            Received::Message(Kind::Binary, payload, id, Some(text("channel").unwrap()))
        }
        _ => panic!("an envelope with {names:?}"),
    }
}

fn rfc6455(bytes: &[u8], inflates: bool) -> Option<(Received, usize)> {
    let [first, second, ..] = *bytes else { return None };
    assert_eq!(second & 0x80, 0, "a server does not mask");
    let (length, header) = match second {
        126 => (u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()) as usize, 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()) as usize, 10),
        short => (usize::from(short), 2),
    };
    let payload = bytes.get(header..header + length)?.to_vec();
    let received = match first {
        0x81 => plain(Kind::Text, payload),
        0x82 => plain(Kind::Binary, payload),
        0xc1 if inflates => plain(Kind::Text, inflated(payload)),
        0xc2 if inflates => plain(Kind::Binary, inflated(payload)),
        0x88 => {
            let reason = String::from_utf8(payload[2..].to_vec()).unwrap();
            Received::Close(Some((u16::from_be_bytes([payload[0], payload[1]]), reason)))
        }
        0x89 => Received::Ping,
        0x8a => Received::Pong(payload),
        other => panic!("the server sent a frame that begins with {other:#x}"),
    };
    Some((received, header + length))
}

/// Inflates a message (RFC 7692, no context takeover).
fn inflated(mut payload: Vec<u8>) -> Vec<u8> {
    payload.extend_from_slice(&TAIL);
    let mut message = Vec::with_capacity(200_000);
    flate2::Decompress::new(false).decompress_vec(&payload, &mut message, flate2::FlushDecompress::Sync).unwrap();
    assert!(message.len() < message.capacity());
    message
}

fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut small = Vec::with_capacity(payload.len() * 2 + 100);
    let mut deflate = flate2::Compress::new(flate2::Compression::fast(), false);
    deflate.compress_vec(payload, &mut small, flate2::FlushCompress::Sync).unwrap();
    small.strip_suffix(&TAIL).unwrap().to_vec()
}

fn hixie76(bytes: &[u8]) -> Option<(Received, usize)> {
    match *bytes {
        [] | [0xff] => None,
        [0xff, 0x00, ..] => Some((Received::Close(None), 2)),
        [0x00, ref rest @ ..] => {
            let end = rest.iter().position(|&b| b == 0xff)?;
            Some((plain(Kind::Text, rest[..end].to_vec()), end + 2))
        }
        [other, ..] => panic!("the server sent a frame that begins with {other:#x}"),
    }
}

/// A chunk with one event or comment; behind the last one, the chunk that ends the response.
fn chunk(bytes: &[u8]) -> Option<(Received, usize)> {
    let header = bytes.windows(2).position(|two| two == b"\r\n")? + 2;
    let length = usize::from_str_radix(std::str::from_utf8(&bytes[..header - 2]).unwrap(), 16).unwrap();
    let content = bytes.get(header..header + length)?;
    let (received, all) = event(content).expect("a whole event in a chunk");
    assert_eq!(all, length, "one event in a chunk");
    let mut end = header + length + 2;
    if matches!(received, Received::Close(_)) {
        end += b"0\r\n\r\n".len();
        assert_eq!(bytes.get(end - 5..end)?, b"0\r\n\r\n");
    }
    (bytes.get(end - 2..end)? == b"\r\n").then_some((received, end))
}

/// An event or a comment: lines up to an empty one.
fn event(bytes: &[u8]) -> Option<(Received, usize)> {
    let end = bytes.windows(2).position(|two| two == b"\n\n")?;
    let text = std::str::from_utf8(&bytes[..end]).unwrap();
    let received = match text.strip_prefix(':') {
        Some("") => Received::Ping,
        Some(_) => Received::Close(None),
        None => fields(text),
    };
    Some((received, end + 2))
}

/// The fields of an event.
fn fields(text: &str) -> Received {
    let (mut name, mut id, mut data) = (None, None, None::<String>);
    for line in text.lines() {
        match line.split_once(": ").unwrap() {
            ("event", value) => name = Some(value),
            ("id", value) => id = Some(Position::parse(value).unwrap()),
            ("data", value) => data = Some(data.map_or_else(|| value.to_owned(), |before| before + "\n" + value)),
            _ => panic!("a field {line:?}"),
        }
    }
    match (name, data) {
        (None, None) => Received::Told(id.unwrap()),
        (None, Some(data)) => Received::Message(Kind::Text, data.into_bytes(), id, None),
        (Some("gap"), Some(data)) => {
            let data: Value = serde_json::from_str(&data).unwrap();
            assert_eq!(data.as_object().unwrap().len(), 1, "{data}");
            Received::Gap(data["channel"].as_str().unwrap().to_owned(), id)
        }
        other => panic!("an event of {other:?}"),
    }
}

fn plain(kind: Kind, payload: Vec<u8>) -> Received {
    Received::Message(kind, payload, None, None)
}

/// One masked frame.
pub fn frame(first: u8, payload: &[u8], random: &mut Random) -> Vec<u8> {
    let mask = (random.number() as u32).to_be_bytes();
    let mut bytes = vec![first];
    match payload.len() {
        n if n < 126 => bytes.push(0x80 | n as u8),
        n if n < 65536 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]));
    bytes
}

/// A message, in some cases in fragments. `between` is inserted after the first fragment.
pub fn message(framing: Framing, kind: Kind, payload: &[u8], between: Option<&[u8]>, random: &mut Random) -> Vec<u8> {
    if framing == Framing::Hixie76 {
        return [&[0x00], payload, &[0xff]].concat();
    }
    let opcode = if kind == Kind::Text { 0x1 } else { 0x2 };
    let compressed =
        (framing == Framing::Deflate && payload.len() < 250 && random.once_in(2)).then(|| deflated(payload));
    let opcode = opcode | if compressed.is_some() { 0x40 } else { 0 };
    let payload = compressed.as_deref().unwrap_or(payload);
    let pieces = 1 + if between.is_some() || random.once_in(3) { 1 + random.below(3) } else { 0 };
    let mut bytes = Vec::new();
    let mut rest = payload;
    for piece in 0..pieces {
        let last = piece + 1 == pieces;
        let cut = if last { rest.len() } else { random.below(rest.len() + 1) };
        let first = if piece == 0 { opcode } else { 0 } | if last { 0x80 } else { 0 };
        bytes.extend(frame(first, &rest[..cut], random));
        rest = &rest[cut..];
        if piece == 0 && pieces > 1 {
            bytes.extend_from_slice(between.unwrap_or_default());
        }
    }
    bytes
}

/// A close.
pub fn close(framing: Framing, code: Option<u16>, random: &mut Random) -> Vec<u8> {
    let payload = code.map(|code| [&code.to_be_bytes()[..], b"bye"].concat()).unwrap_or_default();
    match framing {
        Framing::Rfc6455 | Framing::Deflate => frame(0x88, &payload, random),
        Framing::Hixie76 => vec![0xff, 0x00],
        _ => Vec::new(),
    }
}

/// A violation of the protocol or of the limit of `limit` bytes, and its close code.
pub fn violation(framing: Framing, limit: usize, random: &mut Random) -> (Vec<u8>, u16) {
    if framing == Framing::Hixie76 {
        let too_long = [&[0x00], &vec![b'x'; limit + 1][..], &[0xff]].concat();
        let all: [(&[u8], u16); 3] =
            [(b"\x00\xfe\xff", 1007), (&too_long, 1009), (&[0x80, 0xff, 0xff, 0xff, 0xff, 0x7f], 1009)];
        let (bytes, code) = random.one_of(&all);
        return (bytes.to_vec(), code);
    }
    let (first, payload, code): (u8, Vec<u8>, u16) = match random.below(9) {
        0 => (0xa1, b"reserved bit".to_vec(), 1002),
        1 => (0x83, b"no such opcode".to_vec(), 1002),
        2 => (0x09, b"a ping in pieces".to_vec(), 1002),
        3 => (0x89, vec![b'x'; 126], 1002),
        4 => (0x80, b"the rest of nothing".to_vec(), 1002),
        5 => (0x88, 1005u16.to_be_bytes().to_vec(), 1002),
        6 => (0x81, vec![b'a', 0xff, b'b'], if limit < 3 { 1009 } else { 1007 }),
        7 => (0x82, vec![0; limit + 1], 1009),
        _ => return (vec![0x81, 1, b'x'], 1002),
    };
    (frame(first, &payload, random), code)
}
