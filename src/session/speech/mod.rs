//! What is said on a session, whatever frames it: one protocol, one file.
//!
//! A speech is a set of pure functions. [`Speech::hear`] says what a client's message asks for, [`Terms::frame`] makes the bytes of a
//! publication in a framing. Sessions with one [`Speech::key`] receive the same bytes, so these are made once for all of them.

pub mod answer;
mod plain;
mod subscribing;

use std::borrow::Cow;
use std::hash::Hasher;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use siphasher::sip::SipHasher13;

use super::Terms;
use crate::config::limits::DEFLATE_BYTES_MAX;
use crate::hub::history::{Kept, Page};
use crate::hub::{EncodingKey, Kind, Message, Position, Publication, Selector, Since};
use crate::wire::deflate::Deflater;
use crate::wire::{Framing, Transport};
pub use plain::Plain;
pub use subscribing::{Answer, Subscribable};

/// A larger message is not waited for while another shard compresses it (16 KiB take about 0.1 ms): it is sent as it is, which a
/// client must always accept (RFC 7692, section 6).
const DEFLATE_AWAITED_BYTES_MAX: usize = 16 << 10;
/// What an event or a frame usually takes beside its text, in bytes.
const FRAME_BYTES: usize = 64;

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
    /// To be answered with this text, or with these bytes if the message is binary.
    Reply(Cow<'m, [u8]>),
    /// To be subscribed, from a position if there is one.
    Subscribe(Selector, Option<Since>),
    /// To end a subscription.
    Unsubscribe(Selector),
}

/// A message that is sent to clients: published now, or kept before.
#[derive(Clone, Copy)]
struct Said<'m> {
    channel: &'m str,
    kind: Kind,
    payload: &'m [u8],
    position: Option<Position>,
}

/// What is said of a message: the text or the bytes, and a name and a position where the framing has a place for them.
struct Spoken<'m> {
    name: Option<Cow<'m, str>>,
    id: Option<Position>,
    kind: Kind,
    payload: Cow<'m, [u8]>,
}

impl<'m> From<&'m Publication> for Said<'m> {
    fn from(Publication { message, position, .. }: &'m Publication) -> Said<'m> {
        let Message { channel, kind, payload, .. } = message;
        Said { channel, kind: *kind, payload, position: *position }
    }
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

    /// Whether messages are sent back. Then a client is not read while anything waits for it.
    pub fn echoes(&self) -> bool {
        match self {
            Speech::Plain(plain) => plain.echoes(),
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

    /// Whether a message of this kind can be sent in a framing.
    pub fn carries(&self, framing: Framing, kind: Kind) -> bool {
        match self {
            Speech::Plain(plain) => framing.carries(plain.kind_of(framing, kind)),
        }
    }

    /// The bytes of a publication in a framing, not compressed.
    fn encode(&self, framing: Framing, said: Said<'_>) -> Bytes {
        let mut out = Vec::with_capacity(said.payload.len() + FRAME_BYTES);
        self.encode_into(framing, said, &mut out);
        out.into()
    }

    fn encode_into(&self, framing: Framing, said: Said<'_>, out: &mut Vec<u8>) {
        if framing.is_poll() {
            return framing.answer_into(|out| out.extend_from_slice(&answer::with(said)), out);
        }
        let Spoken { name, id, kind, payload } = self.say(framing, said);
        match framing.transport() {
            Transport::EventStream => framing.event_into(name.as_deref(), id, &payload, out),
            Transport::WebSocket | Transport::Poll => framing.frame_into(kind, &payload, out),
        }
    }

    /// Whether clients receive positions in a framing.
    pub fn has_positions(&self, framing: Framing) -> bool {
        match self {
            Speech::Plain(plain) => plain.has_positions(framing),
        }
    }

    /// Appends a page of history: the gaps of these channels first, then the messages that the framing carries.
    pub fn page_into(&self, framing: Framing, page: &Page, gone: &[Arc<str>], out: &mut Vec<u8>) {
        let first = page.messages.first().map_or(page.position.offset, |first| first.offset - 1);
        for (at, channel) in gone.iter().enumerate() {
            // A client that continues from there is told of none of these gaps again: it must know all of them.
            let is_last = at + 1 == gone.len();
            let before = is_last.then_some(Position { offset: first, ..page.position });
            self.gap_into(framing, channel, before, out);
        }
        for Kept { offset, channel, kind, payload } in &page.messages {
            if self.carries(framing, *kind) {
                let position = Some(Position { offset: *offset, ..page.position });
                self.encode_into(framing, Said { channel, kind: *kind, payload, position }, out);
            }
        }
    }

    /// Appends that messages of a channel are gone. A client that knows `before` is not told again.
    fn gap_into(&self, framing: Framing, channel: &str, before: Option<Position>, out: &mut Vec<u8>) {
        match self {
            Speech::Plain(plain) => plain.gap_into(framing, channel, before, out),
        }
    }

    /// Appends the position from which a client may continue.
    pub fn position_into(&self, framing: Framing, position: Position, out: &mut Vec<u8>) {
        match self {
            Speech::Plain(plain) => plain.position_into(framing, position, out),
        }
    }

    /// How many subscriptions a client may have that it asks for itself.
    pub fn subscriptions_max(&self) -> usize {
        self.subscribable().map_or(0, |subscribable| subscribable.subscriptions_max)
    }

    /// Whether a client may ask for a subscription.
    pub fn allows(&self, selector: &Selector) -> bool {
        self.subscribable().is_some_and(|subscribable| subscribable.allows(selector))
    }

    /// Whether clients may ask for the same subscriptions as with another speech.
    pub fn allows_the_same(&self, other: &Speech) -> bool {
        match (self.subscribable(), other.subscribable()) {
            (Some(one), Some(other)) => one.allows_the_same(other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    fn subscribable(&self) -> Option<&Subscribable> {
        match self {
            Speech::Plain(plain) => plain.subscribe.as_ref(),
        }
    }

    /// Appends the answer to a client that has asked for a subscription or its end.
    pub fn answer_into(&self, framing: Framing, answer: &Answer<'_>, out: &mut Vec<u8>) {
        match self {
            Speech::Plain(_) => framing.frame_into(Kind::Text, &answer.json(), out),
        }
    }

    fn say<'m>(&self, framing: Framing, said: Said<'m>) -> Spoken<'m> {
        match self {
            Speech::Plain(plain) => plain.say(framing, said),
        }
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Writing text into memory cannot fail.
    serde_json::to_vec(value).unwrap_or_default()
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
        let Publication { message, encodings, .. } = publication;
        let plain = || self.speech.encode(framing, publication.into());
        let Some(min) = self.hub.deflate_bytes_min.filter(|_| framing == Framing::Deflate) else {
            return encodings.share(key, plain);
        };
        let deflate = || {
            let Spoken { kind, payload, .. } = self.speech.say(framing, publication.into());
            deflater.frame(kind, &payload, min)
        };
        match message.payload.len() {
            DEFLATE_AWAITED_BYTES_MAX..=DEFLATE_BYTES_MAX => encodings
                .try_share(key, deflate)
                .unwrap_or_else(|| encodings.share(self.speech.key(Framing::Rfc6455), plain)),
            _ => encodings.share(key, deflate),
        }
    }
}
