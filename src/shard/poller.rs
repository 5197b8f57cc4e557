//! The epoll set of a shard: the sockets of its sessions, and those in the lobby. The runtime sees them as one descriptor.
//!
//! So these sockets need no task, waker or registration in the runtime, and readiness arrives in batches. A session's socket is
//! registered once, edge-triggered in both directions: no system call changes its events afterwards.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::table::SessionKey;
use crate::config::limits::EVENTS_PER_TURN;
use crate::hub::Slot;

/// The epoll set.
#[derive(Debug)]
pub struct Poller {
    set: AsyncFd<Set>,
}

/// The events of a session's socket.
const SESSION: EpollFlags =
    EpollFlags::EPOLLIN.union(EpollFlags::EPOLLOUT).union(EpollFlags::EPOLLRDHUP).union(EpollFlags::EPOLLET);

fn data(key: SessionKey) -> u64 {
    u64::from(key.generation) << 32 | u64::from(key.slot)
}

/// A buffer for the events of one turn.
#[derive(Debug)]
pub struct Events(Vec<EpollEvent>);

impl Default for Events {
    fn default() -> Events {
        Events(vec![EpollEvent::empty(); EVENTS_PER_TURN])
    }
}

#[derive(Debug)]
struct Set(Epoll);

impl AsRawFd for Set {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}

impl Events {
    /// A buffer for one event.
    pub fn single() -> Events {
        Events(vec![EpollEvent::empty()])
    }
}

/// A socket that is ready.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// The session, or the connection in the lobby.
    pub key: SessionKey,
    /// It can be read: bytes, or the end.
    pub readable: bool,
    /// The kernel accepts more bytes.
    pub writable: bool,
    /// The peer has ended its side: the socket must be read until the end.
    pub ending: bool,
}

impl Poller {
    /// An empty set, watched by the current runtime.
    pub fn new() -> io::Result<Poller> {
        let set = Set(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        // SAFETY: `Set` owns its descriptor, never gives it away, and lives inside the `AsyncFd` until that is dropped.
        #[allow(unsafe_code, reason = "the one place where a descriptor is shown to the runtime by its number")]
        let set = unsafe { AsyncFd::register_with_interest(set, Interest::READABLE)? };
        Ok(Poller { set })
    }

    /// Adds the socket of a session. The kernel removes it when it is closed.
    pub fn add(&self, socket: impl AsFd, key: SessionKey) -> io::Result<()> {
        Ok(self.set.get_ref().0.add(socket, EpollEvent::new(SESSION, data(key)))?)
    }

    /// Adds the socket of a silent connection: one that has sent nothing yet. It becomes ready when the peer sends something or
    /// ends.
    pub fn add_silent(&self, socket: impl AsFd, slot: Slot) -> io::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        Ok(self.set.get_ref().0.add(socket, EpollEvent::new(flags, data(SessionKey::silent(slot))))?)
    }

    /// Registers a socket that is in the set for a session.
    pub fn assign(&self, socket: impl AsFd, key: SessionKey) -> io::Result<()> {
        Ok(self.set.get_ref().0.modify(socket, &mut EpollEvent::new(SESSION, data(key)))?)
    }

    /// Removes a socket that stays open.
    pub fn remove(&self, socket: impl AsFd) -> io::Result<()> {
        Ok(self.set.get_ref().0.delete(socket)?)
    }

    /// Waits until sockets are ready.
    pub async fn wait(&self) -> io::Result<()> {
        self.set.readable().await?.retain_ready();
        Ok(())
    }

    /// The sockets that are ready now, at most as many as the buffer holds.
    pub fn take<'e>(&self, events: &'e mut Events) -> impl Iterator<Item = Ready> + Clone + use<'e> {
        let mut count = 0;
        let taken = self.set.try_io(Interest::READABLE, |set| {
            count = set.0.wait(&mut events.0, EpollTimeout::ZERO)?;
            // No more events: the runtime waits for the next edge.
            if count < events.0.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        if let Err(error) = taken
            && !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        {
            log::error!("epoll_wait: {error}");
        }
        events.0[..count].iter().map(|event| {
            let flags = event.events();
            let ending = flags.intersects(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
            Ready {
                key: SessionKey { slot: event.data() as u32, generation: (event.data() >> 32) as u32 },
                readable: flags.contains(EpollFlags::EPOLLIN) || ending,
                writable: flags.contains(EpollFlags::EPOLLOUT),
                ending,
            }
        })
    }
}
