//! The shard's own epoll set: all upgraded sockets, seen by the runtime as one descriptor.
//!
//! A session costs the runtime no task, waker or registration, and readiness arrives in batches. Edge-triggered in both directions, registered once:
//! no system call ever changes what a socket waits for.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::table::SessionKey;
use crate::config::limits::EVENTS_PER_TURN;

/// The set.
#[derive(Debug)]
pub struct Poller {
    set: AsyncFd<Set>,
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
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        let data = u64::from(key.generation) << 32 | u64::from(key.slot);
        Ok(self.set.get_ref().0.add(socket, EpollEvent::new(flags, data))?)
    }

    /// Waits until sockets are ready.
    pub async fn wait(&self) -> io::Result<()> {
        self.set.readable().await?.retain_ready();
        Ok(())
    }

    /// Takes what is ready now, at most a turn's worth.
    pub fn take<'e>(&self, events: &'e mut Events) -> impl Iterator<Item = Ready> + use<'e> {
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
