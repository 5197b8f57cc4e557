//! A TCP connection with a deadline and a buffer.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::DEADLINE;

/// A connection, and the bytes that were received but not taken yet.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
        Wire::new(stream)
    }

    /// Connects with the smallest receive buffer the kernel allows, so that a client that pauses soon becomes slow.
    pub fn connect_narrow(address: SocketAddr) -> Wire {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.into()).unwrap();
        Wire::new(socket.into())
    }

    /// Connects from another address of this machine.
    pub fn connect_from(from: [u8; 4], address: SocketAddr) -> Wire {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        Wire::new(socket.into())
    }

    /// Connects to a Unix socket.
    pub fn connect_unix(path: &Path) -> Wire {
        // The same system calls work for both kinds of socket.
        Wire::of(TcpStream::from(OwnedFd::from(UnixStream::connect(path).unwrap())))
    }

    /// A connection, and the server's end of it.
    pub fn pair() -> (Wire, OwnedFd) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Wire::connect(listener.local_addr().unwrap());
        let (other, _) = listener.accept().unwrap();
        other.set_nonblocking(true).unwrap();
        (wire, other.into())
    }

    fn new(stream: TcpStream) -> Wire {
        stream.set_nodelay(true).unwrap();
        Wire::of(stream)
    }

    fn of(stream: TcpStream) -> Wire {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Wire { stream, buffer: Vec::new() }
    }

    /// The local address, which the server's log contains as the client's name.
    pub fn local_address(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// The server's address.
    pub fn peer_address(&self) -> SocketAddr {
        self.stream.peer_addr().unwrap()
    }

    /// Resets the connection: both sides discard what is in transit.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// The same connection again, for a second thread.
    pub fn second(&self) -> Wire {
        Wire::new(self.stream.try_clone().unwrap())
    }

    /// Sends all of `bytes`.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends as much as possible: the server may have closed the connection already. Returns whether all was sent.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Closes the sending side.
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Takes the next `count` bytes.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill(), "the connection ended after {:?}", String::from_utf8_lossy(&self.buffer));
        }
        self.buffer.drain(..count).collect()
    }

    /// Takes all bytes up to and including `end`.
    pub fn take_until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return self.buffer.drain(..at + end.len()).collect();
            }
            assert!(self.fill(), "the connection ended after {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    /// Waits for more bytes or the end. Returns whether there are more.
    pub fn has_more(&mut self) -> bool {
        !self.buffer.is_empty() || self.fill()
    }

    /// Takes all bytes up to the end of the connection.
    pub fn take_all(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.buffer)
    }

    /// Takes all bytes until none arrive for a while. For bytes that were all sent already, and are with the kernel.
    pub fn take_what_is_there(&mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.buffer);
        while !self.is_silent_for(Duration::from_millis(300)) && self.fill() {
            all.append(&mut self.buffer);
        }
        all
    }

    /// Waits for the end of the connection. No bytes may come before it.
    pub fn expect_end(&mut self) {
        let rest = self.take_all();
        assert!(rest.is_empty(), "{:?} before the end", String::from_utf8_lossy(&rest));
    }

    /// Whether nothing arrives for a while. Use it only for things that the server would do at once if it did them.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        if !self.buffer.is_empty() {
            return false;
        }
        self.stream.set_read_timeout(Some(time)).unwrap();
        let mut byte = [0];
        let silent = loop {
            match self.stream.peek(&mut byte) {
                Ok(_) => break false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            }
        };
        self.stream.set_read_timeout(Some(DEADLINE)).unwrap();
        silent
    }

    /// Reads more; false at the end. A reset counts as an end.
    fn fill(&mut self) -> bool {
        let mut bytes = [0; 64 << 10];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(count) => {
                    self.buffer.extend_from_slice(&bytes[..count]);
                    return count > 0;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return false;
                }
                Err(error) => panic!("cannot read: {error}; so far {:?}", String::from_utf8_lossy(&self.buffer)),
            }
        }
    }
}
