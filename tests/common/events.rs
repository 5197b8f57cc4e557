//! A client of event streams, in bytes (WHATWG HTML, section 9.2.6).

use std::net::SocketAddr;

use super::http::{Answer, request};
use super::wire::Wire;

/// An open event stream.
pub struct Events {
    /// Its connection.
    pub wire: Wire,
    /// The head of the response.
    pub head: Answer,
    /// How long the client is to wait before it connects again, in milliseconds.
    pub retry: u32,
    /// The last id: the position from which the client may continue.
    pub id: Option<String>,
}

/// What comes on a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Block {
    /// An event: its type, if it says one, and its data.
    Event(Option<String>, String),
    /// An id without an event.
    Id(String),
    /// A comment.
    Comment(String),
}

impl Events {
    /// Opens a stream as a browser does.
    pub fn open(address: SocketAddr, target: &str) -> Events {
        Events::ask(address, target, &["Accept: text/event-stream"])
    }

    /// Opens a stream from a position on, as a browser does.
    pub fn resume(address: SocketAddr, target: &str, since: &str) -> Events {
        Events::ask(address, target, &["Accept: text/event-stream", &format!("Last-Event-ID: {since}")])
    }

    /// Opens a stream with these header fields.
    pub fn ask(address: SocketAddr, target: &str, fields: &[&str]) -> Events {
        let mut wire = Wire::connect(address);
        wire.send(&request(address, "GET", target, fields, b""));
        Events::read(wire)
    }

    /// Reads the beginning of a stream that was asked for.
    pub fn read(mut wire: Wire) -> Events {
        let head = Answer::read_head(&mut wire);
        assert_eq!((head.status, head.field("content-type")), (200, Some("text/event-stream")), "{head:?}");
        let retry = block(&mut wire, is_chunked(&head));
        let retry = retry.trim().strip_prefix("retry: ").unwrap_or_else(|| panic!("{retry:?}")).parse().unwrap();
        Events { wire, head, retry, id: None }
    }

    /// The next block.
    pub fn next(&mut self) -> Block {
        let block = block(&mut self.wire, is_chunked(&self.head));
        let block = block.strip_suffix("\n\n").unwrap();
        if let Some(comment) = block.strip_prefix(':') {
            return Block::Comment(comment.trim().to_owned());
        }
        let (mut name, mut data) = (None, Vec::new());
        for line in block.split('\n') {
            match line.split_once(": ") {
                Some(("event", value)) => assert_eq!(name.replace(value.to_owned()), None, "{block:?}"),
                Some(("data", value)) => data.push(value),
                Some(("id", value)) => self.id = Some(value.to_owned()),
                _ => panic!("{line:?} in {block:?}"),
            }
        }
        if data.is_empty() && name.is_none() {
            return Block::Id(self.id.clone().unwrap());
        }
        assert!(!data.is_empty(), "{block:?}");
        Block::Event(name, data.join("\n"))
    }

    /// Reads an event of the usual type with this data.
    pub fn expect(&mut self, data: &str) {
        assert_eq!(self.next(), Block::Event(None, data.to_owned()));
    }

    /// Reads an id without an event.
    pub fn expect_id(&mut self) -> String {
        match self.next() {
            Block::Id(id) => id,
            block => panic!("{block:?} instead of an id"),
        }
    }

    /// Reads that messages of a channel are gone.
    pub fn expect_gap(&mut self, channel: &str) {
        let gap = format!("{{\"channel\":\"{channel}\"}}");
        assert_eq!(self.next(), Block::Event(Some("gap".to_owned()), gap));
    }

    /// Reads why the stream ends, and its end.
    pub fn expect_end(&mut self, words: &str) {
        match self.next() {
            Block::Comment(comment) => assert!(comment.contains(words), "{comment:?} does not say {words:?}"),
            block => panic!("{block:?} instead of an end"),
        }
        self.expect_no_more();
    }

    /// Reads the end of the stream.
    pub fn expect_no_more(&mut self) {
        if is_chunked(&self.head) {
            assert_eq!(self.wire.take(5), b"0\r\n\r\n");
        }
        self.wire.expect_end();
    }
}

fn is_chunked(head: &Answer) -> bool {
    head.field("transfer-encoding") == Some("chunked")
}

/// Lines up to an empty one. In a response with chunks they are one chunk.
fn block(wire: &mut Wire, is_chunk: bool) -> String {
    if !is_chunk {
        return String::from_utf8(wire.take_until(b"\n\n")).unwrap();
    }
    let length = String::from_utf8(wire.take_until(b"\r\n")).unwrap();
    let length = usize::from_str_radix(length.trim(), 16).unwrap();
    let block = String::from_utf8(wire.take(length)).unwrap();
    assert_eq!(wire.take(2), b"\r\n");
    block
}
