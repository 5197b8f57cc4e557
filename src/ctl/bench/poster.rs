//! The publisher over HTTP: one POST after the other on one connection, so that their order is the order of their numbers.

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
    /// An answer is awaited.
    asked: bool,
    /// The last answer said that the connection ends behind it.
    last: bool,
}

impl Poster {
    /// Connects to the route that publishes.
    ///
    /// # Errors
    /// There was no way there.
    pub fn new(target: Target) -> Result<Poster, Fault> {
        let socket = target.connect(0, 0, 0).map_err(|error| lost(&target, &error))?;
        Ok(Poster { target, socket, out: Vec::new(), held: Vec::new(), asked: false, last: false })
    }

    /// Whether the next message can be posted.
    pub fn is_free(&self) -> bool {
        !self.asked
    }

    /// Whether the connection must be made anew before that.
    pub fn is_at_its_end(&self) -> bool {
        self.last
    }

    /// Posts a message.
    ///
    /// # Errors
    /// The connection is broken.
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

    /// Writes what waits, as far as the kernel takes it.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn flush(&mut self) -> Result<(), Fault> {
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(written) => drop(self.out.drain(..written)),
                // Not connected yet is the same as no room.
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => break,
                Err(error) => return Err(lost(&self.target, &error)),
            }
        }
        Ok(())
    }

    /// Reads what came.
    ///
    /// # Errors
    /// The server refused the message, or the connection is broken.
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

    /// Takes the answer from what is held, if it is whole.
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
