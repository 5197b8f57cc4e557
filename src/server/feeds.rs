//! The thread of the feeds, separate from the shards, so that a command's output or a slow file never delays a
//! delivery.
//!
//! Starting or changing feeds waits until the new ones have begun. So a line is published if it was appended to a file
//! after the server reported that it serves, or that it was reloaded.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, LocalSet};

use crate::config::limits::{BLOCKED_FILE, FEED_BEGIN};
use crate::config::{Feed, HubId, Source};
use crate::feed::mark::{Bookmark, Mark};
use crate::feed::{self, Beginning, Limit, Outlet};
use crate::hub::{Kind, Message};
use crate::shard::mailbox::Mailbox;

/// How long a feed waits before it tries a full lane again.
const LANE_PAUSE: Duration = Duration::from_millis(5);

/// A feed, and what it must know of its hub.
#[derive(Debug)]
pub struct Planned {
    /// The feed.
    pub feed: Feed,
    /// The largest message that the hub accepts, in bytes.
    pub message_bytes_max: usize,
    /// Whether the hub has history. Then one shard owns all its channels.
    pub has_history: bool,
}

/// A feed that has ended here, and that another process may continue.
#[derive(Debug)]
pub struct StoppedFeed {
    /// NAME in `[feed.NAME]`.
    pub name: String,
    /// Identifies its source: the feed is continued only if its source is still the same.
    pub source_key: Vec<u8>,
    /// Its progress.
    pub mark: Mark,
}

/// The feeds that run, by name.
type Running = HashMap<String, (Feed, Limit, Lanes, AbortHandle, Bookmark)>;

/// The thread of the feeds.
#[derive(Debug)]
pub struct Feeds {
    plans: mpsc::UnboundedSender<(Vec<Planned>, Beginning)>,
    thread: JoinHandle<Vec<StoppedFeed>>,
}

impl Feeds {
    /// Starts the thread, without any feed. The feeds in `stopped` are continued once they are configured.
    ///
    /// # Errors
    /// The thread or its runtime could not be created.
    pub fn start(mailboxes: Arc<[Mailbox]>, stopped: Vec<StoppedFeed>) -> io::Result<Feeds> {
        let (plans, mut arriving) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("feeds".to_owned()).spawn(move || {
            let local = LocalSet::new();
            let running = local.block_on(&runtime, async move {
                let (mut running, mut stopped) = (Running::new(), stopped);
                while let Some((planned, beginning)) = arriving.recv().await {
                    change(&mut running, planned, std::mem::take(&mut stopped), &mailboxes, &beginning);
                }
                running
            });
            // This drops the feeds, and everything they started.
            drop(local);
            runtime.shutdown_timeout(BLOCKED_FILE);
            let stopped = running.into_iter().map(|(name, (feed, _, _, _, bookmark))| {
                let (source_key, mark) = (source_key(&feed.source), bookmark.mark());
                StoppedFeed { name, source_key, mark }
            });
            stopped.collect()
        })?;
        Ok(Feeds { plans, thread })
    }

    /// Applies a new list of feeds; unchanged feeds continue undisturbed. Returns once the new ones have begun, or
    /// after a time limit: a file may lie on a file system that does not answer.
    pub fn change(&self, feeds: Vec<Planned>) {
        let (beginning, begun) = std::sync::mpsc::channel();
        // The thread ends only after this handle is dropped.
        let _ = self.plans.send((feeds, beginning));
        if begun.recv_timeout(FEED_BEGIN) == Err(RecvTimeoutError::Timeout) {
            log::warn!("a feed's file is slow to open: lines appended before it is open are not published");
        }
    }

    /// Ends all feeds and returns their progress.
    pub fn stop(self) -> Vec<StoppedFeed> {
        drop(self.plans);
        self.thread.join().unwrap_or_else(|_| {
            log::error!("the thread of the feeds ended in a panic");
            Vec::new()
        })
    }
}

fn change(
    running: &mut Running,
    planned: Vec<Planned>,
    mut stopped: Vec<StoppedFeed>,
    mailboxes: &Arc<[Mailbox]>,
    beginning: &Beginning,
) {
    running.retain(|_, (feed, limit, outlet, task, _)| {
        let stays = planned.iter().find(|planned| planned.feed == *feed);
        match stays {
            Some(Planned { message_bytes_max, has_history, .. }) => {
                limit.set(*message_bytes_max);
                outlet.has_history.store(*has_history, Ordering::Relaxed);
            }
            None => task.abort(),
        }
        stays.is_some()
    });
    for Planned { feed, message_bytes_max, has_history } in planned {
        let name = feed.name.clone();
        running.entry(name).or_insert_with(|| {
            let key = source_key(&feed.source);
            let before = stopped.iter().position(|stopped| stopped.name == feed.name && stopped.source_key == key);
            let mark = before.map_or_else(Mark::default, |at| stopped.swap_remove(at).mark);
            let has_history = Arc::new(AtomicBool::new(has_history));
            let (outlet, bookmark) = (Lanes { mailboxes: mailboxes.clone(), has_history }, Bookmark::new(mark));
            let limit = Limit::from(message_bytes_max);
            let run = feed::run(feed.clone(), limit.clone(), outlet.clone(), beginning.clone(), bookmark.clone());
            (feed, limit, outlet, tokio::task::spawn_local(run).abort_handle(), bookmark)
        });
    }
}

/// A feed's source as bytes that can be compared.
fn source_key(source: &Source) -> Vec<u8> {
    match source {
        Source::Every(_) => b"every".to_vec(),
        Source::Tail(path) => [b"tail ", path.as_os_str().as_encoded_bytes()].concat(),
        Source::Command(words) => format!("command {}", words.join("\0")).into_bytes(),
    }
}

/// The outlet of a feed: the request lane of the channel's owner.
#[derive(Clone)]
struct Lanes {
    mailboxes: Arc<[Mailbox]>,
    /// Whether the hub has history. A reload may change it.
    has_history: Arc<AtomicBool>,
}

impl Outlet for Lanes {
    async fn publish(&self, hub: HubId, channel: &str, message: Vec<u8>) {
        let message = Message::new(hub, channel.into(), Kind::Text, Bytes::from(message));
        let mut message = message.ordered(self.has_history.load(Ordering::Relaxed));
        let owner = message.partition.owner(self.mailboxes.len());
        while let Err(refused) = self.mailboxes[owner].request(message) {
            message = refused;
            tokio::time::sleep(LANE_PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::time::Instant;

    use tempfile::TempDir;

    use super::*;
    use crate::config::Template;

    /// So many that they cannot all have begun by chance.
    const FILES: usize = 64;

    #[test]
    fn lines_appended_after_the_start_of_feeds_are_published() {
        let directory = TempDir::new().unwrap();
        let path = |n: usize| directory.path().join(n.to_string());
        let feeds = (0..FILES).map(|n| {
            std::fs::write(path(n), "old\n").unwrap();
            let message = Template::parse("{line}").unwrap();
            let (hub, channel) = (HubId(0), "all".to_owned());
            let feed = Feed { name: n.to_string(), hub, channel, message, source: Source::Tail(path(n)) };
            Planned { feed, message_bytes_max: 64, has_history: false }
        });
        let mailboxes: Arc<[Mailbox]> = [Mailbox::default()].into();
        let running = Feeds::start(mailboxes.clone(), Vec::new()).unwrap();
        running.change(feeds.collect());
        for n in 0..FILES {
            OpenOptions::new().append(true).open(path(n)).unwrap().write_all(b"new\n").unwrap();
        }
        let (mut published, start) = (0, Instant::now());
        while published < FILES {
            assert!(start.elapsed() < Duration::from_secs(60), "{published} of {FILES}");
            match mailboxes[0].requests().pop() {
                Some(_) => published += 1,
                None => std::thread::yield_now(),
            }
        }
        running.stop();
    }
}
