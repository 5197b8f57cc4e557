//! Many clients that receive at once, and a publisher that publishes without a pause. What the clients received is
//! checked at the end.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use flate2::{Decompress, FlushDecompress, Status};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::common::http::request;
use crate::common::ws::{KEYS_76, handshake, handshake_76};
use crate::common::{DEADLINE, until};

/// The protocol of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    Plain,
    Deflate,
    Old,
    Events,
}

/// A client that only receives.
pub struct Client {
    stream: TcpStream,
    pub speech: Speech,
    /// Its channels.
    pub channels: Vec<&'static str>,
    bytes: Vec<u8>,
    ended: bool,
}

impl Client {
    /// Opens a session.
    pub fn open(address: SocketAddr, path: &str, channels: &[&'static str], speech: Speech) -> Client {
        let target = match *channels {
            [one] => format!("{path}?channel={one}"),
            [one, two] => format!("{path}?channel={one}&other={two}"),
            _ => panic!("one channel or two"),
        };
        let request = match speech {
            Speech::Plain => handshake(address, &target, &[]),
            Speech::Deflate => handshake(address, &target, &["Sec-WebSocket-Extensions: permessage-deflate"]),
            Speech::Events => request(address, "GET", &target, &["Accept: text/event-stream"], b""),
            Speech::Old => [&handshake_76(address, &target, &[]), &KEYS_76.2[..]].concat(),
        };
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(&request).unwrap();
        let mut head = Vec::new();
        let tail = match speech {
            Speech::Old => 16,
            Speech::Events => "d\r\nretry: 2000\n\n\r\n".len(),
            Speech::Plain | Speech::Deflate => 0,
        };
        let is_whole = |head: &[u8]| {
            let end = head.windows(4).position(|four| four == b"\r\n\r\n");
            end.is_some_and(|end| head.len() == end + 4 + tail)
        };
        while !is_whole(&head) {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let status = if speech == Speech::Events { "200" } else { "101" };
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert_eq!(head.contains("permessage-deflate"), speech == Speech::Deflate, "{head}");
        stream.set_nonblocking(true).unwrap();
        Client { stream, speech, channels: channels.to_vec(), bytes: Vec::new(), ended: false }
    }

    /// Reads everything that has arrived.
    fn receive(&mut self) {
        let mut bytes = [0; 16 << 10];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return self.ended = true,
                Ok(count) => self.bytes.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.ended = true,
            }
        }
    }

    /// The received texts. There may be no other frames.
    fn texts(&self) -> Vec<String> {
        assert!(!self.ended, "the connection of a client of {:?} ended", self.channels);
        let mut rest = &self.bytes[..];
        let mut texts = Vec::new();
        while !rest.is_empty() {
            let (text, after) = match self.speech {
                Speech::Old => old_frame(rest),
                Speech::Events => event(rest),
                Speech::Plain | Speech::Deflate => frame(rest),
            };
            texts.push(String::from_utf8(text).unwrap());
            rest = after;
        }
        texts
    }
}

fn old_frame(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    assert_eq!(bytes[0], 0, "a text");
    let end = bytes.iter().position(|byte| *byte == 0xff).expect("a complete frame");
    (bytes[1..end].to_vec(), &bytes[end + 1..])
}

fn event(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let end = bytes.windows(2).position(|two| two == b"\r\n").expect("the length of a chunk");
    let length = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
    let (event, rest) = bytes[end + 2..].split_at(length);
    let data =
        event.strip_prefix(b"data: ").and_then(|event| event.strip_suffix(b"\n\n")).expect("an event of one line");
    (data.to_vec(), rest.strip_prefix(b"\r\n").expect("the end of a chunk"))
}

fn frame(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    assert!(matches!(bytes[0], 0x81 | 0xc1), "a text, not {:#x}", bytes[0]);
    let (header, length) = match bytes[1] {
        126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
        length => (2, usize::from(length)),
    };
    let (payload, rest) = bytes[header..].split_at(length);
    if bytes[0] == 0x81 {
        return (payload.to_vec(), rest);
    }
    let (mut text, compressed) = (Vec::with_capacity(4096), [payload, &[0, 0, 0xff, 0xff]].concat());
    let status = Decompress::new(false).decompress_vec(&compressed, &mut text, FlushDecompress::Sync).unwrap();
    assert_ne!(status, Status::BufError);
    (text, rest)
}

/// Clients that are read by one thread.
pub struct Crowd {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Client>>,
}

impl Crowd {
    /// Reads these clients until [`Crowd::end`], and then until each has received this last message on each of its
    /// channels.
    pub fn new(mut clients: Vec<Client>, last: &'static str) -> Crowd {
        let ends = Arc::new(AtomicBool::new(false));
        let asked = ends.clone();
        let thread = std::thread::spawn(move || {
            let mut since = Instant::now();
            loop {
                let ending = asked.load(Ordering::SeqCst);
                if !ending {
                    since = Instant::now();
                }
                if ending && clients.iter().all(|client| client.ended || has_received(client, last)) {
                    return clients;
                }
                assert!(since.elapsed() < DEADLINE, "not every client received the last message");
                let mut polled: Vec<_> =
                    clients.iter().map(|client| PollFd::new(client.stream.as_fd(), PollFlags::POLLIN)).collect();
                poll(&mut polled, PollTimeout::from(20u8)).unwrap();
                let ready: Vec<bool> = polled.iter().map(|fd| fd.any() == Some(true)).collect();
                clients
                    .iter_mut()
                    .zip(ready)
                    .filter(|(client, ready)| *ready && !client.ended)
                    .for_each(|(c, _)| c.receive());
            }
        });
        Crowd { ends, thread }
    }

    /// The texts that each client received, with its channels.
    pub fn end(self) -> Vec<(Vec<&'static str>, Vec<String>)> {
        self.ends.store(true, Ordering::SeqCst);
        let clients = self.thread.join().unwrap();
        clients.iter().map(|client| (client.channels.clone(), client.texts())).collect()
    }
}

fn has_received(client: &Client, last: &str) -> bool {
    // The message is too short to be compressed.
    let tail = &client.bytes[client.bytes.len().saturating_sub(100)..];
    tail.windows(last.len()).filter(|part| *part == last.as_bytes()).count() >= client.channels.len()
}

/// Publishes to the channels in turn until it is ended.
pub struct Publisher {
    ends: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    thread: JoinHandle<Posted>,
}

/// The published messages.
#[derive(Default)]
pub struct Posted {
    /// The acknowledged messages.
    pub acknowledged: HashSet<String>,
    /// The number of messages sent without an answer.
    pub unanswered: usize,
}

impl Publisher {
    /// Starts. Each message is `CHANNEL NUMBER` and some text that is worth compressing.
    pub fn new(address: SocketAddr, channels: &'static [&'static str]) -> Publisher {
        let ends = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::<AtomicUsize>::default();
        let (asked, count) = (ends.clone(), acknowledged.clone());
        let thread = std::thread::spawn(move || {
            let mut posted = Posted::default();
            for number in 0.. {
                if asked.load(Ordering::SeqCst) {
                    break;
                }
                let channel = channels[number % channels.len()];
                let message = format!("{channel} {number:06} {}", "all work and no play ".repeat(number % 8));
                if post(address, channel, &message) {
                    posted.acknowledged.insert(message);
                    count.fetch_add(1, Ordering::SeqCst);
                } else {
                    posted.unanswered += 1;
                }
            }
            posted
        });
        Publisher { ends, acknowledged, thread }
    }

    /// Waits until this number of further messages is acknowledged.
    pub fn goes_on(&self, more: usize) {
        let before = self.acknowledged.load(Ordering::SeqCst);
        until("publications", || (self.acknowledged.load(Ordering::SeqCst) >= before + more).then_some(()));
    }

    /// Stops publishing.
    pub fn end(self) -> Posted {
        self.ends.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

/// Publishes one message. Returns whether it was acknowledged.
fn post(address: SocketAddr, channel: &str, message: &str) -> bool {
    // The address is listened on all the time.
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let target = format!("/publish/{channel}");
    let request = request(address, "POST", &target, &["Connection: close"], message.as_bytes());
    let mut answer = Vec::new();
    stream.write_all(&request).is_ok()
        && stream.read_to_end(&mut answer).is_ok()
        && answer.starts_with(b"HTTP/1.1 200 ")
}

/// Publishes a message repeatedly until it is acknowledged.
pub fn post_surely(address: SocketAddr, channel: &str, message: &str) {
    until("an answer", || post(address, channel, message).then_some(()));
}
