//! The decoders, fed whole and in every possible pair of pieces: what comes out must not depend on where the network cut.

use super::*;
use crate::config::Hub;

/// An event that owns what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Text(String),
    Binary(Vec<u8>),
    Deflated(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
    Violation(u16),
}

fn feed(codec: &mut Codec, bytes: &[u8], limit: usize, said: &mut Vec<Said>) -> bool {
    let mut input = bytes.to_vec();
    let mut at = 0;
    loop {
        match codec.next(&mut input[at..], limit) {
            Ok((used, event)) => {
                at += used;
                said.push(match event {
                    None => {
                        assert_eq!(at, bytes.len(), "nothing is left behind");
                        return true;
                    }
                    Some(Event::Message(Kind::Text, text)) => Said::Text(String::from_utf8(text.to_vec()).unwrap()),
                    Some(Event::Message(Kind::Binary, bytes)) => Said::Binary(bytes.to_vec()),
                    Some(Event::Deflated(_, bytes)) => Said::Deflated(bytes.to_vec()),
                    Some(Event::Ping(payload)) => Said::Ping(payload.to_vec()),
                    Some(Event::Pong) => Said::Pong,
                    Some(Event::Fragment) => continue,
                    Some(Event::Close(code)) => Said::Close(code),
                });
            }
            Err(close) => {
                said.push(Said::Violation(close.code));
                return false;
            }
        }
    }
}

/// A new decoder that stands where this one stands.
fn taken_up(codec: &Codec, framing: Framing, limit: usize) -> Codec {
    let (mut unfinished, mut again, mut said) = (Vec::new(), Vec::new(), Vec::new());
    codec.unfinished(&mut unfinished);
    let mut new = Codec::new(framing, codec.inflates());
    assert!(feed(&mut new, &unfinished, limit, &mut said) && said.is_empty(), "{said:?}");
    new.unfinished(&mut again);
    assert_eq!(again, unfinished);
    new
}

/// What `bytes` say, checked to be the same however they are cut in two, and byte by byte.
fn decode(framing: Framing, bytes: &[u8], limit: usize) -> Vec<Said> {
    let mut whole = Vec::new();
    feed(&mut Codec::new(framing, false), bytes, limit, &mut whole);
    for cut in 0..=bytes.len() {
        let (mut codec, mut said) = (Codec::new(framing, false), Vec::new());
        if feed(&mut codec, &bytes[..cut], limit, &mut said) {
            feed(&mut codec, &bytes[cut..], limit, &mut said);
        }
        assert_eq!(said, whole, "cut at {cut}");
        // And when another process goes on there.
        let (mut codec, mut said) = (Codec::new(framing, false), Vec::new());
        if feed(&mut codec, &bytes[..cut], limit, &mut said) {
            let mut codec = taken_up(&codec, framing, limit);
            feed(&mut codec, &bytes[cut..], limit, &mut said);
        }
        assert_eq!(said, whole, "taken up at {cut}");
    }
    let (mut codec, mut said) = (Codec::new(framing, false), Vec::new());
    let open = bytes.iter().all(|&byte| feed(&mut codec, &[byte], limit, &mut said));
    assert_eq!(said, whole, "byte by byte");
    let mut unfinished = Vec::new();
    codec.unfinished(&mut unfinished);
    if open && unfinished.is_empty() && !matches!(whole.last(), None | Some(Said::Violation(_))) {
        assert_eq!(codec.held_bytes(), 0, "idle, it holds nothing");
    }
    whole
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x11, 0x80, 0x5a, 0xff];
    let mut bytes = vec![first];
    match payload.len() {
        n if n < 126 => bytes.push(0x80 | n as u8),
        n if n < 65536 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]));
    bytes
}

/// The header of a client's frame whose length is said in this form: 0, 2 or 8 bytes behind the first two.
fn header(first: u8, length: u64, form: usize) -> Vec<u8> {
    let mut bytes = vec![first];
    match form {
        0 => bytes.push(0x80 | length as u8),
        2 => bytes.extend([&[0x80 | 126][..], &(length as u16).to_be_bytes()].concat()),
        _ => bytes.extend([&[0x80 | 127][..], &length.to_be_bytes()].concat()),
    }
    [bytes, vec![0; 4]].concat()
}

fn modern(frames: &[Vec<u8>]) -> Vec<Said> {
    decode(Framing::Rfc6455, &frames.concat(), 300)
}

#[test]
fn whole_messages() {
    let said =
        modern(&[frame(0x81, "grüße".as_bytes()), frame(0x82, &[0, 255]), frame(0x81, b""), frame(0x82, &[7; 200])]);
    assert_eq!(
        said,
        [Said::Text("grüße".into()), Said::Binary(vec![0, 255]), Said::Text(String::new()), Said::Binary(vec![7; 200])]
    );
}

#[test]
fn fragments_with_a_ping_between_them() {
    let euro = "€".as_bytes();
    let said = modern(&[
        frame(0x01, &euro[..1]),
        frame(0x89, b"still there?"),
        frame(0x00, &euro[1..2]),
        frame(0x8a, b""),
        frame(0x80, &euro[2..]),
        frame(0x88, &[0x03, 0xe8, b'b', b'y', b'e']),
    ]);
    assert_eq!(
        said,
        [Said::Ping(b"still there?".to_vec()), Said::Pong, Said::Text("€".into()), Said::Close(Some(1000))]
    );
}

#[test]
fn violations_end_with_the_right_code() {
    let unmasked = vec![0x81, 1, b'x'];
    for (bytes, code) in [
        (unmasked, 1002),
        (frame(0xc1, b"x"), 1002),
        (frame(0x83, b"x"), 1002),
        (frame(0x8b, b"x"), 1002),
        (frame(0x09, b"x"), 1002),
        (frame(0x89, &[0; 126]), 1002),
        (frame(0x80, b"x"), 1002),
        ([frame(0x01, b"x"), frame(0x01, b"y")].concat(), 1002),
        (frame(0x88, &[3]), 1002),
        (frame(0x88, &1005u16.to_be_bytes()), 1002),
        (frame(0x88, &[3, 232, 0xff]), 1007),
        (frame(0x81, &[0xff]), 1007),
        (frame(0x81, &[0xe2, 0x82]), 1007),
        ([frame(0x01, &[0xe2]), frame(0x80, b"x")].concat(), 1007),
        (frame(0x82, &[0; 301]), 1009),
        ([frame(0x02, &[0; 200]), frame(0x80, &[0; 101])].concat(), 1009),
    ] {
        assert_eq!(modern(std::slice::from_ref(&bytes)), [Said::Violation(code)], "{bytes:?}");
    }
}

#[test]
fn a_length_has_one_form() {
    for (length, form, code) in [
        (0, 2, 1002),
        (125, 2, 1002),
        (0, 8, 1002),
        (125, 8, 1002),
        (126, 8, 1002),
        (65_535, 8, 1002),
        (1 << 63, 8, 1002),
        (u64::MAX, 8, 1002),
        (65_536, 8, 1009),
        (u64::MAX >> 1, 8, 1009),
    ] {
        for first in [0x81, 0x82, 0x01] {
            assert_eq!(modern(&[header(first, length, form)]), [Said::Violation(code)], "{length} in {form} bytes");
        }
    }
    for first in [0x88, 0x89, 0x8a] {
        assert_eq!(modern(&[header(first, 5, 2)]), [Said::Violation(1002)]);
    }
    assert_eq!(modern(&[header(0x82, 126, 2), vec![7; 126]]), [Said::Binary(vec![7; 126])]);
}

#[test]
fn a_reserved_bit_means_compressed_where_that_was_agreed_on() {
    let frames = [frame(0x41, &[0xff]), frame(0x89, b""), frame(0x80, &[0xfe]), frame(0x81, b"plain")].concat();
    for cut in 0..=frames.len() {
        let (mut codec, mut said) = (Codec::new(Framing::Deflate, true), Vec::new());
        feed(&mut codec, &frames[..cut], 300, &mut said);
        feed(&mut codec, &frames[cut..], 300, &mut said);
        assert_eq!(
            said,
            [Said::Ping(vec![]), Said::Deflated(vec![0xff, 0xfe]), Said::Text("plain".into())],
            "cut at {cut}"
        );
    }
    for bad in [frame(0xc9, b""), [frame(0x01, b"a"), frame(0xc0, b"b")].concat(), frame(0xa1, b"x")] {
        let (mut codec, mut said) = (Codec::new(Framing::Deflate, true), Vec::new());
        feed(&mut codec, &bad, 300, &mut said);
        assert_eq!(said.last(), Some(&Said::Violation(1002)), "{bad:?}");
    }
}

#[test]
fn an_announced_giant_buys_no_memory() {
    let mut codec = Codec::new(Framing::Rfc6455, false);
    let mut header = vec![0x82, 0x80 | 127];
    header.extend_from_slice(&(60u64 << 20).to_be_bytes());
    header.extend_from_slice(&[0; 4]);
    header.push(b'x');
    assert!(feed(&mut codec, &header, 64 << 20, &mut Vec::new()));
    assert!(codec.held_bytes() < 1 << 20, "{} bytes held for one that came", codec.held_bytes());
}

#[test]
fn draft_76_texts_and_the_frames_it_skips() {
    let mut bytes = b"\x00hello\xff".to_vec();
    bytes.extend_from_slice(b"\x01unknown\xff\x80\x03abc\x81\x00\x00\xff\xff\x00");
    let said = decode(Framing::Hixie76, &bytes, 100);
    assert_eq!(said, [Said::Text("hello".into()), Said::Text(String::new()), Said::Close(None)]);
}

#[test]
fn draft_76_violations() {
    assert_eq!(decode(Framing::Hixie76, b"\x00\xfe\xff", 100), [Said::Violation(1007)]);
    assert_eq!(decode(Framing::Hixie76, b"\x00abcdef\xff", 5), [Said::Violation(1009)]);
    assert_eq!(decode(Framing::Hixie76, b"\x80\xff\xff\xff\xff\x7f", 100), [Said::Violation(1009)]);
}

proptest::proptest! {
    /// Whatever comes, decoding ends, keeps within its limit and does not depend on the cut.
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
        for framing in Framing::ALL {
            decode(framing, &bytes, Hub::default().message_bytes_max);
        }
    }

    /// A frame is heard where its length is said in the shortest form, and in no other.
    #[test]
    fn any_length(length in 0..70_000u64, form in proptest::sample::select(vec![0, 2, 8])) {
        let shortest = match length { 0..126 => 0, 126..65_536 => 2, _ => 8 };
        proptest::prop_assume!(form >= shortest);
        let (mut codec, mut said) = (Codec::new(Framing::Rfc6455, false), Vec::new());
        feed(&mut codec, &[header(0x82, length, form), vec![0; length as usize]].concat(), 70_000, &mut said);
        let heard = said.first().map(|said| matches!(said, Said::Binary(bytes) if bytes.len() as u64 == length));
        proptest::prop_assert_eq!(heard, Some(form == shortest));
    }
}
