//! One simulated client: what it did, what it heard, and whether it could have.

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
use crate::speech::{Ear, Heard};

/// What a client waits for as an answer to itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    Echo(Number),
    Pong(Vec<u8>),
}

/// One subscription.
pub struct Subscription {
    pub channel: Channel,
    /// The first place in the channel's order that it hears.
    pub first: usize,
    /// The next place to be heard.
    pub next: usize,
    /// When the session was last seen open, the order was this long: up to here it must hear everything, unless it is cut off.
    pub open_until: usize,
    /// When it was seen ended, the order was this long.
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
    pub ear: Ear,
    pub greeting: Option<String>,
    pub replies: VecDeque<Reply>,
    /// It reads what comes.
    pub reads: bool,
    /// It answers pings.
    pub answers: bool,
    /// It never stops reading and is never full.
    pub steady: bool,
    /// It said goodbye, broke the protocol, or is gone: it says nothing more.
    pub silent: bool,
    /// It went without reading to the end.
    pub vanished: bool,
    /// The clock ran out on it.
    pub timed_out: bool,
    /// Close codes it may hear.
    pub codes: Vec<u16>,
    pub close: Option<Option<(u16, String)>>,
    /// Messages it should have heard and did not.
    pub missed: u64,
    /// Messages it was told of as dropped.
    pub told: u64,
    /// The largest queue it was ever granted.
    pub queue_bytes_max: usize,
    /// When its session was last seen open.
    pub open_seen_at: Seconds,
    /// Its session is no longer open.
    pub ended: bool,
    /// It was seen off for good.
    pub gone: bool,
}

impl Client {
    /// Whether it hears everything or is closed.
    pub fn is_strict(&self) -> bool {
        self.terms.hub.when_slow == WhenSlow::Disconnect
    }

    /// Whether it was told that it is too slow; draft-76 has no words for that.
    pub fn is_cut(&self) -> bool {
        match &self.close {
            Some(Some((code, reason))) => *code == 1008 && reason.starts_with("too slow"),
            Some(None) => self.pipe.borrow().was_full,
            None => false,
        }
    }

    /// Checks what it heard; what it answers.
    pub fn hear(&mut self, model: &Model) -> Vec<Heard> {
        let mut to_answer = Vec::new();
        for heard in self.ear.heard() {
            assert_eq!(self.close, None, "nothing comes behind a close, but {heard:?}");
            match heard {
                Heard::Message(kind, payload) if self.greeting.as_ref().is_some_and(|g| g.as_bytes() == payload) => {
                    assert_eq!(kind, pushd::hub::Kind::Text);
                    self.greeting = None;
                }
                Heard::Message(_, payload) if payload.starts_with(GAP.as_bytes()) => {
                    assert!(self.terms.hub.gap_notice.is_some());
                    let dropped: u64 = std::str::from_utf8(&payload[GAP.len()..]).unwrap().parse().unwrap();
                    assert_ne!(dropped, 0, "a notice of nothing");
                    self.told += dropped;
                }
                Heard::Message(kind, payload) => {
                    assert!(self.greeting.is_none() || !self.is_strict(), "the greeting comes first");
                    let number = model.find(kind, &payload);
                    match model.messages[number].channel {
                        Some(channel) => self.hear_publication(number, channel, model),
                        None => self.hear_reply(&Reply::Echo(number)),
                    }
                }
                Heard::Pong(payload) => self.hear_reply(&Reply::Pong(payload)),
                Heard::Ping => to_answer.push(Heard::Ping),
                Heard::Close(close) => {
                    self.check_close(close.as_ref());
                    self.close = Some(close.clone());
                    to_answer.push(Heard::Close(close));
                }
            }
        }
        to_answer
    }

    fn hear_publication(&mut self, number: Number, channel: Channel, model: &Model) {
        let strict = self.is_strict();
        let (shard, framing) = (self.shard, self.framing);
        let found = self.subscriptions.iter_mut().find(|subscription| subscription.channel == channel);
        let subscription = found.unwrap_or_else(|| panic!("heard {number} of channel {channel}, not subscribed to"));
        loop {
            assert!(
                subscription.next < model.handed_out[shard][channel],
                "heard {number} of channel {channel} before its turn, twice or too late"
            );
            let expected = model.order[channel][subscription.next];
            subscription.next += 1;
            if expected == number {
                return;
            }
            if model.carries(framing, expected) {
                assert!(!strict, "heard {number} of channel {channel} where {expected} was next");
                self.missed += 1;
            }
        }
    }

    fn hear_reply(&mut self, reply: &Reply) {
        while let Some(next) = self.replies.pop_front() {
            if next == *reply {
                return;
            }
            assert!(!self.is_strict(), "heard {reply:?} where {next:?} was next");
            self.missed += 1;
        }
        panic!("heard {reply:?}, which it did not ask for");
    }

    fn check_close(&self, close: Option<&(u16, String)>) {
        let Some((code, reason)) = close else { return };
        match (code, reason.as_str()) {
            (1008, reason) if reason.starts_with("too slow") => {
                assert!(self.is_strict(), "only hubs that disconnect do");
                assert!(self.pipe.borrow().was_full && !self.steady, "cut off though its socket took everything");
            }
            (1008, reason) if reason.starts_with("no answer") => assert!(self.terms.hub.ping.is_some()),
            _ => assert!(self.codes.contains(code), "closed with {code} {reason:?}, expected one of {:?}", self.codes),
        }
    }

    /// From now on it may be closed with this code.
    pub fn expect(&mut self, code: u16) {
        self.codes.push(code);
    }

    /// Its session was seen at the end of a turn.
    pub fn see(&mut self, open: bool, handed_out: &[usize]) {
        if self.ended {
            return;
        }
        self.ended = !open;
        for subscription in &mut self.subscriptions {
            let length = handed_out[subscription.channel];
            if open {
                subscription.open_until = length;
            } else {
                subscription.ended_at = Some(length);
            }
        }
    }

    /// Its socket was dropped by the server, and it has read everything: was that right?
    pub fn check_end(&self, model: &Model) {
        if self.vanished {
            return;
        }
        assert!(self.close.is_some() || self.timed_out, "its connection ended without a close");
        assert!(self.ear.bytes.is_empty() || self.timed_out, "a frame was cut in two by the end");
        if self.is_cut() || self.timed_out || !self.is_strict() {
            return;
        }
        for subscription in &self.subscriptions {
            let left = subscription.next..subscription.open_until.max(subscription.next);
            let lost = model.count(subscription.channel, left, self.framing);
            assert_eq!(
                lost, 0,
                "messages of channel {} were lost before {:?}: place {} of {}",
                subscription.channel, self.close, subscription.next, subscription.open_until
            );
        }
    }

    /// Everything has been handed out and read, and its session is open: it has all, and nothing is held for it.
    pub fn check_rest(&mut self, model: &Model) {
        let strict = self.is_strict();
        let mut missed = self.replies.len() as u64 + u64::from(self.greeting.is_some());
        let mut last_missed = 0;
        for subscription in &mut self.subscriptions {
            let end = model.handed_out[self.shard][subscription.channel];
            let left = model.count(subscription.channel, subscription.next..end, self.framing) as u64;
            last_missed += left;
            missed += left;
            subscription.next = end;
        }
        if strict {
            assert_eq!(missed, 0, "lost: replies {:?}", self.replies);
        }
        // Its own echoes, old age or a queue made smaller may cost a client even those.
        let roomy = !self.terms.speech.replies() && self.queue_bytes_max == 0;
        if self.terms.hub.when_slow == WhenSlow::Conflate && roomy && self.terms.hub.queue_age_max.is_none() {
            assert_eq!(last_missed, 0, "the latest of a channel is always heard");
        }
        self.missed += missed;
        if self.terms.hub.gap_notice.is_some() {
            // A ping that was dropped is told too, and nobody knows of it.
            let pings = self.terms.hub.ping.is_some() && self.told > self.missed;
            assert!(self.told == self.missed || pings, "told of {} dropped, missed {}", self.told, self.missed);
        }
        (self.greeting, self.replies) = (None, VecDeque::new());
    }
}
