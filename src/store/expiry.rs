//! What is deleted in the background, in bounded steps: messages that are too old, those beyond limits that became smaller,
//! channels that have been empty for long, old keys; and how the space goes back to the file system.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, Result, params};

use super::append::State;
use super::schema::{self, message_id, of_message_id};
use crate::config::limits::{IDEMPOTENCY_AGE, STORE_EXPIRY_STEP, STORE_VACUUM_STEP, TOMBSTONES_MAX};

/// How many channels one step of a sweep looks at.
const SWEEP_STEP: usize = 256;
/// A database of so many pages may have an eighth of them free while it is written; a smaller one this many.
const FREE_PAGES_MIN: i64 = 256;

/// What is left to do.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    /// Hubs whose limits may have become smaller, with the channel up to which they are done.
    sweeps: BTreeMap<u16, i64>,
    /// Hubs that begin with very many messages whose time is still to come, with the last one of them that was looked at.
    ahead: BTreeMap<u16, i64>,
}

impl Expiry {
    /// All channels of the hub are looked at.
    pub fn sweep(&mut self, hub: u16) {
        self.sweeps.insert(hub, 0);
    }

    /// Whether channels of some hub are still to be looked at.
    pub fn is_sweeping(&self) -> bool {
        !self.sweeps.is_empty()
    }
}

impl State {
    /// Whether something becomes too old while nothing is written.
    pub fn has_ages(&self) -> bool {
        self.hubs.iter().any(|hub| hub.limits.age.is_some())
    }

    /// One step, in a transaction. Returns whether there is more to do.
    pub fn expire(&mut self, db: &Connection, now: i64) -> Result<bool> {
        let mut is_more = false;
        // First those that earlier steps have found.
        let are_beyond = self.channels.are_beyond();
        for place in 0..self.hubs.len() {
            is_more |= self.expire_old(db, place, now)?;
            if !are_beyond {
                is_more |= self.sweep_step(db, place)?;
            }
            is_more |= self.forget_tombstones(db, place)?;
        }
        let oldest = now - IDEMPOTENCY_AGE.as_secs() as i64;
        let keys = db
            .prepare_cached("DELETE FROM keys WHERE id IN (SELECT id FROM keys WHERE time < ?1 LIMIT ?2)")?
            .execute(params![oldest, STORE_EXPIRY_STEP as i64])?;
        self.flush(db)?;
        Ok(is_more || keys == STORE_EXPIRY_STEP || self.channels.are_beyond())
    }

    /// Messages are in the order of their time, unless the clock was wrong. One whose time is still to come is as old as the next one
    /// that has another: it goes with that, and holds up nothing.
    fn expire_old(&mut self, db: &Connection, place: usize, now: i64) -> Result<bool> {
        let hub = &self.hubs[place];
        let (Some(age), number) = (hub.limits.age, hub.number) else { return Ok(false) };
        let oldest = now.saturating_sub_unsigned(age.as_secs());
        let (first, end) = (message_id(number, 0), message_id(number, schema::OFFSET_MAX));
        let after = self.expiry.ahead.get(&number).copied().unwrap_or(first);
        let (mut last, mut looked_at) = (None, None);
        let mut count = 0;
        {
            let mut rows =
                db.prepare_cached("SELECT id, time FROM messages WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3")?;
            let mut rows = rows.query([after, end, STORE_EXPIRY_STEP as i64])?;
            while let Some(row) = rows.next()? {
                let (id, time): (i64, i64) = (row.get(0)?, row.get(1)?);
                match time {
                    time if time <= oldest => last = Some(id),
                    time if time <= now => break,
                    _ => {}
                }
                (looked_at, count) = (Some(id), count + 1);
            }
        }
        let is_full = count == STORE_EXPIRY_STEP;
        match (last, looked_at) {
            (Some(last), _) => Ok(self.delete(db, place, (first, last))? || is_full),
            (None, Some(ahead)) if is_full => {
                self.expiry.ahead.insert(number, ahead);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Deletes the first messages of a hub. Returns whether some are left.
    fn delete(&mut self, db: &Connection, place: usize, (first, last): (i64, i64)) -> Result<bool> {
        let hub = &mut self.hubs[place];
        let (mut deleted, mut count) = (first, 0);
        {
            let query =
                "SELECT id, name, length(payload) FROM messages WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT ?3";
            let mut rows = db.prepare_cached(query)?;
            let mut rows = rows.query(params![first, last, STORE_EXPIRY_STEP as i64])?;
            while let Some(row) = rows.next()? {
                let (id, name): (i64, Arc<str>) = (row.get(0)?, row.get(1)?);
                let bytes = row.get::<_, i64>(2)?.max(0) as u64;
                self.channels.change(db, hub, &name)?.remove(of_message_id(id).1, bytes);
                (deleted, count) = (id, count + 1);
            }
        }
        db.prepare_cached("DELETE FROM messages WHERE id BETWEEN ?1 AND ?2")?.execute([first, deleted])?;
        Ok(count == STORE_EXPIRY_STEP)
    }

    /// The next channels of a hub whose limits may have become smaller.
    fn sweep_step(&mut self, db: &Connection, place: usize) -> Result<bool> {
        let hub = &mut self.hubs[place];
        let Some(&after) = self.expiry.sweeps.get(&hub.number) else { return Ok(false) };
        let limit = |limit: Option<u64>| limit.map_or(i64::MAX, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
        let (messages, bytes) = (limit(hub.limits.messages), limit(hub.limits.bytes));
        let mut rows = db.prepare_cached(
            "SELECT id, name, messages > ?3 OR bytes > ?4, hub FROM channels WHERE id > ?1 ORDER BY id LIMIT ?2",
        )?;
        let found: Vec<(i64, Arc<str>, bool)> = rows
            .query_map(params![after, SWEEP_STEP as i64, messages, bytes], |row| {
                let is_here = row.get::<_, i64>(3)? == i64::from(hub.number);
                Ok((row.get(0)?, row.get(1)?, row.get::<_, bool>(2)? && is_here))
            })?
            .collect::<Result<_>>()?;
        for (_, name, _) in found.iter().filter(|(.., is_beyond)| *is_beyond) {
            // A channel that changes is brought within its limits.
            self.channels.change(db, hub, name)?;
        }
        match found.last() {
            Some(&(last, ..)) if found.len() == SWEEP_STEP => {
                self.expiry.sweeps.insert(hub.number, last);
                Ok(true)
            }
            _ => {
                self.expiry.sweeps.remove(&hub.number);
                Ok(false)
            }
        }
    }

    /// Forgets the channels that have been empty for longest, where there are too many.
    fn forget_tombstones(&mut self, db: &Connection, place: usize) -> Result<bool> {
        if self.hubs[place].tombstones <= TOMBSTONES_MAX as u64 {
            return Ok(false);
        }
        self.flush(db)?;
        let hub = &mut self.hubs[place];
        let step = (hub.tombstones.saturating_sub(TOMBSTONES_MAX as u64)).min(STORE_EXPIRY_STEP as u64);
        let empty = "SELECT id FROM channels WHERE hub = ?1 AND messages = 0 ORDER BY dropped LIMIT ?2";
        let dropped: Option<i64> = db
            .prepare_cached(&format!("SELECT max(dropped) FROM channels WHERE id IN ({empty})"))?
            .query_row(params![hub.number, step as i64], |row| row.get(0))?;
        let count = db
            .prepare_cached(&format!("DELETE FROM channels WHERE id IN ({empty})"))?
            .execute(params![hub.number, step as i64])?;
        hub.tombstones = hub.tombstones.saturating_sub(count as u64);
        hub.floor = hub.floor.max(dropped.unwrap_or(0).max(0) as u64);
        hub.is_changed = true;
        self.channels.forget_empty(hub.number);
        Ok(hub.tombstones > TOMBSTONES_MAX as u64 && count > 0)
    }
}

/// Moves pages from the end of the database to free places, and shortens it. While it `is_busy`, an eighth may be free, because the
/// next messages need it. Returns whether there is more to do.
pub(super) fn give_back(db: &Connection, is_busy: bool) -> Result<bool> {
    let pragma = |name: &str| db.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let free = pragma("freelist_count")?;
    let allowed = if is_busy { FREE_PAGES_MIN.max(pragma("page_count")? / 8) } else { 0 };
    if free <= allowed {
        return Ok(false);
    }
    let mut step = db.prepare(&format!("PRAGMA incremental_vacuum({STORE_VACUUM_STEP})"))?;
    let mut rows = step.query([])?;
    while rows.next()?.is_some() {}
    Ok(free - STORE_VACUUM_STEP as i64 > allowed)
}
