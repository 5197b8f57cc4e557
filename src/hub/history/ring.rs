//! The last messages of one channel.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::Seconds;
use crate::hub::Kind;

/// A message of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its offset.
    pub offset: u64,
    /// Its channel.
    pub channel: Arc<str>,
    /// What it is made of.
    pub kind: Kind,
    /// The message itself.
    pub payload: Bytes,
}

/// The messages of a channel, in order.
#[derive(Debug)]
pub(super) struct Ring {
    pub name: Arc<str>,
    entries: VecDeque<Entry>,
    bytes: usize,
    /// The number of its last reading.
    pub read: u64,
}

/// A message of a ring.
#[derive(Debug)]
pub(super) struct Entry {
    pub offset: u64,
    /// When it came.
    pub at: Seconds,
    pub kind: Kind,
    pub payload: Bytes,
}

impl Ring {
    pub fn new(name: Arc<str>, read: u64) -> Ring {
        Ring { name, entries: VecDeque::new(), bytes: 0, read }
    }

    pub fn push(&mut self, kept: &Kept, at: Seconds) {
        self.bytes += kept.payload.len();
        self.entries.push_back(Entry { offset: kept.offset, at, kind: kept.kind, payload: kept.payload.clone() });
    }

    /// Takes the oldest message out.
    pub fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.payload.len();
        Some(entry)
    }

    pub fn oldest(&self) -> Option<&Entry> {
        self.entries.front()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The bytes of all payloads.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The message with an offset.
    pub fn find(&self, offset: u64) -> Option<&Entry> {
        // Messages are dropped from the oldest on, and only there is it asked for often.
        if self.entries.front().is_some_and(|oldest| oldest.offset == offset) {
            return self.entries.front();
        }
        let at = self.entries.binary_search_by_key(&offset, |entry| entry.offset).ok()?;
        self.entries.get(at)
    }

    /// The index of the first message after an offset.
    pub fn first_after(&self, offset: u64) -> usize {
        self.entries.partition_point(|entry| entry.offset <= offset)
    }

    /// The message at an index.
    pub fn at(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }
}

impl Entry {
    /// Whether it is older than `age`.
    pub fn is_expired(&self, age: u32, now: Seconds) -> bool {
        now.saturating_sub(self.at) > age
    }

    pub fn kept(&self, channel: &Arc<str>) -> Kept {
        Kept { offset: self.offset, channel: channel.clone(), kind: self.kind, payload: self.payload.clone() }
    }
}
