//! How a connection ends: a client that sends everything before it reads receives the refusal, and a client that closes
//! its sending side after a request receives the response.

mod common;

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::http::{Answer, request};
use common::wire::Wire;
use common::ws::Ws;
use common::{PLAIN, Start, start};
use nix::sys::signal::Signal;

/// The size of a message from a client that does not know the limit.
const TOO_LARGE: usize = 10_000_000;

#[test]
fn a_client_that_sends_everything_first_receives_the_refusal() {
    let pushd = start(PLAIN);
    let address = pushd.address();
    let message = vec![b'x'; TOO_LARGE];
    for times in 0..5 {
        let mut wire = Wire::connect(address);
        wire.send(&request(address, "POST", "/publish/all", &[], &message));
        let answer = Answer::read(&mut wire);
        assert_eq!((answer.status, answer.field("connection")), (413, Some("close")), "{times}");
        wire.expect_end();
    }
    let mut wire = Wire::connect(address);
    wire.send(b"POST /publish/all HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    for chunk in message.chunks(10_000) {
        wire.send(&[format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    }
    wire.send(b"0\r\n\r\n");
    assert_eq!(Answer::read(&mut wire).status, 413);
    wire.expect_end();
}

#[test]
fn a_client_that_sends_slowly_receives_the_refusal() {
    let pushd = start(PLAIN);
    let address = pushd.address();
    let whole = request(address, "POST", "/publish/all", &[], &[b'x'; 150_000]);
    let mut wire = Wire::connect(address);
    for piece in whole.chunks(10_000) {
        wire.send(piece);
        // Paced, not waiting for a deadline: the client sends 100 kB a second.
        sleep(Duration::from_millis(100));
    }
    assert_eq!(Answer::read(&mut wire).status, 413);
    wire.expect_end();
}

#[test]
fn an_unneeded_body_does_not_end_the_connection() {
    let pushd = start(PLAIN);
    let address = pushd.address();
    let mut wire = Wire::connect(address);
    for (method, target, status) in [("POST", "/healthz", 405), ("POST", "/nowhere", 404), ("POST", "/ws", 405)] {
        wire.send(&request(address, method, target, &[], &[b'x'; 60_000]));
        assert_eq!(Answer::read(&mut wire).status, status, "{target}");
    }
    wire.send(&request(address, "GET", "/readyz", &[], b""));
    assert_eq!(Answer::read(&mut wire).text(), "ready\n");
}

#[test]
fn a_client_that_closes_its_side_after_a_request_receives_the_response() {
    let start = Start::new(&PLAIN.replace("\"/\" = { page = \"live\" }", "\"/\" = { static = \".\" }"));
    let file = vec![b'x'; 5 << 20];
    fs::write(start.path().join("large"), &file).unwrap();
    let pushd = start.run();
    let address = pushd.address();
    let mut client = Ws::open(address, "/ws");
    for number in 0..20 {
        let mut wire = Wire::connect(address);
        wire.send(&request(address, "POST", "/publish/all", &[], number.to_string().as_bytes()));
        wire.finish();
        let answer = Answer::read(&mut wire);
        assert_eq!((answer.status, answer.json()["subscribers"].as_u64()), (200, Some(1)), "{number}");
        wire.expect_end();
        client.expect_text(&number.to_string());
    }
    for fields in [&[][..], &["Connection: close"]] {
        let mut wire = Wire::connect(address);
        wire.send(&request(address, "GET", "/large", fields, b""));
        wire.finish();
        assert!(Answer::read(&mut wire).body == file);
        wire.expect_end();
    }
}

#[test]
fn a_lingering_connection_does_not_delay_the_shutdown() {
    let mut pushd = start(&format!("{PLAIN}\n[daemon]\ngrace = \"60s\"\n"));
    let address = pushd.address();
    let mut wire = Wire::connect(address);
    wire.send(b"POST /publish/all HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n");
    assert_eq!(Answer::read(&mut wire).status, 413);
    let began = Instant::now();
    // The client does not close its side, and keeps sending.
    let mut second = wire.second();
    let sending = std::thread::spawn(move || {
        while began.elapsed() < common::DEADLINE && second.try_send(b"more") {
            // Paced, not waiting: a slow client, until its connection ends or the deadline passes.
            sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(pushd.end(Signal::SIGTERM), 0);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    sending.join().unwrap();
}
