//! A simulated client: what it did, what it received, and whether this was right.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use pushd::config::WhenSlow;
use pushd::hub::{Kind, Position, Selector};
use pushd::session::{Seconds, Terms};
use pushd::shard::table::SessionKey;

use crate::model::{CHANNELS, Channel, Form, Model, Number};
use crate::setting::GAP;
use crate::socket::Pipe;
use crate::speech::{Decoder, Received};
use crate::subscription::{Hearer, Next, Subscription};

/// What an envelope or an event takes beside the payload, at most, in bytes. Binary payloads get larger by a third, too.
pub const ENVELOPE_BYTES: usize = 80;
/// What another frame takes.
const HEADER_BYTES: usize = 14;

/// An answer that a client expects to its own message.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    Echo(Number),
    Pong(Vec<u8>),
}

/// What a client knows of its place in the history of its hub.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place {
    /// The position that it would send when it connects again: the last one that it was told.
    pub told: Option<Position>,
    /// The offset up to which it has received everything, told or not.
    pub offset: u64,
    /// It has asked for the oldest messages, and nothing has come: it has missed nothing yet.
    pub is_earliest: bool,
    /// It has asked for what it missed.
    pub catches_up: bool,
}

pub struct Client {
    pub number: usize,
    pub shard: usize,
    pub key: SessionKey,
    pub form: Form,
    pub terms: Arc<Terms>,
    pub to: Channel,
    /// What it has subscribed to.
    pub selectors: Vec<Selector>,
    /// The channels that this selects.
    pub subscriptions: Vec<Subscription>,
    pub place: Place,
    /// When it was live at the latest, in its process.
    pub live_since: Seconds,
    pub pipe: Rc<RefCell<Pipe>>,
    pub decoder: Decoder,
    pub greeting: Option<String>,
    pub replies: VecDeque<Reply>,
    /// The bytes of the echo that it has received last, if it has received nothing else since.
    pub last_echo: Option<usize>,
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
    /// The smallest limits that its queue ever had: messages and bytes.
    pub queue_least: (usize, usize),
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

    /// Whether it is told of gaps and positions.
    pub fn hears_positions(&self) -> bool {
        self.form.envelope || self.form.framing.is_events()
    }

    fn hearer(&self, dropped: u64) -> Hearer {
        let (form, is_strict, hears_gaps) = (self.form, self.is_strict(), self.hears_positions());
        let has_patterns = self.selectors.iter().any(|selector| selector.is_pattern);
        let selects_twice = has_patterns && self.selectors.len() > 1;
        Hearer { form, is_strict, hears_gaps, dropped, selects_twice, has_patterns }
    }

    /// Checks what it received. `dropped` says up to which offset each channel has dropped messages. Returns what it must answer.
    pub fn receive(&mut self, model: &Model, dropped: &[u64]) -> Vec<Received> {
        let mut to_answer = Vec::new();
        for received in self.decoder.received() {
            assert_eq!(self.close, None, "received after a close: {received:?}");
            if !matches!(received, Received::Close(_)) {
                self.last_echo = None;
            }
            match received {
                Received::Message(kind, payload, ..)
                    if self.greeting.as_ref().is_some_and(|g| g.as_bytes() == payload) =>
                {
                    assert_eq!(kind, Kind::Text);
                    self.greeting = None;
                }
                Received::Message(_, payload, None, None) if payload.starts_with(GAP.as_bytes()) => {
                    assert!(self.terms.hub.gap_notice.is_some());
                    let dropped: u64 = std::str::from_utf8(&payload[GAP.len()..]).unwrap().parse().unwrap();
                    assert_ne!(dropped, 0, "a gap notice without dropped messages");
                    self.notified += dropped;
                }
                Received::Message(kind, payload, position, name) => {
                    assert!(self.greeting.is_none() || !self.is_strict(), "the greeting comes first");
                    let number = model.find(kind, &payload);
                    let channel = model.messages[number].channel;
                    assert!(
                        name.is_none() || name.as_deref() == channel.map(|channel| CHANNELS[channel % CHANNELS.len()])
                    );
                    match channel {
                        Some(channel) => {
                            self.receive_publication(number, channel, model, dropped);
                            self.receive_position(number, position, model, dropped);
                        }
                        None => {
                            self.receive_reply(&Reply::Echo(number));
                            self.last_echo = Some(model.messages[number].bytes);
                        }
                    }
                }
                Received::Gap(name, position) => self.receive_gap(&name, position, model, dropped),
                Received::Told(position) => {
                    assert!(self.place.told.is_none_or(|told| told.offset <= position.offset));
                    self.check_told(position, model, dropped);
                    (self.place.told, self.place.is_earliest) = (Some(position), false);
                    self.place.offset = self.place.offset.max(position.offset);
                }
                Received::Pong(payload) => self.receive_reply(&Reply::Pong(payload)),
                Received::Ping => to_answer.push(Received::Ping),
                Received::Close(close) => {
                    self.check_close(close.as_ref(), model);
                    self.close = Some(close.clone());
                    to_answer.push(Received::Close(close));
                }
            }
        }
        to_answer
    }

    fn receive_publication(&mut self, number: Number, channel: Channel, model: &Model, dropped: &[u64]) {
        let (shard, hearer) = (self.shard, self.hearer(dropped[channel]));
        assert!(
            self.subscriptions.iter().all(|subscription| !subscription.owes_gap),
            "received {number} before it was told of all gaps"
        );
        let found = self.subscriptions.iter_mut().find(|subscription| subscription.channel == channel);
        let subscription =
            found.unwrap_or_else(|| panic!("received {number} of channel {channel} without a subscription"));
        let position = model.messages[number].position;
        assert!(
            position.is_some_and(|position| position < model.delivered[shard][channel]),
            "received {number} of channel {channel} too early"
        );
        self.missed += subscription.receive(number, hearer, model);
    }

    /// It has received a message, which has a position if its hub has history.
    fn receive_position(&mut self, number: Number, position: Option<Position>, model: &Model, dropped: &[u64]) {
        let Some(offset) = model.messages[number].offset else {
            assert_eq!(position, None, "a hub without history gives no positions");
            return;
        };
        assert!(offset > self.place.offset, "received {offset} after {:?}", self.place);
        let hub = self.terms.hub_id.0 as usize;
        let here = Position { epoch: model.hubs[hub].as_ref().unwrap().epoch, offset };
        assert_eq!(position, self.hears_positions().then_some(here));
        self.check_told(here, model, dropped);
        (self.place.offset, self.place.is_earliest) = (offset, false);
        self.place.told = position;
    }

    /// It has received everything up to a position.
    fn check_told(&mut self, position: Position, model: &Model, dropped: &[u64]) {
        let hearers: Vec<_> = self.subscriptions.iter().map(|sub| self.hearer(dropped[sub.channel])).collect();
        for (subscription, hearer) in self.subscriptions.iter_mut().zip(hearers) {
            subscription.check_told(position.offset, hearer, model);
        }
    }

    fn receive_gap(&mut self, name: &str, position: Option<Position>, model: &Model, dropped: &[u64]) {
        assert!(self.place.catches_up, "told of a gap in {name}, without having been away");
        let takes_all = self.form.envelope || !self.form.framing.is_events();
        assert!(!self.place.is_earliest || !takes_all, "told of a gap in {name} before the oldest messages");
        let hub = self.terms.hub_id.0 as usize;
        // A pattern is named if nothing is known of what the client has received.
        let pattern = self.selectors.iter().find(|selector| selector.is_pattern && *selector.text == *name).cloned();
        let gap = pattern.unwrap_or_else(|| Selector::name(name));
        let channels: Vec<_> = self.subscriptions.iter().map(|subscription| subscription.channel).collect();
        let hearers: Vec<_> = channels.iter().map(|&channel| self.hearer(dropped[channel])).collect();
        let mut told = 0;
        for (subscription, hearer) in self.subscriptions.iter_mut().zip(hearers) {
            assert_eq!(subscription.channel / CHANNELS.len(), hub);
            if gap.selects(CHANNELS[subscription.channel % CHANNELS.len()]) {
                told += 1;
                subscription.tell_gap(hearer, model);
            }
        }
        assert_ne!(told, 0, "told of a gap in {name}, to which it is not subscribed");
        if let Some(position) = position {
            // From here on it is not told of the same gaps again, so it must know all of them.
            assert!(self.subscriptions.iter().all(|subscription| !subscription.owes_gap), "another gap follows");
            assert!(self.place.told.is_none_or(|told| told.offset <= position.offset));
            self.check_told(position, model, dropped);
            self.place.told = Some(position);
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

    fn check_close(&self, close: Option<&(u16, String)>, model: &Model) {
        let Some((code, reason)) = close else { return };
        match (code, reason.as_str()) {
            (1008, reason) if reason.starts_with("too slow") => {
                assert!(self.is_strict(), "its hub does not disconnect slow clients");
                assert!(self.pipe.borrow().was_full && !self.steady, "too slow, but its socket accepted everything");
                self.check_slow(model);
            }
            (1008, reason) if reason.starts_with("no answer") => assert!(self.terms.hub.ping.is_some()),
            _ => assert!(self.codes.contains(code), "closed with {code} {reason:?}, expected one of {:?}", self.codes),
        }
    }

    /// It is disconnected as too slow. What it has missed does not count for that: enough must have come since it is live.
    fn check_slow(&self, model: &Model) {
        if !self.place.catches_up || self.terms.hub.queue_age_max.is_some() {
            return;
        }
        let greeting = self.greeting.iter().map(String::len);
        let replies = self.replies.iter().map(|reply| match reply {
            Reply::Echo(number) => model.messages[*number].bytes,
            Reply::Pong(payload) => payload.len(),
        });
        let (mut count, mut bytes) = (0, 0);
        // One that was partly written was still queued.
        replies
            .chain(greeting)
            .chain(self.last_echo)
            .for_each(|length| (count, bytes) = (count + 1, bytes + length + HEADER_BYTES));
        for subscription in &self.subscriptions {
            let end = subscription.ended_at.unwrap_or(model.order[subscription.channel].len());
            for &number in &model.order[subscription.channel][subscription.possibly_live.min(end)..end] {
                if model.carries(self.form, number) {
                    count += 1;
                    bytes += self.frame_bytes(number, model);
                }
            }
        }
        let (messages_max, bytes_max) = self.queue_least;
        assert!(
            count > 1 && (bytes > bytes_max || count >= messages_max),
            "too slow, with {count} messages of {bytes} bytes since it is live, of {:?}",
            self.queue_least
        );
    }

    /// The bytes of the frame of a message, at most.
    fn frame_bytes(&self, number: Number, model: &Model) -> usize {
        let message = &model.messages[number];
        match (self.hears_positions(), message.kind) {
            (true, Kind::Binary) => message.bytes * 4 / 3 + ENVELOPE_BYTES,
            (true, Kind::Text) => message.bytes + ENVELOPE_BYTES,
            (false, _) => message.bytes + HEADER_BYTES,
        }
    }

    /// From now on it may be closed with this code.
    pub fn expect(&mut self, code: u16) {
        self.codes.push(code);
    }

    /// Notes the state of its session at the end of a turn.
    pub fn see(&mut self, open: bool, is_live: bool, delivered: &[usize], now: Seconds) {
        if self.ended {
            return;
        }
        self.ended = !open;
        if self.subscriptions.iter().any(|subscription| subscription.certainly_live.is_none()) {
            self.live_since = now;
        }
        for subscription in &mut self.subscriptions {
            subscription.see(open, is_live, delivered[subscription.channel]);
        }
    }

    /// The server has dropped its socket, and it has read everything: checks that nothing is missing.
    pub fn check_end(&mut self, model: &Model, dropped: &[u64]) {
        if self.vanished {
            return;
        }
        assert!(self.close.is_some() || self.timed_out, "its connection ended without a close");
        assert!(self.decoder.bytes.is_empty() || self.timed_out, "a frame was cut in two by the end");
        if self.is_cut() || self.timed_out || !self.is_strict() {
            return;
        }
        let hearers: Vec<_> = self.subscriptions.iter().map(|sub| self.hearer(dropped[sub.channel])).collect();
        for (subscription, hearer) in self.subscriptions.iter_mut().zip(hearers) {
            if subscription.certainly_live.is_some() {
                subscription.check_up_to(subscription.open_until, hearer, model);
            }
        }
    }

    /// Everything is delivered and read, and its session is open: checks that it has received everything.
    pub fn check_settled(&mut self, model: &Model, dropped: &[u64], now: Seconds) {
        let strict = self.is_strict();
        let mut missed = self.replies.len() as u64 + u64::from(self.greeting.is_some());
        let mut last_missed = 0;
        let hearers: Vec<_> = self.subscriptions.iter().map(|sub| self.hearer(dropped[sub.channel])).collect();
        for (subscription, hearer) in self.subscriptions.iter_mut().zip(hearers) {
            let end = model.delivered[self.shard][subscription.channel];
            let left = subscription.check_up_to(end, hearer, model);
            last_missed += left;
            missed += left;
            subscription.next = Next::At(end);
        }
        if strict {
            assert_eq!(missed, 0, "lost: replies {:?}", self.replies);
        }
        if self.hears_positions() && self.terms.hub.history.is_some() && strict && now >= self.live_since + 4 {
            assert!(self.place.told.is_some(), "never told a position");
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
