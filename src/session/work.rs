//! What work costs, as an estimate.
//!
//! All sessions of a shard wait while one of them is served, so each turn is limited. The limit is an estimate in nanoseconds and
//! not a clock: a simulation then takes exactly the turns that a shard takes. The estimates are rough. It matters only that
//! nothing is free.

/// A read from a socket: the system call.
pub const READ: u32 = 1_000;
/// A frame: its header, its meaning, the counters.
pub const FRAME: u32 = 100;
/// A message that is published.
pub const PUBLICATION: u32 = 300;
/// A subscription that a client begins or ends: the channel is found or made, and the client is answered.
pub const SUBSCRIPTION: u32 = 2_000;
/// One of the subscriptions that the client has already: they are compared with the one it asks for.
pub const SUBSCRIPTION_BEFORE: u32 = 2;
/// A message of a page of history: it is copied, encoded, and sent.
pub const PAGE_MESSAGE: u32 = 400;
/// A message or a channel that is looked at for a page of patterns: it is found, and compared with them where its channel was not yet.
pub const LOOKED_AT: u32 = 50;
/// A session that comes to a channel with presence, or goes: two or three searches in maps.
pub const VISIT: u32 = 500;
/// An answer about who is on a channel. Most have few members.
pub const ATTENDEES: u32 = 20_000;
/// A line in the log.
pub const LOG_LINE: u32 = 5_000;
/// A write to a socket: the system call, with what the kernel does for the receiver.
pub const WRITE: u32 = 4_000;
/// The end of a session: its socket is closed, its subscriptions end.
pub const END: u32 = 8_000;
/// Bytes that are copied, unmasked and checked in a nanosecond.
const BYTES_PER_NANOSECOND: usize = 3;

/// The cost of copying, unmasking and checking so many bytes.
pub fn bytes(count: usize) -> u32 {
    u32::try_from(count / BYTES_PER_NANOSECOND).unwrap_or(u32::MAX)
}

/// The cost of so many inflated bytes: about three times that of others.
pub fn inflated(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Work that was done, and its limit.
#[derive(Debug, Default)]
pub struct Work {
    spent: u32,
    limit: u32,
}

impl Work {
    /// No work yet, and so many nanoseconds at most.
    pub fn of(nanoseconds: u32) -> Work {
        Work { spent: 0, limit: nanoseconds }
    }

    /// Adds work.
    pub fn spend(&mut self, nanoseconds: u32) {
        self.spent = self.spent.saturating_add(nanoseconds);
    }

    /// The work done. It may exceed the limit, since work is counted when it is done.
    pub fn spent(&self) -> u32 {
        self.spent
    }

    /// Whether the limit is reached.
    pub fn is_spent(&self) -> bool {
        self.spent >= self.limit
    }

    /// Raises the limit, so that at least so much more may be done.
    pub fn allow(&mut self, nanoseconds: u32) {
        self.limit = self.limit.max(self.spent.saturating_add(nanoseconds));
    }
}
