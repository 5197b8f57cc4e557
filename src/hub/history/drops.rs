//! Up to which offset each channel has dropped messages: what a client has missed that continues from an earlier one.
//!
//! Channels that hold no messages any more are remembered too, up to a limit. Beyond it, those that dropped longest ago are
//! forgotten. Then a client that continues from before is told of a gap in every channel that is not known.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::config::limits::{GAP_CHANNELS_MAX, TOMBSTONES_MAX};
use crate::hub::Selector;

/// How many entries are looked at for one that may be forgotten.
const LOOKED_AT_MAX: usize = 4096;

/// The channels of a hub that have dropped messages.
#[derive(Debug, Default)]
pub(super) struct Drops {
    by_name: HashMap<Arc<str>, u64>,
    /// The same by offset. No two channels have dropped the same message.
    by_offset: BTreeMap<u64, Arc<str>>,
    /// Channels that are not known may have dropped messages up to here.
    forgotten: u64,
}

impl Drops {
    /// The channel has dropped everything up to `offset`.
    pub fn note(&mut self, channel: Arc<str>, offset: u64) {
        if let Some(before) = self.by_name.insert(channel.clone(), offset) {
            self.by_offset.remove(&before);
        }
        self.by_offset.insert(offset, channel);
    }

    /// Up to which offset a channel has dropped messages.
    pub fn of(&self, channel: &str) -> u64 {
        self.by_name.get(channel).copied().unwrap_or(self.forgotten)
    }

    /// The same as far as it is noted. 0: it is not.
    pub fn noted(&self, channel: &str) -> u64 {
        self.by_name.get(channel).copied().unwrap_or(0)
    }

    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        self.by_offset.iter().map(|(offset, channel)| (channel, *offset))
    }

    /// Notes that channels which are not known may have dropped messages up to here.
    pub fn forget_up_to(&mut self, offset: u64) {
        self.forgotten = self.forgotten.max(offset);
    }

    /// Forgets what is asked of the store: everything up to `floor`.
    pub fn forget_up_to_floor(&mut self, floor: u64) {
        while let Some(first) = self.by_offset.first_entry().filter(|first| *first.key() <= floor) {
            let name = first.remove();
            self.by_name.remove(&name);
        }
    }

    /// Forgets the oldest channels that hold no messages, where there are too many. `holds` says whether a channel does.
    pub fn limit(&mut self, holds: impl Fn(&str) -> bool) {
        while self.by_name.len() > TOMBSTONES_MAX {
            let mut candidates = self.by_offset.iter().take(LOOKED_AT_MAX);
            let Some((&offset, name)) = candidates.find(|(_, name)| !holds(name)) else { return };
            let name = name.clone();
            self.by_offset.remove(&offset);
            self.by_name.remove(&name);
            self.forget_up_to(offset);
        }
    }

    /// Of what is selected, what has dropped messages after `since`: names of channels, or the pattern where they are too many. Adds
    /// to `looked_at` how many entries it has looked at.
    pub fn after(&self, selector: &Selector, since: u64, looked_at: &mut usize) -> Vec<Arc<str>> {
        if !selector.is_pattern {
            return if self.of(&selector.text) > since { vec![selector.text.clone()] } else { Vec::new() };
        }
        if self.forgotten > since {
            return vec![selector.text.clone()];
        }
        let dropped = self.by_offset.range(since + 1..).map(|(_, name)| name).inspect(|_| *looked_at += 1);
        let names: Vec<_> = dropped.filter(|name| selector.selects(name)).take(GAP_CHANNELS_MAX + 1).cloned().collect();
        if names.len() <= GAP_CHANNELS_MAX { names } else { vec![selector.text.clone()] }
    }
}
