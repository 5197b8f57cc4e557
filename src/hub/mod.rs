//! The core: who hears what.
//!
//! [`Channels`] is one shard's part of it: the channels that have subscribers here, each with its subscribers in opening
//! order. A [`Publication`] is what travels: opaque bytes, where they go, and the framings they were given so far. Nothing
//! here does IO, reads a clock, logs or fails.

mod channels;
mod members;
mod publication;

pub use channels::{Channels, Seat, Slot};
pub use members::{Members, Membership};
pub use publication::{FRAMINGS_MAX, Kind, Publication, Receipt, Topic, set_topic_key};
