//! Bytes on the wire, without sockets and without state.
//!
//! A [`Framing`] defines how messages are framed on a connection. Each framing has a file: `rfc6455`, with `deflate` for its
//! compression; `hixie76`, the old draft, with its handshake; `event_stream` and `poll`, with `chunked` for HTTP/1.1. `close` has all close codes with the reasons that
//! clients receive. `tagged` and `fields` define how a session is written for another process; `format1` reads what version 0.1.0
//! wrote.

pub mod chunked;
pub mod close;
pub mod deflate;
pub mod event_stream;
pub mod fields;
pub mod format1;
pub mod hixie76;
pub mod poll;
pub mod rfc6455;
pub mod tagged;

use bytes::Bytes;

pub use close::Close;

use crate::hub::{Kind, Position};

/// How messages are framed on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// WebSocket (RFC 6455).
    #[default]
    Rfc6455,
    /// draft-hixie-thewebsocketprotocol-76, in use before 2011: text only, no pings, no close codes.
    Hixie76,
    /// RFC 6455 with permessage-deflate (RFC 7692): messages may be compressed.
    Deflate,
    /// An endless HTTP/1.1 response that an `EventSource` reads, each event a chunk: text only, and the client sends nothing.
    EventStream,
    /// The same in HTTP/1.0, which has no chunks: the end of the connection ends the response.
    BareEventStream,
    /// An HTTP/1.1 response that is complete when there is something to say: every kind of message, and the client sends nothing.
    Poll,
    /// The same in HTTP/1.0: the end of the connection ends the response.
    BarePoll,
}

/// What kind of connection a session has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A WebSocket.
    WebSocket,
    /// A response that lasts, which the server ends.
    EventStream,
    /// A response that ends with the first thing to say.
    Poll,
}

impl Framing {
    /// All of them.
    pub const ALL: [Framing; 7] = [
        Framing::Rfc6455,
        Framing::Hixie76,
        Framing::Deflate,
        Framing::EventStream,
        Framing::BareEventStream,
        Framing::Poll,
        Framing::BarePoll,
    ];

    /// The kind of connection it is for.
    pub fn transport(self) -> Transport {
        match self {
            Framing::Rfc6455 | Framing::Hixie76 | Framing::Deflate => Transport::WebSocket,
            Framing::EventStream | Framing::BareEventStream => Transport::EventStream,
            Framing::Poll | Framing::BarePoll => Transport::Poll,
        }
    }

    /// Whether it can carry a message of this kind.
    pub fn carries(self, kind: Kind) -> bool {
        kind == Kind::Text || !matches!(self, Framing::Hixie76 | Framing::EventStream | Framing::BareEventStream)
    }

    /// Appends a whole message to `out`. It is never compressed. A poll has no place for a message outside of its answer
    /// ([`Framing::answer_into`]): nothing is appended.
    pub fn frame_into(self, kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
        match self {
            Framing::Rfc6455 | Framing::Deflate => rfc6455::frame_into(kind.into(), payload, out),
            Framing::Hixie76 => hixie76::frame_into(payload, out),
            Framing::EventStream | Framing::BareEventStream => self.event_into(None, None, payload, out),
            Framing::Poll | Framing::BarePoll => {}
        }
    }

    /// Appends the answer to a poll, which `write` appends, and the end of the response.
    pub fn answer_into(self, write: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
        poll::body_into(self == Framing::Poll, write, out);
    }

    /// Appends a text message to an event stream, as an event of the type `name` with an id.
    pub fn event_into(self, name: Option<&str>, id: Option<Position>, payload: &[u8], out: &mut Vec<u8>) {
        self.block_into(|out| event_stream::event_into(name, id, payload, out), out);
    }

    /// Appends a block of an event stream, which `write` appends.
    pub fn block_into(self, write: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
        if self == Framing::EventStream { chunked::chunk_into(write, out) } else { write(out) }
    }

    /// A whole message as one frame.
    pub fn frame(self, kind: Kind, payload: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(payload.len() + rfc6455::HEADER_BYTES_MAX);
        self.frame_into(kind, payload, &mut out);
        out.into()
    }

    /// Appends the end of a session: a close frame with its reason if the framing has one, otherwise the nearest equivalent.
    pub fn farewell_into(self, close: &Close, out: &mut Vec<u8>) {
        match self {
            Framing::Rfc6455 | Framing::Deflate => rfc6455::close_into(close, out),
            Framing::Hixie76 => out.extend_from_slice(&hixie76::CLOSE),
            Framing::EventStream | Framing::BareEventStream => {
                self.block_into(|out| event_stream::comment_into(&close.reason, out), out);
                if self == Framing::EventStream {
                    out.extend_from_slice(chunked::END);
                }
            }
            // An answer has no place for a reason. A session ends without an answer only if its client broke a limit.
            Framing::Poll => out.extend_from_slice(chunked::END),
            Framing::BarePoll => {}
        }
    }

    /// The bytes that are sent to an idle client. `None`: the framing has no ping.
    pub fn ping(self) -> Option<&'static [u8]> {
        match self {
            Framing::Rfc6455 | Framing::Deflate => Some(&rfc6455::PING),
            Framing::Hixie76 => None,
            Framing::EventStream => Some(event_stream::KEEP_ALIVE_CHUNK),
            Framing::BareEventStream => Some(event_stream::KEEP_ALIVE),
            Framing::Poll => Some(poll::KEEP_ALIVE_CHUNK),
            Framing::BarePoll => Some(poll::KEEP_ALIVE),
        }
    }

    /// Whether the client answers pings. Where it does not, the kernel must notice that the client is gone.
    pub fn answers(self) -> bool {
        matches!(self, Framing::Rfc6455 | Framing::Deflate)
    }

    /// Whether it is an event stream.
    pub fn is_events(self) -> bool {
        self.transport() == Transport::EventStream
    }

    /// Whether it is a poll.
    pub fn is_poll(self) -> bool {
        self.transport() == Transport::Poll
    }

    /// Whether it is the response to a request: the client sends nothing, and does not answer the end of a session.
    pub fn is_response(self) -> bool {
        self.transport() != Transport::WebSocket
    }
}
