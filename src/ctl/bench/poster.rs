//! The publisher over HTTP. It posts one message after the other on one connection, so that they arrive in the order of
//! their numbers.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::Socket;

use super::answer::Answer;
use super::target::Target;
use crate::ctl::dial::AGENT;
use crate::ctl::fault::Fault;
use crate::daemon::exit::{Exit, reason};

/// The connection of the publisher.
#[derive(Debug)]
pub struct Poster {
    target: Target,
    socket: Socket,
    out: Vec<u8>,
    held: Vec<u8>,
    /// A response is awaited.
    asked: bool,
    /// The server closes the connection after the last response.
    last: bool,
}

impl Poster {
    /// Connects to a publish route.
    ///
    /// # Errors
    /// The connection could not be started.
    pub fn new(target: Target) -> Result<Poster, Fault> {
        let socket = target.connect(0, 0, 0).map_err(|error| lost(&target, &error))?;
        Ok(Poster { target, socket, out: Vec::new(), held: Vec::new(), asked: false, last: false })
    }

    /// Whether the next message can be posted.
    pub fn is_idle(&self) -> bool {
        !self.asked
    }

    /// Whether a new connection is needed for the next message.
    pub fn must_reconnect(&self) -> bool {
        self.last
    }

    /// Posts a message.
    ///
    /// # Errors
    /// The connection failed.
    pub fn post(&mut self, payload: &[u8]) -> Result<(), Fault> {
        let (path, host, length) = (&self.target.url.path, self.target.url.authority(), payload.len());
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\r\n"
        );
        self.out.extend_from_slice(head.as_bytes());
        self.out.extend_from_slice(payload);
        self.asked = true;
        self.flush()
    }

    /// Writes what the kernel accepts of the waiting bytes.
    ///
    /// # Errors
    /// The connection failed.
    pub fn flush(&mut self) -> Result<(), Fault> {
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(written) => drop(self.out.drain(..written)),
                // Not yet connected is the same as not writable.
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => break,
                Err(error) => return Err(lost(&self.target, &error)),
            }
        }
        Ok(())
    }

    /// Reads what has arrived.
    ///
    /// # Errors
    /// The server refused the message, or the connection failed.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<(), Fault> {
        let mut ended = false;
        loop {
            match self.socket.read(buffer) {
                Ok(0) => ended = true,
                Ok(count) => {
                    self.held.extend_from_slice(&buffer[..count]);
                    continue;
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {}
                Err(error) => return Err(lost(&self.target, &error)),
            }
            break;
        }
        self.take_answer()?;
        if ended && self.asked {
            return Err(lost(&self.target, &io::ErrorKind::UnexpectedEof.into()));
        }
        self.last |= ended;
        Ok(())
    }

    /// Consumes the response, if all of it has arrived.
    fn take_answer(&mut self) -> Result<(), Fault> {
        if self.held.is_empty() {
            return Ok(());
        }
        let url = &self.target.url;
        let answer = Answer::parse(&self.held);
        let answer = answer.map_err(|why| Fault::failed(format!("{url} gave no proper answer: {why}")))?;
        let Some(answer) = answer.filter(|answer| answer.whole_body().is_some()) else { return Ok(()) };
        if !answer.status.is_success() {
            return Err(Fault::failed(format!("{url} refused a message: {}", answer.refusal())));
        }
        self.last |= answer.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        self.held.clear();
        self.asked = false;
        Ok(())
    }
}

fn lost(target: &Target, error: &io::Error) -> Fault {
    let why = match error.kind() {
        io::ErrorKind::UnexpectedEof => "it ended the connection without an answer".to_owned(),
        _ => reason(error),
    };
    Fault::new(Exit::Unavailable, format!("cannot publish to {}: {why}", target.url))
}

impl AsFd for Poster {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
