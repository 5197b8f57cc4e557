//! The state of an HTTP connection and its timeouts: each state has a limit of its own.
//!
//! | state | begins with | limit |
//! |---|---|---|
//! | head | the first byte of a request; until that a new connection waits in the lobby of its shard | `header_timeout` |
//! | answering | the last byte of its head | set by the handler: `body_timeout` for a body |
//! | sending | the answer | [`SEND_BYTES_MIN`] in each [`SEND_WINDOW`] |
//! | idle | the last byte of the answer is accepted by the kernel | `keep_alive` |
//!
//! hyper gets a socket and a body that notice the transitions between states: [`Watched`] and [`Outgoing`]. The last byte is
//! written when hyper has dropped the body and then flushes, because it flushes only when nothing is left to write.

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
enum State {
    Head,
    Answering,
    Sending,
    Idle,
}

/// The state of a connection. The timeouts, the socket, the service and the body of the answer share it.
#[derive(Debug)]
pub(super) struct Progress {
    state: Cell<State>,
    /// When the state began, or the present [`SEND_WINDOW`].
    since: Cell<Instant>,
    /// Bytes of the answer that the kernel accepted in this window.
    sent: Cell<u64>,
    /// Whether hyper has the whole body.
    handed_out: Cell<bool>,
    /// Whether bytes of the next request were read while this one was answered.
    ahead: Cell<bool>,
    /// Whether the answer is read from a file.
    from_file: Cell<bool>,
    /// Whether the kernel accepts no more bytes for now. Until it does, the body is not read.
    blocked: Cell<bool>,
    /// Whether the present request is the last one.
    last: Cell<bool>,
}

impl Progress {
    pub(super) fn new() -> Rc<Progress> {
        Rc::new(Progress {
            state: Cell::new(State::Head),
            since: Cell::new(Instant::now()),
            sent: Cell::default(),
            handed_out: Cell::default(),
            ahead: Cell::default(),
            from_file: Cell::default(),
            blocked: Cell::default(),
            last: Cell::default(),
        })
    }

    fn begin(&self, state: State) {
        self.state.set(state);
        self.since.set(Instant::now());
    }

    /// The head of a request is complete.
    pub(super) fn begin_answering(&self) {
        self.state.set(State::Answering);
        self.ahead.set(false);
    }

    /// The answer is sent from now on.
    pub(super) fn begin_sending(self: &Rc<Self>, body: Body) -> Outgoing {
        self.begin(State::Sending);
        self.sent.set(0);
        self.handed_out.set(false);
        self.from_file.set(matches!(body, Body::File(_)));
        Outgoing { body, progress: self.clone() }
    }

    /// The present request is the last one, or a request whose bytes have already arrived.
    pub(super) fn mark_last(&self) {
        self.last.set(true);
    }

    /// Whether the present request is the last one.
    pub(super) fn is_ending(&self) -> bool {
        self.last.get()
    }

    /// Whether an answer waits because the kernel accepts no more bytes.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    /// Whether no request is in flight. A request with an incomplete head is not in flight.
    pub(super) fn is_at_rest(&self) -> bool {
        matches!(self.state.get(), State::Head | State::Idle)
    }

    /// When the state times out, if it has a timeout; and whether it has timed out `now`.
    fn deadline(&self, now: Instant, header_timeout: Duration, keep_alive: Duration) -> (Option<Instant>, bool) {
        let due = self.since.get()
            + match self.state.get() {
                State::Head => header_timeout,
                State::Idle => keep_alive,
                State::Sending => SEND_WINDOW,
                State::Answering => return (None, false),
            };
        if self.state.get() == State::Sending && due <= now && self.sent.get() >= SEND_BYTES_MIN {
            self.since.set(now);
            self.sent.set(0);
            return (Some(now + SEND_WINDOW), false);
        }
        (Some(due), due <= now)
    }

    /// Returns when the state has timed out.
    pub(super) async fn is_late(&self, header_timeout: Duration, keep_alive: Duration) {
        loop {
            let now = Instant::now();
            let (due, late) = self.deadline(now, header_timeout, keep_alive);
            if late {
                return;
            }
            // A state with a shorter timeout may begin meanwhile.
            let soon = now + header_timeout;
            tokio::time::sleep_until(due.map_or(soon, |due| due.min(soon))).await;
        }
    }

    fn read(&self) {
        match self.state.get() {
            State::Idle => self.begin(State::Head),
            State::Head | State::Answering => {}
            State::Sending => self.ahead.set(true),
        }
    }

    fn flushed(&self) {
        if self.state.get() == State::Sending && self.handed_out.get() {
            self.begin(if self.ahead.take() { State::Head } else { State::Idle });
        }
    }
}

/// The body of an answer. It notes when hyper has all of it.
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
            // The task is woken once the bytes before are written.
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

/// Calls of a socket besides reading and writing.
pub(super) struct Calls<T> {
    /// See [`super::Backend::read_now`].
    pub(super) read_now: fn(&mut T, &mut [u8]) -> io::Result<usize>,
    /// See [`super::Backend::bound_unsent`].
    pub(super) bound_unsent: fn(&T),
}

/// A socket that notes when a request begins to arrive, and when an answer is written.
pub(super) struct Watched<T> {
    pub(super) io: T,
    /// Bytes that were read of it before.
    pub(super) early: Bytes,
    pub(super) progress: Rc<Progress>,
    pub(super) calls: Calls<T>,
}

impl<T> Watched<T> {
    /// The socket, and the bytes that were read and not used. `read` is the part that hyper has read. hyper does not read beyond an
    /// upgrade, so a part of `early` may be left, too.
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

    /// Asks the kernel for bytes when the last request is read. The runtime is notified of new bytes only a moment later.
    fn read_last(&mut self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match (self.calls.read_now)(&mut self.io, buffer.initialize_unfilled()) {
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

    /// The remaining time of the state.
    fn left(progress: &Progress) -> Option<u64> {
        let now = Instant::now();
        let (due, late) = progress.deadline(now, HEADER, KEEP_ALIVE);
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
        assert_eq!(left(&progress), Some(6), "more of the same head");
        assert!(progress.is_at_rest());
        progress.begin_answering();
        assert_eq!(left(&progress), None, "answering");
        assert!(!progress.is_at_rest());
        let body = progress.begin_sending(Body::from("x"));
        socket.write_all(b"head").await.unwrap();
        socket.flush().await.unwrap();
        assert_eq!(left(&progress), Some(SEND_WINDOW.as_secs()), "flushed, but hyper does not have the whole body");
        drop(body);
        assert!(!progress.is_at_rest());
        tokio::time::advance(Duration::from_secs(80)).await;
        assert_eq!(left(&progress), Some(SEND_WINDOW.as_secs() - 80), "a pause");
        socket.flush().await.unwrap();
        assert_eq!(left(&progress), Some(75), "idle");
        assert!(progress.is_at_rest());
    }

    #[tokio::test(start_paused = true)]
    async fn the_timeout_of_the_next_request_begins_after_the_answer_before_it() {
        let (mut client, io) = tokio::io::duplex(64);
        let (mut socket, progress) = watched(io);
        progress.begin_answering();
        drop(progress.begin_sending(Body::empty()));
        client.write_all(b"GET").await.unwrap();
        socket.read_u8().await.unwrap();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(!progress.is_at_rest());
        socket.flush().await.unwrap();
        assert_eq!(left(&progress), Some(10));
        assert!(progress.is_at_rest());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_must_be_read_at_a_minimum_rate() {
        let (_client, io) = tokio::io::duplex(1 << 20);
        let (mut socket, progress) = watched(io);
        progress.begin_answering();
        let _body = progress.begin_sending(Body::empty());
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
    async fn early_bytes_are_read_first() {
        let (mut client, io) = tokio::io::duplex(64);
        let (mut socket, progress) = watched(io);
        socket.early = Bytes::from_static(b"GET ");
        client.write_all(b"/").await.unwrap();
        let mut read = [0; 5];
        socket.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"GET /");
        assert_eq!(progress.state.get(), State::Head);
    }
}
