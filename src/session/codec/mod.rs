//! Decoders make events of the bytes that a client sends. There is one for each framing. All decode from the one buffer of the
//! shard.
//!
//! A decoder owns memory only for something unfinished: a part of a header, or a message in pieces. A message that arrives whole is
//! passed on as a slice of the buffer. A message beyond the limit is not accepted, and the first violation ends the session.

mod hixie76;
mod rfc6455;

use super::Seconds;
use crate::hub::Kind;
use crate::wire::{Close, Framing};

/// Something that a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message. Text is valid UTF-8.
    Message(Kind, &'a [u8]),
    /// A whole compressed message. Its content is not checked.
    Deflated(Kind, &'a [u8]),
    /// A ping with its payload.
    Ping(&'a [u8]),
    /// A pong, solicited or not.
    Pong,
    /// The end of a frame whose message continues. It lets the caller pause, even if a client sends very many fragments.
    Fragment,
    /// The client closes, with this code.
    Close(Option<u16>),
}

/// One session's decoder.
#[derive(Debug)]
pub enum Codec {
    /// RFC 6455.
    Rfc6455(rfc6455::Decoder),
    /// draft-76.
    Hixie76(Box<hixie76::Decoder>),
    /// Everything that the client sends is ignored.
    Nothing,
}

impl Codec {
    /// A decoder at the start of a session. `inflates`: compressed messages were negotiated.
    pub fn new(framing: Framing, inflates: bool) -> Codec {
        match framing {
            Framing::Rfc6455 | Framing::Deflate => Codec::Rfc6455(rfc6455::Decoder::new(inflates)),
            Framing::Hixie76 => Codec::Hixie76(Box::default()),
            Framing::EventStream | Framing::BareEventStream | Framing::Poll | Framing::BarePoll => Codec::Nothing,
        }
    }

    /// Decodes the next event from the start of `input`. Returns how many bytes were used, and the event. `None`: all of `input`
    /// was used and more is needed. A message of more than `limit` bytes is a violation.
    ///
    /// # Errors
    /// How the session must be closed.
    pub fn next<'a>(&'a mut self, input: &'a mut [u8], limit: usize) -> Result<(usize, Option<Event<'a>>), Close> {
        match self {
            Codec::Rfc6455(decoder) => decoder.next(input, limit),
            Codec::Hixie76(decoder) => decoder.next(input, limit),
            Codec::Nothing => Ok((input.len(), None)),
        }
    }

    /// Whether compressed messages were negotiated.
    pub fn inflates(&self) -> bool {
        match self {
            Codec::Rfc6455(decoder) => decoder.inflates(),
            Codec::Hixie76(_) | Codec::Nothing => false,
        }
    }

    /// Appends the unfinished frames as a client could have sent them: a new decoder that decodes these bytes is in the same state
    /// as this one. So the state of decoders needs no format of its own in a record, and another process checks these bytes as it
    /// checks those of a client.
    pub fn unfinished(&self, out: &mut Vec<u8>) {
        match self {
            Codec::Rfc6455(decoder) => decoder.unfinished(out),
            Codec::Hixie76(decoder) => decoder.unfinished(out),
            Codec::Nothing => {}
        }
    }

    /// When the unfinished message was begun: the `now` of the first call for it. `None`: nothing is unfinished.
    pub fn begun(&mut self, now: Seconds) -> Option<Seconds> {
        match self {
            Codec::Rfc6455(decoder) => decoder.begun(now),
            Codec::Hixie76(decoder) => decoder.begun(now),
            Codec::Nothing => None,
        }
    }

    /// Bytes that are held for something unfinished.
    pub fn held_bytes(&self) -> usize {
        match self {
            Codec::Rfc6455(decoder) => decoder.held_bytes(),
            Codec::Hixie76(decoder) => decoder.held_bytes(),
            Codec::Nothing => 0,
        }
    }
}

#[cfg(test)]
mod tests;
