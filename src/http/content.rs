//! A request's content (RFC 9110 §6.4), whether anything is made of it or not.
//!
//! The next request begins where this one's content ends, so the content of every request is read before its answer is sent:
//! by what the request is for, or, where that has no use for it, here, and thrown away. Both within a limit and a time. What
//! cannot be read to its end makes the answer the last one of its connection, and [`super::linger`] sees that it is heard.

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

/// Why content was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It is larger than the limit.
    TooLarge,
    /// It did not come in time.
    Late,
    /// It is not framed as it should be, or the client went away in the middle.
    Broken,
    /// The bodies that are being read hold as much as they may together.
    NoRoom,
}

/// What the bodies hold that a server is reading, over all its connections, in bytes.
#[derive(Debug, Clone, Default)]
pub struct Bodies(Arc<AtomicUsize>);

/// One body's part of that, given back when this is dropped.
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

impl Drop for Held {
    fn drop(&mut self) {
        self.bodies.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The content of one request.
#[derive(Debug)]
pub struct Content {
    body: Incoming,
    /// The client sends it only after a 100, which hyper sends where the first of it is asked for.
    is_withheld: bool,
    patience: Duration,
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
    /// The content of a request with these fields, which may take this long to come; it counts among `bodies`.
    pub fn new(body: Incoming, headers: &HeaderMap, patience: Duration, bodies: &Bodies) -> Content {
        let is_none = body.is_end_stream();
        let is_withheld = !is_none && headers.contains_key(EXPECT);
        let state = if is_none { State::Read } else { State::Untouched };
        Content { body, is_withheld, patience, bodies: bodies.clone(), state }
    }

    /// Whether the request has no content. Where that comes in chunks it has, even if there are none.
    pub fn is_none(&self) -> bool {
        self.body.is_end_stream()
    }

    /// Reads all of it. Its pieces are joined as they come: one of a single byte costs no more than that.
    ///
    /// # Errors
    /// Why it could not be read; nothing more is read of it then.
    pub async fn whole(&mut self, max: usize) -> Result<Bytes, Unread> {
        let mut held = Held { bodies: self.bodies.clone(), bytes: 0 };
        let expected = self.body.size_hint().lower() as usize;
        let mut joined = Vec::new();
        let keep = |piece: &[u8]| {
            held.grow(piece.len())?;
            if joined.is_empty() {
                // No more than it says, and not much ahead of what came.
                joined.reserve_exact(expected.min(piece.len().max(BODY_AHEAD_BYTES_MAX)));
            }
            joined.extend_from_slice(piece);
            Ok(())
        };
        self.read(max, keep).await?;
        Ok(joined.into())
    }

    /// Reads nothing of it, or no more.
    pub fn give_up(&mut self) {
        self.state = State::GivenUp;
    }

    /// The answer to the request, once its content is out of the way.
    pub async fn settle(mut self, answer: Answer) -> Answer {
        let is_refused = answer.status().is_client_error() || answer.status().is_server_error();
        let unread = match self.state {
            State::Read => return answer,
            State::GivenUp => return answer::closing(answer),
            // It waits for our word, and this is it.
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
                // Trailers say nothing that is used here (RFC 9110 §6.5.1).
                let Ok(piece) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
                left = left.checked_sub(piece.len()).ok_or(Unread::TooLarge)?;
                take(&piece)?;
            }
            Ok(())
        };
        tokio::time::timeout(self.patience, to_the_end).await.unwrap_or(Err(Unread::Late))?;
        self.state = State::Read;
        Ok(())
    }
}

impl Unread {
    /// The status that says so, and a sentence.
    pub fn said(self) -> (StatusCode, &'static str) {
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
        let (status, sentence) = self.said();
        answer::text(status, sentence)
    }
}
