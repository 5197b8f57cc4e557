//! Resuming: the time from a request with a position to the last of the messages that were missed, one client after the other.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::live::{batch, message};
use crate::subject::Subject;
use crate::{Scale, quantile};

const ROUTES: &str = r#"
"/events" = { events = "news", channels = ["all"] }
"/ws" = { websocket = "news", channels = ["all"], envelope = true }
"/poll" = { poll = "news", channels = ["all"] }
"/batch" = { publish = "news", batch = true }
"/publish" = { publish = "news", channel = "all" }
"#;
/// How clients resume: the name, and the request after the position.
const WAYS: [(&str, &str, &str); 3] = [
    ("event stream", "/events?since=", "Accept: text/event-stream\r\n"),
    (
        "WebSocket with envelope",
        "/ws?since=",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    ),
    ("poll", "/poll?limit=1000&since=", "Accept: application/json\r\n"),
];
/// How many messages were published before those that are missed, and after the last client has gone.
const OLDER: u64 = 1000;

/// Prints the table.
pub fn run(scale: Scale) {
    let (missed, clients) = scale.pick((10, 2), (1000, 10), (1000, 100));
    println!("\n{clients} clients, each {missed} messages of 64 B behind, one after the other\n");
    println!("| history | client | p50 ms | p99 ms | longest ms |\n|---|---|---:|---:|---:|");
    for is_durable in [false, true] {
        let hub = format!("[hub.news]\nhistory = {{ messages = 10000 }}\ndurable = {is_durable}\n");
        let mut subject = Subject::start_apart(ROUTES, &hub, "100ms", "256MiB");
        subject.publish_batch("/batch", batch("all", 1, OLDER).as_bytes());
        let since = subject.publish("/publish", b"before");
        subject.publish_batch("/batch", batch("all", 1, missed).as_bytes());
        if is_durable {
            subject.crash();
        }
        for (way, target, fields) in WAYS {
            let request =
                |version| format!("GET {target}{since} HTTP/{version}\r\nHost: {}\r\n{fields}\r\n", subject.address());
            // Without chunks where it is possible.
            let request = if way.starts_with("WebSocket") { request("1.1") } else { request("1.0") };
            let mut times: Vec<Duration> = (0..clients).map(|_| one(&subject, &request, missed)).collect();
            let history = if is_durable { "durable, after a crash" } else { "in memory" };
            let [p50, p99, longest] = [0.5, 0.99, 1.0].map(|part| quantile(&mut times, part));
            println!("| {history} | {way} | {p50:.2} | {p99:.2} | {longest:.2} |");
        }
    }
}

fn one(subject: &Subject, request: &str, missed: u64) -> Duration {
    let mut socket = TcpStream::connect(subject.address()).unwrap();
    socket.set_read_timeout(Some(crate::common::DEADLINE)).unwrap();
    let last = message(missed);
    let (mut all, mut buffer) = (Vec::with_capacity(1 << 20), vec![0; 256 << 10]);
    let began = Instant::now();
    socket.write_all(request.as_bytes()).unwrap();
    let time = loop {
        let count = socket.read(&mut buffer).unwrap();
        assert!(count > 0, "it ended early: {:?}", String::from_utf8_lossy(&all[..all.len().min(500)]));
        all.extend_from_slice(&buffer[..count]);
        // Only the end is searched. An envelope follows the last message with a few bytes at most.
        let tail = &all[all.len().saturating_sub(200)..];
        if tail.windows(last.len()).any(|window| window == last.as_bytes()) {
            break began.elapsed();
        }
    };
    let mut at = 0;
    for number in 1..=missed {
        let expected = message(number);
        let found = all[at..].windows(expected.len()).position(|window| window == expected.as_bytes());
        at += found.unwrap_or_else(|| panic!("message {number} is missing, or not in order")) + expected.len();
    }
    time
}
