//! Sessions on channels of hubs with presence: each that comes or goes is noted, for the owner of the channel.
//!
//! A session is on the channels that it is subscribed to, and on those with which it still catches up. A pattern is no channel.

use std::sync::Arc;

use super::Table;
use crate::hub::presence::Attendance;
use crate::hub::{Selector, Slot};
use crate::session::{Session, Socket};

/// A session that has come to a channel, or gone from it.
#[derive(Debug, PartialEq, Eq)]
pub struct Visit {
    /// The session on the channel.
    pub attendance: Attendance,
    /// Whether it has come.
    pub has_come: bool,
}

impl Visit {
    fn of<S: Socket>(session: &Session<S>, channel: Arc<str>, has_come: bool) -> Visit {
        let (terms, identity) = (session.terms(), session.identity().cloned());
        let attendance = Attendance::new(terms.hub_id, channel, identity, terms.hub.history.is_some());
        Visit { attendance, has_come }
    }
}

impl<S: Socket> Table<S> {
    /// A session is on all channels that it is subscribed to or catches up with.
    pub(super) fn note_coming(&mut self, slot: Slot) {
        let session = &self.sessions[slot as usize];
        if session.terms().hub.presence {
            let seated = session.seats().iter().map(|seat| self.channels.selector(seat));
            let catching_up = session.awaited().flat_map(|selectors| selectors.iter());
            let selectors: Vec<Selector> = seated.chain(catching_up).cloned().collect();
            self.note_coming_to(slot, &selectors);
        }
    }

    /// A session is on these channels.
    pub(super) fn note_coming_to(&mut self, slot: Slot, selectors: &[Selector]) {
        let session = &mut self.sessions[slot as usize];
        if !session.terms().hub.presence {
            return;
        }
        for Selector { text, .. } in selectors.iter().filter(|selector| !selector.is_pattern) {
            if session.come_to(text) {
                self.visits.push(Visit::of(session, text.clone(), true));
            }
        }
    }

    /// A session goes from a channel, if it is on it.
    pub(super) fn note_going_from(&mut self, slot: Slot, selector: &Selector) {
        let session = &mut self.sessions[slot as usize];
        if !selector.is_pattern && session.go_from(&selector.text) {
            self.visits.push(Visit::of(session, selector.text.clone(), false));
        }
    }

    /// A session goes from all channels.
    pub(super) fn note_going(&mut self, slot: Slot) {
        let session = &mut self.sessions[slot as usize];
        for channel in session.go_from_all() {
            self.visits.push(Visit::of(session, channel, false));
        }
    }

    /// What was noted since the last call, in order.
    pub fn take_visits(&mut self) -> Vec<Visit> {
        std::mem::take(&mut self.visits)
    }
}
