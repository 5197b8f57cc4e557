//! A channel as a number, and the partition it belongs to.
//!
//! Clients may choose the names of channels. The hash is SipHash-1-3 with a key that each process draws at random, so a client
//! cannot choose names that all fall into one partition and overload the shard that owns it. Nothing that is written for another
//! process depends on this number: channels are written by name.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

use siphasher::sip::SipHasher13;

use crate::config::HubId;

/// How many partitions all channels are divided into. Shards share the partitions, so the number is far above that of shards,
/// and it stays the same when the number of shards changes.
pub const PARTITIONS: usize = 4096;

/// A channel as a number. Conflation compares channels by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Topic(u64);

/// One of `PARTITIONS` groups of channels. All publications of one partition are ordered by one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition(u16);

static KEY: OnceLock<u64> = OnceLock::new();

/// Sets the key of topics for this process, so that a simulation is repeatable. Without effect once a topic was made.
pub fn set_topic_key(key: u64) {
    KEY.get_or_init(|| key);
}

impl Topic {
    /// The topic of a channel: SipHash-1-3 of the hub's number (4 bytes, little endian) and the channel's name. Two channels have
    /// the same topic with a probability of 2^-64.
    pub fn of(hub: HubId, channel: &str) -> Topic {
        let key = *KEY.get_or_init(|| RandomState::new().hash_one(0));
        let mut hasher = SipHasher13::new_with_keys(key, 0);
        hasher.write(&hub.0.to_le_bytes());
        hasher.write(channel.as_bytes());
        Topic(hasher.finish())
    }

    /// The partition of the channel.
    pub fn partition(self) -> Partition {
        Partition((self.0 % PARTITIONS as u64) as u16)
    }
}

impl Partition {
    /// The partition of a channel. `has_history`: the hub has one, so all its channels have one order, and one owner.
    pub fn of(hub: HubId, channel: &str, has_history: bool) -> Partition {
        if has_history { Partition::of_hub(hub) } else { Topic::of(hub, channel).partition() }
    }

    /// The partition of a hub with history.
    pub fn of_hub(hub: HubId) -> Partition {
        Partition((hub.0 as usize % PARTITIONS) as u16)
    }

    /// Which of `shards` shards owns the partition.
    pub fn owner(self, shards: usize) -> usize {
        usize::from(self.0) % shards
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_owns_its_share_of_channels() {
        for shards in [1, 2, 3, 7] {
            let mut owned = vec![0; shards];
            for n in 0..10_000 {
                owned[Topic::of(HubId(0), &format!("user/{n}")).partition().owner(shards)] += 1;
            }
            let fair = 10_000 / shards;
            assert!(owned.iter().all(|&owned| owned > fair * 9 / 10 && owned < fair * 11 / 10), "{owned:?}");
        }
    }

    #[test]
    fn channels_of_two_hubs_with_one_name_are_two_topics() {
        assert_eq!(Topic::of(HubId(1), "news"), Topic::of(HubId(1), "news"));
        assert_ne!(Topic::of(HubId(1), "news"), Topic::of(HubId(2), "news"));
    }
}
