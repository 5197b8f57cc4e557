//! The store of the durable hubs. It is opened at the start, or by a reload that brings the first durable hub.

use std::collections::HashMap;

use super::hubs::Hubs;
use crate::config::Config;
use crate::hub::history::HistoryLimits;
use crate::hub::{Epoch, History, Keys, Outcome, Partition, Position};
use crate::session::Seconds;
use crate::shard::Plan;
use crate::shard::disk::Disk;
use crate::shard::mailbox::{Command, Mailbox};
use crate::store::{HubState, OpenError, Store, StoredKey};

/// The durable hubs, and their store.
#[derive(Debug, Default)]
pub(super) struct Durable {
    store: Option<Store>,
    /// The hubs in it, by name.
    disks: HashMap<String, Disk>,
    /// The keys that the store knew when each hub began.
    keys: Vec<(String, Vec<StoredKey>)>,
}

impl Durable {
    /// Begins the durable hubs of a configuration that have not begun yet, and has `hubs` continue their numbering. Opens the store
    /// before the first one.
    ///
    /// # Errors
    /// The store cannot be opened or written.
    pub(super) fn begin(&mut self, config: &Config, hubs: &mut Hubs) -> Result<(), OpenError> {
        for hub in config.hubs.iter().filter(|hub| hub.durable) {
            let Some(history) = &hub.history else { continue };
            if let Some(disk) = self.disks.get(&hub.name) {
                disk.set_limits(history);
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
            let HubState { id, epoch, next, keys } = state;
            hubs.continue_from(hub.name.clone(), Position { epoch: Epoch(epoch), offset: next - 1 });
            self.disks.insert(hub.name.clone(), Disk::new(store, id));
            self.keys.push((hub.name.clone(), keys));
        }
        Ok(())
    }

    /// The disk of a hub, if it is durable.
    pub(super) fn disk(&self, hub: &str) -> Option<Disk> {
        self.disks.get(hub).cloned()
    }

    /// Gives the known keys of the hubs that have begun to the shards that own them. It is the second `now` there.
    pub(super) fn remember_keys(&mut self, plan: &Plan, mailboxes: &[Mailbox], now: Seconds) {
        for (name, stored) in std::mem::take(&mut self.keys) {
            let Some(planned) = plan.hubs.iter().find(|planned| planned.name == name) else { continue };
            let Some(history) = &planned.history else { continue };
            let mut keys = Keys::default();
            for StoredKey { channel, key, offset, subscribers, age } in stored {
                let position = Some(Position { offset, ..history.beginning });
                let at = now.saturating_sub(age.as_secs() as Seconds);
                keys.restore(&channel, &key, Outcome { subscribers, position, is_refused: false }, at);
            }
            let limits: HistoryLimits = history.limits;
            let remembered = History::new(history.beginning, limits, true, plan.memory.clone());
            let owner = Partition::of_hub(planned.id).owner(mailboxes.len());
            mailboxes[owner].send(Command::Remember(planned.id, Box::new((remembered, keys))));
        }
    }

    /// Writes everything, and closes the store: the next process opens it.
    pub(super) fn close(&self) {
        if let Some(store) = &self.store {
            store.close();
        }
    }
}

fn open(config: &Config) -> Result<Store, OpenError> {
    let directory = config.store.dir_in(std::env::var_os("STATE_DIRECTORY").as_deref());
    let (store, warnings) = Store::open(&directory, config.store.sync)?;
    warnings.iter().for_each(|warning| log::warn!("{warning}"));
    log::info!("Opened the store in {}", directory.display());
    Ok(store)
}
