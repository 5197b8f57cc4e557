//! Sessions written down for another process, and taken up there.
//!
//! While a table is still nobody is read: what clients say waits in the kernel, and nothing new is published. Everything else goes
//! on, so that what was published before reaches everybody.

use std::sync::Arc;

use super::{SessionKey, Table};
use crate::config::limits::CLOSE_TIMEOUT;
use crate::hub::{Membership, Slot};
use crate::session::record::Record;
use crate::session::{Phase, Seconds, Session, Socket, Terms};
use crate::wire::Close;

impl<S: Socket> Table<S> {
    /// Whether nobody is to be read for now. Those who have something to say meanwhile are read afterwards.
    pub fn set_still(&mut self, still: bool) {
        self.still = still;
    }

    /// Every session, with its place and its socket, in opening order. Nothing may be staged.
    pub fn records(&self) -> impl Iterator<Item = (SessionKey, Record, &S)> {
        let mut sessions: Vec<(usize, &Session<S>)> = self.sessions.iter().collect();
        // Generations rise; that they may wrap once in four thousand million sessions costs an order, not a session.
        sessions.sort_unstable_by_key(|(_, session)| session.generation);
        sessions.into_iter().map(|(slot, session)| {
            let channels = session.seats.iter().map(|seat| self.channels.name(seat).clone()).collect();
            let key = SessionKey { slot: slot as Slot, generation: session.generation };
            (key, session.record(channels), &session.socket)
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
        self.generation = self.generation.wrapping_add(1).max(1);
        let is_gone = terms.is_none();
        let terms = terms.unwrap_or_else(|| Arc::new(Terms::of_no_route(&record)));
        let channels = if is_gone { Default::default() } else { record.channels.clone() };
        let due = record.due;
        let mut session = Session::resume(socket, record, terms, membership, self.generation, self.now);
        let slot = self.sessions.vacant_key() as Slot;
        let hub = session.terms.hub_id;
        session.seats = channels.iter().map(|name| self.channels.subscribe(hub, name, slot)).collect();
        let (key, phase) = (SessionKey { slot, generation: session.generation }, session.phase);
        let ping = session.terms.hub.ping.filter(|_| session.framing.ping().is_some());
        let patience = session.terms.hub.pong_timeout;
        let (was_pinged, has_more) = (session.pinged.is_some(), session.unheard.is_some());
        self.unheard_bytes += session.unheard.as_ref().map_or(0, |rest| rest.len());
        self.sessions.insert(session);
        self.counters.sessions.add(1);
        self.counters.channels.set(self.channels.len() as u64);
        // What its timer waits for may take longer now than it did, or be due at once, but not for ever.
        let longest = match phase {
            Phase::Open => ping.map(|ping| if was_pinged { ping.max(patience) } else { ping }),
            Phase::Closing | Phase::Leaving | Phase::Failed => Some(CLOSE_TIMEOUT),
        };
        if let Some(longest) = longest {
            let latest = self.now + longest.as_secs() as Seconds;
            self.set_timer(slot, if due == 0 { latest } else { due.min(latest) });
        }
        if has_more {
            self.read_later(slot);
        }
        match phase {
            Phase::Open if is_gone => self.close(slot, &Close::ROUTE_REMOVED),
            Phase::Open | Phase::Closing => {}
            // It may have nothing more to say: seen at the end of the turn.
            Phase::Leaving | Phase::Failed => self.answered.push(slot),
        }
        key
    }

    /// Forgets a session that another process holds: its client notices nothing.
    pub fn forget(&mut self, key: SessionKey) {
        if self.at(key).is_none() {
            return;
        }
        self.take_out(key.slot);
    }
}
