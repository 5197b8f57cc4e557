//! One connection, from its first byte to its end or to its upgrade.
//!
//! hyper drives the requests. Around it stand the clock ([`super::progress`]: a client that does not finish its request, does not take
//! its answer, or idles, is let go) and the hand-over: once a 101 is written, the socket leaves hyper with the bytes already read, and
//! is adopted.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::{Either, ready};
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use super::answer::Answer;
use super::progress::{Calls, Outgoing, Progress, Watched};
use super::upgrade::Upgrade;
use super::{Backend, Origin, respond, respond_at_hand};
use crate::config::limits::{HEADER_BYTES_MAX, LINGER, LINGER_BYTES_MAX};
use crate::session::Arrival;
use crate::wire::hixie76;

/// Serves a connection to its end. `early` was read of it before. `drain` tells to take no more requests: where another process goes on,
/// a connection without one in flight is put aside for it, with what was read of the next; where none does, it is closed.
pub async fn serve<B: Backend>(io: B::Io, early: Bytes, from: Origin, backend: B, mut drain: watch::Receiver<bool>) {
    let times = backend.site(&from.server).map(|site| (site.server.header_timeout, site.server.keep_alive));
    let Some((header_timeout, keep_alive)) = times else { return };
    let progress = Progress::new();
    let agreed: Rc<RefCell<Option<Upgrade>>> = Rc::default();
    let from = Rc::new(from);
    // Boxed, so that the connection can be taken apart once it is upgraded.
    let service = Box::new(hyper::service::service_fn(|request: Request<Incoming>| {
        progress.answers();
        // Most requests end here, without a future that could wait.
        if let Some(answer) = respond_at_hand(&request, &from, &backend) {
            return Either::Left(ready(Ok::<_, std::convert::Infallible>(send(answer, &from, &backend, &progress))));
        }
        let (agreed, progress, backend, from) = (agreed.clone(), progress.clone(), backend.clone(), from.clone());
        Either::Right(Box::pin(async move {
            let (answer, upgrade) = respond(request, &from, &backend).await;
            *agreed.borrow_mut() = upgrade;
            Ok(send(answer, &from, &backend, &progress))
        }))
    }));
    let calls = Calls { read_now: B::read_now, bound_unsent: B::bound_unsent };
    let watched = Watched { io, early, progress: progress.clone(), calls };
    let mut connection =
        http1::Builder::new().max_buf_size(HEADER_BYTES_MAX).serve_connection(TokioIo::new(watched), service);
    let mut late = std::pin::pin!(progress.is_late(header_timeout, keep_alive));
    let mut draining = false;
    let finished = loop {
        let driven = std::future::poll_fn(|cx| {
            // What has reached the kernel by now is still answered, where nobody else can.
            if draining && !backend.hands_over() {
                progress.end();
            }
            match connection.poll_without_shutdown(cx) {
                Poll::Ready(finished) => Poll::Ready(Some(finished.is_ok())),
                Poll::Pending if draining && progress.is_at_rest() => Poll::Ready(None),
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
                // A request that has arrived in this very moment is answered all the same.
                progress.end();
                draining = true;
                late.set(progress.is_late(header_timeout, keep_alive));
            }
        }
    };
    let parts = connection.into_parts();
    let (io, read) = (parts.io.into_inner().io, parts.read_buf);
    match finished {
        None if progress.is_ending() => {}
        None => backend.put_aside(io, read, &from.server),
        // What hyper could not read was answered by it all the same.
        Some(is_whole) => match agreed.take().filter(|_| is_whole) {
            Some(upgrade) => tokio::select! {
                biased;
                () = hand_over::<B>(io, read, upgrade, header_timeout, &backend) => {}
                // A handshake whose last bytes have not come is not waited for.
                _ = drain.wait_for(|drain| *drain) => {}
            },
            None => linger(io).await,
        },
    }
}

/// The answer as it is sent.
fn send<B: Backend>(answer: Answer, from: &Origin, backend: &B, progress: &Rc<Progress>) -> Response<Outgoing> {
    backend.answered(answer.status());
    let mut answer = answer.map(|body| progress.sends(body));
    if (from.is_reserve || progress.is_ending()) && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
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

/// Ends a connection so that its last answer arrives: a socket closed with unread bytes would reset it away.
async fn linger<T: AsyncRead + AsyncWrite + Unpin>(mut io: T) {
    if io.shutdown().await.is_err() {
        return;
    }
    let rest = async {
        let mut buffer = [0; 4096];
        let mut left = LINGER_BYTES_MAX;
        while let Ok(n @ 1..) = io.read(&mut buffer).await {
            left = left.saturating_sub(n);
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, rest).await;
}
