//! The socket of one subscriber: it connects, requests a session, then receives. Bytes to send wait while the kernel
//! accepts no more. With TLS, rustls is between these bytes and the socket.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustls::ClientConnection;
use socket2::Socket;

use super::answer::Answer;
use super::framing::Framing;
use super::ledger::Subscriber;
use super::target::Target;

/// The state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Connecting.
    Connecting,
    /// The session was requested.
    Asked,
    /// The session is open.
    Open,
    /// The connection has ended.
    Gone,
}

/// One subscriber.
#[derive(Debug)]
pub struct Connection {
    /// Its state.
    pub phase: Phase,
    /// When it was started, in nanoseconds of the load's clock.
    pub began: u64,
    /// Its progress in its stream.
    pub subscriber: Subscriber,
    /// Bytes that are to be sent. With TLS they are encrypted first, and may wait as such.
    pub out: Vec<u8>,
    /// Bytes received and not consumed yet: an incomplete frame, or an incomplete response.
    pub held: Vec<u8>,
    /// Whether the epoll set waits until the socket is writable.
    pub awaits_writable: bool,
    socket: Socket,
    tls: Option<Box<ClientConnection>>,
}

impl Connection {
    /// Uses a socket that is connecting.
    pub fn new(socket: Socket, tls: Option<Box<ClientConnection>>, subscriber: Subscriber, began: u64) -> Connection {
        Connection {
            phase: Phase::Connecting,
            began,
            subscriber,
            out: Vec::new(),
            held: Vec::new(),
            awaits_writable: true,
            socket,
            tls,
        }
    }

    /// Requests a session. Call it when the socket becomes writable for the first time.
    ///
    /// # Errors
    /// The connection failed.
    pub fn ask(&mut self, target: &Target, framing: Framing) -> io::Result<()> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        self.out.extend_from_slice(framing.request(&target.url).as_bytes());
        self.phase = Phase::Asked;
        self.flush()
    }

    /// Removes the response that opens the session from `held`. Returns whether all of it had arrived.
    ///
    /// # Errors
    /// The server refused; why.
    pub fn take_answer(&mut self, framing: Framing) -> Result<bool, String> {
        let Some(answer) = Answer::parse(&self.held)? else { return Ok(false) };
        framing.check(&answer)?;
        self.held = answer.rest.to_vec();
        self.phase = Phase::Open;
        Ok(true)
    }

    /// Reads into `buffer`, after a copy of the held bytes, and returns all of it. `None` if nothing was received.
    ///
    /// # Errors
    /// The connection failed, or has ended.
    pub fn read<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        let held = self.held.len();
        match self.read_plain(&mut buffer[held..]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                buffer[..held].copy_from_slice(&self.held);
                Ok(Some(&buffer[..held + count]))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads what the server has sent, decrypted.
    fn read_plain(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.socket.read(buffer) };
        // A part of what the kernel has is read: it reports the rest again.
        if tls.read_tls(&mut self.socket)? == 0 {
            return Ok(0);
        }
        tls.process_new_packets().map_err(io::Error::other)?;
        tls.reader().read(buffer)
    }

    /// Whether bytes wait until the kernel accepts them.
    pub fn is_blocked(&self) -> bool {
        !self.out.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Keeps the bytes that were not consumed.
    pub fn hold(&mut self, rest: &[u8]) {
        self.held.clear();
        self.held.extend_from_slice(rest);
        if rest.is_empty() {
            self.held = Vec::new();
        }
    }

    /// Writes what the kernel accepts of the waiting bytes.
    ///
    /// # Errors
    /// The connection failed.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(&self.out)?;
            self.out.clear();
        }
        while self.is_blocked() {
            let written = match &mut self.tls {
                Some(tls) => tls.write_tls(&mut self.socket).map(|_| 0),
                None => self.socket.write(&self.out),
            };
            match written {
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
