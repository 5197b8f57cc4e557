//! Whether a database is whole.
//!
//! A small database is checked completely before it is used. Of a large one only what a start needs is looked at; its messages are
//! checked by the reader while it has nothing else to do, and each one again when it is read.

use rusqlite::{Connection, Result};

use super::hubs;
use super::schema::message_sum;

/// How many messages one step of a patrol checks: a millisecond or two.
const STEP: usize = 1000;

/// What is not whole.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// The structure: what was found. Only a new database helps.
    pub structure: Option<String>,
    /// Messages whose bytes are not what was written. It is enough to delete them.
    pub messages: Vec<i64>,
}

/// Checks everything.
pub(super) fn complete(db: &Connection) -> Result<Findings> {
    let mut findings = Findings::default();
    let verdict: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        findings.structure = Some(verdict.trim_start_matches("*** in database main ***").trim().replace('\n', " "));
        return Ok(findings);
    }
    let mut patrol = Patrol::default();
    while patrol.step(db, &mut findings.messages)? {}
    findings.structure = start(db)?.or(relations(db)?);
    Ok(findings)
}

/// Checks what a start needs. Returns what is wrong.
pub(super) fn start(db: &Connection) -> Result<Option<String>> {
    let broken = hubs::read(db)?.into_iter().find(|(_, is_whole)| !is_whole);
    Ok(broken.map(|(hub, _)| format!("the row of hub {} is damaged", hub.name)))
}

/// Checks that tables agree with each other.
fn relations(db: &Connection) -> Result<Option<String>> {
    let count = |query: &str| db.query_row(query, [], |row| row.get::<_, i64>(0));
    let names = count(
        "SELECT count(*) FROM messages m LEFT JOIN channels c ON c.id = m.channel
         WHERE c.name IS NOT m.name OR c.hub IS NOT (m.id >> 48)",
    )?;
    if names > 0 {
        return Ok(Some(format!("{names} messages are not in their channel")));
    }
    let counters = count(
        "SELECT count(*) FROM channels c
         LEFT JOIN (SELECT channel, count(*) AS messages, sum(length(payload)) AS bytes FROM messages GROUP BY channel) m
         ON m.channel = c.id WHERE c.messages <> ifnull(m.messages, 0) OR c.bytes <> ifnull(m.bytes, 0)",
    )?;
    Ok((counters > 0).then(|| format!("the counters of {counters} channels are wrong")))
}

/// A walk over all messages, in steps.
#[derive(Debug, Default)]
pub(super) struct Patrol {
    after: i64,
}

impl Patrol {
    /// Checks the next messages. Returns whether there are more. `damaged` gets those that are not whole.
    pub fn step(&mut self, db: &Connection, damaged: &mut Vec<i64>) -> Result<bool> {
        let mut rows = db.prepare_cached(
            "SELECT id, name, kind, time, sum, payload FROM messages WHERE id > ?1 ORDER BY id LIMIT ?2",
        )?;
        let mut rows = rows.query([self.after, STEP as i64])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            self.after = row.get(0)?;
            count += 1;
            // A name that is not UTF-8 any more is a damaged row, not a damaged database.
            let is_whole = match (row.get_ref(1)?.as_str(), row.get_ref(5)?.as_blob()) {
                (Ok(name), Ok(payload)) => {
                    let (kind, time, sum): (i64, i64, i64) = (row.get(2)?, row.get(3)?, row.get(4)?);
                    message_sum(self.after, name, kind, time, payload) == sum
                }
                _ => false,
            };
            if !is_whole {
                damaged.push(self.after);
            }
        }
        Ok(count == STEP)
    }
}
