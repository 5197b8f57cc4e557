//! Pages of a history: what a client has missed, in order, a bounded part at a time.

use std::collections::HashMap;
use std::sync::Arc;

use super::ring::Kept;
use super::{History, Seconds};
use crate::hub::{Position, Selector, Since};

/// How many messages are looked at for a page of patterns. Most of them may be of other channels.
const LOOKED_AT_MAX: usize = 4096;

/// How much a page holds. One message always fits.
#[derive(Debug, Clone, Copy)]
pub struct PageLimits {
    /// Messages.
    pub messages: usize,
    /// Bytes of payloads.
    pub bytes: usize,
}

/// A part of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The messages, in order.
    pub messages: Vec<Kept>,
    /// Up to where it has been read: all that was selected up to here is in this page, or came before.
    pub position: Position,
    /// Whether nothing is after it.
    pub is_end: bool,
    /// The channels that have lost messages after `since`.
    pub gone: Vec<Arc<str>>,
    /// Where a client begins with the oldest messages: the channels of patterns that have lost messages before. It is told of these by
    /// no page, because it has asked for the oldest ones, or is told that the pattern has a gap.
    pub gone_before: Vec<Arc<str>>,
}

/// Where the next messages are.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Here.
    Here {
        /// The messages.
        page: Page,
        /// How many messages and channels were looked at for patterns, whether they are selected or not.
        looked_at: usize,
    },
    /// In the store.
    InStore {
        /// After this offset.
        since: u64,
        /// Up to this one.
        until: u64,
        /// The channels in which a client must be told of a gap, whatever the store finds.
        gone: Vec<Arc<str>>,
        /// As in a page, beside what the store finds.
        gone_before: Vec<Arc<str>>,
        /// As above.
        looked_at: usize,
    },
}

impl History {
    /// The messages after `since` of everything selected.
    pub fn page(&mut self, selectors: &[Selector], since: Since, limits: PageLimits, now: Seconds) -> Found {
        let (after, is_known) = match since {
            Since::Earliest => (0, true),
            Since::After(position) if position.epoch == self.epoch && position.offset <= self.last => {
                (position.offset, true)
            }
            Since::After(_) | Since::Unknown => (0, false),
        };
        let (mut gone, mut looked_at) = (Vec::new(), 0);
        if !is_known {
            gone = selectors.iter().map(|selector| selector.text.clone()).collect();
        }
        if self.is_backed && after < self.floor {
            let begins = !is_known || since == Since::Earliest;
            let gone_before = if begins { self.dropped_of_patterns(selectors, &mut looked_at) } else { Vec::new() };
            return Found::InStore { since: after, until: self.floor, gone, gone_before, looked_at };
        }
        let has_patterns = selectors.iter().any(|selector| selector.is_pattern);
        if has_patterns {
            self.expire(now, LOOKED_AT_MAX);
        } else {
            self.limit_selected(selectors, now);
        }
        if is_known && since != Since::Earliest {
            for selector in selectors {
                let more = self.drops.after(selector, after, &mut looked_at);
                gone.extend(more.into_iter().filter(|name| !gone.contains(name)).collect::<Vec<_>>());
            }
        }
        let gone_before = if after == 0 { self.dropped_of_patterns(selectors, &mut looked_at) } else { Vec::new() };
        let (messages, read_to) = match has_patterns {
            true => self.scan(selectors, after, limits, &mut looked_at),
            false => self.merge(selectors, after, limits),
        };
        let is_end = read_to.is_none();
        let position = self.at(read_to.unwrap_or(self.last));
        Found::Here { page: Page { messages, position, is_end, gone, gone_before }, looked_at }
    }

    /// The channels of patterns that have dropped something.
    fn dropped_of_patterns(&self, selectors: &[Selector], looked_at: &mut usize) -> Vec<Arc<str>> {
        let patterns = selectors.iter().filter(|selector| selector.is_pattern);
        patterns.flat_map(|pattern| self.drops.after(pattern, 0, looked_at)).collect()
    }

    /// Applies the limits to channels that are about to be read.
    fn limit_selected(&mut self, selectors: &[Selector], now: Seconds) {
        for selector in selectors {
            if let Some(&index) = self.names.get(&selector.text) {
                self.limit(index, now);
            }
            if let Some(&index) = self.names.get(&selector.text) {
                self.note_reading(index);
            }
        }
    }

    /// The messages of some channels, merged in order; and the offset up to which they were read, unless nothing is left.
    fn merge(&self, selectors: &[Selector], after: u64, limits: PageLimits) -> (Vec<Kept>, Option<u64>) {
        let mut rings = Vec::with_capacity(selectors.len());
        for selector in selectors {
            if let Some(&index) = self.names.get(&selector.text)
                && !rings.iter().any(|(other, _)| *other == index)
            {
                rings.push((index, self.rings[index as usize].first_after(after)));
            }
        }
        let (mut messages, mut bytes) = (Vec::new(), 0);
        loop {
            let heads = rings.iter_mut().filter_map(|(index, at)| {
                let ring = &self.rings[*index as usize];
                ring.at(*at).map(|entry| (entry, &ring.name, at))
            });
            let Some((entry, name, at)) = heads.min_by_key(|(entry, ..)| entry.offset) else { return (messages, None) };
            if limits.are_reached(messages.len(), bytes, entry.payload.len()) {
                let read_to = messages.last().map_or(after, |last: &Kept| last.offset);
                return (messages, Some(read_to));
            }
            bytes += entry.payload.len();
            messages.push(entry.kept(name));
            *at += 1;
        }
    }

    /// The same for patterns: looks at all messages, in order.
    fn scan(
        &mut self,
        selectors: &[Selector],
        after: u64,
        limits: PageLimits,
        looked_at: &mut usize,
    ) -> (Vec<Kept>, Option<u64>) {
        let start = self.order.partition_point(|(offset, _)| *offset <= after);
        // Whether each channel is selected. Many messages are of few channels.
        let mut selected = HashMap::new();
        let (mut messages, mut bytes, mut read_to) = (Vec::new(), 0, after);
        for &(offset, index) in self.order.range(start..).take(LOOKED_AT_MAX) {
            *looked_at += 1;
            let Some(ring) = self.rings.get(index as usize) else { continue };
            let Some(entry) = ring.find(offset) else { continue };
            let is_selected =
                *selected.entry(index).or_insert_with(|| selectors.iter().any(|selector| selector.selects(&ring.name)));
            if is_selected {
                if limits.are_reached(messages.len(), bytes, entry.payload.len()) {
                    return (messages, Some(read_to));
                }
                bytes += entry.payload.len();
                messages.push(entry.kept(&ring.name));
            }
            read_to = offset;
        }
        let is_end = self.order.len() <= start + LOOKED_AT_MAX;
        let read: Vec<u32> = selected.into_iter().filter_map(|(index, is)| is.then_some(index)).collect();
        read.into_iter().for_each(|index| self.note_reading(index));
        (messages, (!is_end).then_some(read_to))
    }
}

impl Found {
    /// How many messages and channels were looked at for patterns.
    pub fn looked_at(&self) -> usize {
        let (Found::Here { looked_at, .. } | Found::InStore { looked_at, .. }) = self;
        *looked_at
    }
}

impl Page {
    /// The bytes of its payloads.
    pub fn bytes(&self) -> usize {
        self.messages.iter().map(|message| message.payload.len()).sum()
    }
}

impl PageLimits {
    /// Whether a page with so many messages and bytes is full, so that a message of `more` bytes does not fit.
    fn are_reached(&self, messages: usize, bytes: usize, more: usize) -> bool {
        messages > 0 && (messages >= self.messages || bytes + more > self.bytes)
    }
}
