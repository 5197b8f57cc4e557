//! One subscription of a client: what it must receive, in which order, and where it may be told of a gap.

use crate::model::{Channel, Form, Model, Number};

/// What a subscription receives next, as an index in the order of its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// This message.
    At(usize),
    /// The first message after this offset. The model may not know it yet.
    After(u64),
    /// The oldest message that the history keeps, if that is not before this index.
    Kept(usize),
}

/// One subscription.
#[derive(Debug)]
pub struct Subscription {
    pub channel: Channel,
    pub next: Next,
    /// From here on, messages may have come as live ones. Those before came in pages, and cannot have been dropped for a slow client.
    pub possibly_live: usize,
    /// From here on, messages certainly came as live ones, once the session was seen subscribed.
    pub certainly_live: Option<usize>,
    /// Up to which offset the history had dropped messages when the client connected.
    pub dropped_at_first: u64,
    /// It must be told of a gap before it receives anything.
    pub owes_gap: bool,
    /// It was told of the gap before everything that is kept.
    pub has_gap_before: bool,
    /// The length of the order when the session was last seen open. It must receive everything up to here, unless it is
    /// disconnected as too slow.
    pub open_until: usize,
    /// The length of the order when the session was first seen ended.
    pub ended_at: Option<usize>,
}

/// What is known of the client of a subscription.
#[derive(Clone, Copy)]
pub struct Hearer {
    pub form: Form,
    /// Whether it receives everything or is closed.
    pub is_strict: bool,
    /// Whether it is told of gaps.
    pub hears_gaps: bool,
    /// Up to which offset the history of the channel has dropped messages by now.
    pub dropped: u64,
    /// Whether it may have selected a channel twice.
    pub selects_twice: bool,
    pub has_patterns: bool,
}

impl Subscription {
    /// One that begins at an index of the order, and is live at once.
    pub fn live(channel: Channel, first: usize) -> Subscription {
        Subscription {
            channel,
            next: Next::At(first),
            possibly_live: first,
            certainly_live: Some(first),
            dropped_at_first: 0,
            owes_gap: false,
            has_gap_before: false,
            open_until: first,
            ended_at: None,
        }
    }

    /// One that receives history first. `length` is that of the order at the moment.
    pub fn behind(channel: Channel, next: Next, length: usize, dropped: u64, owes_gap: bool) -> Subscription {
        let certainly_live = None;
        Subscription {
            next,
            certainly_live,
            dropped_at_first: dropped,
            owes_gap,
            ..Subscription::live(channel, length)
        }
    }

    /// Resolves an offset. Everything up to there must be known.
    fn resolve(&mut self, model: &Model) {
        if let Next::After(offset) = self.next {
            self.next = Next::At(model.first_after(self.channel, offset));
        }
    }

    /// It receives a message. Returns how many it has certainly missed before.
    pub fn receive(&mut self, number: Number, hearer: Hearer, model: &Model) -> u64 {
        self.resolve(model);
        let channel = self.channel;
        let at = model.messages[number].position.unwrap();
        assert!(!self.owes_gap, "received {number} of channel {channel} before it was told of the gap");
        let first = match self.next {
            Next::At(next) | Next::Kept(next) => next,
            Next::After(_) => unreachable!(),
        };
        assert!(at >= first, "received {number} of channel {channel} twice, or too late: {at} where {first} was next");
        let offset = model.messages[number].offset;
        if offset.is_some_and(|offset| at < self.possibly_live && offset <= self.dropped_at_first) {
            panic!("received {number} of channel {channel}, which was dropped before the client connected");
        }
        let missed = self.missed(first, at, hearer, model);
        self.next = Next::At(at + 1);
        missed
    }

    /// How many messages the client has certainly missed of those between these indexes. Panics where it must not miss one.
    fn missed(&self, from: usize, to: usize, hearer: Hearer, model: &Model) -> u64 {
        let mut missed = 0;
        for at in from..to {
            let number = model.order[self.channel][at];
            if !model.carries(hearer.form, number) {
                continue;
            }
            let may_be_history = self.certainly_live.is_none_or(|live| at < live);
            let is_dropped = model.messages[number].offset.is_some_and(|offset| offset <= hearer.dropped);
            let may_be_skipped = matches!(self.next, Next::Kept(_)) || !hearer.hears_gaps;
            if may_be_history && is_dropped && may_be_skipped {
                continue;
            }
            let must_come = hearer.is_strict || at < self.possibly_live;
            assert!(!must_come, "{number} of channel {} was missed, at {at} of {from}..{to}: {self:?}", self.channel);
            missed += 1;
        }
        missed
    }

    /// The client is told that messages are gone. `is_first`: nothing was received before.
    pub fn tell_gap(&mut self, hearer: Hearer, model: &Model) {
        self.resolve(model);
        let channel = self.channel;
        let kept = model.first_after(channel, hearer.dropped);
        if self.owes_gap && self.next == Next::Kept(0) {
            // From an unknown position, everything before what is kept is a gap.
            (self.owes_gap, self.has_gap_before) = (false, true);
            return;
        }
        self.owes_gap = false;
        if self.has_gap_before && self.next == Next::Kept(0) {
            // The channel was selected twice, or has lost more since its pattern was named.
            let has_more = hearer.has_patterns && hearer.dropped > self.dropped_at_first;
            assert!(
                hearer.selects_twice || has_more,
                "told twice of the gap in channel {channel} before everything: {self:?}, {:?} {}",
                hearer.form,
                hearer.dropped
            );
            return;
        }
        let floor = match self.next {
            Next::At(next) => {
                assert!(kept > next, "told of a gap in channel {channel} where nothing is gone: {self:?}");
                next + 1
            }
            Next::Kept(floor) => {
                let more = hearer.dropped > self.dropped_at_first && kept >= floor;
                assert!(more, "told of another gap in channel {channel} where nothing more is gone: {self:?}");
                floor
            }
            Next::After(_) => unreachable!(),
        };
        assert!(floor <= self.certainly_live.unwrap_or(usize::MAX), "told of a gap in channel {channel} when live");
        self.next = Next::Kept(floor);
    }

    /// The client has received everything up to an offset, as it was told: nothing that it must receive is before.
    pub fn check_told(&mut self, offset: u64, hearer: Hearer, model: &Model) {
        self.resolve(model);
        let (Next::At(next) | Next::Kept(next)) = self.next else { unreachable!() };
        let to = model.first_after(self.channel, offset);
        if next < to {
            let to = if hearer.is_strict { to } else { to.min(self.possibly_live) };
            self.missed(next, to, hearer, model);
        }
    }

    /// Everything up to an index of the order was written and read. Returns how many messages the client has certainly missed.
    pub fn check_up_to(&mut self, end: usize, hearer: Hearer, model: &Model) -> u64 {
        self.resolve(model);
        let (Next::At(next) | Next::Kept(next)) = self.next else { unreachable!() };
        assert!(!self.owes_gap, "never told of the gap in channel {}", self.channel);
        self.missed(next, end.max(next), hearer, model)
    }

    /// Notes the state of its session at the end of a turn, and how much of the order is delivered.
    pub fn see(&mut self, open: bool, is_live: bool, delivered: usize) {
        if !open {
            self.ended_at = Some(delivered);
            return;
        }
        self.open_until = delivered;
        match (is_live, self.certainly_live) {
            (false, None) => self.possibly_live = delivered,
            (true, None) => self.certainly_live = Some(delivered),
            (true, Some(_)) => {}
            (false, Some(_)) => panic!("it is live no longer: {self:?}"),
        }
    }

    /// Whether a receipt certainly counts it for the message at an index, and whether it possibly does.
    pub fn is_counted(&self, at: usize) -> (bool, bool) {
        let (end, open) = match self.ended_at {
            Some(end) => (end, self.open_until),
            None => (usize::MAX, usize::MAX),
        };
        let certainly = self.certainly_live.is_some_and(|live| (live..open).contains(&at));
        (certainly, (self.possibly_live..end).contains(&at))
    }
}
