//! A poll: a session that ends with its first answer.
//!
//! A client that polls continues from a position, and catches up like every session. The first page with messages or a gap is its
//! answer. After an empty one it is subscribed, and waits: the first publication is its answer, in bytes that all polls share that
//! wait for it. What is published together with it comes with the next poll. If nothing comes in time, or the server ends, the
//! answer is empty. Each answer has the position up to which the client has missed nothing.
//!
//! The head of the response is written with the answer if that comes at once, and otherwise when the client begins to wait. So an
//! answer that comes at once is one write, and a client that waits holds no head in memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::catch_up::{CatchUp, Paged};
use super::outbox::NEVER_DROPPED;
use super::record::Kept;
use super::speech::answer;
use super::turn::Acts;
use super::{Phase, Seconds, Session, Socket, State};
use crate::config::limits::{CLOSE_TIMEOUT, POLL_MESSAGES_MAX};
use crate::hub::history::Page;
use crate::hub::{Position, Since};

/// What a client that polls asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Polling {
    /// How long it waits for something to be published.
    pub wait: Duration,
    /// How many messages it takes.
    pub messages_max: usize,
}

/// A poll that is not answered yet.
#[derive(Debug, Default)]
pub(super) struct Poll {
    /// The head of the response, until it is written.
    pub head: Bytes,
    /// How many messages the client takes.
    pub messages_max: usize,
}

impl Poll {
    /// Its head as an entry of an outbox, if it is not written yet.
    pub(super) fn head_kept(&self) -> Option<Kept> {
        (!self.head.is_empty()).then(|| Kept { bytes: self.head.clone(), since: NEVER_DROPPED, ..Kept::default() })
    }
}

impl<S: Socket> Session<S> {
    /// Begins a poll. `head` is that of its response.
    pub fn begin_poll(&mut self, Polling { wait, messages_max }: Polling, head: Bytes, now: Seconds) {
        // The present second is not a whole one.
        let seconds = if wait.is_zero() { 0 } else { wait.as_secs_f64().ceil() as Seconds + 1 };
        self.state.cold.get_or_insert_default().poll = Some(Poll { head, messages_max });
        self.state.answer_by(now.saturating_add(seconds));
    }

    /// The poll, while it is not answered.
    pub(super) fn polling(&self) -> Option<&Poll> {
        self.state.cold.as_ref()?.poll.as_ref()
    }

    /// Goes on with a poll of another process.
    pub(super) fn resume_poll(&mut self, answer_due: Seconds, messages_max: usize) {
        let messages_max = messages_max.clamp(1, POLL_MESSAGES_MAX);
        self.state.cold.get_or_insert_default().poll = Some(Poll { head: Bytes::new(), messages_max });
        self.state.answer_by(answer_due);
    }

    /// Takes a page: it is the answer, or the client waits from now on, or the next page is asked for. `gone` are the gaps that the
    /// client must be told of, and `since` is where the page ends. `None`: the hub has no history any more.
    pub(super) fn take_polled(&mut self, page: Option<&Page>, gone: &[Arc<str>], since: Since, now: Seconds) -> Paged {
        let is_empty = page.is_some_and(|page| page.messages.is_empty() && gone.is_empty());
        if is_empty && page.is_some_and(|page| !page.is_end) {
            return Paged::More;
        }
        let mut bytes = self.state.take_head().to_vec();
        let waits = is_empty && self.state.position_due > now;
        if !waits {
            let body = page.filter(|_| !is_empty).map_or_else(|| answer::nothing(since), |page| answer::of(page, gone));
            self.state.framing.answer_into(|out| out.extend_from_slice(&body), &mut bytes);
        }
        let cold = self.state.cold.get_or_insert_default();
        // A poll has one. The list would be memory for as long as the client waits.
        let selectors = std::mem::take(&mut cold.catch_ups).pop().filter(|_| waits).map(CatchUp::selectors);
        if !bytes.is_empty() {
            self.outbox.get_or_insert_default().push_for_good(bytes.into());
        }
        match selectors {
            Some(selectors) => Paged::Live { selectors, is_wished: false },
            None => {
                self.state.is_answered();
                self.state.close_by(now);
                Paged::Answered
            }
        }
    }

    /// Answers a poll that waits, without messages. `position` is that up to which everything was staged for it.
    pub fn answer_now(&mut self, position: Option<Position>, acts: &mut Acts<'_>) {
        if self.state.phase != Phase::Open {
            return;
        }
        let behind = self.catching_up().next().map(|behind| behind.since);
        let framing = self.state.framing;
        if let Some(since) = behind.or(position.map(Since::After)) {
            let body = answer::nothing(since);
            self.state.reply(acts, |out| framing.answer_into(|out| out.extend_from_slice(&body), out));
        }
        self.state.is_answered();
        self.state.close_by(acts.now);
    }
}

impl State {
    /// A poll is answered at this time at the latest.
    pub(super) fn answer_by(&mut self, due: Seconds) {
        self.position_due = due;
        // It counts from the answer on. A publication may be the answer at any time, and sets no deadline.
        self.deadline = due.saturating_add(CLOSE_TIMEOUT.as_secs() as Seconds);
    }

    /// The answer of a poll is staged or queued: nothing more is. The client closes the connection when it has read the answer.
    pub(super) fn is_answered(&mut self) {
        // A client that has ended its side is not waited for.
        self.phase = if self.is_ending { Phase::Leaving } else { Phase::HalfClosed };
        self.position_due = Seconds::MAX;
        if let Some(cold) = &mut self.cold {
            cold.catch_ups.clear();
            cold.poll = None;
        }
        self.shrink_cold();
    }

    /// The head that comes before everything else, if it is not written yet.
    pub(super) fn take_head(&mut self) -> Bytes {
        let poll = self.cold.as_mut().and_then(|cold| cold.poll.as_mut());
        poll.map(|poll| std::mem::take(&mut poll.head)).unwrap_or_default()
    }
}
