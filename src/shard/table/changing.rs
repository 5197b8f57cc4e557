//! What the operator changes: the terms of running sessions, and their end.
//!
//! Both reach every session, in a sweep over the table that takes some places in each turn. So a reload or an end of a hundred
//! thousand sessions delays no client.

use std::fmt;
use std::sync::Arc;

use super::Table;
use crate::config::limits::SWEEP_PLACES_PER_TURN;
use crate::hub::Slot;
use crate::session::{Phase, Socket, Terms};
use crate::wire::Close;

/// The terms that a session has from now on. `None`: its route is gone.
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
    /// It gets the terms that its route has now.
    Rebind(Rebind),
    /// It is closed.
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

    /// The server ends: sessions that begin from now on are closed at once.
    pub fn end_by(&mut self, close: &Close) {
        self.ending = Some(close.clone());
    }

    /// Closes the session in a place of the table. Returns whether there was one, and it was open.
    pub fn send_away(&mut self, slot: Slot, close: &Close) -> bool {
        let is_open = self.sessions.get(slot as usize).is_some_and(|session| session.phase() == Phase::Open);
        if is_open {
            self.close(slot, close);
        }
        is_open
    }

    /// How many places the table has. Sessions are in some of them.
    pub fn places(&self) -> usize {
        self.sessions.capacity()
    }

    /// Gives sessions the terms that their routes have now. Those whose route is gone are closed.
    pub fn rebind(&mut self, terms: Rebind) {
        // What an earlier reload has not reached is reached by this one.
        self.sweeps.retain(|sweep| !matches!(sweep.change, Change::Rebind(_)));
        self.sweep(Change::Rebind(terms));
    }

    fn sweep(&mut self, change: Change) {
        self.sweeps.push_back(Sweep { at: 0, end: self.sessions.capacity(), change });
    }

    /// Goes on with the sweep.
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
            Change::Rebind(terms) => match terms(self.sessions[slot as usize].terms()) {
                Some(terms) => self.rebind_to(slot, terms),
                None => {
                    self.send_away(slot, &Close::ROUTE_REMOVED);
                }
            },
        }
    }

    fn rebind_to(&mut self, slot: Slot, terms: Arc<Terms>) {
        let session = &mut self.sessions[slot as usize];
        let before = session.encoding();
        session.set_terms(terms);
        if session.encoding() != before {
            self.change_run(slot);
        }
        if self.sessions.contains(slot as usize) {
            // The new terms may ask for something sooner.
            self.arm(slot);
        }
    }

    /// Has a session receive another encoding from now on.
    fn change_run(&mut self, slot: Slot) {
        // What is staged in the old run is written first.
        self.stage_streak();
        self.flush_session(slot);
        if let Some(session) = self.sessions.get_mut(slot as usize) {
            self.staging.leave(session.run());
            session.set_run(self.staging.join(session.encoding()));
        }
    }
}
