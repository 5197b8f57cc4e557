//! How much a turn does.
//!
//! All sessions of a shard wait while one is served. So each part of a turn is bounded over all sessions, whatever clients send or an
//! operator orders, and the rest is left for the next turn. The bound is an estimate in nanoseconds, not a clock: then a simulation
//! takes the very turns that a shard takes. The estimates are rough on purpose; what counts is that nothing is free.

use crate::config::limits::{
    FLUSHING_WORK, READING_ON_WORK, READING_WORK, SLICE_WORK, SWEEP_SESSIONS_PER_TURN, TIMERS_PER_TURN,
};

/// A read from a socket: the system call.
pub(super) const READ: u32 = 1_000;
/// A frame: its header, what it means, the counters.
pub(super) const FRAME: u32 = 100;
/// A publication that is made of a message.
pub(super) const PUBLICATION: u32 = 300;
/// A line in the log.
pub(super) const LOG_LINE: u32 = 5_000;
/// A write to a socket: the system call, with what the kernel does for the receiver.
pub(super) const WRITE: u32 = 4_000;
/// The end of a session: its socket is closed, its seats are given back.
pub(super) const END: u32 = 8_000;
/// How many bytes are copied, unmasked and checked in a nanosecond.
const BYTES_PER_NANOSECOND: usize = 3;

/// What bytes cost.
pub(super) fn bytes(count: usize) -> u32 {
    u32::try_from(count / BYTES_PER_NANOSECOND).unwrap_or(u32::MAX)
}

/// What inflated bytes cost: about three times as much as others.
pub(super) fn inflated(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Work that is done, and how much may be.
#[derive(Debug)]
pub(super) struct Work {
    spent: u32,
    limit: u32,
}

impl Work {
    pub(super) fn of(nanoseconds: u32) -> Work {
        Work { spent: 0, limit: nanoseconds }
    }

    pub(super) fn spend(&mut self, nanoseconds: u32) {
        self.spent = self.spent.saturating_add(nanoseconds);
    }

    /// What was spent, which may be more than the limit: work is counted when it is done.
    pub(super) fn spent(&self) -> u32 {
        self.spent
    }

    pub(super) fn is_spent(&self) -> bool {
        self.spent >= self.limit
    }

    /// Allows at least so much more.
    pub(super) fn allow(&mut self, nanoseconds: u32) {
        self.limit = self.limit.max(self.spent.saturating_add(nanoseconds));
    }
}

/// How much each part of a turn does at most.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Reading, in work of nanoseconds.
    pub reading: u32,
    /// Reading on, where others took the whole turn.
    pub reading_on: u32,
    /// Reading one session, before the next one has its slice.
    pub slice: u32,
    /// Writing to subscribers.
    pub flushing: u32,
    /// Timers that fire.
    pub timers: usize,
    /// Sessions that a change of the operator's reaches.
    pub sweep: usize,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            reading: READING_WORK,
            reading_on: READING_ON_WORK,
            slice: SLICE_WORK,
            flushing: FLUSHING_WORK,
            timers: TIMERS_PER_TURN,
            sweep: SWEEP_SESSIONS_PER_TURN,
        }
    }
}
