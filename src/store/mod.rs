//! The store: the history of durable hubs, on disk.
//!
//! [`Store`] is a handle that all threads share. No call of it waits for a disk, but for those of the start and the end. Behind it are
//! three threads:
//!
//! ```text
//! append ──► queue ──► writer: everything that is queued in one transaction, then the holds are told (receipts)
//! page ───► requests ─► reader: pages, and in between a check of what was written long ago
//!                       syncer: moves the log into the database; with `sync = "100ms"` syncs the log
//! ```
//!
//! The engine is SQLite in WAL mode. A commit goes into the log, which has checksums; readers see the last commit and never wait.
//! Everything that is written is in `schema`; `docs/store-format.md` describes it for people.
//!
//! - `writer`, `append`, `hubs`, `channels`, `marks`, `expiry`: what is written, in one transaction a batch
//! - `reader`, `page`: what is read
//! - `opening`, `verify`, `log_file`: whether the files are whole
//! - `salvage`, `raw`: all rows that are whole, out of files that are not
//! - `inspection`: reading a store beside a running pushd, for `pushctl store`

mod append;
mod channels;
mod expiry;
mod export;
mod files;
mod hubs;
mod inspection;
mod log_file;
mod marks;
mod opening;
mod page;
mod queue;
mod raw;
mod reader;
mod salvage;
mod schema;
mod syncer;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::config;
use crate::config::Sync;
use crate::hub::{Kind, Progress};
pub use export::Exported;
pub use inspection::{HubFigures, Inspection};
pub use opening::OpenError;
pub use page::{PageQuery, StoredMessage, StoredPage};
use queue::{Append, Command, Queue};
use reader::Requests;

/// How much is kept of each channel. `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Messages.
    pub messages: Option<u64>,
    /// Bytes of payloads.
    pub bytes: Option<u64>,
    /// Time since they were written, in whole seconds.
    pub age: Option<Duration>,
}

impl From<&config::History> for Limits {
    fn from(history: &config::History) -> Limits {
        let messages = history.messages.map(|messages| messages.get() as u64);
        Limits { messages, bytes: history.bytes.map(|bytes| bytes as u64), age: history.age }
    }
}

/// A hub in a store.
#[derive(Debug, Clone)]
pub struct StoredHub {
    number: u16,
    written: Arc<AtomicU64>,
}

impl StoredHub {
    /// Everything up to this offset is committed, and is found by [`Store::page`].
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }
}

/// What is known of a hub when it begins.
#[derive(Debug)]
pub struct HubState {
    /// The hub.
    pub id: StoredHub,
    /// Its epoch.
    pub epoch: u64,
    /// The offset of its next publication. It was never given before in this epoch.
    pub next: u64,
    /// The idempotency keys of the last five minutes.
    pub keys: Vec<StoredKey>,
    /// The marks of its feeds.
    pub marks: Vec<Progress>,
}

/// An idempotency key, with what its publisher was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// The channel of the publication.
    pub channel: Box<str>,
    /// The key.
    pub key: Box<str>,
    /// The offset of the publication.
    pub offset: u64,
    /// How many subscribers it was queued for; 0 if the process ended before that was known.
    pub subscribers: u64,
    /// How long ago it was published.
    pub age: Duration,
}

/// What waits for a publication to be written. If it is dropped without a call, the publication could not be written; the store
/// writes it later if it can.
pub trait Hold: Send {
    /// It is written: after the commit, with [`Sync::Always`] after the `fsync` of it.
    fn written(self: Box<Self>);
}

/// A publication that is to be written.
pub struct Entry {
    /// Its offset: greater than every one before.
    pub offset: u64,
    /// Its channel.
    pub channel: Arc<str>,
    /// What it is made of.
    pub kind: Kind,
    /// The message.
    pub payload: Bytes,
    /// Its idempotency key.
    pub key: Option<Box<str>>,
    /// The progress of the feed that it comes from.
    pub progress: Option<Progress>,
    /// What waits for it.
    pub hold: Box<dyn Hold>,
}

/// A handle of an open store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Arc<Queue>,
    requests: Arc<Requests>,
    threads: Mutex<Option<Threads>>,
}

/// They end in this order; the lock is released last.
struct Threads {
    reader: JoinHandle<()>,
    syncer: JoinHandle<()>,
    syncing: Arc<syncer::Signal>,
    writer: JoinHandle<()>,
    lock: files::Lock,
}

/// Seconds since 1970, by the wall clock: it goes on while pushd does not run.
type Clock = Arc<dyn Fn() -> i64 + Send + std::marker::Sync>;

fn wall_clock() -> Clock {
    Arc::new(|| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64))
}

impl Store {
    /// Opens the store in `directory`, or creates it. Returns with it what the log should say: what was damaged, and what became
    /// of it.
    ///
    /// # Errors
    /// The directory or a file in it cannot be created or opened, another process has the store open, or a newer version has
    /// written it. Damage is no error.
    pub fn open(directory: &Path, sync: Sync) -> Result<(Store, Vec<String>), OpenError> {
        Store::open_with(directory, sync, wall_clock())
    }

    fn open_with(directory: &Path, sync: Sync, clock: Clock) -> Result<(Store, Vec<String>), OpenError> {
        let opened = opening::open(directory, sync)?;
        let queue = Arc::new(Queue::default());
        let requests = Arc::new(Requests::default());
        let syncing = Arc::new(syncer::Signal::default());
        let reader = reader::Reader::new(&opened, requests.clone(), queue.clone(), clock.clone())?;
        let syncer = syncer::Syncer::new(&opened, sync, syncing.clone(), queue.clone())?;
        let writer = writer::Writer::new(opened.files, opened.db, sync, queue.clone(), syncing.clone(), clock)?;
        let ended = queue::Ended(queue.clone());
        let threads = Threads {
            writer: spawn("store-writer", move || {
                let _ended = ended;
                writer.run();
            })?,
            reader: spawn("store-reader", move || reader.run())?,
            syncer: spawn("store-syncer", move || syncer.run())?,
            syncing,
            lock: opened.lock,
        };
        let inner = Inner { queue, requests, threads: Mutex::new(Some(threads)) };
        Ok((Store { inner: Arc::new(inner) }, opened.warnings))
    }

    /// Begins or continues a hub. Waits for the disk: for the start and for a reload.
    ///
    /// # Errors
    /// The disk cannot be written, the store is closed, or there are too many hubs in it.
    pub fn hub(&self, name: &str, limits: Limits) -> io::Result<HubState> {
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        self.inner.queue.push(Command::Begin { name: name.to_owned(), limits, answer });
        answered.recv().unwrap_or_else(|_| Err(closed()))
    }

    /// Changes the limits of a hub. What is beyond them is deleted when its channel is next written, and is never in a page.
    pub fn set_limits(&self, hub: &StoredHub, limits: Limits) {
        self.inner.queue.push(Command::Limits { hub: hub.number, limits });
    }

    /// Whether a publication may be given to [`Self::append`]: its queue has room, and the last write did not fail.
    pub fn accepts(&self) -> bool {
        self.inner.queue.accepts()
    }

    /// How often the store has written what was queued: as many publications are in one commit as came during the one before.
    pub fn commits(&self) -> u64 {
        self.inner.queue.commits()
    }

    /// Queues a publication. Never waits.
    pub fn append(&self, hub: &StoredHub, entry: Entry) {
        self.append_at(hub, entry, None);
    }

    /// The same with the time at which it was published, in seconds since 1970. `None`, or a time that is still to come: now.
    pub fn append_at(&self, hub: &StoredHub, entry: Entry, time: Option<i64>) {
        let Entry { offset, channel, kind, payload, key, progress, hold } = entry;
        let (hub, hold) = (hub.number, Some(hold));
        let append = Append { hub, offset, channel, kind, payload, key, progress, time, hold };
        self.inner.queue.push(Command::Append(append));
    }

    /// Keeps the mark of a feed without a message; `None`: forgets it. `hold` is dropped when that is written.
    pub fn mark(&self, hub: &StoredHub, feed: &str, mark: Option<Box<[u8]>>, hold: Option<Box<dyn Send>>) {
        self.inner.queue.push(Command::Mark { hub: hub.number, feed: feed.into(), mark, hold });
    }

    /// Completes an idempotency key with the number of subscribers. `done` is called when that is written, or when an attempt has
    /// failed: it is written later then.
    pub fn complete_key(
        &self,
        hub: &StoredHub,
        channel: Arc<str>,
        key: Box<str>,
        subscribers: u64,
        done: Box<dyn FnOnce() + Send>,
    ) {
        self.inner.queue.push(Command::Complete { hub: hub.number, channel, key, subscribers, done: Some(done) });
    }

    /// Whether all its threads run, or it was closed. One that has ended by a panic does nothing of what is asked any more.
    pub fn runs(&self) -> bool {
        let threads = self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.as_ref().is_none_or(|threads| {
            [&threads.reader, &threads.syncer, &threads.writer].iter().all(|thread| !thread.is_finished())
        })
    }

    /// Reads a page. `answer` is called on the reader's thread, once, and should not take long.
    pub fn page(&self, query: PageQuery, answer: Box<dyn FnOnce(StoredPage) + Send>) {
        self.inner.requests.push(query, answer);
    }

    /// Writes what is queued, ends the threads and releases the lock. Afterwards nothing is accepted.
    pub fn close(&self) {
        let threads = self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(threads) = threads else { return };
        // Readers first: the last connection that closes moves the log into the database and removes it.
        self.inner.requests.close();
        join(threads.reader);
        threads.syncing.close();
        join(threads.syncer);
        self.inner.queue.close();
        join(threads.writer);
        drop(threads.lock);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.requests.close();
        self.queue.close();
        let threads = self.threads.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(threads) = threads {
            threads.syncing.close();
            for thread in [threads.reader, threads.syncer, threads.writer] {
                join(thread);
            }
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

fn join(thread: JoinHandle<()>) {
    // The last handle may be dropped by an answer, on one of these threads.
    if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
        log::error!("a thread of the store panicked");
    }
}

fn closed() -> io::Error {
    io::Error::other("the store is closed")
}

/// An error of SQLite as one of the system.
fn io_error(error: &rusqlite::Error) -> io::Error {
    use rusqlite::ErrorCode;
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => io::ErrorKind::StorageFull,
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => {
            io::ErrorKind::PermissionDenied
        }
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error.to_string())
}

/// Whether the error means that the database is damaged.
fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode;
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || matches!(error, rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..))
        || matches!(error, rusqlite::Error::IntegralValueOutOfRange(..) | rusqlite::Error::Utf8Error(..))
}
