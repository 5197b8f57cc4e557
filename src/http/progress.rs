//! What a connection is doing, and until when: each state has a limit of its own.
//!
//! | state | begins with | limit |
//! |---|---|---|
//! | head | the first byte of a request; until that a new connection waits in the lobby of its shard | `header_timeout` |
//! | answering | the last byte of its head | that of what is done: `body_timeout` for a body |
//! | sending | the answer | [`SEND_BYTES_MIN`] in each [`SEND_WINDOW`] |
//! | idle | the last byte of the answer, taken by the kernel | `keep_alive` |
//!
//! [`Watched`] and [`Outgoing`] notice where one state ends and the next begins: the socket and the body that hyper is given. The
//! last byte is gone when hyper has dropped the body and then flushes, which it does only once nothing is left to write.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::body::Body;
use crate::config::limits::{SEND_BYTES_MIN, SEND_WINDOW};

/// See the head of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Head,
    Answering,
    Sending,
    Idle,
}

/// What a connection is doing; shared by the clock, the socket, the service and the answer's body.
#[derive(Debug)]
pub(super) struct Progress {
    doing: Cell<Doing>,
    /// Since when, or since when a [`SEND_WINDOW`] runs.
    since: Cell<Instant>,
    /// Bytes taken of the answer in this window.
    sent: Cell<u64>,
    /// The body is handed out.
    handed_out: Cell<bool>,
    /// Bytes of the next request were read while this one was answered.
    ahead: Cell<bool>,
    /// The answer comes from a file.
    from_file: Cell<bool>,
    /// The kernel takes no more for now: what comes from a file is not read until it does.
    blocked: Cell<bool>,
    /// The present request is the last one.
    last: Cell<bool>,
}

impl Progress {
    pub(super) fn new() -> Rc<Progress> {
        Rc::new(Progress {
            doing: Cell::new(Doing::Head),
            since: Cell::new(Instant::now()),
            sent: Cell::default(),
            handed_out: Cell::default(),
            ahead: Cell::default(),
            from_file: Cell::default(),
            blocked: Cell::default(),
            last: Cell::default(),
        })
    }

    fn begin(&self, doing: Doing) {
        self.doing.set(doing);
        self.since.set(Instant::now());
    }

    /// A request's head is whole.
    pub(super) fn answers(&self) {
        self.doing.set(Doing::Answering);
        self.ahead.set(false);
    }

    /// It has an answer, which is sent from now on.
    pub(super) fn sends(self: &Rc<Self>, body: Body) -> Outgoing {
        self.begin(Doing::Sending);
        self.sent.set(0);
        self.handed_out.set(false);
        self.from_file.set(matches!(body, Body::File(_)));
        Outgoing { body, progress: self.clone() }
    }

    /// The present request is the last one, as is one whose bytes are there already.
    pub(super) fn end(&self) {
        self.last.set(true);
    }

    /// Whether the present request is the last one.
    pub(super) fn is_ending(&self) -> bool {
        self.last.get()
    }

    /// Whether an answer waits because the kernel does not accept it.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    /// Whether no request is in flight: one whose head is not whole is not.
    pub(super) fn is_at_rest(&self) -> bool {
        matches!(self.doing.get(), Doing::Head | Doing::Idle)
    }

    /// When the state has lasted too long, if it may; and whether it has by now.
    fn look(&self, now: Instant, header_timeout: Duration, keep_alive: Duration) -> (Option<Instant>, bool) {
        let due = self.since.get()
            + match self.doing.get() {
                Doing::Head => header_timeout,
                Doing::Idle => keep_alive,
                Doing::Sending => SEND_WINDOW,
                Doing::Answering => return (None, false),
            };
        if self.doing.get() == Doing::Sending && due <= now && self.sent.get() >= SEND_BYTES_MIN {
            self.since.set(now);
            self.sent.set(0);
            return (Some(now + SEND_WINDOW), false);
        }
        (Some(due), due <= now)
    }

    /// Returns when the client has taken longer than it may.
    pub(super) async fn is_late(&self, header_timeout: Duration, keep_alive: Duration) {
        loop {
            let now = Instant::now();
            let (due, late) = self.look(now, header_timeout, keep_alive);
            if late {
                return;
            }
            // A request that begins before then has less time.
            let soon = now + header_timeout;
            tokio::time::sleep_until(due.map_or(soon, |due| due.min(soon))).await;
        }
    }

    fn read(&self) {
        match self.doing.get() {
            Doing::Idle => self.begin(Doing::Head),
            Doing::Head | Doing::Answering => {}
            Doing::Sending => self.ahead.set(true),
        }
    }

    fn flushed(&self) {
        if self.doing.get() == Doing::Sending && self.handed_out.get() {
            self.begin(if self.ahead.take() { Doing::Head } else { Doing::Idle });
        }
    }
}

/// The body of an answer, which notes when all of it is handed out.
#[derive(Debug)]
pub(super) struct Outgoing {
    body: Body,
    progress: Rc<Progress>,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.progress.handed_out.set(true);
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.progress.blocked.get() {
            // Woken once all that was handed out before is written.
            return Poll::Pending;
        }
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What is asked of a socket beside reading and writing.
pub(super) struct Calls<T> {
    /// Reads what the kernel has at this moment, whatever the runtime knows of it.
    pub(super) read_now: fn(&T, &mut [u8]) -> io::Result<usize>,
    /// Has the kernel keep little of what is written.
    pub(super) bound_unsent: fn(&T),
}

/// A socket that notes when a request begins to arrive, and when an answer is taken.
pub(super) struct Watched<T> {
    pub(super) io: T,
    /// What was read of it before it came here.
    pub(super) early: Bytes,
    pub(super) progress: Rc<Progress>,
    pub(super) calls: Calls<T>,
}

impl<T> Watched<T> {
    /// The socket, and what was read of it and not used. hyper read so much; it reads nothing behind an upgrade, so there may be more that
    /// was read before.
    pub(super) fn leave(self, read: Bytes) -> (T, Bytes) {
        match self.early.is_empty() {
            true => (self.io, read),
            false => (self.io, [&read[..], &self.early[..]].concat().into()),
        }
    }

    fn wrote(&self, polled: &Poll<io::Result<usize>>) {
        let progress = &self.progress;
        if progress.from_file.take() {
            (self.calls.bound_unsent)(&self.io);
        }
        match polled {
            Poll::Ready(Ok(count)) => progress.sent.set(progress.sent.get() + *count as u64),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => progress.blocked.set(true),
        }
    }

    /// The runtime hears a moment later than the kernel what has arrived. At the end the kernel is asked.
    fn read_last(&self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match (self.calls.read_now)(&self.io, buffer.initialize_unfilled()) {
            Ok(count) => {
                buffer.advance(count);
                Poll::Ready(Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = if self.early.is_empty() {
            match Pin::new(&mut self.io).poll_read(cx, buffer) {
                Poll::Pending if self.progress.is_ending() => self.read_last(buffer),
                polled => polled,
            }
        } else {
            let count = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early[..count]);
            self.early.advance(count);
            Poll::Ready(Ok(()))
        };
        if buffer.filled().len() > before {
            self.progress.read();
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.wrote(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        if polled.is_ready() {
            self.progress.flushed();
            if self.progress.blocked.take() {
                cx.waker().wake_by_ref();
            }
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const HEADER: Duration = Duration::from_secs(10);
    const KEEP_ALIVE: Duration = Duration::from_secs(75);

    fn watched(io: tokio::io::DuplexStream) -> (Watched<tokio::io::DuplexStream>, Rc<Progress>) {
        let progress = Progress::new();
        let calls = Calls { read_now: |_, _| Err(io::ErrorKind::WouldBlock.into()), bound_unsent: |_| {} };
        (Watched { io, early: Bytes::new(), progress: progress.clone(), calls }, progress)
    }

    /// How long the state may last yet.
    fn left(progress: &Progress) -> Option<u64> {
        let now = Instant::now();
        let (due, late) = progress.look(now, HEADER, KEEP_ALIVE);
        assert!(!late);
        due.map(|due| (due - now).as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn each_state_has_its_own_limit() {
        let (mut client, io) = tokio::io::duplex(64);
        let (mut socket, progress) = watched(io);
        client.write_all(b"GET").await.unwrap();
        socket.read_u8().await.unwrap();
        assert_eq!(left(&progress), Some(10), "the head has begun");
        tokio::time::advance(Duration::from_secs(4)).await;
        socket.read_u8().await.unwrap();
        assert_eq!(left(&progress), Some(6), "and is one");
        assert!(progress.is_at_rest());
        progress.answers();
        assert_eq!(left(&progress), None, "answering");
        assert!(!progress.is_at_rest());
        let body = progress.sends(Body::from("x"));
        socket.write_all(b"head").await.unwrap();
        socket.flush().await.unwrap();
        assert_eq!(left(&progress), Some(SEND_WINDOW.as_secs()), "flushed, but its body is not handed out");
        drop(body);
        assert!(!progress.is_at_rest());
        tokio::time::advance(Duration::from_secs(80)).await;
        assert_eq!(left(&progress), Some(SEND_WINDOW.as_secs() - 80), "a pause");
        socket.flush().await.unwrap();
        assert_eq!(left(&progress), Some(75), "idle");
        assert!(progress.is_at_rest());
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_request_has_its_time_once_the_answer_before_it_is_taken() {
        let (mut client, io) = tokio::io::duplex(64);
        let (mut socket, progress) = watched(io);
        progress.answers();
        drop(progress.sends(Body::empty()));
        client.write_all(b"GET").await.unwrap();
        socket.read_u8().await.unwrap();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(!progress.is_at_rest());
        socket.flush().await.unwrap();
        assert_eq!(left(&progress), Some(10));
        assert!(progress.is_at_rest());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_taken_at_a_least_rate() {
        let (_client, io) = tokio::io::duplex(1 << 20);
        let (mut socket, progress) = watched(io);
        progress.answers();
        let _body = progress.sends(Body::empty());
        for _ in 0..3 {
            socket.write_all(&[0; SEND_BYTES_MIN as usize]).await.unwrap();
            tokio::time::advance(SEND_WINDOW).await;
            assert_eq!(left(&progress), Some(SEND_WINDOW.as_secs()), "another window");
        }
        socket.write_all(&[0; SEND_BYTES_MIN as usize - 1]).await.unwrap();
        let began = Instant::now();
        progress.is_late(HEADER, KEEP_ALIVE).await;
        assert!(began.elapsed() >= SEND_WINDOW && began.elapsed() < SEND_WINDOW + HEADER);
    }

    #[tokio::test]
    async fn what_was_read_before_is_read_first() {
        let (mut client, io) = tokio::io::duplex(64);
        let (mut socket, progress) = watched(io);
        socket.early = Bytes::from_static(b"GET ");
        client.write_all(b"/").await.unwrap();
        let mut read = [0; 5];
        socket.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"GET /");
        assert_eq!(progress.doing.get(), Doing::Head);
    }
}
