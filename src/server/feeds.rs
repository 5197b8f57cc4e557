//! The thread of the feeds, separate from the shards, so that a command's output or a slow file never delays a
//! delivery.
//!
//! Starting or changing feeds waits until the new ones have begun. So a line is published if it was appended to a file
//! after the server reported that it serves, or that it was reloaded.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, LocalSet};

use super::durable::Durable;
use super::progress::{self, Keeper, StoppedFeed, source_key};
use crate::config::limits::{BLOCKED_FILE, FEED_BEGIN};
use crate::config::{Feed, HubId};
use crate::feed::mark::{Bookmark, Mark};
use crate::feed::{self, Beginning, Limit, Outlet};
use crate::http::HubInUse;
use crate::hub::{Kind, Message};
use crate::shard::disk::Disk;
use crate::shard::mailbox::Mailbox;

/// How long a feed waits before it tries a full lane again, or a disk that accepts nothing.
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
    /// Where its progress is kept, if it is a tail of a durable hub.
    pub disk: Option<Disk>,
    /// What is known of its progress there, if its hub has just begun.
    pub kept: Option<Box<[u8]>>,
}

impl Planned {
    /// A feed of a configuration with these hubs.
    pub(super) fn new(feed: &Feed, hubs: &[HubInUse], durable: &mut Durable) -> Planned {
        let HubInUse { id, hub, .. } = &hubs[feed.hub.0 as usize];
        Planned {
            feed: Feed { hub: *id, ..feed.clone() },
            message_bytes_max: hub.message_bytes_max,
            has_history: hub.history.is_some(),
            disk: durable.disk(&hub.name).filter(|_| feed.source.is_tail()),
            kept: durable.take_mark(&hub.name, &feed.name),
        }
    }
}

/// The feeds that run, by name.
type Running = HashMap<String, (Feed, Limit, AbortHandle, Bookmark)>;

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
            let stopped = running.into_iter().map(|(name, (feed, _, _, bookmark))| {
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
    let mut ended = HashMap::new();
    running.retain(|name, (feed, limit, task, bookmark)| {
        let stays = planned.iter().find(|planned| planned.feed == *feed);
        match stays {
            Some(planned) => limit.set(planned.message_bytes_max),
            None => {
                task.abort();
                ended.insert(name.clone(), (feed.clone(), bookmark.mark()));
            }
        }
        stays.is_some()
    });
    for Planned { feed, message_bytes_max, has_history, disk, kept } in planned {
        let name = feed.name.clone();
        running.entry(name).or_insert_with(|| {
            // Another message is no reason to miss a line.
            let is_before = |before: &Feed| before.hub == feed.hub && before.source == feed.source;
            let before = ended.remove(&feed.name).filter(|(before, _)| is_before(before) && before.source.is_tail());
            let is_new = before.is_none();
            let mark = before.map(|(_, mark)| mark);
            let mark = mark.or_else(|| progress::continued(&feed, &mut stopped, kept.as_deref()));
            if mark.is_none() && disk.is_some() {
                log::info!("feed {}: nothing is known of earlier lines; begins at the end of its file", feed.name);
            }
            let mark = mark.unwrap_or_default();
            let keeper = disk.map(|disk| Keeper::new(disk, &feed, is_new));
            let outlet = Lanes { mailboxes: mailboxes.clone(), has_history, keeper };
            let bookmark = Bookmark::new(mark);
            let limit = Limit::from(message_bytes_max);
            let run = feed::run(feed.clone(), limit.clone(), outlet, beginning.clone(), bookmark.clone());
            (feed, limit, tokio::task::spawn_local(run).abort_handle(), bookmark)
        });
    }
}

/// The outlet of a feed: the request lane of the channel's owner.
struct Lanes {
    mailboxes: Arc<[Mailbox]>,
    has_history: bool,
    keeper: Option<Keeper>,
}

impl Outlet for Lanes {
    async fn publish(&self, hub: HubId, channel: &str, message: Vec<u8>, mark: &Mark) {
        let message = Message::new(hub, channel.into(), Kind::Text, Bytes::from(message));
        let mut message = message.ordered(self.has_history);
        if let Some(keeper) = &self.keeper {
            // The owner refuses none of these messages, so that none is missing before the next one.
            while !keeper.disk.accepts() {
                tokio::time::sleep(LANE_PAUSE).await;
            }
            message = message.with_receipt(keeper.receipt(mark));
        }
        let owner = message.partition.owner(self.mailboxes.len());
        while let Err(refused) = self.mailboxes[owner].request(message) {
            message = refused;
            tokio::time::sleep(LANE_PAUSE).await;
        }
    }

    fn begin(&self, mark: &Mark, beginning: Option<Beginning>) {
        if let Some(keeper) = &self.keeper {
            keeper.begin(mark, beginning.map(|beginning| Box::new(beginning) as Box<dyn Send>));
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
    use crate::config::{Source, Template};

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
            Planned { feed, message_bytes_max: 64, has_history: false, disk: None, kept: None }
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
