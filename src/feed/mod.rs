//! Feeds: sources that publish by themselves.
//!
//! - `tick`: at a fixed interval
//! - `tail`: the lines appended to a file
//! - `command`: the lines a command writes
//!
//! A feed is one future, [`run`], that never completes. Dropping it ends the feed and everything it started. It knows
//! an [`Outlet`], not shards. Publishing waits while the outlet is full, and meanwhile the feed reads nothing: a
//! command that writes too fast is slowed by its pipe, and a file stays on its disk. Each message is valid text, no
//! longer than the hub's limit.
//!
//! A feed has begun once it cannot miss anything that happens from then on: a tail knows where its file ends. Until
//! then it holds its [`Beginning`].

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use crate::config::{self, HubId, Source, Template};
use mark::{Bookmark, FileMark, Mark};

mod command;
mod followed;
pub mod inheritance;
mod lines;
pub mod mark;
mod rotated;
mod tail;
mod tick;

/// The destination of a feed's publications.
pub trait Outlet {
    /// Publishes `message` on `channel` of `hub`. Waits while there is no space for it. The feed continues at `mark` after it.
    fn publish(&self, hub: HubId, channel: &str, message: Vec<u8>, mark: &Mark) -> impl Future<Output = ()>;

    /// A tail has begun: it misses nothing after `mark`. Holds `beginning` until that is kept as it has to be.
    fn begin(&self, _mark: &Mark, _beginning: Option<Beginning>) {}
}

/// A feed holds this until it has begun. When all are dropped, the receiver knows that every feed has begun.
pub type Beginning = Sender<Infallible>;

/// The longest message of a feed, in bytes. It is the limit of its hub; a reload may change it while the feed runs.
#[derive(Debug, Clone)]
pub struct Limit(Arc<AtomicUsize>);

impl Limit {
    /// Sets the limit.
    pub fn set(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl From<usize> for Limit {
    fn from(bytes: usize) -> Limit {
        Limit(Arc::new(AtomicUsize::new(bytes)))
    }
}

/// Runs `feed` until dropped, from its bookmark on. Messages longer than `message_max` are cut.
///
/// It returns only when its runtime shuts down. It needs a runtime with time, and for a command with IO.
pub async fn run(
    feed: config::Feed,
    message_max: impl Into<Limit>,
    outlet: impl Outlet,
    beginning: Beginning,
    bookmark: Bookmark,
) {
    let config::Feed { name, hub, channel, message, source } = feed;
    let count = bookmark.mark().count;
    let message_max = message_max.into();
    let publisher = Publisher { name, hub, channel, message, message_max, count, outlet, bookmark };
    match source {
        Source::Every(period) => {
            drop(beginning);
            tick::run(period, publisher).await;
        }
        Source::Tail(path) => tail::run(path, publisher, beginning).await,
        Source::Command(words) => {
            drop(beginning);
            command::run(words, publisher).await;
        }
    }
}

/// Builds a feed's messages and passes them to the outlet.
struct Publisher<O> {
    /// NAME in `[feed.NAME]`, for the log.
    name: String,
    hub: HubId,
    channel: String,
    message: Template,
    message_max: Limit,
    /// The number of messages so far: `{n}` of the next one.
    count: u64,
    outlet: O,
    /// Updated after each message that the outlet took.
    bookmark: Bookmark,
}

impl<O: Outlet> Publisher<O> {
    /// The outlet learns from where the feed continues if nothing is published yet.
    fn begin(&self, file: Option<FileMark>, beginning: Option<Beginning>) {
        let mark = Mark { count: self.count, begun: true, file };
        self.outlet.begin(&mark, beginning);
        self.bookmark.set(mark);
    }

    async fn publish(&mut self, line: &str) {
        self.publish_from(line, None).await;
    }

    /// Publishes a line, after which a tail continues at this place.
    async fn publish_from(&mut self, line: &str, file: Option<FileMark>) {
        let count = self.count.to_string();
        self.count += 1;
        let mark = Mark { count: self.count, begun: true, file };
        let filled = self.message.text(|name| match name {
            "n" => Some(Cow::Borrowed(count.as_str())),
            "line" => Some(Cow::Borrowed(line)),
            _ => None,
        });
        match filled {
            Ok(mut text) => {
                text.truncate(text.floor_char_boundary(self.message_max.bytes()));
                self.outlet.publish(self.hub, &self.channel, text.into_bytes(), &mark).await;
            }
            // The configuration refuses such a template, so this should not happen.
            Err(missing) => log::error!("feed {}: {missing}", self.name),
        }
        self.bookmark.set(mark);
    }
}

#[cfg(test)]
mod testing;
