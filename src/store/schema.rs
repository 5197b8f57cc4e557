//! The tables of the store, the settings of its connections, and the checksum of a row.
//!
//! SQLite has no checksums for what is in the database file. So each row of a message, a hub, a key and a mark carries its own, and a row
//! is self-contained: a message has the name of its channel. So all rows that are whole can be found again in a damaged file,
//! whatever became of the rest (`salvage`).

use std::hash::Hasher as _;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Result};
use siphasher::sip::SipHasher13;

use super::Sync;

/// The format of the tables; `user_version` of the database.
pub(super) const FORMAT: i32 = 1;
/// `application_id` of the database: "push".
pub(super) const APPLICATION: i32 = 0x7075_7368;
/// The size of a page of the database, in bytes.
pub(super) const PAGE: usize = 4096;
/// The bits of an offset in the number of a message. The hub is above them.
const OFFSET_BITS: u32 = 48;
/// The largest offset.
pub(super) const OFFSET_MAX: u64 = (1 << OFFSET_BITS) - 1;
/// The largest number of a hub.
pub(super) const HUB_MAX: u16 = 0x7fff;
/// The log has so many pages before the writer itself moves it into the database. The thread beside it does so much earlier.
const LOG_PAGES: u32 = 16_384;
/// The memory for pages of each connection, in KiB.
const CACHE_KIB: u32 = 16_384;

/// `messages`: in the order of all publications of a hub. `channels`: counters, so that limits are exact without counting.
/// `dropped`: up to this offset the channel is incomplete. `hubs.floor`: the same for channels without a row.
const TABLES: &str = "
CREATE TABLE hubs(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, epoch INTEGER NOT NULL, reserved INTEGER NOT NULL,
    floor INTEGER NOT NULL, messages INTEGER, bytes INTEGER, age INTEGER, sum INTEGER NOT NULL);
CREATE TABLE hub_names(id INTEGER PRIMARY KEY, name TEXT NOT NULL, sum INTEGER NOT NULL);
CREATE TABLE channels(id INTEGER PRIMARY KEY, hub INTEGER NOT NULL, name TEXT NOT NULL, dropped INTEGER NOT NULL,
    messages INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE UNIQUE INDEX channels_by_name ON channels(hub, name);
CREATE INDEX channels_that_are_empty ON channels(hub, dropped) WHERE messages = 0;
CREATE TABLE messages(id INTEGER PRIMARY KEY, channel INTEGER NOT NULL, name TEXT NOT NULL, kind INTEGER NOT NULL,
    time INTEGER NOT NULL, sum INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE INDEX messages_by_channel ON messages(channel);
CREATE TABLE keys(id INTEGER PRIMARY KEY, hub INTEGER NOT NULL, channel TEXT NOT NULL, key TEXT NOT NULL, offset INTEGER NOT NULL,
    subscribers INTEGER NOT NULL, time INTEGER NOT NULL, sum INTEGER NOT NULL);
CREATE UNIQUE INDEX keys_by_name ON keys(hub, channel, key);
CREATE INDEX keys_by_time ON keys(time);
";
/// Stores of earlier versions have no marks.
const MARKS: &str = "
CREATE TABLE IF NOT EXISTS marks(id INTEGER PRIMARY KEY, hub INTEGER NOT NULL, feed TEXT NOT NULL, offset INTEGER NOT NULL,
    mark BLOB NOT NULL, sum INTEGER NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS marks_by_feed ON marks(hub, feed);
";

/// Creates the tables in an empty database.
pub(super) fn create(path: &Path) -> Result<()> {
    let db = connect(path)?;
    db.execute_batch(&format!(
        "PRAGMA page_size = {PAGE}; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
         BEGIN; PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT}; {TABLES} {MARKS} COMMIT;"
    ))?;
    empty_log(&db).map(drop)
}

/// Adds the tables that a store of an earlier version does not have.
pub(super) fn add_missing(db: &Connection) -> Result<()> {
    db.execute_batch(&format!("BEGIN; {MARKS} COMMIT;"))
}

/// A connection of the writer. `Always`: a commit returns when it is on the disk.
pub(super) fn writing(path: &Path, sync: Sync) -> Result<Connection> {
    let db = connect(path)?;
    let level = match sync {
        Sync::Always => "FULL",
        Sync::Every(_) => "NORMAL",
    };
    // `secure_delete`: what is deleted is overwritten in pages that are written anyway. A page that becomes free keeps it until it is
    // used again or given back.
    db.execute_batch(&format!("PRAGMA synchronous = {level}; PRAGMA secure_delete = FAST;"))?;
    Ok(db)
}

/// A connection that moves the log beside the writer.
pub(super) fn beside(path: &Path) -> Result<Connection> {
    let db = connect(path)?;
    // It opens the log, too.
    db.query_row("SELECT count(*) FROM hubs", [], |_| Ok(()))?;
    Ok(db)
}

/// A connection that reads beside the writer.
pub(super) fn reading(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let db = Connection::open_with_flags(path, flags)?;
    set_up(&db)?;
    Ok(db)
}

/// The same without any change of the files, also where it is the only connection: the last one that closes would move the log.
pub(super) fn inspecting(path: &Path) -> Result<Connection> {
    let db = reading(path)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(db)
}

fn connect(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let db = Connection::open_with_flags(path, flags)?;
    set_up(&db)?;
    Ok(db)
}

fn set_up(db: &Connection) -> Result<()> {
    db.set_prepared_statement_cache_capacity(64);
    db.busy_timeout(std::time::Duration::from_millis(100))?;
    // `cell_size_check`: a damaged page is an error, never a wrong row.
    db.execute_batch(&format!(
        "PRAGMA cache_size = -{CACHE_KIB}; PRAGMA wal_autocheckpoint = {LOG_PAGES}; PRAGMA cell_size_check = ON;"
    ))
}

/// Moves as much of the log into the database as can be without waiting. Returns whether that was all.
pub(super) fn checkpoint(db: &Connection) -> Result<bool> {
    checkpoint_as(db, "PASSIVE")
}

/// The same, and makes the log empty.
pub(super) fn empty_log(db: &Connection) -> Result<bool> {
    // Emptying waits for readers, so it is only tried when none of them needs the log.
    Ok(checkpoint(db)? && checkpoint_as(db, "TRUNCATE")?)
}

fn checkpoint_as(db: &Connection, mode: &str) -> Result<bool> {
    db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        Ok(row.get::<_, i64>(0)? == 0 && row.get::<_, i64>(1)? == row.get::<_, i64>(2)?)
    })
}

/// The number of a message.
pub(super) fn message_id(hub: u16, offset: u64) -> i64 {
    (i64::from(hub) << OFFSET_BITS) | offset.min(OFFSET_MAX) as i64
}

/// Hub and offset of a number.
pub(super) fn of_message_id(id: i64) -> (u16, u64) {
    ((id >> OFFSET_BITS) as u16, id as u64 & OFFSET_MAX)
}

/// The checksum of a row: 32 bits, which take five bytes at most.
struct Sum(SipHasher13);

impl Sum {
    /// `table`: so that the row of one table is never taken for that of another.
    fn of(table: u8) -> Sum {
        let mut hasher = SipHasher13::new_with_keys(0x7075_7368_6400_0001, u64::from(table));
        hasher.write(&[table]);
        Sum(hasher)
    }

    fn number(mut self, number: i64) -> Sum {
        self.0.write(&number.to_le_bytes());
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Sum {
        self.0.write(&(bytes.len() as u64).to_le_bytes());
        self.0.write(bytes);
        self
    }

    fn end(self) -> i64 {
        i64::from(self.0.finish() as u32)
    }
}

/// The checksum of a message. Not of its channel's number, which is only valid in this file.
pub(super) fn message_sum(id: i64, name: &str, kind: i64, time: i64, payload: &[u8]) -> i64 {
    Sum::of(1).number(id).bytes(name.as_bytes()).number(kind).number(time).bytes(payload).end()
}

/// The checksum of the name of a hub.
pub(super) fn name_sum(id: i64, name: &str) -> i64 {
    Sum::of(2).number(id).bytes(name.as_bytes()).end()
}

/// The numbers of a hub that must be right: epoch, reserved offsets, floor.
pub(super) fn hub_sum(id: i64, name: &str, numbers: [i64; 3], limits: [Option<i64>; 3]) -> i64 {
    let mut sum = Sum::of(3).number(id).bytes(name.as_bytes());
    for number in numbers {
        sum = sum.number(number);
    }
    for limit in limits {
        sum = sum.number(limit.unwrap_or(-1));
    }
    sum.end()
}

/// The checksum of an idempotency key.
pub(super) fn key_sum(hub: i64, channel: &str, key: &str, numbers: [i64; 3]) -> i64 {
    let mut sum = Sum::of(4).number(hub).bytes(channel.as_bytes()).bytes(key.as_bytes());
    for number in numbers {
        sum = sum.number(number);
    }
    sum.end()
}

/// The checksum of the mark of a feed.
pub(super) fn mark_sum(hub: i64, feed: &str, offset: i64, mark: &[u8]) -> i64 {
    Sum::of(5).number(hub).bytes(feed.as_bytes()).number(offset).bytes(mark).end()
}

/// A connection that fills a new database, of which nothing is used if it is not completed.
pub(super) fn unsafe_writing(path: &Path) -> Result<Connection> {
    let db = connect(path)?;
    db.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
    Ok(db)
}
