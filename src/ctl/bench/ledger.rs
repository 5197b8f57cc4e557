//! Who has heard what: every message on its way, every subscriber that still waits for it, and what went wrong.
//!
//! A stream is a sequence of messages and those who hear it. A broadcast is one stream that all hear; an echo is a stream for
//! each connection. At most a window of a stream is on its way, so a message that nobody hears stops its stream.

use super::histogram::Histogram;
use super::script::{self, Script};

/// The first bytes of the frames that are told apart.
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// What was counted.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Messages that arrived where they should, in their order.
    pub deliveries: u64,
    /// Bytes that arrived.
    pub bytes: u64,
    /// From sending to arrival.
    pub latency: Histogram,
    /// What went wrong, since the beginning.
    pub faults: Faults,
    /// Messages that are not of this load.
    pub foreign: u64,
}

/// What must not happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Faults {
    /// Deliveries that never came.
    pub lost: u64,
    /// Deliveries that came twice.
    pub duplicated: u64,
    /// Deliveries that came after a later one.
    pub reordered: u64,
    /// Deliveries that are not what was sent.
    pub corrupt: u64,
    /// Connections that ended before the load did.
    pub closed: u64,
}

impl Faults {
    /// Whether there were none.
    pub fn is_none(&self) -> bool {
        *self == Faults::default()
    }
}

/// One sequence of messages.
#[derive(Debug)]
struct Stream {
    /// The oldest message that somebody waits for.
    oldest: u64,
    /// The number of the next message.
    next: u64,
    /// When each message on its way was sent.
    sent: Box<[u64]>,
    /// How many wait for each.
    waiting: Box<[u32]>,
    /// How many hear it.
    listeners: u32,
}

/// Where one subscriber is in its stream.
#[derive(Debug)]
pub struct Listener {
    /// Which one.
    pub stream: u32,
    next: u64,
    /// Numbers that were passed over and may still come.
    skipped: Vec<u64>,
}

/// All streams of a load.
#[derive(Debug)]
pub struct Ledger {
    /// What is said.
    pub script: Script,
    /// What was counted.
    pub tally: Tally,
    streams: Vec<Stream>,
    window: u64,
    /// Of the places of a stream, a power of two: the window or the next above it.
    mask: u64,
    longest: usize,
}

/// What a piece of a connection's bytes came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// So many bytes were used, the rest is the beginning of a frame.
    Used(usize),
    /// The server ends the connection; why.
    Ended(String),
}

impl Ledger {
    /// Of messages with at most `window` on their way in each stream; no frame is longer than `longest` bytes.
    pub fn new(script: Script, window: usize, longest: usize) -> Ledger {
        let mask = window.next_power_of_two() as u64 - 1;
        Ledger { script, tally: Tally::default(), streams: Vec::new(), window: window as u64, mask, longest }
    }

    /// Somebody who hears stream number `stream` from its next message on.
    pub fn join(&mut self, stream: usize) -> Listener {
        let places = self.mask as usize + 1;
        let empty = || Stream {
            oldest: 0,
            next: 0,
            sent: vec![0; places].into(),
            waiting: vec![0; places].into(),
            listeners: 0,
        };
        while self.streams.len() <= stream {
            self.streams.push(empty());
        }
        self.streams[stream].listeners += 1;
        Listener { stream: stream as u32, next: self.streams[stream].next, skipped: Vec::new() }
    }

    /// The number of the next message of a stream, sent now; `None` while the window is full.
    pub fn send(&mut self, stream: u32, now: u64) -> Option<u64> {
        let (window, mask) = (self.window, self.mask);
        let stream = &mut self.streams[stream as usize];
        if stream.next - stream.oldest >= window {
            return None;
        }
        let number = stream.next;
        stream.next += 1;
        let place = (number & mask) as usize;
        (stream.sent[place], stream.waiting[place]) = (now, stream.listeners);
        Some(number)
    }

    /// How many messages are on their way.
    pub fn on_their_way(&self) -> u64 {
        self.streams.iter().map(|stream| stream.next - stream.oldest).sum()
    }

    /// Takes what a connection brought; answers to pings are appended to `out`.
    pub fn hear(&mut self, listener: &mut Listener, bytes: &[u8], now: u64, out: &mut Vec<u8>) -> Heard {
        let mut used = 0;
        while used < bytes.len() {
            let rest = &bytes[used..];
            let published = self.streams[listener.stream as usize].next;
            if listener.next < published {
                let expected = self.script.frame(listener.stream, listener.next);
                if rest.starts_with(expected) {
                    used += expected.len();
                    self.arrived(listener.stream, listener.next, now);
                    listener.next += 1;
                    continue;
                }
            }
            match script::parse(rest, self.longest) {
                Ok(None) => break,
                Ok(Some(frame)) if frame.first == CLOSE => return Heard::Ended(farewell(frame.payload)),
                Ok(Some(frame)) => {
                    match frame.first {
                        PING => pong_into(frame.payload, out),
                        PONG => {}
                        _ => self.compare(listener, frame.payload, now),
                    }
                    used += frame.length;
                }
                Err(()) => return Heard::Ended("it sent what is no frame of a server, or too long a one".to_owned()),
            }
        }
        Heard::Used(used)
    }

    /// A message that is not the next one as it was sent.
    fn compare(&mut self, listener: &mut Listener, payload: &[u8], now: u64) {
        let Some((stream, number, whole)) = self.script.recognise(payload) else {
            self.tally.foreign += 1;
            return;
        };
        let published = self.streams[listener.stream as usize].next;
        if stream != listener.stream || number >= published {
            self.tally.faults.corrupt += 1;
            return;
        }
        if !whole {
            self.tally.faults.corrupt += 1;
        }
        if number >= listener.next {
            // What is passed over is lost, unless it comes yet; nobody waits for it any longer.
            for skipped in listener.next..number {
                self.tally.faults.lost += 1;
                listener.skipped.push(skipped);
                self.release(stream, skipped);
            }
            listener.next = number + 1;
            match whole {
                true => self.arrived(stream, number, now),
                false => self.release(stream, number),
            }
        } else if let Some(place) = listener.skipped.iter().position(|&skipped| skipped == number) {
            listener.skipped.swap_remove(place);
            self.tally.faults.lost -= 1;
            self.tally.faults.reordered += 1;
        } else {
            self.tally.faults.duplicated += 1;
        }
    }

    fn arrived(&mut self, stream: u32, number: u64, now: u64) {
        let sent = self.streams[stream as usize].sent[(number & self.mask) as usize];
        self.tally.latency.add(now.saturating_sub(sent));
        self.tally.deliveries += 1;
        self.release(stream, number);
    }

    /// One less waits for a message.
    fn release(&mut self, stream: u32, number: u64) {
        let mask = self.mask;
        let stream = &mut self.streams[stream as usize];
        stream.waiting[(number & mask) as usize] -= 1;
        while stream.oldest < stream.next && stream.waiting[(stream.oldest & mask) as usize] == 0 {
            stream.oldest += 1;
        }
    }

    /// A connection ended before the load did: what it still waited for is lost.
    pub fn leave(&mut self, listener: &mut Listener) {
        self.tally.faults.closed += 1;
        self.give_up(listener);
        self.streams[listener.stream as usize].listeners -= 1;
    }

    /// What a listener still waits for will not come.
    pub fn give_up(&mut self, listener: &mut Listener) {
        let published = self.streams[listener.stream as usize].next;
        for number in listener.next..published {
            self.tally.faults.lost += 1;
            self.release(listener.stream, number);
        }
        listener.next = published;
    }

    /// Counts deliveries anew; faults stay.
    pub fn begin_measuring(&mut self) {
        (self.tally.deliveries, self.tally.bytes) = (0, 0);
        self.tally.latency.clear();
    }
}

/// A close frame, as people read it.
fn farewell(payload: &[u8]) -> String {
    match payload {
        [a, b, reason @ ..] => {
            let text = format!("{} {}", u16::from_be_bytes([*a, *b]), String::from_utf8_lossy(reason));
            text.trim_end().to_owned()
        }
        _ => "a close without a code".to_owned(),
    }
}

fn pong_into(payload: &[u8], out: &mut Vec<u8>) {
    // A mask of zeros is a mask; what it hides here is the server's own.
    out.extend_from_slice(&[PONG, 0x80 | payload.len() as u8, 0, 0, 0, 0]);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(window: usize) -> Ledger {
        Ledger::new(Script::new(1, 64, window), window, 1000)
    }

    fn frame(ledger: &mut Ledger, number: u64) -> Vec<u8> {
        ledger.script.frame(0, number).to_vec()
    }

    #[test]
    fn a_window_moves_when_all_have_heard() {
        let mut ledger = ledger(2);
        let mut both = [ledger.join(0), ledger.join(0)];
        assert_eq!([ledger.send(0, 5), ledger.send(0, 6), ledger.send(0, 7)], [Some(0), Some(1), None]);
        let bytes = [frame(&mut ledger, 0), frame(&mut ledger, 1)].concat();
        let mut out = Vec::new();
        // In two pieces, cut inside the second frame.
        let used = ledger.hear(&mut both[0], &bytes[..100], 10, &mut out);
        assert_eq!(used, Heard::Used(66));
        assert_eq!(ledger.hear(&mut both[0], &bytes[66..], 10, &mut out), Heard::Used(66));
        assert_eq!(ledger.send(0, 8), None);
        ledger.hear(&mut both[1], &bytes, 12, &mut out);
        assert_eq!((ledger.send(0, 8), ledger.on_their_way()), (Some(2), 1));
        assert_eq!((ledger.tally.deliveries, ledger.tally.latency.longest()), (4, 7));
        assert!(ledger.tally.faults.is_none() && out.is_empty());
    }

    #[test]
    fn every_fault_has_its_name() {
        let mut ledger = ledger(8);
        let mut one = ledger.join(0);
        (0..6).for_each(|now| assert!(ledger.send(0, now).is_some()));
        let mut corrupt = frame(&mut ledger, 4);
        *corrupt.last_mut().unwrap() = b'!';
        let parts = [0, 2, 2, 1, 3].map(|number| frame(&mut ledger, number));
        let bytes = [parts.concat(), corrupt, frame(&mut ledger, 7), b"\x81\x05hello\x89\x02hi".to_vec()].concat();
        let mut out = Vec::new();
        assert_eq!(ledger.hear(&mut one, &bytes, 9, &mut out), Heard::Used(bytes.len()));
        let expected = Faults { lost: 0, duplicated: 1, reordered: 1, corrupt: 2, closed: 0 };
        assert_eq!((ledger.tally.faults, ledger.tally.foreign, ledger.tally.deliveries), (expected, 1, 3));
        assert_eq!(out, b"\x8a\x82\0\0\0\0hi");
        assert_eq!(ledger.hear(&mut one, b"\x88\x06\x03\xf0slow", 9, &mut out), Heard::Ended("1008 slow".to_owned()));
        ledger.leave(&mut one);
        assert_eq!((ledger.tally.faults.lost, ledger.tally.faults.closed, ledger.on_their_way()), (1, 1, 0));
    }

    #[test]
    fn an_echo_that_goes_to_somebody_else_is_seen() {
        let mut ledger = ledger(1);
        let (mut one, two) = (ledger.join(0), ledger.join(1));
        assert_eq!((ledger.send(one.stream, 0), ledger.send(two.stream, 0)), (Some(0), Some(0)));
        let bytes = ledger.script.frame(1, 0).to_vec();
        ledger.hear(&mut one, &bytes, 1, &mut Vec::new());
        assert_eq!((ledger.tally.faults.corrupt, ledger.tally.deliveries), (1, 0));
    }
}
