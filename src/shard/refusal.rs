//! Telling a connection that there is no room for it, so that it hears.
//!
//! A client reads an answer once it has asked, and loses it where the socket is closed with bytes of its request unread. So the head is
//! read, the answer sent, and the rest read and thrown away until the client ends. Few at once are told so, for a short time and with
//! few bytes ([`REFUSALS_AT_ONCE`], [`REFUSAL_PATIENCE`], [`REFUSAL_BYTES_MAX`]); in a flood the others are told without waiting.
//!
//! [`REFUSALS_AT_ONCE`]: crate::config::limits::REFUSALS_AT_ONCE

use std::io::{Read, Write};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::gate::Limit;
use super::listener::Accepted;
use crate::config::limits::{HEADER_BYTES_MAX, REFUSAL_BYTES_MAX, REFUSAL_PATIENCE};
use crate::hub::Membership;

/// What a connection beyond the limit of all, or of its server, is told.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 59\r\n\
    Retry-After: 1\r\nConnection: close\r\n\r\nthe server holds as many connections as it may, try later\r\n";
/// What a connection beyond the limit of its address is told.
const ADDRESS_FULL: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 55\r\n\
    Retry-After: 1\r\nConnection: close\r\n\r\nyour address holds as many connections as it may have\r\n";

fn answer(limit: &Limit) -> &'static [u8] {
    match limit {
        Limit::Process | Limit::Server(_) => FULL,
        Limit::Address => ADDRESS_FULL,
    }
}

/// Refuses a connection: at length where it has a `place` for that, else as far as it goes without waiting.
pub(super) fn refuse(accepted: Accepted, limit: &Limit, place: Option<Membership>) {
    let answer = answer(limit);
    let Some(place) = place else { return refuse_now(accepted, answer) };
    tokio::task::spawn_local(async move {
        let _place = place;
        // A client that does not ask in time, or is gone, hears nothing more.
        let _ = match accepted {
            Accepted::Tcp(socket, _) => match TcpStream::from_std(socket) {
                Ok(socket) => tell(socket, answer).await,
                Err(error) => Err(error),
            },
            Accepted::Unix(socket) => match UnixStream::from_std(socket) {
                Ok(socket) => tell(socket, answer).await,
                Err(error) => Err(error),
            },
        };
    });
}

/// Says that there is no room, as far as that goes without waiting.
fn refuse_now(accepted: Accepted, answer: &[u8]) {
    let mut sink = [0; 4096];
    // Reading what is there keeps the answer from being reset away with it. If either fails the client just sees the end.
    let _ = match accepted {
        Accepted::Tcp(mut socket, _) => socket.write(answer).and_then(|_| socket.read(&mut sink)),
        Accepted::Unix(mut socket) => socket.write(answer).and_then(|_| socket.read(&mut sink)),
    };
}

/// Hears the question, answers, and reads on until the client ends.
async fn tell<T: AsyncRead + AsyncWrite + Unpin>(mut io: T, answer: &[u8]) -> std::io::Result<()> {
    let head = async {
        let mut head = Vec::with_capacity(1024);
        while head.len() < HEADER_BYTES_MAX && io.read_buf(&mut head).await? > 0 {
            if head.windows(4).any(|end| end == b"\r\n\r\n") {
                break;
            }
        }
        Ok::<_, std::io::Error>(())
    };
    // A silent client is told all the same.
    let _ = tokio::time::timeout(REFUSAL_PATIENCE, head).await;
    let rest = async {
        io.write_all(answer).await?;
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
