//! What the kernel refused: the bounded queue of one session, and what happens when it is full.
//!
//! It exists only while a socket does not take what it is given. Frames in it are shared with every other queue they wait in.
//! A frame that is partly written stays, whatever the policy: the client would lose its place in the stream. Where
//! messages were dropped and the hub asks for it, a notice stands in their place, which counts them until it is written.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::Bytes;

use super::run::Waiting;
use super::{Seconds, Socket};
use crate::config::{Hub, WhenSlow};
use crate::hub::{Kind, Topic};
use crate::wire::Framing;

/// How many slices go into one write; the kernel takes 1024.
const SLICES_MAX: usize = 64;

/// The queue of one session.
#[derive(Debug, Default)]
pub struct Outbox {
    entries: VecDeque<Entry>,
    /// How much of the first frame is written.
    written: usize,
    bytes: usize,
}

/// What stands in it.
#[derive(Debug)]
pub(super) enum Entry {
    /// A message, or a reply.
    Frame { bytes: Bytes, topic: Option<Topic>, since: Seconds },
    /// So many messages were dropped here.
    Gap(u64),
    /// The same as a frame, while it is being written.
    Notice { bytes: Bytes, dropped: u64 },
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// It waits; so many messages were dropped for it, or it was dropped itself.
    Dropped(u64),
    /// There is no room, and the hub disconnects those who are slow.
    Overflow,
}

impl Outbox {
    /// One that holds these entries, the first of which is written so far.
    pub(super) fn with(entries: VecDeque<Entry>, written: usize) -> Outbox {
        let bytes = entries.iter().map(Entry::len).sum::<usize>().saturating_sub(written);
        Outbox { entries, written, bytes }
    }

    /// What waits.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// How much of the first entry is written.
    pub(super) fn written(&self) -> usize {
        self.written
    }

    /// Queues a frame within the hub's limits.
    pub fn push(&mut self, frame: Waiting, hub: &Hub, now: Seconds) -> Queued {
        let mut dropped = 0;
        if hub.when_slow == WhenSlow::Conflate && self.supersede(frame.topic) {
            self.note_gap(self.first_whole(), 1, hub);
            dropped += 1;
        }
        while !self.has_room(frame.bytes.len(), hub) || self.is_overdue(hub, now) {
            match hub.when_slow {
                WhenSlow::Disconnect => return Queued::Overflow,
                WhenSlow::DropOldest | WhenSlow::Conflate if self.drop_oldest() => {
                    self.note_gap(self.first_whole(), 1, hub);
                    dropped += 1;
                }
                WhenSlow::DropNewest if self.has_room(frame.bytes.len(), hub) => {
                    // Only too old: the oldest go, since they are of no use to anybody any more.
                    self.drop_oldest();
                    self.note_gap(self.first_whole(), 1, hub);
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

    /// Queues the rest of a frame that is partly written, or one that must be said.
    pub fn push_anyway(&mut self, frame: Waiting, now: Seconds) {
        self.bytes += frame.bytes.len();
        self.entries.push_back(Entry::Frame { bytes: frame.bytes, topic: frame.topic, since: now });
    }

    /// Says that the first frame is written up to here.
    pub fn first_is_written_to(&mut self, written: usize) {
        debug_assert_eq!(self.entries.len(), 1);
        self.written = written;
        self.bytes -= written;
    }

    /// Drops everything but a frame that is partly written. How many messages that were.
    pub fn clear(&mut self) -> u64 {
        let gone = self.entries.drain(self.first_whole()..);
        let dropped = gone.map(|entry| u64::from(matches!(entry, Entry::Frame { .. }))).sum();
        self.bytes = self.entries.iter().map(Entry::len).sum::<usize>() - self.written;
        dropped
    }

    /// Writes what the socket takes; whether the queue is empty now.
    ///
    /// # Errors
    /// What the socket says, other than that it would block.
    pub fn write_to(&mut self, socket: &mut impl Socket, hub: &Hub, framing: Framing) -> io::Result<bool> {
        while !self.entries.is_empty() {
            self.say_gaps(hub, framing);
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
                    self.unsay_gaps();
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether so many more bytes fit. One message always fits into an empty queue, whatever its header adds.
    fn has_room(&self, more: usize, hub: &Hub) -> bool {
        self.entries.is_empty()
            || (self.bytes + more <= hub.queue_bytes_max && self.entries.len() < hub.queue_messages_max)
    }

    /// Whether the oldest message has waited longer than it may.
    fn is_overdue(&self, hub: &Hub, now: Seconds) -> bool {
        let Some(max) = hub.queue_age_max else { return false };
        let oldest = self.entries.range(self.first_whole()..).find_map(|entry| match entry {
            Entry::Frame { since, .. } => Some(*since),
            Entry::Gap(_) | Entry::Notice { .. } => None,
        });
        oldest.is_some_and(|since| u64::from(now.saturating_sub(since)) > max.as_secs())
    }

    /// The first entry that is not partly written.
    fn first_whole(&self) -> usize {
        usize::from(self.written > 0)
    }

    /// Drops an earlier message of the same topic, if one waits.
    fn supersede(&mut self, topic: Option<Topic>) -> bool {
        let first = self.first_whole();
        let same = |entry: &Entry| matches!(entry, Entry::Frame { topic: Some(other), .. } if Some(*other) == topic);
        let earlier = self.entries.iter().skip(first).position(same);
        earlier.is_some_and(|at| self.drop_at(first + at))
    }

    fn drop_oldest(&mut self) -> bool {
        let first = self.first_whole();
        let oldest = self.entries.iter().skip(first).position(|entry| matches!(entry, Entry::Frame { .. }));
        oldest.is_some_and(|at| self.drop_at(first + at))
    }

    fn drop_at(&mut self, at: usize) -> bool {
        let gone = self.entries.remove(at);
        self.bytes -= gone.as_ref().map_or(0, Entry::len);
        gone.is_some()
    }

    /// Counts dropped messages at this place, where the hub wants them told.
    fn note_gap(&mut self, at: usize, dropped: u64, hub: &Hub) {
        if hub.gap_notice.is_none() {
            return;
        }
        // A gap at the end belongs to the notice before it, one at the start to the notice that stands there.
        let before = at.checked_sub(1).filter(|_| at == self.entries.len());
        for near in [Some(at), before].into_iter().flatten() {
            if let Some(Entry::Gap(count)) = self.entries.get_mut(near) {
                *count += dropped;
                return;
            }
        }
        self.entries.insert(at.min(self.entries.len()), Entry::Gap(dropped));
    }

    /// Makes frames of the gaps that are about to be written.
    fn say_gaps(&mut self, hub: &Hub, framing: Framing) {
        for entry in self.entries.iter_mut().take(SLICES_MAX) {
            if let Entry::Gap(dropped) = *entry {
                let text = hub.gap_notice.as_ref().map(|said| said.bytes("dropped", dropped.to_string().as_bytes()));
                // A reload may have taken the notice away meanwhile: then there is nothing to say.
                let bytes = text.map(|text| framing.frame(Kind::Text, &text)).unwrap_or_default();
                self.bytes += bytes.len();
                *entry = Entry::Notice { bytes, dropped };
            }
        }
    }

    /// Makes gaps again of the notices that could not be written: they go on counting, and are never dropped like messages.
    fn unsay_gaps(&mut self) {
        let first = self.first_whole();
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
            // A gap takes no bytes before it is made into a notice, and is still to be told.
            if self.written < first.len() || matches!(first, Entry::Gap(_)) {
                break;
            }
            self.written -= first.len();
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Template;
    use std::time::Duration;

    /// Takes so many bytes, then blocks.
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

    /// Queues each text (its first letter is its topic) at its second, and says what a client then reads.
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
    fn every_policy_keeps_what_it_promises_and_tells_the_gap() {
        assert_eq!(read_after(WhenSlow::Disconnect, &BURST), ("a1b1a2a3".into(), 0, true));
        assert_eq!(read_after(WhenSlow::DropNewest, &BURST), ("a1b1a2a3<2>".into(), 2, false));
        // The notice takes one of the four places.
        assert_eq!(read_after(WhenSlow::DropOldest, &BURST), ("<3>a3c1b2".into(), 3, false));
        assert_eq!(read_after(WhenSlow::Conflate, &BURST), ("<3>a3c1b2".into(), 3, false));
    }

    #[test]
    fn what_waited_too_long_is_a_full_queue() {
        let late = [("a1", 0), ("b1", 5), ("c1", 12)];
        assert_eq!(read_after(WhenSlow::Disconnect, &late), ("a1b1".into(), 0, true));
        assert_eq!(read_after(WhenSlow::DropOldest, &late), ("<1>b1c1".into(), 1, false));
        assert_eq!(read_after(WhenSlow::DropNewest, &late), ("<1>b1c1".into(), 1, false));
    }

    #[test]
    fn a_gap_behind_a_whole_write_is_told() {
        let hub = Hub { queue_bytes_max: 1000, queue_messages_max: SLICES_MAX, ..hub(WhenSlow::DropNewest) };
        let (mut outbox, mut sink) = (Outbox::default(), Sink(Vec::new(), 1000));
        for _ in 0..=SLICES_MAX {
            outbox.push(Waiting { bytes: Bytes::from_static(b"a"), topic: None, written: 0 }, &hub, 0);
        }
        assert!(outbox.write_to(&mut sink, &hub, Framing::Hixie76).unwrap());
        assert!(sink.0.ends_with(b"a\0<1>\xff"), "{:?}", String::from_utf8_lossy(&sink.0));
    }

    #[test]
    fn a_gap_whose_notice_was_taken_away_is_passed_over() {
        let told = hub(WhenSlow::DropNewest);
        let mut outbox = Outbox::default();
        for text in ["a", "b", "c", "d", "e"] {
            outbox.push(Waiting { bytes: Bytes::from_static(text.as_bytes()), topic: None, written: 0 }, &told, 0);
        }
        let untold = Hub { gap_notice: None, ..told };
        let mut sink = Sink(Vec::new(), 1000);
        assert!(outbox.write_to(&mut sink, &untold, Framing::Rfc6455).unwrap());
        assert_eq!((sink.0.as_slice(), outbox.bytes()), (&b"abcd"[..], 0));
    }

    #[test]
    fn a_frame_begun_is_finished() {
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
