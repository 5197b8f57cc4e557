//! What the operator changes: terms of running sessions, and their end.
//!
//! Either reaches every session. That is done in a sweep over the table, some places in each turn, so that a reload or an end of
//! a hundred thousand sessions holds up nobody.

use std::fmt;
use std::sync::Arc;

use super::Table;
use crate::config::Hub;
use crate::config::limits::SWEEP_PLACES_PER_TURN;
use crate::hub::Slot;
use crate::session::{Phase, Socket, Terms};
use crate::wire::Close;

/// The terms that a session has from now on; `None`: its route is gone.
pub type Rebind = Box<dyn FnMut(&Arc<Terms>) -> Option<Arc<Terms>>>;

/// Something that is being done to every session.
#[derive(Debug)]
pub(super) struct Sweep {
    /// The next place of the table.
    at: usize,
    /// Where it ends: sessions that came since it began know already.
    end: usize,
    change: Change,
}

enum Change {
    /// It has the terms that its route has now.
    Rebind(Rebind),
    /// It is told goodbye.
    SendAway(Close),
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Rebind(_) => f.write_str("Rebind"),
            Change::SendAway(close) => f.debug_tuple("SendAway").field(close).finish(),
        }
    }
}

impl<S: Socket> Table<S> {
    /// Ends all sessions because the server ends.
    pub fn drain(&mut self, close: &Close) {
        self.end_by(close);
        self.sweep(Change::SendAway(close.clone()));
    }

    /// The server ends: a session that begins now is told so.
    pub fn end_by(&mut self, close: &Close) {
        self.ending = Some(close.clone());
    }

    /// Says goodbye to the session in a place of the table, if there is one and it is open.
    pub fn send_away(&mut self, slot: Slot, close: &Close) -> bool {
        let is_open = self.sessions.get(slot as usize).is_some_and(|session| session.phase == Phase::Open);
        if is_open {
            self.close(slot, close);
        }
        is_open
    }

    /// How many places the table has; sessions are in some of them.
    pub fn places(&self) -> usize {
        self.sessions.capacity()
    }

    /// Gives sessions the terms their route has now; those whose route is gone are closed.
    pub fn rebind(&mut self, terms: Rebind) {
        // What an earlier reload has not reached is reached by this one.
        self.sweeps.retain(|sweep| !matches!(sweep.change, Change::Rebind(_)));
        self.sweep(Change::Rebind(terms));
    }

    fn sweep(&mut self, change: Change) {
        self.sweeps.push_back(Sweep { at: 0, end: self.sessions.capacity(), change });
    }

    /// Goes on with what is being done to every session.
    pub fn sweep_on(&mut self) {
        let Some(mut sweep) = self.sweeps.pop_front() else { return };
        let mut left = self.pace.sweep;
        let end = sweep.end.min(sweep.at + SWEEP_PLACES_PER_TURN);
        while sweep.at < end && left > 0 {
            if self.sessions.contains(sweep.at) {
                left -= 1;
                self.change(sweep.at as Slot, &mut sweep.change);
            }
            sweep.at += 1;
        }
        if sweep.at < sweep.end {
            self.sweeps.push_front(sweep);
        }
    }

    fn change(&mut self, slot: Slot, change: &mut Change) {
        match change {
            Change::SendAway(close) => {
                self.send_away(slot, close);
            }
            Change::Rebind(terms) => {
                let session = &mut self.sessions[slot as usize];
                match terms(&session.terms) {
                    Some(terms) => self.rebind_to(slot, terms),
                    None => {
                        self.send_away(slot, &Close::ROUTE_REMOVED);
                    }
                }
            }
        }
    }

    fn rebind_to(&mut self, slot: Slot, terms: Arc<Terms>) {
        let session = &mut self.sessions[slot as usize];
        let before = std::mem::replace(&mut session.terms, terms);
        // A session that was never pinged has no timer, and one set for other terms may be too late.
        let timing = |hub: &Hub| (hub.ping, hub.pong_timeout, hub.message_timeout);
        if timing(&before.hub) != timing(&session.terms.hub) {
            self.set_next_timer(slot);
        }
    }
}
