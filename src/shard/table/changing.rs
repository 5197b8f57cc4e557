//! What the operator changes: terms of running sessions, and their end.

use std::sync::Arc;

use super::{SessionKey, Table};
use crate::hub::Slot;
use crate::session::{Phase, Seconds, Session, Socket, Terms};
use crate::wire::Close;

impl<S: Socket> Table<S> {
    /// Ends all sessions because the server ends.
    pub fn drain(&mut self, close: &Close) {
        self.end_by(close);
        self.close_where(close, |_| true);
    }

    /// The server ends: whoever arrives now is told so.
    pub fn end_by(&mut self, close: &Close) {
        self.ending = Some(close.clone());
    }

    /// Says goodbye to a session, if it is still open.
    pub fn send_away(&mut self, key: SessionKey, close: &Close) {
        if self.at(key).is_some_and(|session| session.phase == Phase::Open) {
            self.close(key.slot, close);
        }
    }

    /// All sessions.
    pub fn keys(&self) -> impl Iterator<Item = SessionKey> {
        self.sessions.iter().map(|(slot, session)| SessionKey { slot: slot as Slot, generation: session.generation })
    }

    /// Gives sessions the terms their route has now; those whose route is gone are closed.
    pub fn rebind(&mut self, terms: impl Fn(&Terms) -> Option<Arc<Terms>>) {
        let mut timers = Vec::new();
        for (slot, session) in &mut self.sessions {
            if let Some(terms) = terms(&session.terms) {
                let before = std::mem::replace(&mut session.terms, terms);
                let ping = session.terms.hub.ping.filter(|_| session.dialect.ping().is_some());
                // Who was never pinged has no timer, and one set for another pace may be hours away.
                if let Some(ping) = ping.filter(|ping| before.hub.ping != Some(*ping) && session.phase == Phase::Open) {
                    timers.push((slot as Slot, self.now + ping.as_secs() as Seconds));
                }
            }
        }
        timers.into_iter().for_each(|(slot, due)| self.set_timer(slot, due));
        self.close_where(&Close::ROUTE_REMOVED, |session| terms(&session.terms).is_none());
    }

    fn close_where(&mut self, close: &Close, chosen: impl Fn(&Session<S>) -> bool) {
        let open = self.sessions.iter().filter(|(_, session)| session.phase == Phase::Open && chosen(session));
        let slots: Vec<_> = open.map(|(slot, _)| slot as Slot).collect();
        for slot in slots {
            self.close(slot, close);
        }
    }
}
