//! How a session catches up: it receives what it has missed in pages, and then what is published.
//!
//! A session that continues from a position is not subscribed at first. It asks the owner of its hub for a page. What is published
//! is pushed to subscribers; history is pulled, one page at a time: the next one is asked for when everything is written. So a
//! client that catches up holds one page at most, is never too slow, and takes nothing from others. The owner's pages come by the
//! same lane as its publications. A small page after which nothing follows is the last one: the session is subscribed in the step
//! in which it receives that page, so nothing is missed and nothing comes twice.
//!
//! A session may catch up with several subscriptions, one after the other.

use std::sync::Arc;

use smallvec::SmallVec;

use super::speech::Answer;
use super::{Phase, Seconds, Session, Socket};
use crate::config::limits::{HISTORY_LAST_PAGE_BYTES_MAX, HISTORY_PAGE_MESSAGES_MAX};
use crate::hub::history::Page;
use crate::hub::{Kind, Position, Selector, Since};

/// When a WebSocket is told a position that has received no message, in seconds.
pub(super) const POSITION_SECONDS: Seconds = 2;

/// Subscriptions that begin when the session has caught up with them.
#[derive(Debug, Clone)]
pub(super) struct CatchUp {
    pub(super) selectors: Arc<[Selector]>,
    pub(super) since: Since,
    /// The number of the question that was asked, until its answer has come.
    asked: Option<u32>,
    /// Whether the client has received anything of it: a message, or its position.
    has_told: bool,
    /// Whether the client has asked for it itself. Then it is told when the subscription begins.
    pub(super) is_wished: bool,
    /// The client has ended it meanwhile. It stays until its question is answered.
    pub(super) is_ended: bool,
    /// The channels in which it knows of a gap, and of which it has received nothing since: the gap may grow, and is still the same.
    /// A pattern is named where many of its channels have one.
    pub(super) gaps: Gaps,
}

/// Names of channels.
pub(super) type Gaps = SmallVec<[Arc<str>; 1]>;

/// What to ask the owner of the hub.
#[derive(Debug)]
pub struct Asked {
    /// What is subscribed to.
    pub selectors: Arc<[Selector]>,
    /// Up to where the client has heard it.
    pub since: Since,
    /// The number of the question.
    pub serial: u32,
    /// How many messages are taken at once.
    pub messages_max: usize,
}

/// What follows from a page.
#[derive(Debug, PartialEq, Eq)]
pub enum Paged {
    /// Nothing: it was not asked for any more.
    Ignored,
    /// More pages follow.
    More,
    /// The session is subscribed from now on, by its route or as its client has asked.
    Live {
        /// To these.
        selectors: Arc<[Selector]>,
        /// Whether the client has asked for it itself.
        is_wished: bool,
    },
    /// The page is the answer to a poll, which ends.
    Answered,
}

impl CatchUp {
    /// What is subscribed to.
    pub(super) fn selectors(self) -> Arc<[Selector]> {
        self.selectors
    }

    /// The gaps of a page that the client must be told of.
    fn new_gaps(&mut self, page: &Page, receives: impl Fn(Kind) -> bool) -> Vec<Arc<str>> {
        let new: Vec<_> = page.gone.iter().filter(|name| !self.gaps.contains(name)).cloned().collect();
        self.gaps.extend(new.iter().chain(&page.gone_before).cloned());
        let received = |name: &str| page.messages.iter().any(|kept| *kept.channel == *name && receives(kept.kind));
        self.gaps.retain(|name| !received(name));
        new
    }

    /// Whether a question was asked that is not answered yet.
    pub(super) fn is_asking(&self) -> bool {
        self.asked.is_some()
    }
}

impl<S: Socket> Session<S> {
    /// Begins to catch up with subscriptions. `is_wished`: the client has asked for them itself.
    pub fn catch_up(&mut self, selectors: Arc<[Selector]>, since: Since, is_wished: bool) {
        // A client that asks for the oldest messages knows that others were before.
        let known = selectors.iter().filter(|_| since == Since::Earliest).map(|selector| selector.text.clone());
        let gaps = known.collect();
        self.go_on_catching_up(selectors, since, is_wished, gaps);
    }

    /// The same for a client that has been told of these gaps.
    pub(super) fn go_on_catching_up(&mut self, selectors: Arc<[Selector]>, since: Since, is_wished: bool, gaps: Gaps) {
        let catch_up = CatchUp { selectors, since, asked: None, has_told: false, is_wished, is_ended: false, gaps };
        self.state.cold.get_or_insert_default().catch_ups.push(catch_up);
    }

    /// Whether some of its subscriptions have not begun.
    pub fn is_catching_up(&self) -> bool {
        self.state.cold.as_ref().is_some_and(|cold| !cold.catch_ups.is_empty())
    }

    /// The next question, if there is one, and everything is written.
    pub fn ask(&mut self) -> Option<Asked> {
        let cold = self.state.cold.as_mut()?;
        let first = cold.catch_ups.first_mut().filter(|first| first.asked.is_none())?;
        if self.outbox.is_some() || self.state.phase != Phase::Open {
            return None;
        }
        cold.questions = cold.questions.wrapping_add(1);
        first.asked = Some(cold.questions);
        let (selectors, since, serial) = (first.selectors.clone(), first.since, cold.questions);
        let messages_max = cold.poll.as_ref().map_or(HISTORY_PAGE_MESSAGES_MAX, |poll| poll.messages_max);
        Some(Asked { selectors, since, serial, messages_max })
    }

    /// Queues a page. Nothing may be staged. `None`: the hub has no history any more.
    pub fn take_page(&mut self, serial: u32, page: Option<&Page>, now: Seconds) -> Paged {
        let Some(cold) = self.state.cold.as_mut().filter(|_| self.state.phase == Phase::Open) else {
            return Paged::Ignored;
        };
        let Some(first) = cold.catch_ups.first_mut().filter(|first| first.asked == Some(serial)) else {
            return Paged::Ignored;
        };
        first.asked = None;
        if first.is_ended {
            cold.catch_ups.remove(0);
            self.state.shrink_cold();
            return Paged::More;
        }
        first.since = page.map_or(first.since, |page| Since::After(page.position));
        let (speech, framing) = (&self.state.terms.speech, self.state.framing);
        let gone = page.map(|page| first.new_gaps(page, |kind| speech.carries(framing, kind))).unwrap_or_default();
        if framing.is_poll() {
            let since = first.since;
            return self.take_polled(page, &gone, since, now);
        }
        let (mut frames, mut is_last) = (Vec::new(), true);
        if let Some(page) = page {
            speech.page_into(framing, page, &gone, &mut frames);
            is_last = page.is_end && frames.len() <= HISTORY_LAST_PAGE_BYTES_MAX;
            first.has_told |= page.messages.iter().any(|kept| speech.carries(framing, kept.kind));
            if is_last && !first.has_told && framing.is_events() {
                speech.position_into(framing, page.position, &mut frames);
            } else if is_last && !first.has_told && !first.is_wished && speech.has_positions(framing) {
                self.state.position_due = now + POSITION_SECONDS;
            }
        }
        let paged = if is_last {
            let CatchUp { selectors, is_wished, .. } = cold.catch_ups.remove(0);
            for selector in selectors.iter().filter(|_| is_wished) {
                let answer = Answer::Subscribed(&selector.text, page.map(|page| page.position));
                self.state.terms.speech.answer_into(self.state.framing, &answer, &mut frames);
            }
            Paged::Live { selectors, is_wished }
        } else {
            Paged::More
        };
        if !frames.is_empty() {
            self.outbox.get_or_insert_default().push_for_good(frames.into());
        }
        self.state.shrink_cold();
        paged
    }

    /// The client is to be told a position: at once on an event stream, where it has no effect on a page, and in some time on a
    /// WebSocket that has received no message.
    pub fn owe_position(&mut self, now: Seconds) {
        let is_told_at_once = self.state.framing.is_events();
        self.state.position_due = if is_told_at_once { now } else { now + POSITION_SECONDS };
    }

    /// Whether it is time to tell the client a position. A poll that catches up has another one than its hub: it is answered by a
    /// page.
    pub fn owes_position(&self, now: Seconds) -> bool {
        let is_behind = self.state.framing.is_poll() && self.is_catching_up();
        self.state.phase == Phase::Open && self.state.position_due <= now && !is_behind
    }

    /// Tells the client the position from which it may continue.
    pub fn tell_position(&mut self, position: Option<Position>, acts: &mut super::Acts<'_>) {
        if self.state.framing.is_poll() {
            return self.answer_now(position, acts);
        }
        self.state.position_due = Seconds::MAX;
        let (terms, framing) = (self.state.terms.clone(), self.state.framing);
        let Some(position) = position else { return };
        let write = |out: &mut Vec<u8>| terms.speech.position_into(framing, position, out);
        match &mut self.outbox {
            // It is no message: it must not be dropped, and not be counted as one.
            Some(outbox) => {
                let mut frame = Vec::new();
                write(&mut frame);
                outbox.push_for_good(frame.into());
            }
            None => self.state.reply(acts, write),
        }
    }

    /// What is subscribed to when it has caught up.
    pub fn awaited(&self) -> impl Iterator<Item = &Arc<[Selector]>> {
        self.catching_up().map(|catch_up| &catch_up.selectors)
    }

    /// The subscriptions that have not begun.
    pub(super) fn catching_up(&self) -> impl Iterator<Item = &CatchUp> {
        let catch_ups = self.state.cold.iter().flat_map(|cold| &cold.catch_ups);
        catch_ups.filter(|catch_up| !catch_up.is_ended)
    }
}
