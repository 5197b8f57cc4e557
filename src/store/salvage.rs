//! A new database out of a damaged one: all that is whole.
//!
//! The damaged files are kept beside it, under another name. Which messages are missing is not known exactly, so no client may believe
//! that it has missed nothing: at a start every hub gets a new epoch, and while pushd runs, every channel is noted as incomplete up to
//! the last offset. Offsets go on above all that were found.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::append::save_key;
use super::files::Files;
use super::hubs::Hub;
use super::raw::{self, Row};
use super::schema::{self, of_message_id};
use super::{Limits, io_error, marks};
use crate::hub::Epoch;

/// How many damaged messages are named in the log.
const NAMED_MAX: usize = 5;

/// What was found.
#[derive(Default)]
struct Salvage {
    hubs: BTreeMap<u16, Found>,
    channels: HashMap<(u16, String), i64>,
    messages: u64,
    /// Messages that are not whole, and of which no other copy is.
    broken: BTreeSet<i64>,
}

#[derive(Default)]
struct Found {
    name: Option<String>,
    reserved: i64,
    last: u64,
    limits: [Option<i64>; 3],
}

enum Failure {
    Io(io::Error),
    Database(rusqlite::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Io(error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::Database(error)
    }
}

/// Replaces the database. `found`: what is damaged. `known`: the hubs that go on, if pushd runs. Returns what the log should say.
///
/// # Errors
/// The new database cannot be written. Then the damaged one is still in its place.
pub(super) fn rebuild(files: &Files, found: &str, known: &[Hub]) -> io::Result<Vec<String>> {
    let mut salvage = Salvage::default();
    salvage.build(files, known).map_err(|failure| match failure {
        Failure::Io(error) => error,
        Failure::Database(error) => io_error(&error),
    })?;
    File::open(files.unfinished())?.sync_all()?;
    let aside = files.replace()?;
    Ok(salvage.report(found, &aside))
}

impl Salvage {
    fn build(&mut self, files: &Files, known: &[Hub]) -> Result<(), Failure> {
        files.clean()?;
        let path = files.unfinished();
        Files::create_empty(&path)?;
        schema::create(&path)?;
        let db = schema::unsafe_writing(&path)?;
        db.execute_batch("BEGIN")?;
        raw::scan(files, |row| self.take(&db, &row))?;
        self.finish(&db, known)?;
        db.execute_batch("COMMIT; PRAGMA journal_mode = WAL;")?;
        db.close().map_err(|(_, error)| error)?;
        Ok(())
    }

    fn take(&mut self, db: &Connection, row: &Row) -> Result<(), Failure> {
        match *row {
            Row::Message { id, name, kind, time, sum, payload } => {
                let (hub, offset) = of_message_id(id);
                let found = self.hubs.entry(hub).or_default();
                found.last = found.last.max(offset);
                let channel = self.channel(db, hub, name)?;
                let count = db
                    .prepare_cached("INSERT OR IGNORE INTO messages VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
                    .execute(params![id, channel, name, kind, time, sum, payload])?;
                self.messages += count as u64;
                self.broken.remove(&id);
            }
            Row::Broken { id } => {
                let known = db.prepare_cached("SELECT 1 FROM messages WHERE id = ?1")?.exists([id])?;
                if !known {
                    self.broken.insert(id);
                }
            }
            Row::Hub { id, name, reserved, limits } => {
                let found = self.hubs.entry(id as u16).or_default();
                found.name = Some(name.to_owned());
                if reserved >= found.reserved {
                    (found.reserved, found.limits) = (reserved, limits);
                }
            }
            Row::HubName { id, name } => self.hubs.entry(id as u16).or_default().name = Some(name.to_owned()),
            Row::Key { hub, channel, key, numbers } => save_key(db, hub as u16, channel, key, numbers)?,
            Row::Mark { hub, feed, offset, mark } => {
                let found = self.hubs.entry(hub as u16).or_default();
                found.last = found.last.max(offset as u64);
                marks::save(db, hub as u16, feed, offset as u64, mark)?;
            }
        }
        Ok(())
    }

    fn channel(&mut self, db: &Connection, hub: u16, name: &str) -> Result<i64, Failure> {
        if let Some(&id) = self.channels.get(&(hub, name.to_owned())) {
            return Ok(id);
        }
        db.prepare_cached("INSERT INTO channels(hub, name, dropped, messages, bytes) VALUES(?1, ?2, 0, 0, 0)")?
            .execute(params![hub, name])?;
        let id = db.last_insert_rowid();
        self.channels.insert((hub, name.to_owned()), id);
        Ok(id)
    }

    /// Writes hubs and counters.
    fn finish(&mut self, db: &Connection, known: &[Hub]) -> Result<(), Failure> {
        for hub in known {
            self.hubs.entry(hub.number).or_default().name = Some(hub.name.clone());
        }
        let mut names = BTreeSet::new();
        for (&number, found) in &mut self.hubs {
            let name = found.name.take().filter(|name| !names.contains(name));
            // Its messages can still be exported.
            let name = name.unwrap_or_else(|| format!("lost-{number}"));
            names.insert(name.clone());
            found.name = Some(name.clone());
            let hub = match known.iter().find(|hub| hub.number == number) {
                Some(hub) => Hub { floor: hub.last.max(hub.floor), last: hub.last.max(found.last), ..hub.clone() },
                None => found.begin_again(number, name),
            };
            hub.save(db)?;
            db.execute("UPDATE channels SET dropped = ?2 WHERE hub = ?1", params![number, hub.floor as i64])?;
        }
        db.execute_batch(
            "UPDATE channels SET messages = (SELECT count(*) FROM messages WHERE channel = channels.id),
                 bytes = (SELECT ifnull(sum(length(payload)), 0) FROM messages WHERE channel = channels.id)",
        )?;
        Ok(())
    }

    fn report(&self, found: &str, aside: &str) -> Vec<String> {
        let mut lines = vec![format!(
            "the store was damaged ({found}): {} messages of {} channels are whole and were saved; the damaged file is kept as {aside}; \
             clients that resume are told of a gap",
            self.messages,
            self.channels.len()
        )];
        for &id in self.broken.iter().take(NAMED_MAX) {
            let (hub, offset) = of_message_id(id);
            let name = self.hubs.get(&hub).and_then(|hub| hub.name.as_deref()).unwrap_or("unknown");
            lines.push(format!("the store has lost the message of hub {name} with offset {offset}: it is damaged"));
        }
        if self.broken.len() > NAMED_MAX {
            lines.push(format!("the store has lost {} more messages: they are damaged", self.broken.len() - NAMED_MAX));
        }
        lines
    }
}

impl Found {
    /// The hub with a new epoch: nothing is known of the offsets that were given before.
    fn begin_again(&self, number: u16, name: String) -> Hub {
        let [messages, bytes, age] = self.limits.map(|limit| limit.map(|limit| limit.max(0) as u64));
        Hub {
            number,
            name,
            epoch: Epoch::random().0,
            reserved: self.last.max(self.reserved.max(0) as u64),
            floor: 0,
            limits: Limits { messages, bytes, age: age.map(Duration::from_secs) },
            tombstones: 0,
            last: self.last,
            written: std::sync::Arc::default(),
            is_changed: false,
        }
    }
}
