//! What travels: bytes for a channel, framed at most once for each framing, whichever shard asks first.

use std::fmt;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::config::HubId;

/// How many framings (framings of the wire) a publication has room for.
pub const FRAMINGS_MAX: usize = 3;

/// What a message is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// A channel as a number: what conflation and the choice of a channel's owner go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic(u64);

/// The process's own key of topics. Clients may choose the names of channels: with a key they do not know, they cannot choose
/// names that all fall to one owner.
static KEY: OnceLock<u64> = OnceLock::new();

/// Gives topics this key instead of one of chance, so that a simulation is the same each time. Too late once there is a topic.
pub fn set_topic_key(key: u64) {
    KEY.get_or_init(|| key);
}

impl Topic {
    /// The topic of a channel. Two channels of one session share one by an accident of 64 bits, or never.
    pub fn of(hub: HubId, channel: &str) -> Topic {
        let mut hasher = DefaultHasher::new();
        let key = KEY.get_or_init(|| RandomState::new().hash_one(0));
        (key, hub, channel).hash(&mut hasher);
        Topic(hasher.finish())
    }

    /// One of `count` shares, the same for the same channel.
    pub fn share(self, count: usize) -> usize {
        (self.0 % count as u64) as usize
    }
}

/// One message on its way to the subscribers of a channel; shared by all shards, never changed.
#[derive(Debug)]
pub struct Publication {
    /// The hub it is published on.
    pub hub: HubId,
    /// The channel it goes to.
    pub channel: Arc<str>,
    /// The same as a number.
    pub topic: Topic,
    /// What it is made of.
    pub kind: Kind,
    /// The message itself.
    pub payload: Bytes,
    /// Counts whom it reached, where the publisher wants to know.
    pub receipt: Option<Receipt>,
    framings: [OnceLock<Bytes>; FRAMINGS_MAX],
}

impl Publication {
    /// A publication not framed yet.
    pub fn new(hub: HubId, channel: Arc<str>, kind: Kind, payload: Bytes) -> Publication {
        let topic = Topic::of(hub, &channel);
        Publication { hub, channel, topic, kind, payload, receipt: None, framings: Default::default() }
    }

    /// The same, with a receipt.
    #[must_use]
    pub fn with_receipt(self, receipt: Receipt) -> Publication {
        Publication { receipt: Some(receipt), ..self }
    }

    /// What it holds of memory, in bytes: an empty message is not nothing.
    pub fn cost(&self) -> usize {
        self.payload.len() + size_of::<Publication>()
    }

    /// Its frame in framing number `framing`, made by `frame` on first need.
    pub fn framed(&self, framing: usize, frame: impl FnOnce() -> Bytes) -> &Bytes {
        self.framings[framing].get_or_init(frame)
    }
}

/// Counts the subscribers a publication was queued for, over all shards.
///
/// The publication carries it; when the last shard has let go of the publication the count is whole, and is handed over.
pub struct Receipt {
    reached: AtomicU64,
    report: Option<Box<dyn FnOnce(u64) + Send + Sync>>,
}

impl Receipt {
    /// A receipt that gives the whole count to `report`, once.
    pub fn new(report: impl FnOnce(u64) + Send + Sync + 'static) -> Receipt {
        Receipt { reached: AtomicU64::new(0), report: Some(Box::new(report)) }
    }

    /// Adds the subscribers of one shard.
    pub fn add(&self, reached: u64) {
        // Relaxed is enough: dropping the last reference to the publication orders the additions before the reading.
        self.reached.fetch_add(reached, Ordering::Relaxed);
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(report) = self.report.take() {
            report(*self.reached.get_mut());
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("reached", &self.reached).finish_non_exhaustive()
    }
}
