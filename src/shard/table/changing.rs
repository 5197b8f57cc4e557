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
                left = left.saturating_sub(1 + self.change(sweep.at as Slot, &mut sweep.change));
            }
            sweep.at += 1;
        }
        if sweep.at < sweep.end {
            self.sweeps.push_front(sweep);
        }
    }

    /// Returns how much more than other changes it was.
    fn change(&mut self, slot: Slot, change: &mut Change) -> usize {
        match change {
            Change::SendAway(close) => {
                self.send_away(slot, close);
            }
            Change::Rebind(terms) => match terms(self.sessions[slot as usize].terms()) {
                Some(terms) => return self.rebind_to(slot, terms),
                None => {
                    self.send_away(slot, &Close::ROUTE_REMOVED);
                }
            },
        }
        0
    }

    fn rebind_to(&mut self, slot: Slot, terms: Arc<Terms>) -> usize {
        // What was published before is encoded by the terms of then: all sessions with that encoding share it.
        self.stage_streak();
        let session = &mut self.sessions[slot as usize];
        let before = session.encoding();
        let allows_the_same = session.terms().speech.allows_the_same(&terms.speech);
        session.set_terms(terms);
        let is_revoked = session.is_revoked();
        if session.encoding() != before {
            // What is staged in the old run is written first.
            self.flush_session(slot);
        }
        let Some(session) = self.sessions.get_mut(slot as usize) else { return 0 };
        if session.encoding() != before {
            self.staging.leave(session.run());
            session.set_run(self.staging.join(session.encoding()));
        }
        if is_revoked {
            self.send_away(slot, &Close::TOKEN_REVOKED);
            return 0;
        }
        // The new terms may ask for something sooner.
        self.arm(slot);
        if allows_the_same { 0 } else { self.end_disallowed(slot) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Template;
    use crate::hub::{Kind, Message};
    use crate::session::Arrival;
    use crate::session::speech::{Plain, Speech};
    use crate::shard::testing::{Line, arrival};
    use crate::wire::Framing;

    #[test]
    fn a_session_with_new_terms_does_not_change_what_others_receive() {
        let mut table = Table::new(Arc::default());
        let route = arrival("on_message = \"ignore\"", "").terms;
        let named = |name: &str| {
            let speech = Speech::Plain(Plain::receiving(Some(Template::parse(name).unwrap())));
            Arc::new(Terms { speech, ..Terms::clone(&route) })
        };
        let lines = [Line::default(), Line::default()];
        for (line, path) in lines.iter().zip(["/changes", "/stays"]) {
            line.room.set(1000);
            let terms = Arc::new(Terms { path: path.to_owned(), ..Terms::clone(&named("x")) });
            let other = arrival("on_message = \"ignore\"", "");
            table.adopt(line.clone(), Arrival { framing: Framing::BareEventStream, terms, ..other });
        }
        let publish = |table: &mut Table<Line>| {
            table.publish(Arc::new(Message::new(route.hub_id, "all".into(), Kind::Text, "hi".into()).into()));
        };
        publish(&mut table);
        let changed = named("y");
        table.rebind(Box::new(move |terms| {
            Some(if terms.path == "/changes" { changed.clone() } else { terms.clone() })
        }));
        table.sweep_on();
        publish(&mut table);
        table.flush();
        let received = lines.map(|line| String::from_utf8(line.heard.take()).unwrap());
        assert_eq!(received[0], "event: x\ndata: hi\n\nevent: y\ndata: hi\n\n");
        assert_eq!(received[1], "event: x\ndata: hi\n\n".repeat(2));
    }
}
