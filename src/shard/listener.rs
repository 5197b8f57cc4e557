//! Accepting: one shard accepts for a listener, and deals the connections out evenly.
//!
//! Each connection goes to the shard that has the fewest, for life. One socket is bound once, so an address that is taken is an error (with
//! SO_REUSEPORT a second daemon would silently share it), sockets of a service manager work alike, and the spread is even
//! where the kernel's hash is only so on average.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::errno::Errno;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::mailbox::Command;
use super::stream::{Place, Stream, is_loopback};
use super::{Shard, refusal};
use crate::config::limits::ACCEPT_BACKOFF;

/// How often running out of a resource is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A bound address.
#[derive(Debug)]
pub struct Listener {
    /// NAME of the server whose routes it serves.
    pub server: Arc<str>,
    /// The socket, not blocking.
    pub socket: ListenerSocket,
    /// A shard accepts on it.
    taken: AtomicBool,
}

/// What kind of socket listens.
#[derive(Debug)]
pub enum ListenerSocket {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixListener),
}

impl ListenerSocket {
    /// Another handle to the same socket.
    pub fn try_clone(&self) -> io::Result<ListenerSocket> {
        Ok(match self {
            ListenerSocket::Tcp(socket) => ListenerSocket::Tcp(socket.try_clone()?),
            ListenerSocket::Unix(socket) => ListenerSocket::Unix(socket.try_clone()?),
        })
    }
}

impl AsFd for ListenerSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            ListenerSocket::Tcp(socket) => socket.as_fd(),
            ListenerSocket::Unix(socket) => socket.as_fd(),
        }
    }
}

impl Listener {
    /// A listener nobody accepts on yet.
    pub fn new(server: Arc<str>, socket: ListenerSocket) -> Listener {
        Listener { server, socket, taken: AtomicBool::new(false) }
    }

    /// Takes it for the shard that asks, if that is its `turn` and no other shard has it.
    pub(super) fn is_free_for(&self, turn: bool) -> bool {
        turn && !self.taken.swap(true, Ordering::Relaxed)
    }
}

/// A listener under the runtime's watch.
enum Watched {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection that has no place yet.
pub(super) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Accepted {
    /// Whether it came in on a loopback address or a Unix socket.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Accepted::Tcp(socket) => is_loopback(socket),
            Accepted::Unix(_) => true,
        }
    }

    /// The address it came from, if it came from one.
    pub(super) fn address(&self) -> Option<IpAddr> {
        match self {
            Accepted::Tcp(socket) => socket.peer_addr().ok().map(|address| address.ip()),
            Accepted::Unix(_) => None,
        }
    }
}

impl Watched {
    fn new(listener: &Listener) -> io::Result<Watched> {
        Ok(match &listener.socket {
            ListenerSocket::Tcp(socket) => Watched::Tcp(TcpListener::from_std(socket.try_clone()?)?),
            ListenerSocket::Unix(socket) => Watched::Unix(UnixListener::from_std(socket.try_clone()?)?),
        })
    }

    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Watched::Tcp(listener) => {
                let (socket, _) = listener.accept().await?;
                // A publication leaves when it is flushed, not when the last one was acknowledged.
                socket.set_nodelay(true)?;
                Ok(Accepted::Tcp(socket))
            }
            Watched::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}

/// Accepts until it is dropped.
pub(super) async fn accept(listener: Arc<Listener>, shard: Rc<Shard>) -> io::Result<()> {
    let watched = Watched::new(&listener)?;
    let mut logged: Option<Instant> = None;
    loop {
        match watched.accept().await {
            Ok(accepted) => deal(accepted, &listener.server, &shard),
            // The client was gone before it was accepted.
            Err(error) if is_of_the_client(&error) => {}
            // The connection stays in the queue, or the socket is broken: trying at once would spin.
            Err(error) => {
                if logged.is_none_or(|at| at.elapsed() > LOG_INTERVAL) {
                    log::warn!("cannot accept connections for now: {error}");
                    logged = Some(Instant::now());
                }
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// Whether accepting failed because of the one connection that was next, which is out of the queue then (accept(2), "Error handling").
fn is_of_the_client(error: &io::Error) -> bool {
    let gone = [
        Errno::ECONNABORTED,
        Errno::ECONNRESET,
        Errno::EINTR,
        Errno::EPROTO,
        Errno::ENOPROTOOPT,
        Errno::ENETDOWN,
        Errno::ENETUNREACH,
        Errno::EHOSTDOWN,
        Errno::EHOSTUNREACH,
        Errno::ENONET,
    ];
    error.raw_os_error().is_some_and(|code| gone.contains(&Errno::from_raw(code)))
}

/// Gives a connection to the shard with the fewest, this one first among equals.
fn deal(accepted: Accepted, server: &Arc<str>, shard: &Rc<Shard>) {
    let mailboxes = shard.relay.mailboxes();
    let (mut all, mut least) = (0, shard.index);
    let mut fewest = mailboxes[least].connections.count();
    for (index, mailbox) in mailboxes.iter().enumerate() {
        let count = mailbox.connections.count();
        all += count;
        if count < fewest {
            (least, fewest) = (index, count);
        }
    }
    let plan = shard.plan();
    let counted = match plan.gate.admit(&plan, all, server, &accepted) {
        Ok(counted) => counted.boxed(),
        Err(limit) => {
            shard.counters().refused.add(1);
            return refusal::refuse(accepted, &limit, plan.gate.refuse());
        }
    };
    let Some(in_shard) = mailboxes[least].connections.join(usize::MAX) else { return };
    let place = Place { shard: in_shard, counted };
    shard.counters().accepted.add(1);
    let stream = match accepted {
        Accepted::Tcp(socket) => Stream::tcp(socket, place),
        Accepted::Unix(socket) => Stream::unix(socket, place),
    };
    if least == shard.index {
        return shard.serve(stream, Bytes::new(), server.clone());
    }
    match stream.into_raw() {
        Ok(raw) => mailboxes[least].send(Command::Serve(raw, Bytes::new(), server.clone())),
        Err(error) => log::warn!("a connection could not be handed over: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_clients_own_end_is_no_reason_to_rest() {
        for (errno, gone) in [
            (Errno::ECONNABORTED, true),
            (Errno::EMFILE, false),
            (Errno::ENOMEM, false),
            (Errno::EINVAL, false),
            (Errno::EPERM, false),
        ] {
            assert_eq!(is_of_the_client(&errno.into()), gone, "{errno}");
        }
    }
}
