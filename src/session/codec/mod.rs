//! Decoders make events of the bytes that a client sends. There is one for each framing, and all read from the shard's one buffer.
//!
//! A decoder owns memory only while something is unfinished: half a header, or a message in pieces. A message that arrives whole is passed on
//! as a slice of the buffer. Nothing is taken beyond the limit, and the first violation ends the session.

mod hixie76;
mod rfc6455;

use super::Seconds;
use crate::hub::Kind;
use crate::wire::{Close, Framing};

/// Something a client said.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message; text is valid UTF-8.
    Message(Kind, &'a [u8]),
    /// A whole message that is compressed; what it holds is not checked.
    Deflated(Kind, &'a [u8]),
    /// A ping with its payload.
    Ping(&'a [u8]),
    /// A pong, asked for or not.
    Pong,
    /// A frame came to its end, and its message goes on: so a client that sends many such frames is not decoded without a pause.
    Fragment,
    /// The client closes; the code it gave.
    Close(Option<u16>),
}

/// One session's decoder.
#[derive(Debug)]
pub enum Codec {
    /// RFC 6455.
    Rfc6455(rfc6455::Decoder),
    /// draft-76.
    Hixie76(Box<hixie76::Decoder>),
    /// What comes has no meaning, and is passed over.
    Nothing,
}

impl Codec {
    /// A decoder at the start of a session; `inflates`: compressed messages were agreed on.
    pub fn new(framing: Framing, inflates: bool) -> Codec {
        match framing {
            Framing::Rfc6455 | Framing::Deflate => Codec::Rfc6455(rfc6455::Decoder::new(inflates)),
            Framing::Hixie76 => Codec::Hixie76(Box::default()),
            Framing::EventStream => Codec::Nothing,
        }
    }

    /// Takes the next event from the start of `input`: how many bytes that used, and the event. `None`: all of `input` was used and
    /// more is needed. Messages longer than `limit` bytes are a violation.
    ///
    /// # Errors
    /// How the session is to be closed.
    pub fn next<'a>(&'a mut self, input: &'a mut [u8], limit: usize) -> Result<(usize, Option<Event<'a>>), Close> {
        match self {
            Codec::Rfc6455(decoder) => decoder.next(input, limit),
            Codec::Hixie76(decoder) => decoder.next(input, limit),
            Codec::Nothing => Ok((input.len(), None)),
        }
    }

    /// Whether it takes compressed messages.
    pub fn inflates(&self) -> bool {
        match self {
            Codec::Rfc6455(decoder) => decoder.inflates(),
            Codec::Hixie76(_) | Codec::Nothing => false,
        }
    }

    /// Appends what is unfinished, as a client could have said it: a new decoder that is given this stands where this one stands. So
    /// another process needs to know nothing of decoders to take a session up, and believes of it only what it would believe a client.
    pub fn unfinished(&self, out: &mut Vec<u8>) {
        match self {
            Codec::Rfc6455(decoder) => decoder.unfinished(out),
            Codec::Hixie76(decoder) => decoder.unfinished(out),
            Codec::Nothing => {}
        }
    }

    /// When what is unfinished was begun: `now`, unless that was said before.
    pub fn begun(&mut self, now: Seconds) -> Option<Seconds> {
        match self {
            Codec::Rfc6455(decoder) => decoder.begun(now),
            Codec::Hixie76(decoder) => decoder.begun(now),
            Codec::Nothing => None,
        }
    }

    /// Bytes it holds for something unfinished.
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
