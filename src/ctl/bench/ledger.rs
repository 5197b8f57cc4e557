//! The ledger of expected and received messages: every message in flight, every subscriber that still waits for it, and
//! all faults.
//!
//! A stream is a sequence of messages and its subscribers. A broadcast is one stream with all subscribers; an echo is
//! one stream for each connection. At most one window of a stream is in flight, so a message that is not delivered
//! stops its stream.

use super::framing::{Part, pong_into};
use super::histogram::Histogram;
use super::script::Script;

/// All counts.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Messages that arrived at the right subscriber and in order.
    pub deliveries: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Times from sending to arrival.
    pub latency: Histogram,
    /// All faults since the start.
    pub faults: Faults,
    /// Messages that do not belong to this load.
    pub foreign: u64,
}

/// Errors that must not happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Faults {
    /// Deliveries that did not arrive.
    pub lost: u64,
    /// Deliveries that arrived twice.
    pub duplicated: u64,
    /// Deliveries that arrived after a later one.
    pub reordered: u64,
    /// Deliveries with other bytes than those sent.
    pub corrupt: u64,
    /// Connections that ended before the load did.
    pub closed: u64,
}

impl Faults {
    /// Whether there were no faults.
    pub fn is_none(&self) -> bool {
        *self == Faults::default()
    }
}

/// One sequence of messages.
#[derive(Debug)]
struct Stream {
    /// The oldest message that a subscriber still waits for.
    oldest: u64,
    /// The number of the next message.
    next: u64,
    /// The time when each message in flight was sent.
    sent: Box<[u64]>,
    /// The number of subscribers that wait for each.
    waiting: Box<[u32]>,
    /// The number of subscribers.
    subscribers: u32,
}

/// The progress of one subscriber in its stream.
#[derive(Debug)]
pub struct Subscriber {
    /// The number of the stream.
    pub stream: u32,
    next: u64,
    /// Numbers that were skipped and may still arrive.
    skipped: Vec<u64>,
}

/// All streams of a load.
#[derive(Debug)]
pub struct Ledger {
    /// The messages.
    pub script: Script,
    /// All counts.
    pub tally: Tally,
    streams: Vec<Stream>,
    window: u64,
    /// A mask for the slots of a stream. Their number is a power of two: the window or the next one above it.
    mask: u64,
    longest: usize,
}

/// The result of parsing bytes of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// The number of bytes used. The rest is an incomplete frame.
    Used(usize),
    /// The server ended the connection; why.
    Ended(String),
}

impl Ledger {
    /// A ledger with at most `window` messages in flight in each stream. Frames longer than `longest` bytes are
    /// refused.
    pub fn new(script: Script, window: usize, longest: usize) -> Ledger {
        let mask = window.next_power_of_two() as u64 - 1;
        Ledger { script, tally: Tally::default(), streams: Vec::new(), window: window as u64, mask, longest }
    }

    /// Adds a subscriber of stream number `stream`, from the next message on.
    pub fn join(&mut self, stream: usize) -> Subscriber {
        let slots = self.mask as usize + 1;
        let empty = || Stream {
            oldest: 0,
            next: 0,
            sent: vec![0; slots].into(),
            waiting: vec![0; slots].into(),
            subscribers: 0,
        };
        while self.streams.len() <= stream {
            self.streams.push(empty());
        }
        self.streams[stream].subscribers += 1;
        Subscriber { stream: stream as u32, next: self.streams[stream].next, skipped: Vec::new() }
    }

    /// The number of the next message of a stream, sent at `now`; `None` while the window is full.
    pub fn send(&mut self, stream: u32, now: u64) -> Option<u64> {
        let (window, mask) = (self.window, self.mask);
        let stream = &mut self.streams[stream as usize];
        if stream.next - stream.oldest >= window {
            return None;
        }
        let number = stream.next;
        stream.next += 1;
        let slot = (number & mask) as usize;
        (stream.sent[slot], stream.waiting[slot]) = (now, stream.subscribers);
        Some(number)
    }

    /// The number of messages in flight.
    pub fn in_flight(&self) -> u64 {
        self.streams.iter().map(|stream| stream.next - stream.oldest).sum()
    }

    /// Handles bytes received by a subscriber. Answers to pings are appended to `out`.
    pub fn receive(&mut self, subscriber: &mut Subscriber, bytes: &[u8], now: u64, out: &mut Vec<u8>) -> Received {
        let mut used = 0;
        while used < bytes.len() {
            let rest = &bytes[used..];
            let published = self.streams[subscriber.stream as usize].next;
            if subscriber.next < published {
                let expected = self.script.frame(subscriber.stream, subscriber.next);
                if rest.starts_with(expected) {
                    used += expected.len();
                    self.arrived(subscriber.stream, subscriber.next, now);
                    subscriber.next += 1;
                    continue;
                }
                // Without this, the end of a long event would be searched from its start in every read.
                if expected.starts_with(rest) {
                    break;
                }
            }
            match self.script.framing.parse(rest, self.longest) {
                Ok(None) => break,
                Ok(Some((part, length))) => {
                    match part {
                        Part::Message(payload) => self.compare(subscriber, &payload, now),
                        Part::Ping(payload) => pong_into(payload, out),
                        Part::Close(why) => return Received::Ended(why),
                        Part::Nothing => {}
                    }
                    used += length;
                }
                Err(()) => return Received::Ended("it sent an invalid frame, or one that is too long".to_owned()),
            }
        }
        Received::Used(used)
    }

    /// Handles a message whose frame differs from the next expected one.
    fn compare(&mut self, subscriber: &mut Subscriber, payload: &[u8], now: u64) {
        let published = self.streams[subscriber.stream as usize].next;
        // An event may have other fields beside its data: nchan sends an id with each.
        if subscriber.next < published && payload == self.script.payload(subscriber.stream, subscriber.next) {
            self.arrived(subscriber.stream, subscriber.next, now);
            subscriber.next += 1;
            return;
        }
        let Some((stream, number, whole)) = self.script.recognise(payload) else {
            self.tally.foreign += 1;
            return;
        };
        if stream != subscriber.stream || number >= published {
            self.tally.faults.corrupt += 1;
            return;
        }
        if !whole {
            self.tally.faults.corrupt += 1;
        }
        if number >= subscriber.next {
            // Skipped messages count as lost unless they arrive later. The window no longer waits for them.
            for skipped in subscriber.next..number {
                self.tally.faults.lost += 1;
                subscriber.skipped.push(skipped);
                self.release(stream, skipped);
            }
            subscriber.next = number + 1;
            match whole {
                true => self.arrived(stream, number, now),
                false => self.release(stream, number),
            }
        } else if let Some(index) = subscriber.skipped.iter().position(|&skipped| skipped == number) {
            subscriber.skipped.swap_remove(index);
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

    /// One subscriber less waits for a message.
    fn release(&mut self, stream: u32, number: u64) {
        let mask = self.mask;
        let stream = &mut self.streams[stream as usize];
        stream.waiting[(number & mask) as usize] -= 1;
        while stream.oldest < stream.next && stream.waiting[(stream.oldest & mask) as usize] == 0 {
            stream.oldest += 1;
        }
    }

    /// A connection ended before the load did: the messages it still waited for are lost.
    pub fn leave(&mut self, subscriber: &mut Subscriber) {
        self.tally.faults.closed += 1;
        self.give_up(subscriber);
        self.streams[subscriber.stream as usize].subscribers -= 1;
    }

    /// The messages that a subscriber still waits for are lost.
    pub fn give_up(&mut self, subscriber: &mut Subscriber) {
        let published = self.streams[subscriber.stream as usize].next;
        for number in subscriber.next..published {
            self.tally.faults.lost += 1;
            self.release(subscriber.stream, number);
        }
        subscriber.next = published;
    }

    /// Resets the counts of deliveries. Faults are kept.
    pub fn begin_measuring(&mut self) {
        (self.tally.deliveries, self.tally.bytes) = (0, 0);
        self.tally.latency.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::framing::Framing;
    use super::*;

    fn ledger(window: usize) -> Ledger {
        Ledger::new(Script::new(Framing::WebSocket, 1, 64, window), window, 1000)
    }

    fn frame(ledger: &mut Ledger, number: u64) -> Vec<u8> {
        ledger.script.frame(0, number).to_vec()
    }

    #[test]
    fn a_window_moves_once_all_subscribers_have_received() {
        let mut ledger = ledger(2);
        let mut both = [ledger.join(0), ledger.join(0)];
        assert_eq!([ledger.send(0, 5), ledger.send(0, 6), ledger.send(0, 7)], [Some(0), Some(1), None]);
        let bytes = [frame(&mut ledger, 0), frame(&mut ledger, 1)].concat();
        let mut out = Vec::new();
        // In two pieces, split inside the second frame.
        let used = ledger.receive(&mut both[0], &bytes[..100], 10, &mut out);
        assert_eq!(used, Received::Used(66));
        assert_eq!(ledger.receive(&mut both[0], &bytes[66..], 10, &mut out), Received::Used(66));
        assert_eq!(ledger.send(0, 8), None);
        ledger.receive(&mut both[1], &bytes, 12, &mut out);
        assert_eq!((ledger.send(0, 8), ledger.in_flight()), (Some(2), 1));
        assert_eq!((ledger.tally.deliveries, ledger.tally.latency.longest()), (4, 7));
        assert!(ledger.tally.faults.is_none() && out.is_empty());
    }

    #[test]
    fn every_kind_of_fault_is_counted() {
        let mut ledger = ledger(8);
        let mut one = ledger.join(0);
        (0..6).for_each(|now| assert!(ledger.send(0, now).is_some()));
        let mut corrupt = frame(&mut ledger, 4);
        *corrupt.last_mut().unwrap() = b'!';
        let parts = [0, 2, 2, 1, 3].map(|number| frame(&mut ledger, number));
        let bytes = [parts.concat(), corrupt, frame(&mut ledger, 7), b"\x81\x05hello\x89\x02hi".to_vec()].concat();
        let mut out = Vec::new();
        assert_eq!(ledger.receive(&mut one, &bytes, 9, &mut out), Received::Used(bytes.len()));
        let expected = Faults { lost: 0, duplicated: 1, reordered: 1, corrupt: 2, closed: 0 };
        assert_eq!((ledger.tally.faults, ledger.tally.foreign, ledger.tally.deliveries), (expected, 1, 3));
        assert_eq!(out, b"\x8a\x82\0\0\0\0hi");
        assert_eq!(
            ledger.receive(&mut one, b"\x88\x06\x03\xf0slow", 9, &mut out),
            Received::Ended("1008 slow".to_owned())
        );
        ledger.leave(&mut one);
        assert_eq!((ledger.tally.faults.lost, ledger.tally.faults.closed, ledger.in_flight()), (1, 1, 0));
    }

    #[test]
    fn an_echo_to_the_wrong_subscriber_is_detected() {
        let mut ledger = ledger(1);
        let (mut one, two) = (ledger.join(0), ledger.join(1));
        assert_eq!((ledger.send(one.stream, 0), ledger.send(two.stream, 0)), (Some(0), Some(0)));
        let bytes = ledger.script.frame(1, 0).to_vec();
        ledger.receive(&mut one, &bytes, 1, &mut Vec::new());
        assert_eq!((ledger.tally.faults.corrupt, ledger.tally.deliveries), (1, 0));
    }

    #[test]
    fn events_with_other_fields_are_deliveries_and_faults_of_events_are_counted() {
        let mut ledger = Ledger::new(Script::new(Framing::EventStream, 1, 64, 8), 8, 1000);
        let mut one = ledger.join(0);
        (0..5).for_each(|now| assert!(ledger.send(0, now).is_some()));
        let parts = [0, 1, 1, 3].map(|number| frame(&mut ledger, number));
        let with_id = [b"id: 1700000000:0\nevent: x\n", &parts[1][..]].concat();
        let mut corrupt = frame(&mut ledger, 4);
        corrupt[40] ^= 1;
        let opening = b"retry: 2000\n\n: hi\n\n".to_vec();
        let others = b"data: tick\n\n:\n\n".to_vec();
        let [first, _, second, fourth] = parts;
        let bytes = [opening, first, with_id, second, fourth, corrupt, others].concat();
        // In pieces of 10 bytes, as a slow network delivers them.
        let (mut held, mut out) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(10) {
            held.extend_from_slice(piece);
            let Received::Used(used) = ledger.receive(&mut one, &held, 9, &mut out) else { panic!("ended") };
            held.drain(..used);
        }
        let expected = Faults { lost: 1, duplicated: 1, reordered: 0, corrupt: 1, closed: 0 };
        assert_eq!((ledger.tally.faults, ledger.tally.foreign, ledger.tally.deliveries), (expected, 1, 3));
        assert!(held.is_empty() && out.is_empty());
        let long = vec![b'x'; 1001];
        assert!(matches!(ledger.receive(&mut one, &long, 9, &mut out), Received::Ended(_)));
    }
}
