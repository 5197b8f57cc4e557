//! The progress of a feed, updated with each message, so that another process can continue from there.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The progress.
#[derive(Debug, Clone, Default)]
pub struct Mark {
    /// The number of messages so far: `{n}` of the next one.
    pub count: u64,
    /// The file of a tail was looked for. A file that appears later is read from its start.
    pub begun: bool,
    /// The file that a tail reads.
    pub file: Option<FileMark>,
}

/// A file and how far it was published.
#[derive(Debug, Clone)]
pub struct FileMark {
    /// The file, whatever its name is by now.
    pub file: Arc<File>,
    /// Where the first unpublished line begins.
    pub at: u64,
    /// That is inside a line that began before the feed did.
    pub inside: bool,
}

/// A mark that the feed updates and others read.
#[derive(Debug, Clone, Default)]
pub struct Bookmark(Arc<Mutex<Mark>>);

impl Bookmark {
    /// Starts at `mark`.
    pub fn new(mark: Mark) -> Bookmark {
        Bookmark(Arc::new(Mutex::new(mark)))
    }

    /// The current mark.
    pub fn mark(&self) -> Mark {
        self.lock().clone()
    }

    pub(super) fn count(&self, count: u64) {
        self.lock().count = count;
    }

    pub(super) fn begin(&self) {
        self.lock().begun = true;
    }

    pub(super) fn file(&self, file: Option<FileMark>) {
        self.lock().file = file;
    }

    fn lock(&self) -> MutexGuard<'_, Mark> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
