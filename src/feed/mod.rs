//! Feeds: what publishes by itself.
//!
//! - `tick`: at a steady pace
//! - `tail`: the lines appended to a file
//! - `command`: the lines a command writes
//!
//! A feed is one future, [`run`], that never completes; dropping it ends the feed and whatever it started. It knows an
//! [`Outlet`], not shards: publishing waits while there is no room, and a feed that waits reads nothing, so a command
//! that speaks too fast is held up by its own pipe and a file waits on its disk. What is published is always valid text, no
//! longer than the hub takes.
//!
//! A feed has begun once nothing that happens from then on can escape it: a tail knows where its file ends. Until then it
//! holds its [`Beginning`].

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use crate::config::{self, HubId, Source, Template};
use mark::Bookmark;

mod command;
mod followed;
pub mod inheritance;
mod lines;
pub mod mark;
mod tail;
mod tick;

/// Where a feed's publications go.
pub trait Outlet {
    /// Publishes `message` on `channel` of `hub`; waits while there is no room for it.
    fn publish(&self, hub: HubId, channel: &str, message: Vec<u8>) -> impl Future<Output = ()>;
}

/// Held by a feed until it has begun: who has the other end of all of them, sees when every feed has.
pub type Beginning = Sender<Infallible>;

/// How long a feed's messages may be, in bytes: what its hub takes, which a reload may change while the feed goes on.
#[derive(Debug, Clone)]
pub struct Limit(Arc<AtomicUsize>);

impl Limit {
    /// So long from now on.
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

/// Runs `feed` until dropped, from where its bookmark is. Messages longer than `message_max` are cut.
///
/// It returns only when its runtime is shutting down. Needs a runtime with time, and for a command with IO.
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

/// Makes a feed's messages and gives them to the outlet.
struct Publisher<O> {
    /// NAME in `[feed.NAME]`, for the log.
    name: String,
    hub: HubId,
    channel: String,
    message: Template,
    message_max: Limit,
    /// How many messages there were: `{n}` of the next one.
    count: u64,
    outlet: O,
    /// Moved along with each message that the outlet has.
    bookmark: Bookmark,
}

impl<O: Outlet> Publisher<O> {
    async fn publish(&mut self, line: &str) {
        let count = self.count.to_string();
        self.count += 1;
        let filled = self.message.text(|name| match name {
            "n" => Some(Cow::Borrowed(count.as_str())),
            "line" => Some(Cow::Borrowed(line)),
            _ => None,
        });
        match filled {
            Ok(mut text) => {
                text.truncate(text.floor_char_boundary(self.message_max.bytes()));
                self.outlet.publish(self.hub, &self.channel, text.into_bytes()).await;
            }
            // The configuration refuses such a template; were it not so, this says it.
            Err(missing) => log::error!("feed {}: {missing}", self.name),
        }
        self.bookmark.count(self.count);
    }
}

#[cfg(test)]
mod testing;
