//! The structure of the file: from text to [`Config`].
//!
//! [`parse`] is pure; [`load`] reads the file with its drop-ins and also looks at the directories they name; [`load_daemon`]
//! takes what it can get. Each kind of table is read by its own room: `process`, `hubs`, `servers` (with `routes` and
//! `addresses`), `feeds`.

use std::collections::HashMap;
use std::path::Path;

use toml::de::DeTable;

use super::feeds;
use super::hubs::Hubs;
use super::keys;
use super::meeting;
use super::merge::merged;
use super::process;
use super::reader::Table;
use super::report::{Outside, Report};
use super::servers::Servers;
use super::settings::{Settings, settings};
use super::sources::Sources;
use super::text::shown;
use super::text_file::Pipes;
use super::{Config, Daemon, Errors};

/// Reads and checks the file at `path` with its drop-ins, and the directories they name.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path) -> Result<Config, Errors> {
    check(Sources::read(path, Pipes::Read), LookAt::All, |_, _| ()).map(|(config, ())| config)
}

/// The same in a process that serves already: what can be read only once, as a pipe, was read at the start.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_again(path: &Path) -> Result<Config, Errors> {
    check(Sources::read(path, Pipes::Refused), LookAt::All, |_, _| ()).map(|(config, ())| config)
}

/// The same, with what counts for every key and where that is said.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_settings(path: &Path) -> Result<(Config, Vec<Settings>), Errors> {
    check(Sources::read(path, Pipes::Read), LookAt::Directories, settings)
}

impl Config {
    /// What it was read from, in a few words: `/etc/pushd/config.toml with 2 drop-ins`.
    pub fn provenance(&self) -> String {
        let named = self.files.first().map_or_else(String::new, |file| shown(&file.to_string_lossy()).into_owned());
        match self.files.len() {
            0 | 1 => named,
            2 => format!("{named} with 1 drop-in"),
            all => format!("{named} with {} drop-ins", all - 1),
        }
    }
}

/// `[daemon]` of the file at `path` and its drop-ins as far as it can be understood, whatever is wrong with it or with the
/// rest: enough to find a pushd whose file was broken since. `None`: the file cannot be read.
pub fn load_daemon(path: &Path) -> Option<Daemon> {
    let Sources { files, unread } = Sources::read(path, Pipes::Refused);
    if files.len() == 1 && !unread.is_empty() {
        return None;
    }
    let mut report = Report::new(&files, unread);
    let table = merged(&mut report);
    Some(process::daemon(&Table::top(&report, &keys::TOP, &table).table("daemon")))
}

/// Checks `text`, which came from `path`; looks at nothing else.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(path: &Path, text: &str) -> Result<Config, Errors> {
    check(Sources::of(path, text.to_owned()), LookAt::Nothing, |_, _| ()).map(|(config, ())| config)
}

/// What of all that the file names outside of it must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LookAt {
    All,
    /// Users may be those of another machine.
    Directories,
    Nothing,
}

/// A valid configuration, and what `look` makes of its table.
fn check<T>(
    sources: Sources,
    look_at: LookAt,
    look: impl FnOnce(&Report<'_>, &DeTable<'_>) -> T,
) -> Result<(Config, T), Errors> {
    let Sources { files, unread } = sources;
    // Of a file that cannot be read there is nothing else to tell.
    let nothing = files.len() == 1 && !unread.is_empty();
    let mut report = Report::new(&files, unread);
    if nothing {
        return Err(Errors(report.finish()));
    }
    let table = merged(&mut report);
    let config = read(&report, &table);
    if look_at != LookAt::Nothing {
        report.note_missing(|outside| look_at == LookAt::All || matches!(outside, Outside::Directory(_)));
    }
    let seen = report.is_good().then(|| look(&report, &table));
    let told = report.finish();
    match seen {
        Some(seen) => Ok((Config { warnings: told, ..config }, seen)),
        None => Err(Errors(told)),
    }
}

fn read(report: &Report<'_>, entries: &DeTable<'_>) -> Config {
    let top = Table::top(report, &keys::TOP, entries);
    let hubs = Hubs::declared(&top);
    let servers = Servers { report, hubs: &hubs, taken: HashMap::new(), ports: HashMap::new(), routes: Vec::new() };
    let (servers, routes) = servers.read(&top);
    let feeds = feeds::read(&top, &hubs);
    // Where something is wrong, a hub may be unused only because its route was not understood.
    if report.is_good() {
        hubs.note_unused(report);
        meeting::note(report, &routes, &feeds);
    }
    Config {
        daemon: process::daemon(&top.table("daemon")),
        log: process::log(&top.table("log")),
        servers,
        hubs: hubs.read(),
        feeds: feeds.into_iter().map(|(_, feed)| feed).collect(),
        files: report.files().iter().map(|file| file.path.clone()).collect(),
        warnings: Vec::new(),
    }
}
