//! Tests of the decoders. All input is decoded whole, and cut in two at each position: the events must not depend on the segments
//! that the network delivers.

use super::*;
use crate::config::Hub;

/// An event that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decoded {
    Text(String),
    Binary(Vec<u8>),
    Deflated(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
    Violation(u16),
}

fn feed(codec: &mut Codec, bytes: &[u8], limit: usize, events: &mut Vec<Decoded>) -> bool {
    let mut input = bytes.to_vec();
    let mut at = 0;
    loop {
        match codec.next(&mut input[at..], limit) {
            Ok((used, event)) => {
                at += used;
                events.push(match event {
                    None => {
                        assert_eq!(at, bytes.len(), "all bytes are used");
                        return true;
                    }
                    Some(Event::Message(Kind::Text, text)) => Decoded::Text(String::from_utf8(text.to_vec()).unwrap()),
                    Some(Event::Message(Kind::Binary, bytes)) => Decoded::Binary(bytes.to_vec()),
                    Some(Event::Deflated(_, bytes)) => Decoded::Deflated(bytes.to_vec()),
                    Some(Event::Ping(payload)) => Decoded::Ping(payload.to_vec()),
                    Some(Event::Pong) => Decoded::Pong,
                    Some(Event::Fragment) => continue,
                    Some(Event::Close(code)) => Decoded::Close(code),
                });
            }
            Err(close) => {
                events.push(Decoded::Violation(close.code));
                return false;
            }
        }
    }
}

/// A new decoder in the same state, as another process makes it from `unfinished`.
fn taken_up(codec: &Codec, framing: Framing, limit: usize) -> Codec {
    let (mut unfinished, mut again, mut events) = (Vec::new(), Vec::new(), Vec::new());
    codec.unfinished(&mut unfinished);
    let mut new = Codec::new(framing, codec.inflates());
    assert!(feed(&mut new, &unfinished, limit, &mut events) && events.is_empty(), "{events:?}");
    new.unfinished(&mut again);
    assert_eq!(again, unfinished);
    new
}

/// The events of `bytes`, checked to be the same for each cut in two, and byte by byte.
fn decode(framing: Framing, bytes: &[u8], limit: usize) -> Vec<Decoded> {
    let mut whole = Vec::new();
    feed(&mut Codec::new(framing, false), bytes, limit, &mut whole);
    for cut in 0..=bytes.len() {
        let (mut codec, mut events) = (Codec::new(framing, false), Vec::new());
        if feed(&mut codec, &bytes[..cut], limit, &mut events) {
            feed(&mut codec, &bytes[cut..], limit, &mut events);
        }
        assert_eq!(events, whole, "cut at {cut}");
        // And if another process continues there.
        let (mut codec, mut events) = (Codec::new(framing, false), Vec::new());
        if feed(&mut codec, &bytes[..cut], limit, &mut events) {
            let mut codec = taken_up(&codec, framing, limit);
            feed(&mut codec, &bytes[cut..], limit, &mut events);
        }
        assert_eq!(events, whole, "taken up at {cut}");
    }
    let (mut codec, mut events) = (Codec::new(framing, false), Vec::new());
    let open = bytes.iter().all(|&byte| feed(&mut codec, &[byte], limit, &mut events));
    assert_eq!(events, whole, "byte by byte");
    let mut unfinished = Vec::new();
    codec.unfinished(&mut unfinished);
    if open && unfinished.is_empty() && !matches!(whole.last(), None | Some(Decoded::Violation(_))) {
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

/// The header of a client's frame with its length in this form: 0, 2 or 8 bytes after the first two.
fn header(first: u8, length: u64, form: usize) -> Vec<u8> {
    let mut bytes = vec![first];
    match form {
        0 => bytes.push(0x80 | length as u8),
        2 => bytes.extend([&[0x80 | 126][..], &(length as u16).to_be_bytes()].concat()),
        _ => bytes.extend([&[0x80 | 127][..], &length.to_be_bytes()].concat()),
    }
    [bytes, vec![0; 4]].concat()
}

fn decode_rfc6455(frames: &[Vec<u8>]) -> Vec<Decoded> {
    decode(Framing::Rfc6455, &frames.concat(), 300)
}

#[test]
fn whole_messages_are_decoded() {
    let events = decode_rfc6455(&[
        frame(0x81, "grüße".as_bytes()),
        frame(0x82, &[0, 255]),
        frame(0x81, b""),
        frame(0x82, &[7; 200]),
    ]);
    assert_eq!(
        events,
        [
            Decoded::Text("grüße".into()),
            Decoded::Binary(vec![0, 255]),
            Decoded::Text(String::new()),
            Decoded::Binary(vec![7; 200])
        ]
    );
}

#[test]
fn a_ping_between_fragments_is_decoded() {
    let euro = "€".as_bytes();
    let events = decode_rfc6455(&[
        frame(0x01, &euro[..1]),
        frame(0x89, b"still there?"),
        frame(0x00, &euro[1..2]),
        frame(0x8a, b""),
        frame(0x80, &euro[2..]),
        frame(0x88, &[0x03, 0xe8, b'b', b'y', b'e']),
    ]);
    assert_eq!(
        events,
        [Decoded::Ping(b"still there?".to_vec()), Decoded::Pong, Decoded::Text("€".into()), Decoded::Close(Some(1000))]
    );
}

#[test]
fn each_violation_has_its_close_code() {
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
        assert_eq!(decode_rfc6455(std::slice::from_ref(&bytes)), [Decoded::Violation(code)], "{bytes:?}");
    }
}

#[test]
fn a_length_in_a_longer_form_is_refused() {
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
            assert_eq!(
                decode_rfc6455(&[header(first, length, form)]),
                [Decoded::Violation(code)],
                "{length} in {form} bytes"
            );
        }
    }
    for first in [0x88, 0x89, 0x8a] {
        assert_eq!(decode_rfc6455(&[header(first, 5, 2)]), [Decoded::Violation(1002)]);
    }
    assert_eq!(decode_rfc6455(&[header(0x82, 126, 2), vec![7; 126]]), [Decoded::Binary(vec![7; 126])]);
}

#[test]
fn a_reserved_bit_marks_a_compressed_message_if_that_was_negotiated() {
    let frames = [frame(0x41, &[0xff]), frame(0x89, b""), frame(0x80, &[0xfe]), frame(0x81, b"plain")].concat();
    for cut in 0..=frames.len() {
        let (mut codec, mut events) = (Codec::new(Framing::Deflate, true), Vec::new());
        feed(&mut codec, &frames[..cut], 300, &mut events);
        feed(&mut codec, &frames[cut..], 300, &mut events);
        assert_eq!(
            events,
            [Decoded::Ping(vec![]), Decoded::Deflated(vec![0xff, 0xfe]), Decoded::Text("plain".into())],
            "cut at {cut}"
        );
    }
    for bad in [frame(0xc9, b""), [frame(0x01, b"a"), frame(0xc0, b"b")].concat(), frame(0xa1, b"x")] {
        let (mut codec, mut events) = (Codec::new(Framing::Deflate, true), Vec::new());
        feed(&mut codec, &bad, 300, &mut events);
        assert_eq!(events.last(), Some(&Decoded::Violation(1002)), "{bad:?}");
    }
}

#[test]
fn the_header_of_a_huge_frame_allocates_little_memory() {
    let mut codec = Codec::new(Framing::Rfc6455, false);
    let mut header = vec![0x82, 0x80 | 127];
    header.extend_from_slice(&(60u64 << 20).to_be_bytes());
    header.extend_from_slice(&[0; 4]);
    header.push(b'x');
    assert!(feed(&mut codec, &header, 64 << 20, &mut Vec::new()));
    assert!(codec.held_bytes() < 1 << 20, "{} bytes are held for one received", codec.held_bytes());
}

#[test]
fn draft_76_texts_are_decoded_and_other_frames_skipped() {
    let mut bytes = b"\x00hello\xff".to_vec();
    bytes.extend_from_slice(b"\x01unknown\xff\x80\x03abc\x81\x00\x00\xff\xff\x00");
    let events = decode(Framing::Hixie76, &bytes, 100);
    assert_eq!(events, [Decoded::Text("hello".into()), Decoded::Text(String::new()), Decoded::Close(None)]);
}

#[test]
fn each_violation_of_draft_76_has_its_close_code() {
    assert_eq!(decode(Framing::Hixie76, b"\x00\xfe\xff", 100), [Decoded::Violation(1007)]);
    assert_eq!(decode(Framing::Hixie76, b"\x00abcdef\xff", 5), [Decoded::Violation(1009)]);
    assert_eq!(decode(Framing::Hixie76, b"\x80\xff\xff\xff\xff\x7f", 100), [Decoded::Violation(1009)]);
}

proptest::proptest! {
    /// For any input, decoding ends, respects its limit, and does not depend on the cut.
    #[test]
    fn any_bytes_are_decoded_within_the_limit(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
        for framing in Framing::ALL {
            decode(framing, &bytes, Hub::default().message_bytes_max);
        }
    }

    /// A frame is accepted if its length has the shortest form, and refused otherwise.
    #[test]
    fn any_length_is_accepted_in_its_shortest_form_only(length in 0..70_000u64, form in proptest::sample::select(vec![0, 2, 8])) {
        let shortest = match length { 0..126 => 0, 126..65_536 => 2, _ => 8 };
        proptest::prop_assume!(form >= shortest);
        let (mut codec, mut events) = (Codec::new(Framing::Rfc6455, false), Vec::new());
        feed(&mut codec, &[header(0x82, length, form), vec![0; length as usize]].concat(), 70_000, &mut events);
        let is_accepted = events.first().map(|events| matches!(events, Decoded::Binary(bytes) if bytes.len() as u64 == length));
        proptest::prop_assert_eq!(is_accepted, Some(form == shortest));
    }
}
