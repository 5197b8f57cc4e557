//! The sessions of one shard, the channels they are subscribed to, and what they do in a turn.
//!
//! A turn: take what sockets and other shards bring ([`Table::read_sessions`], [`Table::publish`]), stage frames on sessions, then
//! [`Table::flush_some`]: one write for each session that has something staged. Publications to one channel that follow each other are
//! staged together, so a burst costs each subscriber one step and one write. Each part of a turn is limited ([`Pace`]); the rest
//! is done in the next one.
//!
//! The table is made of `staging` (frames of this turn), `readers` (whose turn it is to be read), `timers`, and the sweeps of
//! `changing`. `attending` notes who comes to channels and goes. It executes what sessions want done (`Table::act`), and knows nothing of protocols. It does not wait and reads no
//! clock, so a simulation drives it exactly as the shard's loop does.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use slab::Slab;
use smallvec::SmallVec;

use super::counters::Counters;
use crate::config::limits::READ_BYTES;
use crate::config::{HubId, SessionLog};
use crate::hub::{Channels, Message, Position, Publication, Seat, Selector, Slot};
use crate::session::work::Work;
use crate::session::{Acts, Arrival, Held, Phase, Published, Seconds, Session, Socket, Tally, Turn, Wish};
use crate::wire::Close;
use crate::wire::deflate::Inflater;

mod attending;
mod catching_up;
mod changing;
mod flushing;
mod handing;
mod pace;
mod reading;
mod staging;
mod subscribing;
mod timing;

use changing::Sweep;
use reading::Readers;
use staging::Staging;
use timing::Timers;

pub use attending::Visit;
pub use changing::Rebind;
pub use pace::Pace;

/// The sessions of one shard.
pub struct Table<S> {
    sessions: Slab<Session<S>>,
    channels: Channels,
    staging: Staging,
    readers: Readers,
    timers: Timers,
    sweeps: VecDeque<Sweep>,
    /// What sessions published, until the shard relays it.
    published: Published,
    /// What the client that is read wants changed of its subscriptions.
    wishes: Vec<Wish>,
    /// Sessions that came to channels with presence, or went, until the shard relays it.
    visits: Vec<Visit>,
    /// Sessions that may ask for what they have missed.
    asking: Vec<SessionKey>,
    /// The last position of each hub with history that has passed here.
    frontiers: HashMap<HubId, Position>,
    /// What all sessions hold together.
    held: Held,
    counters: Arc<Counters>,
    pace: Pace,
    /// One buffer reads for all sessions.
    buffer: Vec<u8>,
    inflater: Inflater,
    generation: u32,
    now: Seconds,
    /// Why the server ends, once it does.
    ending: Option<Close>,
}

/// Identifies a session from outside: its place, and which of the sessions that had this place it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionKey {
    /// Its place.
    pub slot: Slot,
    /// Its generation.
    pub generation: u32,
}

impl SessionKey {
    /// The key of a connection that has sent nothing yet. Its place is one of the lobby.
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
            staging: Staging::default(),
            readers: Readers::default(),
            timers: Timers::default(),
            sweeps: VecDeque::new(),
            published: Published::default(),
            wishes: Vec::new(),
            visits: Vec::new(),
            asking: Vec::new(),
            frontiers: HashMap::new(),
            held: Held::default(),
            counters,
            pace: Pace::default(),
            buffer: vec![0; READ_BYTES],
            inflater: Inflater::default(),
            generation: 0,
            now: 0,
            ending: None,
        }
    }

    /// Begins a session: subscribes it, greets it, and decodes what it has sent already.
    pub fn adopt(&mut self, socket: S, mut arrival: Arrival) -> SessionKey {
        let (channels, head) = (std::mem::take(&mut arrival.channels), std::mem::take(&mut arrival.head));
        let polling = arrival.poll.take();
        let (greeting, early) = (arrival.greeting.take(), std::mem::take(&mut arrival.early));
        let arrival_since = arrival.since.take();
        let session = Session::new(socket, arrival, self.next_generation(), self.now);
        if session.logs(SessionLog::Connections) {
            log::info!("{} new connection on {}", session.socket().peer(), session.terms().path);
        }
        let since = arrival_since.filter(|_| session.terms().hub.history.is_some() || polling.is_some());
        let now = if since.is_some() { &[][..] } else { &channels[..] };
        let key = self.seat(session, now);
        self.counters.sessions_opened.add(1);
        let mut work = Work::of(self.pace.slice);
        if let Some(polling) = polling {
            self.sessions[key.slot as usize].begin_poll(polling, head, self.now);
        } else if !head.is_empty() {
            self.sessions[key.slot as usize].queue_head(head);
            self.writable(key);
            if self.at(key).is_none() {
                return key;
            }
        }
        match since {
            Some(since) => self.catch_up(key, channels.into_iter().collect(), since),
            None => self.owe_position(key.slot),
        }
        if let Some(greeting) = greeting {
            self.act(key.slot, &mut work, |session, turn| session.greet(&greeting, &mut turn.acts));
        }
        if let Some(close) = self.ending.clone() {
            self.close(key.slot, &close);
        }
        if self.readers.is_paused() {
            self.act(key.slot, &mut work, |session, _| session.keep_unheard(&early));
            self.read_rest_later(key.slot);
        } else if !early.is_empty() {
            self.hear(key.slot, &mut early.to_vec(), &mut work);
        }
        key
    }

    fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1).max(1);
        self.generation
    }

    /// Gives a session its place, its subscriptions and its run.
    fn seat(&mut self, mut session: Session<S>, channels: &[Selector]) -> SessionKey {
        let slot = self.sessions.vacant_key() as Slot;
        let seats = self.subscribe(session.terms().hub_id, channels, slot);
        session.add_seats(seats);
        session.set_run(self.staging.join(session.encoding()));
        let key = SessionKey { slot, generation: session.generation() };
        self.held += session.held();
        self.sessions.insert(session);
        self.counters.sessions.add(1);
        self.counters.channels.set(self.channels.len() as u64);
        self.note_coming(slot);
        self.arm(slot);
        key
    }

    /// Subscribes to channels.
    fn subscribe(&mut self, hub: HubId, channels: &[Selector], slot: Slot) -> SmallVec<[Seat; 1]> {
        // It does not receive what was published before.
        self.stage_streak();
        channels.iter().map(|selector| self.channels.subscribe(hub, selector, slot)).collect()
    }

    /// Has a session make a transition, and does what comes of it: its replies are flushed in this turn, its timer is set, what it
    /// published waits to be relayed, everything is counted, and subscriptions begin and end as its client has asked.
    fn act<R>(
        &mut self,
        slot: Slot,
        work: &mut Work,
        transition: impl FnOnce(&mut Session<S>, &mut Turn<'_>) -> R,
    ) -> R {
        let session = &mut self.sessions[slot as usize];
        let (held, staged, phase) = (session.held(), session.staged(), session.phase());
        let replies_left = self.staging.replies_left();
        let run = self.staging.run(session.run());
        let cost = run.cost();
        let mut tally = Tally::default();
        let mut turn = Turn {
            inflater: &mut self.inflater,
            acts: Acts {
                now: self.now,
                run_cost_max: cost + replies_left,
                run,
                published: &mut self.published,
                wishes: &mut self.wishes,
                work,
                tally: &mut tally,
            },
        };
        let result = transition(session, &mut turn);
        let more = turn.acts.run.cost() - cost;
        self.staging.replies_cost += more;
        self.held -= held;
        self.held += session.held();
        let ends = session.phase() != phase && matches!(session.phase(), Phase::Leaving | Phase::HalfClosed);
        if session.staged() != staged || ends {
            // A session that ends is looked at when the turn is flushed, even if it has nothing to write.
            self.staging.has_reply(slot);
        }
        self.arm(slot);
        if tally != Tally::default() {
            self.counters.add(&tally);
        }
        if !self.wishes.is_empty() {
            self.grant_wishes(slot);
        }
        result
    }

    /// A session, while it lasts.
    pub fn session(&self, key: SessionKey) -> Option<&Session<S>> {
        self.sessions.get(key.slot as usize).filter(|session| session.generation() == key.generation)
    }

    /// Publishes to the subscribers of this shard: at the latest when the turn is flushed.
    pub fn publish(&mut self, publication: Arc<Publication>) {
        if let Some(position) = publication.position {
            self.frontiers.insert(publication.message.hub, position);
        }
        if !self.staging.continues_streak(&publication) {
            self.stage_streak();
        }
        self.staging.add(publication);
    }

    /// Stages the publications that follow each other on one channel.
    fn stage_streak(&mut self) {
        self.staging.stage_streak(&mut self.sessions, &self.channels, &self.counters);
    }

    /// Closes a session if it is open.
    fn close(&mut self, slot: Slot, close: &Close) {
        // It still receives what was published before.
        self.stage_streak();
        let position = self.frontier(self.sessions[slot as usize].terms().hub_id);
        self.act(slot, &mut Work::default(), |session, turn| session.send_away(close, position, &mut turn.acts));
    }

    /// Forgets a session; its socket closes.
    fn remove(&mut self, slot: Slot, why: &str) {
        let session = self.take_out(slot);
        if session.logs(SessionLog::Connections) {
            log::info!("{}", session.epitaph(why));
        }
    }

    /// Takes a session out of the table, and ends its subscriptions.
    fn take_out(&mut self, slot: Slot) -> Session<S> {
        self.stage_streak();
        self.note_going(slot);
        let mut session = self.sessions.remove(slot as usize);
        for seat in session.take_seats() {
            self.channels.unsubscribe(seat);
        }
        self.staging.leave(session.run());
        self.held -= session.held();
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
    pub fn take_published(&mut self) -> impl Iterator<Item = Message> + use<'_, S> {
        self.published.drain()
    }

    /// Whether something is left to do that waits for nothing.
    pub fn has_work(&self) -> bool {
        let is_busy = self.is_flushing() || self.readers.has_some() || self.timers.have_fired();
        is_busy || !self.sweeps.is_empty() || !self.visits.is_empty()
    }

    /// The time.
    pub fn now(&self) -> Seconds {
        self.now
    }

    /// Sets how much each turn does at most.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// How much each turn does at most.
    pub fn pace(&self) -> Pace {
        self.pace
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
        self.sessions.get_mut(key.slot as usize).filter(|session| session.generation() == key.generation)
    }
}
