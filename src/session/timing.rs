//! What a session must do at a certain time: ping a silent client, and close one that keeps the server waiting for too long.

use std::num::NonZero;

use super::turn::Acts;
use super::{Phase, Seconds, Session, Socket, State};
use crate::wire::Close;

impl<S: Socket> Session<S> {
    /// When something must be done next: a ping, a deadline, or the end of a session that is not open any more.
    pub fn next_due(&mut self, now: Seconds) -> Option<Seconds> {
        if self.state.phase != Phase::Open {
            return Some(self.state.deadline);
        }
        let is_behind = self.state.framing.is_poll() && self.is_catching_up();
        let position_due = Some(self.state.position_due).filter(|due| *due != Seconds::MAX && !is_behind);
        let expires = self.state.granted().filter(|_| !self.state.framing.is_poll()).map(|granted| granted.expires);
        let dues = [self.state.ping_due(self.is_waiting()), self.message_deadline(now), position_due, expires];
        dues.into_iter().flatten().min()
    }

    /// When its timer fires. A timer that fires at another time is outdated.
    pub fn timer(&self) -> Seconds {
        self.state.timer
    }

    /// Notes when its timer fires.
    pub fn set_timer(&mut self, timer: Seconds) {
        self.state.timer = timer;
    }

    /// Whether the time of a session that is not open is over.
    pub fn is_over(&self, now: Seconds) -> bool {
        self.state.phase != Phase::Open && self.state.deadline <= now
    }

    /// How an open session is to be closed whose token is over, or whose client kept the server waiting for too long. A session that waits to be
    /// read is not late: what the client sent in time may still be in the kernel.
    pub fn lateness(&mut self, now: Seconds) -> Option<Close> {
        if self.state.phase != Phase::Open {
            return None;
        }
        // A poll does not wait longer than its token is good.
        let expires = self.state.granted().filter(|_| !self.state.framing.is_poll()).map(|granted| granted.expires);
        if expires.is_some_and(|expires| expires <= now) {
            return Some(Close::TOKEN_EXPIRED);
        }
        if self.state.is_queued() {
            return None;
        }
        // A reload may have switched pings off.
        let pinged = self.state.unanswered_ping(self.is_waiting()).filter(|_| self.state.terms.hub.ping.is_some());
        if pinged.is_some_and(|pinged| pinged + self.state.pong_timeout() <= now) {
            return Some(Close::NO_PONG);
        }
        self.message_deadline(now).is_some_and(|deadline| deadline <= now).then_some(Close::MESSAGE_LATE)
    }

    /// Closes a session that is late.
    pub fn expire(&mut self, close: &Close, acts: &mut Acts<'_>) {
        if *close == Close::NO_PONG {
            acts.tally.silent += 1;
            self.close(close, acts);
        } else if *close == Close::TOKEN_EXPIRED {
            self.close(close, acts);
        } else {
            self.fail(close, acts);
        }
    }

    /// Sends a ping if it is time for one. A client that answers none is asked by what waits for it: it must accept some of that.
    pub fn ping_if_silent(&mut self, acts: &mut Acts<'_>) {
        let is_waiting = self.is_waiting();
        let state = &mut self.state;
        let Some(frame) = state.framing.ping().filter(|_| state.phase == Phase::Open) else { return };
        let is_due = state.ping_due(is_waiting).is_some_and(|due| due <= acts.now);
        if !is_due || state.unanswered_ping(is_waiting).is_some() {
            return;
        }
        if state.framing.answers() || is_waiting {
            state.pinged = NonZero::new(acts.now);
        } else {
            state.note_heard(acts.now);
        }
        if state.framing.answers() || !is_waiting {
            state.reply(acts, |out| out.extend_from_slice(frame));
        }
    }

    /// When a message must be complete that the client has begun to send: `now` is when it began, unless that was noted before.
    fn message_deadline(&mut self, now: Seconds) -> Option<Seconds> {
        let begun = self.codec.begun(now).filter(|_| self.state.phase == Phase::Open)?;
        // The second in which it began is not a whole one.
        Some(begun + self.state.terms.hub.message_timeout.as_secs() as Seconds + 1)
    }
}

impl State {
    /// Something was received, or the client accepted what waited for it.
    pub(super) fn note_heard(&mut self, now: Seconds) {
        self.allowance.grow(now.saturating_sub(self.heard), &self.terms.hub);
        self.heard = now;
    }

    /// When a ping was sent after which nothing was heard. Anything received is as good as a pong. `is_waiting`: the outbox is not empty.
    fn unanswered_ping(&self, is_waiting: bool) -> Option<Seconds> {
        self.pinged.map(NonZero::get).filter(|pinged| self.heard < *pinged && (self.framing.answers() || is_waiting))
    }

    fn pong_timeout(&self) -> Seconds {
        (self.terms.hub.pong_timeout.as_secs() as Seconds).max(1)
    }

    /// When a ping is to be sent, or its answer must be there.
    fn ping_due(&self, is_waiting: bool) -> Option<Seconds> {
        let ping = self.terms.hub.ping.filter(|_| self.framing.ping().is_some())?.as_secs() as Seconds;
        Some(match self.unanswered_ping(is_waiting) {
            Some(pinged) => pinged + self.pong_timeout(),
            None => self.heard + ping,
        })
    }
}
