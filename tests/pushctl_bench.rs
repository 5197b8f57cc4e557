//! `pushctl bench` from outside: it measures a server, and detects the faults of a server.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread::spawn;

use common::{PLAIN, Ran, run, start, ws};
use serde_json::Value;

/// A hub with event streams.
const EVENTS: &str = r#"
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/events" = { events = "push", channels = ["{channel=all}"] }
"/named" = { events = "push", event = "{channel}" }
"/ws" = { websocket = "push" }
"/publish/{channel}" = { publish = "push", channel = "{channel}" }
"/metrics" = { metrics = true }
[hub.push]
message_max = "1MiB"
queue_max = "8MiB"
"#;

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

#[test]
fn event_streams_are_measured() {
    let pushd = start(EVENTS);
    let url = |path: &str| format!("http://{}{path}", pushd.address());
    let pid = pushd.pid().to_string();
    for (path, size, window) in
        [("/events?channel=x", "64", "8"), ("/events?channel=x", "300KiB", "2"), ("/named", "64", "1")]
    {
        let channel = if path == "/named" { "all" } else { "x" };
        let publish = url(&format!("/publish/{channel}"));
        let options = ["--events", "--connections", "20", "--pid", &pid, "--publish", &publish];
        let events = figures(&[&options[..], &["--size", size, "--window", window, &url(path)]].concat());
        assert_eq!((&events["connections"], &events["foreign"]), (&20.into(), &0.into()), "{events}");
        assert!(events["deliveries"].as_u64().unwrap() > 0, "{events}");
        assert!(events["server"]["resident_bytes_per_connection"].is_number(), "{events}");
    }
}

#[test]
fn a_reason_is_given_if_event_streams_cannot_be_measured() {
    let pushd = start(EVENTS);
    let url = |path: &str| format!("http://{}{path}", pushd.address());
    let (publish, events) = (url("/publish/all"), url("/events"));
    for (arguments, code, words) in [
        (vec!["--events", &events], 64, "--events requires --publish URL"),
        (vec!["--events", "--echo", &events], 64, "cannot be used with"),
        (vec!["--events", "--publish", &publish, &url("/metrics")], 1, "serves no event stream"),
        (vec!["--events", "--publish", &publish, &url("/none")], 1, "404"),
        (vec!["--publish", &publish, &events], 1, "serves no WebSocket"),
    ] {
        let ran = bench(&arguments);
        assert_eq!(ran.code(), code, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(words), "{arguments:?}: {}", ran.stderr);
    }
}

/// A server of one event stream, to which messages are posted. It sends each message in the lines that `change` makes
/// of it.
fn stream_of(change: impl Fn(usize, String) -> String + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    spawn(move || {
        let (mut subscriber, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let length = subscriber.read(&mut request).unwrap();
        let request = String::from_utf8_lossy(&request[..length]);
        assert!(request.starts_with("GET /stream HTTP/1.0\r\n"), "{request}");
        assert!(request.contains("\r\nAccept: text/event-stream\r\n"), "{request}");
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n: hi\n\n";
        subscriber.write_all(head.as_bytes()).unwrap();
        let (mut publisher, _) = listener.accept().unwrap();
        let mut number = 0;
        while let Some(message) = posted(&mut publisher) {
            let written = subscriber.write_all(change(number, message).as_bytes());
            if written.and_then(|()| publisher.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).is_err() {
                break;
            }
            number += 1;
        }
    });
    address
}

/// The next message of 64 bytes that is posted.
fn posted(stream: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(head) = request.windows(4).position(|window| window == b"\r\n\r\n")
            && request.len() == head + 4 + 64
        {
            return String::from_utf8(request.split_off(head + 4)).ok();
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(length) => request.extend_from_slice(&piece[..length]),
        }
    }
}

#[test]
fn events_of_other_servers_are_compared_with_what_was_posted() {
    let run = |change: fn(usize, String) -> String, window: &str| {
        let address = stream_of(change);
        let (stream, publish) = (format!("http://{address}/stream"), format!("http://{address}/publish"));
        let options = ["--events", "--connections", "1", "--size", "64", "--window", window];
        let ran = bench(&[&options[..], &["--publish", &publish, &stream]].concat());
        (ran.code(), ran.stdout + &ran.stderr)
    };
    let with_fields = |number, text| format!("retry: 5\r\nid: 17:{number}\r\n: hi\r\nevent: x\r\ndata:{text}\r\n\r\n");
    let (code, output) = run(with_fields, "4");
    assert!(code == 0 && output.contains("every delivery came once"), "{output}");
    for (change, window, words) in [
        (twice as fn(usize, String) -> String, "1", "1 duplicated"),
        (lost, "2", "1 lost"),
        (corrupt, "1", "1 corrupt"),
    ] {
        let (code, output) = run(change, window);
        assert!(code == 1 && output.contains(words), "{output}");
    }
}

fn event(text: &str) -> String {
    format!("data: {text}\n\n")
}

fn twice(number: usize, text: String) -> String {
    event(&text).repeat(if number == 3 { 2 } else { 1 })
}

fn lost(number: usize, text: String) -> String {
    if number == 3 { String::new() } else { event(&text) }
}

fn corrupt(number: usize, text: String) -> String {
    event(&if number == 3 { text.replace('z', "!") } else { text })
}
