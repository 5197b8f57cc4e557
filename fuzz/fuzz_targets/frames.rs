//! The bytes of a client after its upgrade, in any framing: decoding must not depend on the segments that the network delivers, and
//! must respect the limit.
//!
//! The input: a byte that selects the framing, two for the limit, eight lengths of pieces, and then the bytes of the client.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pushd::hub::Kind;
use pushd::session::codec::{Codec, Event};
use pushd::wire::Framing;
use pushd::wire::deflate::{Inflater, compressed_bytes_max};

/// The bytes that a decoder may hold besides a message within the limit: its own state, and memory that it allocates ahead of the
/// bytes received.
const AHEAD_BYTES_MAX: usize = 320 << 10;

#[derive(Debug, PartialEq, Eq)]
enum Decoded {
    Message(Kind, Vec<u8>),
    Inflated(Kind, Result<Vec<u8>, u16>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
    Violation(u16),
}

struct Client {
    codec: Codec,
    inflater: Inflater,
    limit: usize,
    events: Vec<Decoded>,
}

impl Client {
    fn new(framing: Framing, limit: usize) -> Client {
        let codec = Codec::new(framing, framing == Framing::Deflate);
        Client { codec, inflater: Inflater::default(), limit, events: Vec::new() }
    }

    /// Decodes bytes. Returns whether the client may send more.
    fn send(&mut self, bytes: &[u8]) -> bool {
        let mut input = bytes.to_vec();
        let mut at = 0;
        loop {
            let event = match self.codec.next(&mut input[at..], self.limit) {
                Ok((used, event)) => {
                    at += used;
                    event
                }
                Err(close) => {
                    self.events.push(Decoded::Violation(close.code));
                    return false;
                }
            };
            self.events.push(match event {
                None => {
                    assert_eq!(at, bytes.len(), "all bytes are used");
                    assert!(self.codec.held_bytes() <= 2 * self.limit + AHEAD_BYTES_MAX);
                    return true;
                }
                Some(Event::Message(kind, payload)) => {
                    assert!(payload.len() <= self.limit);
                    assert!(kind == Kind::Binary || std::str::from_utf8(payload).is_ok());
                    Decoded::Message(kind, payload.to_vec())
                }
                Some(Event::Deflated(kind, payload)) => {
                    assert!(payload.len() <= compressed_bytes_max(self.limit));
                    let inflated = self.inflater.inflate(payload, self.limit);
                    assert!(inflated.as_ref().map_or(0, |message| message.len()) <= self.limit);
                    Decoded::Inflated(kind, inflated.map(<[u8]>::to_vec).map_err(|close| close.code))
                }
                Some(Event::Ping(payload)) => {
                    assert!(payload.len() <= 125);
                    Decoded::Ping(payload.to_vec())
                }
                Some(Event::Pong) => Decoded::Pong,
                Some(Event::Fragment) => continue,
                Some(Event::Close(code)) => Decoded::Close(code),
            });
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&[framing, high, low], data)) = data.split_first_chunk::<3>() else { return };
    let Some((pieces, bytes)) = data.split_first_chunk::<8>() else { return };
    let framing = Framing::ALL[usize::from(framing) % Framing::ALL.len()];
    let limit = usize::from(u16::from_be_bytes([high, low]) % 5000);

    let mut whole = Client::new(framing, limit);
    whole.send(bytes);

    let mut cut = Client::new(framing, limit);
    let mut rest = bytes;
    for piece in pieces.iter().cycle() {
        // A length of 0 is an empty piece. If all lengths are 0 the pieces have 1 byte; otherwise this loop would not end.
        let (now, later) = rest.split_at(rest.len().min(usize::from(*piece).max(usize::from(pieces == &[0; 8]))));
        if !cut.send(now) || later.is_empty() {
            break;
        }
        rest = later;
    }
    assert_eq!(cut.events, whole.events, "{framing:?}, limit {limit}");
});
