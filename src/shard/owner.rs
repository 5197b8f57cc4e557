//! What a shard does for the hubs that it owns: it numbers their publications, remembers them, and answers the questions of
//! sessions that catch up.
//!
//! Only hubs with history are owned as a whole. Keys of messages are known for the channels of all hubs. Questions wait until
//! publications are done, and a turn answers only some of them: so clients that return together do not hold up those that are live.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::disk::Disk;
use super::mailbox::Mailbox;
use super::table::SessionKey;
use crate::config::HubId;
use crate::config::limits::{
    EXPIRED_PER_TURN_MAX, HISTORY_PAGE_BYTES_MAX, HISTORY_SHARED_BYTES_MIN, STORE_CACHE_BYTES_MAX,
};
use crate::hub::history::{Found, HistoryLimits, Memory, Page, PageLimits};
use crate::hub::{History, Keys, KnownKey, Message, Position, Publication, Selector, Since};
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

impl Question {
    /// Whether the session that has asked is gone: while it waits, it holds the selectors, too.
    pub fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.selectors) == 1
    }
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
    /// Where it is kept, if it is durable.
    pub disk: Option<Disk>,
}

/// What a hub remembers.
#[derive(Debug)]
pub struct Remembered {
    /// The numbering, and the messages that are in memory.
    pub history: History,
    /// Where all of them are, if the hub is durable.
    pub disk: Option<Disk>,
    /// How many publications are numbered, and wait for the disk.
    waiting: usize,
}

impl From<History> for Remembered {
    fn from(history: History) -> Remembered {
        Remembered { history, disk: None, waiting: 0 }
    }
}

impl PlannedHistory {
    /// What the hub remembers before its first publication.
    pub fn begin(&self, memory: &Memory) -> Remembered {
        let PlannedHistory { limits, beginning, disk } = self;
        let history = History::new(*beginning, *limits, disk.is_some(), memory.clone());
        Remembered { disk: disk.clone(), ..history.into() }
    }
}

/// The hubs of one shard.
#[derive(Debug, Default)]
pub struct Owner {
    hubs: HashMap<HubId, Remembered>,
    /// What waits for a disk. All durable hubs share the store, which settles it in this order. Nobody has heard it: a message that a
    /// crash takes away was never there.
    waiting: VecDeque<Arc<Publication>>,
    keys: HashMap<HubId, Keys>,
    questions: VecDeque<Question>,
    /// The memory of all histories.
    memory: Memory,
}

/// A message that has its place in the order.
#[derive(Debug)]
pub enum Admitted {
    /// It is to be published.
    New(Message, Option<Position>),
    /// It cannot be remembered: the disk does not accept it, or its hub is gone.
    Refused,
    /// It was published before.
    Known,
}

impl Owner {
    /// Owns these hubs with history from now on. Others stay until [`Self::forget_others`].
    pub fn own<'h>(&mut self, planned: impl Iterator<Item = (HubId, &'h PlannedHistory)>, memory: &Memory) {
        self.memory = memory.clone();
        for (hub, planned) in planned {
            let remembered = self.hubs.entry(hub).or_insert_with(|| planned.begin(memory));
            remembered.history.set_limits(planned.limits);
        }
    }

    /// Forgets the histories of all hubs but these.
    pub fn forget_others(&mut self, planned: &HashSet<HubId>) {
        self.hubs.retain(|hub, _| planned.contains(hub));
        self.waiting.retain(|publication| planned.contains(&publication.message.hub));
    }

    /// Continues with what was remembered of a hub before: by another process, or by the disk.
    pub fn inherit(&mut self, hub: HubId, remembered: Option<Remembered>, keys: Vec<KnownKey>) {
        self.hubs.extend(remembered.map(|remembered| (hub, remembered)));
        let known = self.keys.entry(hub).or_default();
        keys.into_iter().for_each(|key| known.restore(key));
    }

    /// What a hub remembers of which this shard owns all channels.
    pub fn remembered(&self, hub: HubId) -> Option<&Remembered> {
        self.hubs.get(&hub)
    }

    /// All hubs that remember something in memory alone: messages, keys or both.
    pub fn in_memory(&self) -> impl Iterator<Item = (HubId, Option<&History>, Option<&Keys>)> {
        let with_history = self.hubs.iter().filter(|(_, remembered)| remembered.disk.is_none());
        let with_history = with_history.map(|(hub, remembered)| (*hub, Some(&remembered.history), self.keys.get(hub)));
        let others = self.keys.iter().filter(|(hub, _)| !self.hubs.contains_key(hub));
        with_history.chain(others.map(|(hub, keys)| (*hub, None, Some(keys))))
    }

    /// Gives a message its place in the order of its hub, and remembers it in memory.
    pub fn admit(&mut self, mut message: Message, now: Seconds) -> Admitted {
        if message.receipt.as_ref().is_some_and(|receipt| receipt.key().is_some()) {
            let disk = self.hubs.get(&message.hub).and_then(|remembered| remembered.disk.as_ref());
            let is_written = |position: Position| disk.is_none_or(|disk| position.offset <= disk.written());
            match self.keys.entry(message.hub).or_default().admit(message, now, is_written) {
                Some(new) => message = new,
                None => return Admitted::Known,
            }
        }
        let Some(Remembered { history, disk, waiting }) = self.hubs.get_mut(&message.hub) else {
            if message.has_history {
                // Its hub is being removed here, but not yet where the message came from.
                message.refuse();
                return Admitted::Refused;
            }
            return Admitted::New(message, None);
        };
        if let Some(disk) = disk {
            // What follows a line of a feed must not be kept without it. The feed has asked the disk before it sent the line.
            let is_of_feed = message.receipt.as_ref().is_some_and(|receipt| receipt.progress().is_some());
            if !is_of_feed && !disk.accepts() {
                message.refuse();
                return Admitted::Refused;
            }
            disk.keep_outcome(&mut message);
        }
        if message.payload.len() < HISTORY_SHARED_BYTES_MIN {
            // It may be a part of a larger buffer, which it would keep.
            message.payload = bytes::Bytes::copy_from_slice(&message.payload);
        }
        let position = match disk {
            Some(_) => history.next(*waiting),
            None => history.append(&message, now),
        };
        if let Some(receipt) = &mut message.receipt {
            receipt.set_position(position);
        }
        Admitted::New(message, Some(position))
    }

    /// Keeps a publication on the disk, if its hub is durable. Returns whether it is to be delivered later: when [`Self::next_kept`]
    /// returns it. `wake` is called when that may be so.
    pub fn keep(&mut self, publication: &Arc<Publication>, wake: impl FnOnce() + Send + 'static) -> bool {
        let Some(position) = publication.position else { return false };
        let Some(remembered) = self.hubs.get_mut(&publication.message.hub) else { return false };
        let Some(disk) = &remembered.disk else { return false };
        disk.append(publication, position.offset, wake);
        remembered.waiting += 1;
        self.waiting.push_back(publication.clone());
        true
    }

    /// The next publication that waits for a disk and is `due`. From now on it is in the history.
    pub fn next_kept(&mut self, now: Seconds, due: impl Fn(&Publication) -> bool) -> Option<Arc<Publication>> {
        let publication = self.waiting.pop_front_if(|publication| due(publication))?;
        let hub = self.hubs.get_mut(&publication.message.hub)?;
        hub.waiting -= 1;
        let position = hub.history.append(&publication.message, now);
        debug_assert_eq!(Some(position), publication.position);
        Some(publication)
    }

    /// Whether a publication has waited for its disk, and need not any longer.
    pub fn has_kept(&self) -> bool {
        self.waiting.front().is_some_and(|publication| publication.is_settled())
    }

    /// Drops what has expired, some in each turn, and reports what was dropped for lack of memory.
    pub fn expire(&mut self, now: Seconds) {
        if let Some(dropped) = self.memory.report(now) {
            log::warn!(
                "histories need more than memory_max: {dropped} messages were dropped, of the channels read longest ago"
            );
        }
        for Remembered { history, disk, .. } in self.hubs.values_mut() {
            history.expire(now, EXPIRED_PER_TURN_MAX);
            match disk {
                Some(disk) => history.release_written(disk.written(), STORE_CACHE_BYTES_MAX),
                None => history.release(EXPIRED_PER_TURN_MAX),
            }
        }
        self.keys.retain(|_, keys| {
            keys.expire(now);
            !keys.is_empty()
        });
    }

    /// Whether a hub has more to release than it may in one turn: the others take memory meanwhile.
    pub fn must_release(&self) -> bool {
        self.memory.is_exceeded() && self.hubs.values().any(|hub| hub.history.must_release())
    }

    /// Takes a question, which is answered when publications are done.
    pub fn ask(&mut self, question: Question) {
        self.questions.push_back(question);
    }

    /// Whether questions wait.
    pub fn has_questions(&self) -> bool {
        !self.questions.is_empty()
    }

    /// Answers questions until the work is spent. Pages of a store come later, into the `mailboxes`.
    pub fn answer_some(
        &mut self,
        now: Seconds,
        mut work: Work,
        mailboxes: &Arc<[Mailbox]>,
        mut answer: impl FnMut(Answer),
    ) {
        while !work.is_spent()
            && let Some(question) = self.questions.pop_front()
        {
            if question.is_abandoned() {
                continue;
            }
            let Some(found) = self.answer(&question, now, mailboxes, &mut work) else { continue };
            let messages = found.page.as_ref().map_or(0, |page| page.messages.len()) as u32;
            // Its encoding and its writing are counted here, too: the shards of the sessions have the same turns.
            work.spend(work::WRITE.saturating_add(messages.saturating_mul(work::PAGE_MESSAGE)));
            answer(found);
        }
    }

    /// The answer to a question, unless it comes from a store later.
    fn answer(
        &mut self,
        question: &Question,
        now: Seconds,
        mailboxes: &Arc<[Mailbox]>,
        work: &mut Work,
    ) -> Option<Answer> {
        let Question { hub, selectors, since, messages_max, asker } = question;
        let page = self.hubs.get_mut(hub).map(|Remembered { history, disk, .. }| {
            let limits = PageLimits { messages: *messages_max, bytes: HISTORY_PAGE_BYTES_MAX };
            let found = history.page(selectors, *since, limits, now);
            work.spend(work::LOOKED_AT.saturating_mul(found.looked_at() as u32));
            (found, history.position().epoch, disk)
        });
        match page {
            Some((Found::InStore { since, until, gone, gone_before, .. }, epoch, Some(disk))) => {
                disk.answer(question, (since, until), (gone, gone_before), epoch, mailboxes.clone());
                None
            }
            Some((Found::Here { page, .. }, ..)) => Some(Answer { asker: *asker, page: Some(page) }),
            // Only a hub with a disk has messages in a store.
            Some((Found::InStore { .. }, _, None)) | None => Some(Answer { asker: *asker, page: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sync;
    use crate::hub::{Epoch, Kind, Outcome, Progress, Receipt};
    use crate::store::{Limits, Store};

    #[test]
    fn a_question_of_a_session_that_is_gone_is_not_answered() {
        let (mut owner, mailboxes) = (Owner::default(), Arc::from([Mailbox::default()]));
        let waiting: Arc<[Selector]> = [Selector::name("a")].into();
        let gone = [Selector::name("a")].into();
        for (serial, selectors) in [(1, gone), (2, waiting.clone())] {
            let asker = Asker { shard: 0, key: SessionKey { slot: 0, generation: 0 }, serial };
            owner.ask(Question { hub: HubId(0), selectors, since: Since::Earliest, messages_max: 1, asker });
        }
        let mut answered = Vec::new();
        owner.answer_some(0, Work::of(1000), &mailboxes, |answer| answered.push(answer.asker.serial));
        assert_eq!(answered, [2]);
        assert!(!owner.has_questions());
    }

    #[test]
    fn a_page_of_a_pattern_costs_what_was_looked_at_for_it() {
        let (hub, mut owner) = (HubId(0), Owner::default());
        let limits = HistoryLimits { messages: 1, bytes: usize::MAX, age: None };
        let beginning = Position { epoch: Epoch(7), offset: 0 };
        owner.own([(hub, &PlannedHistory { limits, beginning, disk: None })].into_iter(), &Memory::default());
        for n in 0..8000 {
            owner.admit(Message::new(hub, format!("o/{}", n % 4000).into(), Kind::Text, "x".into()), 0);
        }
        let asker = Asker { shard: 0, key: SessionKey { slot: 0, generation: 1 }, serial: 1 };
        let since = Since::After(Position { offset: 1, ..beginning });
        let mut ask = |selector: Selector| {
            let selectors: Arc<[Selector]> = [selector].into();
            for _ in 0..100 {
                let selectors = selectors.clone();
                owner.ask(Question { hub, selectors, since, messages_max: 10, asker });
            }
            let mut pages = 0;
            owner.answer_some(0, Work::of(1_000_000), &[].into(), |_| pages += 1);
            owner.questions.clear();
            pages
        };
        assert_eq!(ask(Selector::name("n/1")), 100);
        // Each looks at 4,000 messages, and at as many channels that have dropped one.
        assert_eq!(ask(Selector::pattern("n/*")), 3);
    }

    /// Refused after the feed has sent it, a line would be missing before the next one.
    #[test]
    fn a_disk_that_accepts_nothing_refuses_no_line_of_a_feed_that_is_on_its_way() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(&directory.path().join("store"), Sync::Always).unwrap();
        let state = store.hub("news", Limits::default()).unwrap();
        let limits = HistoryLimits { messages: 9, bytes: 99, age: None };
        let beginning = Position { epoch: Epoch(state.epoch), offset: state.next - 1 };
        let disk = Some(Disk::new(store.clone(), state.id));
        let memory = Memory::default();
        let mut owner = Owner::default();
        owner.inherit(HubId(0), Some(PlannedHistory { limits, beginning, disk }.begin(&memory)), Vec::new());
        store.close();
        let message = |receipt| Message::new(HubId(0), "all".into(), Kind::Text, "x".into()).with_receipt(receipt);
        let (told, outcome) = std::sync::mpsc::channel();
        let refused = owner.admit(message(Receipt::new(move |outcome: Outcome| told.send(outcome).unwrap())), 0);
        assert!(matches!(refused, Admitted::Refused), "{refused:?}");
        assert!(outcome.recv().unwrap().is_refused);
        let progress = Progress { feed: "log".into(), mark: b"mark".as_slice().into() };
        let admitted = owner.admit(message(Receipt::new(|_| ()).with_progress(progress)), 0);
        let Admitted::New(_, Some(position)) = admitted else { panic!("{admitted:?}") };
        assert_eq!(position.offset, state.next, "its place is the next one");
    }
}
