//! A simulated client: what it did, what it received, and whether this was right.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use pushd::config::WhenSlow;
use pushd::session::{Seconds, Terms};
use pushd::shard::table::SessionKey;
use pushd::wire::Framing;

use crate::model::{Channel, Model, Number};
use crate::setting::GAP;
use crate::socket::Pipe;
use crate::speech::{Decoder, Received};

/// An answer that a client expects to its own message.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    Echo(Number),
    Pong(Vec<u8>),
}

/// One subscription.
pub struct Subscription {
    pub channel: Channel,
    /// The first position in the order of the channel that it receives.
    pub first: usize,
    /// The next position that it should receive.
    pub next: usize,
    /// The length of the order when the session was last seen open. It must receive everything up to here, unless it is
    /// disconnected as too slow.
    pub open_until: usize,
    /// The length of the order when the session was first seen ended.
    pub ended_at: Option<usize>,
}

pub struct Client {
    pub number: usize,
    pub shard: usize,
    pub key: SessionKey,
    pub framing: Framing,
    pub terms: Arc<Terms>,
    pub to: Channel,
    pub subscriptions: Vec<Subscription>,
    pub pipe: Rc<RefCell<Pipe>>,
    pub decoder: Decoder,
    pub greeting: Option<String>,
    pub replies: VecDeque<Reply>,
    /// Whether it reads.
    pub reads: bool,
    /// Whether it answers pings.
    pub answers: bool,
    /// Whether it always reads, and its socket is never full.
    pub steady: bool,
    /// It has closed, violated the protocol, or disconnected: it sends nothing more.
    pub silent: bool,
    /// It disconnected without reading to the end.
    pub vanished: bool,
    /// Its session may have been ended by a timeout.
    pub timed_out: bool,
    /// The close codes it may receive.
    pub codes: Vec<u16>,
    pub close: Option<Option<(u16, String)>>,
    /// How many messages it should have received and did not.
    pub missed: u64,
    /// How many dropped messages its gap notices have counted.
    pub notified: u64,
    /// The largest limit that its queue ever had.
    pub queue_bytes_max: usize,
    /// When its session was last seen open.
    pub open_seen_at: Seconds,
    /// Its session is no longer open.
    pub ended: bool,
    /// Its connection has ended, and its end was checked.
    pub gone: bool,
}

impl Client {
    /// Whether it receives everything or is closed.
    pub fn is_strict(&self) -> bool {
        self.terms.hub.when_slow == WhenSlow::Disconnect
    }

    /// Whether it was disconnected as too slow. In draft-76 this cannot be seen exactly, because a close has no reason.
    pub fn is_cut(&self) -> bool {
        match &self.close {
            Some(Some((code, reason))) => *code == 1008 && reason.starts_with("too slow"),
            Some(None) => self.pipe.borrow().was_full,
            None => false,
        }
    }

    /// Checks what it received. Returns what it must answer.
    pub fn receive(&mut self, model: &Model) -> Vec<Received> {
        let mut to_answer = Vec::new();
        for received in self.decoder.received() {
            assert_eq!(self.close, None, "received after a close: {received:?}");
            match received {
                Received::Message(kind, payload) if self.greeting.as_ref().is_some_and(|g| g.as_bytes() == payload) => {
                    assert_eq!(kind, pushd::hub::Kind::Text);
                    self.greeting = None;
                }
                Received::Message(_, payload) if payload.starts_with(GAP.as_bytes()) => {
                    assert!(self.terms.hub.gap_notice.is_some());
                    let dropped: u64 = std::str::from_utf8(&payload[GAP.len()..]).unwrap().parse().unwrap();
                    assert_ne!(dropped, 0, "a gap notice without dropped messages");
                    self.notified += dropped;
                }
                Received::Message(kind, payload) => {
                    assert!(self.greeting.is_none() || !self.is_strict(), "the greeting comes first");
                    let number = model.find(kind, &payload);
                    match model.messages[number].channel {
                        Some(channel) => self.receive_publication(number, channel, model),
                        None => self.receive_reply(&Reply::Echo(number)),
                    }
                }
                Received::Pong(payload) => self.receive_reply(&Reply::Pong(payload)),
                Received::Ping => to_answer.push(Received::Ping),
                Received::Close(close) => {
                    self.check_close(close.as_ref());
                    self.close = Some(close.clone());
                    to_answer.push(Received::Close(close));
                }
            }
        }
        to_answer
    }

    fn receive_publication(&mut self, number: Number, channel: Channel, model: &Model) {
        let strict = self.is_strict();
        let (shard, framing) = (self.shard, self.framing);
        let found = self.subscriptions.iter_mut().find(|subscription| subscription.channel == channel);
        let subscription =
            found.unwrap_or_else(|| panic!("received {number} of channel {channel} without a subscription"));
        loop {
            assert!(
                subscription.next < model.delivered[shard][channel],
                "received {number} of channel {channel} too early, twice or too late"
            );
            let expected = model.order[channel][subscription.next];
            subscription.next += 1;
            if expected == number {
                return;
            }
            if model.carries(framing, expected) {
                assert!(!strict, "received {number} of channel {channel} where {expected} was next");
                self.missed += 1;
            }
        }
    }

    fn receive_reply(&mut self, reply: &Reply) {
        while let Some(next) = self.replies.pop_front() {
            if next == *reply {
                return;
            }
            assert!(!self.is_strict(), "received {reply:?} where {next:?} was next");
            self.missed += 1;
        }
        panic!("received {reply:?}, which it did not request");
    }

    fn check_close(&self, close: Option<&(u16, String)>) {
        let Some((code, reason)) = close else { return };
        match (code, reason.as_str()) {
            (1008, reason) if reason.starts_with("too slow") => {
                assert!(self.is_strict(), "its hub does not disconnect slow clients");
                assert!(self.pipe.borrow().was_full && !self.steady, "too slow, but its socket accepted everything");
            }
            (1008, reason) if reason.starts_with("no answer") => assert!(self.terms.hub.ping.is_some()),
            _ => assert!(self.codes.contains(code), "closed with {code} {reason:?}, expected one of {:?}", self.codes),
        }
    }

    /// From now on it may be closed with this code.
    pub fn expect(&mut self, code: u16) {
        self.codes.push(code);
    }

    /// Notes the state of its session at the end of a turn.
    pub fn see(&mut self, open: bool, delivered: &[usize]) {
        if self.ended {
            return;
        }
        self.ended = !open;
        for subscription in &mut self.subscriptions {
            let length = delivered[subscription.channel];
            if open {
                subscription.open_until = length;
            } else {
                subscription.ended_at = Some(length);
            }
        }
    }

    /// The server has dropped its socket, and it has read everything: checks that nothing is missing.
    pub fn check_end(&self, model: &Model) {
        if self.vanished {
            return;
        }
        assert!(self.close.is_some() || self.timed_out, "its connection ended without a close");
        assert!(self.decoder.bytes.is_empty() || self.timed_out, "a frame was cut in two by the end");
        if self.is_cut() || self.timed_out || !self.is_strict() {
            return;
        }
        for subscription in &self.subscriptions {
            let left = subscription.next..subscription.open_until.max(subscription.next);
            let lost = model.count(subscription.channel, left, self.framing);
            assert_eq!(
                lost, 0,
                "messages of channel {} were lost before {:?}: position {} of {}",
                subscription.channel, self.close, subscription.next, subscription.open_until
            );
        }
    }

    /// Everything is delivered and read, and its session is open: checks that it has received everything.
    pub fn check_settled(&mut self, model: &Model) {
        let strict = self.is_strict();
        let mut missed = self.replies.len() as u64 + u64::from(self.greeting.is_some());
        let mut last_missed = 0;
        for subscription in &mut self.subscriptions {
            let end = model.delivered[self.shard][subscription.channel];
            let left = model.count(subscription.channel, subscription.next..end, self.framing) as u64;
            last_missed += left;
            missed += left;
            subscription.next = end;
        }
        if strict {
            assert_eq!(missed, 0, "lost: replies {:?}", self.replies);
        }
        // Echoes, `queue_age_max` or a reload with a smaller queue may drop even the latest message.
        let roomy = !self.terms.speech.replies() && self.queue_bytes_max == 0;
        if self.terms.hub.when_slow == WhenSlow::Conflate && roomy && self.terms.hub.queue_age_max.is_none() {
            assert_eq!(last_missed, 0, "the latest message of a channel is always received");
        }
        self.missed += missed;
        if self.terms.hub.gap_notice.is_some() {
            // A notice also counts dropped pings, which the model does not know.
            let pings = self.terms.hub.ping.is_some() && self.notified > self.missed;
            assert!(
                self.notified == self.missed || pings,
                "{} dropped by notices, {} missed",
                self.notified,
                self.missed
            );
        }
        (self.greeting, self.replies) = (None, VecDeque::new());
    }
}
