//! The history of one hub in memory, at its owner: the numbering of all publications, and the last ones of each channel.
//!
//! All channels of a hub share one order, so a client resumes any number of channels from one position. Each channel has a ring of
//! messages, within the hub's limits of messages, bytes and age. A channel knows up to which offset it has dropped something, so a
//! client is told of a gap exactly when it has missed something. A channel that holds nothing costs nothing: only that offset is
//! kept, of a bounded number of such channels (`drops`). The memory of all hubs has one limit (`memory`). Above it the channels
//! that were read longest ago lose their oldest messages.
//!
//! The history of a hub on disk is backed by its store: everything up to `floor` is read from there, and what is here is a cache of
//! the newest messages.

mod drops;
mod memory;
mod page;
mod ring;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use slab::Slab;

use super::position::{Epoch, Position};
use super::publication::Message;
use crate::config;
use drops::Drops;
pub use memory::Memory;
pub use page::{Found, Page, PageLimits};
pub use ring::Kept;
use ring::Ring;

/// Seconds of the clock of the sessions.
type Seconds = u32;
/// Holes in the order are removed when there are more than messages, and more than this.
const HOLES_MIN: usize = 1024;

/// How much is kept of each channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Messages.
    pub messages: usize,
    /// Bytes of payloads.
    pub bytes: usize,
    /// Seconds. `None`: without a limit.
    pub age: Option<u32>,
}

impl From<&config::History> for HistoryLimits {
    fn from(history: &config::History) -> HistoryLimits {
        HistoryLimits {
            messages: history.messages.map_or(usize::MAX, usize::from),
            bytes: history.bytes.unwrap_or(usize::MAX),
            age: history.age.map(|age| age.as_secs().min(u64::from(u32::MAX)) as u32),
        }
    }
}

/// The history of one hub.
#[derive(Debug)]
pub struct History {
    epoch: Epoch,
    /// The offset of the last publication.
    last: u64,
    limits: HistoryLimits,
    /// Whether a store keeps everything, too.
    is_backed: bool,
    /// Everything up to this offset is only in the store.
    floor: u64,
    rings: Slab<Ring>,
    names: HashMap<Arc<str>, u32>,
    /// All messages in order, with the index of their ring, and holes where a message was dropped.
    order: VecDeque<(u64, u32)>,
    /// How many messages there are.
    count: usize,
    /// Up to which offset each channel has dropped something.
    drops: Drops,
    /// The channels by the time they were last read.
    unread: BTreeSet<(u64, u32)>,
    /// The number of the last reading.
    readings: u64,
    /// What the messages cost, in bytes.
    cost: usize,
    memory: Memory,
}

impl History {
    /// A history without messages, whose next publication comes after `last`. `is_backed`: a store has everything up to `last`.
    pub fn new(last: Position, limits: HistoryLimits, is_backed: bool, memory: Memory) -> History {
        memory.enter();
        History {
            epoch: last.epoch,
            last: last.offset,
            limits,
            is_backed,
            floor: if is_backed { last.offset } else { 0 },
            rings: Slab::new(),
            names: HashMap::new(),
            order: VecDeque::new(),
            count: 0,
            drops: Drops::default(),
            unread: BTreeSet::new(),
            readings: 0,
            cost: 0,
            memory,
        }
    }

    /// The position of the last publication.
    pub fn position(&self) -> Position {
        self.at(self.last)
    }

    /// The position of the publication that comes after `ahead` others.
    pub fn next(&self, ahead: usize) -> Position {
        self.at(self.last + ahead as u64 + 1)
    }

    fn at(&self, offset: u64) -> Position {
        Position { epoch: self.epoch, offset }
    }

    /// Sets other limits. They are applied to a channel when it is next published to or read.
    pub fn set_limits(&mut self, limits: HistoryLimits) {
        self.limits = limits;
    }

    /// Numbers a message, and keeps it.
    pub fn append(&mut self, message: &Message, now: Seconds) -> Position {
        self.last += 1;
        let Message { channel, kind, payload, .. } = message;
        self.keep(Kept { offset: self.last, channel: channel.clone(), kind: *kind, payload: payload.clone() }, now);
        self.release(usize::MAX);
        self.position()
    }

    /// Keeps a message that another process has numbered. Messages come in their order.
    pub fn restore(&mut self, kept: Kept, at: Seconds) {
        self.last = self.last.max(kept.offset);
        self.keep(kept, at);
    }

    /// Notes that another process has dropped messages of a channel up to an offset.
    pub fn restore_drop(&mut self, channel: Arc<str>, offset: u64) {
        // With smaller limits than before, messages that were restored may have been dropped since.
        let offset = offset.max(self.drops.noted(&channel));
        self.drops.note(channel, offset);
    }

    /// Of channels that are not known any more, messages may have been dropped up to this offset.
    pub fn restore_forgotten(&mut self, offset: u64) {
        self.drops.forget_up_to(offset);
    }

    /// All messages in their order, each with its time.
    pub fn messages(&self) -> impl Iterator<Item = (Kept, Seconds)> {
        self.order.iter().filter_map(|&(offset, ring)| {
            let ring = self.rings.get(ring as usize)?;
            ring.find(offset).map(|entry| (entry.kept(&ring.name), entry.at))
        })
    }

    /// The channels that have dropped something, and up to which offset; and that of channels that are not known any more.
    pub fn drops(&self) -> (impl Iterator<Item = (&Arc<str>, u64)>, u64) {
        (self.drops.iter(), self.drops.forgotten())
    }

    /// How many messages and channels there are, and what they cost in bytes.
    pub fn size(&self) -> (usize, usize, usize) {
        (self.count, self.rings.len(), self.cost)
    }

    fn keep(&mut self, kept: Kept, now: Seconds) {
        let index = self.ring(&kept.channel);
        let cost = memory::cost(&kept.payload);
        self.order.push_back((kept.offset, index));
        self.rings[index as usize].push(&kept, now);
        self.count += 1;
        self.cost += cost;
        self.memory.take(cost);
        self.limit(index, now);
    }

    /// The ring of a channel; it is made where there is none.
    fn ring(&mut self, channel: &Arc<str>) -> u32 {
        if let Some(&index) = self.names.get(channel) {
            return index;
        }
        self.readings += 1;
        let index = self.rings.insert(Ring::new(channel.clone(), self.readings)) as u32;
        self.names.insert(channel.clone(), index);
        self.unread.insert((self.readings, index));
        self.memory.take(memory::CHANNEL_BYTES);
        index
    }

    /// Applies the limits to a channel. It may be gone afterwards.
    fn limit(&mut self, index: u32, now: Seconds) {
        let HistoryLimits { messages, bytes, age } = self.limits;
        while let Some(ring) = self.rings.get(index as usize)
            && let Some(oldest) = ring.oldest()
            && (ring.len() > messages || ring.bytes() > bytes || age.is_some_and(|age| oldest.is_expired(age, now)))
        {
            self.drop_oldest(index);
        }
    }

    /// Drops the messages that are too old, at most `most` of them.
    pub fn expire(&mut self, now: Seconds, most: usize) {
        let Some(age) = self.limits.age else { return };
        for _ in 0..most {
            // The oldest message of all is the first one of the order, because time rises with the offsets.
            let Some(&(offset, index)) = self.order.front() else { return };
            let found = self.rings.get(index as usize).and_then(|ring| ring.find(offset));
            match found {
                Some(entry) if !entry.is_expired(age, now) => return,
                Some(_) => self.drop_oldest(index),
                None => {
                    self.order.pop_front();
                }
            }
        }
    }

    /// Drops the oldest message of a channel.
    fn drop_oldest(&mut self, index: u32) {
        let Some(entry) = self.rings[index as usize].pop() else { return };
        self.drops.note(self.rings[index as usize].name.clone(), entry.offset);
        self.drops.forget_up_to_floor(self.floor);
        self.lose(index, &entry);
    }

    /// Releases memory for a message that was taken out of a ring.
    fn lose(&mut self, index: u32, entry: &ring::Entry) {
        let cost = memory::cost(&entry.payload);
        self.count -= 1;
        self.cost -= cost;
        self.memory.release(cost);
        if self.rings[index as usize].oldest().is_none() {
            let ring = self.rings.remove(index as usize);
            self.names.remove(&ring.name);
            self.unread.remove(&(ring.read, index));
            self.memory.release(memory::CHANNEL_BYTES);
            self.drops.limit(|name| self.names.contains_key(name));
        }
        while let Some(&(offset, ring)) = self.order.front()
            && self.rings.get(ring as usize).is_none_or(|ring| ring.find(offset).is_none())
        {
            self.order.pop_front();
        }
        if self.order.len() > 2 * self.count + HOLES_MIN {
            let rings = &self.rings;
            self.order
                .retain(|&(offset, ring)| rings.get(ring as usize).is_some_and(|ring| ring.find(offset).is_some()));
            self.order.shrink_to(2 * self.count);
        }
    }

    /// Releases memory while all hubs together hold too much, and this one more than its share, but no more than `most` messages. The
    /// channels that were read longest ago lose their oldest messages; a hub on disk loses nothing, it only reads more from its store.
    pub fn release(&mut self, most: usize) {
        for _ in 0..most {
            if !self.must_release() {
                return;
            }
            let Some(&(_, index)) = self.unread.first() else { return };
            self.drop_oldest(index);
            self.memory.note_drop();
        }
    }

    /// Whether [`Self::release`] has something to do.
    pub fn must_release(&self) -> bool {
        !self.is_backed && self.memory.must_release(self.memory_used())
    }

    fn memory_used(&self) -> usize {
        self.cost + self.rings.len() * memory::CHANNEL_BYTES
    }

    /// Forgets the oldest messages that the store has, which are those up to `written`, beyond `cache` bytes.
    pub fn release_written(&mut self, written: u64, cache: usize) {
        while (self.cost > cache || self.memory.must_release(self.memory_used()))
            && let Some(&(offset, index)) = self.order.front()
            && offset <= written
        {
            let ring = self.rings.get_mut(index as usize);
            match ring.and_then(|ring| if ring.find(offset).is_some() { ring.pop() } else { None }) {
                Some(entry) => {
                    self.floor = offset;
                    self.lose(index, &entry);
                }
                None => {
                    self.order.pop_front();
                }
            }
        }
        self.drops.forget_up_to_floor(self.floor);
    }

    /// Notes that a channel is read.
    fn note_reading(&mut self, index: u32) {
        self.readings += 1;
        let ring = &mut self.rings[index as usize];
        self.unread.remove(&(ring.read, index));
        ring.read = self.readings;
        self.unread.insert((self.readings, index));
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.memory.leave(self.memory_used());
    }
}

#[cfg(test)]
mod tests;
