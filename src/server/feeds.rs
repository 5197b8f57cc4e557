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
use crate::config::{Feed, HubId};
use crate::feed::{self, Beginning, Outlet};
use crate::hub::{Kind, Publication};
use crate::shard::mailbox::{Mailbox, owner};

/// How long a feed waits before it looks for room again.
const ROOM_PAUSE: Duration = Duration::from_millis(5);

/// A feed, and the largest message its hub takes.
pub type Planned = (Feed, usize);

/// The running feeds.
#[derive(Debug)]
pub struct Feeds {
    plans: mpsc::UnboundedSender<(Vec<Planned>, Beginning)>,
    thread: JoinHandle<()>,
}

impl Feeds {
    /// Starts the thread, with these feeds.
    ///
    /// # Errors
    /// The thread or its runtime could not be made.
    pub fn start(mailboxes: Arc<[Mailbox]>, feeds: Vec<Planned>) -> io::Result<Feeds> {
        let (plans, mut arriving) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("feeds".to_owned()).spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, async move {
                let mut running = HashMap::new();
                while let Some((planned, beginning)) = arriving.recv().await {
                    change(&mut running, planned, &mailboxes, &beginning);
                }
            });
            // This drops the feeds, and with them what they started.
            drop(local);
            runtime.shutdown_timeout(BLOCKED_FILE);
        })?;
        let feeds_running = Feeds { plans, thread };
        feeds_running.change(feeds);
        Ok(feeds_running)
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

    /// Ends all feeds.
    pub fn stop(self) {
        drop(self.plans);
        if self.thread.join().is_err() {
            log::error!("the thread of the feeds ended in a panic");
        }
    }
}

fn change(
    running: &mut HashMap<String, (Planned, AbortHandle)>,
    planned: Vec<Planned>,
    mailboxes: &Arc<[Mailbox]>,
    beginning: &Beginning,
) {
    running.retain(|_, (feed, task)| {
        let stays = planned.contains(feed);
        if !stays {
            task.abort();
        }
        stays
    });
    for (feed, message_bytes_max) in planned {
        let name = feed.name.clone();
        running.entry(name).or_insert_with(|| {
            let outlet = Lanes(mailboxes.clone());
            let task = tokio::task::spawn_local(feed::run(feed.clone(), message_bytes_max, outlet, beginning.clone()));
            ((feed, message_bytes_max), task.abort_handle())
        });
    }
}

/// Where feeds publish: the lane of the channel's owner.
struct Lanes(Arc<[Mailbox]>);

impl Outlet for Lanes {
    async fn publish(&self, hub: HubId, channel: &str, message: Vec<u8>) {
        let publication = Publication::new(hub, channel.into(), Kind::Text, Bytes::from(message));
        let owner = owner(&publication, self.0.len());
        let mut publication = Arc::new(publication);
        while let Err(refused) = self.0[owner].request(publication) {
            publication = refused;
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
    use crate::config::{Source, Template};

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
        let running = Feeds::start(mailboxes.clone(), feeds.collect()).unwrap();
        for n in 0..FILES {
            OpenOptions::new().append(true).open(path(n)).unwrap().write_all(b"new\n").unwrap();
        }
        let (mut heard, start) = (0, Instant::now());
        while heard < FILES {
            assert!(start.elapsed() < Duration::from_secs(60), "{heard} of {FILES}");
            match mailboxes[0].next_request() {
                Some(_) => heard += 1,
                None => std::thread::yield_now(),
            }
        }
        running.stop();
    }
}
