//! Rows out of the bytes of a database, whatever became of its structure.
//!
//! Every page of the database and of its log is taken by itself. If it is a leaf of a table, its cells are read as rows, and a row
//! whose checksum is right is whole. Old copies of pages hold rows that were deleted; the limits of the hub delete them again.
//!
//! The format: <https://www.sqlite.org/fileformat2.html>, sections 1.6 (pages), 2.1 (records) and 4.2 (the log).

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::files::Files;
use super::log_file::{self, FRAME, HEADER};
use super::schema::{PAGE, hub_sum, key_sum, mark_sum, message_sum, name_sum};

/// The first byte of the other kinds of pages: parts of an index, the inner pages of a table, and what continues a long row (the
/// number of the next page, which is less than 2^24 up to 64 GiB). A page of the latter kind must never be taken for a leaf: a
/// client chooses its bytes.
const OTHER_PAGES: [u8; 4] = [0, 2, 5, 10];
/// The longest row, in bytes: a message of 64 MiB and its name.
const ROW_BYTES_MAX: u64 = 80 << 20;
/// A row that is longer than this continues on other pages, of which this much less is in the leaf.
const LOCAL_MAX: u64 = PAGE as u64 - 35;
const LOCAL_MIN: u64 = (PAGE as u64 - 12) * 32 / 255 - 23;

/// A row.
#[derive(Debug)]
pub(super) enum Row<'a> {
    Message {
        id: i64,
        name: &'a str,
        kind: i64,
        time: i64,
        sum: i64,
        payload: &'a [u8],
    },
    Hub {
        id: i64,
        name: &'a str,
        reserved: i64,
        limits: [Option<i64>; 3],
    },
    HubName {
        id: i64,
        name: &'a str,
    },
    Key {
        hub: i64,
        channel: &'a str,
        key: &'a str,
        numbers: [i64; 3],
    },
    Mark {
        hub: i64,
        feed: &'a str,
        offset: i64,
        mark: &'a [u8],
    },
    /// A message that is not whole.
    Broken {
        id: i64,
    },
}

/// Calls `found` for every row. A row may come more than once.
pub(super) fn scan<E: From<io::Error>>(files: &Files, mut found: impl FnMut(Row) -> Result<(), E>) -> Result<(), E> {
    let mut source = Source::open(files)?;
    let mut page = vec![0; PAGE];
    let places = source.places();
    for place in places {
        source.read(place, &mut page)?;
        source.is_log_first = matches!(place, Place::Log(_));
        rows(&page, &source, &mut found)?;
    }
    Ok(())
}

/// Where a page is: its place in bytes.
#[derive(Debug, Clone, Copy)]
enum Place {
    Database(u64),
    Log(u64),
}

struct Source {
    database: Option<File>,
    log: Option<File>,
    database_bytes: u64,
    log_bytes: u64,
    /// The last version of each page in the log.
    newest: HashMap<u32, u64>,
    /// Whether the row that is read is from the log.
    is_log_first: bool,
}

impl Source {
    fn open(files: &Files) -> io::Result<Source> {
        let (database, log) = (log_file::open(&files.database())?, log_file::open(&files.log())?);
        let length = |file: &Option<File>| file.as_ref().map_or(Ok(0), |file| file.metadata().map(|found| found.len()));
        let (database_bytes, log_bytes) = (length(&database)?, length(&log)?);
        let mut source =
            Source { database, log, database_bytes, log_bytes, newest: HashMap::new(), is_log_first: false };
        for place in source.places() {
            if let (Place::Log(at), Some(log)) = (place, &source.log) {
                let mut number = [0; 4];
                log.read_exact_at(&mut number, at - 24)?;
                source.newest.insert(u32::from_be_bytes(number), at);
            }
        }
        Ok(source)
    }

    fn places(&self) -> impl Iterator<Item = Place> + use<> {
        let database = (0..self.database_bytes / PAGE as u64).map(|page| Place::Database(page * PAGE as u64));
        let frames = self.log_bytes.saturating_sub(HEADER as u64) / FRAME as u64;
        let log = (0..frames).map(|frame| Place::Log(HEADER as u64 + frame * FRAME as u64 + 24));
        database.chain(log)
    }

    fn read(&self, place: Place, page: &mut [u8]) -> io::Result<()> {
        let (file, at) = match place {
            Place::Database(at) => (&self.database, at),
            Place::Log(at) => (&self.log, at),
        };
        file.as_ref().map_or(Ok(()), |file| file.read_exact_at(page, at))
    }

    /// A page by its number. `None`: there is no such page.
    fn page(&self, number: u32, page: &mut [u8]) -> Option<()> {
        let at = u64::from(number.checked_sub(1)?) * PAGE as u64;
        let in_database = (at + PAGE as u64 <= self.database_bytes).then_some(Place::Database(at));
        let in_log = self.newest.get(&number).map(|at| Place::Log(*at));
        let place = if self.is_log_first { in_log.or(in_database) } else { in_database.or(in_log) };
        self.read(place?, page).ok()
    }
}

/// All rows of a page, if it is a leaf of a table, or was one before its first byte was damaged.
fn rows<E>(page: &[u8], source: &Source, found: &mut impl FnMut(Row) -> Result<(), E>) -> Result<(), E> {
    if OTHER_PAGES.contains(&page[0]) {
        return Ok(());
    }
    let count = usize::from(u16::from_be_bytes([page[3], page[4]]));
    let pointers = page[8..].chunks_exact(2).take(count);
    for pointer in pointers {
        let at = usize::from(u16::from_be_bytes([pointer[0], pointer[1]]));
        if let Some((id, record)) = page.get(at..).and_then(|cell| record(cell, source))
            && let Some(row) = values(&record).and_then(|values| row(id, &values))
        {
            found(row)?;
        }
    }
    Ok(())
}

/// The number of a row, and its bytes.
fn record(cell: &[u8], source: &Source) -> Option<(i64, Vec<u8>)> {
    let (length, rest) = varint(cell)?;
    let (id, rest) = varint(rest)?;
    if length > ROW_BYTES_MAX {
        return None;
    }
    if length <= LOCAL_MAX {
        return Some((id as i64, rest.get(..length as usize)?.to_vec()));
    }
    let surplus = LOCAL_MIN + (length - LOCAL_MIN) % (PAGE as u64 - 4);
    let local = if surplus <= LOCAL_MAX { surplus } else { LOCAL_MIN } as usize;
    let mut record = rest.get(..local)?.to_vec();
    let mut next = u32::from_be_bytes(rest.get(local..local + 4)?.try_into().ok()?);
    let mut page = vec![0; PAGE];
    while record.len() < length as usize {
        source.page(next, &mut page)?;
        next = u32::from_be_bytes(page[..4].try_into().ok()?);
        let missing = (length as usize - record.len()).min(PAGE - 4);
        record.extend_from_slice(&page[4..4 + missing]);
    }
    Some((id as i64, record))
}

#[derive(Debug)]
enum Value<'a> {
    Null,
    Number(i64),
    Text(&'a str),
    Blob(&'a [u8]),
}

/// The columns of a row. `None`: it is none of ours.
fn values(record: &[u8]) -> Option<Vec<Value<'_>>> {
    let (header, mut types) = varint(record)?;
    let header = usize::try_from(header).ok()?;
    let mut content = record.get(header..)?;
    types = types.get(..header.checked_sub(record.len() - types.len())?)?;
    let mut values = Vec::new();
    while !types.is_empty() {
        if values.len() == 9 {
            return None;
        }
        let (kind, rest) = varint(types)?;
        types = rest;
        let length = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 => 8,
            12.. => usize::try_from((kind - 12) / 2).ok()?,
            _ => return None,
        };
        let bytes = content.get(..length)?;
        content = &content[length..];
        values.push(match kind {
            0 => Value::Null,
            8 | 9 => Value::Number(kind as i64 - 8),
            1..=6 => Value::Number(number(bytes)),
            kind if kind % 2 == 0 => Value::Blob(bytes),
            // A text of another encoding is a damaged one.
            _ => Value::Text(std::str::from_utf8(bytes).unwrap_or("\0")),
        });
    }
    Some(values)
}

/// A whole number of one to eight bytes, with a sign.
fn number(bytes: &[u8]) -> i64 {
    let sign = if bytes.first().is_some_and(|first| first & 0x80 != 0) { -1 } else { 0 };
    bytes.iter().fold(sign, |number, byte| (number << 8) | i64::from(*byte))
}

/// What a row is, if it is whole.
fn row<'a>(id: i64, values: &[Value<'a>]) -> Option<Row<'a>> {
    use Value::{Blob, Null, Number, Text};
    let optional = |value: &Value| match value {
        Null => Some(None),
        Number(number) => Some(Some(*number)),
        _ => None,
    };
    match *values {
        [Null, Number(_), Text(name), Number(kind), Number(time), Number(sum), Blob(payload)] => {
            if message_sum(id, name, kind, time, payload) != sum {
                return Some(Row::Broken { id });
            }
            Some(Row::Message { id, name, kind, time, sum, payload })
        }
        [
            Null,
            Text(name),
            Number(epoch),
            Number(reserved),
            Number(floor),
            ref messages,
            ref bytes,
            ref age,
            Number(sum),
        ] => {
            let limits = [optional(messages)?, optional(bytes)?, optional(age)?];
            let is_whole = hub_sum(id, name, [epoch, reserved, floor], limits) == sum;
            is_whole.then_some(Row::Hub { id, name, reserved, limits })
        }
        [Null, Text(name), Number(sum)] => (name_sum(id, name) == sum).then_some(Row::HubName { id, name }),
        [
            Null,
            Number(hub),
            Text(channel),
            Text(key),
            Number(offset),
            Number(subscribers),
            Number(time),
            Number(sum),
        ] => {
            let numbers = [offset, subscribers, time];
            (key_sum(hub, channel, key, numbers) == sum).then_some(Row::Key { hub, channel, key, numbers })
        }
        [Null, Number(hub), Text(feed), Number(offset), Blob(mark), Number(sum)] => {
            (mark_sum(hub, feed, offset, mark) == sum).then_some(Row::Mark { hub, feed, offset, mark })
        }
        _ => None,
    }
}

/// A number of one to nine bytes, and what is behind it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (place, &byte) in bytes.iter().take(9).enumerate() {
        if place == 8 {
            return Some(((number << 8) | u64::from(byte), &bytes[9..]));
        }
        number = (number << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((number, &bytes[place + 1..]));
        }
    }
    None
}
