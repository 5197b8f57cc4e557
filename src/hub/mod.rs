//! The core: which session receives which message.
//!
//! A [`Message`] is what somebody wants to publish. The shard that owns its channel makes a [`Publication`] of it, which all shards
//! share with its [`Encodings`]. [`Channels`] holds the subscribers of one shard, in the order in which they came. A channel's
//! [`Topic`] is its number, and its [`Partition`] decides which shard owns it. A hub with [`History`] has one owner, which gives each
//! publication its [`Position`], and remembers it. [`Presence`] is who is on channels. Nothing here does IO, reads a clock, logs or fails.

mod channels;
mod encodings;
pub mod history;
mod idempotency;
mod members;
mod patterns;
mod position;
pub mod presence;
mod publication;
mod receipt;
mod selector;
mod topic;

pub use channels::{Channels, Seat, Slot};
pub use encodings::{EncodingKey, Encodings};
pub use history::History;
pub use idempotency::{Keys, KnownKey};
pub use members::{Members, Membership};
pub use position::{Epoch, Position, Since};
pub use presence::Presence;
pub use publication::{Kind, Message, Publication};
pub use receipt::{Outcome, Progress, Receipt, Report};
pub use selector::Selector;
pub use topic::{Partition, Topic, set_topic_key};
