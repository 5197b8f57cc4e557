//! `[daemon]` and `[log]`: the process.

use std::path::PathBuf;
use std::time::Duration;

use super::keys;
use super::limits;
use super::reader::{Item, Table};
use super::report::Outside;
use super::{Daemon, Log, LogFormat, LogTarget, Rotate, Workers};

/// Reads `[daemon]`. The pidfile stays as written, relative to the run directory.
pub(super) fn daemon(top: &Table<'_>) -> Daemon {
    let table = top.item("daemon").and_then(|item| item.table(&keys::DAEMON));
    let item = |key: &str| table.and_then(|table| table.item(key));
    let pidfile = item("pidfile").and_then(|i| i.text("the path of a file")).unwrap_or("pushd.pid");
    let workers = match item("workers") {
        None => Workers::Auto,
        Some(item) if item.as_text() == Some("auto") => Workers::Auto,
        Some(item) if item.as_text().is_some() => {
            item.note(item.error("`workers` takes a whole number or \"auto\"").label("neither of these"));
            Workers::Auto
        }
        Some(item) => item.positive(limits::WORKERS_CEILING).map_or(Workers::Auto, Workers::Count),
    };
    Daemon {
        pidfile: PathBuf::from(pidfile),
        rundir: item("rundir").and_then(|i| i.directory()),
        user: item("user").and_then(|i| account(&i, "the name or number of a user", Outside::User)),
        group: item("group").and_then(|i| account(&i, "the name or number of a group", Outside::Group)),
        umask: item("umask").and_then(|i| i.umask()),
        grace: item("grace").and_then(|i| i.duration(Duration::ZERO..=limits::DURATION_MAX)).unwrap_or(limits::GRACE),
        workers,
        connections_max: item("connections_max").and_then(|i| i.positive(limits::CONNECTIONS_CEILING)),
        connections_per_address_max: item("connections_per_address_max")
            .and_then(|i| i.positive(limits::CONNECTIONS_CEILING)),
    }
}

/// A user or a group, which must be there.
fn account(item: &Item<'_>, expected: &str, kind: fn(String) -> Outside) -> Option<String> {
    let name = item.text(expected)?.to_owned();
    item.report.expect(item.span(), kind(name.clone()));
    Some(name)
}

impl Daemon {
    /// The keys in which `new` differs.
    pub fn changed_keys(&self, new: &Daemon) -> Vec<&'static str> {
        // Taken apart, so that a key that comes cannot be forgotten here.
        let Daemon {
            pidfile,
            rundir,
            user,
            group,
            umask,
            grace,
            workers,
            connections_max,
            connections_per_address_max,
        } = self;
        let keys = [
            ("pidfile", *pidfile != new.pidfile),
            ("rundir", *rundir != new.rundir),
            ("user", *user != new.user),
            ("group", *group != new.group),
            ("umask", *umask != new.umask),
            ("grace", *grace != new.grace),
            ("workers", *workers != new.workers),
            ("connections_max", *connections_max != new.connections_max),
            ("connections_per_address_max", *connections_per_address_max != new.connections_per_address_max),
        ];
        keys.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }
}

/// Reads `[log]`.
pub(super) fn log(top: &Table<'_>) -> Log {
    let table = top.item("log").and_then(|item| item.table(&keys::LOG));
    let item = |key: &str| table.and_then(|table| table.item(key));
    let target = item("file").and_then(|i| i.text("\"stderr\", \"stdout\", \"syslog\" or the path of a file"));
    let target = target.map(|target| match target {
        "stderr" => LogTarget::Stderr,
        "stdout" | "-" => LogTarget::Stdout,
        "syslog" => LogTarget::Syslog,
        path => LogTarget::File(PathBuf::from(path)),
    });
    let rotate = match item("rotate") {
        Some(item) if item.as_flag() == Some(false) => None,
        Some(item) if !item.is_table() => {
            item.mismatch("`{ size = \"1MB\", keep = 10 }` or `false`");
            None
        }
        item => Some(rotate(item.and_then(|i| i.table(&keys::ROTATE)))),
    };
    Log {
        target,
        level: item("level").and_then(|i| i.choice(&LEVELS)).unwrap_or(log::LevelFilter::Info),
        format: item("format").and_then(|i| i.choice(&FORMATS)).unwrap_or(LogFormat::Text),
        rotate,
    }
}

fn rotate(table: Option<Table<'_>>) -> Rotate {
    let item = |key: &str| table.and_then(|table| table.item(key));
    let size = item("size").and_then(|i| i.size(1..=usize::MAX >> 1)).map(|size| size as u64);
    let keep = item("keep").and_then(|i| i.count(0..=limits::LOG_KEEP_CEILING as usize));
    Rotate {
        size_bytes: size.unwrap_or(limits::LOG_ROTATE_BYTES),
        keep: keep.and_then(|keep| u32::try_from(keep).ok()).unwrap_or(limits::LOG_KEEP),
    }
}

const LEVELS: [(&str, log::LevelFilter); 6] = [
    ("off", log::LevelFilter::Off),
    ("error", log::LevelFilter::Error),
    ("warn", log::LevelFilter::Warn),
    ("info", log::LevelFilter::Info),
    ("debug", log::LevelFilter::Debug),
    ("trace", log::LevelFilter::Trace),
];

const FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
