//! The thread beside the writer, for what takes long: it moves the log into the database, and with `sync = "100ms"` it syncs the log.
//!
//! Both go on beside commits. If only the writer did them, each publication that comes meanwhile would wait for them.

use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::files::Files;
use super::opening::Opened;
use super::queue::Queue;
use super::{Sync, io_error, schema};

/// The log is moved when so many bytes were written.
const LOG_BYTES: usize = 8 << 20;

#[derive(Default)]
struct Work {
    /// Bytes written since the log was last moved.
    bytes: usize,
    is_unsynced: bool,
    is_closed: bool,
    /// The writer replaces the database.
    is_paused: bool,
    /// The syncer has no file open.
    is_away: bool,
}

/// What the writer tells the syncer.
#[derive(Default)]
pub(super) struct Signal {
    work: Mutex<Work>,
    changed: Condvar,
}

impl Signal {
    /// So many bytes are in the log.
    pub fn wrote(&self, bytes: usize) {
        let mut work = self.lock();
        let was_idle = !work.is_unsynced && work.bytes < LOG_BYTES;
        work.bytes += bytes;
        work.is_unsynced = true;
        if was_idle || work.bytes >= LOG_BYTES {
            self.changed.notify_all();
        }
    }

    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Waits until the syncer has closed its files, for [`Self::resume`].
    pub fn pause(&self) {
        let mut work = self.lock();
        work.is_paused = true;
        self.changed.notify_all();
        let is_there = |work: &mut Work| !work.is_away && !work.is_closed;
        drop(self.changed.wait_while(work, is_there).unwrap_or_else(PoisonError::into_inner));
    }

    pub fn resume(&self) {
        self.lock().is_paused = false;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What there is to do.
enum Task {
    Sync,
    Move,
    GoAway,
    End,
}

pub(super) struct Syncer {
    files: Files,
    /// How often the log is synced. `None`: by each commit.
    interval: Option<Duration>,
    signal: Arc<Signal>,
    queue: Arc<Queue>,
    open: Option<(Connection, File)>,
    /// The last sync failed.
    has_failed: bool,
}

impl Syncer {
    pub fn new(opened: &Opened, sync: Sync, signal: Arc<Signal>, queue: Arc<Queue>) -> io::Result<Syncer> {
        let interval = match sync {
            Sync::Always => None,
            // With half of it, what was written just after a sync is on the disk within the whole.
            Sync::Every(interval) => Some(interval / 2),
        };
        let files = opened.files.clone();
        let open = Some(open(&files)?);
        Ok(Syncer { files, interval, signal, queue, open, has_failed: false })
    }

    pub fn run(mut self) {
        loop {
            match self.next_task() {
                Task::End => return,
                Task::GoAway => self.go_away(),
                Task::Sync => self.sync(),
                Task::Move => {
                    // What a reader still needs stays in the log for the next time.
                    if let Some((db, _)) = &self.open
                        && let Err(error) = schema::checkpoint(db)
                    {
                        log::debug!("the log of the store could not be moved: {error}");
                    }
                }
            }
        }
    }

    fn next_task(&self) -> Task {
        let mut work = self.signal.lock();
        loop {
            if work.is_closed {
                return Task::End;
            }
            if work.is_paused {
                return Task::GoAway;
            }
            if work.bytes >= LOG_BYTES {
                work.bytes = 0;
                return Task::Move;
            }
            let Some(interval) = self.interval.filter(|_| work.is_unsynced) else {
                work = self.signal.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let is_waiting = |work: &mut Work| !work.is_closed && !work.is_paused;
            let waited = self.signal.changed.wait_timeout_while(work, interval, is_waiting);
            work = waited.unwrap_or_else(PoisonError::into_inner).0;
            if is_waiting(&mut work) {
                work.is_unsynced = false;
                return Task::Sync;
            }
        }
    }

    /// Writes the log to the disk.
    ///
    /// After a sync that failed, the kernel takes its pages for written: the next sync succeeds, whatever is on the disk (fsync(2)). So
    /// what the log has is written again then, into the database. Where a commit syncs, SQLite itself writes everything again.
    fn sync(&mut self) {
        let Some((db, log)) = &self.open else { return };
        let result = if self.has_failed { moved(db) } else { log.sync_data() };
        if let Err(error) = &result
            && !self.has_failed
        {
            log::error!("the log of the store cannot be synced: {error}. Publications to durable hubs are refused");
        }
        self.has_failed = result.is_err();
        self.queue.set_unsynced(self.has_failed);
        self.signal.lock().is_unsynced |= self.has_failed;
    }

    /// Closes everything, until the writer has a new database.
    fn go_away(&mut self) {
        self.open = None;
        let mut work = self.signal.lock();
        work.is_away = true;
        self.signal.changed.notify_all();
        let is_paused = |work: &mut Work| work.is_paused && !work.is_closed;
        work = self.signal.changed.wait_while(work, is_paused).unwrap_or_else(PoisonError::into_inner);
        work.is_away = false;
        drop(work);
        match open(&self.files) {
            Ok(open) => self.open = Some(open),
            Err(error) => log::error!("the log of the store cannot be opened: {error}"),
        }
    }
}

/// Moves the whole log into the database, and syncs that.
fn moved(db: &Connection) -> io::Result<()> {
    match schema::checkpoint(db) {
        Ok(true) => Ok(()),
        Ok(false) => Err(io::Error::other("a reader needs it")),
        Err(error) => Err(io_error(&error)),
    }
}

fn open(files: &Files) -> io::Result<(Connection, File)> {
    let db = schema::beside(&files.database()).map_err(|error| io_error(&error))?;
    // The log exists once the database was read.
    Ok((db, File::open(files.log())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::opening;

    #[test]
    fn after_a_sync_that_failed_everything_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let sync = Sync::Every(Duration::from_millis(100));
        let opened = opening::open(dir.path(), sync).unwrap();
        let queue = Arc::new(Queue::default());
        let mut syncer = Syncer::new(&opened, sync, Arc::default(), queue.clone()).unwrap();
        let writes = "INSERT INTO hub_names VALUES(7, 'a name to look for', 0)";
        opened.db.execute_batch(writes).unwrap();
        let is_moved =
            || String::from_utf8_lossy(&std::fs::read(opened.files.database()).unwrap()).contains("to look for");
        // It has no sync.
        let log = std::mem::replace(&mut syncer.open.as_mut().unwrap().1, File::open("/dev/null").unwrap());
        syncer.sync();
        assert!(!queue.accepts() && !is_moved());
        syncer.open.as_mut().unwrap().1 = log;
        let reader = schema::reading(&opened.files.database()).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM hub_names").unwrap();
        opened.db.execute_batch("INSERT INTO hub_names VALUES(8, 'another one', 0)").unwrap();
        syncer.sync();
        assert!(!queue.accepts(), "a part of the log is still only there");
        drop(reader);
        syncer.sync();
        assert!(queue.accepts() && is_moved());
    }
}
