//! Writing what is staged, some of it in each turn.
//!
//! A publication to many subscribers takes milliseconds to write. It is written in slices, and between two of them the shard looks
//! at what came meanwhile, so a client gets its answer while others still get their publication. What is staged stays in the runs
//! until all of it is written. No more publications are taken before that, so there is never more than one turn's worth.

use super::{SessionKey, Table};
use crate::hub::Slot;
use crate::session::ending::BY_THE_CLIENT;
use crate::session::work::{self, Work};
use crate::session::{Flushed, Socket, Written};
use crate::wire::Close;

impl<S: Socket> Table<S> {
    /// Whether enough is staged to write it before more is taken.
    pub fn is_turn_full(&self) -> bool {
        self.staging.is_full()
    }

    /// Whether a publication is still being written: others wait.
    pub fn is_flushing(&self) -> bool {
        self.staging.is_flushing
    }

    /// Writes to every session what is staged for it.
    pub fn flush(&mut self) {
        self.flush_some();
        while self.is_flushing() {
            self.flush_some();
        }
    }

    /// Ends a turn: writes replies, then publications, as much as a turn may.
    pub fn flush_some(&mut self) {
        let mut work = Work::of(self.pace.flushing);
        self.stage_streak();
        while let Some(slot) = self.staging.answered.pop_front() {
            work.spend(self.flush_session(slot));
        }
        while !work.is_spent()
            && let Some(slot) = self.staging.dirty.pop_front()
        {
            work.spend(self.flush_session(slot));
        }
        self.staging.is_flushing = !self.staging.dirty.is_empty();
        if !self.staging.is_flushing {
            self.staging.clear();
        }
    }

    /// Writes what is staged for one session. The work it was.
    pub(super) fn flush_session(&mut self, slot: Slot) -> u32 {
        let Some(session) = self.sessions.get_mut(slot as usize) else { return 0 };
        let run = self.staging.run(session.run());
        let bytes = run.bytes_staged(session.staged());
        let work = if bytes == 0 { work::FRAME } else { work::WRITE.saturating_add(work::bytes(bytes)) };
        match session.flush(run, self.now) {
            Ok(Flushed::Whole) => {
                let next = session.after_writing();
                // Almost always nothing follows. A session that catches up has asked already: nothing waited.
                if next != Written::Stay {
                    self.go_on(slot, next);
                }
            }
            Ok(Flushed::Waiting(dropped)) => self.counters.dropped.add(dropped),
            Ok(Flushed::TooSlow) => self.act(slot, &mut Work::default(), |session, turn| {
                session.disconnect(&Close::TOO_SLOW, &mut turn.acts);
            }),
            Err(error) => self.remove(slot, &error.to_string()),
        }
        work
    }

    /// The socket of a session accepts more.
    pub fn writable(&mut self, key: SessionKey) {
        let now = self.now;
        let Some(session) = self.at(key).filter(|session| session.is_waiting()) else { return };
        match session.write_waiting(now) {
            Ok(true) => {
                let next = session.after_writing();
                self.go_on(key.slot, next);
            }
            Ok(false) if session.may_read_on() => self.read_later(key.slot),
            Ok(false) => {}
            Err(error) => self.remove(key.slot, &error.to_string()),
        }
    }

    /// Does what follows for a session that has written everything.
    fn go_on(&mut self, slot: Slot, next: Written) {
        match next {
            Written::Stay => {}
            Written::ReadOn => self.read_later(slot),
            Written::End => return self.remove(slot, BY_THE_CLIENT),
        }
        if self.sessions[slot as usize].is_catching_up() {
            self.ask_later(slot);
        }
    }
}
