//! One subscriber's socket: connects, asks for its upgrade, then brings bytes; what it is to send waits while the kernel refuses it.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::Socket;

use super::answer::Answer;
use super::ledger::Listener;
use super::target::Target;
use crate::ctl::dial::AGENT;

/// The key of RFC 6455 §1.3 and what must be answered to it: the same for all, so that nothing has to be computed here.
const KEY: (&str, &str) = ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Being connected.
    Connecting,
    /// The upgrade is asked for.
    Asked,
    /// A session.
    Open,
    /// It has ended.
    Gone,
}

/// One subscriber.
#[derive(Debug)]
pub struct Connection {
    /// Where it stands.
    pub phase: Phase,
    /// When it began, by the load's clock.
    pub began: u64,
    /// What it hears.
    pub listener: Listener,
    /// Bytes that the kernel did not take yet.
    pub out: Vec<u8>,
    /// Bytes that came and are not used yet: the beginning of a frame, or of an answer.
    pub held: Vec<u8>,
    /// Whether the poller is asked to say when it takes more.
    pub watched_for_room: bool,
    socket: Socket,
}

impl Connection {
    /// On a socket that is being connected.
    pub fn new(socket: Socket, listener: Listener, began: u64) -> Connection {
        Connection {
            phase: Phase::Connecting,
            began,
            listener,
            out: Vec::new(),
            held: Vec::new(),
            watched_for_room: true,
            socket,
        }
    }

    /// The socket can be written to for the first time: asks for the upgrade.
    ///
    /// # Errors
    /// It was not connected.
    pub fn ask(&mut self, target: &Target) -> io::Result<()> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        let (path, host, key) = (&target.url.path, target.url.authority(), KEY.0);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nUser-Agent: {AGENT}\r\n\r\n"
        );
        self.out.extend_from_slice(request.as_bytes());
        self.phase = Phase::Asked;
        self.flush()
    }

    /// Whether `held` has the whole answer that opens the session; it is taken away.
    ///
    /// # Errors
    /// Why the server refuses.
    pub fn is_answered(&mut self) -> Result<bool, String> {
        let Some(answer) = Answer::parse(&self.held)? else { return Ok(false) };
        if answer.status != http::StatusCode::SWITCHING_PROTOCOLS {
            return match answer.status.is_success() {
                true => Err(format!("it answers {}, but serves no WebSocket", answer.status)),
                false => Err(answer.refusal()),
            };
        }
        if answer.field("sec-websocket-accept") != Some(KEY.1) {
            return Err("its answer is no WebSocket handshake".to_owned());
        }
        self.held = answer.rest.to_vec();
        self.phase = Phase::Open;
        Ok(true)
    }

    /// Reads behind what is held: all of it, in `buffer`. `None`: nothing is there.
    ///
    /// # Errors
    /// The connection is broken, or has ended.
    pub fn read<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        let held = self.held.len();
        match self.socket.read(&mut buffer[held..]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                buffer[..held].copy_from_slice(&self.held);
                Ok(Some(&buffer[..held + count]))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps what was not used.
    pub fn hold(&mut self, rest: &[u8]) {
        self.held.clear();
        self.held.extend_from_slice(rest);
        if rest.is_empty() {
            self.held = Vec::new();
        }
    }

    /// Writes what waits, as far as the kernel takes it.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
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
