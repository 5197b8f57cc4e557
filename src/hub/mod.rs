//! The core: which session receives which message.
//!
//! A [`Message`] is what somebody wants to publish. The shard that owns its channel makes a [`Publication`] of it, which all shards
//! share with its [`Encodings`]. [`Channels`] holds the subscribers of one shard, in the order in which they came. A channel's
//! [`Topic`] is its number, and its [`Partition`] decides which shard owns it. Nothing here does IO, reads a clock, logs or fails.

mod channels;
mod encodings;
mod members;
mod publication;
mod topic;

pub use channels::{Channels, Seat, Slot};
pub use encodings::{EncodingKey, Encodings};
pub use members::{Members, Membership};
pub use publication::{Kind, Message, Publication, Receipt};
pub use topic::{Partition, Topic, set_topic_key};
