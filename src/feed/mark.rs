//! How far a feed has come: noted with each message, for another process that goes on from there.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How far.
#[derive(Debug, Clone, Default)]
pub struct Mark {
    /// How many messages there were: `{n}` of the next one.
    pub count: u64,
    /// The file of a tail was looked for: one that is found later is read from its start.
    pub begun: bool,
    /// Where a tail stands.
    pub place: Option<Place>,
}

/// A place in a file.
#[derive(Debug, Clone)]
pub struct Place {
    /// The file, whatever its name is by now.
    pub file: Arc<File>,
    /// Where the first line begins that was not published.
    pub at: u64,
    /// That is inside of a line that began before the feed did.
    pub inside: bool,
}

/// A mark that a feed moves along, and others look at.
#[derive(Debug, Clone, Default)]
pub struct Bookmark(Arc<Mutex<Mark>>);

impl Bookmark {
    /// One that begins here.
    pub fn new(mark: Mark) -> Bookmark {
        Bookmark(Arc::new(Mutex::new(mark)))
    }

    /// Where it is.
    pub fn mark(&self) -> Mark {
        self.lock().clone()
    }

    pub(super) fn count(&self, count: u64) {
        self.lock().count = count;
    }

    pub(super) fn begin(&self) {
        self.lock().begun = true;
    }

    pub(super) fn place(&self, place: Option<Place>) {
        self.lock().place = place;
    }

    fn lock(&self) -> MutexGuard<'_, Mark> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
