//! `[daemon]` and `[log]`: the process.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::keys;
use super::reader::{Item, Table};
use super::report::{External, Report};

/// `[daemon]`
#[derive(Debug, Clone, PartialEq)]
pub struct Daemon {
    /// The file for the process ID; relative to the run directory.
    pub pidfile: PathBuf,
    /// The run directory. pushd changes into it before it opens relative paths. `None`: the directory where pushd was started.
    pub rundir: Option<PathBuf>,
    /// The user to switch to once the sockets are bound.
    pub user: Option<String>,
    /// The group to switch to; `None`: the user's own.
    pub group: Option<String>,
    /// The file mode creation mask; `None`: 0o077 as a daemon, inherited in the foreground.
    pub umask: Option<u32>,
    /// How long a graceful end may take.
    pub grace: Duration,
    /// How many shards (threads) serve.
    pub workers: Workers,
    /// The maximum number of connections; `None`: what the limit of open files allows.
    pub connections_max: Option<NonZeroUsize>,
    /// The maximum number of connections from one address (for IPv6: one /64); `None`: no limit.
    pub connections_per_address_max: Option<NonZeroUsize>,
}

/// `workers`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// One for each core that this process may use.
    Auto,
    /// This number.
    Count(NonZeroUsize),
}

/// `[log]`
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// Where the log goes; `None`: to `pushd.log` as a daemon, to standard error in the foreground.
    pub target: Option<LogTarget>,
    /// The least severe level that is written.
    pub level: log::LevelFilter,
    /// The format of a line.
    pub format: LogFormat,
    /// When pushd itself rotates its log; `None`: never.
    pub rotate: Option<Rotate>,
    /// Where a line for each request goes; `None`: nowhere.
    pub access: Option<AccessTarget>,
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessTarget {
    /// A file; relative to the run directory.
    File(PathBuf),
    /// The log.
    Log,
}

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// A file; relative to the run directory.
    File(PathBuf),
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// The system logger, through `/dev/log`.
    Syslog,
}

/// The format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `2026-11-20T21:08:03+0000 [hub#info] text`
    Text,
    /// One JSON object on each line.
    Json,
}

/// Rotation by size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotate {
    /// The log is rotated once it has this many bytes.
    pub size_bytes: u64,
    /// How many old files (`.1` is the newest) are kept.
    pub keep: u32,
}

/// Reads `[daemon]`. A relative pidfile stays relative, to the run directory.
pub(super) fn daemon(table: &Table<'_>) -> Daemon {
    Daemon {
        pidfile: table.value("pidfile", |item| item.text("the path of a file").map(PathBuf::from)),
        rundir: table.item("rundir").and_then(|i| i.directory()),
        user: table.item("user").and_then(|i| account(&i, "the name or number of a user", External::User)),
        group: table.item("group").and_then(|i| account(&i, "the name or number of a group", External::Group)),
        umask: table.item("umask").and_then(|i| i.umask()),
        grace: table.duration("grace"),
        workers: table.value("workers", workers),
        connections_max: table.item("connections_max").and_then(|i| i.positive()),
        connections_per_address_max: table.item("connections_per_address_max").and_then(|i| i.positive()),
    }
}

fn workers(item: &Item<'_>) -> Option<Workers> {
    match item.as_text() {
        Some("auto") => Some(Workers::Auto),
        Some(_) => {
            item.note(item.error("`workers` takes a whole number or \"auto\"").label("this is neither"));
            None
        }
        None => item.positive().map(Workers::Count),
    }
}

/// A user or a group, which must exist.
fn account(item: &Item<'_>, expected: &str, kind: fn(String) -> External) -> Option<String> {
    let name = item.text(expected)?.to_owned();
    item.report.expect(item.span(), kind(name.clone()));
    Some(name)
}

impl Daemon {
    /// The keys in which `new` differs.
    pub fn changed_keys(&self, new: &Daemon) -> Vec<&'static str> {
        // Without `..`, so that the compiler reports a new key that is not compared here.
        macro_rules! changed {
            ($($key:ident),*) => {{
                let Daemon { $($key),* } = self;
                [$((stringify!($key), *$key != new.$key)),*]
            }};
        }
        let keys =
            changed!(pidfile, rundir, user, group, umask, grace, workers, connections_max, connections_per_address_max);
        keys.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }
}

/// Reads `[log]`.
pub(super) fn log(table: &Table<'_>) -> Log {
    let target = table.item("file").and_then(|i| i.text("\"stderr\", \"stdout\", \"syslog\" or the path of a file"));
    let target = target.map(|target| match target {
        "stderr" => LogTarget::Stderr,
        "stdout" | "-" => LogTarget::Stdout,
        "syslog" => LogTarget::Syslog,
        path => LogTarget::File(PathBuf::from(path)),
    });
    let rotate = match table.item("rotate") {
        Some(item) if item.as_flag() == Some(false) => None,
        Some(item) if !item.is_table() => {
            item.mismatch("`{ size = \"1MB\", keep = 10 }` or `false`");
            None
        }
        _ => Some(rotate(&table.table("rotate"))),
    };
    let access = table.item("access").and_then(|item| access(&item, target.as_ref()));
    Log { access, target, level: table.choice("level", &LEVELS), format: table.choice("format", &FORMATS), rotate }
}

fn access(item: &Item<'_>, log: Option<&LogTarget>) -> Option<AccessTarget> {
    let text = item.text("\"log\" or the path of a file")?;
    if matches!(text, "stderr" | "stdout" | "syslog" | "-") {
        let problem = item.error("the access log is a file, or a part of the log").label("expected \"log\" or a path");
        item.note(problem.help(format!("write `access = \"log\"`, and `file = \"{text}\"` for the log")));
        return None;
    }
    if matches!(log, Some(LogTarget::File(path)) if path.as_os_str() == text) {
        let problem = item.error("the access log needs a file of its own").label("the log is in this file");
        item.note(problem.help("write another path, or `access = \"log\"`"));
        return None;
    }
    Some(if text == "log" { AccessTarget::Log } else { AccessTarget::File(PathBuf::from(text)) })
}

fn rotate(table: &Table<'_>) -> Rotate {
    Rotate { size_bytes: table.size("size") as u64, keep: table.count("keep") as u32 }
}

impl Default for Daemon {
    fn default() -> Daemon {
        daemon(&Table::absent(&Report::new(&[], Vec::new()), &keys::DAEMON))
    }
}

impl Default for Log {
    fn default() -> Log {
        log(&Table::absent(&Report::new(&[], Vec::new()), &keys::LOG))
    }
}

pub(super) const LEVELS: [(&str, log::LevelFilter); 6] = [
    ("off", log::LevelFilter::Off),
    ("error", log::LevelFilter::Error),
    ("warn", log::LevelFilter::Warn),
    ("info", log::LevelFilter::Info),
    ("debug", log::LevelFilter::Debug),
    ("trace", log::LevelFilter::Trace),
];

pub(super) const FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
