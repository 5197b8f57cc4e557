//! The counters of channels, which make limits exact: the writer keeps those of the channels it has written last in memory.
//!
//! A row is written once for each channel and transaction. What is beyond the limits is deleted in the same transaction, so a
//! channel never holds more than it may, unless its limits have just become smaller. That may be so much that all who wait for a commit
//! would notice it: each transaction deletes a bounded part.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Result, params};

use super::Limits;
use super::hubs::Hub;
use super::schema::of_message_id;
use crate::config::limits::{STORE_BATCH_MAX, STORE_CHANNELS_CACHED};

/// A channel, as its row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Channel {
    pub id: i64,
    /// Up to this offset it is incomplete.
    pub dropped: u64,
    pub messages: u64,
    pub bytes: u64,
    is_changed: bool,
    /// What the row in the database says.
    was_empty: bool,
}

impl Channel {
    /// A message is in it.
    pub fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
    }

    /// A message is not in it any more.
    pub fn remove(&mut self, offset: u64, bytes: u64) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.dropped = self.dropped.max(offset);
    }

    fn is_beyond(&self, limits: Limits) -> bool {
        is_beyond(self.messages, self.bytes, limits)
    }
}

/// Whether so much is more than a channel may hold.
pub(super) fn is_beyond(messages: u64, bytes: u64, limits: Limits) -> bool {
    messages > 0 && (limits.messages.is_some_and(|max| messages > max) || limits.bytes.is_some_and(|max| bytes > max))
}

/// The channels that were written last.
#[derive(Debug, Default)]
pub(super) struct Channels {
    by_name: HashMap<(u16, Arc<str>), Channel>,
    /// Those of the present transaction, and those that were still beyond their limits after the last one.
    changed: Vec<(u16, Arc<str>)>,
}

impl Channels {
    /// Forgets everything: the transaction was rolled back.
    pub fn clear(&mut self) {
        self.by_name.clear();
        self.changed.clear();
    }

    /// A channel that is about to change. It gets a row if it has none.
    pub fn change(&mut self, db: &Connection, hub: &mut Hub, name: &Arc<str>) -> Result<&mut Channel> {
        use std::collections::hash_map::Entry;
        let key = (hub.number, name.clone());
        let channel = match self.by_name.entry(key.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(find_or_create(db, hub, name)?),
        };
        if !channel.is_changed {
            channel.is_changed = true;
            self.changed.push(key);
        }
        Ok(channel)
    }

    /// Between two transactions: whether channels are beyond their limits, so that the next one deletes more.
    pub fn are_beyond(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Deletes what is beyond the limits, and writes the rows of all channels that changed.
    pub fn flush(&mut self, db: &Connection, hubs: &mut [Hub]) -> Result<()> {
        let mut update =
            db.prepare_cached("UPDATE channels SET dropped = ?2, messages = ?3, bytes = ?4 WHERE id = ?1")?;
        // As many as a batch adds.
        let mut left = STORE_BATCH_MAX;
        for key in std::mem::take(&mut self.changed) {
            let Some(channel) = self.by_name.get_mut(&key) else { continue };
            let Some(hub) = hubs.iter_mut().find(|hub| hub.number == key.0) else { continue };
            trim(db, channel, hub.limits, &mut left)?;
            let Channel { id, dropped, messages, bytes, was_empty, .. } = *channel;
            update.execute(params![id, dropped as i64, messages as i64, bytes as i64])?;
            let is_empty = messages == 0;
            match (was_empty, is_empty) {
                (true, false) => hub.tombstones = hub.tombstones.saturating_sub(1),
                (false, true) => hub.tombstones += 1,
                _ => {}
            }
            (channel.was_empty, channel.is_changed) = (is_empty, channel.is_beyond(hub.limits));
            if channel.is_changed {
                self.changed.push(key);
            }
        }
        if self.by_name.len() > STORE_CHANNELS_CACHED {
            self.by_name.retain(|_, channel| channel.is_changed);
        }
        Ok(())
    }

    /// Forgets the channels of a hub that hold nothing: their rows were deleted.
    pub fn forget_empty(&mut self, hub: u16) {
        self.by_name.retain(|key, channel| key.0 != hub || channel.messages > 0);
    }
}

fn find_or_create(db: &Connection, hub: &mut Hub, name: &str) -> Result<Channel> {
    let found = db
        .prepare_cached("SELECT id, dropped, messages, bytes FROM channels WHERE hub = ?1 AND name = ?2")?
        .query_row(params![hub.number, name], |row| {
            let [dropped, messages, bytes] =
                [row.get(1)?, row.get(2)?, row.get(3)?].map(|number: i64| number.max(0) as u64);
            Ok(Channel { id: row.get(0)?, dropped, messages, bytes, is_changed: false, was_empty: messages == 0 })
        })
        .optional()?;
    if let Some(channel) = found {
        return Ok(channel);
    }
    db.prepare_cached("INSERT INTO channels(hub, name, dropped, messages, bytes) VALUES(?1, ?2, ?3, 0, 0)")?
        .execute(params![hub.number, name, hub.floor as i64])?;
    hub.tombstones += 1;
    let id = db.last_insert_rowid();
    Ok(Channel { id, dropped: hub.floor, messages: 0, bytes: 0, is_changed: false, was_empty: true })
}

/// Deletes the oldest messages that are beyond the limits, `left` at most.
fn trim(db: &Connection, channel: &mut Channel, limits: Limits, left: &mut usize) -> Result<()> {
    if !channel.is_beyond(limits) {
        return Ok(());
    }
    let mut last = None;
    {
        let mut rows = db.prepare_cached("SELECT id, length(payload) FROM messages WHERE channel = ?1 ORDER BY id")?;
        let mut rows = rows.query([channel.id])?;
        while channel.is_beyond(limits) && *left > 0 {
            let Some(row) = rows.next()? else {
                // The counters were wrong: damage that nothing else has found.
                (channel.messages, channel.bytes) = (0, 0);
                break;
            };
            let id: i64 = row.get(0)?;
            channel.remove(of_message_id(id).1, row.get::<_, i64>(1)?.max(0) as u64);
            (last, *left) = (Some(id), *left - 1);
        }
    }
    if let Some(last) = last {
        db.prepare_cached("DELETE FROM messages WHERE channel = ?1 AND id <= ?2")?.execute([channel.id, last])?;
    }
    Ok(())
}
