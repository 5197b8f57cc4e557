//! Who is on the channels of hubs with presence, at the owner of each channel.
//!
//! A member of a channel is an identity with at least one session that is subscribed to it. When the last of these sessions has
//! ended, the member leaves after [`PRESENCE_LEAVE_DELAY`], unless a session has come meanwhile. So a page that is loaded again
//! neither leaves nor joins. Sessions without an identity are counted, and are not members.
//!
//! [`Presence::next_change`] returns each join and each leave once. During a hand-over nothing changes ([`Presence::hold`]): the
//! next process knows which members were told of, counts the sessions that it has taken up, and continues with the difference
//! ([`Presence::settle`]).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use super::topic::Partition;
use crate::config::HubId;
use crate::config::limits::PRESENCE_LEAVE_DELAY;

/// Seconds of the clock of the sessions.
type Seconds = u32;

/// The delay in whole seconds of the clock. A member may have gone at the end of a second, so one more is counted.
const LEAVE_DELAY: Seconds = PRESENCE_LEAVE_DELAY.as_secs() as Seconds + 1;
/// A table up to this size is not made smaller.
const CAPACITY_KEPT: usize = 64;

/// The subscription of a session to a channel of a hub with presence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attendance {
    /// The hub.
    pub hub: HubId,
    /// The channel.
    pub channel: Arc<str>,
    /// Whose owner knows who is on the channel: the one that orders its publications.
    pub partition: Partition,
    /// The identity of the session.
    pub identity: Option<Arc<str>>,
}

impl Attendance {
    /// On a channel of a hub. `has_history`: all channels of the hub have one owner.
    pub fn new(hub: HubId, channel: Arc<str>, identity: Option<Arc<str>>, has_history: bool) -> Attendance {
        let partition = Partition::of(hub, &channel, has_history);
        Attendance { hub, channel, partition, identity }
    }
}

/// A member of a channel. The order is only used to tell those that leave in the same second in a fixed order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// The hub.
    pub hub: HubId,
    /// The channel.
    pub channel: Arc<str>,
    /// The identity.
    pub id: Arc<str>,
}

/// A member has joined a channel or left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The member.
    pub member: Member,
    /// Whether it has joined.
    pub is_join: bool,
}

/// Who is on a channel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attendees {
    /// The first members in the order of their identities, each with the number of its sessions.
    pub members: Vec<(Arc<str>, u32)>,
    /// How many members follow.
    pub more: usize,
    /// The number of all sessions, with an identity or without.
    pub connections: u64,
}

/// Who is on the channels that one shard owns. A channel without sessions and members takes no memory.
#[derive(Debug, Default)]
pub struct Presence {
    channels: HashMap<HubId, HashMap<Arc<str>, Channel>>,
    /// Members that have joined. Each is in it once.
    joined: VecDeque<Member>,
    /// Members without a session, and when to look at them. Each is in it once.
    leaving: BinaryHeap<Reverse<(Seconds, Member)>>,
    is_held: bool,
}

#[derive(Debug, Default)]
struct Channel {
    connections: u64,
    members: BTreeMap<Arc<str>, Standing>,
}

/// What is known of a member.
#[derive(Debug, Default)]
struct Standing {
    connections: u32,
    /// When it leaves, if it has no connections.
    leaves_at: Seconds,
    /// It is in `leaving`.
    is_leaving: bool,
    told: Told,
}

/// Whether it was told that a member has joined.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Told {
    #[default]
    Not,
    /// It is in `joined`.
    Soon,
    Yes,
}

impl Presence {
    /// A session is on a channel.
    pub fn came(&mut self, Attendance { hub, channel, identity, .. }: Attendance) {
        let channels = self.channels.entry(hub).or_default();
        let here = channels.entry(channel.clone()).or_default();
        here.connections += 1;
        let Some(id) = identity else { return };
        let standing = here.members.entry(id.clone()).or_default();
        standing.connections += 1;
        if standing.told == Told::Not {
            standing.told = Told::Soon;
            self.joined.push_back(Member { hub, channel, id });
        }
    }

    /// A session that was on a channel has ended, or its subscription has.
    pub fn went(&mut self, Attendance { hub, channel, identity, .. }: Attendance, now: Seconds) {
        let Some(here) = self.channels.get_mut(&hub).and_then(|channels| channels.get_mut(&channel)) else { return };
        here.connections = here.connections.saturating_sub(1);
        if let Some(id) = identity
            && let Some(standing) = here.members.get_mut(&id)
        {
            standing.connections = standing.connections.saturating_sub(1);
            if standing.connections == 0 {
                standing.leaves_at = now + LEAVE_DELAY;
                if !std::mem::replace(&mut standing.is_leaving, true) {
                    let member = Member { hub, channel: channel.clone(), id };
                    self.leaving.push(Reverse((standing.leaves_at, member)));
                }
            }
        }
        self.forget_if_empty(hub, &channel);
    }

    /// The next member that has joined or left by `now`. Looks at no more than `left` entries, and takes from `left` what it has
    /// looked at.
    pub fn next_change(&mut self, now: Seconds, left: &mut usize) -> Option<Change> {
        while *left > 0 && !self.is_held {
            if let Some(member) = self.joined.pop_front() {
                *left -= 1;
                if let Some(standing) = self.standing(&member) {
                    standing.told = Told::Yes;
                    return Some(Change { member, is_join: true });
                }
                continue;
            }
            if self.leaving.peek().is_none_or(|Reverse((due, _))| *due > now) {
                break;
            }
            let Some(Reverse((_, member))) = self.leaving.pop() else { break };
            *left -= 1;
            if self.leave(&member, now) {
                return Some(Change { member, is_join: false });
            }
        }
        None
    }

    /// Whether there are changes by `now`.
    pub fn has_changes(&self, now: Seconds) -> bool {
        let leaves = || self.leaving.peek().is_some_and(|Reverse((due, _))| *due <= now);
        !self.is_held && (!self.joined.is_empty() || leaves())
    }

    /// Ends a membership, if it is time. Returns whether that is to be told.
    fn leave(&mut self, member: &Member, now: Seconds) -> bool {
        let Some(standing) = self.standing(member) else { return false };
        if standing.connections > 0 {
            standing.is_leaving = false;
            return false;
        }
        if standing.leaves_at > now {
            // It was back meanwhile.
            let again = (standing.leaves_at, member.clone());
            self.leaving.push(Reverse(again));
            return false;
        }
        let is_told = standing.told == Told::Yes;
        if let Some(here) = self.channels.get_mut(&member.hub).and_then(|channels| channels.get_mut(&member.channel)) {
            here.members.remove(&member.id);
        }
        self.forget_if_empty(member.hub, &member.channel);
        is_told
    }

    /// Who is on a channel: `most` of the members at most.
    pub fn attendees(&self, hub: HubId, channel: &str, most: usize) -> Attendees {
        let Some(here) = self.channels.get(&hub).and_then(|channels| channels.get(channel)) else {
            return Attendees::default();
        };
        let first = here.members.iter().take(most).map(|(id, standing)| (id.clone(), standing.connections));
        let more = here.members.len().saturating_sub(most);
        Attendees { members: first.collect(), more, connections: here.connections }
    }

    /// Nobody joins or leaves from now on. Sessions are counted.
    pub fn hold(&mut self) {
        self.is_held = true;
    }

    /// Ends a hold. Members that have come meanwhile have joined. Those without a session leave after the delay.
    pub fn settle(&mut self, now: Seconds) {
        if !std::mem::take(&mut self.is_held) {
            return;
        }
        for (&hub, channels) in &mut self.channels {
            for (channel, here) in channels {
                for (id, standing) in here.members.iter_mut().filter(|(_, standing)| standing.connections == 0) {
                    standing.leaves_at = now + LEAVE_DELAY;
                    if !std::mem::replace(&mut standing.is_leaving, true) {
                        let member = Member { hub, channel: channel.clone(), id: id.clone() };
                        self.leaving.push(Reverse((standing.leaves_at, member)));
                    }
                }
            }
        }
    }

    /// The members that were told of.
    pub fn told(&self) -> impl Iterator<Item = Member> + use<'_> {
        let channels = self.channels.iter().flat_map(|(&hub, channels)| channels.iter().map(move |here| (hub, here)));
        channels.flat_map(|(hub, (channel, here))| {
            let told = here.members.iter().filter(|(_, standing)| standing.told == Told::Yes);
            told.map(move |(id, _)| Member { hub, channel: channel.clone(), id: id.clone() })
        })
    }

    /// A member that the previous process has told of. Only during a hold.
    pub fn expect(&mut self, Member { hub, channel, id }: Member) {
        let here = self.channels.entry(hub).or_default().entry(channel).or_default();
        here.members.entry(id).or_default().told = Told::Yes;
    }

    fn standing(&mut self, member: &Member) -> Option<&mut Standing> {
        self.channels.get_mut(&member.hub)?.get_mut(&member.channel)?.members.get_mut(&member.id)
    }

    fn forget_if_empty(&mut self, hub: HubId, channel: &str) {
        let Some(channels) = self.channels.get_mut(&hub) else { return };
        if channels.get(channel).is_some_and(|here| here.connections == 0 && here.members.is_empty()) {
            channels.remove(channel);
            if channels.is_empty() {
                self.channels.remove(&hub);
            } else if channels.capacity() > CAPACITY_KEPT.max(4 * channels.len()) {
                channels.shrink_to(2 * channels.len());
            }
        }
    }
}

#[cfg(test)]
mod tests;
