//! The thread that feeds run on, apart from the shards: a command's output and a file's lines never hold up a delivery.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, LocalSet};

use crate::config::{Feed, HubId};
use crate::feed::{self, Outlet};
use crate::hub::{Kind, Publication};
use crate::shard::mailbox::{Mailbox, owner};

/// How long a feed waits before it looks for room again.
const ROOM_PAUSE: Duration = Duration::from_millis(5);

/// A feed, and the largest message its hub takes.
pub type Planned = (Feed, usize);

/// The running feeds.
#[derive(Debug)]
pub struct Feeds {
    plans: mpsc::UnboundedSender<Vec<Planned>>,
    thread: JoinHandle<()>,
}

impl Feeds {
    /// Starts the thread, with these feeds.
    ///
    /// # Errors
    /// The thread or its runtime could not be made.
    pub fn start(mailboxes: Arc<[Mailbox]>, feeds: Vec<Planned>) -> io::Result<Feeds> {
        let (plans, mut arriving) = mpsc::unbounded_channel::<Vec<Planned>>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("feeds".to_owned()).spawn(move || {
            LocalSet::new().block_on(&runtime, async move {
                let mut running = HashMap::new();
                while let Some(planned) = arriving.recv().await {
                    change(&mut running, planned, &mailboxes);
                }
            });
            // Dropping the runtime drops the feeds, and with them what they started.
        })?;
        let feeds_running = Feeds { plans, thread };
        feeds_running.change(feeds);
        Ok(feeds_running)
    }

    /// Goes by these feeds from now on; those that stay as they were go on undisturbed.
    pub fn change(&self, feeds: Vec<Planned>) {
        // The thread ends only after this handle does.
        let _ = self.plans.send(feeds);
    }

    /// Ends all feeds.
    pub fn stop(self) {
        drop(self.plans);
        if self.thread.join().is_err() {
            log::error!("the thread of the feeds ended in a panic");
        }
    }
}

fn change(running: &mut HashMap<String, (Planned, AbortHandle)>, planned: Vec<Planned>, mailboxes: &Arc<[Mailbox]>) {
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
            let task = tokio::task::spawn_local(feed::run(feed.clone(), message_bytes_max, outlet));
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
