//! Sessions on channels of hubs with presence: each that comes or goes is noted, for the owner of the channel.
//!
//! A session is on the channels that it is subscribed to, and on those with which it still catches up. A pattern is no channel.

use std::sync::Arc;

use super::Table;
use crate::hub::presence::Attendance;
use crate::hub::{Selector, Slot};
use crate::session::Socket;

/// A session that has come to a channel, or gone from it.
#[derive(Debug, PartialEq, Eq)]
pub struct Visit {
    /// The session on the channel.
    pub attendance: Attendance,
    /// Whether it has come.
    pub has_come: bool,
}

impl<S: Socket> Table<S> {
    /// Notes that a session has come to all its channels, or is about to go.
    pub(super) fn note_presence(&mut self, slot: Slot, has_come: bool) {
        let session = &self.sessions[slot as usize];
        if !session.terms().hub.presence {
            return;
        }
        let seated = session.seats().iter().map(|seat| self.channels.selector(seat));
        let catching_up = session.catching_up().flat_map(|(selectors, _)| selectors.iter());
        let names: Vec<Arc<str>> = names(seated.chain(catching_up)).collect();
        self.note_presence_on(slot, names.into_iter(), has_come);
    }

    /// The same for some of its channels.
    pub(super) fn note_presence_on(&mut self, slot: Slot, channels: impl Iterator<Item = Arc<str>>, has_come: bool) {
        let session = &self.sessions[slot as usize];
        let (terms, identity) = (session.terms(), session.identity());
        if terms.hub.presence {
            let has_history = terms.hub.history.is_some();
            let visits = channels.map(|channel| {
                let attendance = Attendance::new(terms.hub_id, channel, identity.cloned(), has_history);
                Visit { attendance, has_come }
            });
            self.visits.extend(visits);
        }
    }

    /// What was noted since the last call, in order.
    pub fn take_visits(&mut self) -> Vec<Visit> {
        std::mem::take(&mut self.visits)
    }
}

/// The channels among selectors.
pub(super) fn names<'s>(selectors: impl Iterator<Item = &'s Selector>) -> impl Iterator<Item = Arc<str>> {
    selectors.filter(|selector| !selector.is_pattern).map(|selector| selector.text.clone())
}
