//! What one transaction writes.

use std::io;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, OptionalExtension as _, Result, params};

use super::channels::Channels;
use super::expiry::Expiry;
use super::hubs::{self, Hub};
use super::queue::{Append, Command};
use super::schema::{key_sum, message_id, message_sum, of_message_id};
use super::{HubState, Limits, marks};
use crate::hub::{Kind, Progress};

/// What the writer knows of the database. After a transaction that was rolled back it is read again.
#[derive(Debug, Default)]
pub(super) struct State {
    pub hubs: Vec<Hub>,
    pub channels: Channels,
    pub expiry: Expiry,
    pub is_stale: bool,
    /// The last transaction has left channels that are, or may be, beyond their limits.
    pub is_behind: bool,
}

/// What a transaction answers once it is committed, each with the place of its command.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub begun: Vec<(usize, io::Result<HubState>)>,
    /// Publications that cannot be written, now or later.
    pub refused: Vec<usize>,
}

pub(super) fn number_of(kind: Kind) -> i64 {
    match kind {
        Kind::Text => 0,
        Kind::Binary => 1,
    }
}

pub(super) fn kind_of(number: i64) -> Kind {
    if number == 0 { Kind::Text } else { Kind::Binary }
}

impl State {
    /// Everything that must be read before a transaction can begin.
    pub fn refresh(&mut self, db: &Connection) -> Result<()> {
        if !self.is_stale {
            return Ok(());
        }
        let known = std::mem::take(&mut self.hubs);
        match hubs::load(db) {
            Ok(loaded) => {
                self.hubs = loaded;
                for hub in &mut self.hubs {
                    if let Some(known) = known.iter().find(|known| known.name == hub.name) {
                        // Positions that were given are not given again, whatever the database says.
                        hub.is_changed = known.reserved > hub.reserved;
                        hub.reserved = hub.reserved.max(known.reserved);
                        hub.written = known.written.clone();
                        hub.written.fetch_max(hub.last, Ordering::Release);
                    }
                }
                self.is_stale = false;
                Ok(())
            }
            Err(error) => {
                self.hubs = known;
                Err(error)
            }
        }
    }

    /// Applies the commands, all or none.
    pub fn write(&mut self, db: &Connection, commands: &[Command], now: i64) -> Result<Written> {
        let mut written = Written::default();
        for (place, command) in commands.iter().enumerate() {
            match command {
                Command::Append(append) => {
                    if !self.append(db, append, now)? {
                        log::error!("store: offset {} of hub {} cannot be written", append.offset, append.hub);
                        written.refused.push(place);
                    }
                }
                Command::Complete { hub, channel, key, subscribers, .. } => {
                    complete(db, *hub, channel, key, *subscribers)?;
                }
                Command::Mark { hub, feed, mark, .. } => self.mark(db, *hub, feed, mark.as_deref())?,
                Command::Begin { name, limits, .. } => {
                    written.begun.push((place, self.begin(db, name, *limits, now)?));
                }
                Command::Limits { hub, limits } => self.limit(*hub, *limits),
                Command::Forget { id } => self.forget(db, *id)?,
                Command::Rebuild { .. } => {}
            }
        }
        self.flush(db)?;
        Ok(written)
    }

    /// Writes the rows of everything that has changed.
    pub fn flush(&mut self, db: &Connection) -> Result<()> {
        self.channels.flush(db, &mut self.hubs)?;
        for hub in &mut self.hubs {
            hub.reserve();
            if std::mem::take(&mut hub.is_changed) {
                hub.save(db)?;
            }
        }
        Ok(())
    }

    /// The transaction was rolled back: everything is read again.
    pub fn forget_all(&mut self) {
        self.channels.clear();
        self.is_stale = true;
        if self.is_behind {
            self.hubs.iter().for_each(|hub| self.expiry.sweep(hub.number));
        }
    }

    /// The transaction is committed: what was written can be read.
    pub fn publish_written(&mut self) {
        self.is_behind = self.channels.are_beyond() || self.expiry.is_sweeping();
        for hub in &self.hubs {
            hub.written.fetch_max(hub.last, Ordering::Release);
        }
    }

    fn begin(&mut self, db: &Connection, name: &str, limits: Limits, now: i64) -> Result<io::Result<HubState>> {
        // The counters of what this transaction has written so far.
        self.channels.flush(db, &mut self.hubs)?;
        let state = hubs::begin(db, &mut self.hubs, name, limits, now)?;
        if let Some(state) = &state {
            self.expiry.sweep(state.id.number);
        }
        Ok(state.ok_or_else(|| io::Error::other("there are too many hubs in the store")))
    }

    fn limit(&mut self, hub: u16, limits: Limits) {
        if let Some(hub) = self.hubs.iter_mut().find(|found| found.number == hub && found.limits != limits) {
            (hub.limits, hub.is_changed) = (limits, true);
            self.expiry.sweep(hub.number);
        }
    }

    fn mark(&self, db: &Connection, hub: u16, feed: &str, mark: Option<&[u8]>) -> Result<()> {
        let Some(hub) = self.hubs.iter().find(|found| found.number == hub) else { return Ok(()) };
        match mark {
            Some(mark) => marks::save(db, hub.number, feed, hub.last, mark),
            None => marks::forget(db, hub.number, feed),
        }
    }

    /// Returns whether the message is in the database: not if its hub is unknown, or another message has its offset.
    fn append(&mut self, db: &Connection, append: &Append, now: i64) -> Result<bool> {
        let Some(hub) = self.hubs.iter_mut().find(|hub| hub.number == append.hub) else { return Ok(false) };
        let channel = self.channels.change(db, hub, &append.channel)?;
        let (id, kind, time) = (
            message_id(hub.number, append.offset),
            number_of(append.kind),
            append.time.map_or(now, |time| time.min(now)),
        );
        let sum = message_sum(id, &append.channel, kind, time, &append.payload);
        let written = db
            .prepare_cached("INSERT OR IGNORE INTO messages VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute(params![id, channel.id, &*append.channel, kind, time, sum, &append.payload[..]])?;
        if written == 0 {
            // The same one may have been found in the log of a damaged database.
            return db
                .prepare_cached("SELECT 1 FROM messages WHERE id = ?1 AND name = ?2 AND kind = ?3 AND payload = ?4")?
                .exists(params![id, &*append.channel, kind, &append.payload[..]]);
        }
        channel.add(append.payload.len());
        hub.last = hub.last.max(append.offset);
        if let Some(key) = &append.key {
            save_key(db, hub.number, &append.channel, key, [append.offset as i64, 0, now])?;
        }
        if let Some(Progress { feed, mark }) = &append.progress {
            marks::save(db, hub.number, feed, append.offset, mark)?;
        }
        Ok(true)
    }

    /// Deletes a message whose bytes are damaged.
    pub fn forget(&mut self, db: &Connection, id: i64) -> Result<()> {
        let (hub, offset) = of_message_id(id);
        let found: Option<(i64, i64)> = db
            .prepare_cached("SELECT channel, length(payload) FROM messages WHERE id = ?1")?
            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((channel, bytes)) = found else { return Ok(()) };
        let name: Option<String> = db
            .prepare_cached("SELECT name FROM channels WHERE id = ?1")?
            .query_row([channel], |row| row.get(0))
            .optional()?;
        db.execute("DELETE FROM messages WHERE id = ?1", [id])?;
        let hub = self.hubs.iter_mut().find(|found| found.number == hub);
        if let (Some(name), Some(hub)) = (name, hub) {
            self.channels.change(db, hub, &name.into())?.remove(offset, bytes.max(0) as u64);
        }
        Ok(())
    }
}

fn complete(db: &Connection, hub: u16, channel: &str, key: &str, subscribers: u64) -> Result<()> {
    let found: Option<(i64, i64)> = db
        .prepare_cached("SELECT offset, time FROM keys WHERE hub = ?1 AND channel = ?2 AND key = ?3")?
        .query_row(params![hub, channel, key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((offset, time)) = found else { return Ok(()) };
    save_key(db, hub, channel, key, [offset, subscribers as i64, time])
}

/// `numbers`: offset, subscribers, time.
pub(super) fn save_key(db: &Connection, hub: u16, channel: &str, key: &str, numbers: [i64; 3]) -> Result<()> {
    let sum = key_sum(i64::from(hub), channel, key, numbers);
    let [offset, subscribers, time] = numbers;
    db.prepare_cached(
        "INSERT OR REPLACE INTO keys(hub, channel, key, offset, subscribers, time, sum) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![hub, channel, key, offset, subscribers, time, sum])?;
    Ok(())
}

/// Begins a transaction, lets `write` do its part, and commits. It is rolled back if anything fails.
pub(super) fn transaction<T>(db: &Connection, write: impl FnOnce() -> Result<T>) -> Result<T> {
    db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let result = write().and_then(|done| db.prepare_cached("COMMIT")?.execute([]).map(|_| done));
    if result.is_err() && !db.is_autocommit() {
        // SQLite may have rolled back by itself. Where this fails too, the connection is opened again.
        let _ = db.execute_batch("ROLLBACK");
    }
    result
}
