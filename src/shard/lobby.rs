//! Connections that have said nothing yet.
//!
//! They wait in the shard's epoll set and cost it a place in a list: no task, no timer and no buffer. What the first read brings is a
//! handshake in most cases ([`Opening`]): then the connection becomes a session at once. Anything else is served by
//! [`crate::http::connection`] in a task, with the bytes that were read.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::StatusCode;
use slab::Slab;

use super::Shard;
use super::edge::Edge;
use super::stream::Raw;
use super::wheel::{Timer, Wheel};
use crate::config::limits::{HANDSHAKES_PER_TURN, HEADER_BYTES_MAX};
use crate::http::Backend;
use crate::http::opening::Opening;
use crate::hub::Slot;
use crate::session::{Seconds, Socket};

/// The connections.
#[derive(Debug)]
pub(super) struct Lobby {
    waiting: Slab<Waiting>,
    /// When each has waited long enough.
    wheel: Wheel,
    fired: VecDeque<Timer>,
    /// Places of those that have said something, or have ended.
    ready: VecDeque<Slot>,
    /// Tells a connection apart from an earlier one in its place.
    generation: u32,
    opening: Opening,
    /// One buffer reads for all.
    buffer: Vec<u8>,
}

/// One of them.
#[derive(Debug)]
struct Waiting {
    socket: Raw,
    /// The server whose address it came to.
    server: Arc<str>,
    generation: u32,
}

impl Default for Lobby {
    fn default() -> Lobby {
        Lobby {
            waiting: Slab::new(),
            wheel: Wheel::default(),
            fired: VecDeque::new(),
            ready: VecDeque::new(),
            generation: 0,
            opening: Opening::default(),
            buffer: vec![0; HEADER_BYTES_MAX],
        }
    }
}

impl Lobby {
    fn add(&mut self, socket: Raw, server: Arc<str>, due: Seconds) -> Slot {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let slot = self.waiting.insert(Waiting { socket, server, generation }) as Slot;
        self.wheel.set(Timer { slot, generation, due });
        slot
    }

    /// Lets go those who have said nothing for as long as they may.
    fn expire(&mut self, now: Seconds) {
        let mut fired = mem::take(&mut self.fired);
        self.wheel.fire(now, &mut fired);
        for timer in fired.drain(..) {
            let place = timer.slot as usize;
            if self.waiting.get(place).is_some_and(|waiting| waiting.generation == timer.generation) {
                self.waiting.remove(place);
            }
        }
        self.fired = fired;
    }
}

impl Shard {
    /// Serves a connection until it ends or upgrades, from when it says something on; `early` is what was read of it before.
    pub(super) fn serve(self: &Rc<Self>, socket: Raw, early: Bytes, server: Arc<str>) {
        if !early.is_empty() {
            return self.serve_at_once(socket, early, server);
        }
        let Some(site) = self.plan.borrow().sites.get(&*server).cloned() else { return };
        // A second that has begun is none.
        let patience = site.server.header_timeout.as_secs_f64().ceil() as Seconds + 1;
        let due = self.now().saturating_add(patience);
        let peer = socket.who();
        let slot = self.lobby.borrow_mut().add(socket, server, due);
        let watched = match self.lobby.borrow().waiting.get(slot as usize) {
            Some(waiting) => self.poller.add_silent(&waiting.socket, slot),
            None => Ok(()),
        };
        if let Err(error) = watched {
            log::warn!("{peer} could not be served: {error}");
            self.lobby.borrow_mut().waiting.remove(slot as usize);
        } else if *self.drain.borrow() {
            self.clear_lobby();
        }
    }

    /// Serves connections that have said something, as many as a turn may; `ready` are the places of more of them.
    pub(super) fn hear_some(self: &Rc<Self>, ready: impl Iterator<Item = Slot>) {
        self.lobby.borrow_mut().ready.extend(ready);
        for _ in 0..HANDSHAKES_PER_TURN {
            let Some(slot) = self.lobby.borrow_mut().ready.pop_front() else { return };
            self.hear(slot);
        }
    }

    /// Whether connections that have said something wait for a turn.
    pub(super) fn has_openings(&self) -> bool {
        !self.lobby.borrow().ready.is_empty()
    }

    /// Looks after those who wait too long.
    pub(super) fn expire(&self) {
        self.lobby.borrow_mut().expire(self.now());
    }

    /// Reads a connection that has said something, or has ended.
    fn hear(self: &Rc<Self>, slot: Slot) {
        let mut lobby = self.lobby.borrow_mut();
        let Lobby { waiting, opening, buffer, .. } = &mut *lobby;
        // What is said of a place may be of the one that was there before.
        let Some(silent) = waiting.get_mut(slot as usize) else { return };
        let count = loop {
            match silent.socket.try_read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => {
                    waiting.remove(slot as usize);
                    return;
                }
                Ok(count) => break count,
            }
        };
        let Waiting { mut socket, server, .. } = waiting.remove(slot as usize);
        let (bytes, edge) = (&buffer[..count], Edge(self.clone()));
        let is_reserve = socket.is_reserve();
        if let Some((arrival, answer)) =
            opening.agree(bytes, &server, socket.is_on_loopback(), &edge).filter(|_| !is_reserve)
        {
            edge.answered(StatusCode::SWITCHING_PROTOCOLS);
            // A socket that was never written to takes it whole, or is gone.
            if socket.try_write_vectored(&[IoSlice::new(answer)]).is_ok_and(|count| count == answer.len()) {
                drop(lobby);
                self.adopt(socket, arrival, |poller, socket, key| poller.assign(socket, key));
            }
            return;
        }
        let early = Bytes::copy_from_slice(bytes);
        drop(lobby);
        match self.poller.remove(&socket) {
            Ok(()) => self.serve_at_once(socket, early, server),
            Err(error) => log::warn!("{} could not be served: {error}", socket.who()),
        }
    }

    fn serve_at_once(self: &Rc<Self>, socket: Raw, early: Bytes, server: Arc<str>) {
        let peer = socket.who();
        match socket.into_stream() {
            Ok(stream) => self.speak_http(stream, early, server),
            Err(error) => log::warn!("{peer} could not be served: {error}"),
        }
    }

    /// Keeps a connection without a request in flight for the next process, with what was read of its next one.
    pub(super) fn put_aside(&self, socket: Raw, early: Bytes, server: Arc<str>) {
        self.aside.borrow_mut().push((socket, early, server));
        self.mailbox().aside.fetch_add(1, Ordering::Relaxed);
    }

    /// No more is awaited: who has said something by now is served; who has not is put aside for the next process, or let go where
    /// there is none.
    pub(super) fn clear_lobby(self: &Rc<Self>) {
        let slots: Vec<Slot> = self.lobby.borrow().waiting.iter().map(|(slot, _)| slot as Slot).collect();
        slots.into_iter().for_each(|slot| self.hear(slot));
        let silent = mem::take(&mut self.lobby.borrow_mut().waiting);
        if self.ending.get() || !self.is_awake() {
            return;
        }
        for (_, Waiting { socket, server, .. }) in silent {
            match self.poller.remove(&socket) {
                Ok(()) => self.put_aside(socket, Bytes::new(), server),
                Err(error) => log::warn!("{} could not be put aside: {error}", socket.who()),
            }
        }
    }
}
