//! Accepting: each listener belongs to one shard, which accepts and distributes the connections evenly.
//!
//! Each connection goes to the shard that has the fewest connections, and stays there. Compared with one SO_REUSEPORT socket for
//! each shard: an address that is already in use is an error (a second daemon would silently share it), sockets of a service
//! manager work in the same way, and the distribution is even, not only on average as with the hash of the kernel.

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
use super::stream::{Admission, Raw, is_loopback};
use crate::config::limits::ACCEPT_BACKOFF;
use crate::tls::Acceptor;

/// The minimum time between two log lines about failures to accept.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A bound address.
#[derive(Debug)]
pub struct Listener {
    /// NAME of the server whose routes it serves.
    pub server: Arc<str>,
    /// The socket. It does not block.
    pub socket: ListenerSocket,
    /// The file of a Unix socket, if pushd must remove it.
    pub file: Option<Arc<SocketFile>>,
    /// Whether a shard accepts on it.
    claimed: AtomicBool,
}

/// The socket of a listener.
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
    /// A listener that no shard accepts on yet.
    pub fn new(server: Arc<str>, socket: ListenerSocket, file: Option<Arc<SocketFile>>) -> Listener {
        Listener { server, socket, file, claimed: AtomicBool::new(false) }
    }

    /// Claims it for the calling shard. Returns whether this succeeded: no other shard has claimed it before.
    pub(super) fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::Relaxed)
    }
}

/// An accepted connection that is not counted yet. It does not block.
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

    /// The address of the client. `None`: it is a Unix socket.
    pub(super) fn address(&self) -> Option<IpAddr> {
        match self {
            Accepted::Tcp(_, address) => Some(address.ip()),
            Accepted::Unix(_) => None,
        }
    }
}

impl ListenerSocket {
    /// Accepts the next connection.
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

/// Watches a listener with an epoll set of its own. The runtime watches only this set, so the listener can be closed elsewhere.
fn watch(listener: &ListenerSocket) -> io::Result<Poller> {
    let poller = Poller::new()?;
    poller.add_silent(listener, 0)?;
    if let ListenerSocket::Tcp(socket) = listener {
        // A publication is sent when it is flushed, and not delayed until the last one is acknowledged. Accepted sockets inherit
        // this.
        SockRef::from(socket).set_tcp_nodelay(true)?;
    }
    Ok(poller)
}

/// Accepts until it is dropped.
pub(super) async fn accept(listener: Arc<Listener>, shard: Rc<Shard>) {
    let mut backoff = Backoff::default();
    // It needs a descriptor. If there is none, one may be free a moment later; the address is bound, so clients wait meanwhile.
    let (poller, mut events) = loop {
        match watch(&listener.socket) {
            Ok(poller) => break (poller, Events::single()),
            Err(error) => backoff.pause(&error).await,
        }
    };
    loop {
        match listener.socket.accept() {
            Ok(accepted) => {
                distribute(accepted, &listener.server, &shard);
                // Other tasks of this shard run even if very many clients connect.
                tokio::task::consume_budget().await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poller.take(&mut events).for_each(drop);
                if let Err(error) = poller.wait().await {
                    backoff.pause(&error).await;
                }
            }
            // The client disconnected before it was accepted.
            Err(error) if is_of_the_client(&error) => {}
            // The connection stays in the queue, or the socket is broken: trying again at once would be a busy loop.
            Err(error) => backoff.pause(&error).await,
        }
    }
}

/// A pause after a failure. The failure is logged at most once in [`LOG_INTERVAL`].
#[derive(Default)]
struct Backoff {
    logged: Option<Instant>,
}

impl Backoff {
    async fn pause(&mut self, error: &io::Error) {
        if self.logged.is_none_or(|at| at.elapsed() > LOG_INTERVAL) {
            log::warn!("cannot accept connections for now: {error}");
            self.logged = Some(Instant::now());
        }
        tokio::time::sleep(ACCEPT_BACKOFF).await;
    }
}

/// Whether accepting failed because of the next connection only. The kernel has removed it from the queue then (accept(2), "Error
/// handling").
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

/// Gives a connection to the shard that has the fewest; among equals to this one.
fn distribute(accepted: Accepted, server: &Arc<str>, shard: &Rc<Shard>) {
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
            if plan.sites.get(&**server).is_some_and(|site| site.tls.is_some()) {
                // An answer would need a handshake, which costs more than the connection would.
                return;
            }
            let refusal = Refusal {
                is_of_address: matches!(limit, Limit::Address),
                has_events: plan.sites.get(&**server).is_some_and(|site| site.has_events()),
                connections: all,
            };
            return refusal.refuse(accepted, plan.gate.count_refusal());
        }
    };
    let Some(in_shard) = mailboxes[least].connections.join(usize::MAX) else { return };
    let admission = Admission { shard: in_shard, counted };
    shard.counters().accepted.add(1);
    let acceptor = plan.sites.get(&**server).and_then(|site| site.tls.as_ref());
    let raw = match accepted {
        Accepted::Tcp(socket, address) => match acceptor.map(Acceptor::channel) {
            None => Raw::tcp(socket, address.into(), admission),
            Some(Ok(channel)) => Raw::tls(socket, address.into(), channel, admission),
            Some(Err(error)) => return log::warn!("{address} could not be served: {error}"),
        },
        Accepted::Unix(socket) => Raw::unix(socket, admission),
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
    fn only_a_disconnected_client_is_ignored_without_a_pause() {
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
