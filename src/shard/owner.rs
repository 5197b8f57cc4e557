//! What a shard does for the hubs that it owns: it numbers their publications, remembers them, and answers the questions of
//! sessions that catch up.
//!
//! Only hubs with history are owned as a whole. Keys of messages are known for the channels of all hubs. Questions wait until
//! publications are done, and a turn answers only some of them: so clients that return together do not hold up those that are live.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::table::SessionKey;
use crate::config::HubId;
use crate::config::limits::{
    EXPIRED_PER_TURN_MAX, HISTORY_PAGE_BYTES_MAX, HISTORY_SHARED_BYTES_MIN, HISTORY_WORK_PER_TURN,
};
use crate::hub::history::{Found, HistoryLimits, Memory, Page, PageLimits};
use crate::hub::{History, Keys, Message, Position, Selector, Since};
use crate::session::Seconds;
use crate::session::work::{self, Work};

/// A session asks for what it has missed.
#[derive(Debug, Clone)]
pub struct Question {
    /// The hub.
    pub hub: HubId,
    /// What it wants to hear.
    pub selectors: Arc<[Selector]>,
    /// Up to where it has heard it.
    pub since: Since,
    /// How many messages it takes at once.
    pub messages_max: usize,
    /// Who asks.
    pub asker: Asker,
}

/// A session that has asked.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    /// Its shard.
    pub shard: usize,
    /// The session.
    pub key: SessionKey,
    /// The number of its question.
    pub serial: u32,
}

/// The answer to a question.
#[derive(Debug)]
pub struct Answer {
    /// Who has asked.
    pub asker: Asker,
    /// What the session has missed. `None`: the hub has no history.
    pub page: Option<Page>,
}

/// What a hub remembers, as the configuration has it.
#[derive(Debug, Clone)]
pub struct PlannedHistory {
    /// How much is kept of each channel.
    pub limits: HistoryLimits,
    /// The position before its first publication, unless another process has given positions.
    pub beginning: Position,
}

/// The hubs of one shard.
#[derive(Debug, Default)]
pub struct Owner {
    histories: HashMap<HubId, History>,
    keys: HashMap<HubId, Keys>,
    questions: VecDeque<Question>,
}

impl Owner {
    /// Goes by these hubs with history from now on, all of them owned by this shard.
    pub fn remember<'h>(&mut self, planned: impl Iterator<Item = (HubId, &'h PlannedHistory)>, memory: &Memory) {
        let mut before = std::mem::take(&mut self.histories);
        for (hub, PlannedHistory { limits, beginning }) in planned {
            let new = || History::new(*beginning, *limits, false, memory.clone());
            let mut history = before.remove(&hub).unwrap_or_else(new);
            history.set_limits(*limits);
            self.histories.insert(hub, history);
        }
    }

    /// Continues with the history of another process.
    pub fn inherit(&mut self, hub: HubId, history: History, keys: Keys) {
        self.histories.insert(hub, history);
        self.keys.insert(hub, keys);
    }

    /// The history of a hub that this shard owns.
    pub fn history(&self, hub: HubId) -> Option<&History> {
        self.histories.get(&hub)
    }

    /// All histories, with the keys of their hubs.
    pub fn histories(&self) -> impl Iterator<Item = (HubId, &History, Option<&Keys>)> {
        self.histories.iter().map(|(hub, history)| (*hub, history, self.keys.get(hub)))
    }

    /// Gives a message its place in the order of its hub, and remembers it. Returns nothing if it was published before.
    pub fn admit(&mut self, mut message: Message, now: Seconds) -> Option<(Message, Option<Position>)> {
        if message.receipt.as_ref().is_some_and(|receipt| receipt.key().is_some()) {
            message = self.keys.entry(message.hub).or_default().admit(message, now)?;
        }
        let Some(history) = self.histories.get_mut(&message.hub) else { return Some((message, None)) };
        if message.payload.len() < HISTORY_SHARED_BYTES_MIN {
            // It may be a part of a larger buffer, which it would keep.
            message.payload = bytes::Bytes::copy_from_slice(&message.payload);
        }
        let position = history.append(&message, now);
        if let Some(receipt) = &mut message.receipt {
            receipt.set_position(position);
        }
        Some((message, Some(position)))
    }

    /// Drops what has expired, some in each turn.
    pub fn expire(&mut self, now: Seconds) {
        self.histories.values_mut().for_each(|history| history.expire(now, EXPIRED_PER_TURN_MAX));
        self.keys.values_mut().for_each(|keys| keys.expire(now));
    }

    /// Takes a question, which is answered when publications are done.
    pub fn ask(&mut self, question: Question) {
        self.questions.push_back(question);
    }

    /// Whether questions wait.
    pub fn has_questions(&self) -> bool {
        !self.questions.is_empty()
    }

    /// Answers as many questions as a turn may.
    pub fn answer_some(&mut self, now: Seconds, mut answer: impl FnMut(Answer)) {
        let mut work = Work::of(HISTORY_WORK_PER_TURN);
        while !work.is_spent()
            && let Some(question) = self.questions.pop_front()
        {
            let page = self.page(&question, now);
            let messages = page.as_ref().map_or(0, |page| page.messages.len()) as u32;
            // Its encoding and its writing are counted here, too: the shards of the sessions have the same turns.
            work.spend(work::WRITE.saturating_add(messages.saturating_mul(work::PAGE_MESSAGE)));
            answer(Answer { asker: question.asker, page });
        }
    }

    fn page(&mut self, question: &Question, now: Seconds) -> Option<Page> {
        let history = self.histories.get_mut(&question.hub)?;
        let limits = PageLimits { messages: question.messages_max, bytes: HISTORY_PAGE_BYTES_MAX };
        match history.page(&question.selectors, question.since, limits, now) {
            Found::Here(page) => Some(page),
            Found::InStore { .. } => None,
        }
    }
}
