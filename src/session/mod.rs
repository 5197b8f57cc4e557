//! One client of a connection that stays open for messages, a WebSocket, an event stream or a poll: a state machine over a socket that is tried
//! and never waited for.
//!
//! A [`Session`] owns everything that one client needs, and every change of its state is a function here:
//!
//! - `hearing`: bytes come in, [`codec`] makes events of them, and [`speech`] says what a message asks for.
//! - `writing`: frames that were staged ([`run`]) go out. Those that the kernel does not accept wait in a bounded `outbox`.
//! - [`catch_up`]: what the client has missed comes in pages, before what is published.
//! - [`poll`]: a poll ends with its first answer.
//! - [`subscribing`]: the subscriptions that the client has asked for itself.
//! - `present`: on which channels with presence it is, and under which name.
//! - [`granted`]: what its token allows, and until when.
//! - `timing`: pings, deadlines, and [`Session::next_due`], the next moment at which something must be done.
//! - `ending`: the ways a session is closed.
//! - [`record`]: it is written for another process, and resumed there.
//!
//! The table of the shard calls these functions and passes a [`Turn`]: what the session uses of its shard, and where it puts what it
//! wants done. The table knows nothing of protocols.

mod allowance;
pub mod catch_up;
pub mod codec;
pub mod ending;
pub mod granted;
mod hearing;
mod outbox;
pub mod poll;
mod present;
pub mod record;
pub mod run;
mod socket;
pub mod speech;
pub mod subscribing;
mod timing;
pub mod turn;
pub mod work;
mod writing;

use std::fmt;
use std::num::NonZero;
use std::ops::{AddAssign, SubAssign};
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::config::{self, HubId, SessionLog};
use crate::hub::{EncodingKey, Kind, Members, Membership, Seat, Selector, Since};
use crate::wire::{Framing, Transport};
use allowance::Allowance;
use catch_up::CatchUp;
use codec::Codec;
pub use granted::Granted;
use outbox::Outbox;
use poll::{Poll, Polling};
use present::Present;
use run::Staged;
pub use socket::Socket;
use speech::Speech;
pub use turn::{Acts, Published, Tally, Turn, Wish};
pub use writing::{Flushed, Written};

/// Seconds since the shard began. Timers of sessions need nothing finer.
pub type Seconds = u32;

/// What a route and its hub allow a session. All sessions of the route share it; a reload replaces it.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// NAME in `[server.NAME]`. Together with the path it identifies the route after a reload.
    pub server: String,
    /// The route's path, as the file writes it.
    pub path: String,
    /// What kind of connections its sessions have.
    pub transport: Transport,
    /// What the log is told of the route's sessions.
    pub log: SessionLog,
    /// The protocol of the route.
    pub speech: Speech,
    /// The number of its hub, which stays the same as long as the process lives.
    pub hub_id: HubId,
    /// Its hub.
    pub hub: config::Hub,
    /// The sessions of the hub.
    pub members: Members,
    /// The numbers of the keys that sign the tokens of the route; `None`: no token is needed.
    pub token_keys: Option<Vec<u64>>,
}

/// A client whose session is about to begin: everything it needs except the socket.
#[derive(Debug)]
pub struct Arrival {
    /// How its connection is framed.
    pub framing: Framing,
    /// Whether the client may send compressed messages.
    pub inflates: bool,
    /// What it may do.
    pub terms: Arc<Terms>,
    /// Its place in the count of its hub.
    pub membership: Membership,
    /// What it is subscribed to.
    pub channels: SmallVec<[Selector; 1]>,
    /// From where it continues.
    pub since: Option<Since>,
    /// What it asks for if it is a poll, which continues from a position.
    pub poll: Option<Polling>,
    /// Its name for presence.
    pub identity: Option<Arc<str>>,
    /// What its token allows, if it showed one. Its time counts from now.
    pub granted: Option<Box<Granted>>,
    /// The channel its messages are published on.
    pub to: Arc<str>,
    /// The head of a response that lasts, which is sent before everything else.
    pub head: Bytes,
    /// The message it receives first.
    pub greeting: Option<String>,
    /// Bytes it sent behind its request.
    pub early: Bytes,
}

/// The state of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Open in both directions.
    #[default]
    Open,
    /// Our close frame is sent or waits to be sent; the client's answer is awaited.
    Closing,
    /// Both sides are closed: the session ends once everything is written.
    Leaving,
    /// Our side ends once everything is written. What the client sends is ignored until it ends its own side.
    HalfClosed,
}

/// Whether the session is about to be read, or why it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reading {
    /// Its socket has nothing more to read, as far as is known.
    #[default]
    AwaitsSocket,
    /// It is in a queue of the table.
    Queued,
    /// Its own replies wait in its outbox. It is read on when they are written, and TCP slows the client down meanwhile.
    AwaitsOutbox,
    /// It would publish, and there is no room for that.
    AwaitsLanes,
}

/// One client.
pub struct Session<S> {
    socket: S,
    codec: Codec,
    outbox: Option<Box<Outbox>>,
    state: State,
}

/// A session without its socket and its buffers.
struct State {
    phase: Phase,
    reading: Reading,
    framing: Framing,
    /// The kernel reported the client's end: the socket is read up to it.
    is_ending: bool,
    /// Distinguishes it from earlier sessions in the same place of the table.
    generation: u32,
    /// The last time something was received.
    heard: Seconds,
    /// When a ping was sent that is not answered yet.
    pinged: Option<NonZero<Seconds>>,
    /// When a session that is not open ends, at the latest. That of a poll is set while it is open.
    deadline: Seconds,
    /// When its timer fires.
    timer: Seconds,
    /// When the client is told a position, if it receives nothing before. That is the answer to a poll. `MAX`: never.
    position_due: Seconds,
    allowance: Allowance,
    /// The run of its encoding, as the table numbers them.
    run: u32,
    staged: Staged,
    terms: Arc<Terms>,
    to: Arc<str>,
    /// Releases its place in the count of its hub.
    _membership: Membership,
    seats: SmallVec<[Seat; 1]>,
    cold: Option<Box<Cold>>,
}

/// The state that most sessions never have.
#[derive(Debug, Default)]
struct Cold {
    /// Bytes that were read and not decoded yet.
    unheard: Box<[u8]>,
    /// The code of the close frame that was sent without being asked for.
    dismissed: Option<u16>,
    /// The subscriptions that begin when the client has received what it missed, in their order.
    catch_ups: Vec<CatchUp>,
    /// The number of the last question to the owner of the hub.
    questions: u32,
    /// What a poll asked for.
    poll: Option<Poll>,
    /// The subscriptions that the client has asked for itself, without those that have not begun.
    wished_seats: Vec<Seat>,
    /// Its name for presence, and where it is present.
    present: Present,
    /// What its token allows.
    granted: Option<Box<Granted>>,
}

/// How much memory a session holds beside its outbox, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// In its decoder: a message that is not finished.
    pub unfinished: usize,
    /// Bytes that were read and not decoded yet.
    pub unheard: usize,
}

impl AddAssign for Held {
    fn add_assign(&mut self, more: Held) {
        self.unfinished += more.unfinished;
        self.unheard += more.unheard;
    }
}

impl SubAssign for Held {
    fn sub_assign(&mut self, less: Held) {
        self.unfinished -= less.unfinished;
        self.unheard -= less.unheard;
    }
}

impl<S: Socket> Session<S> {
    /// A new session, not subscribed to anything yet.
    pub fn new(socket: S, arrival: Arrival, generation: u32, now: Seconds) -> Self {
        let Arrival { framing, inflates, terms, membership, to, identity, granted, .. } = arrival;
        let mut state = State::new(framing, terms, to, membership, generation, now);
        state.set_identity(identity);
        state.begin_granted(granted, now);
        Session { socket, codec: Codec::new(framing, inflates), outbox: None, state }
    }

    /// Its socket. Only the session writes to it.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// The state of the connection.
    pub fn phase(&self) -> Phase {
        self.state.phase
    }

    /// Distinguishes it from earlier sessions in the same place of the table.
    pub fn generation(&self) -> u32 {
        self.state.generation
    }

    /// What it may do.
    pub fn terms(&self) -> &Arc<Terms> {
        &self.state.terms
    }

    /// Gives it other terms.
    pub fn set_terms(&mut self, terms: Arc<Terms>) {
        self.state.terms = terms;
    }

    /// How its connection is framed.
    pub fn framing(&self) -> Framing {
        self.state.framing
    }

    /// Whether it can receive a message of this kind.
    pub fn carries(&self, kind: Kind) -> bool {
        self.state.terms.speech.carries(self.state.framing, kind)
    }

    /// Names the encoding of the publications it receives.
    pub fn encoding(&self) -> EncodingKey {
        self.state.terms.speech.key(self.state.framing)
    }

    /// The run of that encoding, as the table numbers them.
    pub fn run(&self) -> u32 {
        self.state.run
    }

    /// Sets the run. Nothing may be staged.
    pub fn set_run(&mut self, run: u32) {
        debug_assert!(self.state.staged.is_empty(), "what is staged is in another run");
        self.state.run = run;
    }

    /// Its subscriptions, without those that the client has asked for itself.
    pub fn seats(&self) -> &[Seat] {
        &self.state.seats
    }

    /// Takes all its subscriptions.
    pub fn take_seats(&mut self) -> impl Iterator<Item = Seat> + use<S> {
        let asked = self.state.cold.as_mut().map(|cold| std::mem::take(&mut cold.wished_seats));
        std::mem::take(&mut self.state.seats).into_iter().chain(asked.into_iter().flatten())
    }

    /// Adds subscriptions.
    pub fn add_seats(&mut self, seats: SmallVec<[Seat; 1]>) {
        self.state.seats.extend(seats);
    }

    /// When a ping was sent that is not answered yet.
    pub fn pinged(&self) -> Option<Seconds> {
        self.state.pinged.map(NonZero::get)
    }

    /// The memory it holds beside its outbox.
    pub fn held(&self) -> Held {
        let unheard = self.state.unheard().len();
        Held { unfinished: self.codec.held_bytes(), unheard }
    }
}

impl State {
    fn new(
        framing: Framing,
        terms: Arc<Terms>,
        to: Arc<str>,
        membership: Membership,
        generation: u32,
        now: Seconds,
    ) -> State {
        State {
            phase: Phase::Open,
            reading: Reading::default(),
            framing,
            is_ending: false,
            generation,
            heard: now,
            pinged: None,
            deadline: 0,
            timer: Seconds::MAX,
            position_due: Seconds::MAX,
            allowance: Allowance::new(&terms.hub),
            run: 0,
            staged: Staged::default(),
            terms,
            to,
            _membership: membership,
            seats: SmallVec::new(),
            cold: None,
        }
    }

    /// Bytes that were read and not decoded yet.
    fn unheard(&self) -> &[u8] {
        self.cold.as_ref().map_or(&[], |cold| &cold.unheard)
    }

    /// Sets these bytes; those that were there before.
    fn replace_unheard(&mut self, unheard: Box<[u8]>) -> Box<[u8]> {
        if unheard.is_empty() && self.cold.is_none() {
            return unheard;
        }
        let cold = self.cold.get_or_insert_default();
        let before = std::mem::replace(&mut cold.unheard, unheard);
        self.shrink_cold();
        before
    }

    /// Drops the cold state if nothing is in it.
    fn shrink_cold(&mut self) {
        let is_used = |cold: &Cold| {
            let Cold { unheard, dismissed, catch_ups, wished_seats, poll, present, granted, .. } = cold;
            let has_bytes = !unheard.is_empty() || dismissed.is_some();
            let is_behind = !catch_ups.is_empty() || poll.is_some() || granted.is_some();
            has_bytes || is_behind || !wished_seats.is_empty() || !present.is_empty()
        };
        if !self.cold.as_deref().is_some_and(is_used) {
            self.cold = None;
        }
    }
}

impl<S> fmt::Debug for Session<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { framing, phase, .. } = &self.state;
        f.debug_struct("Session").field("framing", framing).field("phase", phase).finish_non_exhaustive()
    }
}
