//! The memory that all histories take together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;

/// What a message costs beside its payload, in bytes: its entry, its place in the order, and the allocation of the payload. Both
/// lists have room for up to twice as many.
const MESSAGE_BYTES: usize = 160;
/// What a channel costs beside its messages, in bytes.
pub(super) const CHANNEL_BYTES: usize = 320;

/// The memory of the histories of all hubs, and its limit. Clones share it.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    used: AtomicUsize,
    max: AtomicUsize,
    dropped: AtomicU64,
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
        Memory(Arc::new(Shared { used, max, dropped: AtomicU64::new(0) }))
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

    pub(super) fn is_exceeded(&self) -> bool {
        self.used() > self.0.max.load(Ordering::Relaxed)
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
