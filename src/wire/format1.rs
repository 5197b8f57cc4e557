//! Format 1 of what one process leaves to the next, which version 0.1.0 writes: fields by position. It is rewritten as the present
//! one ([`super::tagged`]), so that nothing else knows of it.
//!
//! This file, its uses and `tests/handover/format1` may go once no process of 0.1.0 is upgraded any more: two releases after it. What an older process
//! leaves then is told and ended, as any format is that cannot be read.

use super::fields::{self, Damaged, Fields};
use super::tagged::put;

/// Its number.
pub const FORMAT: u32 = 1;

/// What was written of a socket.
pub fn item(bytes: &[u8]) -> Result<Vec<u8>, Damaged> {
    let mut out = Vec::with_capacity(2 * bytes.len());
    match bytes.split_first() {
        Some((0, session)) => put(1, &record(session)?, &mut out),
        Some((1, server)) => put(2, &server.to_vec(), &mut out),
        _ => return Err(NO_CHOICE),
    }
    Ok(out)
}

/// What was written of a session.
pub fn record(bytes: &[u8]) -> Result<Vec<u8>, Damaged> {
    let (mut fields, mut out) = (Fields(bytes), Vec::with_capacity(2 * bytes.len()));
    // Server, path, hub, and the channel it broadcasts to.
    for tag in 1..=4 {
        put(tag, &fields.bytes()?.to_vec(), &mut out);
    }
    // Framing, whether it inflates, phase, when it was heard, when its timer is due, and when it was pinged.
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

/// An entry of an outbox: a frame with its channel and when it came, a gap of so many messages, or the notice of one.
fn waiting(fields: &mut Fields<'_>) -> Result<Vec<u8>, Damaged> {
    let mut out = Vec::new();
    let kind = fields.number()?;
    let tags: &[u64] = match kind {
        0 => &[2, 3],
        1 | 2 => &[4],
        _ => return Err(NO_CHOICE),
    };
    if kind != 1 {
        put(1, &fields.bytes()?.to_vec(), &mut out);
    }
    for tag in tags {
        put(*tag, &fields.number()?, &mut out);
    }
    Ok(out)
}

/// What was written of listeners and feeds.
pub fn state(mut fields: Fields<'_>) -> Result<Vec<u8>, Damaged> {
    let listeners = list(&mut fields, |fields| {
        let mut out = Vec::new();
        put(1, &fields.bytes()?.to_vec(), &mut out);
        // TCP, Unix, and those of a service manager.
        let kind = fields.number()?;
        put(2 + kind.min(3), &fields.bytes()?.to_vec(), &mut out);
        Ok(out)
    })?;
    let feeds = list(&mut fields, |fields| {
        let mut out = Vec::new();
        put(1, &fields.bytes()?.to_vec(), &mut out);
        put(2, &fields.bytes()?.to_vec(), &mut out);
        // How many messages there were, whether it has begun, where it stands, and whether that is inside of an old line.
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

const NO_CHOICE: Damaged = Damaged("a choice that is none");

/// A list that stood behind its number of values. No room is made for more values than there are bytes for.
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
