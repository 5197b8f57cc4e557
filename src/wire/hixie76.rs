//! draft-hixie-thewebsocketprotocol-76: text between 0x00 and 0xFF, and a handshake that is answered with an MD5 digest.
//!
//! The draft was withdrawn in 2011, because an attacker could make a proxy that does not implement it cache a wrong answer. It is
//! served only on routes that enable it.

use md5::{Digest, Md5};

/// The closing handshake, the same in both directions (§5.3).
pub const CLOSE: [u8; 2] = [0xff, 0x00];
/// The length of the body of the request (§5.2, `key3`).
pub const KEY3_BYTES: usize = 8;

/// Appends a text message.
pub fn frame_into(text: &[u8], out: &mut Vec<u8>) {
    out.push(0x00);
    out.extend_from_slice(text);
    out.push(0xff);
}

/// The 16 bytes that answer a handshake (§5.2).
///
/// # Errors
/// The keys are not valid.
pub fn answer(key1: &str, key2: &str, key3: [u8; KEY3_BYTES]) -> Result<[u8; 16], &'static str> {
    let mut digest = Md5::new();
    digest.update(number(key1)?.to_be_bytes());
    digest.update(number(key2)?.to_be_bytes());
    digest.update(key3);
    Ok(digest.finalize().into())
}

/// The number that is encoded in a key: its digits, read as one number, divided by the number of its spaces.
pub fn number(key: &str) -> Result<u32, &'static str> {
    let spaces = key.bytes().filter(|&b| b == b' ').count() as u64;
    let digits = key
        .bytes()
        .filter(u8::is_ascii_digit)
        .try_fold(0u64, |n, b| n.checked_mul(10)?.checked_add(u64::from(b - b'0')));
    let digits = digits.ok_or("the digits of a key make a number that is too large")?;
    match digits.checked_div(spaces) {
        None => Err("a key without spaces"),
        Some(_) if digits % spaces != 0 => Err("a key whose number is no multiple of its spaces"),
        Some(number) => number.try_into().map_err(|_| "the number in a key is too large"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshakes_of_the_draft_get_its_answers() {
        // §1.3 and §5.2 of the draft have two complete handshakes.
        let first = answer("18x 6]8vM;54 *(5:  {   U1]8  z [  8", "1_ tx7X d  <  nw  334J702) 7]o}` 0", *b"Tm[K T2u");
        assert_eq!(first, Ok(*b"fQJ,fN/4F4!~K~MH"));
        let second = answer("4 @1  46546xW%0l 1 5", "12998 5 Y3 1  .P00", *b"^n:ds[4U");
        assert_eq!(second, Ok(*b"8jKS'y:G*Co,Wxa-"));
    }

    #[test]
    fn invalid_keys_are_refused() {
        assert!(number("123").is_err());
        assert!(number("1 0 1").is_err());
        assert!(number("99999999999999999999999 ").is_err());
        assert!(number("42949672960 ").is_err());
        assert_eq!(number("4294967295 "), Ok(u32::MAX));
        assert_eq!(number("  "), Ok(0));
    }
}
