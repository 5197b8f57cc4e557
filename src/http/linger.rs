//! The end of a connection, in stages (RFC 9112 §9.6), so that its last answer is heard.
//!
//! A socket closed with bytes in it that were not read is reset, and a reset takes away from the client whatever it has not read yet. So
//! our side is ended first; then what the client still sends is read and thrown away until it has ended its own. Many clients send
//! a whole body before they look whether there is an answer: it is read as far as a body may go.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::config::limits::{LINGER, LINGER_BYTES_MAX, LINGER_ENDING, LINGER_QUIET};

/// What is read at once, in bytes.
const PIECE_BYTES: usize = 16 << 10;

/// Ends a connection. `drain` tells that the server ends, which makes it short.
pub async fn linger<T: AsyncRead + AsyncWrite + Unpin>(mut io: T, mut drain: watch::Receiver<bool>) {
    if io.shutdown().await.is_err() {
        return;
    }
    let ending = async {
        // No sender: the server is gone already.
        let _ = drain.wait_for(|drain| *drain).await;
        sleep(LINGER_ENDING).await;
    };
    tokio::select! {
        () = discard(&mut io) => {}
        () = sleep(LINGER) => {}
        () = ending => {}
    }
}

/// Reads until the client ends, or rests for too long, or sends too much.
async fn discard<T: AsyncRead + Unpin>(io: &mut T) {
    let mut left = LINGER_BYTES_MAX;
    while let Ok(Ok(count @ 1..)) = timeout(LINGER_QUIET, poll_fn(|cx| poll_piece(io, cx))).await {
        left = left.saturating_sub(count);
        if left == 0 {
            return;
        }
    }
}

/// Reads a piece and forgets it. The buffer lives no longer than that: thousands of connections may end at the same time.
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

    /// How long lingering takes while a client sends a piece after each `pause`, so many times, and neither reads nor ends.
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
    async fn it_lasts_while_the_client_sends_but_not_for_ever() {
        let second = Duration::from_secs(1);
        assert_eq!(takes(second, 0, None).await, LINGER_QUIET);
        assert_eq!(takes(second, 3, None).await, 3 * second + LINGER_QUIET);
        assert_eq!(takes(second, u32::MAX, None).await, LINGER);
        assert_eq!(takes(second, u32::MAX, Some(2 * second)).await, 2 * second + LINGER_ENDING);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_ends_is_not_waited_for() {
        let (client, io) = tokio::io::duplex(64);
        let (_sender, drain) = watch::channel(false);
        let began = Instant::now();
        drop(client);
        linger(io, drain).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
