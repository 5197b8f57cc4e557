//! A page of a hub's history on disk: messages of some channels, in order.
//!
//! Of a few channels, the numbers of the next messages of each are read from the index, and merged. Of many (a pattern that matches
//! thousands), all messages of the hub are read in order, and those of other channels skipped. Both look at a bounded number of
//! rows. What is beyond the limits of the hub is in no page, even if it is not deleted yet.

use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Result, params};

use super::append::kind_of;
use super::channels::is_beyond;
use super::hubs;
use super::schema::{message_id, message_sum, of_message_id};
use super::{Limits, StoredHub};
use crate::config::limits::{GAP_CHANNELS_MAX, STORE_LOOKED_AT_MAX};
use crate::hub::{Kind, Selector};

/// A pattern is resolved to its channels if it can match at most so many; otherwise all messages of the hub are looked at.
const RESOLVED_MAX: usize = 1024;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct PageQuery {
    /// The hub.
    pub hub: StoredHub,
    /// The channels. They should not overlap.
    pub channels: Arc<[Selector]>,
    /// The offset after which the page begins; 0: at the oldest message that is kept.
    pub since: u64,
    /// The last offset that may be in it: at most [`StoredHub::written`].
    pub until: u64,
    /// The most messages.
    pub messages: usize,
    /// The most bytes of payloads. One message always fits.
    pub bytes: usize,
}

impl PageQuery {
    fn selectors(&self) -> Vec<Arc<str>> {
        self.channels.iter().map(|selector| selector.text.clone()).collect()
    }
}

/// A page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredPage {
    /// The messages, in order.
    pub messages: Vec<StoredMessage>,
    /// The next page begins after this offset. `until`: nothing more is there. A page may end before with fewer messages than asked
    /// for, or none, when it has looked at many others.
    pub next: u64,
    /// The channels that have lost a message after `since`. Where they are too many, the selectors.
    pub gone: Vec<Arc<str>>,
}

/// A message from the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its offset.
    pub offset: u64,
    /// Its channel.
    pub channel: Arc<str>,
    /// What it is made of.
    pub kind: Kind,
    /// The message.
    pub payload: Bytes,
    /// When it was published, in seconds since 1970.
    pub time: i64,
}

impl StoredPage {
    /// The page of what cannot be read: everything is gone.
    pub(super) fn lost(query: &PageQuery) -> StoredPage {
        StoredPage { messages: Vec::new(), next: query.until, gone: query.selectors() }
    }

    fn note_gone(&mut self, name: &Arc<str>) {
        if self.gone.len() <= GAP_CHANNELS_MAX && !self.gone.contains(name) {
            self.gone.push(name.clone());
        }
    }
}

/// A channel that is selected.
struct Selected {
    id: i64,
    name: Arc<str>,
    dropped: u64,
}

/// Reads a page. `damaged` gets the messages whose bytes are not what was written; they are left out.
pub(super) fn read(db: &Connection, query: &PageQuery, now: i64, damaged: &mut Vec<i64>) -> Result<StoredPage> {
    // One transaction, so that everything is read from the same state.
    let transaction = db.unchecked_transaction()?;
    let mut page = StoredPage { next: query.until, ..StoredPage::default() };
    let hub = hubs::read(db)?.into_iter().map(|(hub, _)| hub).find(|hub| hub.number == query.hub.number);
    if let Some(hub) = hub {
        let mut reading =
            Reading { db, query, limits: hub.limits, oldest: oldest(hub.limits, now), page: &mut page, damaged };
        let (selected, is_complete) = reading.select()?;
        reading.note_gone(&selected, is_complete, hub.floor)?;
        if is_complete { reading.merge(&selected)? } else { reading.scan()? }
    }
    transaction.finish()?;
    // Also of the messages on the way. No more than one name too many was noted.
    if page.gone.len() > GAP_CHANNELS_MAX {
        page.gone = query.selectors();
    }
    Ok(page)
}

/// Messages of this time and older are too old.
fn oldest(limits: Limits, now: i64) -> i64 {
    limits.age.map_or(i64::MIN, |age: Duration| now.saturating_sub_unsigned(age.as_secs()))
}

struct Reading<'a> {
    db: &'a Connection,
    query: &'a PageQuery,
    limits: Limits,
    oldest: i64,
    page: &'a mut StoredPage,
    damaged: &'a mut Vec<i64>,
}

impl Reading<'_> {
    /// The channels that are selected, and whether these are all.
    fn select(&self) -> Result<(Vec<Selected>, bool)> {
        let (mut selected, mut is_complete) = (Vec::new(), true);
        let hub = self.query.hub.number;
        for selector in self.query.channels.iter() {
            if !selector.is_pattern {
                let found = self
                    .db
                    .prepare_cached("SELECT id, name, dropped FROM channels WHERE hub = ?1 AND name = ?2")?
                    .query_row(params![hub, &*selector.text], of_row)
                    .optional()?;
                selected.extend(found);
                continue;
            }
            let (first, end) = range_of(&selector.text);
            let mut rows = self.db.prepare_cached(
                "SELECT id, name, dropped FROM channels WHERE hub = ?1 AND name >= ?2 AND (?3 IS NULL OR name < ?3) LIMIT ?4",
            )?;
            let mut looked_at = 0;
            for channel in rows.query_map(params![hub, first, end, RESOLVED_MAX as i64], of_row)? {
                let channel = channel?;
                looked_at += 1;
                if selector.selects(&channel.name) {
                    selected.push(channel);
                }
            }
            is_complete &= looked_at < RESOLVED_MAX;
        }
        selected.sort_by_key(|channel| channel.id);
        selected.dedup_by_key(|channel| channel.id);
        Ok((selected, is_complete))
    }

    /// Notes which channels have lost a message after `since`.
    fn note_gone(&mut self, selected: &[Selected], is_complete: bool, floor: u64) -> Result<()> {
        let since = self.query.since;
        for channel in selected {
            if channel.dropped > since || self.first_kept(channel.id)?.1 > since {
                self.page.note_gone(&channel.name);
            }
        }
        for selector in self.query.channels.iter() {
            // Channels without a row are only known up to the floor; so are those of a pattern that were not looked at.
            let is_known = selector.is_pattern && is_complete
                || !selector.is_pattern && selected.iter().any(|channel| channel.name == selector.text);
            if floor > since && !is_known || selector.is_pattern && !is_complete && self.may_have_dropped(selector)? {
                self.page.note_gone(&selector.text);
            }
        }
        Ok(())
    }

    /// Whether one of very many channels has dropped something after `since`.
    fn may_have_dropped(&self, selector: &Selector) -> Result<bool> {
        let (first, end) = range_of(&selector.text);
        let mut rows = self.db.prepare_cached(
            "SELECT name FROM channels WHERE hub = ?1 AND name >= ?2 AND (?3 IS NULL OR name < ?3) AND dropped > ?4",
        )?;
        let mut rows = rows.query(params![self.query.hub.number, first, end, self.query.since as i64])?;
        while let Some(row) = rows.next()? {
            if selector.selects(row.get_ref(0)?.as_str()?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The number of the first message of a channel that is within its limits of messages and bytes, and the offset of the last one
    /// that is not (0: there is none).
    fn first_kept(&self, channel: i64) -> Result<(i64, u64)> {
        let (mut messages, mut bytes): (u64, u64) = self
            .db
            .prepare_cached("SELECT messages, bytes FROM channels WHERE id = ?1")?
            .query_row([channel], |row| {
                Ok((row.get::<_, i64>(0)?.max(0) as u64, row.get::<_, i64>(1)?.max(0) as u64))
            })?;
        if !is_beyond(messages, bytes, self.limits) {
            return Ok((0, 0));
        }
        let mut rows =
            self.db.prepare_cached("SELECT id, length(payload) FROM messages WHERE channel = ?1 ORDER BY id")?;
        let mut rows = rows.query([channel])?;
        let mut last = 0;
        while is_beyond(messages, bytes, self.limits) {
            let Some(row) = rows.next()? else { break };
            last = row.get(0)?;
            messages = messages.saturating_sub(1);
            bytes = bytes.saturating_sub(row.get::<_, i64>(1)?.max(0) as u64);
        }
        Ok((last + 1, of_message_id(last).1))
    }

    /// The next messages of some channels, in order.
    fn merge(&mut self, selected: &[Selected]) -> Result<()> {
        let number = self.query.hub.number;
        let until = message_id(number, self.query.until);
        let mut after = message_id(number, self.query.since);
        let first_kept = selected.iter().map(|channel| Ok((channel.id, self.first_kept(channel.id)?.0)));
        let channels: Vec<(i64, i64)> = first_kept.collect::<Result<_>>()?;
        let (mut bytes, mut looked_at) = (0, 0);
        loop {
            let wanted = self.query.messages.max(1) - self.page.messages.len();
            let ids = self.next_ids(&channels, after, until, wanted)?;
            for &id in &ids {
                let query = "SELECT id, name, kind, time, sum, payload FROM messages WHERE id = ?1";
                let mut row = self.db.prepare_cached(query)?;
                let mut row = row.query([id])?;
                let Some(row) = row.next()? else { continue };
                if !self.take(row, &mut bytes)? {
                    return Ok(());
                }
            }
            let Some(&last) = ids.last().filter(|_| ids.len() == wanted) else { return Ok(()) };
            looked_at += ids.len();
            if self.page.messages.len() >= self.query.messages || looked_at >= STORE_LOOKED_AT_MAX {
                self.page.next = of_message_id(last).1;
                return Ok(());
            }
            // Some were too old.
            after = last;
        }
    }

    /// The smallest numbers of messages of these channels. `channels`: their numbers, and the first message of each that counts.
    fn next_ids(&self, channels: &[(i64, i64)], after: i64, until: i64, wanted: usize) -> Result<Vec<i64>> {
        // The largest of them is on top.
        let mut smallest: BinaryHeap<i64> = BinaryHeap::new();
        let query = "SELECT id FROM messages WHERE channel = ?1 AND id BETWEEN ?2 AND ?3 ORDER BY id LIMIT ?4";
        let mut rows = self.db.prepare_cached(query)?;
        for &(channel, first_kept) in channels {
            let first = first_kept.max(after + 1);
            let last = if smallest.len() == wanted { smallest.peek().copied().unwrap_or(until) } else { until };
            for id in rows.query_map([channel, first, last, wanted as i64], |row| row.get(0))? {
                smallest.push(id?);
                if smallest.len() > wanted {
                    smallest.pop();
                }
            }
        }
        Ok(smallest.into_sorted_vec())
    }

    /// The next messages of a hub, but for those that are not selected.
    fn scan(&mut self) -> Result<()> {
        let number = self.query.hub.number;
        let (after, until) = (message_id(number, self.query.since), message_id(number, self.query.until));
        let mut first_kept = HashMap::new();
        let (mut bytes, mut looked_at) = (0, 0);
        let mut rows = self.db.prepare_cached(
            "SELECT id, name, kind, time, sum, payload, channel FROM messages WHERE id > ?1 AND id <= ?2 ORDER BY id",
        )?;
        let mut rows = rows.query([after, until])?;
        while let Some(row) = rows.next()? {
            let offset = of_message_id(row.get(0)?).1;
            let name = row.get_ref(1)?.as_str()?;
            looked_at += 1;
            if self.query.channels.iter().any(|selector| selector.selects(name)) {
                let channel = row.get(6)?;
                let first = match first_kept.get(&channel) {
                    Some(&first) => first,
                    None => *first_kept.entry(channel).or_insert(self.first_kept(channel)?.0),
                };
                if row.get::<_, i64>(0)? >= first && !self.take(row, &mut bytes)? {
                    return Ok(());
                }
            }
            if self.page.messages.len() >= self.query.messages || looked_at == STORE_LOOKED_AT_MAX {
                self.page.next = offset;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Adds a message to the page. `false`: it does not fit any more.
    fn take(&mut self, row: &rusqlite::Row, bytes: &mut usize) -> Result<bool> {
        let (id, name, kind, time): (i64, Arc<str>, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        let payload = row.get_ref(5)?.as_blob()?;
        if message_sum(id, &name, kind, time, payload) != row.get::<_, i64>(4)? {
            self.damaged.push(id);
            self.page.note_gone(&name);
            return Ok(true);
        }
        if time <= self.oldest {
            self.page.note_gone(&name);
            return Ok(true);
        }
        let offset = of_message_id(id).1;
        if !self.page.messages.is_empty() && *bytes + payload.len() > self.query.bytes {
            self.page.next = self.page.messages.last().map_or(self.query.since, |message| message.offset);
            return Ok(false);
        }
        *bytes += payload.len();
        let payload = Bytes::copy_from_slice(payload);
        self.page.messages.push(StoredMessage { offset, channel: name, kind: kind_of(kind), payload, time });
        Ok(true)
    }
}

fn of_row(row: &rusqlite::Row) -> Result<Selected> {
    Ok(Selected { id: row.get(0)?, name: row.get(1)?, dropped: row.get::<_, i64>(2)?.max(0) as u64 })
}

/// The range of names in which all are that a pattern matches: what it has before the first `*`, and the end of that.
fn range_of(pattern: &str) -> (String, Option<String>) {
    let plain = pattern.split('/').take_while(|segment| !matches!(*segment, "*" | "**"));
    let first: String = plain.flat_map(|segment| [segment, "/"]).collect();
    if first.is_empty() {
        return (first, None);
    }
    if first.len() > pattern.len() {
        return (pattern.to_owned(), Some(format!("{pattern}\0")));
    }
    // `/` is followed by `0`.
    let end = format!("{}0", &first[..first.len() - 1]);
    (first, Some(end))
}
