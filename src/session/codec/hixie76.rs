//! Decodes draft-76: text between 0x00 and 0xFF, and the closing handshake 0xFF 0x00.
//!
//! Frames of other types are skipped, as the draft requires (§5.3). A type with its high bit set is followed by a length of seven
//! bits in each byte; other types end with 0xFF.

use super::{Event, Seconds};
use crate::hub::Kind;
use crate::wire::Close;

/// The decoder of one session.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    text: Vec<u8>,
    delivered: bool,
    /// When the first byte of the unfinished frame was received.
    begun: Option<Seconds>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a frame's type.
    #[default]
    Type,
    /// Inside a text.
    Text,
    /// Inside a frame of another type that ends with 0xFF.
    Other,
    /// Inside the length of a frame: the value so far. `closing`: the type is 0xFF.
    Length { closing: bool, length: u64 },
    /// Inside a payload that is skipped.
    Skip(u64),
}

impl Decoder {
    /// See [`super::Codec::next`].
    pub fn next<'a>(&'a mut self, input: &'a mut [u8], limit: usize) -> Result<(usize, Option<Event<'a>>), Close> {
        if std::mem::take(&mut self.delivered) {
            self.text = Vec::new();
        }
        let mut used = 0;
        while used < input.len() {
            let rest = &input[used..];
            match self.state {
                State::Type => {
                    self.begun = None;
                    self.state = match rest[0] {
                        0x00 => State::Text,
                        kind if kind & 0x80 == 0 => State::Other,
                        kind => State::Length { closing: kind == 0xff, length: 0 },
                    };
                    used += 1;
                }
                State::Text | State::Other => {
                    let end = rest.iter().position(|&b| b == 0xff);
                    let piece = &rest[..end.unwrap_or(rest.len())];
                    used += piece.len() + usize::from(end.is_some());
                    if self.state == State::Text {
                        if self.text.len() + piece.len() > limit {
                            return Err(Close::too_big(limit));
                        }
                        self.text.extend_from_slice(piece);
                    }
                    if end.is_some() && std::mem::take(&mut self.state) == State::Text {
                        if std::str::from_utf8(&self.text).is_err() {
                            return Err(Close::NOT_UTF8);
                        }
                        self.delivered = true;
                        return Ok((used, Some(Event::Message(Kind::Text, &self.text))));
                    }
                }
                State::Length { closing, length } => {
                    let length = length.checked_mul(128).and_then(|l| l.checked_add(u64::from(rest[0] & 0x7f)));
                    let length = length.filter(|&l| l <= limit as u64).ok_or_else(|| Close::too_big(limit))?;
                    used += 1;
                    self.state = match rest[0] & 0x80 {
                        0 if closing && length == 0 => {
                            self.state = State::Type;
                            return Ok((used, Some(Event::Close(None))));
                        }
                        0 => State::Skip(length),
                        _ => State::Length { closing, length },
                    };
                }
                State::Skip(left) => {
                    let take = left.min(rest.len() as u64);
                    used += take as usize;
                    self.state = if take == left { State::Type } else { State::Skip(left - take) };
                }
            }
        }
        if self.state == State::Skip(0) {
            self.state = State::Type;
        }
        Ok((used, None))
    }

    /// See [`super::Codec::unfinished`].
    pub fn unfinished(&self, out: &mut Vec<u8>) {
        match self.state {
            State::Type | State::Skip(0) => {}
            State::Text => {
                out.push(0x00);
                out.extend_from_slice(&self.text);
            }
            State::Other => out.push(0x01),
            State::Length { closing, length } => {
                out.push(if closing { 0xff } else { 0x80 });
                let groups = length.checked_ilog2().map_or(0, |bits| bits / 7 + 1);
                out.extend((0..groups).rev().map(|group| (length >> (7 * group)) as u8 | 0x80));
            }
            State::Skip(left) => {
                out.push(0x80);
                let groups = left.ilog2() / 7;
                out.extend(
                    (0..=groups).rev().map(|group| (left >> (7 * group)) as u8 & 0x7f | u8::from(group > 0) << 7),
                );
            }
        }
    }

    /// See [`super::Codec::begun`].
    pub fn begun(&mut self, now: Seconds) -> Option<Seconds> {
        (self.state != State::Type).then(|| *self.begun.get_or_insert(now))
    }

    /// Bytes that are held for an unfinished frame.
    pub fn held_bytes(&self) -> usize {
        self.text.capacity()
    }
}
