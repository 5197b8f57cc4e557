//! Format 1 of the data that one process hands over to the next. Version 0.1.0 writes it; its fields are identified by their
//! position. This module converts it to the present format ([`super::tagged`]), so that no other module needs to read it.
//!
//! This file, its uses and `tests/handover/format1` may be removed two releases after 0.1.0, when no process of 0.1.0 is upgraded
//! any longer. Data of such a process is then handled as any unknown format: an error is logged, and its sessions end.

use super::fields::{self, Damaged, Fields};
use super::tagged::put;

/// Its number.
pub const FORMAT: u32 = 1;

/// Converts the data of a socket.
pub fn item(bytes: &[u8]) -> Result<Vec<u8>, Damaged> {
    let mut out = Vec::with_capacity(2 * bytes.len());
    match bytes.split_first() {
        Some((0, session)) => put(1, &record(session)?, &mut out),
        Some((1, server)) => put(2, &server.to_vec(), &mut out),
        _ => return Err(UNKNOWN_VARIANT),
    }
    Ok(out)
}

/// Converts the record of a session.
pub fn record(bytes: &[u8]) -> Result<Vec<u8>, Damaged> {
    let (mut fields, mut out) = (Fields(bytes), Vec::with_capacity(2 * bytes.len()));
    // Server, path, hub, and the channel it broadcasts to.
    for tag in 1..=4 {
        put(tag, &fields.bytes()?.to_vec(), &mut out);
    }
    // Framing, whether messages may be compressed, phase, when the client last sent something, when the timer is due, and the time
    // of an unanswered ping.
    for tag in 5..=10 {
        put(tag, &fields.number()?, &mut out);
    }
    put(11, &list(&mut fields, |fields| Ok(fields.bytes()?.to_vec()))?, &mut out);
    put(12, &fields.bytes()?.to_vec(), &mut out);
    put(13, &list(&mut fields, waiting)?, &mut out);
    put(14, &fields.number()?, &mut out);
    fields.end()?;
    Ok(out)
}

/// Converts an entry of an outbox: a frame with its channel and time, a number of dropped messages, or a notice of them.
fn waiting(fields: &mut Fields<'_>) -> Result<Vec<u8>, Damaged> {
    let mut out = Vec::new();
    let kind = fields.number()?;
    let tags: &[u64] = match kind {
        0 => &[2, 3],
        1 | 2 => &[4],
        _ => return Err(UNKNOWN_VARIANT),
    };
    if kind != 1 {
        put(1, &fields.bytes()?.to_vec(), &mut out);
    }
    for tag in tags {
        put(*tag, &fields.number()?, &mut out);
    }
    Ok(out)
}

/// Converts the data of listeners and feeds.
pub fn state(mut fields: Fields<'_>) -> Result<Vec<u8>, Damaged> {
    let listeners = list(&mut fields, |fields| {
        let mut out = Vec::new();
        put(1, &fields.bytes()?.to_vec(), &mut out);
        // TCP, Unix, and sockets of a service manager.
        let kind = fields.number()?;
        put(2 + kind.min(3), &fields.bytes()?.to_vec(), &mut out);
        Ok(out)
    })?;
    let feeds = list(&mut fields, |fields| {
        let mut out = Vec::new();
        put(1, &fields.bytes()?.to_vec(), &mut out);
        put(2, &fields.bytes()?.to_vec(), &mut out);
        // The number of messages, whether the feed has begun, its position, and whether this is inside of an old line.
        for tag in 3..=6 {
            put(tag, &fields.number()?, &mut out);
        }
        Ok(out)
    })?;
    fields.end()?;
    let mut out = Vec::new();
    put(1, &listeners, &mut out);
    put(2, &feeds, &mut out);
    Ok(out)
}

const UNKNOWN_VARIANT: Damaged = Damaged("a number stands for no known variant");

/// Converts a list that begins with the number of its values. This number is not used to allocate memory.
fn list(
    fields: &mut Fields<'_>,
    mut value: impl FnMut(&mut Fields<'_>) -> Result<Vec<u8>, Damaged>,
) -> Result<Vec<u8>, Damaged> {
    let mut out = Vec::new();
    for _ in 0..fields.number()? {
        fields::bytes(&value(fields)?, &mut out);
    }
    Ok(out)
}
