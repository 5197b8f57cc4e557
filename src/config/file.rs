//! From the text of the files to a [`Config`].
//!
//! [`parse`] is pure. [`load`] reads the files, and also checks that the directories and users in them exist. [`load_daemon`] reads
//! `[daemon]` as far as possible, whatever else is wrong. Each kind of table has a module: `process`, `store`, `hubs`,
//! `servers` (with `routes`, `subscribing` and `addresses`), `feeds`.

use std::collections::HashMap;
use std::path::Path;

use toml::de::DeTable;

use super::access::AccessKeys;
use super::feeds;
use super::hooks::Hooks;
use super::hub_warnings;
use super::hubs::Hubs;
use super::keys;
use super::merge::merged;
use super::process;
use super::reader::Table;
use super::report::{External, Report};
use super::servers::Servers;
use super::settings::{Settings, settings};
use super::sources::Sources;
use super::store;
use super::text::shown;
use super::text_file::Pipes;
use super::tokens::TokenTables;
use super::{Config, Daemon, Errors};

/// Reads and checks the file at `path` and its drop-ins, and whether the directories and users in them exist.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path) -> Result<Config, Errors> {
    check(Sources::read(path, Pipes::Read), Verify::All, |_, _| ()).map(|(config, ())| config)
}

/// The same for a reload. A pipe is refused, because it can be read only once, at the start.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_again(path: &Path) -> Result<Config, Errors> {
    check(Sources::read(path, Pipes::Refused), Verify::All, |_, _| ()).map(|(config, ())| config)
}

/// The same for a process that will run elsewhere, such as a service: credentials that are not passed to this process are not missed.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_for_another(path: &Path) -> Result<Config, Errors> {
    check(Sources::read(path, Pipes::Read), Verify::ForAnother, |_, _| ()).map(|(config, ())| config)
}

/// The same, with the value of each key and where it is set.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_settings(path: &Path) -> Result<(Config, Vec<Settings>), Errors> {
    check(Sources::read(path, Pipes::Read), Verify::Directories, settings)
}

impl Config {
    /// The files it was read from, in a few words: `/etc/pushd/config.toml with 2 drop-ins`.
    pub fn provenance(&self) -> String {
        let named = self.files.first().map_or_else(String::new, |file| shown(&file.to_string_lossy()).into_owned());
        match self.files.len() {
            0 | 1 => named,
            2 => format!("{named} with 1 drop-in"),
            all => format!("{named} with {} drop-ins", all - 1),
        }
    }
}

/// `[daemon]` of the file at `path` and its drop-ins, with defaults in the place of mistakes. This is enough to find a running pushd
/// whose file has a mistake by now. `None`: the file cannot be read.
pub fn load_daemon(path: &Path) -> Option<Daemon> {
    let Sources { files, unread } = Sources::read(path, Pipes::Refused);
    if files.len() == 1 && !unread.is_empty() {
        return None;
    }
    let mut report = Report::new(&files, unread);
    let table = merged(&mut report);
    Some(process::daemon(&Table::top(&report, &keys::TOP, &table).table("daemon")))
}

/// Checks `text`, which is the content of `path`. Reads no file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(path: &Path, text: &str) -> Result<Config, Errors> {
    check(Sources::of(path, text.to_owned()), Verify::Nothing, |_, _| ()).map(|(config, ())| config)
}

/// Which of the things that the files name must exist.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verify {
    All,
    /// All but the credentials of the service manager.
    ForAnother,
    /// Not users and groups: the file may be for another machine.
    Directories,
    Nothing,
}

/// A valid configuration, and the result of `settings` for its table.
fn check<T>(
    sources: Sources,
    verify: Verify,
    settings: impl FnOnce(&Report<'_>, &DeTable<'_>) -> T,
) -> Result<(Config, T), Errors> {
    let Sources { files, unread } = sources;
    // Of a file that cannot be read nothing else can be reported.
    let nothing = files.len() == 1 && !unread.is_empty();
    let mut report = Report::new(&files, unread);
    if nothing {
        return Err(Errors(report.finish()));
    }
    report.needs_credentials = verify == Verify::All;
    report.reads_files = matches!(verify, Verify::All | Verify::ForAnother);
    let table = merged(&mut report);
    let config = read(&report, &table);
    if verify != Verify::Nothing {
        report.note_missing(|external| verify != Verify::Directories || matches!(external, External::Directory(_)));
    }
    let seen = report.is_good().then(|| settings(&report, &table));
    let diagnostics = report.finish();
    match seen {
        Some(seen) => Ok((Config { warnings: diagnostics, ..config }, seen)),
        None => Err(Errors(diagnostics)),
    }
}

fn read(report: &Report<'_>, entries: &DeTable<'_>) -> Config {
    let top = Table::top(report, &keys::TOP, entries);
    let hubs = Hubs::declared(&top);
    let access = AccessKeys::read(&top);
    let tokens = TokenTables::read(&top);
    let hooks = Hooks::read(&top);
    let servers = Servers {
        report,
        hubs: &hubs,
        access: &access,
        tokens: &tokens,
        hooks: &hooks,
        addresses: Default::default(),
        ports: HashMap::new(),
        routes: Vec::new(),
    };
    let (servers, routes) = servers.read(&top);
    let feeds = feeds::read(&top, &hubs);
    // With a mistake elsewhere, a hub may seem unused only because its route could not be read.
    if report.is_good() {
        hubs.note_unused(report);
        access.note_unused(report);
        tokens.note_unused(report);
        hooks.note_unused(report);
        hub_warnings::note(report, &routes, &feeds);
    }
    let hubs = hubs.read();
    let table = top.table("store");
    let store = store::store(&table);
    if report.is_good() {
        store.note_unused(&table, &hubs);
    }
    Config {
        daemon: process::daemon(&top.table("daemon")),
        log: process::log(&top.table("log")),
        store,
        servers,
        hubs,
        hooks: hooks.into_hooks(),
        feeds: feeds.into_iter().map(|(_, feed)| feed).collect(),
        files: report.files().iter().map(|file| file.path.clone()).collect(),
        warnings: Vec::new(),
    }
}
