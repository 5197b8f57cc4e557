//! The members of channels of which the previous process has told that they have joined.

use std::collections::HashMap;

use crate::config::limits::{CHANNEL_BYTES_MAX, IDENTITY_BYTES_MAX};
use crate::hub::Partition;
use crate::hub::presence::Member;
use crate::shard::mailbox::{Command, Mailbox};
use crate::shard::parcel::{Opened, Present};
use crate::shard::{Plan, PlannedHub};

/// Gives these members to the shards that own their channels. Where no session of a member is taken up, the shard publishes that it
/// has left.
pub(super) fn expect(parcels: &mut [Opened], plan: &Plan, mailboxes: &[Mailbox]) {
    let hubs: HashMap<&str, &PlannedHub> = plan.hubs.iter().map(|hub| (hub.name.as_str(), hub)).collect();
    let mut owned: Vec<Vec<Member>> = mailboxes.iter().map(|_| Vec::new()).collect();
    for Present { hub, channel, ids } in parcels.iter_mut().flat_map(Opened::take_present) {
        let Some(hub) = hubs.get(hub.as_str()).filter(|_| channel.len() <= CHANNEL_BYTES_MAX) else { continue };
        let owner = Partition::of(hub.id, &channel, hub.history.is_some()).owner(mailboxes.len());
        let ids = ids.into_iter().filter(|id| id.len() <= IDENTITY_BYTES_MAX);
        owned[owner].extend(ids.map(|id| Member { hub: hub.id, channel: channel.clone(), id }));
    }
    for (mailbox, members) in mailboxes.iter().zip(owned) {
        mailbox.send(Command::Expect(members));
    }
}
