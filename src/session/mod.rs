//! One client after its upgrade: a state machine over a socket that is only ever tried, never waited for.
//!
//! In comes what [`codec`] makes of the shard's read buffer; out goes what is staged ([`run`]), and what the kernel refuses waits in a
//! bounded `outbox`. The table of the shard that owns the session decides what events mean; the session knows how it
//! speaks ([`Framing`]), what it may hold ([`Terms`]) and how it ends ([`Phase`]). Written down ([`record`]) it goes on in another
//! process.

pub mod codec;
mod outbox;
pub mod record;
pub mod run;

use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::config::limits::ALLOWANCE_SECONDS;
use crate::config::{self, HubId};
use crate::hub::{Members, Membership, Seat};
use crate::wire::rfc6455::{HEADER_BYTES_MAX, MASK_BYTES};
use crate::wire::{Close, Framing};
use codec::Codec;
use outbox::{Outbox, Queued};
use run::{FrameNumber, Run, Staged, Waiting};

/// The kernel takes no more slices in one write (`IOV_MAX`), and after that would not tell when it takes the rest.
const SLICES_PER_WRITE: usize = 1024;

/// Seconds since the shard began; coarse on purpose, the timers of sessions need no more.
pub type Seconds = u32;

/// The socket of a session: tried, never waited for.
pub trait Socket {
    /// Reads what is there; `WouldBlock` if nothing is.
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes what the kernel takes; `WouldBlock` if it takes nothing.
    fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Tells the client that nothing more comes.
    fn shutdown_write(&mut self);
    /// Who is at the other end, as the log names it.
    fn peer(&self) -> String;
}

/// What a route and its hub allow a session, shared by all sessions of the route and swapped when the configuration is reloaded.
#[derive(Debug, PartialEq)]
pub struct Terms {
    /// NAME in `[server.NAME]`; with the route's path, what finds the route again after a reload.
    pub server: String,
    /// The route's path, as the file writes it.
    pub path: String,
    /// The route.
    pub route: config::WebSocket,
    /// Its hub's number, the same for as long as the process lives.
    pub hub_id: HubId,
    /// Its hub.
    pub hub: config::Hub,
    /// Who is on the hub.
    pub members: Members,
}

/// A client that has just been upgraded: everything its session needs but the socket.
#[derive(Debug)]
pub struct Arrival {
    /// What it speaks.
    pub framing: Framing,
    /// Whether its messages may be compressed.
    pub inflates: bool,
    /// What it may.
    pub terms: Arc<Terms>,
    /// Its place in the count of its hub.
    pub membership: Membership,
    /// The channels it is subscribed to.
    pub channels: SmallVec<[Arc<str>; 1]>,
    /// The channel its broadcasts go to.
    pub to: Arc<str>,
    /// What it is told first.
    pub greeting: Option<String>,
    /// Bytes it sent behind its request.
    pub early: Bytes,
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Open in both directions.
    #[default]
    Open,
    /// We said goodbye and wait for the client's answer.
    Closing,
    /// Everything is said: the socket goes once it is written.
    Leaving,
    /// It broke the protocol and was told so: nothing of it is heard any more, until its end.
    Failed,
}

/// What flushing came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Flushed {
    /// All is with the kernel.
    Whole,
    /// Some waits; so many messages were dropped.
    Waiting(u64),
    /// The queue is full and the hub disconnects those who are slow.
    TooSlow,
}

/// How many messages and bytes a client may send: some more each second, which it may save up for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    messages: u32,
    bytes: u32,
}

/// One client.
pub struct Session<S> {
    /// Its socket; nobody else writes to it.
    pub socket: S,
    /// What it speaks.
    pub framing: Framing,
    /// Where it stands.
    pub phase: Phase,
    /// The code of the close that it was sent unasked.
    pub dismissed: Option<u16>,
    /// It could not be read on, because what it says had nowhere to go.
    pub paused: bool,
    /// It waits for its turn to be read.
    pub unread: bool,
    /// The kernel told of the client's end: it is read until that.
    pub ending: bool,
    /// What was read of it and not heard yet.
    pub unheard: Option<Box<[u8]>>,
    /// Tells it apart from an earlier session in the same place of the table.
    pub generation: u32,
    /// When it was last heard.
    pub heard: Seconds,
    /// What it may send before it has sent too much.
    pub allowance: Allowance,
    /// When its timer is due; a timer for another time is stale.
    pub due: Seconds,
    /// When a ping went out that is not answered yet.
    pub pinged: Option<Seconds>,
    /// What it may.
    pub terms: Arc<Terms>,
    /// The channel its broadcasts go to.
    pub to: Arc<str>,
    /// Its place in the count of its hub.
    pub membership: Membership,
    /// Its subscriptions.
    pub seats: SmallVec<[Seat; 1]>,
    /// What makes events of its bytes.
    pub codec: Codec,
    staged: Staged,
    outbox: Option<Box<Outbox>>,
}

impl<S: Socket> Session<S> {
    /// A session that begins.
    pub fn new(socket: S, arrival: Arrival, generation: u32, now: Seconds) -> Self {
        Session {
            socket,
            framing: arrival.framing,
            phase: Phase::Open,
            dismissed: None,
            paused: false,
            unread: false,
            ending: false,
            unheard: None,
            generation,
            heard: now,
            allowance: Allowance::new(&arrival.terms.hub),
            due: 0,
            pinged: None,
            terms: arrival.terms,
            to: arrival.to,
            membership: arrival.membership,
            seats: SmallVec::new(),
            codec: Codec::new(arrival.framing, arrival.inflates),
            staged: Staged::default(),
            outbox: None,
        }
    }

    /// The client is there: it was heard, or takes what waits for it.
    pub fn note_heard(&mut self, now: Seconds) {
        self.allowance.grow(now.saturating_sub(self.heard), &self.terms.hub);
        self.heard = now;
    }

    /// How long it may take to answer a ping.
    pub fn pong_patience(&self) -> Seconds {
        (self.terms.hub.pong_timeout.as_secs() as Seconds).max(1)
    }

    /// When a message must be finished that has begun, at the latest `now`.
    pub fn message_deadline(&mut self, now: Seconds) -> Option<Seconds> {
        let begun = self.codec.begun(now).filter(|_| self.phase == Phase::Open)?;
        // The second in which it began is none.
        Some(begun + self.terms.hub.message_timeout.as_secs() as Seconds + 1)
    }

    /// Stages frames of the run to be written at the end of the turn. Whether these are the first ones this turn.
    pub fn stage(&mut self, run: &mut Run, frames: Range<FrameNumber>) -> bool {
        let first = self.staged.is_empty();
        run.stage(&mut self.staged, frames);
        first
    }

    /// What is staged.
    pub fn staged(&self) -> Staged {
        self.staged
    }

    /// Writes what is staged, in one write where nothing waits already; the rest waits.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn flush(&mut self, run: &Run, now: Seconds) -> io::Result<Flushed> {
        let staged = std::mem::take(&mut self.staged);
        if staged.is_empty() {
            return Ok(if self.outbox.is_none() { Flushed::Whole } else { Flushed::Waiting(0) });
        }
        if self.outbox.is_some() {
            return Ok(self.keep(run, staged, 0, now));
        }
        let slices = run.slices(staged);
        let mut written = 0;
        for part in slices.chunks(SLICES_PER_WRITE) {
            let all: usize = part.iter().map(|slice| slice.len()).sum();
            match self.socket.try_write_vectored(part) {
                Ok(count) if count == all => written += count,
                Ok(count) => return Ok(self.keep(run, staged, written + count, now)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(self.keep(run, staged, written, now));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Flushed::Whole)
    }

    /// Queues what was not written.
    fn keep(&mut self, run: &Run, staged: Staged, written: usize, now: Seconds) -> Flushed {
        let closing = self.phase != Phase::Open;
        let echoes = self.terms.route.on_message == config::OnMessage::Echo;
        let outbox = self.outbox.get_or_insert_default();
        let mut dropped = 0;
        for frame in run.unwritten(staged, written) {
            let begun = frame.written;
            if begun > 0 {
                outbox.push_anyway(frame, now);
                outbox.first_is_written_to(begun);
            } else if closing || echoes && frame.topic.is_none() {
                // What was said before goodbye and goodbye itself, or replies to one who is not read while they wait: bounded by the turn.
                outbox.push_anyway(frame, now);
            } else {
                match outbox.push(frame, &self.terms.hub, now) {
                    Queued::Dropped(more) => dropped += more,
                    Queued::Overflow => return Flushed::TooSlow,
                }
            }
        }
        Flushed::Waiting(dropped)
    }

    /// The socket takes more: writes what waits. Whether nothing waits any longer.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn write_waiting(&mut self) -> io::Result<bool> {
        let Some(outbox) = &mut self.outbox else { return Ok(true) };
        let empty = outbox.write_to(&mut self.socket, &self.terms.hub, self.framing)?;
        if empty {
            self.outbox = None;
        }
        Ok(empty)
    }

    /// Whether something is staged or waits for the socket.
    pub fn has_to_say(&self) -> bool {
        !self.staged.is_empty() || self.outbox.is_some()
    }

    /// Whether something waits for the socket.
    pub fn is_waiting(&self) -> bool {
        self.outbox.is_some()
    }

    /// Bytes that wait for the socket.
    pub fn waiting_bytes(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.bytes())
    }

    /// Drops what waits and says why the session ends. How many messages were dropped.
    pub fn disconnect(&mut self, close: &Close) -> u64 {
        self.phase = Phase::Closing;
        self.dismissed = Some(close.code);
        let outbox = self.outbox.get_or_insert_default();
        let dropped = outbox.clear();
        outbox.push_anyway(Waiting { bytes: self.framing.farewell(close), topic: None, written: 0 }, Seconds::MAX);
        dropped
    }
}

impl Allowance {
    /// What a client may send at once when it comes: as much as in any second.
    pub fn new(hub: &config::Hub) -> Allowance {
        // With its header, so that a first message of the largest size passes where no more is allowed than that.
        let bytes = hub.bytes_per_second.saturating_add((HEADER_BYTES_MAX + MASK_BYTES) as u32);
        Allowance { messages: hub.messages_per_second, bytes }
    }

    /// So many seconds have passed.
    fn grow(&mut self, seconds: Seconds, hub: &config::Hub) {
        let grown = |left: u32, rate: u32| {
            let most = rate.saturating_mul(ALLOWANCE_SECONDS);
            left.saturating_add(rate.saturating_mul(seconds)).min(most)
        };
        if seconds > 0 {
            self.messages = grown(self.messages, hub.messages_per_second);
            self.bytes = grown(self.bytes, hub.bytes_per_second);
        }
    }

    /// Takes so many messages, or other frames, of so many bytes together.
    ///
    /// # Errors
    /// How the session is to be closed: it has sent too much.
    pub fn take(&mut self, messages: u32, bytes: usize) -> Result<(), Close> {
        self.messages = self.messages.checked_sub(messages).ok_or(Close::TOO_MANY)?;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.bytes = self.bytes.checked_sub(bytes).ok_or(Close::TOO_MUCH)?;
        Ok(())
    }
}

impl<S> fmt::Debug for Session<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("framing", &self.framing).field("phase", &self.phase).finish_non_exhaustive()
    }
}
