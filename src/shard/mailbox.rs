//! What goes between threads: publications and commands, in bounded lanes that nobody waits in.
//!
//! Every channel has one owner among the shards. A publication goes first to its owner (a request), and from there to all shards (a
//! delivery): so all subscribers of a channel hear one order. A shard takes deliveries as fast as it writes them, and writing never
//! waits; it takes requests only while every shard has room for deliveries. So requests wait for deliveries and deliveries for nothing, and no
//! ring of full lanes can form. A publisher that finds a request lane full is told so: HTTP publishers get 503, WebSocket publishers are not read meanwhile.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::Plan;
use super::counters::Counters;
use super::handover::{Packed, Returning, Step};
use super::stream::Raw;
use crate::config::limits::{INBOX_BYTES_MAX, INBOX_MESSAGES_MAX};
use crate::hub::{Members, Publication};
use crate::wire::Close;

/// How sessions are sent away.
#[derive(Debug, Clone)]
pub struct Farewell {
    /// What they are told.
    pub close: Close,
    /// Over how long that is spread, at most.
    pub window: Duration,
}

/// What a shard is told to do.
#[derive(Debug)]
pub enum Command {
    /// Serve this connection, of which so much was read, and which came in on the server of this name.
    Serve(Raw, Bytes, Arc<str>),
    /// Go by this plan from now on.
    Plan(Arc<Plan>),
    /// Take no new connections, finish what is in flight, say goodbye to sessions.
    Drain(Farewell),
    /// Go on with sessions of another process.
    TakeUp(Vec<Returning>),
    /// Take a step of handing over, and say what came of it.
    HandOver(Step, Sender<io::Result<Option<Packed>>>),
    /// End now.
    Stop,
}

/// The way to one shard, for all others.
#[derive(Debug, Default)]
pub struct Mailbox {
    commands: Mutex<Commands>,
    requests: Lane,
    deliveries: Lane,
    /// Rings when something came, or when the shard's own tasks staged something.
    pub bell: Notify,
    /// How many turns the shard has taken; it takes one every second at least, so a standstill shows.
    pub turns: AtomicU64,
    /// The connections of the shard.
    pub connections: Members,
    /// How many of them have no request in flight and wait for the next process.
    pub aside: AtomicUsize,
    /// What the shard counts.
    pub counters: Arc<Counters>,
}

/// What a shard is told and has not done yet.
#[derive(Debug, Default)]
struct Commands {
    queue: VecDeque<Command>,
    /// The shard has ended.
    is_closed: bool,
}

/// A queue of publications that knows what it holds.
#[derive(Debug, Default)]
struct Lane {
    queue: Mutex<VecDeque<Arc<Publication>>>,
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Lane {
    fn has_room(&self) -> bool {
        // A soft bound: every writer looks before it pushes, so it is exceeded by one publication each at most.
        self.messages.load(Ordering::Relaxed) < INBOX_MESSAGES_MAX
            && self.bytes.load(Ordering::Relaxed) < INBOX_BYTES_MAX
    }

    fn push(&self, publication: Arc<Publication>) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(publication.payload.len(), Ordering::Relaxed);
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(publication);
    }

    fn pop(&self) -> Option<Arc<Publication>> {
        if self.messages.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let publication = self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()?;
        self.messages.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(publication.payload.len(), Ordering::Relaxed);
        Some(publication)
    }
}

impl Mailbox {
    /// Tells the shard to do something. Commands are few: connections are bounded, and the rest comes from the operator. A shard that
    /// has ended does nothing: a command is dropped, and with it the way for an answer, so that the asker does not wait for it.
    pub fn send(&self, command: Command) {
        let mut commands = self.commands();
        if !commands.is_closed {
            commands.queue.push_back(command);
        }
        drop(commands);
        self.bell.notify_one();
    }

    /// The shard has ended: what it was told is dropped, now and from now on.
    pub fn close(&self) {
        let mut commands = self.commands();
        commands.is_closed = true;
        commands.queue.clear();
    }

    fn commands(&self) -> MutexGuard<'_, Commands> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the shard, which owns the channel, to publish.
    ///
    /// # Errors
    /// The publication, where there is no room for it.
    pub fn request(&self, publication: Arc<Publication>) -> Result<(), Arc<Publication>> {
        if !self.requests.has_room() {
            return Err(publication);
        }
        self.request_anyway(publication);
        Ok(())
    }

    /// The same for one that was read from a client while there was room.
    pub fn request_anyway(&self, publication: Arc<Publication>) {
        self.requests.push(publication);
        self.bell.notify_one();
    }

    /// Hands over a publication by its channel's owner.
    pub fn deliver(&self, publication: Arc<Publication>) {
        self.deliveries.push(publication);
        self.bell.notify_one();
    }

    /// Whether requests find room.
    pub fn has_room(&self) -> bool {
        self.requests.has_room()
    }

    /// Whether deliveries find room.
    pub fn has_room_for_deliveries(&self) -> bool {
        self.deliveries.has_room()
    }

    /// How many requests wait.
    pub fn requests_waiting(&self) -> usize {
        self.requests.messages.load(Ordering::Relaxed)
    }

    /// How many deliveries wait.
    pub fn deliveries_waiting(&self) -> usize {
        self.deliveries.messages.load(Ordering::Relaxed)
    }

    /// Whether commands wait.
    pub fn has_commands(&self) -> bool {
        !self.commands().queue.is_empty()
    }

    /// The next command.
    pub fn command(&self) -> Option<Command> {
        self.commands().queue.pop_front()
    }

    /// The next request.
    pub fn next_request(&self) -> Option<Arc<Publication>> {
        self.requests.pop()
    }

    /// The next delivery.
    pub fn next_delivery(&self) -> Option<Arc<Publication>> {
        self.deliveries.pop()
    }
}

/// Which of `shards` shards owns the channel of a publication.
pub fn owner(publication: &Publication, shards: usize) -> usize {
    publication.topic.share(shards)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_shard_that_has_ended_keeps_nobody_waiting() {
        let (mailbox, (done, answers)) = (Mailbox::default(), channel());
        mailbox.send(Command::HandOver(Step::Wait, done.clone()));
        mailbox.close();
        mailbox.send(Command::HandOver(Step::Wait, done));
        assert_eq!(answers.iter().count(), 0);
        assert!(mailbox.command().is_none());
    }
}
