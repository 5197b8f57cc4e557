//! Presence between the shards: sessions that come and go are reported to the owners of their channels, and the owners publish who
//! has joined and who has left.

use super::Relay;
use crate::config::limits::PRESENCE_CHANGES_PER_TURN;
use crate::hub::Partition;
use crate::session::Socket;
use crate::shard::lane::{Inquiry, Request};
use crate::shard::table::Table;

impl Relay {
    /// Reports the sessions that have come and gone to the owners of the channels.
    pub fn relay_visits<S: Socket>(&self, table: &mut Table<S>) {
        for visit in table.take_visits() {
            match self.owner_of(visit.attendance.partition) {
                owner if owner == self.index => self.register().visit(visit, table.now()),
                owner => self.mailboxes[owner].ask(Request::Visit(visit)),
            }
        }
    }

    /// Asks who is on a channel. Returns whether there was room for the question.
    pub fn inquire(&self, inquiry: Inquiry, partition: Partition) -> bool {
        let owner = self.owner_of(partition);
        if owner == self.index {
            self.register().answer(inquiry);
            return true;
        }
        let has_room = self.mailboxes[owner].requests().has_room();
        if has_room {
            self.mailboxes[owner].ask(Request::Attendees(inquiry));
        }
        has_room
    }

    /// Publishes who has joined and left the channels that this shard owns, as much as a turn may.
    pub(super) fn tell_changes<S: Socket>(&self, table: &mut Table<S>) {
        let (now, mut left) = (table.now(), PRESENCE_CHANGES_PER_TURN);
        while left > 0 && !table.is_flushing() && !table.is_turn_full() && self.has_room() {
            let Some(message) = self.register().next_message(now, &mut left) else { break };
            self.publish_in_order(message, table);
        }
    }
}
