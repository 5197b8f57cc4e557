//! A message on its way: first to the owner of its channel, which makes a publication of it, then to all subscribers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::encodings::Encodings;
use super::position::Position;
use super::receipt::Receipt;
use super::topic::{Partition, Topic};
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
    /// Whose owner gives it its place in the order: the channel's partition, or that of its hub.
    pub partition: Partition,
    /// Whether it must be remembered, because its hub has history.
    pub has_history: bool,
    /// What it is made of.
    pub kind: Kind,
    /// The message itself.
    pub payload: Bytes,
    /// Tells the publisher what became of it, where the publisher wants to know.
    pub receipt: Option<Box<Receipt>>,
}

impl Message {
    /// A message without a receipt.
    pub fn new(hub: HubId, channel: Arc<str>, kind: Kind, payload: Bytes) -> Message {
        let topic = Topic::of(hub, &channel);
        Message { hub, channel, topic, partition: topic.partition(), has_history: false, kind, payload, receipt: None }
    }

    /// The same, in the one order of all channels of its hub if that has history.
    #[must_use]
    pub fn ordered(self, has_history: bool) -> Message {
        let partition = if has_history { Partition::of_hub(self.hub) } else { self.partition };
        Message { partition, has_history, ..self }
    }

    /// The same with a receipt.
    #[must_use]
    pub fn with_receipt(self, receipt: Receipt) -> Message {
        Message { receipt: Some(Box::new(receipt)), ..self }
    }

    /// Tells the publisher, where it wants to know, that the message is not kept.
    pub fn refuse(&self) {
        if let Some(receipt) = &self.receipt {
            receipt.refuse();
        }
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
    /// Its position, if its hub has history.
    pub position: Option<Position>,
    /// Its encodings so far.
    pub encodings: Encodings,
    /// Whether the disk of its hub has it, or cannot write it now.
    is_settled: AtomicBool,
}

impl Publication {
    /// The disk has it, or cannot write it now.
    pub fn settle(&self) {
        self.is_settled.store(true, Ordering::Release);
    }

    /// Whether that is so.
    pub fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Acquire)
    }

    /// The same with a position.
    #[must_use]
    pub fn at(self, position: Option<Position>) -> Publication {
        Publication { position, ..self }
    }
}

impl From<Message> for Publication {
    fn from(message: Message) -> Publication {
        Publication { message, position: None, encodings: Encodings::default(), is_settled: AtomicBool::new(false) }
    }
}
