//! Who is on the channels that a shard owns, and how hubs publish who joins and who leaves.

use std::collections::HashMap;

use serde::Serialize;

use super::lane::Inquiry;
use super::table::Visit;
use crate::config::limits::{CHANNEL_BYTES_MAX, PRESENCE_MEMBERS_MAX};
use crate::config::{HubId, Template};
use crate::hub::presence::{Change, Member};
use crate::hub::{Kind, Message, Presence};
use crate::session::Seconds;

/// The presence of the channels of one shard.
#[derive(Debug, Default)]
pub struct Register {
    presence: Presence,
    /// The hubs that publish who joins and leaves.
    tellers: HashMap<HubId, Teller>,
    /// The time of the last turn.
    now: Seconds,
}

/// How a hub publishes who joins a channel and who leaves it.
#[derive(Debug, Clone)]
pub struct Teller {
    /// The channel of these messages, filled with the one that is joined or left as `channel`.
    pub template: Template,
    /// Whether the hub has history.
    pub has_history: bool,
}

/// The message about a member that has joined or left.
#[derive(Serialize)]
struct Tidings<'a> {
    event: &'static str,
    channel: &'a str,
    id: &'a str,
}

impl Register {
    /// Has these hubs publish who joins and leaves from now on, and ends a hold.
    pub fn set_tellers(&mut self, tellers: impl Iterator<Item = (HubId, Teller)>, now: Seconds) {
        self.tellers = tellers.collect();
        self.presence.settle(now);
    }

    /// Nobody joins or leaves from now on, until the hold is ended.
    pub fn hold(&mut self) {
        self.presence.hold();
    }

    /// Ends a hold.
    pub fn settle(&mut self, now: Seconds) {
        self.presence.settle(now);
    }

    /// Members that another process has told of. Only during a hold.
    pub fn expect(&mut self, members: Vec<Member>) {
        members.into_iter().for_each(|member| self.presence.expect(member));
    }

    /// The members that were told of.
    pub fn told(&self) -> impl Iterator<Item = Member> + use<'_> {
        self.presence.told()
    }

    /// Counts a session that has come or gone.
    pub fn visit(&mut self, Visit { attendance, has_come }: Visit, now: Seconds) {
        match has_come {
            true => self.presence.came(attendance),
            false => self.presence.went(attendance, now),
        }
    }

    /// Answers who is on a channel.
    pub fn answer(&self, Inquiry { hub, channel, report }: Inquiry) {
        report(self.presence.attendees(hub, &channel, PRESENCE_MEMBERS_MAX));
    }

    /// Whether a member has joined or left a channel by the last turn, and that is not told yet.
    pub fn has_changes(&self) -> bool {
        self.presence.has_changes(self.now)
    }

    /// The message about the next member that has joined or left by `now`. Looks at no more than `left` entries, and takes from `left`
    /// what it has looked at.
    pub fn next_message(&mut self, now: Seconds, left: &mut usize) -> Option<Message> {
        self.now = now;
        while let Some(change) = self.presence.next_change(now, left) {
            if let Some(message) = self.message(change) {
                return Some(message);
            }
        }
        None
    }

    /// The message about a change, if the hub publishes it.
    fn message(&self, Change { member, is_join }: Change) -> Option<Message> {
        let Member { hub, channel, id } = member;
        let Teller { template, has_history } = self.tellers.get(&hub)?;
        // The name of the channel is the only one that the template may have.
        let name = template.text(|_| Some((&*channel).into())).ok()?;
        if name.len() > CHANNEL_BYTES_MAX {
            return None;
        }
        let event = if is_join { "join" } else { "leave" };
        let text = serde_json::to_string(&Tidings { event, channel: &channel, id: &id }).ok()?;
        Some(Message::new(hub, name.into(), Kind::Text, text.into()).ordered(*has_history))
    }
}
