//! Event streams that check what they receive: each message has a number, and the numbers must be in order, without a gap.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes of a message.
pub const SIZE: usize = 64;
/// A message begins with this letter, and its number in as many digits.
const DIGITS: usize = 8;

/// The message with this number.
pub fn message(number: u64) -> String {
    format!("m{number:08}{}", "x".repeat(SIZE - 1 - DIGITS))
}

/// The lines of a batch with the messages `first..=last`.
pub fn batch(channel: &str, first: u64, last: u64) -> String {
    (first..=last).map(|number| format!("{{\"channel\":\"{channel}\",\"data\":\"{}\"}}\n", message(number))).collect()
}

/// An event stream.
pub struct Stream {
    socket: TcpStream,
    held: Vec<u8>,
    /// The number of the next message, once it is known.
    pub next: Option<u64>,
}

impl Stream {
    /// Requests a stream. The first message must be number `next`, if it is given.
    pub fn open(address: SocketAddr, target: &str, next: Option<u64>) -> Stream {
        let mut socket = TcpStream::connect(address).unwrap();
        // A response to HTTP/1.0 has no chunks.
        let request = format!("GET {target} HTTP/1.0\r\nHost: {address}\r\nAccept: text/event-stream\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        socket.set_nonblocking(true).unwrap();
        Stream { socket, held: Vec::new(), next }
    }

    /// Reads once, and calls `each` with the number of each message.
    pub fn read(&mut self, buffer: &mut [u8], mut each: impl FnMut(u64)) {
        match self.socket.read(buffer) {
            Ok(0) => panic!("a stream ended: {:?}", String::from_utf8_lossy(&self.held)),
            Ok(count) => self.held.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(error) => panic!("a stream cannot be read: {error}"),
        }
        let mut used = 0;
        while let Some(length) = self.held[used..].iter().position(|&byte| byte == b'\n') {
            let line = &self.held[used..used + length];
            used += length + 1;
            assert!(line != b"event: gap", "a gap");
            let Some(text) = line.strip_prefix(b"data: m") else { continue };
            let number = std::str::from_utf8(&text[..DIGITS]).unwrap().parse().unwrap();
            assert_eq!(*self.next.get_or_insert(number), number, "the number of the next message");
            self.next = Some(number + 1);
            each(number);
        }
        self.held.drain(..used);
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
