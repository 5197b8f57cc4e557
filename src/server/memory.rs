//! What the hubs of the previous process remembered.
//!
//! It is read twice: first which hubs there are, because the plan says from which position each hub continues, and then everything,
//! for the shards that own the hubs.

use super::estate::Inherited;
use super::hubs::Hubs;
use crate::hub::{History, Keys, Partition};
use crate::shard::Plan;
use crate::shard::histories::{HubRecord, Written};
use crate::shard::mailbox::{Command, Mailbox};

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
        for hub in histories.iter().flat_map(Written::hubs) {
            hubs.continue_from(hub.name.clone(), hub.position());
        }
        histories
    }
}

/// Gives what was remembered to the shards that own the hubs.
pub(super) fn remember(histories: Vec<Written>, plan: &Plan, mailboxes: &[Mailbox]) {
    let mut messages = 0;
    for written in histories {
        let hubs = written.hubs().to_vec();
        let mut remembered: Vec<_> = hubs.iter().map(|hub| Some((continued(hub, plan)?, Keys::default()))).collect();
        if let Err(error) = written.read_into(&mut remembered) {
            log::error!("histories of the previous process are damaged, and begin anew: {error}");
            // What is not known any more is a gap for every client that continues from before.
            remembered = hubs.iter().map(|hub| Some((forgetful(hub, plan)?, Keys::default()))).collect();
        }
        for (hub, remembered) in hubs.iter().zip(remembered) {
            let Some((remembered, planned)) = remembered.zip(plan.hubs.iter().find(|planned| planned.name == hub.name))
            else {
                continue;
            };
            messages += remembered.0.size().0;
            let owner = Partition::of_hub(planned.id).owner(mailboxes.len());
            mailboxes[owner].send(Command::Remember(planned.id, Box::new(remembered)));
        }
    }
    if messages > 0 {
        log::info!("Took up {messages} messages of the histories of the previous process");
    }
}

/// The history of a hub that continues, without its messages. `None`: it has no history any more.
fn continued(hub: &HubRecord, plan: &Plan) -> Option<History> {
    let planned = plan.hubs.iter().find(|planned| planned.name == hub.name)?;
    let limits = planned.history.as_ref()?.limits;
    Some(History::new(hub.position(), limits, false, plan.memory.clone()))
}

/// The same, if its messages cannot be read.
fn forgetful(hub: &HubRecord, plan: &Plan) -> Option<History> {
    let mut history = continued(hub, plan)?;
    history.restore_forgotten(hub.last);
    Some(history)
}
