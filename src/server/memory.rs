//! What the hubs of the previous process remembered.
//!
//! It is read twice: first which hubs there are, because the plan says from which position each hub continues, and then everything,
//! for the shards that own the hubs.

use std::collections::HashMap;
use std::sync::Arc;

use super::estate::{Inherited, wait_for_shards};
use super::hubs::Hubs;
use crate::hub::{KnownKey, Partition};
use crate::shard::histories::Written;
use crate::shard::mailbox::{Command, Mailbox};
use crate::shard::owner::Remembered;
use crate::shard::{Plan, PlannedHub};

impl Inherited {
    /// Looks at what the hubs of the previous process remembered, and has `hubs` continue their numbering.
    pub(super) fn histories(&mut self, hubs: &mut Hubs) -> Vec<Written> {
        let mut histories = Vec::new();
        for file in std::mem::take(&mut self.histories) {
            match Written::open(&file) {
                Ok(written) => histories.push(written),
                Err(error) => self.note_trouble(format!("histories of the previous process cannot be read: {error}")),
            }
        }
        for hub in histories.iter().flat_map(Written::hubs).filter(|hub| !hub.has_only_keys) {
            hubs.continue_from(hub.name.clone(), hub.position());
        }
        histories
    }
}

/// Gives what was remembered to the shards that own the hubs.
pub(super) fn remember(histories: Vec<Written>, plan: &Plan, mailboxes: &[Mailbox]) {
    let mut messages = 0;
    let mut all: HashMap<String, (Option<Remembered>, Vec<KnownKey>)> = HashMap::new();
    for written in histories {
        let hubs = written.hubs().to_vec();
        let begin = || {
            let planned = hubs.iter().map(|hub| plan.hub(&hub.name)?.history.as_ref().filter(|_| !hub.has_only_keys));
            // What a hub on disk remembers is there.
            let planned = planned.map(|history| history.filter(|history| history.disk.is_none()));
            planned.map(|history| (history.map(|history| history.begin(&plan.memory).history), Vec::new()))
        };
        let mut read: Vec<_> = begin().collect();
        if let Err(error) = written.read_into(&mut read) {
            log::error!("histories of the previous process are damaged, and begin anew: {error}");
            read = begin().collect();
            for ((history, _), hub) in read.iter_mut().zip(&hubs) {
                // What is not known any more is a gap for every client that continues from before.
                history.iter_mut().for_each(|history| history.restore_forgotten(hub.last));
            }
        }
        for (hub, (history, mut keys)) in hubs.into_iter().zip(read) {
            messages += history.as_ref().map_or(0, |history| history.size().0);
            let remembered = all.entry(hub.name).or_default();
            remembered.0 = remembered.0.take().or(history.map(Remembered::from));
            remembered.1.append(&mut keys);
        }
    }
    for (name, (remembered, mut keys)) in all {
        let Some(hub) = plan.hub(&name) else { continue };
        keys.sort_by_key(|key| key.at);
        give(hub, remembered, keys, mailboxes);
    }
    if messages > 0 {
        log::info!("Took up {messages} messages of the histories of the previous process");
    }
}

/// Gives what a hub remembers to the shards that own its channels. The oldest key comes first.
pub(super) fn give(hub: &PlannedHub, remembered: Option<Remembered>, keys: Vec<KnownKey>, mailboxes: &[Mailbox]) {
    let owner = |channel: &str| Partition::of(hub.id, channel, hub.history.is_some()).owner(mailboxes.len());
    let mut shares: Vec<(Option<Remembered>, Vec<KnownKey>)> = mailboxes.iter().map(|_| Default::default()).collect();
    if remembered.is_some() {
        shares[Partition::of_hub(hub.id).owner(mailboxes.len())].0 = remembered;
    }
    keys.into_iter().for_each(|key| shares[owner(&key.channel)].1.push(key));
    for (mailbox, share) in mailboxes.iter().zip(shares) {
        if share.0.is_some() || !share.1.is_empty() {
            mailbox.send(Command::Inherit(hub.id, Box::new(share)));
        }
    }
}

/// Has all shards own the hubs of a plan before any of them goes by it. Otherwise a message could come to an owner that does not know
/// yet that it must be remembered.
pub(super) fn own(plan: &Arc<Plan>, mailboxes: &[Mailbox]) {
    mailboxes.iter().for_each(|mailbox| mailbox.send(Command::Own(plan.clone())));
    // If a shard has ended meanwhile, the server notices that.
    wait_for_shards(mailboxes);
}
