//! The queue of the writer: bounded by what its users ask ([`Queue::accepts`]), so that no call waits.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::{Hold, HubState, Limits};
use crate::config::limits::{STORE_BATCH_MAX, STORE_QUEUE_BYTES_MAX, STORE_QUEUE_ENTRIES_MAX};
use crate::hub::{Kind, Progress};

/// A publication that is to be written.
pub(super) struct Append {
    pub hub: u16,
    pub offset: u64,
    pub channel: Arc<str>,
    pub kind: Kind,
    pub payload: Bytes,
    pub key: Option<Box<str>>,
    pub progress: Option<Progress>,
    /// Seconds since 1970. `None`: when it is written.
    pub time: Option<i64>,
    /// What waits for it, until it is written or has failed.
    pub hold: Option<Box<dyn Hold>>,
}

/// What the writer does.
pub(super) enum Command {
    Append(Append),
    Complete {
        hub: u16,
        channel: Arc<str>,
        key: Box<str>,
        subscribers: u64,
        done: Option<Box<dyn FnOnce() + Send>>,
    },
    /// Keeps or forgets the mark of a feed.
    Mark {
        hub: u16,
        feed: Box<str>,
        mark: Option<Box<[u8]>>,
        /// Dropped when that is written.
        hold: Option<Box<dyn Send>>,
    },
    Begin {
        name: String,
        limits: Limits,
        answer: SyncSender<io::Result<HubState>>,
    },
    Limits {
        hub: u16,
        limits: Limits,
    },
    /// A message whose bytes are damaged: it is deleted.
    Forget {
        id: i64,
    },
    /// The reader has found damage in the structure of the database. Answered when there is a new one.
    Rebuild {
        found: String,
        answer: SyncSender<()>,
    },
}

impl Command {
    fn bytes(&self) -> usize {
        match self {
            Command::Append(append) => append.payload.len(),
            _ => 0,
        }
    }
}

#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Vec<Command>>,
    changed: Condvar,
    /// Commands that are queued or being written, and the bytes of their payloads.
    entries: AtomicUsize,
    bytes: AtomicUsize,
    /// The last write, or the last sync beside the writer, has failed.
    is_failing: AtomicBool,
    is_unsynced: AtomicBool,
    /// Changed only while `waiting` is locked, so nothing is queued after it.
    is_closed: AtomicBool,
    /// How often the database was replaced.
    generation: AtomicU64,
    commits: AtomicU64,
}

impl Queue {
    pub fn accepts(&self) -> bool {
        // Bounds, not an order: each shard sees its own additions at once.
        self.entries.load(Ordering::Relaxed) < STORE_QUEUE_ENTRIES_MAX
            && self.bytes.load(Ordering::Relaxed) < STORE_QUEUE_BYTES_MAX
            && !self.is_failing.load(Ordering::Relaxed)
            && !self.is_unsynced.load(Ordering::Relaxed)
            && !self.is_closed.load(Ordering::Relaxed)
    }

    pub fn push(&self, command: Command) {
        let mut waiting = self.lock();
        if self.is_closed() {
            drop(waiting);
            return refuse(command);
        }
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(command.bytes(), Ordering::Relaxed);
        waiting.push(command);
        // The writer waits only while there is nothing.
        if waiting.len() == 1 {
            self.changed.notify_one();
        }
    }

    /// Waits for commands, at most for so long. `None`: closed, and nothing is left.
    pub fn take(&self, timeout: Option<Duration>) -> Option<Vec<Command>> {
        let is_idle = |waiting: &mut Vec<Command>| waiting.is_empty() && !self.is_closed();
        let waiting = self.lock();
        let mut waiting = match timeout {
            None => self.changed.wait_while(waiting, is_idle).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                self.changed.wait_timeout_while(waiting, timeout, is_idle).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        if waiting.is_empty() && self.is_closed() {
            return None;
        }
        if waiting.len() <= STORE_BATCH_MAX {
            return Some(std::mem::take(&mut *waiting));
        }
        Some(waiting.drain(..STORE_BATCH_MAX).collect())
    }

    /// These commands are done.
    pub fn finish(&self, commands: &[Command]) {
        self.entries.fetch_sub(commands.len(), Ordering::Relaxed);
        self.bytes.fetch_sub(commands.iter().map(Command::bytes).sum(), Ordering::Relaxed);
    }

    pub fn set_failing(&self, is_failing: bool) {
        self.is_failing.store(is_failing, Ordering::Relaxed);
    }

    pub fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    pub fn set_unsynced(&self, is_unsynced: bool) {
        self.is_unsynced.store(is_unsynced, Ordering::Relaxed);
    }

    /// Which database the writer has: readers open it again when this changes.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub fn count_generation(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// How often commands were written.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    pub fn count_commit(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    pub fn close(&self) {
        let _waiting = self.lock();
        self.is_closed.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Command>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of a command that comes after the end.
fn refuse(command: Command) {
    // What else waits sees that the other end is gone.
    if let Command::Complete { done: Some(done), .. } = command {
        done();
    }
}

/// The writer has ended when this is dropped, also by a panic: nobody waits for it any more.
pub(super) struct Ended(pub Arc<Queue>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.close();
        let left = std::mem::take(&mut *self.0.lock());
        left.into_iter().for_each(refuse);
    }
}
