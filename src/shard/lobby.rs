//! Connections that have said nothing yet.
//!
//! They wait in the shard's epoll set and cost it a place in a list: no task, no timer and no buffer. What the first read brings is a
//! handshake in most cases ([`Opening`]): then the connection becomes a session at once. Anything else is served by
//! [`crate::http::connection`] in a task, with the bytes that were read.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::StatusCode;
use slab::Slab;

use super::Shard;
use super::edge::Edge;
use super::stream::Raw;
use super::wheel::{TIMER_MAX, Timer, Wheel};
use crate::config::limits::{HANDSHAKES_PER_TURN, HEADER_BYTES_MAX, REFUSAL_PATIENCE, TIMERS_PER_TURN};
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
    /// When it has waited long enough.
    due: Seconds,
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
    fn add(&mut self, socket: Raw, server: Arc<str>, now: Seconds, patience: Seconds) -> Slot {
        self.generation = self.generation.wrapping_add(1);
        let (generation, due) = (self.generation, now.saturating_add(patience));
        let slot = self.waiting.insert(Waiting { socket, server, generation, due }) as Slot;
        self.wheel.set(Timer { slot, generation, due: due.min(now + TIMER_MAX) });
        slot
    }

    /// Lets go connections that have said nothing for as long as they may, as many as a turn may.
    fn expire(&mut self, now: Seconds) {
        self.wheel.fire(now, &mut self.fired);
        let mut left = TIMERS_PER_TURN;
        while left > 0
            && let Some(timer) = self.fired.pop_front()
        {
            let place = timer.slot as usize;
            let Some(waiting) = self.waiting.get(place).filter(|waiting| waiting.generation == timer.generation) else {
                continue;
            };
            left -= 1;
            if waiting.due > now {
                self.wheel.set(Timer { due: waiting.due.min(now + TIMER_MAX), ..timer });
            } else {
                self.waiting.remove(place);
            }
        }
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
        let patience = match socket.is_reserve() {
            true => site.server.header_timeout.min(REFUSAL_PATIENCE),
            false => site.server.header_timeout,
        };
        let patience = patience.as_secs_f64().ceil() as Seconds + 1;
        let peer = socket.who();
        let slot = self.lobby.borrow_mut().add(socket, server, self.now(), patience);
        let watched = match self.lobby.borrow().waiting.get(slot as usize) {
            Some(waiting) => self.poller.add_silent(&waiting.socket, slot),
            None => Ok(()),
        };
        if let Err(error) = watched {
            log::warn!("{peer} could not be served: {error}");
            self.lobby.borrow_mut().waiting.remove(slot as usize);
        } else if *self.drain.borrow() {
            self.lobby.borrow_mut().ready.push_back(slot);
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
        let lobby = self.lobby.borrow();
        !lobby.ready.is_empty() || !lobby.fired.is_empty()
    }

    /// Looks after connections that wait too long.
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
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if *self.drain.borrow() {
                        let silent = waiting.remove(slot as usize);
                        drop(lobby);
                        self.let_wait_elsewhere(silent);
                    }
                    return;
                }
                Ok(0) | Err(_) => {
                    waiting.remove(slot as usize);
                    return;
                }
                Ok(count) => break count,
            }
        };
        let Waiting { mut socket, server, .. } = waiting.remove(slot as usize);
        let (bytes, edge) = (&buffer[..count], Edge(self.clone()));
        if !socket.is_reserve()
            && let Some((arrival, answer)) = opening.agree(bytes, &server, socket.is_on_loopback(), &edge)
        {
            let written = if answer.is_empty() { Ok(0) } else { socket.try_write_vectored(&[IoSlice::new(answer)]) };
            match written {
                Ok(count) if count == answer.len() => {
                    edge.answered(if count == 0 { StatusCode::OK } else { StatusCode::SWITCHING_PROTOCOLS });
                    drop(lobby);
                    return self.adopt(socket, arrival, |poller, socket, key| poller.assign(socket, key));
                }
                // The client has not taken earlier answers, of another process: hyper waits until it does.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The client is gone.
                _ => return,
            }
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

    /// No more is awaited: connections that have said something by now are served, the others put aside for the next process, or let go
    /// where there is none. It takes some turns.
    pub(super) fn clear_lobby(&self) {
        let mut lobby = self.lobby.borrow_mut();
        let Lobby { waiting, ready, .. } = &mut *lobby;
        ready.extend(waiting.iter().map(|(slot, _)| slot as Slot));
        self.mailbox().bell.notify_one();
    }

    fn let_wait_elsewhere(&self, Waiting { socket, server, .. }: Waiting) {
        if self.ending.get() || !self.is_awake() {
            return;
        }
        match self.poller.remove(&socket) {
            Ok(()) => self.put_aside(socket, Bytes::new(), server),
            Err(error) => log::warn!("{} could not be put aside: {error}", socket.who()),
        }
    }
}
