//! What goes between threads: commands, and publications in bounded lanes ([`super::lane`]).
//!
//! Every channel has one owner among the shards. A message goes to the owner first, as a request, and from there to all shards, as
//! deliveries. So all subscribers of a channel receive one order. A shard takes deliveries as fast as it writes them, and writing never
//! waits. It takes requests only while every shard has room for deliveries. So requests wait for deliveries, deliveries wait for
//! nothing, and full lanes cannot form a ring. A publisher that finds the lane of requests full is told so: over HTTP by 503, over a
//! WebSocket by not being read meanwhile.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::Plan;
use super::counters::Counters;
use super::handover::{Packed, Returning, Step};
use super::lane::{Delivery, Lane, Request};
use super::owner::Remembered;
use super::stream::Raw;
use crate::config::HubId;
use crate::hub::presence::Member;
use crate::hub::{KnownKey, Members, Message};
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
    /// Remember what is published on the hubs of this plan. When all shards do, they get the plan itself.
    Own(Arc<Plan>),
    /// Go by this plan from now on.
    Plan(Arc<Plan>),
    /// Take no new connections, finish what is in flight, say goodbye to sessions.
    Drain(Farewell),
    /// Go on with these members of channels that the shard owns: another process has told of them.
    Expect(Vec<Member>),
    /// Go on with sessions of another process.
    TakeUp(Vec<Returning>),
    /// Go on with what was remembered of a hub, and with the keys of the channels that this shard owns.
    Inherit(HubId, Box<(Option<Remembered>, Vec<KnownKey>)>),
    /// Take a step of handing over, and say what came of it.
    HandOver(Step, Sender<io::Result<Option<Packed>>>),
    /// End now.
    Stop,
}

/// The way to one shard, for all others.
#[derive(Debug, Default)]
pub struct Mailbox {
    commands: Mutex<Commands>,
    requests: Lane<Request>,
    deliveries: Lane<Delivery>,
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

    /// Asks the shard, which owns the channel, to publish a message.
    ///
    /// # Errors
    /// There is no room for it: the message comes back.
    pub fn request(&self, message: Message) -> Result<(), Message> {
        if !self.requests.has_room() {
            return Err(message);
        }
        self.request_anyway(message);
        Ok(())
    }

    /// The same for a message that was read from a client while there was room.
    pub fn request_anyway(&self, message: Message) {
        self.ask(Request::Publish(message));
    }

    /// Asks the shard to publish messages, one after the other, whether there is room or not. It is woken once.
    pub fn request_all(&self, messages: Vec<Message>) {
        self.requests.push_all(messages.into_iter().map(Request::Publish).collect());
        self.bell.notify_one();
    }

    /// Asks something of the shard, whether there is room or not.
    pub fn ask(&self, request: Request) {
        self.requests.push(request);
        self.bell.notify_one();
    }

    /// Delivers what an owner sends.
    pub fn deliver(&self, delivery: Delivery) {
        self.deliveries.push(delivery);
        self.bell.notify_one();
    }

    /// The lane of requests.
    pub fn requests(&self) -> &Lane<Request> {
        &self.requests
    }

    /// The lane of deliveries.
    pub fn deliveries(&self) -> &Lane<Delivery> {
        &self.deliveries
    }

    /// Whether commands wait.
    pub fn has_commands(&self) -> bool {
        !self.commands().queue.is_empty()
    }

    /// The next command.
    pub fn command(&self) -> Option<Command> {
        self.commands().queue.pop_front()
    }
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
