//! Reading a store beside a running pushd, or without one: for `pushctl store`.
//!
//! It changes nothing and holds up nothing. Of a log that is damaged, SQLite would read only what is before the damage and then forget the
//! rest; such a store is left to the start of pushd. pushd may start at any time meanwhile.

use std::io;
use std::path::Path;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::export::Exported;
use super::files::Files;
use super::opening::OpenError;
use super::schema::{self, message_id, of_message_id};
use super::{Limits, append, hubs, io_error, log_file, verify};
use crate::hub::Kind;

/// How much an export reads at once.
const EXPORT_STEP_BYTES: usize = 1 << 20;

/// A store that is only read.
pub struct Inspection {
    files: Files,
    db: Connection,
    is_in_use: bool,
}

/// What is known of a hub in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFigures {
    /// Its name.
    pub name: String,
    /// Its epoch.
    pub epoch: u64,
    /// Its limits when it was last used.
    pub limits: Limits,
    /// Channels that hold messages.
    pub channels: u64,
    /// Messages, and the bytes of their payloads.
    pub messages: u64,
    /// See `messages`.
    pub bytes: u64,
    /// When the oldest and the newest message were published, in seconds since 1970.
    pub oldest: Option<i64>,
    /// See `oldest`.
    pub newest: Option<i64>,
}

impl Inspection {
    /// Opens the store in `directory`, which must exist.
    ///
    /// # Errors
    /// There is no store, it cannot be read, or its log is damaged (`InvalidData`).
    pub fn open(directory: &Path) -> Result<Inspection, OpenError> {
        let found = Files::of(directory).and_then(|files| files.database().metadata().map(|_| files));
        let files = found.map_err(|error| OpenError {
            message: format!("there is no store in {}: {error}", directory.display()),
            kind: error.kind(),
        })?;
        let is_in_use = files.is_locked()?;
        if !is_in_use && let Some(found) = log_file::damage(&files.log(), &files.index())? {
            return Err(OpenError::damaged(directory, &found));
        }
        let db = schema::inspecting(&files.database())?;
        Ok(Inspection { files, db, is_in_use })
    }

    /// Whether a process has the store open.
    pub fn is_in_use(&self) -> bool {
        self.is_in_use
    }

    /// The bytes of the database and of its log.
    pub fn sizes(&self) -> (u64, u64) {
        let length = |path: &Path| path.metadata().map_or(0, |found| found.len());
        (length(&self.files.database()), length(&self.files.log()))
    }

    /// All hubs, by name.
    ///
    /// # Errors
    /// The database is damaged.
    pub fn hubs(&self) -> io::Result<Vec<HubFigures>> {
        self.figures().map_err(|error| io_error(&error))
    }

    fn figures(&self) -> rusqlite::Result<Vec<HubFigures>> {
        let mut figures = Vec::new();
        for (hub, _) in hubs::read(&self.db)? {
            let counters = "SELECT count(*), ifnull(sum(messages), 0), ifnull(sum(bytes), 0) FROM channels WHERE hub = ?1 AND messages > 0";
            let [channels, messages, bytes] = self
                .db
                .query_row(counters, [hub.number], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))?
                .map(|number: i64| number.max(0) as u64);
            let range = [message_id(hub.number, 0), message_id(hub.number, schema::OFFSET_MAX)];
            let time = |order: &str| {
                let query = format!("SELECT time FROM messages WHERE id BETWEEN ?1 AND ?2 ORDER BY id {order} LIMIT 1");
                self.db.query_row(&query, range, |row| row.get(0)).optional()
            };
            let (oldest, newest) = (time("ASC")?, time("DESC")?);
            let (name, epoch, limits) = (hub.name, hub.epoch, hub.limits);
            figures.push(HubFigures { name, epoch, limits, channels, messages, bytes, oldest, newest });
        }
        figures.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(figures)
    }

    /// Everything that is not whole.
    ///
    /// # Errors
    /// The database is so damaged that it cannot be read.
    pub fn check(&self) -> io::Result<Vec<String>> {
        let findings = verify::complete(&self.db).map_err(|error| io_error(&error))?;
        let mut lines: Vec<String> = findings.structure.into_iter().collect();
        lines.extend(findings.messages.into_iter().map(|id| {
            let (hub, offset) = of_message_id(id);
            format!("the message with offset {offset} of hub number {hub} is damaged")
        }));
        Ok(lines)
    }

    /// Calls `each` for every message of a channel, in order. Returns how many there were, or `None` if there is no such channel.
    ///
    /// # Errors
    /// The database is damaged, or `each` fails.
    pub fn export(
        &self,
        hub: &str,
        channel: &str,
        mut each: impl FnMut(&Exported) -> io::Result<()>,
    ) -> io::Result<Option<u64>> {
        let failed = |error: rusqlite::Error| io_error(&error);
        let hubs = hubs::read(&self.db).map_err(failed)?;
        let Some(hub) = hubs.into_iter().map(|(found, _)| found).find(|found| found.name == hub) else {
            return Ok(None);
        };
        let query = "SELECT id FROM channels WHERE hub = ?1 AND name = ?2";
        let id = self.db.query_row(query, params![hub.number, channel], |row| row.get(0)).optional().map_err(failed)?;
        let Some(id): Option<i64> = id else { return Ok(None) };
        let (mut after, mut count) = (0, 0);
        loop {
            // The state that is read must not be kept while somebody looks at the last message: the log could not be emptied.
            let messages = self.next_messages(id, after).map_err(failed)?;
            let Some((last, ..)) = messages.last() else { return Ok(Some(count)) };
            after = *last;
            for (id, kind, time, payload) in messages {
                let position = Some((hub.epoch, of_message_id(id).1));
                each(&Exported { position, channel: channel.into(), kind, time: Some(time), payload })?;
                count += 1;
            }
        }
    }

    /// The next messages of a channel, some at least if there are any.
    fn next_messages(&self, channel: i64, after: i64) -> rusqlite::Result<Vec<(i64, Kind, i64, Bytes)>> {
        let query = "SELECT id, kind, time, payload FROM messages WHERE channel = ?1 AND id > ?2 ORDER BY id";
        let mut rows = self.db.prepare_cached(query)?;
        let mut rows = rows.query([channel, after])?;
        let (mut messages, mut bytes) = (Vec::new(), 0);
        while bytes < EXPORT_STEP_BYTES
            && let Some(row) = rows.next()?
        {
            let payload: Vec<u8> = row.get(3)?;
            bytes += payload.len() + 100;
            messages.push((row.get(0)?, append::kind_of(row.get(1)?), row.get(2)?, payload.into()));
        }
        Ok(messages)
    }
}
