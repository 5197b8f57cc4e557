//! `[store]`: where durable history is kept, and how much memory all history takes.

use std::path::PathBuf;
use std::time::Duration;

use super::keys;
use super::reader::{Item, Table};
use super::report::Report;

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
