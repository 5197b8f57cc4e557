//! The clock of the sessions: whole seconds, which go on from one process to the next.

use std::time::Instant;

use crate::session::Seconds;

/// A clock. Its copies show the same time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    began: Instant,
    at_begin: Seconds,
}

impl Clock {
    /// A clock that shows `now`, and goes on from there.
    pub fn at(now: Seconds) -> Clock {
        Clock { began: Instant::now(), at_begin: now }
    }

    /// The present time.
    pub fn now(self) -> Seconds {
        self.at_begin + self.began.elapsed().as_secs() as Seconds
    }
}
