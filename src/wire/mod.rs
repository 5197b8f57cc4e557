//! Bytes on the wire, and nothing else: no sockets, no state.
//!
//! [`Framing`] is what a session speaks after its upgrade. `rfc6455` frames and unmasks; `hixie76` is the old draft's framing
//! and its handshake answer; `deflate` is compression; `close` is the table of close codes with the reasons clients read; `fields` is how a
//! session is written down for another process.

pub mod close;
pub mod deflate;
pub mod fields;
pub mod format1;
pub mod hixie76;
pub mod rfc6455;
pub mod tagged;

use bytes::Bytes;

pub use close::Close;

use crate::hub::{FRAMINGS_MAX, Kind};

/// What a session speaks. Its number is the place of its frames in a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// The WebSocket protocol of today.
    #[default]
    Rfc6455 = 0,
    /// draft-hixie-thewebsocketprotocol-76, spoken before 2011: text only, no pings, no close codes.
    Hixie76 = 1,
    /// RFC 6455 with permessage-deflate: what is published may come compressed.
    Deflate = 2,
}

const _: () = assert!(Framing::ALL.len() <= FRAMINGS_MAX);

impl Framing {
    /// All of them, by number.
    pub const ALL: [Framing; 3] = [Framing::Rfc6455, Framing::Hixie76, Framing::Deflate];

    /// Whether a message of this kind can be said in it.
    pub fn carries(self, kind: Kind) -> bool {
        self != Framing::Hixie76 || kind == Kind::Text
    }

    /// Appends a whole message to `out`, not compressed in any framing.
    pub fn frame_into(self, kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
        match self {
            Framing::Rfc6455 | Framing::Deflate => rfc6455::frame_into(kind.into(), payload, out),
            Framing::Hixie76 => hixie76::frame_into(payload, out),
        }
    }

    /// A whole message as a frame of its own.
    pub fn frame(self, kind: Kind, payload: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(payload.len() + rfc6455::HEADER_BYTES_MAX);
        self.frame_into(kind, payload, &mut out);
        out.into()
    }

    /// What ends a session: a close frame with its reason, where the framing has one.
    pub fn farewell(self, close: &Close) -> Bytes {
        match self {
            Framing::Rfc6455 | Framing::Deflate => rfc6455::close(close),
            Framing::Hixie76 => Bytes::from_static(&hixie76::CLOSE),
        }
    }

    /// A ping, where the framing has one.
    pub fn ping(self) -> Option<Bytes> {
        (self != Framing::Hixie76).then_some(Bytes::from_static(&rfc6455::PING))
    }
}
