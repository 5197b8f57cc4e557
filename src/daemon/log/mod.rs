//! The log: the backend of the `log` facade.
//!
//! `line` is one event and its format; `queue` is the bounded queue to `writer`, the only thread that touches the disk;
//! `sink` is the destination: `file` (append, rotation), a standard stream, the journal, `syslog`. `access` is the log of requests. Logging never waits:
//! lines that a full queue or a full disk refuses are counted, and the log reports their number as soon as it can.
//!
//! Modules of this crate log at the configured level; other crates log only warnings, unless the level is `trace`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use ::log::{Level, LevelFilter, Metadata, Record};

use super::behalf::{self, Behalf};
use super::exit::{Exit, Failure};
use crate::config::limits::{LOG_CLOSE_TIMEOUT, LOG_LINES_MAX};
use crate::config::{self, AccessTarget, LogTarget};
pub use access::AccessFront;
use access::AccessLog;
use line::Line;
use queue::{Order, Queue};
use sink::{Destination, Sink};
use writer::Writer;

mod access;
mod file;
mod line;
mod queue;
mod sink;
mod syslog;
mod writer;

/// The default log of a daemon; relative to the run directory.
pub const DEFAULT_FILE: &str = "pushd.log";

/// What the log needs to know beyond its part of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogContext {
    /// Whether there is a terminal: then standard error is the default target.
    pub foreground: bool,
    /// The program name in the system log (`--prefix`).
    pub prefix: String,
    /// The user on whose behalf a log file is opened while the process is still root.
    pub behalf: Behalf,
}

/// The running log. Dropping it writes the queued lines, within [`LOG_CLOSE_TIMEOUT`].
#[derive(Debug)]
pub struct LogHandle {
    queue: Arc<Queue>,
    context: LogContext,
    /// The run directory at the start, so that a relative path means the same at every reload.
    base: PathBuf,
    destination: Destination,
    access: AccessLog,
    closed: bool,
}

/// Opens the log and connects it to the facade. It starts a thread, so call it after `detach`. Relative paths are
/// relative to the current directory. Fails if the log cannot be opened, or if this process has a log already.
pub fn init(config: &config::Log, context: LogContext) -> Result<LogHandle, Failure> {
    let to_terminal = context.foreground && matches!(config.target, None | Some(LogTarget::Stderr));
    let (handle, front) = start(config, context, LOG_LINES_MAX)?;
    ::log::set_boxed_logger(Box::new(front))
        .map_err(|_| Failure::new(Exit::System, "a log is already open in this process"))?;
    ::log::set_max_level(config.level);
    report_panics(to_terminal);
    Ok(handle)
}

/// Whether the log could be opened. Does not create it. Relative paths are relative to the current directory.
///
/// # Errors
/// The file cannot be written to, or cannot be created.
pub fn rehearse(config: &config::Log, context: &LogContext) -> Result<(), Failure> {
    let base = std::env::current_dir().unwrap_or_default();
    if let Destination::File(path, _) = destination(config, context, &base) {
        behalf::rehearse(&path).map_err(|error| Failure::create("the log", &path, &error))?;
    }
    if let Some(AccessTarget::File(path)) = &config.access {
        behalf::rehearse(path).map_err(|error| Failure::create("the access log", path, &error))?;
    }
    Ok(())
}

/// Writes panics to the log, because a daemon's standard error is `/dev/null`. If the log is the terminal already, the
/// panic is not printed a second time.
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

fn start(config: &config::Log, context: LogContext, lines_max: usize) -> Result<(LogHandle, Front), Failure> {
    let base = std::env::current_dir().map_err(|error| Failure::io("cannot tell the current directory", &error))?;
    let destination = destination(config, &context, &base);
    let sink = Sink::open(&destination, config.format, config.rotate)?;
    let mut access = AccessLog::new(&base);
    access.apply(access.prepare(config, &context.behalf)?)?;
    let queue = Arc::new(Queue::new(lines_max));
    let writer = Writer::new(Arc::clone(&queue), sink);
    thread::Builder::new()
        .name("log".to_string())
        .spawn(move || writer.run())
        .map_err(|error| Failure::io("cannot start the log's thread", &error))?;
    let front = Front { queue: Arc::clone(&queue) };
    Ok((LogHandle { queue, context, base, destination, access, closed: false }, front))
}

fn destination(config: &config::Log, context: &LogContext, base: &std::path::Path) -> Destination {
    match &config.target {
        Some(LogTarget::File(path)) => Destination::File(base.join(path), context.behalf.clone()),
        Some(LogTarget::Stderr) => Destination::Stderr,
        Some(LogTarget::Stdout) => Destination::Stdout,
        Some(LogTarget::Syslog) => Destination::Syslog(context.prefix.clone()),
        None if context.foreground => Destination::Stderr,
        None => Destination::File(base.join(DEFAULT_FILE), context.behalf.clone()),
    }
}

impl LogHandle {
    /// SIGUSR1: opens the file again if it was moved. If it was not, and pushd rotates the log itself, rotates it.
    pub fn reopen(&self) {
        self.queue.order(Order::Reopen);
        self.access.reopen();
    }

    /// What takes the lines of the access log, and whether it is on.
    pub fn access(&self) -> AccessFront {
        self.access.front()
    }

    /// Applies a changed configuration. If the new target cannot be opened, nothing changes.
    pub fn reconfigure(&mut self, config: &config::Log) -> Result<(), Failure> {
        let destination = destination(config, &self.context, &self.base);
        let access = self.access.prepare(config, &self.context.behalf)?;
        if destination == self.destination {
            self.queue.order(Order::Restyle(config.format, config.rotate));
        } else {
            let sink = Sink::open(&destination, config.format, config.rotate)?;
            self.queue.order(Order::Replace(Box::new(sink)));
            self.destination = destination;
        }
        ::log::set_max_level(config.level);
        self.access.apply(access)
    }

    /// Waits until everything logged so far is written, for at most `time`. Returns whether it was.
    pub fn flush(&self, time: Duration) -> bool {
        self.settle(Order::Flush, time)
    }

    /// Like [`flush`](LogHandle::flush), and ends the writer. Call it last: lines logged later are not written.
    pub fn close(mut self, time: Duration) -> bool {
        self.access.close(time);
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
            self.access.close(LOG_CLOSE_TIMEOUT);
            self.settle(Order::Close, LOG_CLOSE_TIMEOUT);
        }
    }
}

/// The part that the facade calls, on any thread.
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

    /// Does nothing, because logging never waits. See [`LogHandle::flush`].
    fn flush(&self) {}
}

#[cfg(test)]
mod tests;
