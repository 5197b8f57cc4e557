//! One HTTP connection, from its first byte until it ends or becomes a session.
//!
//! hyper reads the requests. `progress` has the timeouts: a client that does not finish its request, does not read its answer, or
//! is idle for too long is disconnected. A connection becomes a session in two ways. Either hyper has written the answer to an
//! upgrade; or the answer is a stream, which the session writes. Then the socket is taken out of hyper, with the bytes that were
//! read already.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::{Either, ready};
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use super::answer::Answer;
use super::linger::linger;
use super::progress::{Calls, Outgoing, Progress, Watched};
use super::upgrade::Upgrade;
use super::{Backend, Client, Outcome, respond, respond_at_once};
use crate::config::limits::{HEADER_BYTES_MAX, LINGER, REFUSAL_PATIENCE};
use crate::session::Arrival;
use crate::wire::hixie76;

/// Serves a connection until it ends. `early` are bytes that were read of it before. When `drain` becomes true, no more requests
/// are accepted. If another process continues, a connection without a request in flight is put aside for it, with the bytes that
/// were read of the next request. Otherwise the connection is closed.
pub async fn serve<B: Backend>(io: B::Io, early: Bytes, client: Client, backend: B, mut drain: watch::Receiver<bool>) {
    let times = backend.site(&client.server).map(|site| (site.server.header_timeout, site.server.keep_alive));
    let Some((header_timeout, keep_alive)) = times else { return };
    let header_timeout = if client.is_reserve { header_timeout.min(REFUSAL_PATIENCE) } else { header_timeout };
    let progress = Progress::new();
    let leaving: Rc<RefCell<Option<Leaving>>> = Rc::default();
    let client = Rc::new(client);
    // Boxed, so that the connection can be taken apart once it is upgraded.
    let service = Box::new(hyper::service::service_fn(|request: Request<Incoming>| {
        progress.begin_answering();
        // Most requests are answered here, without a boxed future.
        if let Some(answer) = respond_at_once(&request, &client, &backend) {
            return Either::Left(ready(Ok::<_, std::convert::Infallible>(send(answer, &client, &backend, &progress))));
        }
        let later = answer_later(request, client.clone(), backend.clone(), progress.clone(), leaving.clone());
        Either::Right(Box::pin(later.map(Ok)))
    }));
    let calls = Calls { read_now: B::read_now, bound_unsent: B::bound_unsent };
    let watched = Watched { io, early, progress: progress.clone(), calls };
    let mut connection = protocol().serve_connection(TokioIo::new(watched), service);
    let mut late = std::pin::pin!(progress.is_late(header_timeout, keep_alive));
    let mut draining = false;
    let finished = loop {
        let driven = std::future::poll_fn(|cx| {
            // If no other process continues, requests that the kernel has received by now are still answered.
            if draining && !backend.hands_over() {
                progress.mark_last();
            }
            match connection.poll_without_shutdown(cx) {
                Poll::Ready(finished) => Poll::Ready(Some(finished.is_ok())),
                Poll::Pending if draining && progress.is_at_rest() => Poll::Ready(None),
                // The kernel has accepted the answers to earlier requests, so the bytes of the session follow them.
                Poll::Pending if is_stream(&leaving) && !progress.is_blocked() => Poll::Ready(Some(true)),
                Poll::Pending => Poll::Pending,
            }
        });
        tokio::select! {
            biased;
            _ = drain.wait_for(|drain| *drain), if !draining => draining = true,
            finished = driven => break finished,
            () = &mut late => {
                if !progress.is_at_rest() || progress.is_ending() {
                    return;
                }
                // A request that has just arrived is still answered.
                progress.mark_last();
                draining = true;
                late.set(progress.is_late(header_timeout, keep_alive));
            }
        }
    };
    if finished == Some(true) && leaving.borrow().is_none() {
        // The last answer may still be in hyper's buffer: it must be written first.
        let _ = tokio::time::timeout(LINGER, std::pin::Pin::new(&mut connection)).await;
    }
    let parts = connection.into_parts();
    let (io, read) = parts.io.into_inner().leave(parts.read_buf);
    match finished {
        None if progress.is_ending() => {}
        None => backend.put_aside(io, read, &client.server),
        // If hyper could not parse a request, it has answered it.
        Some(is_whole) => {
            let leaving = leaving.take().filter(|_| is_whole);
            leave::<B>(io, read, leaving, header_timeout, &backend, drain).await;
        }
    }
}

/// Why a connection leaves hyper.
enum Leaving {
    /// The upgrade is answered.
    Upgrade(Box<Upgrade>),
    /// The session writes the answer.
    Stream(Box<Arrival>),
}

fn is_stream(leaving: &RefCell<Option<Leaving>>) -> bool {
    matches!(*leaving.borrow(), Some(Leaving::Stream(_)))
}

/// Answers a request that cannot be answered at once, and notes in `leaving` if the connection leaves hyper.
async fn answer_later<B: Backend>(
    request: Request<Incoming>,
    client: Rc<Client>,
    backend: B,
    progress: Rc<Progress>,
    leaving: Rc<RefCell<Option<Leaving>>>,
) -> Response<Outgoing> {
    let answer = match respond(request, &client, &backend).await {
        Outcome::Answer(answer) => answer,
        Outcome::Upgrade(answer, upgrade) => {
            *leaving.borrow_mut() = Some(Leaving::Upgrade(upgrade));
            answer
        }
        Outcome::Stream(arrival) => {
            backend.answered(StatusCode::OK);
            *leaving.borrow_mut() = Some(Leaving::Stream(arrival));
            // This never completes: the connection is taken apart first.
            std::future::pending().await
        }
    };
    send(answer, &client, &backend, &progress)
}

/// hyper's settings.
fn protocol() -> http1::Builder {
    let mut protocol = http1::Builder::new();
    // A client that ends its side after a complete request is still answered.
    protocol.half_close(true).max_buf_size(HEADER_BYTES_MAX);
    protocol
}

/// Prepares an answer for hyper.
fn send<B: Backend>(answer: Answer, client: &Client, backend: &B, progress: &Rc<Progress>) -> Response<Outgoing> {
    backend.answered(answer.status());
    let mut answer = answer.map(|body| progress.begin_sending(body));
    if (client.is_reserve || progress.is_ending()) && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// Serves what follows on a connection that has left hyper: a session, or the end.
async fn leave<B: Backend>(
    io: B::Io,
    early: Bytes,
    leaving: Option<Leaving>,
    timeout: Duration,
    backend: &B,
    drain: watch::Receiver<bool>,
) {
    match leaving {
        Some(Leaving::Upgrade(upgrade)) => finish::<B>(io, early, *upgrade, timeout, backend, drain).await,
        Some(Leaving::Stream(arrival)) => backend.adopt(io, Arrival { early, ..*arrival }),
        None => linger(io, drain).await,
    }
}

/// Passes an upgraded connection to the backend. A draft-76 handshake is finished first, within `timeout` and before the server
/// ends.
async fn finish<B: Backend>(
    io: B::Io,
    early: Bytes,
    upgrade: Upgrade,
    timeout: Duration,
    backend: &B,
    mut drain: watch::Receiver<bool>,
) {
    let Upgrade { arrival, keys76, key3, .. } = upgrade;
    let Some(keys) = keys76 else { return backend.adopt(io, Arrival { early, ..arrival }) };
    tokio::select! {
        biased;
        finished = tokio::time::timeout(timeout, finish76(io, key3, early, keys)) => {
            if let Ok(Some((io, early))) = finished {
                backend.adopt(io, Arrival { early, ..arrival });
            }
        }
        // An incomplete handshake is not waited for.
        _ = drain.wait_for(|drain| *drain) => {}
    }
}

/// Reads the eight bytes that follow a draft-76 request, unless they were its body (`key3`), and answers all three keys.
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
