//! One range of bytes: RFC 9110 §14.
//!
//! Invalid syntax, another unit, and more than one range are answered with the whole file. The RFC allows all three.
//! Several ranges are requested by few clients and by many attackers.

use std::ops::Range;

/// The meaning of a `Range` field.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The whole file.
    Whole,
    /// These bytes; never empty.
    Part(Range<u64>),
    /// The range begins after the end of the file.
    Outside,
}

/// The meaning of `field` for a file of `length` bytes.
pub(super) fn piece(field: &str, length: u64) -> Piece {
    let Some((unit, set)) = field.split_once('=') else { return Piece::Whole };
    let mut specs = set.split(',').map(str::trim).filter(|spec| !spec.is_empty());
    let (Some(spec), None) = (specs.next(), specs.next()) else { return Piece::Whole };
    let Some((first, last)) = spec.split_once('-') else { return Piece::Whole };
    // An empty file has no first byte for `Content-Range`.
    if !unit.eq_ignore_ascii_case("bytes") || length == 0 && first.is_empty() {
        return Piece::Whole;
    }
    match (number(first), number(last)) {
        (Number::Missing, Number::Is(0)) => Piece::Outside,
        (Number::Missing, Number::Is(suffix)) => Piece::Part(length.saturating_sub(suffix)..length),
        (Number::Is(first), Number::Is(last)) if first > last => Piece::Whole,
        (Number::Is(first), Number::Missing | Number::Is(_)) if first >= length => Piece::Outside,
        (Number::Is(first), Number::Missing) => Piece::Part(first..length),
        (Number::Is(first), Number::Is(last)) => Piece::Part(first..last.saturating_add(1).min(length)),
        _ => Piece::Whole,
    }
}

enum Number {
    Missing,
    Is(u64),
    Not,
}

fn number(digits: &str) -> Number {
    if digits.is_empty() {
        return Number::Missing;
    }
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Number::Not;
    }
    // A number that does not fit is valid, and beyond the end of every file.
    Number::Is(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_parsed_as_the_rfc_says() {
        let part = |start, end| Piece::Part(start..end);
        for (field, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-9", part(0, 10)),
            ("bytes=0-99", part(0, 10)),
            ("bytes=9-", part(9, 10)),
            ("bytes=3-5", part(3, 6)),
            ("bytes=-1", part(9, 10)),
            ("bytes=-10", part(0, 10)),
            ("bytes=-99", part(0, 10)),
            ("Bytes=1-2", part(1, 3)),
            ("bytes= 1-2 ,", part(1, 3)),
            ("bytes=0-18446744073709551615", part(0, 10)),
            ("bytes=0-99999999999999999999999", part(0, 10)),
            ("bytes=10-", Piece::Outside),
            ("bytes=10-10", Piece::Outside),
            ("bytes=99999999999999999999999-", Piece::Outside),
            ("bytes=-0", Piece::Outside),
            ("bytes=5-3", Piece::Whole),
            ("bytes=", Piece::Whole),
            ("bytes=-", Piece::Whole),
            ("bytes=a-b", Piece::Whole),
            ("bytes=1", Piece::Whole),
            ("bytes=+1-2", Piece::Whole),
            ("bytes=1 - 2", Piece::Whole),
            ("bytes=--1", Piece::Whole),
            ("bytes=1-2-3", Piece::Whole),
            ("bytes", Piece::Whole),
            ("lines=1-2", Piece::Whole),
            ("bytes=0-1,4-5", Piece::Whole),
        ] {
            assert_eq!(piece(field, 10), expected, "{field}");
        }
    }

    #[test]
    fn an_empty_file_has_no_ranges() {
        assert_eq!(piece("bytes=0-", 0), Piece::Outside);
        assert_eq!(piece("bytes=-5", 0), Piece::Whole);
    }
}
