//! A message on its way: first to the owner of its channel, which makes a publication of it, then to all subscribers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::encodings::Encodings;
use super::topic::Topic;
use crate::config::HubId;

/// What a message is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// A message that is to be published. It travels by value to the owner of its channel.
#[derive(Debug)]
pub struct Message {
    /// The hub it is published on.
    pub hub: HubId,
    /// The channel it is published on.
    pub channel: Arc<str>,
    /// The channel as a number.
    pub topic: Topic,
    /// What it is made of.
    pub kind: Kind,
    /// The message itself.
    pub payload: Bytes,
    /// Counts the subscribers it was queued for, where the publisher wants to know.
    pub receipt: Option<Receipt>,
}

impl Message {
    /// A message without a receipt.
    pub fn new(hub: HubId, channel: Arc<str>, kind: Kind, payload: Bytes) -> Message {
        let topic = Topic::of(hub, &channel);
        Message { hub, channel, topic, kind, payload, receipt: None }
    }

    /// The same with a receipt.
    #[must_use]
    pub fn with_receipt(self, receipt: Receipt) -> Message {
        Message { receipt: Some(receipt), ..self }
    }

    /// The memory it takes, in bytes. An empty message takes some, too.
    pub fn cost(&self) -> usize {
        self.payload.len() + size_of::<Publication>()
    }
}

/// A message that its channel's owner has given its place in the order. All shards share it, and it never changes.
#[derive(Debug)]
pub struct Publication {
    /// The message.
    pub message: Message,
    /// Its encodings so far.
    pub encodings: Encodings,
}

impl From<Message> for Publication {
    fn from(message: Message) -> Publication {
        Publication { message, encodings: Encodings::default() }
    }
}

/// Counts the subscribers a publication was queued for, over all shards.
///
/// The count is complete when the last shard has dropped the publication. It is reported then.
pub struct Receipt {
    reached: AtomicU64,
    report: Option<Box<dyn FnOnce(u64) + Send + Sync>>,
}

impl Receipt {
    /// A receipt that calls `report` once, with the complete count.
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
