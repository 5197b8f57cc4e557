//! The access log: lines of requests, which are made by the shards, and their file.
//!
//! The lines wait in a bounded buffer, and a thread of its own writes them. A line that does not fit is dropped and counted; a
//! request never waits for the disk. The file is rotated and opened again like the log, but has no line of its own in it, because
//! programs read it. What is lost is reported in the log.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::file::LogFile;
use crate::config::limits::ACCESS_BYTES_MAX;
use crate::config::{self, AccessTarget, Rotate};
use crate::daemon::behalf::Behalf;
use crate::daemon::exit::{Failure, reason};

/// How often losses are reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The switch of the access log, and what writes a line of it.
pub type AccessFront = (Arc<AtomicBool>, Box<dyn Fn(&str) + Send + Sync>);

/// The access log of the process.
#[derive(Debug)]
pub(super) struct AccessLog {
    shared: Arc<Shared>,
    target: Option<AccessTarget>,
    base: PathBuf,
    has_writer: bool,
}

/// A changed target that was opened, but is not in use yet.
#[derive(Debug)]
pub(super) struct Prepared {
    target: Option<AccessTarget>,
    rotate: Option<Rotate>,
    /// `None`: the file stays.
    file: Option<LogFile>,
}

#[derive(Debug, Default)]
struct Shared {
    on: Arc<AtomicBool>,
    /// Whether lines go to the log.
    to_log: AtomicBool,
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Lines that did not fit.
    lost: u64,
    orders: Vec<Order>,
}

#[derive(Debug)]
enum Order {
    Reopen,
    Replace(Box<LogFile>),
    Restyle(Option<Rotate>),
    Close(Sender<()>),
}

impl AccessLog {
    /// An access log that is off. Relative paths begin in `base`.
    pub(super) fn new(base: &Path) -> AccessLog {
        AccessLog { shared: Arc::default(), target: None, base: base.to_owned(), has_writer: false }
    }

    /// Opens what `config` names. Nothing else changes before [`apply`](AccessLog::apply).
    pub(super) fn prepare(&self, config: &config::Log, behalf: &Behalf) -> Result<Prepared, Failure> {
        let file = match &config.access {
            Some(AccessTarget::File(path)) if self.target != config.access => {
                let path = self.base.join(path);
                let opened = LogFile::open(&path, config.rotate, behalf);
                Some(opened.map_err(|error| Failure::create("the access log", &path, &error))?)
            }
            _ => None,
        };
        Ok(Prepared { target: config.access.clone(), rotate: config.rotate, file })
    }

    /// Uses what was prepared.
    pub(super) fn apply(&mut self, prepared: Prepared) -> Result<(), Failure> {
        let Prepared { target, rotate, file } = prepared;
        match file {
            Some(file) if self.has_writer => self.shared.order(Order::Replace(Box::new(file))),
            Some(file) => {
                let writer = Writer { shared: self.shared.clone(), file, lost: 0, reported: None };
                thread::Builder::new()
                    .name("access log".to_owned())
                    .spawn(move || writer.run())
                    .map_err(|error| Failure::io("cannot start the access log's thread", &error))?;
                self.has_writer = true;
            }
            None => self.shared.order(Order::Restyle(rotate)),
        }
        self.shared.to_log.store(target == Some(AccessTarget::Log), Ordering::Relaxed);
        self.shared.on.store(target.is_some(), Ordering::Relaxed);
        self.target = target;
        Ok(())
    }

    /// What the shards call.
    pub(super) fn front(&self) -> AccessFront {
        let shared = self.shared.clone();
        (shared.on.clone(), Box::new(move |line| shared.push(line)))
    }

    /// SIGUSR1.
    pub(super) fn reopen(&self) {
        self.shared.order(Order::Reopen);
    }

    /// Writes what waits, within `time`, and ends the writer.
    pub(super) fn close(&mut self, time: Duration) {
        if std::mem::take(&mut self.has_writer) {
            let (done, closed) = channel();
            self.shared.order(Order::Close(done));
            // A disk that hangs is given up.
            let _ = closed.recv_timeout(time);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A thread that panicked while holding the lock left at worst a part of a line.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &str) {
        if self.to_log.load(Ordering::Relaxed) {
            ::log::info!(target: "access", "{}", line.trim_end());
            return;
        }
        let mut waiting = self.lock();
        if waiting.lines.len() + line.len() > ACCESS_BYTES_MAX {
            waiting.lost += 1;
            return;
        }
        let is_first = waiting.lines.is_empty();
        waiting.lines.extend_from_slice(line.as_bytes());
        drop(waiting);
        if is_first {
            self.wake.notify_one();
        }
    }

    fn order(&self, order: Order) {
        self.lock().orders.push(order);
        self.wake.notify_one();
    }

    /// Takes everything, once there is something.
    fn take(&self) -> Waiting {
        let is_empty = |waiting: &mut Waiting| waiting.lines.is_empty() && waiting.orders.is_empty();
        let waiting = self.wake.wait_while(self.lock(), is_empty);
        std::mem::take(&mut *waiting.unwrap_or_else(PoisonError::into_inner))
    }
}

/// The thread that writes.
struct Writer {
    shared: Arc<Shared>,
    file: LogFile,
    /// Lines lost and not yet reported.
    lost: u64,
    reported: Option<Instant>,
}

impl Writer {
    fn run(mut self) {
        loop {
            let Waiting { lines, lost, orders } = self.shared.take();
            if lost > 0 {
                self.note_loss(lost, "they came faster than they could be written");
            }
            self.write(&lines);
            for order in orders {
                match order {
                    Order::Reopen => self.change("reopen", LogFile::reopen),
                    Order::Replace(file) => self.file = *file,
                    Order::Restyle(rotate) => self.file.set_rotate(rotate),
                    Order::Close(done) => {
                        // The caller may have stopped waiting.
                        let _ = done.send(());
                        return;
                    }
                }
            }
        }
    }

    /// Writes whole lines, and rotates before the one that does not fit.
    fn write(&mut self, lines: &[u8]) {
        self.file.look();
        let (mut start, mut end) = (0, 0);
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            if self.file.is_full(end - start, line.len()) {
                self.write_at_once(&lines[start..end]);
                start = end;
                if self.file.is_full(0, line.len()) {
                    self.change("rotate", LogFile::rotate);
                }
            }
            end += line.len();
        }
        self.write_at_once(&lines[start..end]);
    }

    fn write_at_once(&mut self, lines: &[u8]) {
        if let Err(loss) = self.file.write(lines) {
            self.note_loss(loss.lines, &reason(&loss.error));
        }
    }

    fn change(&mut self, what: &str, change: fn(&mut LogFile) -> std::io::Result<()>) {
        if let Err(error) = change(&mut self.file) {
            ::log::error!("cannot {what} the access log, going on with the old file: {}", reason(&error));
        }
    }

    fn note_loss(&mut self, lines: u64, why: &str) {
        self.lost += lines;
        if self.reported.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL) {
            ::log::warn!("{} lines of the access log were lost: {why}", self.lost);
            (self.lost, self.reported) = (0, Some(Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_do_not_fit_are_counted() {
        let shared = Shared::default();
        let line = "x".repeat(1023) + "\n";
        for _ in 0..ACCESS_BYTES_MAX / 1024 + 3 {
            shared.push(&line);
        }
        let taken = shared.take();
        assert_eq!((taken.lines.len(), taken.lost), (ACCESS_BYTES_MAX, 3));
    }
}
