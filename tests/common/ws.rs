//! A WebSocket client that works on bytes: RFC 6455, and draft-76.
//!
//! The keys and answers of both handshakes are the examples of the two documents, so that the tests do not repeat the
//! server's computation.

use std::net::SocketAddr;

use super::http::Answer;
use super::wire::Wire;

/// The key of RFC 6455 §1.3, and the required answer.
pub const KEY: (&str, &str) = ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");

/// The opcodes, each with the FIN bit.
pub const TEXT: u8 = 0x81;
/// See [`TEXT`].
pub const BINARY: u8 = 0x82;
/// See [`TEXT`].
pub const CLOSE: u8 = 0x88;
/// See [`TEXT`].
pub const PING: u8 = 0x89;
/// See [`TEXT`].
pub const PONG: u8 = 0x8a;

/// A client of RFC 6455.
pub struct Ws {
    /// Its connection.
    pub wire: Wire,
}

/// A frame from the server: its first byte and its payload.
pub type Frame = (u8, Vec<u8>);

/// The opening handshake. `fields` are added, or replace those of the same name; a field without a value is removed.
pub fn handshake(address: SocketAddr, target: &str, fields: &[&str]) -> Vec<u8> {
    let mut text = format!("GET {target} HTTP/1.1\r\n");
    let own = [
        format!("Host: {address}"),
        "Upgrade: websocket".to_owned(),
        "Connection: Upgrade".to_owned(),
        format!("Sec-WebSocket-Key: {}", KEY.0),
        "Sec-WebSocket-Version: 13".to_owned(),
    ];
    let name = |field: &str| field.split(':').next().unwrap().to_ascii_lowercase();
    for field in own.iter().filter(|own| !fields.iter().any(|given| name(given) == name(own))) {
        text += &format!("{field}\r\n");
    }
    for field in fields.iter().filter(|field| !field.ends_with(':')) {
        text += &format!("{field}\r\n");
    }
    (text + "\r\n").into_bytes()
}

/// A masked frame of a client.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..65536 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    // Eight bytes at a time: without optimisation, single bytes would take a second for the largest message.
    let eights = payload.chunks_exact(8);
    let rest = eights.remainder();
    let twice = u64::from_ne_bytes([mask, mask].concat().try_into().unwrap());
    for eight in eights {
        bytes.extend_from_slice(&(u64::from_ne_bytes(eight.try_into().unwrap()) ^ twice).to_ne_bytes());
    }
    bytes.extend(rest.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The payload of a close frame.
pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// Takes the next frame from the server.
pub fn take_frame(wire: &mut Wire) -> Frame {
    let head = wire.take(2);
    assert_eq!(head[1] & 0x80, 0, "a server does not mask");
    let length = match head[1] {
        126 => u16::from_be_bytes(wire.take(2).try_into().unwrap()).into(),
        127 => u64::from_be_bytes(wire.take(8).try_into().unwrap()) as usize,
        length => length.into(),
    };
    (head[0], wire.take(length))
}

impl Ws {
    /// Opens a session.
    pub fn open(address: SocketAddr, target: &str) -> Ws {
        Ws::open_on(Wire::connect(address), target)
    }

    /// Opens a session on an existing connection.
    pub fn open_on(mut wire: Wire, target: &str) -> Ws {
        let address = wire.peer_address();
        wire.send(&handshake(address, target, &[]));
        let answer = Answer::read_head(&mut wire);
        assert_eq!(answer.status, 101, "{answer:?}");
        assert_eq!(answer.field("sec-websocket-accept"), Some(KEY.1));
        Ws { wire }
    }

    /// Requests a session, with fields that replace those of the same name. A field without a value is removed.
    pub fn ask(address: SocketAddr, target: &str, fields: &[&str]) -> (Answer, Ws) {
        let mut wire = Wire::connect(address);
        wire.send(&handshake(address, target, fields));
        let answer = Answer::read(&mut wire);
        (answer, Ws { wire })
    }

    /// Sends a frame.
    pub fn send(&mut self, first: u8, payload: &[u8]) {
        self.wire.send(&frame(first, payload));
    }

    /// Sends a text.
    pub fn text(&mut self, text: &str) {
        self.send(TEXT, text.as_bytes());
    }

    /// The next frame.
    pub fn next(&mut self) -> Frame {
        take_frame(&mut self.wire)
    }

    /// The next frame other than a ping. Pings may come at any time and are answered.
    fn next_but_pings(&mut self) -> Frame {
        loop {
            match self.next() {
                (PING, payload) => self.send(PONG, &payload),
                frame => return frame,
            }
        }
    }

    /// The next frame other than a ping. It must be a text.
    pub fn next_text(&mut self) -> String {
        let (first, payload) = self.next_but_pings();
        assert_eq!(first, TEXT, "{:?}", String::from_utf8_lossy(&payload));
        String::from_utf8(payload).unwrap()
    }

    /// The next frame must be this text.
    pub fn expect_text(&mut self, text: &str) {
        assert_eq!(self.next_text(), text);
    }

    /// The next frame other than a ping must be a close. Returns its code and reason.
    pub fn next_close(&mut self) -> (u16, String) {
        let (first, payload) = self.next_but_pings();
        assert_eq!(first, CLOSE, "{:?}", String::from_utf8_lossy(&payload));
        let (code, reason) = payload.split_at(2);
        (u16::from_be_bytes(code.try_into().unwrap()), String::from_utf8(reason.to_vec()).unwrap())
    }

    /// The next frame must be a close with this code, and with these words in its reason. It is answered, and the
    /// connection must end.
    pub fn expect_close(&mut self, code: u16, words: &str) {
        let (got, reason) = self.next_close();
        assert_eq!(got, code, "{reason:?}");
        assert!(reason.contains(words), "{reason:?}");
        self.wire.try_send(&frame(CLOSE, &close_payload(code, "")));
        self.wire.expect_end();
    }

    /// Checks that nothing else is waiting: frames staged for this session would arrive before the answer to a ping.
    pub fn expect_nothing(&mut self) {
        self.send(PING, b"nothing yet?");
        let (first, payload) = self.next();
        assert_eq!((first, &payload[..]), (PONG, &b"nothing yet?"[..]), "{:?}", String::from_utf8_lossy(&payload));
    }

    /// Closes the session, and waits for the answer and the end.
    pub fn close(mut self) {
        self.send(CLOSE, &close_payload(1000, "done"));
        let (code, _) = self.next_close();
        assert_eq!(code, 1000);
        self.wire.expect_end();
    }
}

/// A client of draft-76.
pub struct Hixie {
    /// Its connection.
    pub wire: Wire,
    /// The head of the server's answer.
    pub answer: Answer,
}

/// The keys, the eight bytes after the header, and the required answer: the example in §1.3 of the draft.
pub const KEYS_76: (&str, &str, &[u8; 8], &[u8; 16]) =
    ("18x 6]8vM;54 *(5:  {   U1]8  z [  8", "1_ tx7X d  <  nw  334J702) 7]o}` 0", b"Tm[K T2u", b"fQJ,fN/4F4!~K~MH");

/// The handshake of draft-76 without its last eight bytes.
pub fn handshake_76(address: SocketAddr, target: &str, fields: &[&str]) -> Vec<u8> {
    let mut text = format!(
        "GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
         Sec-WebSocket-Key1: {}\r\nSec-WebSocket-Key2: {}\r\nOrigin: http://{address}\r\n",
        KEYS_76.0, KEYS_76.1
    );
    for field in fields {
        text += &format!("{field}\r\n");
    }
    (text + "\r\n").into_bytes()
}

impl Hixie {
    /// Opens a session.
    pub fn open(address: SocketAddr, target: &str) -> Hixie {
        Hixie::open_with(address, target, &[])
    }

    /// Opens a session with more fields.
    pub fn open_with(address: SocketAddr, target: &str, fields: &[&str]) -> Hixie {
        let mut wire = Wire::connect(address);
        wire.send(&[&handshake_76(address, target, fields), &KEYS_76.2[..]].concat());
        let answer = Answer::read_head(&mut wire);
        assert_eq!(answer.status, 101, "{answer:?}");
        assert_eq!(wire.take(16), KEYS_76.3);
        Hixie { wire, answer }
    }

    /// Sends a text.
    pub fn text(&mut self, text: &str) {
        self.wire.send(&[b"\x00", text.as_bytes(), b"\xff"].concat());
    }

    /// The next text, or `None` for the server's close.
    pub fn next_or_close(&mut self) -> Option<String> {
        let kind = self.wire.take(1)[0];
        if kind == 0xff {
            assert_eq!(self.wire.take(1), [0x00], "the second byte of a close");
            return None;
        }
        assert_eq!(kind, 0, "the first byte of a text");
        let mut text = self.wire.take_until(&[0xff]);
        text.pop();
        Some(String::from_utf8(text).unwrap())
    }

    /// The next text.
    pub fn next_text(&mut self) -> String {
        self.next_or_close().expect("a text, not a close")
    }

    /// The next frame must be this text.
    pub fn expect_text(&mut self, text: &str) {
        assert_eq!(self.next_text(), text);
    }

    /// The server must close. That is answered, and the connection must end.
    pub fn expect_close(&mut self) {
        assert_eq!(self.wire.take(2), [0xff, 0x00]);
        self.wire.try_send(&[0xff, 0x00]);
        self.wire.expect_end();
    }

    /// Closes the session, and waits for the answer and the end.
    pub fn close(mut self) {
        self.wire.send(&[0xff, 0x00]);
        assert_eq!(self.wire.take(2), [0xff, 0x00]);
        self.wire.expect_end();
    }
}
