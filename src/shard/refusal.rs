//! Refuses a connection beyond a limit in such a way that the client receives the reason.
//!
//! A client reads the answer after it has sent its request. It loses the answer if the socket is closed while bytes of the request
//! are unread. So the head is read, the answer sent, and the rest is read and discarded until the client ends. This is done for few
//! connections at once, for a short time and few bytes ([`REFUSALS_AT_ONCE`], [`REFUSAL_PATIENCE`], [`REFUSAL_BYTES_MAX`]). Further
//! connections are answered without waiting.
//!
//! Browsers do not reconnect an event stream after a 503, but they do after an end without an answer. So the request of an event
//! stream is answered with the time to reconnect. If a server has event streams and the request has not arrived yet, nothing is
//! answered.
//!
//! [`REFUSALS_AT_ONCE`]: crate::config::limits::REFUSALS_AT_ONCE

use std::borrow::Cow;
use std::io::{self, Read, Write};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::listener::Accepted;
use crate::config::limits::{HEADER_BYTES_MAX, REFUSAL_BYTES_MAX, REFUSAL_PATIENCE};
use crate::http::events::{self, Refused};
use crate::hub::Membership;

/// The answer if the limit of the process or of the server is reached.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 59\r\n\
    Retry-After: 1\r\nConnection: close\r\n\r\nthe server holds as many connections as it may, try later\r\n";
/// The answer if the limit of the client's address is reached.
const ADDRESS_FULL: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 55\r\n\
    Retry-After: 1\r\nConnection: close\r\n\r\nyour address holds as many connections as it may have\r\n";

/// A connection that is refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    /// Whether the limit of the address is reached.
    pub is_of_address: bool,
    /// Whether the server has event streams.
    pub has_events: bool,
    /// The number of connections.
    pub connections: usize,
}

impl Refusal {
    /// Refuses a connection: as described above if it is `counted` among `REFUSALS_AT_ONCE`, otherwise without waiting.
    pub(super) fn refuse(self, accepted: Accepted, counted: Option<Membership>) {
        let Some(counted) = counted else { return self.refuse_now(accepted) };
        tokio::task::spawn_local(async move {
            let _counted = counted;
            // After a timeout or an error, the connection is closed.
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

    /// The answer to a request of which `head` was read. `None`: it is not known whether it is the request of an event stream.
    fn text(self, head: &[u8]) -> Option<Cow<'static, [u8]>> {
        match events::refusal(head, self.connections) {
            Refused::Stream(later) if self.has_events => Some(later.into()),
            Refused::Unknown if self.has_events => None,
            _ if self.is_of_address => Some(ADDRESS_FULL.into()),
            _ => Some(FULL.into()),
        }
    }

    /// Answers as far as possible without waiting.
    fn refuse_now(self, accepted: Accepted) {
        // If a call fails, the client receives only the end.
        let _ = match accepted {
            Accepted::Tcp(mut socket, _) => self.answer_now(&mut socket),
            Accepted::Unix(mut socket) => self.answer_now(&mut socket),
        };
    }

    fn answer_now(self, socket: &mut (impl Read + Write)) -> io::Result<()> {
        let mut head = [0; 4096];
        // Unread bytes would cause a reset, and the answer would be lost.
        let count = socket.read(&mut head).unwrap_or(0);
        self.text(&head[..count]).map_or(Ok(()), |text| socket.write_all(&text))
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
        // Where there are no event streams, a client that sends no request is answered, too.
        let _ = tokio::time::timeout(REFUSAL_PATIENCE, reading).await;
        let rest = async {
            if let Some(text) = self.text(&head) {
                io.write_all(&text).await?;
            }
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
    fn the_length_of_each_refusal_is_correct() {
        for refusal in [FULL, ADDRESS_FULL] {
            let text = std::str::from_utf8(refusal).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
        }
    }
}
