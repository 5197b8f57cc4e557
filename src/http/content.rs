//! The content of a request (RFC 9110 §6.4), whether the request uses it or not.
//!
//! The next request begins where this content ends. So the content of each request is read before its answer is sent: by its
//! handler, or, if the handler does not use it, here, and then discarded. Both have a limit of bytes and a timeout. If the content
//! cannot be read to its end, the answer is the last one of its connection, and [`super::linger`] makes sure that the client
//! receives it.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{EXPECT, HeaderMap};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};

use super::answer::{self, Answer};
use crate::config::limits::{BODY_AHEAD_BYTES_MAX, UNFINISHED_BODIES_BYTES_MAX, UNUSED_BODY_BYTES_MAX};

/// Why the content was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It is larger than the limit.
    TooLarge,
    /// It did not arrive in time.
    Late,
    /// Its framing is invalid, or the client disconnected.
    Broken,
    /// The bodies that are being read have reached their common limit.
    NoRoom,
}

/// The bytes of all bodies that are being read, or are not parsed yet, on all connections of a server.
#[derive(Debug, Clone, Default)]
pub struct Bodies(Arc<AtomicUsize>);

/// The part of one body. It is released when this is dropped.
#[derive(Debug)]
struct Held {
    bodies: Bodies,
    bytes: usize,
}

impl Held {
    fn grow(&mut self, bytes: usize) -> Result<(), Unread> {
        self.bytes += bytes;
        let before = self.bodies.0.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > UNFINISHED_BODIES_BYTES_MAX { Err(Unread::NoRoom) } else { Ok(()) }
    }
}

/// The whole content of a request. It is counted among the bodies that are being read until this is dropped: a batch waits for a
/// thread that parses it.
#[derive(Debug)]
pub struct Whole {
    bytes: Bytes,
    _held: Held,
}

impl Whole {
    /// Its bytes, which are not counted any more.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

impl Deref for Whole {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.bodies.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The content of one request.
#[derive(Debug)]
pub struct Content {
    body: Incoming,
    /// The client sends it only after a 100, which hyper sends at the first read.
    is_withheld: bool,
    timeout: Duration,
    bodies: Bodies,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Untouched,
    Read,
    GivenUp,
}

impl Content {
    /// The content of a request with these header fields. It must arrive within `timeout`, and is counted in `bodies`.
    pub fn new(body: Incoming, headers: &HeaderMap, timeout: Duration, bodies: &Bodies) -> Content {
        let is_none = body.is_end_stream();
        let is_withheld = !is_none && headers.contains_key(EXPECT);
        let state = if is_none { State::Read } else { State::Untouched };
        Content { body, is_withheld, timeout, bodies: bodies.clone(), state }
    }

    /// Whether the request has no content. Chunked content counts as content even if it is empty.
    pub fn is_none(&self) -> bool {
        self.body.is_end_stream()
    }

    /// Reads all of it. Pieces are joined as they arrive, so that a piece of one byte costs only one byte.
    ///
    /// # Errors
    /// Why it could not be read. Nothing more of it is read then.
    pub async fn whole(&mut self, max: usize) -> Result<Whole, Unread> {
        let mut held = Held { bodies: self.bodies.clone(), bytes: 0 };
        let expected = self.body.size_hint().lower() as usize;
        let mut joined = Vec::new();
        let keep = |piece: &[u8]| {
            held.grow(piece.len())?;
            if joined.is_empty() {
                // At most the announced length, and not far ahead of the bytes received.
                joined.reserve_exact(expected.min(piece.len().max(BODY_AHEAD_BYTES_MAX)));
            }
            joined.extend_from_slice(piece);
            Ok(())
        };
        self.read(max, keep).await?;
        Ok(Whole { bytes: joined.into(), _held: held })
    }

    /// Stops reading it.
    pub fn give_up(&mut self) {
        self.state = State::GivenUp;
    }

    /// The answer to the request, after the rest of the content was read or given up.
    pub async fn settle(mut self, answer: Answer) -> Answer {
        let is_refused = answer.status().is_client_error() || answer.status().is_server_error();
        let unread = match self.state {
            State::Read => return answer,
            State::GivenUp => return answer::closing(answer),
            // The client waits for a 100 and gets this answer instead: it does not send the content.
            State::Untouched if self.is_withheld && is_refused => return answer::closing(answer),
            State::Untouched => self.read(UNUSED_BODY_BYTES_MAX, |_| Ok(())).await,
        };
        answer::closing(match unread {
            Ok(()) => return answer,
            Err(Unread::TooLarge) if is_refused => answer,
            Err(unread) => unread.answer(),
        })
    }

    async fn read(&mut self, max: usize, mut take: impl FnMut(&[u8]) -> Result<(), Unread>) -> Result<(), Unread> {
        if self.state == State::Read {
            return Ok(());
        }
        self.state = State::GivenUp;
        if self.body.size_hint().lower() > max as u64 {
            return Err(Unread::TooLarge);
        }
        let body = &mut self.body;
        let to_the_end = async {
            let mut left = max;
            while let Some(frame) = body.frame().await {
                // Trailers are not used (RFC 9110 §6.5.1).
                let Ok(piece) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
                left = left.checked_sub(piece.len()).ok_or(Unread::TooLarge)?;
                take(&piece)?;
            }
            Ok(())
        };
        tokio::time::timeout(self.timeout, to_the_end).await.unwrap_or(Err(Unread::Late))?;
        self.state = State::Read;
        Ok(())
    }
}

impl Unread {
    /// The status, and a sentence with the reason.
    pub fn status(self) -> (StatusCode, &'static str) {
        match self {
            Unread::TooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "no body is needed here, and one as large as this is not read")
            }
            Unread::Late => (StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
            Unread::Broken => (StatusCode::BAD_REQUEST, "the body could not be read"),
            Unread::NoRoom => {
                (StatusCode::SERVICE_UNAVAILABLE, "too much is being sent to this server at once, try again later")
            }
        }
    }

    fn answer(self) -> Answer {
        let (status, sentence) = self.status();
        answer::text(status, sentence)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use http_body_util::Empty;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_body_is_counted_until_it_is_parsed() {
        let (mut client, io) = tokio::io::duplex(1024);
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await.unwrap();
        client.shutdown().await.unwrap();
        let (bodies, requests) = (Bodies::default(), AtomicUsize::new(0));
        let count = || bodies.0.load(Ordering::Relaxed);
        let service = service_fn(async |request: Request<Incoming>| {
            let (head, body) = request.into_parts();
            let mut content = Content::new(body, &head.headers, Duration::from_secs(60), &bodies);
            let whole = content.whole(5).await.unwrap();
            assert_eq!((&*whole, count()), (&b"hello"[..], 5));
            drop(whole);
            assert_eq!(count(), 0);
            requests.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let connection = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(io), service);
        connection.await.unwrap();
        assert_eq!(requests.into_inner(), 1);
    }
}
