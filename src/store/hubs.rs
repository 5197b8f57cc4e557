//! The hubs of a store: their numbering, their limits, and what is reserved.
//!
//! Offsets are reserved on disk in large blocks before any of them is given. So after a crash numbering continues above everything
//! that was given, though the last publications may have been no longer written. The reservation of a hub that begins is moved from the
//! log into the database at once, so not even the loss of the log makes an offset come twice. Later ones are made when half of one is
//! used: long before they are needed, they are moved with everything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Result, Row, params};

use super::schema::{self, HUB_MAX, message_id, of_message_id};
use super::{HubState, Limits, StoredHub, StoredKey, marks};
use crate::config::limits::{IDEMPOTENCY_AGE, STORE_OFFSETS_RESERVED};
use crate::hub::Epoch;

/// A hub, as the writer knows it.
#[derive(Debug, Clone)]
pub(super) struct Hub {
    pub number: u16,
    pub name: String,
    pub epoch: u64,
    /// The largest offset that may have been given.
    pub reserved: u64,
    /// Up to this offset, channels without a row may be incomplete.
    pub floor: u64,
    pub limits: Limits,
    /// How many channels have a row, but no message.
    pub tombstones: u64,
    /// The largest offset that was written.
    pub last: u64,
    pub written: Arc<AtomicU64>,
    pub is_changed: bool,
}

impl Hub {
    fn new(number: u16, name: &str) -> Hub {
        Hub {
            number,
            name: name.to_owned(),
            epoch: Epoch::random().0,
            reserved: 0,
            floor: 0,
            limits: Limits::default(),
            tombstones: 0,
            last: 0,
            written: Arc::default(),
            is_changed: true,
        }
    }

    fn of_row(row: &Row) -> Result<(Hub, bool)> {
        let number: i64 = row.get(0)?;
        let name: String = row.get(1)?;
        let numbers: [i64; 3] = [row.get(2)?, row.get(3)?, row.get(4)?];
        let limits: [Option<i64>; 3] = [row.get(5)?, row.get(6)?, row.get(7)?];
        let is_whole = row.get::<_, i64>(8)? == schema::hub_sum(number, &name, numbers, limits);
        let [epoch, reserved, floor] = numbers.map(|number| number.max(0) as u64);
        let [messages, bytes, age] = limits.map(|limit| limit.map(|limit| limit.max(0) as u64));
        let limits = Limits { messages, bytes, age: age.map(Duration::from_secs) };
        let hub = Hub { epoch, reserved, floor, limits, is_changed: false, ..Hub::new(number as u16, &name) };
        Ok((hub, is_whole))
    }

    /// Writes its row.
    pub fn save(&self, db: &Connection) -> Result<()> {
        let (id, name) = (i64::from(self.number), &self.name);
        let numbers = [self.epoch as i64, self.reserved as i64, self.floor as i64];
        let [messages, bytes] = [self.limits.messages, self.limits.bytes].map(|limit| limit.map(to_i64));
        let age = self.limits.age.map(|age| to_i64(age.as_secs()));
        let sum = schema::hub_sum(id, name, numbers, [messages, bytes, age]);
        let [epoch, reserved, floor] = numbers;
        db.prepare_cached("INSERT OR REPLACE INTO hubs VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?
            .execute(params![id, name, epoch, reserved, floor, messages, bytes, age, sum])?;
        // A second time on another page: without the name of their hub, messages would be lost.
        db.prepare_cached("INSERT OR IGNORE INTO hub_names VALUES(?1, ?2, ?3)")?.execute(params![
            id,
            name,
            schema::name_sum(id, name)
        ])?;
        Ok(())
    }

    /// Reserves more offsets, if half of them are used.
    pub fn reserve(&mut self) {
        if self.last + STORE_OFFSETS_RESERVED / 2 > self.reserved {
            self.reserved = self.last + STORE_OFFSETS_RESERVED;
            self.is_changed = true;
        }
    }

    fn stored(&self) -> StoredHub {
        StoredHub { number: self.number, written: self.written.clone() }
    }
}

fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// All hubs, and whether each row is whole.
pub(super) fn read(db: &Connection) -> Result<Vec<(Hub, bool)>> {
    let columns = "id, name, epoch, reserved, floor, messages, bytes, age, sum";
    let mut rows = db.prepare(&format!("SELECT {columns} FROM hubs ORDER BY id"))?;
    rows.query_map([], Hub::of_row)?.collect()
}

/// All hubs, with what is counted.
pub(super) fn load(db: &Connection) -> Result<Vec<Hub>> {
    let mut hubs = Vec::new();
    for (mut hub, _) in read(db)? {
        let count = "SELECT count(*) FROM channels WHERE hub = ?1 AND messages = 0";
        hub.tombstones = db.query_row(count, [hub.number], |row| row.get::<_, i64>(0))?.max(0) as u64;
        let (first, end) = (message_id(hub.number, 0), message_id(hub.number, schema::OFFSET_MAX));
        let last = "SELECT id FROM messages WHERE id BETWEEN ?1 AND ?2 ORDER BY id DESC LIMIT 1";
        let last: Option<i64> = db.query_row(last, [first, end], |row| row.get(0)).optional()?;
        hub.last = last.map_or(0, |id| of_message_id(id).1);
        hub.written.store(hub.last, Ordering::Release);
        hubs.push(hub);
    }
    Ok(hubs)
}

/// Begins or continues a hub: its offsets go on above all that may have been given. `None`: there are too many hubs.
pub(super) fn begin(
    db: &Connection,
    hubs: &mut Vec<Hub>,
    name: &str,
    limits: Limits,
    now: i64,
) -> Result<Option<HubState>> {
    let place = match hubs.iter().position(|hub| hub.name == name) {
        Some(place) => place,
        None => {
            let number = hubs.iter().map(|hub| hub.number + 1).max().unwrap_or(1);
            if number > HUB_MAX {
                return Ok(None);
            }
            hubs.push(Hub::new(number, name));
            hubs.len() - 1
        }
    };
    let hub = &mut hubs[place];
    let next = hub.reserved.max(hub.last) + 1;
    hub.reserved = next - 1 + STORE_OFFSETS_RESERVED;
    hub.last = next - 1;
    hub.limits = limits;
    hub.save(db)?;
    hub.is_changed = false;
    let (keys, marks) = (keys(db, hub.number, now)?, marks::read(db, hub.number)?);
    Ok(Some(HubState { id: hub.stored(), epoch: hub.epoch, next, keys, marks }))
}

fn keys(db: &Connection, hub: u16, now: i64) -> Result<Vec<StoredKey>> {
    let oldest = now - IDEMPOTENCY_AGE.as_secs() as i64;
    let mut found = Vec::new();
    let mut rows = db.prepare_cached(
        "SELECT channel, key, offset, subscribers, time, sum FROM keys WHERE hub = ?1 AND time > ?2 ORDER BY id",
    )?;
    let mut rows = rows.query(params![hub, oldest])?;
    while let Some(row) = rows.next()? {
        let (channel, key): (Box<str>, Box<str>) = (row.get(0)?, row.get(1)?);
        let numbers: [i64; 3] = [row.get(2)?, row.get(3)?, row.get(4)?];
        if row.get::<_, i64>(5)? == schema::key_sum(i64::from(hub), &channel, &key, numbers) {
            let [offset, subscribers, time] = numbers;
            let age = Duration::from_secs((now - time).max(0) as u64);
            found.push(StoredKey { channel, key, offset: offset as u64, subscribers: subscribers.max(0) as u64, age });
        }
    }
    Ok(found)
}
