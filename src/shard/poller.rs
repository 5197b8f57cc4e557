//! The shard's own epoll set: all upgraded sockets and all that have said nothing yet, seen by the runtime as one descriptor.
//!
//! None of them costs the runtime a task, a waker or a registration, and readiness arrives in batches. Edge-triggered in both directions, registered once:
//! no system call ever changes what a socket waits for.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::table::SessionKey;
use crate::config::limits::EVENTS_PER_TURN;
use crate::hub::Slot;

/// The set.
#[derive(Debug)]
pub struct Poller {
    set: AsyncFd<Set>,
}

/// What a session's socket is watched for.
const SESSION: EpollFlags =
    EpollFlags::EPOLLIN.union(EpollFlags::EPOLLOUT).union(EpollFlags::EPOLLRDHUP).union(EpollFlags::EPOLLET);

fn data(key: SessionKey) -> u64 {
    u64::from(key.generation) << 32 | u64::from(key.slot)
}

/// Room for the readiness of one turn.
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
    /// Room for one.
    pub fn single() -> Events {
        Events(vec![EpollEvent::empty()])
    }
}

/// What a session's socket is ready for.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// Whose.
    pub key: SessionKey,
    /// There is something to read, or the end.
    pub readable: bool,
    /// The kernel takes more.
    pub writable: bool,
    /// The other side has ended: read until the end.
    pub ending: bool,
}

impl Poller {
    /// An empty set, watched by the runtime this is called in.
    pub fn new() -> io::Result<Poller> {
        let set = Set(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        // SAFETY: `Set` owns its descriptor, never gives it away, and lives inside the `AsyncFd` until that is dropped.
        #[allow(unsafe_code, reason = "the one place where a descriptor is shown to the runtime by its number")]
        let set = unsafe { AsyncFd::register_with_interest(set, Interest::READABLE)? };
        Ok(Poller { set })
    }

    /// Adds a session's socket; it leaves the set when it is closed.
    pub fn add(&self, socket: impl AsFd, key: SessionKey) -> io::Result<()> {
        Ok(self.set.get_ref().0.add(socket, EpollEvent::new(SESSION, data(key)))?)
    }

    /// Adds a socket that is to be read once it says something or ends.
    pub fn add_silent(&self, socket: impl AsFd, place: Slot) -> io::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        Ok(self.set.get_ref().0.add(socket, EpollEvent::new(flags, data(SessionKey::silent(place))))?)
    }

    /// Makes a socket of the set a session's.
    pub fn assign(&self, socket: impl AsFd, key: SessionKey) -> io::Result<()> {
        Ok(self.set.get_ref().0.modify(socket, &mut EpollEvent::new(SESSION, data(key)))?)
    }

    /// Takes a socket out of the set that is not to be closed yet.
    pub fn remove(&self, socket: impl AsFd) -> io::Result<()> {
        Ok(self.set.get_ref().0.delete(socket)?)
    }

    /// Waits until sockets are ready.
    pub async fn wait(&self) -> io::Result<()> {
        self.set.readable().await?.retain_ready();
        Ok(())
    }

    /// Takes what is ready now, at most a turn's worth.
    pub fn take<'e>(&self, events: &'e mut Events) -> impl Iterator<Item = Ready> + Clone + use<'e> {
        let mut count = 0;
        let taken = self.set.try_io(Interest::READABLE, |set| {
            count = set.0.wait(&mut events.0, EpollTimeout::ZERO)?;
            // Nothing is left: the runtime may wait for the next edge.
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
