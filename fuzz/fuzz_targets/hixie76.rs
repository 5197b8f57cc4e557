//! Any keys of a draft-76 handshake: their numbers are those that the draft defines, and nothing panics. And its framing: a framed
//! text is decoded again.
//!
//! The input: eight bytes for the third key, then two lines for the other keys.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pushd::hub::Kind;
use pushd::session::codec::{Codec, Event};
use pushd::wire::{Framing, hixie76};

/// The number of a key, calculated with larger integers.
fn number(key: &str) -> Option<u32> {
    let digits: String = key.chars().filter(char::is_ascii_digit).collect();
    let spaces = key.chars().filter(|c| *c == ' ').count() as u128;
    let digits = digits.trim_start_matches('0');
    let digits: u128 = if digits.is_empty() { 0 } else { digits.get(..30.min(digits.len()))?.parse().ok()? };
    (spaces > 0 && digits <= u128::from(u64::MAX) && digits % spaces == 0).then(|| (digits / spaces).try_into().ok())?
}

fuzz_target!(|data: &[u8]| {
    let Some((key3, data)) = data.split_first_chunk::<8>() else { return };
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (key1, key2) = text.split_once('\n').unwrap_or((text, ""));
    for key in [key1, key2] {
        assert_eq!(hixie76::number(key).ok(), number(key), "{key:?}");
    }
    let is_answered = hixie76::answer(key1, key2, *key3).is_ok();
    assert_eq!(is_answered, number(key1).is_some() && number(key2).is_some());

    let mut framed = Vec::new();
    hixie76::frame_into(text.as_bytes(), &mut framed);
    let length = framed.len();
    let mut codec = Codec::new(Framing::Hixie76, false);
    assert_eq!(codec.next(&mut framed, text.len()), Ok((length, Some(Event::Message(Kind::Text, text.as_bytes())))));
});
