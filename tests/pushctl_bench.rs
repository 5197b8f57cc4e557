//! `pushctl bench` from outside: it measures a server, and detects the faults of a server.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread::spawn;

use common::{PLAIN, Ran, run, start, ws};
use serde_json::Value;

fn bench(arguments: &[&str]) -> Ran {
    run(Command::new(env!("CARGO_BIN_EXE_pushctl")).arg("bench").args(["--duration", "200ms"]).args(arguments))
}

/// The figures of a run without faults.
fn figures(arguments: &[&str]) -> Value {
    let ran = bench(&[arguments, &["--json"]].concat());
    assert_eq!((ran.code(), ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn every_way_to_publish_is_measured() {
    let pushd = start(PLAIN);
    let url = |path: &str| format!("ws://{}{path}", pushd.address());
    let pid = pushd.pid().to_string();
    let broadcast = figures(&["--connections", "20", "--window", "8", "--pid", &pid, &url("/chat")]);
    assert_eq!((&broadcast["connections"], &broadcast["window"]), (&20.into(), &8.into()));
    let counted = broadcast["deliveries"].as_u64().unwrap();
    assert!(counted > 0 && broadcast["latency"]["p50_ms"].as_f64().unwrap() > 0.0, "{broadcast}");
    assert!(broadcast["server"]["cpu_us_per_delivery"].as_f64().unwrap() > 0.0, "{broadcast}");
    let posted = figures(&["--size", "1KiB", "--publish", &url("/publish/all"), &url("/ws")]);
    assert!(posted["deliveries"].as_u64().unwrap() > 0 && posted["server"].is_null(), "{posted}");
    let echoed = figures(&["--echo", "--spin", "--window", "3", &url("/echo")]);
    assert!(echoed["deliveries"].as_u64().unwrap() > 0, "{echoed}");
}

#[test]
fn a_reason_is_given_if_nothing_can_be_measured() {
    let pushd = start(PLAIN);
    let url = |path: &str| format!("ws://{}{path}", pushd.address());
    for (arguments, code, words) in [
        (vec![url("/none")], 1, "404"),
        (vec![url("/metrics")], 1, "serves no WebSocket"),
        (vec!["--publish".into(), url("/none"), url("/ws")], 1, "refused a message"),
        (vec!["ws://127.0.0.1:1/".into()], 69, "Nothing listens there"),
        (vec!["--pid".into(), "4194305".into(), url("/chat")], 64, "no process 4194305"),
        (vec!["--size".into(), "5".into(), url("/chat")], 64, "at least"),
        (vec!["--connections".into(), "3".into(), "--echo".into(), url("/chat")], 1, "leave out --echo"),
        (vec!["--connections".into(), "3".into(), url("/echo")], 1, "add --echo"),
        (vec!["--size".into(), "16MiB".into(), "--window".into(), "64".into(), url("/chat")], 64, "256 MiB"),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let ran = bench(&arguments);
        assert_eq!(ran.code(), code, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(words), "{arguments:?}: {}", ran.stderr);
    }
}

/// A server for one client. It sends back each received frame, unmasked and changed by `change`.
fn faulty(change: impl Fn(usize, Vec<u8>) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).unwrap();
        let accept = ws::KEY.1;
        let answer = format!(
            "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).unwrap();
        let mut number = 0;
        while let Some(frame) = echoed(&mut stream) {
            if stream.write_all(&change(number, frame)).is_err() {
                break;
            }
            number += 1;
        }
    });
    address
}

/// The next short frame of a client, in the form that a server sends.
fn echoed(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = [0; 6];
    stream.read_exact(&mut head).ok()?;
    let mut payload = vec![0; usize::from(head[1] & 0x7f)];
    stream.read_exact(&mut payload).ok()?;
    payload.iter_mut().zip(head[2..].iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Some([vec![head[0], head[1] & 0x7f], payload].concat())
}

#[test]
fn a_server_that_delivers_wrongly_is_detected() {
    let faults = |change: fn(usize, Vec<u8>) -> Vec<u8>, window: &str| {
        let address = faulty(change);
        let ran = bench(&["--connections", "1", "--window", window, &format!("ws://{address}/")]);
        assert_eq!(ran.code(), 1, "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains("FAILED"), "{}", ran.stdout);
        ran.stderr
    };
    let twice = |number, frame: Vec<u8>| if number == 3 { [frame.clone(), frame].concat() } else { frame };
    assert!(faults(twice, "1").contains("1 duplicated"));
    let lost = |number, frame: Vec<u8>| if number == 3 { Vec::new() } else { frame };
    assert!(faults(lost, "2").contains("1 lost"));
    let corrupt = |number, mut frame: Vec<u8>| {
        if number == 3 {
            frame[60] ^= 1;
        }
        frame
    };
    assert!(faults(corrupt, "1").contains("1 corrupt"));
}
