//! What a client sends after its upgrade, in any framing: decoding must not depend on where the network cuts, and keeps to the limit.
//!
//! The input: a byte that chooses the framing, two for the limit, eight lengths of pieces, and then what the client says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pushd::hub::Kind;
use pushd::session::codec::{Codec, Event};
use pushd::wire::Framing;
use pushd::wire::deflate::{Inflater, compressed_bytes_max};

/// What a decoder may hold beside a message within the limit: its own state, and what it grows ahead of what arrived.
const AHEAD_BYTES_MAX: usize = 320 << 10;

#[derive(Debug, PartialEq, Eq)]
enum Said {
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
    said: Vec<Said>,
}

impl Client {
    fn new(framing: Framing, limit: usize) -> Client {
        let codec = Codec::new(framing, framing == Framing::Deflate);
        Client { codec, inflater: Inflater::default(), limit, said: Vec::new() }
    }

    /// Whether it may go on speaking.
    fn speak(&mut self, bytes: &[u8]) -> bool {
        let mut input = bytes.to_vec();
        let mut at = 0;
        loop {
            let event = match self.codec.next(&mut input[at..], self.limit) {
                Ok((used, event)) => {
                    at += used;
                    event
                }
                Err(close) => {
                    self.said.push(Said::Violation(close.code));
                    return false;
                }
            };
            self.said.push(match event {
                None => {
                    assert_eq!(at, bytes.len(), "nothing is left behind");
                    assert!(self.codec.held_bytes() <= 2 * self.limit + AHEAD_BYTES_MAX);
                    return true;
                }
                Some(Event::Message(kind, payload)) => {
                    assert!(payload.len() <= self.limit);
                    assert!(kind == Kind::Binary || std::str::from_utf8(payload).is_ok());
                    Said::Message(kind, payload.to_vec())
                }
                Some(Event::Deflated(kind, payload)) => {
                    assert!(payload.len() <= compressed_bytes_max(self.limit));
                    let inflated = self.inflater.inflate(payload, self.limit);
                    assert!(inflated.as_ref().map_or(0, |message| message.len()) <= self.limit);
                    Said::Inflated(kind, inflated.map(<[u8]>::to_vec).map_err(|close| close.code))
                }
                Some(Event::Ping(payload)) => {
                    assert!(payload.len() <= 125);
                    Said::Ping(payload.to_vec())
                }
                Some(Event::Pong) => Said::Pong,
                Some(Event::Fragment) => continue,
                Some(Event::Close(code)) => Said::Close(code),
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
    whole.speak(bytes);

    let mut cut = Client::new(framing, limit);
    let mut rest = bytes;
    for piece in pieces.iter().cycle() {
        // A length of 0 is the empty piece, once; all zeros would never end.
        let (now, later) = rest.split_at(rest.len().min(usize::from(*piece).max(usize::from(pieces == &[0; 8]))));
        if !cut.speak(now) || later.is_empty() {
            break;
        }
        rest = later;
    }
    assert_eq!(cut.said, whole.said, "{framing:?}, limit {limit}");
});
