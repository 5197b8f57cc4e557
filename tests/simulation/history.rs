//! Hubs with history in a world: what each channel keeps, clients that return, and the way of histories into another process.

use std::num::NonZeroUsize;
use std::sync::Arc;

use pushd::config::limits::{EXPIRED_PER_TURN_MAX, HISTORY_PAGE_BYTES_MAX, HISTORY_PAGE_MESSAGES_MAX};
use pushd::config::{Hub, HubId, WhenSlow};
use pushd::hub::history::{HistoryLimits, Memory};
use pushd::hub::{Epoch, History, Kind, Position, Selector, Since};
use pushd::session::{Seconds, Terms};
use pushd::shard::histories::{self, Written};
use pushd::shard::owner::{self, PlannedHistory};
use pushd::shard::relay::Relay;
use pushd::shard::table::Table;

use super::{World, channel_of};
use crate::client::{ENVELOPE_BYTES, Place};
use crate::model::{CHANNELS, Channel, Form, Model, Number};
use crate::random::Random;
use crate::setting;
use crate::socket::FakeSocket;
use crate::subscription::{Next, Subscription};

/// A client that is gone.
pub struct Absent {
    pub hub: usize,
    /// What it had subscribed to.
    pub selectors: Vec<Selector>,
    told: Position,
}

/// The history of a hub, as it was seen last.
pub struct Remembered {
    plan: PlannedHistory,
    channels: Vec<Ring>,
    /// How many messages had been numbered, how many were kept, when that was, and how many had been dropped for lack of memory.
    seen: (usize, usize, Seconds, u64),
    /// The limits have changed since.
    is_changed: bool,
}

/// The messages of a channel: those from `start` on are kept.
#[derive(Default)]
struct Ring {
    start: usize,
    /// When the messages came that were kept, from `start` on.
    times: Vec<Seconds>,
}

/// What is known of the turn after which a history is looked at.
struct Turn {
    now: Seconds,
    /// Nothing was dropped for lack of memory.
    is_exact: bool,
    /// Everything that is too old was dropped, because it was not too much for a turn.
    all_expired: bool,
}

/// The position before the first publication of a hub.
pub fn beginning(random: &mut Random) -> Position {
    Position { epoch: Epoch(1 + random.number() % (1 << 48)), offset: random.one_of(&[0, 0, 35, 1 << 40]) }
}

/// The limit of the memory of all histories. In some worlds it is short.
pub fn memory_max(random: &mut Random) -> usize {
    if random.once_in(6) { 4_000 + random.below(20_000) } else { usize::MAX }
}

/// Has a shard go by these histories.
pub fn plan(remembered: &[Option<Remembered>], relay: &Relay, table: &mut Table<FakeSocket>, memory: &Memory) {
    let plans = || {
        let hubs = remembered.iter().enumerate();
        hubs.filter_map(|(hub, remembered)| Some((HubId(hub as u32), &remembered.as_ref()?.plan)))
    };
    table.set_frontiers(plans().map(|(hub, plan)| (hub, plan.beginning)));
    relay.own(plans(), memory);
    relay.owner().forget_others(&plans().map(|(hub, _)| hub).collect());
}

/// How many bytes a page has as frames, at most.
pub fn page_bytes_max(hub: &Hub) -> usize {
    HISTORY_PAGE_BYTES_MAX.max(hub.message_bytes_max + 10) * 4 / 3
        + (HISTORY_PAGE_MESSAGES_MAX + CHANNELS.len()) * ENVELOPE_BYTES
}

impl Remembered {
    pub fn new(hub: &Hub, beginning: Position) -> Remembered {
        Remembered {
            plan: PlannedHistory { limits: HistoryLimits::from(hub.history.as_ref().unwrap()), beginning, disk: None },
            channels: CHANNELS.iter().map(|_| Ring::default()).collect(),
            seen: (0, 0, 0, 0),
            is_changed: false,
        }
    }
}

impl World {
    /// From where a client continues, if at all.
    pub(super) fn since(&mut self, absent: Option<Absent>, terms: &Terms) -> Option<Since> {
        let hub = terms.hub_id.0 as usize;
        let drops = terms.hub.when_slow != WhenSlow::Disconnect;
        let Some(order) = &self.model.hubs[hub] else {
            // It has no effect where nothing is remembered.
            return self.random.once_in(4).then_some(Since::Earliest);
        };
        // In an exact world the number of dropped messages is known, which depends on when a client was subscribed.
        if self.exact && drops {
            return None;
        }
        if let Some(absent) = absent {
            return Some(Since::After(absent.told));
        }
        let (epoch, base, last) = (order.epoch, order.base, order.last());
        let offset = base + self.random.below((last - base) as usize + 1) as u64;
        let foreign = Epoch(epoch.0 ^ 1);
        match self.random.below(8) {
            0 | 1 => Some(Since::After(Position { epoch, offset })),
            2 => Some(Since::Earliest),
            3 => Some(Since::Unknown),
            4 => Some(Since::After(Position { epoch: foreign, offset })),
            5 => Some(Since::After(Position { epoch, offset: last + (1 << 41) })),
            _ => None,
        }
    }

    /// What a client must receive that connects now.
    pub(super) fn subscriptions(
        &self,
        shard: usize,
        hub: usize,
        names: &[usize],
        form: Form,
        since: Option<Since>,
    ) -> (Vec<Subscription>, Place) {
        let lengths = &self.shards[shard].published;
        let channels = names.iter().map(|&name| channel_of(hub, name));
        let order = self.model.hubs[hub].as_ref();
        let Some((order, since)) = order.zip(since) else {
            let live = channels.map(|channel| Subscription::live(channel, lengths[channel])).collect();
            return (live, Place::default());
        };
        let dropped = self.dropped();
        let hears_gaps = form.envelope || form.framing.is_events();
        let known = match since {
            Since::After(position) if position.epoch == order.epoch && position.offset < order.last() + (1 << 41) => {
                Some(position)
            }
            Since::After(_) | Since::Earliest | Since::Unknown => None,
        };
        let subscriptions = channels.map(|channel| {
            let (next, is_gone) = match known {
                Some(position) => (Next::After(position.offset), dropped[channel] > position.offset),
                None => (Next::Kept(0), since != Since::Earliest),
            };
            Subscription::behind(channel, next, lengths[channel], dropped[channel], is_gone && hears_gaps)
        });
        let offset = known.map_or(0, |position| position.offset);
        let place = Place { told: known, offset, is_earliest: since == Since::Earliest, catches_up: true };
        (subscriptions.collect(), place)
    }

    /// A client is gone. It may return.
    pub(super) fn leave(&mut self, number: usize) {
        let client = &self.clients[number];
        let hub = client.terms.hub_id.0 as usize;
        if let Some(told) = client.place.told.filter(|told| Some(told.epoch) == self.epoch(hub)) {
            self.absent.push(Absent { hub, selectors: client.selectors.clone(), told });
        }
    }

    fn epoch(&self, hub: usize) -> Option<Epoch> {
        self.model.hubs[hub].as_ref().map(|order| order.epoch)
    }

    /// The shard that owns a hub with history.
    fn owner_of_hub(&self, hub: usize) -> usize {
        self.owner(channel_of(hub, 0))
    }

    /// Up to which offset each channel has dropped messages.
    pub(super) fn dropped(&self) -> Vec<u64> {
        let mut dropped = vec![0; self.hubs.len() * CHANNELS.len()];
        for hub in (0..self.hubs.len()).filter(|&hub| self.remembered[hub].is_some()) {
            let owner = self.shards[self.owner_of_hub(hub)].relay.owner();
            let history = &owner.remembered(HubId(hub as u32)).unwrap().history;
            for (name, offset) in history.drops().0 {
                let name = CHANNELS.iter().position(|channel| *channel == &**name).unwrap();
                dropped[channel_of(hub, name)] = offset;
            }
        }
        dropped
    }

    /// Checks that the histories of a shard hold what they must: everything that it has numbered, of each channel as much as the
    /// limits allow.
    pub(super) fn check_histories(&mut self, shard: usize) {
        // When the server ends, the witnesses are closed first.
        if self.shards[shard].table.is_flushing() || self.is_ending {
            return;
        }
        let now = self.shards[shard].table.now();
        for hub in 0..self.hubs.len() {
            if self.remembered[hub].is_none() || self.owner_of_hub(hub) != shard {
                continue;
            }
            let owner = self.shards[shard].relay.owner();
            let history = &owner.remembered(HubId(hub as u32)).unwrap().history;
            let remembered = self.remembered[hub].as_mut().unwrap();
            remembered.check(history, hub, &self.model, now, self.memory.dropped());
        }
    }

    /// A reload: a hub keeps more or less of each channel.
    pub(super) fn change_history(&mut self) {
        let hub = self.any_hub();
        let Some(remembered) = &mut self.remembered[hub] else { return };
        let history = setting::history(&mut self.random);
        (remembered.plan.limits, remembered.is_changed) = (HistoryLimits::from(&history), true);
        self.hubs[hub].history = Some(history);
        for here in &mut self.shards {
            plan(&self.remembered, &here.relay, &mut here.table, &self.memory);
        }
    }

    /// More is published on a hub than a page holds.
    pub(super) fn publish_much(&mut self) {
        let hub = self.any_hub();
        let shard = self.random.below(self.shards.len());
        if self.stalled.is_some() {
            return;
        }
        if let Some(remembered) = &mut self.remembered[hub] {
            // All of it is kept.
            let most = NonZeroUsize::new(2_000);
            let history = pushd::config::History { messages: most, bytes: None, age: None };
            (remembered.plan.limits, remembered.is_changed) = (HistoryLimits::from(&history), true);
            self.hubs[hub].history = Some(history);
            for here in &mut self.shards {
                plan(&self.remembered, &here.relay, &mut here.table, &self.memory);
            }
        }
        let limit = self.hubs[hub].message_bytes_max.min(4_000);
        for _ in 0..100 + self.random.below(300) {
            let channel = channel_of(hub, self.random.below(CHANNELS.len()));
            let size = self.random.below(limit);
            self.publish(shard, channel, Kind::Text, size);
        }
        // Some come for it at once, while it is still being published.
        (0..self.random.below(5)).for_each(|_| self.connect(Some(hub)));
    }

    /// The histories and the keys of hubs continue in new owners.
    pub(super) fn hand_over_histories(&mut self) {
        self.memory = Memory::new(self.memory_max);
        for shard in 0..self.shards.len() {
            let relay = Relay::new(shard, self.mailboxes.clone());
            let mut hubs = Vec::new();
            let before = self.shards[shard].relay.owner();
            let named = before.in_memory().map(|(hub, history, keys)| {
                hubs.push(hub);
                (&*self.hubs[hub.0 as usize].name, history, keys)
            });
            let written = Written::open(&histories::write(named).unwrap()).unwrap();
            let mut after: Vec<_> = written
                .hubs()
                .iter()
                .zip(&hubs)
                .map(|(record, hub)| {
                    let history = self.remembered[hub.0 as usize].as_mut().map(|Remembered { plan, seen, .. }| {
                        (plan.beginning, seen.3) = (record.position(), 0);
                        plan.begin(&self.memory).history
                    });
                    assert_eq!(record.has_only_keys, history.is_none());
                    (history, Vec::new())
                })
                .collect();
            written.read_into(&mut after).unwrap();
            drop(before);
            for (hub, (history, keys)) in hubs.into_iter().zip(after) {
                let remembered = history.map(owner::Remembered::from);
                relay.owner().inherit(hub, remembered, keys);
            }
            self.shards[shard].relay = relay;
        }
        for here in &mut self.shards {
            plan(&self.remembered, &here.relay, &mut here.table, &self.memory);
        }
    }
}

impl Remembered {
    fn check(&mut self, history: &History, hub: usize, model: &Model, now: Seconds, out_of_memory: u64) {
        let order = model.hubs[hub].as_ref().unwrap();
        assert_eq!(history.position(), Position { epoch: order.epoch, offset: order.last() });
        let seen = (order.numbers.len(), history.size().0, now, out_of_memory);
        if seen == self.seen && !self.is_changed {
            return;
        }
        let mut kept: Vec<Vec<(Number, Seconds)>> = vec![Vec::new(); CHANNELS.len()];
        let mut last = 0;
        for (message, at) in history.messages() {
            assert!(message.offset > last, "the order of a history");
            last = message.offset;
            let number = model.find(message.kind, &message.payload);
            assert_eq!(model.messages[number].offset, Some(message.offset));
            let name = CHANNELS.iter().position(|channel| *channel == &*message.channel).unwrap();
            kept[name].push((number, at));
        }
        let is_exact = out_of_memory == self.seen.3;
        let held: usize = self.channels.iter().map(|ring| ring.times.len()).sum();
        let all_expired = held + (order.numbers.len() - self.seen.0) <= EXPIRED_PER_TURN_MAX;
        let turn = Turn { now, is_exact, all_expired };
        let drops: Vec<(Arc<str>, u64)> = history.drops().0.map(|(name, offset)| (name.clone(), offset)).collect();
        for (name, kept) in kept.into_iter().enumerate() {
            let channel = channel_of(hub, name);
            let dropped =
                drops.iter().find(|(dropped, _)| &**dropped == CHANNELS[name]).map_or(0, |(_, offset)| *offset);
            let start = model.first_after(channel, dropped);
            let numbers: Vec<Number> = kept.iter().map(|(number, _)| *number).collect();
            assert_eq!(numbers, model.order[channel][start..], "channel {channel} keeps the last messages");
            let times = kept.into_iter().map(|(_, at)| at).collect();
            self.check_start(name, Ring { start, times }, channel, model, &turn);
        }
        (self.seen, self.is_changed) = (seen, false);
    }

    /// Checks that a channel keeps neither more nor less than the limits allow.
    fn check_start(&mut self, name: usize, ring: Ring, channel: Channel, model: &Model, turn: &Turn) {
        let Turn { now, is_exact, all_expired } = *turn;
        let before = std::mem::replace(&mut self.channels[name], ring);
        let (ring, limits) = (&self.channels[name], self.plan.limits);
        let order = &model.order[channel];
        assert!(ring.start >= before.start, "what was dropped is gone");
        let bytes = |start: usize| order[start..].iter().map(|&number| model.messages[number].bytes).sum::<usize>();
        let fits = |start: usize| order.len() - start <= limits.messages && bytes(start) <= limits.bytes;
        let is_expired = |at: Seconds| limits.age.is_some_and(|age| now - at > age);
        let has_grown = before.start + before.times.len() < order.len();
        if has_grown && !self.is_changed {
            assert!(fits(ring.start), "channel {channel} keeps too much");
        }
        if all_expired && !self.is_changed {
            assert!(!ring.times.iter().any(|&at| is_expired(at)), "channel {channel} keeps what is too old");
        }
        if ring.start > before.start && is_exact && !self.is_changed {
            // The last message that was dropped since had to be dropped.
            let last = ring.start - 1;
            let at = before.times.get(last - before.start).copied().unwrap_or(self.seen.2);
            assert!(!fits(last) || is_expired(at), "channel {channel} dropped {last} without a reason");
        }
    }
}
