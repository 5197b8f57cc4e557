//! Refusing a connection that there is no room for, so that the client receives the reason.
//!
//! A client reads an answer after it has sent its request, and loses the answer where the socket is closed with bytes of its request
//! unread. So the head is read, the answer sent, and the rest read and dropped until the client ends. Only few connections at once are
//! served so, for a short time and with few bytes ([`REFUSALS_AT_ONCE`], [`REFUSAL_PATIENCE`], [`REFUSAL_BYTES_MAX`]). In a flood the others
//! are answered without waiting.
//!
//! Browsers never connect an event stream again after a 503. Its request is answered by when to come back, and where a server has event
//! streams and the request is not there yet, by nothing: after an end without an answer they do.
//!
//! [`REFUSALS_AT_ONCE`]: crate::config::limits::REFUSALS_AT_ONCE

use std::borrow::Cow;
use std::io::{self, Read, Write};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::listener::Accepted;
use crate::config::limits::{HEADER_BYTES_MAX, REFUSAL_BYTES_MAX, REFUSAL_PATIENCE};
use crate::http::events;
use crate::hub::Membership;

/// The answer beyond the limit of all connections, or of those of the server.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 59\r\n\
    Retry-After: 1\r\nConnection: close\r\n\r\nthe server holds as many connections as it may, try later\r\n";
/// The answer beyond the limit of the client's address.
const ADDRESS_FULL: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 55\r\n\
    Retry-After: 1\r\nConnection: close\r\n\r\nyour address holds as many connections as it may have\r\n";

/// A connection that is refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    /// The limit that was reached.
    pub is_of_address: bool,
    /// The server may have been asked for an event stream.
    pub has_events: bool,
    /// How many connections there are.
    pub connections: usize,
}

impl Refusal {
    /// Refuses a connection: at length where it has a `place` for that, else as far as it goes without waiting.
    pub(super) fn refuse(self, accepted: Accepted, place: Option<Membership>) {
        let Some(place) = place else { return self.refuse_now(accepted) };
        tokio::task::spawn_local(async move {
            let _place = place;
            // A client that does not ask in time, or is gone, receives nothing more.
            let _ = match accepted {
                Accepted::Tcp(socket, _) => match TcpStream::from_std(socket) {
                    Ok(socket) => self.answer(socket).await,
                    Err(error) => Err(error),
                },
                Accepted::Unix(socket) => match UnixStream::from_std(socket) {
                    Ok(socket) => self.answer(socket).await,
                    Err(error) => Err(error),
                },
            };
        });
    }

    /// The answer to a request that begins with `head`.
    fn text(self, head: &[u8]) -> Cow<'static, [u8]> {
        match events::refusal(head, self.connections) {
            Some(later) => later.into(),
            None if self.is_of_address => ADDRESS_FULL.into(),
            None => FULL.into(),
        }
    }

    /// Answers as far as that goes without waiting.
    fn refuse_now(self, accepted: Accepted) {
        // If anything fails, the client just sees the end.
        let _ = match accepted {
            Accepted::Tcp(mut socket, _) => self.answer_now(&mut socket),
            Accepted::Unix(mut socket) => self.answer_now(&mut socket),
        };
    }

    fn answer_now(self, socket: &mut (impl Read + Write)) -> io::Result<()> {
        let mut head = [0; 4096];
        // What is not read would reset the answer away.
        let count = socket.read(&mut head).unwrap_or(0);
        if count > 0 || !self.has_events {
            socket.write_all(&self.text(&head[..count]))?;
        }
        Ok(())
    }

    /// Reads the request, answers, and reads on until the client ends.
    async fn answer<T: AsyncRead + AsyncWrite + Unpin>(self, mut io: T) -> io::Result<()> {
        let mut head = Vec::with_capacity(1024);
        let reading = async {
            while head.len() < HEADER_BYTES_MAX && io.read_buf(&mut head).await? > 0 {
                if head.windows(4).any(|end| end == b"\r\n\r\n") {
                    break;
                }
            }
            Ok::<_, io::Error>(())
        };
        // A silent client is answered all the same.
        let _ = tokio::time::timeout(REFUSAL_PATIENCE, reading).await;
        let rest = async {
            io.write_all(&self.text(&head)).await?;
            io.shutdown().await?;
            let (mut sink, mut left) = ([0; 4096], REFUSAL_BYTES_MAX);
            while left > 0 {
                match io.read(&mut sink).await? {
                    0 => break,
                    count => left = left.saturating_sub(count),
                }
            }
            Ok(())
        };
        tokio::time::timeout(REFUSAL_PATIENCE, rest).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusals_say_how_long_they_are() {
        for refusal in [FULL, ADDRESS_FULL] {
            let text = std::str::from_utf8(refusal).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
        }
    }
}
