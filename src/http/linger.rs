//! Ends a connection in stages (RFC 9112 §9.6), so that the client receives the last answer.
//!
//! If a socket is closed while it has unread bytes, the kernel sends a reset, and the client loses what it has not read yet. So our
//! side is ended first. Then the bytes that the client still sends are read and discarded until the client ends its side. Many
//! clients send a whole body before they read an answer; so up to the maximum size of a body is read.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::config::limits::{LINGER, LINGER_BYTES_MAX, LINGER_ENDING, LINGER_QUIET};

/// The maximum bytes of one read.
const PIECE_BYTES: usize = 16 << 10;

/// Ends a connection. When `drain` becomes true, the server ends, and the remaining time is short.
pub async fn linger<T: AsyncRead + AsyncWrite + Unpin>(mut io: T, mut drain: watch::Receiver<bool>) {
    if io.shutdown().await.is_err() {
        return;
    }
    let ending = async {
        // An error means that the sender is dropped: the server has ended.
        let _ = drain.wait_for(|drain| *drain).await;
        sleep(LINGER_ENDING).await;
    };
    tokio::select! {
        () = discard(&mut io) => {}
        () = sleep(LINGER) => {}
        () = ending => {}
    }
}

/// Reads until the client ends, pauses for too long, or sends too much.
async fn discard<T: AsyncRead + Unpin>(io: &mut T) {
    let mut left = LINGER_BYTES_MAX;
    while let Ok(Ok(count @ 1..)) = timeout(LINGER_QUIET, poll_fn(|cx| poll_piece(io, cx))).await {
        left = left.saturating_sub(count);
        if left == 0 {
            return;
        }
    }
}

/// Reads a piece and discards it. The buffer is not kept between reads, because thousands of connections may end at the same time.
fn poll_piece<T: AsyncRead + Unpin>(io: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let mut piece = [MaybeUninit::uninit(); PIECE_BYTES];
    let mut piece = ReadBuf::uninit(&mut piece);
    std::task::ready!(Pin::new(io).poll_read(cx, &mut piece))?;
    Poll::Ready(Ok(piece.filled().len()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    /// How long lingering takes if a client sends a piece after each `pause`, `times` times, and neither reads nor ends.
    async fn takes(pause: Duration, times: u32, ends_after: Option<Duration>) -> Duration {
        let (mut client, io) = tokio::io::duplex(PIECE_BYTES);
        let (sender, drain) = watch::channel(false);
        let began = Instant::now();
        let sending = async {
            for _ in 0..times {
                // The clock is paused: no time passes.
                sleep(pause).await;
                if client.write_all(&[b'x'; 100]).await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        let ending = async {
            if let Some(after) = ends_after {
                // The clock is paused: no time passes.
                sleep(after).await;
                sender.send_replace(true);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = linger(io, drain) => {}
            () = sending => {}
            () = ending => {}
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn lingering_lasts_while_the_client_sends_up_to_a_limit() {
        let second = Duration::from_secs(1);
        assert_eq!(takes(second, 0, None).await, LINGER_QUIET);
        assert_eq!(takes(second, 3, None).await, 3 * second + LINGER_QUIET);
        assert_eq!(takes(second, u32::MAX, None).await, LINGER);
        assert_eq!(takes(second, u32::MAX, Some(2 * second)).await, 2 * second + LINGER_ENDING);
    }

    #[tokio::test(start_paused = true)]
    async fn lingering_ends_when_the_client_ends() {
        let (client, io) = tokio::io::duplex(64);
        let (_sender, drain) = watch::channel(false);
        let began = Instant::now();
        drop(client);
        linger(io, drain).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
