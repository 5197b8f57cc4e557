//! What is said on a session, whatever frames it: one protocol, one file.
//!
//! A speech is a set of pure functions. [`Speech::hear`] says what a client's message asks for, [`Terms::frame`] makes the bytes of a
//! publication in a framing. Sessions with one [`Speech::key`] receive the same bytes, so these are made once for all of them.

mod plain;

use std::borrow::Cow;
use std::hash::Hasher;

use bytes::Bytes;
use siphasher::sip::SipHasher13;

use super::Terms;
use crate::config::limits::DEFLATE_BYTES_MAX;
use crate::hub::{EncodingKey, Kind, Message, Publication};
use crate::wire::Framing;
use crate::wire::deflate::Deflater;
pub use plain::Plain;

/// A larger message is not waited for while another shard compresses it (16 KiB take about 0.1 ms): it is sent as it is, which a
/// client must always accept (RFC 7692, section 6).
const DEFLATE_AWAITED_BYTES_MAX: usize = 16 << 10;
/// What an event of one line takes beside its text, in bytes.
const EVENT_BYTES: usize = 24;

/// The protocol of a route.
#[derive(Debug, Clone, PartialEq)]
pub enum Speech {
    /// Messages as they are.
    Plain(Plain),
}

/// What a client's message asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask<'m> {
    /// Nothing.
    Nothing,
    /// To be published on the session's channel.
    Publish(Cow<'m, [u8]>),
    /// To be answered with this.
    Reply(Cow<'m, [u8]>),
}

/// What is said of a publication: the text or the bytes, and a name for it where the framing has a place for one.
struct Spoken<'m> {
    name: Option<Cow<'m, str>>,
    payload: Cow<'m, [u8]>,
}

impl Speech {
    /// What a client's message asks for.
    pub fn hear<'m>(&self, kind: Kind, payload: &'m [u8]) -> Ask<'m> {
        match self {
            Speech::Plain(plain) => plain.hear(kind, payload),
        }
    }

    /// Whether messages are answered. A client that does not take its answers is not read on.
    pub fn replies(&self) -> bool {
        match self {
            Speech::Plain(plain) => plain.replies(),
        }
    }

    /// Whether messages are published. While the lanes are full, such clients are not read.
    pub fn publishes(&self) -> bool {
        match self {
            Speech::Plain(plain) => plain.publishes(),
        }
    }

    /// Names the encoding of publications in a framing: SipHash-1-3 without a key, of the framing's number and whatever of the speech makes
    /// a difference in it.
    pub fn key(&self, framing: Framing) -> EncodingKey {
        let mut hasher = SipHasher13::new();
        hasher.write_u8(framing as u8);
        match self {
            Speech::Plain(plain) => plain.distinguish(framing, &mut hasher),
        }
        EncodingKey(hasher.finish())
    }

    /// The bytes of a publication in a framing, not compressed.
    fn encode(&self, framing: Framing, message: &Message) -> Bytes {
        let Spoken { name, payload } = self.say(message);
        match framing {
            Framing::EventStream | Framing::BareEventStream => {
                let mut out = Vec::with_capacity(payload.len() + EVENT_BYTES);
                framing.event_into(name.as_deref(), &payload, &mut out);
                out.into()
            }
            Framing::Rfc6455 | Framing::Hixie76 | Framing::Deflate => framing.frame(message.kind, &payload),
        }
    }

    fn say<'m>(&self, message: &'m Message) -> Spoken<'m> {
        match self {
            Speech::Plain(plain) => plain.say(message),
        }
    }
}

impl Terms {
    /// The frame of a publication in the encoding named `key`. It is made on first need, and shared by all sessions with that encoding.
    pub fn frame<'p>(
        &self,
        publication: &'p Publication,
        framing: Framing,
        key: EncodingKey,
        deflater: &mut Deflater,
    ) -> &'p Bytes {
        let Publication { message, encodings } = publication;
        let plain = || self.speech.encode(framing, message);
        let Some(min) = self.hub.deflate_bytes_min.filter(|_| framing == Framing::Deflate) else {
            return encodings.share(key, plain);
        };
        let deflate = || deflater.frame(message.kind, &self.speech.say(message).payload, min);
        match message.payload.len() {
            DEFLATE_AWAITED_BYTES_MAX..=DEFLATE_BYTES_MAX => encodings
                .try_share(key, deflate)
                .unwrap_or_else(|| encodings.share(self.speech.key(Framing::Rfc6455), plain)),
            _ => encodings.share(key, deflate),
        }
    }
}
