//! Which session is read next, and how much of it.
//!
//! A session is read when its socket becomes ready, for a slice of work. If it has more, it waits behind all others that have more.
//! Sessions that have just become ready are read before those, so a client that sends little is heard at once, whatever the others
//! send. Bytes that were read and do not fit the slice are kept with the session. Where many bytes are kept, reads get smaller.

use std::collections::VecDeque;
use std::io;

use super::{SessionKey, Table};
use crate::config::limits::{READ_BYTES_HELD, TURN_BYTES_MAX, UNFINISHED_BYTES_MAX, UNHEARD_BYTES_MAX};
use crate::hub::Slot;
use crate::session::work::Work;
use crate::session::{Reading, Socket};
use crate::wire::Close;

/// The sessions that wait to be read. Each is in one queue at most, unless its place has passed to another session.
#[derive(Debug, Default)]
pub(super) struct Readers {
    /// Their sockets have become ready.
    ready: VecDeque<Slot>,
    /// They had more than their slice.
    more: VecDeque<Slot>,
    /// They would publish, and the lanes were full.
    await_lanes: VecDeque<Slot>,
    /// The lanes are full: sessions that would publish are not read.
    lanes_are_full: bool,
    /// No session is read, because all are about to be handed over.
    is_paused: bool,
}

impl Readers {
    /// Whether a session could be read now.
    pub fn has_some(&self) -> bool {
        let can_publish = !self.await_lanes.is_empty() && !self.lanes_are_full;
        !self.is_paused && (can_publish || !self.ready.is_empty() || !self.more.is_empty())
    }

    /// Whether no session is read.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }
}

impl<S: Socket> Table<S> {
    /// The socket of a session has something to read. `ending`: the client's end was reported, so it is read up to that.
    pub fn readable(&mut self, key: SessionKey, ending: bool) {
        let Some(session) = self.at(key) else { return };
        if session.became_ready(ending) {
            self.readers.ready.push_back(key.slot);
        }
    }

    /// Sets whether messages of sessions find room in the lanes.
    pub fn set_room(&mut self, room: bool) {
        self.readers.lanes_are_full = !room;
    }

    /// Stops reading, or goes on. Sessions that become ready meanwhile are read afterwards.
    pub fn pause_reading(&mut self, paused: bool) {
        self.readers.is_paused = paused;
    }

    /// Whether sessions wait only for room in the lanes.
    pub fn is_held_up(&self) -> bool {
        !self.readers.is_paused && !self.readers.await_lanes.is_empty()
    }

    /// Has a session read on when all others had their slice.
    pub(super) fn read_later(&mut self, slot: Slot) {
        if self.sessions[slot as usize].read_later() {
            self.readers.more.push_back(slot);
        }
    }

    /// Has a session read on that holds bytes which were not decoded yet.
    pub(super) fn read_rest_later(&mut self, slot: Slot) {
        if self.sessions[slot as usize].read_rest_later() {
            self.readers.more.push_back(slot);
        }
    }

    /// Reads sessions, as much as a turn may. `relay` is called after each, for what it published.
    pub fn read_sessions(&mut self, mut relay: impl FnMut(&mut Self)) {
        if self.readers.is_paused {
            return;
        }
        let (await_lanes, more) = (self.readers.await_lanes.len(), self.readers.more.len());
        let mut work = Work::of(self.pace.reading);
        // Sessions that waited for room in the lanes are read first, so that a busy publisher cannot starve them.
        for _ in 0..await_lanes {
            if work.is_spent() || self.readers.lanes_are_full {
                break;
            }
            let slot = self.readers.await_lanes.pop_front();
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
        // The place may have another session by now. Then it is read once without effect.
        let Some(slot) = slot.filter(|slot| self.sessions.contains(*slot as usize)) else { return };
        self.read_slice(slot, work);
        relay(self);
    }

    /// Reads a session for a slice of work.
    pub(super) fn read_slice(&mut self, slot: Slot, work: &mut Work) {
        self.sessions[slot as usize].begin_reading();
        let mut slice = Work::of(self.pace.slice);
        let mut buffer = std::mem::take(&mut self.buffer);
        self.read_into(slot, &mut buffer, &mut slice);
        self.buffer = buffer;
        work.spend(slice.spent());
    }

    fn read_into(&mut self, slot: Slot, buffer: &mut [u8], slice: &mut Work) {
        let mut is_first = true;
        while !slice.is_spent() && self.staging.replies_left() > 0 {
            let Some(session) = self.sessions.get_mut(slot as usize) else { return };
            let can_publish = !self.readers.lanes_are_full && (is_first || self.published.cost() < TURN_BYTES_MAX);
            match session.obstacle(can_publish) {
                None => {}
                // This turn has published enough: it is read on in the next one.
                Some(Reading::AwaitsLanes) if !is_first => break,
                Some(obstacle) => {
                    session.wait_for(obstacle);
                    if obstacle == Reading::AwaitsLanes {
                        self.readers.await_lanes.push_back(slot);
                    }
                    return;
                }
            }
            is_first = false;
            let most = if self.held.unheard < UNHEARD_BYTES_MAX { buffer.len() } else { READ_BYTES_HELD };
            let rest = self.act(slot, slice, |session, turn| session.take_unheard(&turn.acts));
            if let Some(mut rest) = rest {
                self.hear(slot, &mut rest, slice);
                continue;
            }
            match self.act(slot, slice, |session, turn| session.read(&mut buffer[..most], &mut turn.acts)) {
                Ok(0) => return self.hear_end(slot),
                Ok(count) => {
                    let is_ending = self.sessions[slot as usize].is_ending();
                    self.hear(slot, &mut buffer[..count], slice);
                    // Less than there was room for: nothing more is there (epoll(7), edge-triggered use).
                    let has_ended =
                        self.sessions.get(slot as usize).is_some_and(|session| session.socket().has_ended());
                    if count < most && !is_ending && !has_ended {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.remove(slot, &error.to_string()),
            }
        }
        if self.sessions.contains(slot as usize) {
            self.read_later(slot);
        }
    }

    /// Decodes bytes of a session.
    pub(super) fn hear(&mut self, slot: Slot, bytes: &mut [u8], slice: &mut Work) {
        let before = self.sessions[slot as usize].held().unfinished;
        self.act(slot, slice, |session, turn| session.hear(bytes, turn));
        self.read_rest_later(slot);
        if self.sessions[slot as usize].held().unfinished > before && self.held.unfinished > UNFINISHED_BYTES_MAX {
            self.act(slot, slice, |session, turn| session.fail(&Close::TOO_MUCH_UNFINISHED, &mut turn.acts));
        }
    }

    fn hear_end(&mut self, slot: Slot) {
        let now = self.now;
        match self.sessions[slot as usize].hear_end(now) {
            Some(why) => self.remove(slot, why),
            None => {
                self.tell_position(slot);
                self.arm(slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::IoSlice;
    use std::rc::Rc;
    use std::sync::Arc;

    use super::super::Pace;
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
    fn unfinished_messages_have_a_limit_over_all_sessions() {
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
            assert!(table.held.unfinished <= UNFINISHED_BYTES_MAX, "{}", table.held.unfinished);
        }
        let fitting = codes.iter().position(Option::is_some).unwrap();
        assert!(fitting >= UNFINISHED_BYTES_MAX / (64 << 20) - 1, "{codes:?}");
        assert!(codes[fitting..].iter().all(|code| *code == Some(1013)), "{codes:?}");
    }

    #[test]
    fn bytes_that_are_not_decoded_yet_have_a_limit_over_all_sessions() {
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
            most = most.max(table.held.unheard);
        }
        assert!(most > UNHEARD_BYTES_MAX / 2, "the limit was approached: {most}");
        assert!(most <= UNHEARD_BYTES_MAX + count * READ_BYTES_HELD, "{most}");
        assert_eq!((table.held.unheard, table.held.unfinished), (0, 0));
    }

    #[test]
    fn a_session_that_publishes_large_messages_is_in_one_queue_once() {
        const LARGE: usize = 2 << 20;
        let mut table = Table::new(Arc::default());
        let line = Line::default();
        for _ in 0..3 {
            // A binary message whose mask changes nothing.
            let head = [&[0x82, 0xff][..], &(LARGE as u64).to_be_bytes(), &[0; 4]].concat();
            line.says.borrow_mut().extend([head, vec![7; LARGE]].concat());
        }
        let key = table
            .adopt(line.clone(), arrival("on_message = \"broadcast\"", "message_max = \"4MiB\"\nqueue_max = \"8MiB\""));
        // A slice is so long that a message ends within it, and the next one begins.
        table.set_pace(Pace { slice: u32::MAX, reading: u32::MAX, ..Pace::default() });
        table.readable(key, false);
        let mut published = 0;
        while table.has_work() {
            table.read_sessions(|table| published += table.take_published().count());
            let Readers { ready, more, await_lanes, .. } = &table.readers;
            let queued = ready.len() + more.len() + await_lanes.len();
            assert!(queued <= 1, "in {queued} places after {published} messages");
        }
        assert_eq!(published, 3);
    }
}
