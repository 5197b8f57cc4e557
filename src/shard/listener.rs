//! Accepting: one shard accepts for a listener, and deals the connections out evenly.
//!
//! Each connection goes to the shard that has the fewest, for life. One socket is bound once, so an address that is taken is an error (with
//! SO_REUSEPORT a second daemon would silently share it), sockets of a service manager work alike, and the spread is even
//! where the kernel's hash is only so on average.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::errno::Errno;
use rustix::net::SocketFlags;
use socket2::SockRef;

use super::Shard;
use super::gate::Limit;
use super::mailbox::Command;
use super::poller::{Events, Poller};
use super::refusal::Refusal;
use super::socket_file::SocketFile;
use super::stream::{Place, Raw, is_loopback};
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
    /// Its file, if it has one and that is ours to remove.
    pub file: Option<Arc<SocketFile>>,
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
    pub fn new(server: Arc<str>, socket: ListenerSocket, file: Option<Arc<SocketFile>>) -> Listener {
        Listener { server, socket, file, taken: AtomicBool::new(false) }
    }

    /// Takes it for the shard that asks, if that is its `turn` and no other shard has it.
    pub(super) fn is_free_for(&self, turn: bool) -> bool {
        turn && !self.taken.swap(true, Ordering::Relaxed)
    }
}

/// A connection that has no place yet. It does not block.
pub(super) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Accepted {
    /// Whether it came in on a loopback address or a Unix socket.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Accepted::Tcp(socket, _) => is_loopback(socket.local_addr()),
            Accepted::Unix(_) => true,
        }
    }

    /// The address it came from, if it came from one.
    pub(super) fn address(&self) -> Option<IpAddr> {
        match self {
            Accepted::Tcp(_, address) => Some(address.ip()),
            Accepted::Unix(_) => None,
        }
    }
}

impl ListenerSocket {
    /// The next connection, if one waits.
    fn accept(&self) -> io::Result<Accepted> {
        let (accepted, address) = rustix::net::acceptfrom_with(self, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
        Ok(match self {
            ListenerSocket::Tcp(_) => {
                let address = address.and_then(|address| SocketAddr::try_from(address).ok());
                Accepted::Tcp(accepted.into(), address.ok_or(io::ErrorKind::ConnectionAborted)?)
            }
            ListenerSocket::Unix(_) => Accepted::Unix(accepted.into()),
        })
    }
}

/// Watches a listener by a set of its own, so that the runtime watches nothing that others could close.
fn watch(listener: &ListenerSocket) -> io::Result<Poller> {
    let poller = Poller::new()?;
    poller.add_silent(listener, 0)?;
    if let ListenerSocket::Tcp(socket) = listener {
        // A publication leaves when it is flushed, not when the last one was acknowledged. What is accepted inherits it.
        SockRef::from(socket).set_tcp_nodelay(true)?;
    }
    Ok(poller)
}

/// Accepts until it is dropped.
pub(super) async fn accept(listener: Arc<Listener>, shard: Rc<Shard>) {
    let mut rest = Rest::default();
    // It takes a descriptor, which may be there in a moment: the address is bound, and clients that connect wait.
    let (poller, mut events) = loop {
        match watch(&listener.socket) {
            Ok(poller) => break (poller, Events::single()),
            Err(error) => rest.take(&error).await,
        }
    };
    loop {
        match listener.socket.accept() {
            Ok(accepted) => {
                deal(accepted, &listener.server, &shard);
                // Others of this shard have their turn, however many come.
                tokio::task::consume_budget().await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poller.take(&mut events).for_each(drop);
                if let Err(error) = poller.wait().await {
                    rest.take(&error).await;
                }
            }
            // The client was gone before it was accepted.
            Err(error) if is_of_the_client(&error) => {}
            // The connection stays in the queue, or the socket is broken: trying at once would spin.
            Err(error) => rest.take(&error).await,
        }
    }
}

/// The rest after a failure, which is told once in a while.
#[derive(Default)]
struct Rest {
    told: Option<Instant>,
}

impl Rest {
    async fn take(&mut self, error: &io::Error) {
        if self.told.is_none_or(|at| at.elapsed() > LOG_INTERVAL) {
            log::warn!("cannot accept connections for now: {error}");
            self.told = Some(Instant::now());
        }
        tokio::time::sleep(ACCEPT_BACKOFF).await;
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
            let refusal = Refusal {
                is_of_address: matches!(limit, Limit::Address),
                has_events: plan.sites.get(&**server).is_some_and(|site| site.has_events()),
                connections: all,
            };
            return refusal.refuse(accepted, plan.gate.refuse());
        }
    };
    let Some(in_shard) = mailboxes[least].connections.join(usize::MAX) else { return };
    let place = Place { shard: in_shard, counted };
    shard.counters().accepted.add(1);
    let raw = match accepted {
        Accepted::Tcp(socket, address) => Raw::tcp(socket, address.into(), place),
        Accepted::Unix(socket) => Raw::unix(socket, place),
    };
    if least == shard.index {
        return shard.serve(raw, Bytes::new(), server.clone());
    }
    mailboxes[least].send(Command::Serve(raw, Bytes::new(), server.clone()));
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
