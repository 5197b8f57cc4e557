//! The memory that all histories take together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;

/// What a message costs beside its payload, in bytes: its entry, its place in the order, and the allocation of the payload. Both
/// lists have room for up to twice as many.
const MESSAGE_BYTES: usize = 160;
/// How often it is reported that messages were dropped, in seconds.
const REPORT_SECONDS: u32 = 60;
/// What a channel costs beside its messages, in bytes.
pub(super) const CHANNEL_BYTES: usize = 320;

/// The memory of the histories of all hubs, and its limit. Clones share it.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    used: AtomicUsize,
    max: AtomicUsize,
    /// How many histories there are.
    histories: AtomicUsize,
    dropped: AtomicU64,
    /// How many of them were reported, and when that was.
    reported: AtomicU64,
    reported_at: AtomicU32,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::new(usize::MAX)
    }
}

impl Memory {
    /// With a limit in bytes.
    pub fn new(max: usize) -> Memory {
        let (used, max) = (AtomicUsize::new(0), AtomicUsize::new(max));
        Memory(Arc::new(Shared {
            used,
            max,
            histories: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            reported: AtomicU64::new(0),
            reported_at: AtomicU32::new(0),
        }))
    }

    /// Sets another limit.
    pub fn set_max(&self, max: usize) {
        self.0.max.store(max, Ordering::Relaxed);
    }

    /// The bytes in use.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// How many messages were dropped for lack of memory.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// How many messages were dropped since the last report, if it is time for another one: at most one in a minute.
    pub fn report(&self, now: u32) -> Option<u64> {
        let Shared { dropped, reported, reported_at, .. } = &*self.0;
        let (dropped, before) = (dropped.load(Ordering::Relaxed), reported_at.load(Ordering::Relaxed));
        let is_first = reported.load(Ordering::Relaxed) == 0;
        if dropped == reported.load(Ordering::Relaxed) || !is_first && now < before.saturating_add(REPORT_SECONDS) {
            return None;
        }
        // Another shard may be about to report the same.
        reported_at.compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        Some(dropped - reported.swap(dropped, Ordering::Relaxed))
    }

    /// Whether the histories take more than they may.
    pub fn is_exceeded(&self) -> bool {
        self.used() > self.0.max.load(Ordering::Relaxed)
    }

    /// Whether a history of this cost must release memory: all together hold too much, and it more than an equal share. So a hub whose
    /// messages nobody wants any more does not take the memory of the others.
    pub(super) fn must_release(&self, cost: usize) -> bool {
        self.is_exceeded()
            && cost > self.0.max.load(Ordering::Relaxed) / self.0.histories.load(Ordering::Relaxed).max(1)
    }

    pub(super) fn enter(&self) {
        self.0.histories.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave(&self, bytes: usize) {
        self.release(bytes);
        self.0.histories.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn take(&self, bytes: usize) {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn release(&self, bytes: usize) {
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn note_drop(&self) {
        self.0.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a message costs, in bytes.
pub(super) fn cost(payload: &Bytes) -> usize {
    payload.len() + MESSAGE_BYTES
}
