//! Sessions that are written for another process, and taken up there.
//!
//! While reading is paused, what clients send waits in the kernel, and nothing new is published. Everything else goes on, so that
//! what was published before reaches all subscribers.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{SessionKey, Table};
use crate::hub::{Membership, Seat, Selector, Slot};
use crate::session::record::Record;
use crate::session::{Phase, Session, Socket, Terms};
use crate::wire::Close;

impl<S: Socket> Table<S> {
    /// Every session with its place and its socket, in opening order. Nothing may be staged.
    pub fn records(&self) -> impl Iterator<Item = (SessionKey, Record, &S)> {
        let mut sessions: Vec<(usize, &Session<S>)> = self.sessions.iter().collect();
        // Generations rise. They may wrap once in four thousand million sessions, which costs the order and no session.
        sessions.sort_unstable_by_key(|(_, session)| session.generation());
        sessions.into_iter().map(|(slot, session)| {
            let selectors = |seats: &[Seat]| -> SmallVec<[Selector; 1]> {
                seats.iter().map(|seat| self.channels.selector(seat).clone()).collect()
            };
            let key = SessionKey { slot: slot as Slot, generation: session.generation() };
            let position = self.frontier(session.terms().hub_id);
            let record = session.record(&selectors(session.seats()), &selectors(session.wished_seats()), position);
            (key, record, session.socket())
        })
    }

    /// Goes on with a session that was written down. Where its route has no `terms` any more, it is told so and closed.
    pub fn take_up(
        &mut self,
        socket: S,
        record: Record,
        terms: Option<Arc<Terms>>,
        membership: Membership,
    ) -> SessionKey {
        let is_gone = terms.is_none();
        let terms = terms.unwrap_or_else(|| Arc::new(Terms::of_no_route(&record)));
        let (selectors, wished) = if is_gone { Default::default() } else { record.selectors() };
        let phase = record.phase;
        let session = Session::resume(socket, record, terms, membership, self.next_generation(), self.now);
        let key = self.seat(session, &selectors);
        if !wished.is_empty() {
            let seats = self.subscribe(self.sessions[key.slot as usize].terms().hub_id, &wished, key.slot);
            self.sessions[key.slot as usize].add_wished_seats(seats);
            self.note_coming_to(key.slot, &wished);
            self.counters.channels.set(self.channels.len() as u64);
        }
        // The configuration may be another one.
        self.end_disallowed(key.slot);
        self.ask_later(key.slot);
        self.read_rest_later(key.slot);
        match phase {
            Phase::Open if is_gone => self.close(key.slot, &Close::ROUTE_REMOVED),
            Phase::Open if self.at(key).is_some_and(|session| session.is_revoked()) => {
                self.close(key.slot, &Close::TOKEN_REVOKED);
            }
            Phase::Open | Phase::Closing => {}
            // It may have nothing more to write. That is seen when the turn is flushed.
            Phase::Leaving | Phase::HalfClosed => self.staging.has_reply(key.slot),
        }
        key
    }

    /// Forgets a session that another process holds. Its client notices nothing.
    pub fn forget(&mut self, key: SessionKey) {
        if self.at(key).is_some() {
            self.take_out(key.slot);
        }
    }
}
