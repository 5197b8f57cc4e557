//! What goes to the client: frames that were staged, then those that wait because the kernel did not accept them.

use std::io;
use std::ops::Range;

use bytes::Bytes;

use super::outbox::Queued;
use super::run::{FrameNumber, Run, Staged};
use super::turn::Acts;
use super::{Phase, Reading, Seconds, Session, Socket};
use crate::hub::Kind;
use crate::wire::Close;

/// The kernel accepts no more slices in one write (`IOV_MAX`). After a longer one it would not report when it accepts the rest.
const SLICES_PER_WRITE: usize = 1024;

/// The result of flushing.
#[derive(Debug, PartialEq, Eq)]
pub enum Flushed {
    /// The kernel accepted everything.
    Whole,
    /// Some frames wait; so many messages were dropped.
    Waiting(u64),
    /// The outbox is full, and the hub disconnects slow clients.
    TooSlow,
}

/// What follows when everything is written.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// Nothing.
    Stay,
    /// The session is read on: its own replies had to be written first.
    ReadOn,
    /// The session ends.
    End,
}

impl<S: Socket> Session<S> {
    /// Queues the head of a response. It comes before everything else, and is never dropped.
    pub fn queue_head(&mut self, head: Bytes) {
        self.outbox.get_or_insert_default().push_for_good(head);
    }

    /// Stages the message that a client receives first.
    pub fn greet(&mut self, greeting: &str, acts: &mut Acts<'_>) {
        let framing = self.state.framing;
        self.state.reply(acts, |out| framing.frame_into(Kind::Text, greeting.as_bytes(), out));
    }

    /// Stages frames of its run, which are written at the end of the turn. Returns whether they are the first ones.
    pub fn stage(&mut self, run: &mut Run, frames: Range<FrameNumber>) -> bool {
        let is_first = self.state.staged.is_empty();
        // It carries a position, if its hub has any.
        self.state.position_due = Seconds::MAX;
        if self.state.framing.is_poll() {
            self.state.is_answered();
        }
        run.stage(&mut self.state.staged, frames);
        is_first
    }

    /// The frames that are staged.
    pub fn staged(&self) -> Staged {
        self.state.staged
    }

    /// Writes what is staged, in one write where nothing waits already. What the kernel does not accept waits.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn flush(&mut self, run: &Run, now: Seconds) -> io::Result<Flushed> {
        let staged = std::mem::take(&mut self.state.staged);
        if staged.is_empty() {
            return Ok(if self.is_waiting() { Flushed::Waiting(0) } else { Flushed::Whole });
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
        Ok(if self.socket.is_blocked() { Flushed::Waiting(0) } else { Flushed::Whole })
    }

    /// Queues what was not written.
    fn keep(&mut self, run: &Run, staged: Staged, written: usize, now: Seconds) -> Flushed {
        let is_open = self.state.phase == Phase::Open;
        let speech = &self.state.terms.speech;
        let (answers, echoes) = (speech.subscriptions_max() > 0, speech.echoes());
        // Where the client answers no pings, they only keep a silent connection open. Anything else that waits does that, too.
        let superfluous = if self.state.framing.answers() { None } else { self.state.framing.ping() };
        let outbox = self.outbox.get_or_insert_default();
        let mut dropped = 0;
        for frame in run.unwritten(staged, written) {
            let begun = frame.written;
            if begun > 0 {
                outbox.push_anyway(frame, now);
                outbox.first_is_written_to(begun);
            } else if superfluous.is_some_and(|ping| *ping == frame.bytes) {
                if outbox.is_empty() {
                    outbox.push_for_good(frame.bytes);
                }
            } else if is_open && answers && frame.topic.is_none() {
                // The client waits for its answers. Where too many wait, it is not read.
                outbox.push_for_good(frame.bytes);
            } else if !is_open || echoes && frame.topic.is_none() {
                // The last frames of a session are limited by the turn. Replies are, too: a client that does not take them is not read.
                outbox.push_anyway(frame, now);
            } else {
                match outbox.push(frame, &self.state.terms.hub, now) {
                    Queued::Dropped(more) => dropped += more,
                    Queued::Overflow => return Flushed::TooSlow,
                }
            }
        }
        Flushed::Waiting(dropped)
    }

    /// The socket accepts more: writes what waits. Returns whether nothing waits any longer.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn write_waiting(&mut self, now: Seconds) -> io::Result<bool> {
        if !self.socket.flush()? {
            return Ok(false);
        }
        let Some(outbox) = &mut self.outbox else { return Ok(true) };
        let before = outbox.bytes();
        let written = outbox.write_to(&mut self.socket, &self.state.terms.hub, self.state.framing);
        if outbox.bytes() < before {
            // The client is there: it accepts what waits. Its pong may wait behind that.
            self.state.note_heard(now);
        }
        let is_empty = written?;
        if is_empty {
            self.outbox = None;
        }
        Ok(is_empty && !self.socket.is_blocked())
    }

    /// Everything is written.
    pub fn after_writing(&mut self) -> Written {
        match self.state.phase {
            Phase::Leaving => {
                self.socket.finish();
                Written::End
            }
            Phase::HalfClosed => {
                self.socket.shutdown_write();
                Written::Stay
            }
            Phase::Open | Phase::Closing if self.state.reading == Reading::AwaitsOutbox => Written::ReadOn,
            Phase::Open | Phase::Closing => Written::Stay,
        }
    }

    /// Whether it can be read on, although something waits: few enough of its answers do.
    pub fn may_read_on(&self) -> bool {
        self.state.reading == Reading::AwaitsOutbox && self.obstacle(true).is_none()
    }

    /// Whether something is staged or waits.
    pub fn has_to_say(&self) -> bool {
        !self.state.staged.is_empty() || self.is_waiting()
    }

    /// Whether something waits because the kernel did not accept it.
    pub fn is_waiting(&self) -> bool {
        self.outbox.is_some() || self.socket.is_blocked()
    }

    /// Bytes that wait.
    pub fn waiting_bytes(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.bytes())
    }

    /// Drops what waits, and queues a farewell instead. How many messages were dropped.
    pub(super) fn clear_outbox(&mut self, close: &Close) -> u64 {
        let outbox = self.outbox.get_or_insert_default();
        let dropped = outbox.clear();
        let mut farewell = Vec::new();
        self.state.framing.farewell_into(close, &mut farewell);
        outbox.push_for_good(farewell.into());
        dropped
    }
}
