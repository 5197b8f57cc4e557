//! Durable hubs are killed again and again under load, by `kill -9`, and handed over between. Publishers with and without keys try
//! again; subscribers continue from their last position.
//!
//! In the end: every acknowledged message is there once, in order; no position was given twice; each subscriber has received every
//! acknowledged message of its channels once, and was never told of a gap; a message that came again with its key was answered as
//! before. A message that was not acknowledged may be lost, or have reached subscribers before it was lost.
//!
//! `PUSHD_KILLS=n` kills n times.

mod common;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};

use common::service::Service;
use common::{DEADLINE, until_true};
use serde_json::Value;

const CONFIG: &str = r#"
[daemon]
workers = 2
[store]
sync = "SYNC"
[server.main]
listen = "systemd:web"
[server.main.routes]
"/events" = { events = "news", channels = ["a", "b", "c"] }
"/one" = { events = "news", channels = ["b"] }
"/pattern" = { events = "news", channels = ["*"] }
"/poll" = { poll = "news", channels = ["a", "c"] }
"/publish/{channel}" = { publish = "news", channel = "{channel}" }
"/batch" = { publish = "news", batch = true }
[hub.news]
history = { messages = 100000 }
durable = true
"#;
const CHANNELS: [&str; 3] = ["a", "b", "c"];
/// How often pushd is killed by default.
const KILLS: usize = 6;
/// How many messages are in a batch.
const BATCH: usize = 5;

/// What was acknowledged: text and channel, by position.
type Acknowledged = BTreeMap<u64, (String, &'static str)>;

/// What all threads share.
struct Load {
    address: SocketAddr,
    acknowledged: Mutex<Acknowledged>,
    count: AtomicUsize,
    /// Publishers finish the message that they are at.
    is_over: AtomicBool,
    /// Subscribers end when their connection does.
    is_complete: AtomicBool,
    /// The only epoch.
    epoch: Mutex<Option<String>>,
    /// The text of every position that anybody has seen.
    given: Mutex<HashMap<u64, String>>,
}

impl Load {
    /// Notes a position with its text. Returns its offset.
    fn note(&self, id: &str, text: &str) -> u64 {
        let (epoch, offset) = id.split_once('-').unwrap();
        let offset = u64::from_str_radix(offset, 36).unwrap();
        assert_eq!(self.epoch.lock().unwrap().get_or_insert_with(|| epoch.to_owned()), epoch, "the epoch lasts");
        let mut given = self.given.lock().unwrap();
        let known = given.entry(offset).or_insert_with(|| text.to_owned());
        assert_eq!(known, text, "{id} was given twice");
        offset
    }

    fn acknowledge(&self, id: &str, text: &str, channel: &'static str) {
        let offset = self.note(id, text);
        let before = self.acknowledged.lock().unwrap().insert(offset, (text.to_owned(), channel));
        assert_eq!(before, None, "{id} is the answer to two messages");
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A connection that may end at any time.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(Connection(BufReader::new(stream)))
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        match line.strip_suffix('\n') {
            Some(line) => Ok(line.trim_end_matches('\r').to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Reads the head of a response: its status, and the length of its body.
    fn head(&mut self) -> io::Result<(u16, usize)> {
        let status = self.line()?;
        let mut length = 0;
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                return Ok((status.split(' ').nth(1).unwrap().parse().unwrap(), length));
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
    }

    /// Publishes, on a connection that stays open. Returns status and body.
    fn post(&mut self, target: &str, key: Option<&str>, body: &str) -> io::Result<(u16, String)> {
        let key = key.map(|key| format!("Idempotency-Key: {key}\r\n")).unwrap_or_default();
        let length = body.len();
        let kind = if target == "/batch" { "application/x-ndjson" } else { "text/plain" };
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n{key}Content-Length: {length}\r\n\r\n"
        );
        self.send(&[head.as_bytes(), body.as_bytes()].concat())?;
        let (status, length) = self.head()?;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status, String::from_utf8(body).unwrap()))
    }
}

/// Publishes one message after the other. With keys, each is sent until it is answered, and some once more.
fn publish(load: &Load, name: usize, has_keys: bool) {
    let mut connection = None;
    for number in 0.. {
        if load.is_over.load(Ordering::Relaxed) {
            return;
        }
        let channel = CHANNELS[number % CHANNELS.len()];
        let (text, target) = (format!("{name}:{number}"), format!("/publish/{channel}"));
        let (key, again) = (has_keys.then_some(&*text), has_keys && number % 7 == 0);
        let mut answers = Vec::new();
        while answers.len() < 1 + usize::from(again) {
            match post(&mut connection, load.address, &target, key, &text) {
                Ok(answer) => answers.push(answer),
                // It may have been published or not.
                Err(_) if !has_keys => break,
                Err(_) => {}
            }
        }
        let Some(answer) = answers.first() else { continue };
        assert!(answers.iter().all(|other| other == answer), "{answers:?}");
        let json: Value = serde_json::from_str(answer).unwrap();
        load.acknowledge(json["id"].as_str().unwrap(), &text, channel);
    }
}

/// Publishes batches with keys, each until it is answered.
fn publish_batches(load: &Load, name: usize) {
    let mut connection = None;
    for number in 0.. {
        if load.is_over.load(Ordering::Relaxed) {
            return;
        }
        let messages: Vec<_> =
            (0..BATCH).map(|at| (format!("{name}:{number}:{at}"), CHANNELS[(number + at) % CHANNELS.len()])).collect();
        let line = |(text, channel): &(String, &str)| {
            format!("{{\"channel\":\"{channel}\",\"data\":\"{text}\",\"key\":\"{text}\"}}\n")
        };
        let body: String = messages.iter().map(line).collect();
        let answer = loop {
            if let Ok(answer) = post(&mut connection, load.address, "/batch", None, &body) {
                break answer;
            }
        };
        let results: Vec<Value> = answer.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(results.len(), messages.len(), "{answer}");
        for (result, (text, channel)) in results.iter().zip(messages) {
            let id = result["id"].as_str().unwrap_or_else(|| panic!("{answer}"));
            load.acknowledge(id, &text, channel);
        }
    }
}

/// Publishes once. After an error, the next call opens another connection.
fn post(
    connection: &mut Option<Connection>,
    address: SocketAddr,
    target: &str,
    key: Option<&str>,
    body: &str,
) -> io::Result<String> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => Connection::open(address)?,
    };
    let (status, answer) = open.post(target, key, body)?;
    *connection = Some(open);
    match status {
        200 => Ok(answer),
        // The server ends, or a message with this key is being written.
        409 | 503 => Err(io::Error::other(answer)),
        _ => panic!("{status} {answer}"),
    }
}

/// What a subscriber has received: text by position.
type Received = Arc<Mutex<BTreeMap<u64, String>>>;

/// Receives an event stream as an `EventSource` does, again and again from the last id.
fn subscribe(load: &Load, target: &str, received: &Received) {
    let mut id = "earliest".to_owned();
    while !load.is_complete.load(Ordering::Relaxed) {
        // Its connection ends with the process.
        let _ = follow(load, target, &mut id, received);
    }
}

fn follow(load: &Load, target: &str, id: &mut String, received: &Received) -> io::Result<()> {
    let mut connection = Connection::open(load.address)?;
    let request = format!("GET {target} HTTP/1.0\r\nHost: localhost\r\nLast-Event-ID: {id}\r\n\r\n");
    connection.send(request.as_bytes())?;
    assert_eq!(connection.head()?.0, 200);
    let (mut next, mut data) = (id.clone(), None);
    loop {
        let line = connection.line()?;
        match line.split_once(": ") {
            Some(("id", value)) => next = value.to_owned(),
            Some(("data", value)) => data = Some(value.to_owned()),
            Some(("event", name)) => panic!("a {name} after {id}"),
            _ if !line.is_empty() => {}
            _ => {
                id.clone_from(&next);
                if let Some(text) = data.take() {
                    receive(load, id, text, received);
                }
            }
        }
    }
}

fn receive(load: &Load, id: &str, text: String, received: &Received) {
    let offset = load.note(id, &text);
    let mut received = received.lock().unwrap();
    let last = received.last_key_value().map_or(0, |(last, _)| *last);
    assert!(last < offset, "{text} came after {last}, at {offset}");
    received.insert(offset, text);
}

/// Receives by polls, each from the position of the one before.
fn poll(load: &Load, target: &str, received: &Received) {
    let mut position = "earliest".to_owned();
    while !load.is_complete.load(Ordering::Relaxed) {
        let _ = poll_once(load, target, &mut position, received);
    }
}

fn poll_once(load: &Load, target: &str, position: &mut String, received: &Received) -> io::Result<()> {
    let mut connection = Connection::open(load.address)?;
    let request = format!("GET {target}?since={position}&wait=2s HTTP/1.0\r\nHost: localhost\r\n\r\n");
    connection.send(request.as_bytes())?;
    let (status, _) = connection.head()?;
    let mut body = String::new();
    connection.0.read_to_string(&mut body)?;
    let Ok(answer) = serde_json::from_str::<Value>(&body) else { return Err(io::ErrorKind::UnexpectedEof.into()) };
    assert_eq!((status, &answer["gap"]), (200, &Value::Bool(false)), "{answer}");
    for message in answer["messages"].as_array().unwrap() {
        receive(load, message["id"].as_str().unwrap(), message["data"].as_str().unwrap().to_owned(), received);
    }
    *position = answer["position"].as_str().unwrap().to_owned();
    Ok(())
}

/// A subscriber: its channels, what it has received, and its thread.
struct Subscriber {
    channels: &'static [&'static str],
    received: Received,
    thread: JoinHandle<()>,
}

impl Subscriber {
    fn new(load: &Arc<Load>, target: &'static str, channels: &'static [&'static str]) -> Subscriber {
        let (load, received) = (load.clone(), Received::default());
        let shared = received.clone();
        let thread = spawn(move || match target {
            "/poll" => poll(&load, target, &shared),
            _ => subscribe(&load, target, &shared),
        });
        Subscriber { channels, received, thread }
    }

    /// Whether it has received the last message that was acknowledged on its channels.
    fn has_last_of(&self, acknowledged: &Acknowledged) -> bool {
        let last = acknowledged.iter().rfind(|(_, (_, channel))| self.channels.contains(channel)).unwrap().0;
        assert!(!self.thread.is_finished(), "it failed");
        self.received.lock().unwrap().contains_key(last)
    }

    /// Checks that it has received every acknowledged message.
    fn check(&self, acknowledged: &Acknowledged) {
        let received = self.received.lock().unwrap();
        for (offset, (text, _)) in acknowledged.iter().filter(|(_, (_, channel))| self.channels.contains(channel)) {
            assert_eq!(received.get(offset), Some(text), "{offset} is missing on {:?}", self.channels);
        }
    }
}

/// Everything that is kept: text by position.
fn history(load: &Load, address: SocketAddr, until: u64) -> BTreeMap<u64, String> {
    let received = Received::default();
    let mut id = "earliest".to_owned();
    let mut connection = Connection::open(address).unwrap();
    connection.send(b"GET /events?since=earliest HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(connection.head().unwrap().0, 200);
    while received.lock().unwrap().last_key_value().is_none_or(|(last, _)| *last < until) {
        let line = connection.line().unwrap();
        match line.split_once(": ") {
            Some(("id", value)) => value.clone_into(&mut id),
            Some(("data", value)) => receive(load, &id, value.to_owned(), &received),
            Some(("event", name)) => panic!("a {name} after {id}"),
            _ => {}
        }
    }
    Arc::into_inner(received).unwrap().into_inner().unwrap()
}

fn check_history(load: &Load, address: SocketAddr, acknowledged: &Acknowledged) {
    let kept = history(load, address, *acknowledged.last_key_value().unwrap().0);
    let mut texts = HashSet::new();
    for (offset, text) in &kept {
        assert!(texts.insert(text), "{text} is kept twice, the second time at {offset}");
    }
    for (offset, (text, _)) in acknowledged {
        assert_eq!(kept.get(offset), Some(text), "what was acknowledged at {offset} is lost");
    }
}

fn kill_under_load(sync: &str) {
    let kills = std::env::var("PUSHD_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut service = Service::new(&CONFIG.replace("SYNC", sync), 512);
    let load = Arc::new(Load {
        address: listener.local_addr().unwrap(),
        acknowledged: Mutex::default(),
        count: AtomicUsize::new(0),
        is_over: AtomicBool::new(false),
        is_complete: AtomicBool::new(false),
        epoch: Mutex::default(),
        given: Mutex::default(),
    });
    service.sockets.push(("web".to_owned(), listener.into()));
    service.start();
    let publishers: Vec<_> = (0..5)
        .map(|name| {
            let load = load.clone();
            spawn(move || if name == 4 { publish_batches(&load, name) } else { publish(&load, name, name % 2 == 0) })
        })
        .collect();
    let subscribers = [
        Subscriber::new(&load, "/events", &CHANNELS),
        Subscriber::new(&load, "/one", &["b"]),
        Subscriber::new(&load, "/pattern", &CHANNELS),
        Subscriber::new(&load, "/poll", &["a", "c"]),
    ];
    for round in 0..kills {
        // At another moment in each round; in some, at once.
        let wanted = load.count.load(Ordering::Relaxed) + (round * 7919) % 5 * 43;
        until_true("acknowledgements", || {
            assert!(publishers.iter().all(|publisher| !publisher.is_finished()), "a publisher failed");
            load.count.load(Ordering::Relaxed) >= wanted
        });
        if round % 4 == 2 {
            service.restart();
        } else {
            service.kill();
            service.start();
        }
    }
    load.is_over.store(true, Ordering::Relaxed);
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
    let acknowledged = load.acknowledged.lock().unwrap().clone();
    for subscriber in &subscribers {
        until_true("the last message", || subscriber.has_last_of(&acknowledged));
        subscriber.check(&acknowledged);
    }
    check_history(&load, load.address, &acknowledged);
    load.is_complete.store(true, Ordering::Relaxed);
    service.kill();
    // Those that connect again end with the socket.
    service.sockets.clear();
    subscribers.into_iter().for_each(|subscriber| subscriber.thread.join().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    service.sockets.push(("web".to_owned(), listener.into()));
    service.start();
    check_history(&load, address, &acknowledged);
    eprintln!("{kills} rounds, sync {sync}: {} messages were acknowledged", acknowledged.len());
}

#[test]
fn every_acknowledged_message_outlives_kills_and_reaches_its_subscribers_once() {
    kill_under_load("always");
}

#[test]
fn a_crash_loses_nothing_that_is_not_yet_flushed() {
    kill_under_load("100ms");
}
