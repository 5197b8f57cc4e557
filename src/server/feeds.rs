//! The thread that feeds run on, apart from the shards: a command's output and a file's lines never hold up a delivery.
//!
//! Whoever starts or changes them waits until the new ones have begun: a line appended to a file after the server said that
//! it serves, or goes by another configuration, is heard.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
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

/// How long a feed waits before it looks for room again.
const ROOM_PAUSE: Duration = Duration::from_millis(5);

/// A feed, and the largest message its hub takes.
pub type Planned = (Feed, usize);

/// A feed that another process goes on with.
#[derive(Debug)]
pub struct Left {
    /// NAME in `[feed.NAME]`.
    pub name: String,
    /// Where its messages come from: as long as that is the same, it goes on.
    pub origin: Vec<u8>,
    /// How far it has come.
    pub mark: Mark,
}

/// The feeds that run, by name.
type Running = HashMap<String, (Feed, Limit, AbortHandle, Bookmark)>;

/// The running feeds.
#[derive(Debug)]
pub struct Feeds {
    plans: mpsc::UnboundedSender<(Vec<Planned>, Beginning)>,
    thread: JoinHandle<Vec<Left>>,
}

impl Feeds {
    /// Starts the thread, without any feed; those that another process `left` go on once they are asked for.
    ///
    /// # Errors
    /// The thread or its runtime could not be made.
    pub fn start(mailboxes: Arc<[Mailbox]>, left: Vec<Left>) -> io::Result<Feeds> {
        let (plans, mut arriving) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("feeds".to_owned()).spawn(move || {
            let local = LocalSet::new();
            let running = local.block_on(&runtime, async move {
                let (mut running, mut left) = (Running::new(), left);
                while let Some((planned, beginning)) = arriving.recv().await {
                    change(&mut running, planned, std::mem::take(&mut left), &mailboxes, &beginning);
                }
                running
            });
            // This drops the feeds, and with them what they started.
            drop(local);
            runtime.shutdown_timeout(BLOCKED_FILE);
            let left = running.into_iter().map(|(name, (feed, _, _, bookmark))| {
                let (origin, mark) = (origin(&feed.source), bookmark.mark());
                Left { name, origin, mark }
            });
            left.collect()
        })?;
        Ok(Feeds { plans, thread })
    }

    /// Goes by these feeds from now on; those that stay as they were go on undisturbed. Returns once the new ones have
    /// begun, or would keep the caller for too long: a file may lie where nobody answers.
    pub fn change(&self, feeds: Vec<Planned>) {
        let (beginning, begun) = std::sync::mpsc::channel();
        // The thread ends only after this handle does.
        let _ = self.plans.send((feeds, beginning));
        if begun.recv_timeout(FEED_BEGIN) == Err(RecvTimeoutError::Timeout) {
            log::warn!("a feed's file is slow to open: lines appended until it is are not heard");
        }
    }

    /// Ends all feeds; how far they have come.
    pub fn stop(self) -> Vec<Left> {
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
    mut left: Vec<Left>,
    mailboxes: &Arc<[Mailbox]>,
    beginning: &Beginning,
) {
    running.retain(|_, (feed, limit, task, _)| {
        let stays = planned.iter().find(|(planned, _)| planned == feed);
        match stays {
            Some((_, message_bytes_max)) => limit.set(*message_bytes_max),
            None => task.abort(),
        }
        stays.is_some()
    });
    for (feed, message_bytes_max) in planned {
        let name = feed.name.clone();
        running.entry(name).or_insert_with(|| {
            let before = left.iter().position(|left| left.name == feed.name && left.origin == origin(&feed.source));
            let mark = before.map_or_else(Mark::default, |at| left.swap_remove(at).mark);
            let (outlet, bookmark) = (Lanes(mailboxes.clone()), Bookmark::new(mark));
            let limit = Limit::from(message_bytes_max);
            let run = feed::run(feed.clone(), limit.clone(), outlet, beginning.clone(), bookmark.clone());
            (feed, limit, tokio::task::spawn_local(run).abort_handle(), bookmark)
        });
    }
}

/// Where a feed's messages come from, as bytes to compare.
fn origin(source: &Source) -> Vec<u8> {
    match source {
        Source::Every(_) => b"every".to_vec(),
        Source::Tail(path) => [b"tail ", path.as_os_str().as_encoded_bytes()].concat(),
        Source::Command(words) => format!("command {}", words.join("\0")).into_bytes(),
    }
}

/// Where feeds publish: the lane of the channel's owner.
struct Lanes(Arc<[Mailbox]>);

impl Outlet for Lanes {
    async fn publish(&self, hub: HubId, channel: &str, message: Vec<u8>) {
        let mut message = Message::new(hub, channel.into(), Kind::Text, Bytes::from(message));
        let owner = message.topic.partition().owner(self.0.len());
        while let Err(refused) = self.0[owner].request(message) {
            message = refused;
            tokio::time::sleep(ROOM_PAUSE).await;
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

    /// So many that none could have begun by luck.
    const FILES: usize = 64;

    #[test]
    fn lines_appended_once_feeds_have_started_are_heard() {
        let directory = TempDir::new().unwrap();
        let path = |n: usize| directory.path().join(n.to_string());
        let feeds = (0..FILES).map(|n| {
            std::fs::write(path(n), "old\n").unwrap();
            let message = Template::parse("{line}").unwrap();
            let (hub, channel) = (HubId(0), "all".to_owned());
            (Feed { name: n.to_string(), hub, channel, message, source: Source::Tail(path(n)) }, 64)
        });
        let mailboxes: Arc<[Mailbox]> = [Mailbox::default()].into();
        let running = Feeds::start(mailboxes.clone(), Vec::new()).unwrap();
        running.change(feeds.collect());
        for n in 0..FILES {
            OpenOptions::new().append(true).open(path(n)).unwrap().write_all(b"new\n").unwrap();
        }
        let (mut heard, start) = (0, Instant::now());
        while heard < FILES {
            assert!(start.elapsed() < Duration::from_secs(60), "{heard} of {FILES}");
            match mailboxes[0].requests().pop() {
                Some(_) => heard += 1,
                None => std::thread::yield_now(),
            }
        }
        running.stop();
    }
}
