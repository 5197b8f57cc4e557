//! Sessions that receive what they have missed, before they are subscribed.

use std::collections::HashMap;
use std::sync::Arc;

use super::{SessionKey, Table};
use crate::config::HubId;
use crate::hub::{Position, Selector, Since, Slot};
use crate::session::Socket;
use crate::session::catch_up::{Asked, Paged};
use crate::session::work::Work;
use crate::shard::owner::Answer;

impl<S: Socket> Table<S> {
    /// Sets the positions of the hubs with history, for those of which nothing has passed here yet.
    pub fn set_frontiers(&mut self, beginnings: impl Iterator<Item = (HubId, Position)>) {
        let mut before = std::mem::take(&mut self.frontiers);
        let now = beginnings.map(|(hub, beginning)| (hub, before.remove(&hub).unwrap_or(beginning)));
        self.frontiers = now.collect::<HashMap<_, _>>();
    }

    /// The position up to which everything of a hub has passed here.
    pub fn frontier(&self, hub: HubId) -> Option<Position> {
        self.frontiers.get(&hub).copied()
    }

    /// Has a session catch up with subscriptions, which begin then.
    pub(super) fn catch_up(&mut self, key: SessionKey, selectors: Arc<[Selector]>, since: Since) {
        self.sessions[key.slot as usize].catch_up(selectors, since);
        self.asking.push(key);
    }

    /// A client that continues from no position is to be told one.
    pub(super) fn owe_position(&mut self, slot: Slot) {
        let (now, session) = (self.now, &mut self.sessions[slot as usize]);
        if session.terms().hub.history.is_some() && session.terms().speech.has_positions(session.framing()) {
            session.owe_position(now);
            self.tell_position(slot);
            self.arm(slot);
        }
    }

    /// Tells a client from which position it may continue later, if it is time.
    pub(super) fn tell_position(&mut self, slot: Slot) {
        if !self.sessions[slot as usize].owes_position(self.now) {
            return;
        }
        // What has passed here is not staged yet. It may be what the client waits for.
        self.stage_streak();
        let session = &self.sessions[slot as usize];
        if session.owes_position(self.now) {
            // A reload may have removed the history: then there is no position.
            let position = self.frontier(session.terms().hub_id);
            self.act(slot, &mut Work::default(), |session, turn| session.tell_position(position, &mut turn.acts));
        }
    }

    /// A session may ask for more.
    pub(super) fn ask_later(&mut self, slot: Slot) {
        let generation = self.sessions[slot as usize].generation();
        self.asking.push(SessionKey { slot, generation });
    }

    /// The questions of sessions that catch up, each with its hub.
    pub fn take_questions(&mut self) -> Vec<(SessionKey, HubId, Asked)> {
        let asking = std::mem::take(&mut self.asking);
        let questions = asking.into_iter().filter_map(|key| {
            let session = self.at(key)?;
            let hub = session.terms().hub_id;
            session.ask().map(|asked| (key, hub, asked))
        });
        questions.collect()
    }

    /// Passes a page to its session. After the last one the session is subscribed: in this step, so that it receives everything
    /// that comes after the page, and nothing that is in it.
    pub fn take_page(&mut self, Answer { asker, page }: Answer) {
        let (key, slot, now) = (asker.key, asker.key.slot, self.now);
        if self.at(key).is_none() {
            return;
        }
        // What is staged comes before the page.
        if !self.sessions[slot as usize].staged().is_empty() {
            self.flush_session(slot);
        }
        let Some(session) = self.at(key) else { return };
        let waiting = session.waiting_bytes();
        let paged = session.take_page(asker.serial, page.as_ref(), now);
        let bytes = session.waiting_bytes() - waiting;
        self.staging.pages_bytes += bytes;
        self.counters.caught_up.add(page.map_or(0, |page| page.messages.len() as u64));
        if let Paged::Live(selectors) = &paged {
            let hub = self.sessions[slot as usize].terms().hub_id;
            let seats = self.subscribe(hub, selectors, slot);
            self.sessions[slot as usize].add_seats(seats);
            self.counters.channels.set(self.channels.len() as u64);
        }
        if bytes > 0 {
            self.writable(key);
        }
        if paged != Paged::Ignored && self.at(key).is_some() {
            self.ask_later(slot);
            self.arm(slot);
        }
    }
}
