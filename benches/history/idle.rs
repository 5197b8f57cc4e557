//! The memory of an idle session on a hub with a history, for each kind of client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::Scale;
use crate::common::{DEADLINE, until_true};
use crate::subject::Subject;

const ROUTES: &str = r#"
"/events" = { events = "news", channels = ["all"] }
"/ws" = { websocket = "news", channels = ["all"], envelope = true }
"/poll" = { poll = "news", channels = ["all"] }
"/publish" = { publish = "news", channel = "all" }
"#;
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// The name, the target without the position, the header fields, and what the server sends first. A poll is answered once there is a
/// message.
const CLIENTS: [(&str, &str, &str, &str); 3] = [
    ("WebSocket with envelope", "/ws?since=", UPGRADE, "\r\n\r\n"),
    ("event stream", "/events?since=", "Accept: text/event-stream\r\n", "\n\n"),
    ("waiting poll", "/poll?wait=60s&since=", "Accept: application/json\r\n", ""),
];
/// How many sessions are opened at once.
const AT_ONCE: usize = 50;

/// Prints the table.
pub fn run(scale: Scale) {
    let sessions = scale.pick(20, 2000, 10_000);
    println!("\n| {sessions} idle sessions | B/session |\n|---|---:|");
    for client in CLIENTS {
        let subject = Subject::start(ROUTES, "[hub.news]\nhistory = { messages = 100 }\n", "100ms", "256MiB");
        let position = subject.publish("/publish", b"one");
        // Some memory is taken once.
        let first = open(&subject, client, &position, 10, 0);
        let before = subject.resident();
        let all = open(&subject, client, &position, sessions, first.len());
        let grown = subject.resident().saturating_sub(before);
        println!("| {} | {} |", client.0, grown / sessions as u64);
        drop((first, all));
    }
}

fn open(
    subject: &Subject,
    (_, target, fields, end): (&str, &str, &str, &str),
    position: &str,
    count: usize,
    already: usize,
) -> Vec<TcpStream> {
    let address = subject.address();
    let request = format!("GET {target}{position} HTTP/1.1\r\nHost: {address}\r\n{fields}\r\n");
    let mut open = Vec::with_capacity(count);
    while open.len() < count {
        let begun = open.len();
        (begun..count.min(begun + AT_ONCE)).for_each(|_| open.push(connect(address)));
        open[begun..].iter_mut().for_each(|stream| stream.write_all(request.as_bytes()).unwrap());
        open[begun..].iter_mut().for_each(|stream| read_until(stream, end));
    }
    until_true("all sessions", || subject.metric("pushd_sessions") == (already + count) as u64);
    open
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Reads the beginning of a response, up to these bytes.
fn read_until(stream: &mut TcpStream, end: &str) {
    let (mut response, mut length) = ([0; 1024], 0);
    while !end.is_empty() && !response[..length].windows(end.len()).any(|window| window == end.as_bytes()) {
        let count = stream.read(&mut response[length..]).unwrap();
        assert!(count > 0, "{:?}", String::from_utf8_lossy(&response[..length]));
        length += count;
    }
    let refused = length > 0 && !response.starts_with(b"HTTP/1.1 101 ") && !response.starts_with(b"HTTP/1.1 200 ");
    assert!(!refused, "{:?}", String::from_utf8_lossy(&response[..length]));
}
