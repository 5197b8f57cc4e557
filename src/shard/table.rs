//! The table of one shard: its sessions, who of them hears what, and what is staged for them this turn.
//!
//! A turn: take what sockets and other shards bring ([`Table::read_sessions`], [`Table::publish`]), stage it on sessions, then
//! [`Table::flush_some`]: one write for each session that has something. Publications to one channel that come one after the
//! other are staged as one stretch of frames, so a burst costs each subscriber one step, and one write. Each part of a turn is
//! bounded ([`Pace`]), and what is left goes on in the next one.
//!
//! The table does no waiting and reads no clock, so a simulation with sockets of its own drives it as the shard's loop does.

use std::collections::VecDeque;
use std::sync::Arc;

use slab::Slab;

use super::counters::Counters;
use super::wheel::{Timer, Wheel};
use crate::config::SessionLog;
use crate::config::limits::{CLOSE_TIMEOUT, READ_BYTES};
use crate::hub::{Channels, Kind, Publication, Slot};
use crate::session::run::{FrameNumber, Run};
use crate::session::{Arrival, Phase, Seconds, Session, Socket, Terms};
use crate::wire::deflate::{Deflater, Inflater};
use crate::wire::{Close, Framing};

mod changing;
mod flushing;
mod handing;
mod hearing;
mod reading;
mod timing;
mod work;

use changing::Sweep;
use reading::Readers;
use work::Work;

pub use changing::Rebind;
pub use work::Pace;

/// Why a session ends that has said goodbye, be it in answer to ours.
const BY_THE_CLIENT: &str = "by the client";

/// The sessions of one shard.
pub struct Table<S> {
    sessions: Slab<Session<S>>,
    channels: Channels,
    /// What is staged this turn, one run for each framing.
    runs: [Run; Framing::ALL.len()],
    /// Sessions with something published staged, in the order of staging.
    dirty: VecDeque<Slot>,
    /// Sessions with something staged for them alone: written first.
    answered: Vec<Slot>,
    /// What is staged could not all be written in one turn.
    is_flushing: bool,
    /// What is staged for sessions alone, in bytes.
    answers_bytes: usize,
    /// How often something published was staged on a session since all was written.
    staged: usize,
    /// Publications to one channel that are not staged yet.
    streak: Vec<Arc<Publication>>,
    /// What they hold of memory, in bytes.
    streak_bytes: usize,
    /// What sessions published, for the shard to relay.
    outgoing: Vec<Publication>,
    outgoing_bytes: usize,
    readers: Readers,
    /// What sessions hold of messages that are not finished, in bytes.
    unfinished_bytes: usize,
    /// What was read of sessions and is not heard yet, in bytes.
    unheard_bytes: usize,
    wheel: Wheel,
    /// Timers that are due.
    fired: VecDeque<Timer>,
    /// What is being done to all sessions, some in each turn.
    sweeps: VecDeque<Sweep>,
    pace: Pace,
    /// One buffer reads for all.
    buffer: Vec<u8>,
    deflater: Deflater,
    inflater: Inflater,
    generation: u32,
    now: Seconds,
    /// Whether publications have somewhere to go; where not, sessions that would publish are not read.
    room: bool,
    /// Why the server ends, once it does.
    ending: Option<Close>,
    /// Nobody is read, because sessions are about to be written down or just were.
    still: bool,
    counters: Arc<Counters>,
}

/// Names a session from outside: its place, and which of the sessions that had this place it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionKey {
    /// Its place.
    pub slot: Slot,
    /// Its generation.
    pub generation: u32,
}

impl SessionKey {
    /// The key of a connection that is no session yet: the place is among those.
    pub(super) fn silent(slot: Slot) -> SessionKey {
        SessionKey { slot, generation: 0 }
    }

    /// Whether it is such a key.
    pub(super) fn is_silent(self) -> bool {
        self.generation == 0
    }
}

impl<S: Socket> Table<S> {
    /// An empty table.
    pub fn new(counters: Arc<Counters>) -> Table<S> {
        Table {
            sessions: Slab::new(),
            channels: Channels::default(),
            runs: Default::default(),
            dirty: VecDeque::new(),
            answered: Vec::new(),
            is_flushing: false,
            answers_bytes: 0,
            staged: 0,
            streak: Vec::new(),
            streak_bytes: 0,
            outgoing: Vec::new(),
            outgoing_bytes: 0,
            readers: Readers::default(),
            unfinished_bytes: 0,
            unheard_bytes: 0,
            wheel: Wheel::default(),
            fired: VecDeque::new(),
            sweeps: VecDeque::new(),
            pace: Pace::default(),
            buffer: vec![0; READ_BYTES],
            deflater: Deflater::default(),
            inflater: Inflater::default(),
            generation: 0,
            now: 0,
            room: true,
            ending: None,
            still: false,
            counters,
        }
    }

    /// Begins a session: subscribes it, greets it, and hears what it said already.
    pub fn adopt(&mut self, socket: S, mut arrival: Arrival) -> SessionKey {
        // Whoever comes now does not hear what was published before.
        self.stage_streak();
        self.generation = self.generation.wrapping_add(1).max(1);
        let (channels, greeting) = (std::mem::take(&mut arrival.channels), arrival.greeting.take());
        let mut early = std::mem::take(&mut arrival.early).to_vec();
        let mut session = Session::new(socket, arrival, self.generation, self.now);
        let slot = self.sessions.vacant_key() as Slot;
        let hub = session.terms.hub_id;
        session.seats = channels.iter().map(|name| self.channels.subscribe(hub, name, slot)).collect();
        if self.logs(&session.terms, SessionLog::Connections) {
            log::info!("{} new connection on {}", session.socket.peer(), session.terms.path);
        }
        let key = SessionKey { slot, generation: session.generation };
        let ping = session.terms.hub.ping.filter(|_| session.framing.ping().is_some());
        self.sessions.insert(session);
        self.counters.sessions.add(1);
        self.counters.sessions_opened.add(1);
        self.counters.channels.set(self.channels.len() as u64);
        if let Some(ping) = ping {
            self.set_timer(slot, self.now + ping.as_secs() as Seconds);
        }
        if let Some(greeting) = greeting {
            self.say(slot, |framing, out| framing.frame_into(Kind::Text, greeting.as_bytes(), out));
        }
        if let Some(close) = self.ending.clone() {
            self.close(slot, &close);
        }
        if self.still {
            self.keep_unheard(slot, &early);
        } else if !early.is_empty() {
            self.hear(slot, &mut early, &mut Work::of(self.pace.slice));
        }
        key
    }

    /// A session, while it lasts.
    pub fn session(&self, key: SessionKey) -> Option<&Session<S>> {
        self.sessions.get(key.slot as usize).filter(|session| session.generation == key.generation)
    }

    /// Publishes to the subscribers here: at the latest when the turn is flushed.
    pub fn publish(&mut self, publication: Arc<Publication>) {
        if let Some(last) = self.streak.last()
            && (last.hub != publication.hub || last.channel != publication.channel)
        {
            self.stage_streak();
        }
        self.streak_bytes += publication.cost();
        self.streak.push(publication);
    }

    /// Stages the publications of the streak, in one stretch for each framing spoken.
    fn stage_streak(&mut self) {
        let Some(first) = self.streak.first() else { return };
        self.streak_bytes = 0;
        let mut stretches: [Option<(FrameNumber, FrameNumber)>; Framing::ALL.len()] = Default::default();
        let mut reached = [0; Framing::ALL.len()];
        for slot in self.channels.subscribers(first.hub, &first.channel) {
            self.staged += 1;
            let session = &mut self.sessions[slot as usize];
            if session.phase != Phase::Open {
                continue;
            }
            let run = &mut self.runs[session.framing as usize];
            let (start, end) = *stretches[session.framing as usize].get_or_insert_with(|| {
                let start = run.next();
                let framing = session.framing;
                let deflate_min = session.terms.hub.deflate_bytes_min;
                for publication in self.streak.iter().filter(|publication| framing.carries(publication.kind)) {
                    let (kind, payload) = (publication.kind, &publication.payload);
                    let frame = publication.framed(framing as usize, || match (framing, deflate_min) {
                        (Framing::Deflate, Some(min)) => self.deflater.frame(kind, payload, min),
                        _ => framing.frame(kind, payload),
                    });
                    run.push(frame, publication.topic);
                }
                (start, run.next())
            });
            reached[session.framing as usize] += 1;
            self.counters.delivered.add(u64::from(end - start));
            self.counters.unspeakable.add(self.streak.len() as u64 - u64::from(end - start));
            if start == end {
                continue;
            }
            if session.stage(run, start..end) {
                self.dirty.push_back(slot);
            }
        }
        for publication in self.streak.drain(..) {
            if let Some(receipt) = &publication.receipt {
                let carried = Framing::ALL.iter().filter(|framing| framing.carries(publication.kind));
                receipt.add(carried.map(|framing| reached[*framing as usize]).sum());
            }
        }
    }

    /// Stages a frame for one session alone.
    fn say(&mut self, slot: Slot, write: impl FnOnce(Framing, &mut Vec<u8>)) {
        self.stage_streak();
        let session = &mut self.sessions[slot as usize];
        let framing = session.framing;
        let run = &mut self.runs[framing as usize];
        let before = run.cost();
        let number = run.push_with(|out| write(framing, out));
        session.stage(run, number..number + 1);
        self.answers_bytes += run.cost() - before;
        // Even where something published is staged for it already: an answer does not wait until that is written to all others.
        if self.answered.last() != Some(&slot) {
            self.answered.push(slot);
        }
    }

    /// Says goodbye to a session, and waits a while for its answer.
    fn close(&mut self, slot: Slot, close: &Close) {
        let farewell = self.sessions[slot as usize].framing.farewell(close);
        self.say(slot, |_, out| out.extend_from_slice(&farewell));
        let session = &mut self.sessions[slot as usize];
        (session.phase, session.dismissed) = (Phase::Closing, Some(close.code));
        self.set_timer(slot, self.now + CLOSE_TIMEOUT.as_secs() as Seconds);
    }

    /// A slow session ends: what waits is dropped, the reason is said as soon as it reads again.
    fn disconnect(&mut self, slot: Slot, close: &Close) {
        let session = &mut self.sessions[slot as usize];
        let dropped = session.disconnect(close);
        log::info!("{} disconnected: {}", session.socket.peer(), close.reason);
        self.counters.slow.add(1);
        self.counters.dropped.add(dropped);
        self.set_timer(slot, self.now + CLOSE_TIMEOUT.as_secs() as Seconds);
    }

    /// Forgets a session; its socket closes.
    fn remove(&mut self, slot: Slot, why: &str) {
        self.stage_streak();
        let session = self.take_out(slot);
        if self.logs(&session.terms, SessionLog::Connections) {
            let peer = session.socket.peer();
            match session.dismissed {
                Some(code) if why == BY_THE_CLIENT => log::info!("{peer} connection closed: by the server, {code}"),
                Some(code) => log::info!("{peer} connection closed: {why}, {code}"),
                None => log::info!("{peer} connection closed: {why}"),
            }
        }
    }

    /// Takes a session out of the table; what it held of the shard is given back.
    fn take_out(&mut self, slot: Slot) -> Session<S> {
        let mut session = self.sessions.remove(slot as usize);
        for seat in std::mem::take(&mut session.seats) {
            self.channels.unsubscribe(seat);
        }
        self.unfinished_bytes -= session.codec.held_bytes();
        self.unheard_bytes -= session.unheard.as_ref().map_or(0, |rest| rest.len());
        self.counters.sessions.subtract(1);
        self.counters.channels.set(self.channels.len() as u64);
        session
    }

    /// Forgets a session whose socket cannot be watched.
    pub fn abandon(&mut self, key: SessionKey) {
        if self.at(key).is_some() {
            self.remove(key.slot, "abandoned");
        }
    }

    /// What sessions published since the last call.
    pub fn take_outgoing(&mut self) -> impl Iterator<Item = Publication> + use<'_, S> {
        self.outgoing_bytes = 0;
        self.outgoing.drain(..)
    }

    /// Whether sessions may publish now.
    pub fn set_room(&mut self, room: bool) {
        self.room = room;
    }

    /// Whether something is left to do that waits for nothing.
    pub fn has_work(&self) -> bool {
        self.is_flushing || self.has_readers() || !self.fired.is_empty() || !self.sweeps.is_empty()
    }

    /// Has each turn do so much at most.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    fn at(&mut self, key: SessionKey) -> Option<&mut Session<S>> {
        self.sessions.get_mut(key.slot as usize).filter(|session| session.generation == key.generation)
    }

    /// Whether a route's sessions have this logged; at level debug, all have.
    fn logs(&self, terms: &Terms, what: SessionLog) -> bool {
        terms.route.log as u8 >= what as u8 || log::log_enabled!(log::Level::Debug)
    }
}
