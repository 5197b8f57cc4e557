//! `[store]`: where durable history is kept, and how much memory all history takes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Hub;
use super::keys;
use super::reader::{Item, Table};
use super::report::{Problem, Report};

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The directory of durable history; relative to the run directory.
    pub dir: PathBuf,
    /// When a publication of a durable hub is acknowledged.
    pub sync: Sync,
    /// The maximum size of all history that is kept in memory, of all hubs together, in bytes.
    pub memory_bytes_max: usize,
}

/// `sync`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Once it is on the disk: an acknowledged publication outlives a power cut.
    Always,
    /// Once the kernel has it, which writes it to the disk within this time. A power cut loses at most so much; a crash of pushd
    /// loses nothing.
    Every(Duration),
}

/// Reads `[store]`. A relative directory stays relative, to the run directory.
pub(super) fn store(table: &Table<'_>) -> Store {
    Store {
        dir: table.value("dir", |item| item.text("the path of a directory").map(PathBuf::from)),
        sync: table.value("sync", sync),
        memory_bytes_max: table.size("memory_max"),
    }
}

fn sync(item: &Item<'_>) -> Option<Sync> {
    if item.as_text() == Some("always") { Some(Sync::Always) } else { item.duration().map(Sync::Every) }
}

impl Store {
    /// The directory of durable history. A relative one begins in the state directory, if the service manager gives one: `state` is
    /// the value of `STATE_DIRECTORY`. Otherwise it stays relative to the run directory, which may not outlive a reboot.
    pub fn dir_in(&self, state: Option<&OsStr>) -> PathBuf {
        // systemd separates several with a colon.
        let first = state.and_then(|state| state.as_bytes().split(|byte| *byte == b':').next()).map(OsStr::from_bytes);
        first.map_or_else(|| self.dir.clone(), |first| Path::new(first).join(&self.dir))
    }

    /// Warns if it is set where durable history is kept, but no hub is durable.
    pub(super) fn note_unused(&self, table: &Table<'_>, hubs: &[Hub]) {
        if hubs.iter().any(|hub| hub.durable) {
            return;
        }
        let default = Store::default();
        for (key, differs) in [("dir", self.dir != default.dir), ("sync", self.sync != default.sync)] {
            if let Some(item) = table.item(key).filter(|_| differs) {
                let problem = Problem::warning(item.key_span(), format!("`{key}` has no effect"));
                item.note(problem.label("it needs a hub with `durable = true`").absence());
            }
        }
    }

    /// Takes over from `now`, the settings in force, what only a restart can change. Returns the keys in which that differs.
    pub fn keep_fixed(&mut self, now: &Store) -> Vec<&'static str> {
        let before = Store { memory_bytes_max: self.memory_bytes_max, ..now.clone() };
        let new = std::mem::replace(self, before);
        [("dir", new.dir != now.dir), ("sync", new.sync != now.sync)]
            .into_iter()
            .filter_map(|(key, differs)| differs.then_some(key))
            .collect()
    }
}

impl Default for Store {
    fn default() -> Store {
        store(&Table::absent(&Report::new(&[], Vec::new()), &keys::STORE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_directory_begins_in_the_state_directory_of_the_service() {
        let store = |dir: &str| Store { dir: dir.into(), ..Store::default() };
        for (dir, state, found) in [
            ("store", None, "store"),
            ("store", Some("/var/lib/pushd"), "/var/lib/pushd/store"),
            ("store", Some("/var/lib/pushd:/var/lib/other"), "/var/lib/pushd/store"),
            ("/srv/store", Some("/var/lib/pushd"), "/srv/store"),
        ] {
            assert_eq!(store(dir).dir_in(state.map(OsStr::new)), Path::new(found));
        }
    }
}
