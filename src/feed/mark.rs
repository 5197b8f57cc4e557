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
    /// The file, whatever its name is by now. `None`: it is found by its inode.
    pub file: Option<Arc<File>>,
    /// The inode of the file; 0 if only the file is known.
    pub inode: u64,
    /// Where the first unpublished line begins.
    pub at: u64,
    /// That is inside a line that began before the feed did.
    pub inside: bool,
    /// The last bytes before that. If they do not stand there any more, the file was rewritten.
    pub before: Vec<u8>,
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

    pub(super) fn set(&self, mark: Mark) {
        *self.lock() = mark;
    }

    pub(super) fn set_file(&self, file: Option<FileMark>) {
        self.lock().file = file;
    }

    fn lock(&self) -> MutexGuard<'_, Mark> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
