//! After the handshake: a violation ends the session with the right code and a reason, control frames are answered, and
//! an error of one client does not affect others.

mod common;

use std::time::Instant;

use common::http::{metric, publish};
use common::ws::{BINARY, CLOSE, Hixie, PING, PONG, TEXT, Ws, close_payload, frame};
use common::{PLAIN, start, until_true};

/// Frames that are parts of a message: the first one, and the following ones.
const FIRST_TEXT: u8 = 0x01;
const MIDDLE: u8 = 0x00;
const LAST: u8 = 0x80;

/// The plain configuration, but with messages of at most 300 bytes.
fn small() -> String {
    format!("{PLAIN}message_max = \"300\"\n")
}

#[test]
fn a_violation_ends_the_session_with_its_code_and_does_not_affect_others() {
    let pushd = start(&small());
    let address = pushd.address();
    let mut neighbour = Ws::open(address, "/chat");
    let unmasked = vec![TEXT, 1, b'x'];
    let long_length = vec![BINARY, 0x80 | 127, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let negative_length = vec![BINARY, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let roundabout_length = vec![TEXT, 0x80 | 126, 0, 1, 0, 0, 0, 0, b'x'];
    let cases: Vec<(Vec<u8>, u16, &str)> = vec![
        (unmasked, 1002, "must be masked"),
        (frame(0xc1, b"x"), 1002, "reserved bit"),
        (frame(0xa1, b"x"), 1002, "reserved bit"),
        (frame(0x91, b"x"), 1002, "reserved bit"),
        (frame(0xc9, b"x"), 1002, "reserved bit"),
        (frame(0x83, b"x"), 1002, "opcode"),
        (frame(0x8f, b"x"), 1002, "opcode"),
        (frame(0x09, b"x"), 1002, "control frame"),
        (frame(PING, &[0; 126]), 1002, "control frame"),
        (frame(LAST, b"x"), 1002, "continuation frame"),
        ([frame(FIRST_TEXT, b"x"), frame(TEXT, b"y")].concat(), 1002, "before the last one was finished"),
        (frame(CLOSE, &[3]), 1002, "close frame"),
        (frame(CLOSE, &close_payload(999, "")), 1002, "close frame"),
        (frame(CLOSE, &close_payload(1005, "")), 1002, "close frame"),
        (frame(CLOSE, &close_payload(1006, "")), 1002, "close frame"),
        (frame(CLOSE, &close_payload(2999, "")), 1002, "close frame"),
        (frame(CLOSE, &close_payload(5000, "")), 1002, "close frame"),
        (frame(CLOSE, &[3, 232, 0xff]), 1007, "UTF-8"),
        (frame(TEXT, &[b'a', 0xff]), 1007, "UTF-8"),
        (frame(TEXT, &[0xed, 0xa0, 0x80]), 1007, "UTF-8"),
        // The error is found before the message is complete.
        (frame(FIRST_TEXT, &[0xf4, 0x90]), 1007, "UTF-8"),
        ([frame(FIRST_TEXT, &[0xe2]), frame(LAST, b"x")].concat(), 1007, "UTF-8"),
        (frame(BINARY, &[0; 301]), 1009, "at most 300 bytes"),
        (long_length, 1009, "at most 300 bytes"),
        (negative_length, 1002, "not in its shortest form"),
        (roundabout_length, 1002, "not in its shortest form"),
        ([frame(FIRST_TEXT, &[b'a'; 200]), frame(LAST, &[b'a'; 101])].concat(), 1009, "at most 300 bytes"),
    ];
    let count = cases.len();
    for (number, (bytes, code, words)) in cases.into_iter().enumerate() {
        let mut client = Ws::open(address, "/chat");
        client.wire.send(&bytes);
        let (got, reason) = client.next_close();
        assert_eq!(got, code, "case {number}: {reason:?}, {bytes:?}");
        assert!(reason.contains(words), "case {number}: {reason:?}");
        // Frames after a violation are not processed.
        client.wire.try_send(&frame(TEXT, b"after the end"));
        client.wire.expect_end();
        publish(address, "/publish/all", &format!("after case {number}"));
        neighbour.expect_text(&format!("after case {number}"));
    }
    assert_eq!(metric(address, "pushd_protocol_errors_total"), count as u64);
    drop(neighbour);
    until_true("no session remains", || metric(address, "pushd_sessions") == 0);
}

#[test]
fn messages_before_a_violation_are_processed() {
    let pushd = start(&small());
    let mut client = Ws::open(pushd.address(), "/echo");
    client.wire.send(&[frame(TEXT, b"one"), frame(TEXT, b"two"), frame(0x83, b"")].concat());
    client.expect_text("one");
    client.expect_text("two");
    client.expect_close(1002, "opcode");
}

#[test]
fn a_ping_is_answered_with_its_payload() {
    let pushd = start(PLAIN);
    let mut client = Ws::open(pushd.address(), "/ws");
    for payload in [&b""[..], b"hello", &[0xff; 125]] {
        client.send(PING, payload);
        assert_eq!(client.next(), (PONG, payload.to_vec()));
    }
    // Several at once are answered in order; an unsolicited pong is ignored.
    client.wire.send(&[frame(PING, b"1"), frame(PONG, b"unasked"), frame(PING, b"2")].concat());
    assert_eq!(client.next(), (PONG, b"1".to_vec()));
    assert_eq!(client.next(), (PONG, b"2".to_vec()));
    client.expect_nothing();
}

#[test]
fn a_close_is_answered_with_its_code() {
    let pushd = start(PLAIN);
    let address = pushd.address();
    for (payload, code) in [
        (close_payload(1000, "bye"), 1000),
        (close_payload(1001, ""), 1001),
        (close_payload(1011, ""), 1011),
        (close_payload(3000, "ours"), 3000),
        (close_payload(4999, "ours"), 4999),
        (Vec::new(), 1000),
    ] {
        let mut client = Ws::open(address, "/echo");
        client.wire.send(&[frame(TEXT, b"last"), frame(CLOSE, &payload), frame(TEXT, b"too late")].concat());
        client.expect_text("last");
        assert_eq!(client.next_close().0, code, "{payload:?}");
        client.wire.expect_end();
    }
    until_true("no session remains", || metric(address, "pushd_sessions") == 0);
}

#[test]
fn a_client_that_closes_its_side_after_its_last_frame_receives_the_answers() {
    let pushd = start(PLAIN);
    for (last, code) in [(frame(CLOSE, &close_payload(1000, "")), 1000), (b"\x81\x03bad".to_vec(), 1002)] {
        let mut client = Ws::open(pushd.address(), "/echo");
        client.wire.send(&[frame(TEXT, b"last"), last].concat());
        client.wire.finish();
        client.expect_text("last");
        assert_eq!(client.next_close().0, code);
        client.wire.expect_end();
    }
}

#[test]
fn a_fragmented_message_is_one_message() {
    let pushd = start(&small());
    let mut client = Ws::open(pushd.address(), "/echo");
    let euro = "€".as_bytes();
    let pieces = [
        frame(FIRST_TEXT, &[b"a", &euro[..1]].concat()),
        frame(PING, b"between"),
        frame(MIDDLE, &euro[1..2]),
        frame(MIDDLE, b""),
        frame(LAST, &[&euro[2..], b"z"].concat()),
    ]
    .concat();
    client.wire.send(&pieces);
    assert_eq!(client.next(), (PONG, b"between".to_vec()));
    client.expect_text("a€z");
    // The network may split the bytes anywhere.
    for byte in &pieces {
        client.wire.send(&[*byte]);
    }
    assert_eq!(client.next(), (PONG, b"between".to_vec()));
    client.expect_text("a€z");
    client.wire.send(&[frame(0x02, &[1]), frame(LAST, &[2])].concat());
    assert_eq!(client.next(), (BINARY, vec![1, 2]));
    for length in [0, 125, 126, 300] {
        client.text(&"x".repeat(length));
        client.expect_text(&"x".repeat(length));
    }
}

#[test]
fn a_client_that_does_not_answer_pings_is_closed() {
    let pushd = start(&format!("{PLAIN}ping = \"1s\"\npong_timeout = \"1s\"\n"));
    let address = pushd.address();
    let began = Instant::now();
    let mut silent = Ws::open(address, "/ws");
    let mut answers = Ws::open(address, "/ws");
    let answering = std::thread::spawn(move || {
        let mut pings = 0;
        loop {
            match answers.next() {
                (PING, payload) => answers.send(PONG, &payload),
                message => break (pings, message),
            }
            pings += 1;
        }
    });
    assert_eq!(silent.next().0, PING);
    let (code, reason) = silent.next_close();
    assert_eq!((code, &reason[..]), (1008, "no answer to a ping"));
    assert!(began.elapsed().as_millis() > 1000, "{:?}", began.elapsed());
    assert_eq!(metric(address, "pushd_ping_timeouts_total"), 1);
    // It does not answer the close either; its socket is closed all the same.
    silent.wire.expect_end();
    assert_eq!(publish(address, "/publish/all", "for the other"), 1);
    let (pings, message) = answering.join().unwrap();
    assert_eq!(message, (TEXT, b"for the other".to_vec()));
    assert!(pings >= 2, "{pings}");
}

#[test]
fn an_active_client_is_not_pinged() {
    let pushd = start(&format!("{PLAIN}ping = \"3s\"\npong_timeout = \"2s\"\n"));
    let mut client = Ws::open(pushd.address(), "/echo");
    let began = Instant::now();
    let mut count = 0;
    while began.elapsed().as_millis() < 5200 {
        client.text("word");
        client.expect_text("word");
        count += 1;
        // Paced, not waiting: the loop runs up to the deadline in its condition.
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert!(count > 10);
}

#[test]
fn the_rules_of_draft_76_are_kept() {
    let pushd = start(&small().replace("\"broadcast\"", "\"broadcast\", draft76 = true"));
    let address = pushd.address();
    let mut neighbour = Ws::open(address, "/chat");
    // Invalid UTF-8, a text that is too long, a binary frame that is too long.
    for bytes in
        [b"\x00\xfe\xff".to_vec(), [&[0][..], &[b'a'; 301], &[0xff]].concat(), vec![0x80, 0xff, 0xff, 0xff, 0x7f]]
    {
        let mut client = Hixie::open(address, "/chat");
        client.wire.send(&bytes);
        client.expect_close();
    }
    let mut client = Hixie::open(address, "/chat");
    // Binary frames are skipped, as the draft requires.
    client.wire.send(b"\x80\x03abc\x00hello\xff");
    client.expect_text("hello");
    neighbour.expect_text("hello");
    // Messages that the draft cannot represent are not sent to its clients.
    neighbour.send(BINARY, &[1, 2]);
    neighbour.text("then");
    assert_eq!(neighbour.next(), (BINARY, vec![1, 2]));
    neighbour.expect_text("then");
    client.expect_text("then");
    assert_eq!(metric(address, "pushd_messages_unspeakable_total"), 1);
    client.close();
    assert_eq!(metric(address, "pushd_protocol_errors_total"), 3);
}
