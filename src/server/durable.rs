//! The store of the durable hubs. It is opened at the start, or by a reload that brings the first durable hub.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::mpsc::channel;

use super::hubs::Hubs;
use super::memory;
use crate::config::Config;
use crate::config::limits::FEED_BEGIN;
use crate::hub::{Epoch, KnownKey, Outcome, Position, Progress};
use crate::session::Seconds;
use crate::shard::Plan;
use crate::shard::disk::Disk;
use crate::shard::mailbox::Mailbox;
use crate::store::{HubState, OpenError, Store, StoredKey};

/// The durable hubs, and their store.
#[derive(Debug, Default)]
pub(super) struct Durable {
    store: Option<Store>,
    /// The hubs in it, by name.
    disks: HashMap<String, Disk>,
    /// The keys that the store knew when hubs began that no shard has got yet.
    keys: Vec<(String, Vec<StoredKey>)>,
    /// The marks that the store knew, by the name of the hub and that of the feed, until the feed begins.
    marks: HashMap<(String, String), Box<[u8]>>,
}

impl Durable {
    /// Begins the durable hubs of a configuration that have not begun yet, and has `hubs` continue their numbering. Opens the store
    /// before the first one.
    ///
    /// # Errors
    /// The store cannot be opened or written.
    pub(super) fn begin(&mut self, config: &Config, hubs: &mut Hubs) -> Result<(), OpenError> {
        let durable = || config.hubs.iter().filter(|hub| hub.durable);
        for hub in durable() {
            let Some(history) = &hub.history else { continue };
            if self.disks.contains_key(&hub.name) {
                continue;
            }
            let store = match &self.store {
                Some(store) => store.clone(),
                None => self.store.insert(open(config)?).clone(),
            };
            let state = store.hub(&hub.name, history.into()).map_err(|error| OpenError {
                message: format!("the store cannot begin the hub {}: {error}", hub.name),
                kind: error.kind(),
            })?;
            let HubState { id, epoch, next, keys, marks } = state;
            hubs.continue_from(hub.name.clone(), Position { epoch: Epoch(epoch), offset: next - 1 });
            let disk = Disk::new(store, id);
            let (known, others): (Vec<_>, _) =
                marks.into_iter().partition(|progress| is_tail(config, &hub.name, &progress.feed));
            let known = known.into_iter().map(|Progress { feed, mark }| ((hub.name.clone(), feed.into()), mark));
            self.marks.extend(known);
            forget(&disk, &others);
            self.disks.insert(hub.name.clone(), disk);
            self.keys.push((hub.name.clone(), keys));
        }
        // Nothing fails any more. A reload that is refused changes no limits, because what is deleted for them does not come back.
        for hub in durable() {
            if let (Some(disk), Some(history)) = (self.disks.get(&hub.name), &hub.history) {
                disk.set_limits(history);
            }
        }
        // One that comes back later begins again: its numbering goes on above everything that was given.
        self.disks.retain(|name, _| durable().any(|hub| hub.name == *name));
        Ok(())
    }

    /// The disk of a hub, if it is durable.
    pub(super) fn disk(&self, hub: &str) -> Option<Disk> {
        self.disks.get(hub).cloned()
    }

    /// Whether the threads of the store run, if there is one.
    pub(super) fn runs(&self) -> bool {
        self.store.as_ref().is_none_or(Store::runs)
    }

    /// What is known of the progress of a feed, if its hub has just begun.
    pub(super) fn take_mark(&mut self, hub: &str, feed: &str) -> Option<Box<[u8]>> {
        self.marks.remove(&(hub.to_owned(), feed.to_owned()))
    }

    /// Gives the hubs that have begun to the shards that own them, with their known keys. It must be done before these shards get the
    /// plan.
    pub(super) fn remember(&mut self, plan: &Plan, mailboxes: &[Mailbox], now: Seconds) {
        for (name, stored) in std::mem::take(&mut self.keys) {
            let Some(hub) = plan.hub(&name) else { continue };
            let Some(history) = &hub.history else { continue };
            let keys = stored.into_iter().map(|StoredKey { channel, key, offset, subscribers, age }| {
                let position = Some(Position { offset, ..history.beginning });
                let outcome = Outcome { subscribers, position, is_refused: false };
                KnownKey { channel, key, outcome, at: now.saturating_sub(age.as_secs() as Seconds) }
            });
            memory::give(hub, Some(history.begin(&plan.memory)), keys.collect(), mailboxes);
        }
    }

    /// Writes everything, and closes the store: the next process opens it.
    pub(super) fn close(&self) {
        if let Some(store) = &self.store {
            store.close();
        }
    }
}

/// Forgets the marks of feeds that are not configured, and waits until that is written: if one is configured again, it is a new one.
fn forget(disk: &Disk, marks: &[Progress]) {
    let (hold, written) = channel::<Infallible>();
    marks.iter().for_each(|progress| disk.keep_mark(&progress.feed, None, Some(Box::new(hold.clone()))));
    drop(hold);
    // It fails only where the disk does, and then the marks are forgotten when their hub begins the next time.
    let _ = written.recv_timeout(FEED_BEGIN);
}

/// Whether a feed of a hub is configured, and is a tail.
fn is_tail(config: &Config, hub: &str, feed: &str) -> bool {
    let mut feeds = config.feeds.iter().filter(|found| config.hubs[found.hub.0 as usize].name == hub);
    feeds.any(|found| found.name == feed && found.source.is_tail())
}

fn open(config: &Config) -> Result<Store, OpenError> {
    let directory = config.store.dir_in(std::env::var_os("STATE_DIRECTORY").as_deref());
    let is_new = !directory.exists();
    let (store, warnings) = Store::open(&directory, config.store.sync)?;
    warnings.iter().for_each(|warning| log::warn!("{warning}"));
    // A relative directory depends on where pushd was started, so the log says which one it is.
    let place = directory.canonicalize().unwrap_or(directory);
    log::info!("{} the store in {}", if is_new { "Created" } else { "Opened" }, place.display());
    Ok(store)
}
