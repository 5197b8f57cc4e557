//! The bounded queue of one session: frames that the kernel did not accept, and what happens when the queue is full.
//!
//! It exists only while frames wait. The bytes of a frame are shared with all other queues that hold it. A partly written frame is
//! never dropped, since the client could not decode the rest of the stream. A page of history, an answer that a client waits for and
//! the head of a response are never dropped either, and count to no limit: their number is limited where they are made. If the hub has a `gap_notice`, a notice replaces
//! dropped messages. It counts them until it is written.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::Bytes;

use super::run::Waiting;
use super::{Seconds, Socket};
use crate::config::{Hub, WhenSlow};
use crate::hub::{Kind, Topic};
use crate::wire::Framing;

/// The time of a frame that is never dropped and is no message: the head of a response, a page of history, an answer, a comment, or the
/// last frame of a session.
pub(super) const NEVER_DROPPED: Seconds = Seconds::MAX;
/// The maximum number of slices in one write. The kernel accepts 1024.
const SLICES_MAX: usize = 64;

/// The queue of one session.
#[derive(Debug, Default)]
pub struct Outbox {
    entries: VecDeque<Entry>,
    /// How many bytes of the first entry are written.
    written: usize,
    bytes: usize,
    /// How many entries are never dropped, and their bytes, whether written or not.
    for_good: usize,
    for_good_bytes: usize,
}

/// An entry of the queue.
#[derive(Debug)]
pub(super) enum Entry {
    /// A message, or a reply.
    Frame { bytes: Bytes, topic: Option<Topic>, since: Seconds },
    /// This many messages were dropped here.
    Gap(u64),
    /// A gap as a frame, while it is being written.
    Notice { bytes: Bytes, dropped: u64 },
}

/// What happened to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// It waits, and this many messages were dropped for it; or it was dropped itself, and is counted here.
    Dropped(u64),
    /// The queue is full, and the hub disconnects slow clients.
    Overflow,
}

impl Outbox {
    /// A queue with these entries. `written` bytes of the first one are written.
    pub(super) fn with(entries: VecDeque<Entry>, written: usize) -> Outbox {
        let mut outbox = Outbox { entries, written, ..Outbox::default() };
        outbox.count_anew();
        outbox
    }

    /// The entries, the oldest first.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// How many bytes of the first entry are written.
    pub(super) fn written(&self) -> usize {
        self.written
    }

    /// Queues a frame within the hub's limits.
    pub fn push(&mut self, frame: Waiting, hub: &Hub, now: Seconds) -> Queued {
        let mut dropped = 0;
        if hub.when_slow == WhenSlow::Conflate && self.supersede(frame.topic) {
            self.note_gap(self.first_droppable(), 1, hub);
            dropped += 1;
        }
        while !self.has_room(frame.bytes.len(), hub) || self.is_overdue(hub, now) {
            match hub.when_slow {
                WhenSlow::Disconnect => return Queued::Overflow,
                WhenSlow::DropOldest | WhenSlow::Conflate if self.drop_oldest() => {
                    self.note_gap(self.first_droppable(), 1, hub);
                    dropped += 1;
                }
                WhenSlow::DropNewest if self.has_room(frame.bytes.len(), hub) => {
                    // There is room, but the oldest message is too old to be useful: drop it.
                    self.drop_oldest();
                    self.note_gap(self.first_droppable(), 1, hub);
                    dropped += 1;
                }
                _ => {
                    self.note_gap(self.entries.len(), 1, hub);
                    return Queued::Dropped(dropped + 1);
                }
            }
        }
        self.push_anyway(frame, now);
        Queued::Dropped(dropped)
    }

    /// Queues a frame that is never dropped.
    pub fn push_for_good(&mut self, bytes: Bytes) {
        self.for_good += 1;
        self.for_good_bytes += bytes.len();
        self.push_anyway(Waiting { bytes, topic: None, written: 0 }, NEVER_DROPPED);
    }

    /// Queues a frame without regard to the limits: a partly written one, or one that must be sent.
    pub fn push_anyway(&mut self, frame: Waiting, now: Seconds) {
        self.bytes += frame.bytes.len();
        self.entries.push_back(Entry::Frame { bytes: frame.bytes, topic: frame.topic, since: now });
    }

    /// Notes that the first `written` bytes of the only entry are written.
    pub fn first_is_written_to(&mut self, written: usize) {
        debug_assert_eq!(self.entries.len(), 1);
        self.written = written;
        self.bytes -= written;
    }

    /// Drops everything that may be dropped. Returns how many messages that were.
    pub fn clear(&mut self) -> u64 {
        let drained = self.entries.drain(self.first_droppable()..);
        let is_message = |entry: &Entry| matches!(entry, Entry::Frame { .. }) && !entry.is_for_good();
        let dropped = drained.filter(is_message).count() as u64;
        self.count_anew();
        dropped
    }

    /// Writes as much as the socket accepts. Returns whether the queue is empty now.
    ///
    /// # Errors
    /// Errors of the socket, except `WouldBlock`.
    pub fn write_to(&mut self, socket: &mut impl Socket, hub: &Hub, framing: Framing) -> io::Result<bool> {
        while !self.entries.is_empty() {
            self.gaps_to_notices(hub, framing);
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (entry, slice) in self.entries.iter().zip(&mut slices) {
                let from = if count == 0 { self.written } else { 0 };
                *slice = IoSlice::new(&entry.bytes()[from..]);
                count += 1;
            }
            match socket.try_write_vectored(&slices[..count]) {
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.notices_to_gaps();
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many entries wait that are never dropped.
    pub fn for_good(&self) -> usize {
        self.for_good
    }

    fn count_anew(&mut self) {
        self.bytes = self.entries.iter().map(Entry::len).sum::<usize>().saturating_sub(self.written);
        let for_good = self.entries.iter().filter(|entry| entry.is_for_good());
        (self.for_good, self.for_good_bytes) =
            for_good.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.len()));
    }

    /// Whether `more` bytes fit. One message always fits into an empty queue, even if its header exceeds the limit.
    fn has_room(&self, more: usize, hub: &Hub) -> bool {
        let messages = self.entries.len() - self.for_good;
        let written = if self.begins_for_good() { self.written } else { 0 };
        let bytes = self.bytes + written - self.for_good_bytes;
        messages == 0 || (bytes + more <= hub.queue_bytes_max && messages < hub.queue_messages_max)
    }

    fn begins_for_good(&self) -> bool {
        self.entries.front().is_some_and(Entry::is_for_good)
    }

    /// Whether the oldest message has waited longer than `queue_age_max`.
    fn is_overdue(&self, hub: &Hub, now: Seconds) -> bool {
        let Some(max) = hub.queue_age_max else { return false };
        let oldest = self.entries.range(self.first_droppable()..).find_map(|entry| match entry {
            Entry::Frame { since, .. } => Some(*since).filter(|_| !entry.is_for_good()),
            Entry::Gap(_) | Entry::Notice { .. } => None,
        });
        oldest.is_some_and(|since| u64::from(now.saturating_sub(since)) > max.as_secs())
    }

    /// The first entry before which something may be dropped or noted: not one that is partly written, nor the head of a response.
    fn first_droppable(&self) -> usize {
        usize::from(self.written > 0 || self.begins_for_good())
    }

    /// Drops an earlier message of the same topic, if one waits.
    fn supersede(&mut self, topic: Option<Topic>) -> bool {
        let first = self.first_droppable();
        let same = |entry: &Entry| matches!(entry, Entry::Frame { topic: Some(other), .. } if Some(*other) == topic);
        let earlier = self.entries.iter().skip(first).position(same);
        earlier.is_some_and(|at| self.drop_at(first + at))
    }

    fn drop_oldest(&mut self) -> bool {
        let first = self.first_droppable();
        let is_droppable = |entry: &Entry| matches!(entry, Entry::Frame { .. }) && !entry.is_for_good();
        let oldest = self.entries.iter().skip(first).position(is_droppable);
        oldest.is_some_and(|at| self.drop_at(first + at))
    }

    fn drop_at(&mut self, at: usize) -> bool {
        let removed = self.entries.remove(at);
        self.bytes -= removed.as_ref().map_or(0, Entry::len);
        removed.is_some()
    }

    /// Counts dropped messages at this position, if the hub has a `gap_notice`.
    fn note_gap(&mut self, at: usize, dropped: u64, hub: &Hub) {
        if hub.gap_notice.is_none() {
            return;
        }
        // Messages dropped at the end are added to the gap before; elsewhere they are added to the gap at this position.
        let before = at.checked_sub(1).filter(|_| at == self.entries.len());
        for near in [Some(at), before].into_iter().flatten() {
            if let Some(Entry::Gap(count)) = self.entries.get_mut(near) {
                *count += dropped;
                return;
            }
        }
        self.entries.insert(at.min(self.entries.len()), Entry::Gap(dropped));
    }

    /// Makes notices of the gaps that are about to be written.
    fn gaps_to_notices(&mut self, hub: &Hub, framing: Framing) {
        for entry in self.entries.iter_mut().take(SLICES_MAX) {
            if let Entry::Gap(dropped) = *entry {
                let text =
                    hub.gap_notice.as_ref().map(|notice| notice.bytes("dropped", dropped.to_string().as_bytes()));
                // A reload may have removed `gap_notice` meanwhile: then the notice is empty.
                let bytes = text.map(|text| framing.frame(Kind::Text, &text)).unwrap_or_default();
                self.bytes += bytes.len();
                *entry = Entry::Notice { bytes, dropped };
            }
        }
    }

    /// Makes gaps again of the notices that could not be written. They count further dropped messages, and are never dropped.
    fn notices_to_gaps(&mut self) {
        let first = self.first_droppable();
        for entry in self.entries.iter_mut().take(SLICES_MAX).skip(first) {
            if let Entry::Notice { bytes, dropped } = entry {
                self.bytes -= bytes.len();
                *entry = Entry::Gap(*dropped);
            }
        }
    }

    fn advance(&mut self, written: usize) {
        self.bytes -= written;
        self.written += written;
        while let Some(first) = self.entries.front() {
            // A gap has no bytes until it becomes a notice. It must stay until then.
            if self.written < first.len() || matches!(first, Entry::Gap(_)) {
                break;
            }
            self.written -= first.len();
            if first.is_for_good() {
                self.for_good -= 1;
                self.for_good_bytes -= first.len();
            }
            self.entries.pop_front();
        }
    }
}

impl Entry {
    fn bytes(&self) -> &[u8] {
        match self {
            Entry::Frame { bytes, .. } | Entry::Notice { bytes, .. } => bytes,
            Entry::Gap(_) => &[],
        }
    }

    fn len(&self) -> usize {
        self.bytes().len()
    }

    fn is_for_good(&self) -> bool {
        matches!(self, Entry::Frame { since: NEVER_DROPPED, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Template;
    use std::time::Duration;

    /// Accepts this many bytes, then blocks.
    struct Sink(Vec<u8>, usize);

    impl Socket for Sink {
        fn try_read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            let taken = all.len().min(self.1);
            self.1 -= taken;
            self.0.extend_from_slice(&all[..taken]);
            if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
        }

        fn shutdown_write(&mut self) {}

        fn peer(&self) -> String {
            String::new()
        }
    }

    fn hub(when_slow: WhenSlow) -> Hub {
        Hub {
            message_bytes_max: 8,
            queue_bytes_max: 8,
            queue_messages_max: 4,
            queue_age_max: Some(Duration::from_secs(10)),
            when_slow,
            gap_notice: Some(Template::parse("<{dropped}>").unwrap()),
            ..Hub::default()
        }
    }

    /// Queues each text at its second; its first letter is its topic. Returns what the client then reads, how many messages were
    /// dropped, and whether the queue overflowed.
    fn read_after(when_slow: WhenSlow, texts: &[(&'static str, Seconds)]) -> (String, u64, bool) {
        let (hub, mut outbox, mut dropped, mut overflow) = (hub(when_slow), Outbox::default(), 0, false);
        for (text, now) in texts {
            let topic = Some(Topic::of(crate::config::HubId(0), &text[..1]));
            match outbox.push(Waiting { bytes: Bytes::from_static(text.as_bytes()), topic, written: 0 }, &hub, *now) {
                Queued::Dropped(more) => dropped += more,
                Queued::Overflow => overflow = true,
            }
            assert!(outbox.bytes() <= hub.queue_bytes_max);
        }
        let mut sink = Sink(Vec::new(), 1000);
        assert!(outbox.write_to(&mut sink, &hub, Framing::Hixie76).unwrap());
        assert_eq!(outbox.bytes(), 0);
        (String::from_utf8_lossy(&sink.0).replace(['\0', '\u{fffd}'], ""), dropped, overflow)
    }

    const BURST: [(&str, Seconds); 6] = [("a1", 0), ("b1", 0), ("a2", 0), ("a3", 0), ("c1", 0), ("b2", 0)];

    #[test]
    fn every_policy_drops_the_right_messages_and_sends_a_notice() {
        assert_eq!(read_after(WhenSlow::Disconnect, &BURST), ("a1b1a2a3".into(), 0, true));
        assert_eq!(read_after(WhenSlow::DropNewest, &BURST), ("a1b1a2a3<2>".into(), 2, false));
        // The notice takes one of the four entries.
        assert_eq!(read_after(WhenSlow::DropOldest, &BURST), ("<3>a3c1b2".into(), 3, false));
        assert_eq!(read_after(WhenSlow::Conflate, &BURST), ("<3>a3c1b2".into(), 3, false));
    }

    #[test]
    fn a_queue_whose_oldest_message_is_too_old_counts_as_full() {
        let late = [("a1", 0), ("b1", 5), ("c1", 12)];
        assert_eq!(read_after(WhenSlow::Disconnect, &late), ("a1b1".into(), 0, true));
        assert_eq!(read_after(WhenSlow::DropOldest, &late), ("<1>b1c1".into(), 1, false));
        assert_eq!(read_after(WhenSlow::DropNewest, &late), ("<1>b1c1".into(), 1, false));
    }

    #[test]
    fn a_gap_after_a_full_write_is_sent() {
        let hub = Hub { queue_bytes_max: 1000, queue_messages_max: SLICES_MAX, ..hub(WhenSlow::DropNewest) };
        let (mut outbox, mut sink) = (Outbox::default(), Sink(Vec::new(), 1000));
        for _ in 0..=SLICES_MAX {
            outbox.push(Waiting { bytes: Bytes::from_static(b"a"), topic: None, written: 0 }, &hub, 0);
        }
        assert!(outbox.write_to(&mut sink, &hub, Framing::Hixie76).unwrap());
        assert!(sink.0.ends_with(b"a\0<1>\xff"), "{:?}", String::from_utf8_lossy(&sink.0));
    }

    #[test]
    fn a_gap_is_skipped_if_a_reload_removed_the_notice() {
        let with_notice = hub(WhenSlow::DropNewest);
        let mut outbox = Outbox::default();
        for text in ["a", "b", "c", "d", "e"] {
            outbox.push(
                Waiting { bytes: Bytes::from_static(text.as_bytes()), topic: None, written: 0 },
                &with_notice,
                0,
            );
        }
        let without_notice = Hub { gap_notice: None, ..with_notice };
        let mut sink = Sink(Vec::new(), 1000);
        assert!(outbox.write_to(&mut sink, &without_notice, Framing::Rfc6455).unwrap());
        assert_eq!((sink.0.as_slice(), outbox.bytes()), (&b"abcd"[..], 0));
    }

    #[test]
    fn the_head_of_a_response_is_never_dropped() {
        for when_slow in [WhenSlow::DropOldest, WhenSlow::DropNewest, WhenSlow::Conflate] {
            let (hub, mut outbox) = (hub(when_slow), Outbox::default());
            outbox.push_for_good(Bytes::from_static(b"head|"));
            for (text, now) in [("a1", 0), ("b1", 0), ("a2", 0), ("c1", 50), ("d1", 100)] {
                let waiting = Waiting { bytes: Bytes::from_static(text.as_bytes()), topic: None, written: 0 };
                assert!(matches!(outbox.push(waiting, &hub, now), Queued::Dropped(_)));
            }
            let mut sink = Sink(Vec::new(), 1000);
            assert!(outbox.write_to(&mut sink, &hub, Framing::BareEventStream).unwrap());
            let written = String::from_utf8(sink.0).unwrap();
            assert!(written.starts_with("head|") && written.contains("data: <"), "{when_slow:?}: {written}");
        }
        let mut outbox = Outbox::default();
        outbox.push_for_good(Bytes::from_static(b"head|"));
        outbox.push(
            Waiting { bytes: Bytes::from_static(b"a1"), topic: None, written: 0 },
            &hub(WhenSlow::Disconnect),
            0,
        );
        assert_eq!((outbox.clear(), outbox.bytes()), (1, 5));
    }

    #[test]
    fn what_is_never_dropped_may_stand_between_messages_and_counts_to_no_limit() {
        let hub = Hub { gap_notice: None, ..hub(WhenSlow::DropOldest) };
        let mut outbox = Outbox::default();
        let push = |outbox: &mut Outbox, text: &'static str, now| {
            let waiting = Waiting { bytes: Bytes::from_static(text.as_bytes()), topic: None, written: 0 };
            outbox.push(waiting, &hub, now)
        };
        push(&mut outbox, "a", 0);
        // Behind a message that waits.
        for text in ["<page of history>", "<answer>"] {
            outbox.push_for_good(Bytes::from_static(text.as_bytes()));
        }
        for text in ["b", "c", "d"] {
            assert_eq!(push(&mut outbox, text, 5), Queued::Dropped(0));
        }
        assert_eq!((outbox.for_good(), push(&mut outbox, "e", 5)), (2, Queued::Dropped(1)));
        // Two bytes of the page are written. Then everything else is too old.
        let mut sink = Sink(Vec::new(), 2);
        assert!(!outbox.write_to(&mut sink, &hub, Framing::Rfc6455).unwrap());
        assert_eq!(push(&mut outbox, "f", 100), Queued::Dropped(4));
        sink.1 = 1000;
        assert!(outbox.write_to(&mut sink, &hub, Framing::Hixie76).unwrap());
        assert_eq!((outbox.for_good(), outbox.for_good_bytes, outbox.bytes()), (0, 0, 0));
        assert_eq!(String::from_utf8_lossy(&sink.0), "<page of history><answer>f");
    }

    #[test]
    fn a_partly_written_frame_is_finished() {
        let (hub, mut outbox) = (hub(WhenSlow::DropOldest), Outbox::default());
        let waiting =
            |text: &'static str| Waiting { bytes: Bytes::from_static(text.as_bytes()), topic: None, written: 0 };
        outbox.push(waiting("abcdef"), &hub, 0);
        let mut sink = Sink(Vec::new(), 2);
        assert!(!outbox.write_to(&mut sink, &hub, Framing::Rfc6455).unwrap());
        for text in ["123", "456", "789"] {
            outbox.push(waiting(text), &hub, 0);
        }
        outbox.clear();
        assert_eq!(outbox.bytes(), 4);
        sink.1 = 100;
        assert!(outbox.write_to(&mut sink, &hub, Framing::Rfc6455).unwrap());
        assert_eq!(sink.0, b"abcdef");
    }
}
