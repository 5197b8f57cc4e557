//! The channels and patterns of one shard, and the subscribers of each.
//!
//! A channel exists while it has subscribers. They are in one dense array, in the order in which they subscribed, because writing
//! to their sockets is fastest in this order (with 10 000 connections 165 k deliveries/s, against 147 k in hash order). A
//! subscription that ends leaves a hole in the array. The entry is found by binary search over the seat numbers. The holes are
//! removed when they outnumber the subscribers, so ending a subscription costs O(log n) and keeps the order.
//!
//! A pattern has its subscribers as a channel has. Which patterns match a channel is looked up once for all publications that follow
//! each other on it (`patterns`).

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use super::Selector;
use super::patterns::{Numbers, Patterns};
use crate::config::HubId;

/// A subscriber: its index in the table of sessions.
pub type Slot = u32;

/// Marks a hole in the array. No table becomes that large.
const HOLE: Slot = Slot::MAX;
/// Up to this many holes are kept, because removing them costs a copy.
const HOLES_MIN: usize = 16;

/// One subscription. It is passed to [`Channels::unsubscribe`] to end it, and cannot be copied, because its numbers may belong to
/// another subscription afterwards.
#[derive(Debug, PartialEq, Eq)]
pub struct Seat {
    channel: u32,
    number: u64,
}

/// The channels and patterns of one shard that have subscribers.
#[derive(Debug, Default)]
pub struct Channels {
    names: HashMap<HubId, HashMap<Arc<str>, u32>>,
    patterns: Patterns,
    /// Both.
    channels: Slab<Channel>,
}

#[derive(Debug)]
struct Channel {
    hub: HubId,
    selector: Selector,
    /// Subscribers in the order in which they subscribed, with holes.
    slots: Vec<Slot>,
    /// The seat number of each entry of `slots`, in rising order.
    numbers: Vec<u64>,
    holes: usize,
    next: u64,
}

impl Channels {
    /// Subscribes `slot`. A slot that subscribes to the same several times receives each publication several times.
    pub fn subscribe(&mut self, hub: HubId, selector: &Selector, slot: Slot) -> Seat {
        debug_assert_ne!(slot, HOLE);
        let index = self.find(hub, selector).unwrap_or_else(|| self.insert(hub, selector));
        Seat { channel: index, number: self.channels[index as usize].seat(slot) }
    }

    fn find(&self, hub: HubId, selector: &Selector) -> Option<u32> {
        if selector.is_pattern {
            return self.patterns.find(hub, &selector.text);
        }
        self.names.get(&hub)?.get(&selector.text).copied()
    }

    fn insert(&mut self, hub: HubId, selector: &Selector) -> u32 {
        let index = self.channels.insert(Channel::new(hub, selector.clone())) as u32;
        if selector.is_pattern {
            self.patterns.insert(hub, &selector.text, index);
        } else {
            self.names.entry(hub).or_default().insert(selector.text.clone(), index);
        }
        index
    }

    /// Ends a subscription. A channel without subscribers is removed.
    pub fn unsubscribe(&mut self, seat: Seat) {
        let channel = &mut self.channels[seat.channel as usize];
        channel.leave(seat.number);
        if channel.seated() == 0 {
            let Channel { hub, selector, .. } = self.channels.remove(seat.channel as usize);
            if selector.is_pattern {
                self.patterns.remove(hub, &selector.text);
            } else if let Some(names) = self.names.get_mut(&hub) {
                names.remove(&selector.text);
            }
        }
    }

    /// The channel or the pattern of a subscription.
    pub fn selector(&self, seat: &Seat) -> &Selector {
        &self.channels[seat.channel as usize].selector
    }

    /// The place among some subscriptions of the one to exactly this channel or pattern.
    pub fn position(&self, hub: HubId, selector: &Selector, seats: &[Seat]) -> Option<usize> {
        let index = self.find(hub, selector)?;
        seats.iter().position(|seat| seat.channel == index)
    }

    /// The subscribers of a channel, in the order in which they subscribed, without those of patterns.
    pub fn subscribers(&self, hub: HubId, name: &str) -> impl Iterator<Item = Slot> + use<'_> {
        let index = self.names.get(&hub).and_then(|names| names.get(name));
        index.into_iter().flat_map(|&index| self.channels[index as usize].subscribers())
    }

    /// The patterns that match a channel, and how many steps it took to find them.
    pub fn matching(&self, hub: HubId, name: &str) -> (Numbers, usize) {
        if self.patterns.len() == 0 {
            return Default::default();
        }
        self.patterns.matching(hub, name)
    }

    /// The subscribers of such patterns, in the order in which they subscribed to each. One of several patterns comes several times.
    pub fn subscribers_of(&self, patterns: &Numbers) -> impl Iterator<Item = Slot> {
        patterns.iter().flat_map(|&index| self.channels[index as usize].subscribers())
    }

    /// How many channels have subscribers, without those of patterns.
    pub fn len(&self) -> usize {
        self.channels.len() - self.patterns.len()
    }

    /// Whether no channel and no pattern has subscribers.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }
}

impl Channel {
    fn new(hub: HubId, selector: Selector) -> Channel {
        Channel { hub, selector, slots: Vec::new(), numbers: Vec::new(), holes: 0, next: 0 }
    }

    fn subscribers(&self) -> impl Iterator<Item = Slot> + use<'_> {
        self.slots.iter().copied().filter(|&slot| slot != HOLE)
    }

    fn seated(&self) -> usize {
        self.slots.len() - self.holes
    }

    fn seat(&mut self, slot: Slot) -> u64 {
        let number = self.next;
        self.next += 1;
        self.slots.push(slot);
        self.numbers.push(number);
        number
    }

    fn leave(&mut self, number: u64) {
        let Ok(at) = self.numbers.binary_search(&number) else { return };
        if std::mem::replace(&mut self.slots[at], HOLE) != HOLE {
            self.holes += 1;
        }
        if self.holes > HOLES_MIN.max(self.seated()) {
            self.remove_holes();
        }
    }

    fn remove_holes(&mut self) {
        let slots = &self.slots;
        let mut seated = slots.iter().map(|&slot| slot != HOLE);
        self.numbers.retain(|_| seated.next() == Some(true));
        self.slots.retain(|&slot| slot != HOLE);
        self.holes = 0;
        if self.slots.capacity() > 4 * self.slots.len() + HOLES_MIN {
            self.slots.shrink_to_fit();
            self.numbers.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUB: HubId = HubId(0);

    fn subscribers(channels: &Channels, name: &str) -> Vec<Slot> {
        channels.subscribers(HUB, name).collect()
    }

    #[test]
    fn subscribers_keep_their_order_when_others_leave() {
        let mut channels = Channels::default();
        let all = Selector::name("all");
        let mut seats: Vec<_> = (0..1000).map(|slot| (slot, channels.subscribe(HUB, &all, slot))).collect();
        // Two of three leave, in a shuffled but fixed order.
        seats.sort_by_key(|(slot, _)| slot.wrapping_mul(2_654_435_761) % 1009);
        let staying: Vec<_> = seats.split_off(667);
        for (_, seat) in seats {
            channels.unsubscribe(seat);
        }
        let mut expected: Vec<_> = staying.iter().map(|(slot, _)| *slot).collect();
        expected.sort_unstable();
        assert_eq!(subscribers(&channels, "all"), expected);
        assert!(channels.channels[0].slots.len() < 1000, "holes were removed");
        for (_, seat) in staying {
            channels.unsubscribe(seat);
        }
        assert!(channels.is_empty());
        assert!(subscribers(&channels, "all").is_empty());
    }

    #[test]
    fn a_channel_is_identified_by_hub_and_name() {
        let mut channels = Channels::default();
        let name = Selector::name("a");
        channels.subscribe(HUB, &name, 1);
        channels.subscribe(HubId(1), &name, 2);
        let seat = channels.subscribe(HUB, &Selector::name("b"), 3);
        assert_eq!(subscribers(&channels, "a"), [1]);
        assert_eq!(subscribers(&channels, "b"), [3]);
        channels.unsubscribe(seat);
        channels.subscribe(HUB, &Selector::name("c"), 4);
        assert_eq!(subscribers(&channels, "a"), [1]);
        assert_eq!(channels.len(), 3);
    }
    #[test]
    fn a_pattern_has_subscribers_and_is_no_channel() {
        let mut channels = Channels::default();
        let all = Selector::pattern("news/*");
        let seats = [1, 2].map(|slot| channels.subscribe(HUB, &all, slot));
        let name = channels.subscribe(HUB, &Selector::name("news/*"), 3);
        let rest = channels.subscribe(HUB, &Selector::pattern("**"), 1);
        assert_eq!((channels.len(), channels.selector(&seats[0])), (1, &all));
        assert!(subscribers(&channels, "news/7").is_empty());
        let matching = |channels: &Channels, name: &str| {
            let (patterns, _) = channels.matching(HUB, name);
            channels.subscribers_of(&patterns).collect::<Vec<_>>()
        };
        let mut both = matching(&channels, "news/7");
        both.sort_unstable();
        assert_eq!(both, [1, 1, 2]);
        assert_eq!(matching(&channels, "other"), [1]);
        assert_eq!(channels.position(HUB, &all, &seats), Some(0));
        assert_eq!(channels.position(HUB, &Selector::name("news/*"), &seats), None);
        let [first, second] = seats;
        [first, second, rest].into_iter().for_each(|seat| channels.unsubscribe(seat));
        assert!(matching(&channels, "news/7").is_empty());
        channels.unsubscribe(name);
        assert!(channels.is_empty());
    }
}
