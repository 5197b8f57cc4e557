//! One connection, from its first byte to its end or to its upgrade.
//!
//! hyper drives the requests. Around it stand the clock (a client that does not finish its request, or idles, is let go) and the
//! hand-over: once a 101 is written, the socket leaves hyper with the bytes already read, and is adopted.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::{Either, ready};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::Instant;

use super::linger::linger;
use super::upgrade::Upgrade;
use super::{Backend, Origin, respond, respond_at_hand};
use crate::config::limits::{HEADER_BYTES_MAX, LINGER};
use crate::session::Arrival;
use crate::wire::hixie76;

/// What the connection is doing, and since when.
#[derive(Debug, Clone, Copy)]
enum Doing {
    /// Waiting for a request.
    Idle(Instant),
    /// Reading a request's header.
    Head(Instant),
    /// Answering.
    Busy,
}

/// What the clock watches; shared by the socket's wrapper and the service.
type Progress = Rc<Cell<Doing>>;

/// Serves a connection that has said something to its end. `drain` tells when to finish what is in flight and take no more.
pub async fn serve<B: Backend>(io: B::Io, from: Origin, backend: B, mut drain: watch::Receiver<bool>) {
    let Some(site) = backend.site(&from.server) else { return };
    let (header_timeout, keep_alive) = (site.server.header_timeout, site.server.keep_alive);
    drop(site);
    let progress: Progress = Rc::new(Cell::new(Doing::Head(Instant::now())));
    let agreed: Rc<RefCell<Option<Upgrade>>> = Rc::default();
    let from = Rc::new(from);
    // Boxed, so that the connection can be taken apart once it is upgraded.
    let service = Box::new(hyper::service::service_fn(|request: Request<Incoming>| {
        // Most requests end here, without a future that could wait.
        if let Some(answer) = respond_at_hand(&request, &from, &backend) {
            backend.answered(answer.status());
            progress.set(Doing::Idle(Instant::now()));
            return Either::Left(ready(Ok(answer)));
        }
        let (agreed, progress, backend, from) = (agreed.clone(), progress.clone(), backend.clone(), from.clone());
        progress.set(Doing::Busy);
        Either::Right(Box::pin(async move {
            let (answer, upgrade) = respond(request, &from, &backend).await;
            *agreed.borrow_mut() = upgrade;
            backend.answered(answer.status());
            progress.set(Doing::Idle(Instant::now()));
            Ok::<_, std::convert::Infallible>(answer)
        }))
    }));
    let watched = Watched { io, progress: progress.clone() };
    let mut connection = protocol().serve_connection(TokioIo::new(watched), service);
    let clock = clock(&progress, header_timeout, keep_alive);
    tokio::pin!(clock);
    let mut draining = false;
    let is_whole = loop {
        tokio::select! {
            biased;
            finished = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)) => break finished.is_ok(),
            _ = drain.wait_for(|drain| *drain), if !draining => {
                draining = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            () = &mut clock => return,
        }
    };
    if is_whole && agreed.borrow().is_none() {
        // The last answer may still wait for the kernel, and would be lost with hyper's buffer.
        let _ = tokio::time::timeout(LINGER, Pin::new(&mut connection)).await;
    }
    let parts = connection.into_parts();
    let io = parts.io.into_inner().io;
    // What hyper could not read was answered by it all the same.
    match agreed.take().filter(|_| is_whole) {
        Some(upgrade) => hand_over::<B>(io, parts.read_buf, upgrade, header_timeout, &backend).await,
        None => linger(io, drain).await,
    }
}

/// HTTP as hyper is to speak it.
fn protocol() -> http1::Builder {
    let mut protocol = http1::Builder::new();
    // A request ends by its framing: a client that ends its side behind it is answered all the same.
    protocol.half_close(true).max_buf_size(HEADER_BYTES_MAX);
    protocol
}

/// Ends when the client is late.
async fn clock(progress: &Cell<Doing>, header_timeout: Duration, keep_alive: Duration) {
    let mut wake = Instant::now() + header_timeout;
    loop {
        tokio::time::sleep_until(wake).await;
        let soon = Instant::now() + header_timeout;
        let latest = match progress.get() {
            Doing::Idle(since) => since + keep_alive,
            Doing::Head(since) => since + header_timeout,
            Doing::Busy => soon,
        };
        if latest <= Instant::now() {
            return;
        }
        // A request that begins before then has less time.
        wake = latest.min(soon);
    }
}

/// Gives an upgraded connection to the backend; a draft-76 handshake is finished first.
async fn hand_over<B: Backend>(io: B::Io, early: Bytes, upgrade: Upgrade, patience: Duration, backend: &B) {
    let Upgrade { arrival, keys76, key3, .. } = upgrade;
    match keys76 {
        None => backend.adopt(io, Arrival { early, ..arrival }),
        Some(keys) => {
            if let Ok(Some((io, early))) = tokio::time::timeout(patience, finish76(io, key3, early, keys)).await {
                backend.adopt(io, Arrival { early, ..arrival });
            }
        }
    }
}

/// Reads the eight bytes that follow a draft-76 request, as far as they were not its body, and answers all three keys.
async fn finish76<T: AsyncRead + AsyncWrite + Unpin>(
    mut io: T,
    key3: Bytes,
    early: Bytes,
    keys: (String, String),
) -> Option<(T, Bytes)> {
    let mut bytes = BytesMut::from(key3);
    bytes.extend_from_slice(&early);
    while bytes.len() < hixie76::KEY3_BYTES {
        if io.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let mut key3 = [0; hixie76::KEY3_BYTES];
    bytes.copy_to_slice(&mut key3);
    match hixie76::answer(&keys.0, &keys.1, key3) {
        Ok(answer) => {
            io.write_all(&answer).await.ok()?;
            Some((io, bytes.freeze()))
        }
        Err(why) => {
            log::debug!("draft-76 handshake refused: {why}");
            None
        }
    }
}

/// A socket that notes when a request begins to arrive, and when an answer is taken.
struct Watched<T> {
    io: T,
    progress: Progress,
}

impl<T> Watched<T> {
    /// A client that still takes its answer is not idle, however long that takes, even where it began its next request already.
    fn wrote(&self, polled: &Poll<std::io::Result<usize>>) {
        if polled.is_ready() && !matches!(self.progress.get(), Doing::Busy) {
            self.progress.set(Doing::Idle(Instant::now()));
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        if buffer.filled().len() > before && matches!(self.progress.get(), Doing::Idle(_)) {
            self.progress.set(Doing::Head(Instant::now()));
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.wrote(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_an_answer_is_not_late_with_the_request_he_began_meanwhile() {
        let (mut client, io) = tokio::io::duplex(64);
        let progress: Progress = Rc::new(Cell::new(Doing::Idle(Instant::now())));
        let mut watched = Watched { io, progress: progress.clone() };
        client.write_all(b"GET").await.unwrap();
        watched.read_u8().await.unwrap();
        assert!(matches!(progress.get(), Doing::Head(_)));
        tokio::time::advance(Duration::from_secs(60)).await;
        watched.write_all(b"the answer before").await.unwrap();
        assert!(matches!(progress.get(), Doing::Idle(since) if since == Instant::now()));
        watched.read_u8().await.unwrap();
        assert!(matches!(progress.get(), Doing::Head(since) if since == Instant::now()));
    }
}
