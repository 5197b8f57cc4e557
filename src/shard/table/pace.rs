//! How much each part of a turn does at most.

use crate::config::limits::{
    FLUSHING_WORK, HISTORY_WORK_PER_TURN, READING_ON_WORK, READING_WORK, SLICE_WORK, SWEEP_SESSIONS_PER_TURN,
    TIMERS_PER_TURN,
};

/// The limits of one turn; work is in nanoseconds, as `session::work` estimates it.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Work of reading.
    pub reading: u32,
    /// Work of reading sessions that had more than their slice, where others took the whole turn.
    pub reading_on: u32,
    /// Work of reading one session, before the next one is read.
    pub slice: u32,
    /// Work of writing to subscribers.
    pub flushing: u32,
    /// Timers that fire.
    pub timers: usize,
    /// Sessions that a sweep changes.
    pub sweep: usize,
    /// Work of answering sessions that catch up.
    pub answers: u32,
    /// Messages of a page of history, if the session does not ask for fewer.
    pub page_messages: usize,
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
            answers: HISTORY_WORK_PER_TURN,
            page_messages: usize::MAX,
        }
    }
}
