//! The lobby: connections that have sent nothing yet.
//!
//! They wait in the epoll set of the shard. Each costs an entry in a list, but no task, no timer of the runtime and no buffer. The
//! first read usually brings a WebSocket handshake ([`Opening`]): then the connection becomes a session at once. Otherwise
//! [`crate::http::connection`] serves the connection in a task, with the bytes that were read.

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
use super::table::SessionKey;
use super::wheel::{TIMER_MAX, Timer, Wheel};
use crate::config::limits::{
    HANDSHAKES_PER_TURN, HEADER_BYTES_MAX, REFUSAL_PATIENCE, TIMERS_PER_TURN, TLS_HANDSHAKE_TIMEOUT,
    TLS_HANDSHAKE_WEIGHT,
};
use crate::http::Backend;
use crate::http::opening::Opening;
use crate::hub::Slot;
use crate::session::{Seconds, Socket};

/// The connections of a shard that have sent nothing yet.
#[derive(Debug)]
pub(super) struct Lobby {
    waiting: Slab<Waiting>,
    /// When each one times out.
    wheel: Wheel,
    fired: VecDeque<Timer>,
    /// Those that have sent something or have ended.
    ready: VecDeque<Slot>,
    /// Distinguishes a connection from an earlier one in the same slot.
    generation: u32,
    opening: Opening,
    /// The read buffer of all connections.
    buffer: Vec<u8>,
}

/// A connection that has sent nothing yet.
#[derive(Debug)]
struct Waiting {
    socket: Raw,
    /// The server whose address it connected to.
    server: Arc<str>,
    generation: u32,
    /// When it times out.
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
    fn add(&mut self, socket: Raw, server: Arc<str>, now: Seconds, timeout: Seconds) -> Slot {
        self.generation = self.generation.wrapping_add(1);
        let (generation, due) = (self.generation, now.saturating_add(timeout));
        let slot = self.waiting.insert(Waiting { socket, server, generation, due }) as Slot;
        self.wheel.set(Timer { slot, generation, due: due.min(now + TIMER_MAX) });
        slot
    }

    /// Closes connections that have timed out, at most as many as a turn may.
    fn expire(&mut self, now: Seconds) {
        self.wheel.fire(now, &mut self.fired);
        let mut left = TIMERS_PER_TURN;
        while left > 0
            && let Some(timer) = self.fired.pop_front()
        {
            let slot = timer.slot as usize;
            let Some(waiting) = self.waiting.get(slot).filter(|waiting| waiting.generation == timer.generation) else {
                continue;
            };
            left -= 1;
            if waiting.due > now {
                self.wheel.set(Timer { due: waiting.due.min(now + TIMER_MAX), ..timer });
            } else {
                self.waiting.remove(slot);
            }
        }
    }
}

impl Shard {
    /// Serves a connection until it ends or upgrades. It waits in the lobby until it sends something, unless bytes of it (`early`)
    /// were read before.
    pub(super) fn serve(self: &Rc<Self>, socket: Raw, early: Bytes, server: Arc<str>) {
        if !early.is_empty() {
            return self.serve_at_once(socket, early, server);
        }
        let Some(site) = self.plan.borrow().sites.get(&*server).cloned() else { return };
        // One more second, because the present one is not complete.
        let timeout = match socket.is_reserve() {
            true => site.server.header_timeout.min(REFUSAL_PATIENCE),
            false if site.tls.is_some() => site.server.header_timeout.min(TLS_HANDSHAKE_TIMEOUT),
            false => site.server.header_timeout,
        };
        let timeout = timeout.as_secs_f64().ceil() as Seconds + 1;
        let peer = socket.remote();
        let slot = self.lobby.borrow_mut().add(socket, server, self.now(), timeout);
        let watched = match self.lobby.borrow().waiting.get(slot as usize) {
            // It may have to write more of its handshake.
            Some(waiting) if waiting.socket.is_handshaking() => {
                self.poller.add(&waiting.socket, SessionKey::silent(slot))
            }
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

    /// Reads connections that have sent something, at most as many as a turn may. `ready` are those that the poller reports now.
    pub(super) fn read_lobby(self: &Rc<Self>, ready: impl Iterator<Item = Slot>) {
        self.lobby.borrow_mut().ready.extend(ready);
        let mut left = HANDSHAKES_PER_TURN;
        while left > 0 {
            let Some(slot) = self.lobby.borrow_mut().ready.pop_front() else { return };
            let is_handshaking = |waiting: &Waiting| waiting.socket.is_handshaking();
            let is_heavy = self.lobby.borrow().waiting.get(slot as usize).is_some_and(is_handshaking);
            left = left.saturating_sub(if is_heavy { TLS_HANDSHAKE_WEIGHT } else { 1 });
            self.read_first(slot);
        }
    }

    /// Whether connections of the lobby wait for the next turn.
    pub(super) fn has_ready_connections(&self) -> bool {
        let lobby = self.lobby.borrow();
        !lobby.ready.is_empty() || !lobby.fired.is_empty()
    }

    /// Closes connections that have timed out.
    pub(super) fn expire(&self) {
        self.lobby.borrow_mut().expire(self.now());
    }

    /// Reads a connection for the first time, after it has sent something or has ended.
    fn read_first(self: &Rc<Self>, slot: Slot) {
        let mut lobby = self.lobby.borrow_mut();
        let Lobby { waiting, opening, buffer, .. } = &mut *lobby;
        // The report may be for an earlier connection in the same slot.
        let Some(silent) = waiting.get_mut(slot as usize) else { return };
        let count = loop {
            match silent.socket.try_read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if *self.drain.borrow() {
                        let silent = waiting.remove(slot as usize);
                        drop(lobby);
                        self.put_aside_or_drop(silent);
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
                    opening.note(|| socket.remote().to_string());
                    edge.answered(if count == 0 { StatusCode::OK } else { StatusCode::SWITCHING_PROTOCOLS });
                    drop(lobby);
                    return self.adopt(socket, arrival, |poller, socket, key| poller.assign(socket, key));
                }
                // The client has not read earlier answers, of another process: hyper waits until it does.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The client has disconnected.
                _ => return,
            }
        }
        let early = Bytes::copy_from_slice(bytes);
        drop(lobby);
        match self.poller.remove(&socket) {
            Ok(()) => self.serve_at_once(socket, early, server),
            Err(error) => log::warn!("{} could not be served: {error}", socket.remote()),
        }
    }

    fn serve_at_once(self: &Rc<Self>, socket: Raw, early: Bytes, server: Arc<str>) {
        let peer = socket.remote();
        match socket.into_stream() {
            Ok(stream) => self.serve_http(stream, early, server),
            Err(error) => log::warn!("{peer} could not be served: {error}"),
        }
    }

    /// Puts a connection without a request in flight aside: it is kept for the next process, with the bytes that were read of its
    /// next request.
    pub(super) fn put_aside(&self, mut socket: Raw, early: Bytes, server: Arc<str>) {
        if !socket.can_be_given_away() {
            return socket.shutdown_write();
        }
        self.idle_connections.borrow_mut().push((socket, early, server));
        self.mailbox().aside.fetch_add(1, Ordering::Relaxed);
    }

    /// Empties the lobby over the next turns: connections that have sent something by now are served. The others are put aside for
    /// the next process, or closed if there is none.
    pub(super) fn clear_lobby(&self) {
        let mut lobby = self.lobby.borrow_mut();
        let Lobby { waiting, ready, .. } = &mut *lobby;
        ready.extend(waiting.iter().map(|(slot, _)| slot as Slot));
        self.mailbox().bell.notify_one();
    }

    fn put_aside_or_drop(&self, Waiting { socket, server, .. }: Waiting) {
        if self.ending.get() || self.is_packed() {
            return;
        }
        match self.poller.remove(&socket) {
            Ok(()) => self.put_aside(socket, Bytes::new(), server),
            Err(error) => log::warn!("{} could not be kept for the next process: {error}", socket.remote()),
        }
    }
}
