//! Which session is read next, and how much of it.
//!
//! A session is read when its socket becomes ready, for a slice of work ([`super::work`]). Where it has more to say than that, it waits
//! behind all others that have more. Sessions that have just become ready are read before those: a client that says little is heard at
//! once, whatever the others send. What was read of a session and does not fit its slice waits with it; where much waits so, reads
//! get smaller.

use std::collections::VecDeque;
use std::io;

use super::work::{self, Work};
use super::{BY_THE_CLIENT, SessionKey, Table};
use crate::config::OnMessage;
use crate::config::limits::{READ_BYTES_HELD, TURN_BYTES_MAX, UNFINISHED_BYTES_MAX, UNHEARD_BYTES_MAX};
use crate::hub::Slot;
use crate::session::{Phase, Socket};
use crate::wire::Close;

/// The sessions that wait to be read; each is in one of the queues at most, unless its place has changed hands.
#[derive(Debug, Default)]
pub(super) struct Readers {
    /// Their sockets have become ready.
    ready: VecDeque<Slot>,
    /// They had more to say than their slice.
    more: VecDeque<Slot>,
    /// They would publish, and there was no room for that.
    held_up: VecDeque<Slot>,
}

impl<S: Socket> Table<S> {
    /// The socket of a session has something to read. `ending`: its end was announced, so it is read until that.
    pub fn readable(&mut self, key: SessionKey, ending: bool) {
        let Some(session) = self.at(key) else { return };
        session.ending |= ending;
        if !std::mem::replace(&mut session.unread, true) {
            self.readers.ready.push_back(key.slot);
        }
    }

    /// Whether a session could be read now.
    pub(super) fn has_readers(&self) -> bool {
        let Readers { ready, more, held_up } = &self.readers;
        !self.still && !(ready.is_empty() && more.is_empty() && (held_up.is_empty() || !self.room))
    }

    /// Whether sessions wait only for room for what they publish.
    pub fn is_held_up(&self) -> bool {
        !self.still && !self.readers.held_up.is_empty()
    }

    /// Has a session read on when the others had their slice.
    pub(super) fn read_later(&mut self, slot: Slot) {
        let session = &mut self.sessions[slot as usize];
        if !std::mem::replace(&mut session.unread, true) {
            self.readers.more.push_back(slot);
        }
    }

    /// Reads sessions, as much as a turn may; `relay` is called after each, for what it published.
    pub fn read_sessions(&mut self, mut relay: impl FnMut(&mut Self)) {
        if self.still {
            return;
        }
        let (held_up, more) = (self.readers.held_up.len(), self.readers.more.len());
        let mut work = Work::of(self.pace.reading);
        // Sessions that were held up for lack of room are read first, so that a busy publisher cannot starve them.
        for _ in 0..held_up {
            if work.is_spent() || !self.room {
                break;
            }
            let slot = self.readers.held_up.pop_front();
            self.read_next(slot, &mut work, &mut relay);
        }
        while !work.is_spent() && !self.readers.ready.is_empty() {
            let slot = self.readers.ready.pop_front();
            self.read_next(slot, &mut work, &mut relay);
        }
        work.allow(self.pace.reading_on);
        for _ in 0..more {
            if work.is_spent() {
                break;
            }
            let slot = self.readers.more.pop_front();
            self.read_next(slot, &mut work, &mut relay);
        }
    }

    fn read_next(&mut self, slot: Option<Slot>, work: &mut Work, relay: &mut impl FnMut(&mut Self)) {
        // The place may have a new session by now: then this is one read for nothing.
        let Some(slot) = slot.filter(|slot| self.sessions.contains(*slot as usize)) else { return };
        self.read_slice(slot, work);
        relay(self);
    }

    /// Reads a session for a slice of work.
    pub(super) fn read_slice(&mut self, slot: Slot, work: &mut Work) {
        let session = &mut self.sessions[slot as usize];
        session.unread = false;
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut slice = Work::of(self.pace.slice);
        self.read_into(slot, &mut buffer, &mut slice);
        self.buffer = buffer;
        work.spend(slice.spent());
    }

    fn read_into(&mut self, slot: Slot, buffer: &mut [u8], slice: &mut Work) {
        let mut is_first = true;
        while !slice.is_spent() && !self.has_replied_enough() {
            let Some(session) = self.sessions.get_mut(slot as usize) else { return };
            match session.terms.route.on_message {
                // A client that does not take its own echoes is not read: TCP then tells it to wait.
                OnMessage::Echo if session.is_waiting() && session.phase == Phase::Open => {
                    session.paused = true;
                    return;
                }
                OnMessage::Broadcast if !self.room && is_first => {
                    session.unread = true;
                    return self.readers.held_up.push_back(slot);
                }
                OnMessage::Broadcast if !self.room || self.outgoing_bytes >= TURN_BYTES_MAX => break,
                _ => {}
            }
            is_first = false;
            if let Some(mut rest) = self.take_unheard(slot) {
                self.hear(slot, &mut rest, slice);
                continue;
            }
            let most = if self.unheard_bytes < UNHEARD_BYTES_MAX { buffer.len() } else { READ_BYTES_HELD };
            let session = &mut self.sessions[slot as usize];
            slice.spend(work::READ);
            match session.socket.try_read(&mut buffer[..most]) {
                Ok(0) => {
                    slice.spend(work::END);
                    return self.end(slot);
                }
                Ok(n) => {
                    let ending = session.ending;
                    session.note_heard(self.now);
                    slice.spend(work::bytes(n));
                    self.hear(slot, &mut buffer[..n], slice);
                    // Less than there was room for: that was all (epoll(7), edge-triggered use).
                    if n < most && !ending {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    slice.spend(work::END);
                    return self.remove(slot, &error.to_string());
                }
            }
        }
        if self.sessions.contains(slot as usize) {
            self.read_later(slot);
        }
    }

    /// What was read of a session before and not heard yet.
    fn take_unheard(&mut self, slot: Slot) -> Option<Box<[u8]>> {
        let session = &mut self.sessions[slot as usize];
        let rest = session.unheard.take()?;
        self.unheard_bytes -= rest.len();
        session.note_heard(self.now);
        Some(rest)
    }

    /// Keeps what was read of a session until it may be heard.
    pub(super) fn keep_unheard(&mut self, slot: Slot, rest: &[u8]) {
        self.unheard_bytes += rest.len();
        let session = &mut self.sessions[slot as usize];
        session.unheard = (!rest.is_empty()).then(|| rest.into());
        if session.terms.route.on_message == OnMessage::Echo && session.is_waiting() && session.phase == Phase::Open {
            session.paused = true;
        } else {
            self.read_later(slot);
        }
    }

    /// A session holds so much of a message that is not finished: sets its deadline, and looks at the sum where it holds more than
    /// `before`.
    pub(super) fn note_unfinished(&mut self, slot: Slot, before: usize) {
        let (now, session) = (self.now, &mut self.sessions[slot as usize]);
        let held = session.codec.held_bytes();
        let Some(deadline) = session.message_deadline(now) else { return };
        if session.due <= now || session.due > deadline {
            self.set_timer(slot, deadline.max(now + 1));
        }
        if held > before && self.unfinished_bytes > UNFINISHED_BYTES_MAX {
            self.fail(slot, &Close::TOO_MUCH_UNFINISHED);
        }
    }

    /// The client says nothing more. What it is being told still goes out, if it heard or said goodbye: it may have ended only its
    /// own side.
    fn end(&mut self, slot: Slot) {
        let session = &mut self.sessions[slot as usize];
        match session.phase {
            Phase::Closing | Phase::Leaving | Phase::Failed if session.has_to_say() => session.phase = Phase::Leaving,
            Phase::Open => self.remove(slot, "by the client, without goodbye"),
            Phase::Closing | Phase::Leaving | Phase::Failed => self.remove(slot, BY_THE_CLIENT),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::IoSlice;
    use std::rc::Rc;
    use std::sync::Arc;

    use super::*;
    use crate::shard::testing::{Line, arrival};

    /// A client that sends the head of a message of 64 MiB, so many bytes of it, and no more.
    struct Part {
        head: &'static [u8],
        left: usize,
        heard: Rc<RefCell<Vec<u8>>>,
    }

    impl Socket for Part {
        fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let head = std::mem::take(&mut self.head);
            buffer[..head.len()].copy_from_slice(head);
            let rest = self.left.min(buffer.len() - head.len());
            buffer[head.len()..head.len() + rest].fill(7);
            self.left -= rest;
            if head.len() + rest == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(head.len() + rest) }
        }

        fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            self.heard.borrow_mut().extend(slices.iter().flat_map(|slice| slice.iter()));
            Ok(slices.iter().map(|slice| slice.len()).sum())
        }

        fn shutdown_write(&mut self) {}

        fn peer(&self) -> String {
            String::new()
        }
    }

    #[test]
    fn what_is_unfinished_has_a_bound_in_sum() {
        const HEAD: &[u8] = &[0x82, 0xff, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0];
        const PART: usize = 60 << 20;
        let mut table = Table::new(Arc::default());
        let mut codes = Vec::new();
        for _ in 0..UNFINISHED_BYTES_MAX / PART + 2 {
            let heard = Rc::<RefCell<Vec<u8>>>::default();
            let hub = "message_max = \"64MiB\"\nqueue_max = \"64MiB\"";
            let part = Part { head: HEAD, left: PART, heard: heard.clone() };
            let key = table.adopt(part, arrival("on_message = \"ignore\"", hub));
            table.readable(key, false);
            while table.has_work() {
                table.read_sessions(|_| ());
            }
            table.flush();
            codes.push(heard.borrow().get(2..4).map(|code| u16::from_be_bytes([code[0], code[1]])));
            assert!(table.unfinished_bytes <= UNFINISHED_BYTES_MAX, "{}", table.unfinished_bytes);
        }
        let fitting = codes.iter().position(Option::is_some).unwrap();
        assert!(fitting >= UNFINISHED_BYTES_MAX / (64 << 20) - 1, "{codes:?}");
        assert!(codes[fitting..].iter().all(|code| *code == Some(1013)), "{codes:?}");
    }

    #[test]
    fn what_is_read_and_not_heard_has_a_bound_in_sum() {
        let mut table = Table::new(Arc::default());
        let count = 4 * UNHEARD_BYTES_MAX / crate::config::limits::READ_BYTES;
        for _ in 0..count {
            let line = Line::default();
            line.says.borrow_mut().extend([0x82, 0x80, 0, 0, 0, 0].repeat(20_000));
            let key = table.adopt(line, arrival("on_message = \"ignore\"", ""));
            table.readable(key, false);
        }
        let mut most = 0;
        while table.has_work() {
            table.read_sessions(|_| ());
            most = most.max(table.unheard_bytes);
        }
        assert!(most > UNHEARD_BYTES_MAX / 2, "there was something to bound: {most}");
        assert!(most <= UNHEARD_BYTES_MAX + count * READ_BYTES_HELD, "{most}");
        assert_eq!((table.unheard_bytes, table.unfinished_bytes), (0, 0));
    }
}
