//! `pushctl store`: looks at the store of durable history, and moves messages out of it and into it.
//!
//! Everything that only reads works beside a running pushd. Import writes, and needs the store for itself.

use std::io::{self, BufRead, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::{Args, Subcommand};
use nix::unistd::Uid;

use super::fault::Fault;
use super::{CONFIG, Outcome, check, print};
use crate::config::Config;
use crate::config::limits::{CHANNEL_BYTES_MAX, CTL_POLL};
use crate::daemon::exit::{Exit, reason};
use crate::store::{Entry, Exported, Hold, HubFigures, Inspection, Limits, OpenError, Store};

/// The state directory of the packaged unit, in which a relative `dir` is.
const STATE_DIRECTORY: &str = "/var/lib/pushd";

const EXAMPLES: &str = "\
Examples:
  pushctl store stats                             hubs, messages, bytes
  pushctl store check                             whether everything is whole
  pushctl store export news >news.ndjson          a channel, as lines of JSON
  pushctl stop; pushctl store import <news.ndjson

A user that may read the directory of the store is needed: `runuser -u pushd -- pushctl store stats`.";

/// Look at the store of durable history, take messages out of it, put messages into it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StoreCommand {
    /// The configuration, whose `[store]` names the directory
    #[arg(short, long, value_name = "FILE", default_value = CONFIG, global = true)]
    config: PathBuf,

    /// The directory of the store, whatever the configuration says
    #[arg(long, value_name = "DIRECTORY", global = true)]
    dir: Option<PathBuf>,

    /// The hub, for export and import; needed where there are several
    #[arg(long, value_name = "NAME", global = true)]
    hub: Option<String>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check every message, table and index; report what is damaged (exit code 1)
    Check,
    /// Print what the store holds
    Stats,
    /// Print the messages of a channel, oldest first, as lines of JSON
    Export {
        /// The channel
        channel: String,
    },
    /// Append messages from standard input, in the lines that export prints. pushd must not run
    Import,
}

impl StoreCommand {
    pub fn run(&self) -> Outcome {
        match &self.command {
            Command::Check => self.check(),
            Command::Stats => self.stats(),
            Command::Export { channel } => self.export(channel),
            Command::Import => self.import(),
        }
    }

    /// Where the store is. The unit's state directory counts if there is a store in it, and none in the run directory.
    fn directory(&self) -> Result<PathBuf, Fault> {
        if let Some(dir) = &self.dir {
            return Ok(dir.clone());
        }
        let config = check::load(&self.config)?;
        let here = config.daemon.rundir.clone().unwrap_or_default().join(&config.store.dir);
        let packaged = Path::new(STATE_DIRECTORY).join(&config.store.dir);
        let is_there = |dir: &Path| dir.join("history.db").exists();
        Ok(if !is_there(&here) && is_there(&packaged) { packaged } else { here })
    }

    fn open(&self) -> Result<Inspection, Fault> {
        Inspection::open(&self.directory()?).map_err(refused)
    }

    fn check(&self) -> Outcome {
        let directory = self.directory()?;
        let damages = Inspection::open(&directory).map_err(refused)?.check();
        let damages = damages.unwrap_or_else(|error| vec![error.to_string()]);
        if damages.is_empty() {
            print(&format!("{}: the store is whole\n", directory.display()))?;
            return Ok(Exit::Clean.code());
        }
        Err(refused(OpenError::damaged(&directory, &damages.join("\n"))))
    }

    fn stats(&self) -> Outcome {
        let store = self.open()?;
        let (database, log) = store.sizes();
        let in_use = if store.is_in_use() { "in use by pushd" } else { "not in use" };
        let mut text = format!("database {database} bytes, log {log} bytes, {in_use}\n");
        for hub in hubs(&store)? {
            text +=
                &format!("hub {}: {} channels, {} messages, {} bytes", hub.name, hub.channels, hub.messages, hub.bytes);
            if let (Some(oldest), Some(newest)) = (hub.oldest, hub.newest) {
                text += &format!(", from {} to {}", time(oldest), time(newest));
            }
            text.push('\n');
        }
        print(&text).map(|()| Exit::Clean.code())
    }

    fn export(&self, channel: &str) -> Outcome {
        let store = self.open()?;
        let names: Vec<String> = hubs(&store)?.into_iter().map(|hub| hub.name).collect();
        let hub = the_one(self.hub.as_deref(), &names, "the store")?;
        let mut out = io::BufWriter::new(io::stdout().lock());
        let count = store.export(&hub, channel, |message| writeln!(out, "{}", message.line()));
        let count = count.and_then(|count| out.flush().map(|()| count));
        match count.map_err(|error| Fault::io("cannot export", &error))? {
            Some(_) => Ok(Exit::Clean.code()),
            None => Err(Fault::failed(format!("the store has no channel `{channel}` in hub {hub}"))),
        }
    }

    fn import(&self) -> Outcome {
        let config = check::load(&self.config)?;
        let names: Vec<String> = config.hubs.iter().filter(|hub| hub.durable).map(|hub| hub.name.clone()).collect();
        let hub = the_one(self.hub.as_deref(), &names, "the configuration")?;
        let directory = self.directory()?;
        refuse_root(&directory)?;
        let (store, warnings) = Store::open(&directory, config.store.sync).map_err(|error| match error.kind {
            io::ErrorKind::ResourceBusy => Fault::new(
                Exit::Unavailable,
                format!("{error}: stop it first (pushctl stop), or publish the messages to it (pushctl publish)"),
            ),
            _ => refused(error),
        })?;
        warnings.iter().for_each(|warning| super::notice(warning));
        let count = import(&store, &hub, limits(&config, &hub), io::stdin().lock());
        store.close();
        print(&format!("{} messages were imported\n", count?)).map(|()| Exit::Clean.code())
    }
}

fn hubs(store: &Inspection) -> Result<Vec<HubFigures>, Fault> {
    store.hubs().map_err(|error| Fault::io("cannot read the store", &error))
}

fn limits(config: &Config, hub: &str) -> Limits {
    let history = config.hubs.iter().find(|found| found.name == hub).and_then(|hub| hub.history.as_ref());
    history.map_or_else(Limits::default, Limits::from)
}

/// The hub that is meant.
fn the_one(named: Option<&str>, known: &[String], what: &str) -> Result<String, Fault> {
    match (named, known) {
        (Some(name), _) if known.iter().any(|known| known == name) => Ok(name.to_owned()),
        (Some(name), _) => {
            Err(Fault::failed(format!("{what} has no durable hub {name}; it has: {}", known.join(", "))))
        }
        (None, [only]) => Ok(only.clone()),
        (None, []) => Err(Fault::failed(format!("{what} has no durable hub"))),
        (None, _) => Err(Fault::new(Exit::Usage, format!("--hub NAME is needed: {what} has {}", known.join(", ")))),
    }
}

fn refused(error: OpenError) -> Fault {
    let exit = match error.kind {
        io::ErrorKind::PermissionDenied => Exit::NoPermission,
        io::ErrorKind::ResourceBusy => Exit::Unavailable,
        io::ErrorKind::NotFound | io::ErrorKind::InvalidData => return Fault::failed(error.message),
        _ => Exit::CannotCreate,
    };
    Fault::new(exit, error.message)
}

/// Files that root creates could not be opened by pushd later.
fn refuse_root(directory: &Path) -> Result<(), Fault> {
    let exists = directory.metadata().or_else(|_| directory.parent().unwrap_or(Path::new("/")).metadata());
    match exists {
        Ok(found) if Uid::effective().is_root() && found.uid() != 0 => {
            let user = found.uid();
            let what = format!(
                "{} belongs to user {user}: run this command as that user (setpriv, runuser)",
                directory.display()
            );
            Err(Fault::new(Exit::NoPermission, what))
        }
        _ => Ok(()),
    }
}

fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// How many messages are done with, and whether one of them could not be written.
#[derive(Default)]
struct Progress {
    done: AtomicU64,
    has_failed: AtomicBool,
}

/// A message that is being written.
struct Written {
    progress: Arc<Progress>,
    is_written: bool,
}

impl Hold for Written {
    fn written(mut self: Box<Self>) {
        self.is_written = true;
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        self.progress.has_failed.fetch_or(!self.is_written, Ordering::Relaxed);
        self.progress.done.fetch_add(1, Ordering::Release);
    }
}

/// Appends every line. Returns how many.
fn import(store: &Store, hub: &str, limits: Limits, lines: impl BufRead) -> Result<u64, Fault> {
    let hub = store.hub(hub, limits).map_err(|error| Fault::io("cannot write the store", &error))?;
    let progress = Arc::new(Progress::default());
    let has_failed = || progress.has_failed.load(Ordering::Relaxed);
    let mut count = 0;
    for (number, line) in (1..).zip(lines.lines()) {
        let line = line.map_err(|error| Fault::failed(format!("line {number}: {}", reason(&error))))?;
        if line.trim().is_empty() {
            continue;
        }
        let wrong =
            |what: &str| Fault::failed(format!("line {number}: {what}; the {count} messages before it are imported"));
        let message = Exported::read(&line).map_err(|what| wrong(&what))?;
        if message.channel.is_empty() || message.channel.len() > CHANNEL_BYTES_MAX {
            return Err(wrong(&format!("a channel has 1 to {CHANNEL_BYTES_MAX} bytes")));
        }
        while !store.accepts() && !has_failed() {
            std::thread::sleep(Duration::from_millis(1));
        }
        if has_failed() {
            break;
        }
        let Exported { channel, kind, payload, time, .. } = message;
        let (offset, hold) = (hub.next + count, Box::new(Written { progress: progress.clone(), is_written: false }));
        store.append_at(&hub.id, Entry { offset, channel, kind, payload, key: None, progress: None, hold }, time);
        count += 1;
    }
    while progress.done.load(Ordering::Acquire) < count {
        std::thread::sleep(CTL_POLL);
    }
    if has_failed() {
        return Err(Fault::failed("the store cannot be written: is the disk full? Not all messages were imported"));
    }
    Ok(count)
}
