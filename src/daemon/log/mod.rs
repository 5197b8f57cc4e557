//! Where events are written: the other side of the `log` facade.
//!
//! `line` is one event and its looks; `queue` the bounded way to `writer`, the one thread that touches the disk;
//! `sink` where it goes: `file` (append, rotation), a standard stream, the journal, `syslog`. Who logs never waits: a full queue
//! counts what it refuses, a full disk what it swallowed, and the log says how many as soon as it can.
//!
//! Our own modules log at the level asked for; those of others only warnings, unless the level is `trace`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use ::log::{Level, LevelFilter, Metadata, Record};

use super::behalf::{self, Behalf};
use super::exit::{Exit, Failure};
use crate::config::limits::{LOG_CLOSE_TIMEOUT, LOG_LINES_MAX};
use crate::config::{self, LogTarget};
use line::Line;
use queue::{Order, Queue};
use sink::{Destination, Sink};
use writer::Writer;

mod file;
mod line;
mod queue;
mod sink;
mod syslog;
mod writer;

/// The log of a daemon that was not told another; relative to the run directory.
pub const DEFAULT_FILE: &str = "pushd.log";

/// What the log must know beyond its part of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Whether there is a terminal: then standard error is the log that nobody asked for by name.
    pub foreground: bool,
    /// The program name in the system log (`--prefix`).
    pub prefix: String,
    /// On whose behalf a log file is opened while still root.
    pub behalf: Behalf,
}

/// The running log. Dropping it writes what is queued, within [`LOG_CLOSE_TIMEOUT`].
#[derive(Debug)]
pub struct LogHandle {
    queue: Arc<Queue>,
    place: Place,
    /// The run directory as it was at the start; a relative path means the same at every reload.
    base: PathBuf,
    destination: Destination,
    closed: bool,
}

/// Opens the log and connects it to the facade. Starts a thread, so: after `detach`. Relative paths are relative to
/// the current directory. Fails if the log cannot be opened, or if it is the second one in this process.
pub fn init(config: &config::Log, place: Place) -> Result<LogHandle, Failure> {
    let to_terminal = place.foreground && matches!(config.target, None | Some(LogTarget::Stderr));
    let (handle, front) = start(config, place, LOG_LINES_MAX)?;
    ::log::set_boxed_logger(Box::new(front))
        .map_err(|_| Failure::new(Exit::System, "a log is already open in this process"))?;
    ::log::set_max_level(config.level);
    report_panics(to_terminal);
    Ok(handle)
}

/// Whether the log could be opened, without making it. Relative paths are relative to the current directory.
///
/// # Errors
/// It is a file that cannot be written to, or cannot be made.
pub fn rehearse(config: &config::Log, place: &Place) -> Result<(), Failure> {
    let base = std::env::current_dir().unwrap_or_default();
    let Destination::File(path, _) = destination(config, place, &base) else { return Ok(()) };
    behalf::rehearse(&path).map_err(|error| Failure::create("the log", &path, &error))
}

/// A panic goes to the log: a daemon's standard error is `/dev/null`. Not twice to the same terminal.
fn report_panics(to_terminal: bool) {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = thread::current();
        let text = panic.to_string().replace('\n', " ");
        ::log::error!("thread `{}` {text}", thread.name().unwrap_or("?"));
        if !to_terminal {
            usual(panic);
        }
    }));
}

fn start(config: &config::Log, place: Place, lines_max: usize) -> Result<(LogHandle, Front), Failure> {
    let base = std::env::current_dir().map_err(|error| Failure::io("cannot tell the current directory", &error))?;
    let destination = destination(config, &place, &base);
    let sink = Sink::open(&destination, config.format, config.rotate)?;
    let queue = Arc::new(Queue::new(lines_max));
    let writer = Writer::new(Arc::clone(&queue), sink);
    thread::Builder::new()
        .name("log".to_string())
        .spawn(move || writer.run())
        .map_err(|error| Failure::io("cannot start the log's thread", &error))?;
    let front = Front { queue: Arc::clone(&queue) };
    Ok((LogHandle { queue, place, base, destination, closed: false }, front))
}

fn destination(config: &config::Log, place: &Place, base: &std::path::Path) -> Destination {
    match &config.target {
        Some(LogTarget::File(path)) => Destination::File(base.join(path), place.behalf.clone()),
        Some(LogTarget::Stderr) => Destination::Stderr,
        Some(LogTarget::Stdout) => Destination::Stdout,
        Some(LogTarget::Syslog) => Destination::Syslog(place.prefix.clone()),
        None if place.foreground => Destination::Stderr,
        None => Destination::File(base.join(DEFAULT_FILE), place.behalf.clone()),
    }
}

impl LogHandle {
    /// SIGUSR1: opens the file anew if it was moved; if it was not and pushd rotates by itself, rotates.
    pub fn reopen(&self) {
        self.queue.order(Order::Reopen);
    }

    /// Takes over a changed configuration. If the new target cannot be opened nothing changes.
    pub fn reconfigure(&mut self, config: &config::Log) -> Result<(), Failure> {
        let destination = destination(config, &self.place, &self.base);
        if destination == self.destination {
            self.queue.order(Order::Restyle(config.format, config.rotate));
        } else {
            let sink = Sink::open(&destination, config.format, config.rotate)?;
            self.queue.order(Order::Replace(Box::new(sink)));
            self.destination = destination;
        }
        ::log::set_max_level(config.level);
        Ok(())
    }

    /// Waits until what was logged so far is written, at most so long; whether it was.
    pub fn flush(&self, time: Duration) -> bool {
        self.settle(Order::Flush, time)
    }

    /// The last thing a process does: the same as [`flush`](LogHandle::flush), and the end of the writer. What is
    /// logged later is not written.
    pub fn close(mut self, time: Duration) -> bool {
        self.closed = true;
        self.settle(Order::Close, time)
    }

    fn settle(&self, order: impl FnOnce(Sender<()>) -> Order, time: Duration) -> bool {
        let (done, settled) = channel();
        self.queue.order(order(done));
        settled.recv_timeout(time).is_ok()
    }
}

impl Drop for LogHandle {
    fn drop(&mut self) {
        if !self.closed {
            self.settle(Order::Close, LOG_CLOSE_TIMEOUT);
        }
    }
}

/// What the facade calls, on whatever thread.
struct Front {
    queue: Arc<Queue>,
}

impl ::log::Log for Front {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= ::log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        let level = ::log::max_level();
        let others = level.min(LevelFilter::Warn);
        if record.level() > level || (level < Level::Trace && record.level() > others && line::is_foreign(record)) {
            return;
        }
        self.queue.push(Line::of(record));
    }

    /// Nothing: who logs never waits. See [`LogHandle::flush`].
    fn flush(&self) {}
}

#[cfg(test)]
mod tests;
