//! Publishers in a closed loop: each sends its request, waits for the answer, and sends it again. One thread with one epoll set.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// How long a request may take before the run fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is read from a socket at once.
const READ_BYTES: usize = 256 << 10;

/// The protocol of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Publications over HTTP, one or a batch in each request. The server counts what it answers.
    Http,
    /// `XADD` commands, one or several in each write.
    Redis,
}

/// The load.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// How many connections publish.
    pub publishers: usize,
    /// How many messages are in each request. 1: a request for one message, otherwise a batch.
    pub messages: usize,
    /// Bytes of each message.
    pub size: usize,
    /// How many messages Redis keeps of each stream.
    pub kept: usize,
    /// How long the load runs before it is measured, and then.
    pub warm_up: Duration,
    pub duration: Duration,
}

/// What was measured.
#[derive(Debug)]
pub struct Measured {
    /// Messages that were acknowledged while it was measured, and in how many seconds.
    pub messages: u64,
    pub seconds: f64,
    /// The time from each request to its answer.
    pub times: Vec<Duration>,
    /// All messages that were acknowledged, also before it was measured.
    pub all: u64,
}

struct Publisher {
    socket: TcpStream,
    request: Vec<u8>,
    sent: usize,
    held: Vec<u8>,
    began: Instant,
    waits_writable: bool,
    is_done: bool,
}

/// Runs the load. `between` is called when the warm-up ends and when the measurement ends.
pub fn run(address: SocketAddr, protocol: Protocol, load: &Load, between: &mut dyn FnMut()) -> Measured {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let mut publishers: Vec<Publisher> =
        (0..load.publishers).map(|number| Publisher::open(address, protocol.request(address, number, load))).collect();
    for (number, publisher) in publishers.iter().enumerate() {
        epoll.add(&publisher.socket, EpollEvent::new(EpollFlags::EPOLLIN, number as u64)).unwrap();
    }
    let mut buffer = vec![0; READ_BYTES];
    let mut events = vec![EpollEvent::empty(); load.publishers];
    let mut measured = Measured { messages: 0, seconds: 0.0, times: Vec::new(), all: 0 };
    for (number, publisher) in publishers.iter_mut().enumerate() {
        publisher.begin();
        publisher.flush(&epoll, number);
    }
    let mut counts = false;
    let mut phase_began = Instant::now();
    let mut left = load.publishers;
    while left > 0 {
        let ready = epoll.wait(&mut events, EpollTimeout::from(1000_u16)).unwrap();
        let now = Instant::now();
        if !counts && measured.seconds == 0.0 && now - phase_began >= load.warm_up {
            (counts, phase_began) = (true, now);
            between();
        } else if counts && now - phase_began >= load.duration {
            (counts, measured.seconds) = (false, (now - phase_began).as_secs_f64());
            between();
        }
        for event in &events[..ready] {
            let number = event.data() as usize;
            let publisher = &mut publishers[number];
            if event.events().contains(EpollFlags::EPOLLOUT) {
                publisher.flush(&epoll, number);
            }
            if !publisher.read(&mut buffer, protocol, load.messages) {
                continue;
            }
            measured.all += load.messages as u64;
            if counts {
                measured.messages += load.messages as u64;
                measured.times.push(publisher.began.elapsed());
            }
            if measured.seconds > 0.0 {
                publisher.is_done = true;
                left -= 1;
                continue;
            }
            publisher.begin();
            publisher.flush(&epoll, number);
        }
        let late = publishers.iter().any(|publisher| !publisher.is_done && now > publisher.began + PATIENCE);
        assert!(!late, "no answer within {PATIENCE:?}");
    }
    measured
}

impl Publisher {
    fn open(address: SocketAddr, request: Vec<u8>) -> Publisher {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        let (held, began) = (Vec::new(), Instant::now());
        Publisher { socket, sent: 0, request, held, began, waits_writable: false, is_done: false }
    }

    fn begin(&mut self) {
        (self.sent, self.began) = (0, Instant::now());
    }

    /// Sends what the kernel accepts. If some remains, the epoll set waits until the socket is writable.
    fn flush(&mut self, epoll: &Epoll, number: usize) {
        while self.sent < self.request.len() {
            match self.socket.write(&self.request[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("cannot send: {error}"),
            }
        }
        let waits = self.sent < self.request.len();
        if std::mem::replace(&mut self.waits_writable, waits) != waits {
            let mut flags = EpollFlags::EPOLLIN;
            flags.set(EpollFlags::EPOLLOUT, waits);
            epoll.modify(&self.socket, &mut EpollEvent::new(flags, number as u64)).unwrap();
        }
    }

    /// Reads what has arrived. Returns whether the answer is complete.
    fn read(&mut self, buffer: &mut [u8], protocol: Protocol, messages: usize) -> bool {
        match self.socket.read(buffer) {
            Ok(0) => panic!("the server closed a connection after {:?}", String::from_utf8_lossy(&self.held)),
            Ok(count) => self.held.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return false,
            Err(error) => panic!("cannot read: {error}"),
        }
        let is_whole = match protocol.is_whole(&self.held, messages) {
            Ok(is_whole) => is_whole,
            Err(error) => panic!("{error}: {:?}", String::from_utf8_lossy(&self.held)),
        };
        if is_whole {
            self.held.clear();
        }
        is_whole
    }
}

impl Protocol {
    /// The request that a publisher sends again and again.
    fn request(self, address: SocketAddr, number: usize, load: &Load) -> Vec<u8> {
        let Load { messages, size, kept, .. } = *load;
        let payload = "x".repeat(size);
        match self {
            Protocol::Http => {
                let (path, body) = match messages {
                    1 => (format!("/publish/p{number}"), payload),
                    _ => (
                        "/batch".to_owned(),
                        format!("{{\"channel\":\"p{number}\",\"data\":\"{payload}\"}}\n").repeat(messages),
                    ),
                };
                let length = body.len();
                format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{body}")
                    .into_bytes()
            }
            Protocol::Redis => {
                let words = ["XADD", &format!("p{number}"), "MAXLEN", "~", &kept.to_string(), "*", "d", &payload];
                let words: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
                format!("*8\r\n{words}").repeat(messages).into_bytes()
            }
        }
    }

    /// Whether the answer is complete. Fails if it says that a message was refused.
    fn is_whole(self, bytes: &[u8], messages: usize) -> io::Result<bool> {
        match self {
            Protocol::Http => is_whole_response(bytes, messages),
            // Each reply is a bulk string: its length, and the id.
            Protocol::Redis if bytes.contains(&b'-') && bytes.starts_with(b"-") => {
                Err(io::ErrorKind::InvalidData.into())
            }
            Protocol::Redis => Ok(lines(bytes) == 2 * messages),
        }
    }
}

fn is_whole_response(bytes: &[u8], messages: usize) -> io::Result<bool> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(false) };
    let (head, body) = (&bytes[..end], &bytes[end + 4..]);
    let head = std::str::from_utf8(head).map_err(io::Error::other)?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(io::Error::other("refused"));
    }
    let mut fields = head.split("\r\n").filter_map(|line| line.split_once(": "));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.and_then(|(_, value)| value.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    if body.len() < length {
        return Ok(false);
    }
    // One result on each line of a batch. A refused message is a shorter line without a position.
    match messages == 1 || lines(body) == messages && !body.windows(9).any(|window| window == b"{\"error\":") {
        true => Ok(true),
        false => Err(io::Error::other("not every message was accepted")),
    }
}

fn lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}
