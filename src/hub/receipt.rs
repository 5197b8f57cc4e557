//! What a publisher is told of its message, once everything about it is known.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::position::Position;

/// What became of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The number of subscribers it was queued for.
    pub subscribers: u64,
    /// Its position, if its hub has history.
    pub position: Option<Position>,
    /// It could not be kept as its hub promises.
    pub is_refused: bool,
}

/// How far a feed has come with a message. It is kept with the message: both or neither.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The name of the feed.
    pub feed: Box<str>,
    /// From where it continues after the message, as the feed reads it.
    pub mark: Box<[u8]>,
}

/// Counts the subscribers a publication was queued for, over all shards.
///
/// The count is complete when the last holder has dropped the publication: the shards, and for a hub on disk its store, which holds
/// it until it is written. It is reported then.
pub struct Receipt {
    reached: AtomicU64,
    is_refused: AtomicBool,
    position: Option<Position>,
    key: Option<Box<str>>,
    progress: Option<Progress>,
    report: Option<Box<dyn FnOnce(Outcome) + Send + Sync>>,
}

impl Receipt {
    /// A receipt that calls `report` once, with the complete outcome.
    pub fn new(report: impl FnOnce(Outcome) + Send + Sync + 'static) -> Receipt {
        let report: Option<Box<dyn FnOnce(Outcome) + Send + Sync>> = Some(Box::new(report));
        let (reached, is_refused) = (AtomicU64::new(0), AtomicBool::new(false));
        Receipt { reached, is_refused, position: None, key: None, progress: None, report }
    }

    /// The same with a key: a message with the same key on the same channel is the same message.
    #[must_use]
    pub fn with_key(mut self, key: Option<Box<str>>) -> Receipt {
        self.key = key;
        self
    }

    /// The same with the progress of the feed that publishes the message.
    #[must_use]
    pub fn with_progress(mut self, progress: Progress) -> Receipt {
        self.progress = Some(progress);
        self
    }

    /// The progress of the feed that publishes the message.
    pub fn progress(&self) -> Option<&Progress> {
        self.progress.as_ref()
    }

    /// The key of the message.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Adds the subscribers of one shard.
    pub fn add(&self, reached: u64) {
        // Relaxed is enough: dropping the last reference to the publication orders the additions before the reading.
        self.reached.fetch_add(reached, Ordering::Relaxed);
    }

    /// The message cannot be kept as its hub promises.
    pub fn refuse(&self) {
        self.is_refused.store(true, Ordering::Relaxed);
    }

    /// Notes the position of the message.
    pub fn set_position(&mut self, position: Position) {
        self.position = Some(position);
    }

    /// Has `before` called with the outcome, and with the report that is to be made of it.
    pub fn intercept(&mut self, before: impl FnOnce(Outcome, Report) + Send + Sync + 'static) {
        if let Some(report) = self.report.take() {
            self.report = Some(Box::new(move |outcome| before(outcome, report)));
        }
    }

    /// Takes the report out: nothing is reported by this receipt any more.
    pub fn into_report(mut self) -> Option<Report> {
        self.report.take()
    }
}

/// Tells the publisher.
pub type Report = Box<dyn FnOnce(Outcome) + Send + Sync>;

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(report) = self.report.take() {
            let (subscribers, is_refused) = (*self.reached.get_mut(), *self.is_refused.get_mut());
            report(Outcome { subscribers, position: self.position, is_refused });
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt")
            .field("reached", &self.reached)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
