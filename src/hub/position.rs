//! Positions in the history of a hub: where a client has read up to.
//!
//! All publications of a hub with history have one order, whatever their channels, so a position is one number, an offset. Offsets
//! are only comparable within an epoch. The epoch of a hub is drawn at random when its numbering begins, and lasts as long as its
//! numbers are known: over a restart that hands them over, and, for a hub on disk, over crashes.
//!
//! As text, a position is epoch and offset in base 36: `k3x09q2f-1f`. Clients pass it back and need not understand it.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

use crate::config::limits::POSITION_BYTES_MAX;

/// The text for the position before the oldest message that is kept.
const EARLIEST: &str = "earliest";
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// The bits of an epoch. Two epochs are equal with a probability of 2^-48, and take ten digits at most.
const EPOCH_BITS: u32 = 48;

/// A numbering of the publications of a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

/// A place in the order of a hub: up to and including the publication with this offset. Offset 0 is before the first publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The numbering.
    pub epoch: Epoch,
    /// The number, from 1 on.
    pub offset: u64,
}

/// From where a client wants to continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// From the oldest message that is kept.
    Earliest,
    /// After this position.
    After(Position),
    /// After a position that no hub of ours has given.
    Unknown,
}

impl Epoch {
    /// A new numbering.
    pub fn random() -> Epoch {
        Epoch(RandomState::new().hash_one(0) >> (u64::BITS - EPOCH_BITS))
    }
}

impl Position {
    /// Reads a position as [`fmt::Display`] writes it.
    pub fn parse(text: &str) -> Option<Position> {
        let (epoch, offset) = text.split_once('-')?;
        Some(Position { epoch: Epoch(number(epoch)?), offset: number(offset)? })
    }

    /// Appends it as text.
    pub fn write_into(self, out: &mut Vec<u8>) {
        digits_into(self.epoch.0, out);
        out.push(b'-');
        digits_into(self.offset, out);
    }
}

impl Since {
    /// Reads what a client sends: a position, or `earliest`. Every other text is a position of another server, or none at all.
    pub fn parse(text: &str) -> Since {
        match text {
            EARLIEST => Since::Earliest,
            _ if text.len() > POSITION_BYTES_MAX => Since::Unknown,
            _ => Position::parse(text).map_or(Since::Unknown, Since::After),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(24);
        self.write_into(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Since::Earliest => f.write_str(EARLIEST),
            Since::After(position) => position.fmt(f),
            Since::Unknown => f.write_str("unknown"),
        }
    }
}

/// Reads a number in base 36 as it is written: lower case, without superfluous zeros.
fn number(text: &str) -> Option<u64> {
    let is_canonical = text == "0" || !text.starts_with('0');
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
    (is_canonical && is_plain).then(|| u64::from_str_radix(text, 36).ok())?
}

fn digits_into(mut number: u64, out: &mut Vec<u8>) {
    let start = out.len();
    loop {
        out.push(DIGITS[(number % 36) as usize]);
        number /= 36;
        if number == 0 {
            break;
        }
    }
    out[start..].reverse();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn other_texts_are_unknown_positions() {
        assert_eq!(Since::parse("earliest"), Since::Earliest);
        for text in ["", "-", "1-", "-1", "01-1", "1-01", "A-1", "1-1-1", "1_1", "+1-1", "zzzzzzzzzzzzzzz-1", "1-é"] {
            assert_eq!(Since::parse(text), Since::Unknown, "{text}");
        }
        assert_eq!(Since::parse(&"1".repeat(1 << 20)), Since::Unknown);
        assert_eq!(Since::parse("0-0"), Since::After(Position { epoch: Epoch(0), offset: 0 }));
    }

    proptest! {
        #[test]
        fn a_position_is_read_as_it_is_written(epoch in any::<u64>(), offset in any::<u64>()) {
            let position = Position { epoch: Epoch(epoch), offset };
            let text = position.to_string();
            prop_assert!(text.len() <= POSITION_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
            prop_assert_eq!(Since::parse(&text), Since::After(position));
        }

        #[test]
        fn no_two_texts_are_one_position(text in "[0-9a-z]{1,4}-[0-9a-z]{1,4}") {
            if let Since::After(position) = Since::parse(&text) {
                prop_assert_eq!(position.to_string(), text);
            }
        }
    }
}
