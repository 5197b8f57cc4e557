//! Writing what is staged, some of it in each turn.
//!
//! A publication to many subscribers takes milliseconds to write. It is written in slices, and between two of them the shard looks
//! at what came meanwhile: so a client gets its answer while others still get their publication. What is staged stays in the runs
//! until all of it is written; no further publication is staged before that, so there is never more than a turn's worth.

use super::work::{self, Work};
use super::{BY_THE_CLIENT, SessionKey, Table};
use crate::config::limits::{REPLIES_BYTES_MAX, STAGED_PER_TURN_MAX, TURN_BYTES_MAX};
use crate::hub::Slot;
use crate::session::run::Run;
use crate::session::{Flushed, Phase, Socket};
use crate::wire::Close;

impl<S: Socket> Table<S> {
    /// Whether enough is staged to write it before going on.
    pub fn is_turn_full(&self) -> bool {
        self.staged >= STAGED_PER_TURN_MAX
            || self.streak_bytes + self.runs.iter().map(Run::cost).sum::<usize>() >= TURN_BYTES_MAX
    }

    /// Whether a publication is still being written: others wait.
    pub fn is_flushing(&self) -> bool {
        self.is_flushing
    }

    /// Whether so much is staged in answer that nothing more may be said for now.
    pub(super) fn has_replied_enough(&self) -> bool {
        self.answers_bytes >= REPLIES_BYTES_MAX
    }

    /// Writes to every session what is staged for it.
    pub fn flush(&mut self) {
        self.flush_some();
        while self.is_flushing {
            self.flush_some();
        }
    }

    /// Ends a turn: writes answers, and then what was published, as much as a turn may.
    pub fn flush_some(&mut self) {
        let mut work = Work::of(self.pace.flushing);
        self.stage_streak();
        let mut answered = std::mem::take(&mut self.answered);
        for slot in answered.drain(..) {
            work.spend(self.flush_session(slot));
        }
        self.answered = answered;
        while !work.is_spent()
            && let Some(slot) = self.dirty.pop_front()
        {
            work.spend(self.flush_session(slot));
        }
        self.is_flushing = !self.dirty.is_empty();
        if !self.is_flushing {
            self.runs.iter_mut().for_each(Run::clear);
            (self.answers_bytes, self.staged) = (0, 0);
        }
    }

    /// Writes what is staged for one session; the work it was.
    fn flush_session(&mut self, slot: Slot) -> u32 {
        let Some(session) = self.sessions.get_mut(slot as usize) else { return 0 };
        let run = &self.runs[session.framing as usize];
        let bytes = run.bytes_staged(session.staged());
        let work = if bytes == 0 { work::FRAME } else { work::WRITE.saturating_add(work::bytes(bytes)) };
        match session.flush(run, self.now) {
            Ok(Flushed::Whole) => self.is_written(slot),
            Ok(Flushed::Waiting(dropped)) => self.counters.dropped.add(dropped),
            Ok(Flushed::TooSlow) => self.disconnect(slot, &Close::TOO_SLOW),
            Err(error) => self.remove(slot, &error.to_string()),
        }
        work
    }

    /// The socket of a session takes more.
    pub fn writable(&mut self, key: SessionKey) {
        let now = self.now;
        let Some(session) = self.at(key) else { return };
        let waiting = session.waiting_bytes();
        if !session.is_waiting() {
            return;
        }
        let written = session.write_waiting();
        if session.waiting_bytes() < waiting {
            // A client that takes what waits for it is there, though our ping may be far behind that, or its pong behind what is not read.
            session.note_heard(now);
        }
        match written {
            Ok(true) => self.is_written(key.slot),
            Ok(false) => {}
            Err(error) => self.remove(key.slot, &error.to_string()),
        }
    }

    /// All that was to be said to a session is with the kernel.
    fn is_written(&mut self, slot: Slot) {
        let session = &mut self.sessions[slot as usize];
        match session.phase {
            Phase::Leaving => self.remove(slot, BY_THE_CLIENT),
            Phase::Failed => session.socket.shutdown_write(),
            Phase::Open | Phase::Closing if std::mem::take(&mut session.paused) => self.read_later(slot),
            Phase::Open | Phase::Closing => {}
        }
    }
}
