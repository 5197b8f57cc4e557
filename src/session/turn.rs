//! What a session uses of its shard while it is served, and where it puts what it wants done.

use super::Seconds;
use super::run::Run;
use super::work::Work;
use crate::hub::{Message, Selector, Since};
use crate::wire::deflate::Inflater;

/// What a transition of a session uses of the shard.
#[derive(Debug)]
pub struct Turn<'t> {
    /// Inflates compressed messages, for one session at a time.
    pub inflater: &'t mut Inflater,
    /// What the session wants done.
    pub acts: Acts<'t>,
}

/// What sessions want done: frames that are written to the client, messages that are published, events that are counted.
#[derive(Debug)]
pub struct Acts<'t> {
    /// The time.
    pub now: Seconds,
    /// The run of the session's encoding: replies are staged in it.
    pub run: &'t mut Run,
    /// How large that run may be before no more replies are made.
    pub run_cost_max: usize,
    /// The messages to publish.
    pub published: &'t mut Published,
    /// The subscriptions to begin and end.
    pub wishes: &'t mut Vec<Wish>,
    /// How much work is done, and may be.
    pub work: &'t mut Work,
    /// What is to be counted.
    pub tally: &'t mut Tally,
}

/// What a client wants changed of its subscriptions.
#[derive(Debug, PartialEq, Eq)]
pub enum Wish {
    /// To subscribe, from a position if there is one.
    Subscribe(Selector, Option<Since>),
    /// To end a subscription.
    Unsubscribe(Selector),
}

/// Messages of sessions, on their way to the owners of their channels.
#[derive(Debug, Default)]
pub struct Published {
    messages: Vec<Message>,
    cost: usize,
}

/// Counts of what happened to sessions.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Messages received from clients.
    pub received: u64,
    /// Replies that a framing cannot carry.
    pub unspeakable: u64,
    /// Messages dropped because their subscribers were slow.
    pub dropped: u64,
    /// Sessions closed because they were slow.
    pub slow: u64,
    /// Sessions closed because they broke the protocol or a limit.
    pub violations: u64,
    /// Sessions closed because a ping was not answered.
    pub silent: u64,
}

impl Acts<'_> {
    /// Whether so much is staged in reply that nothing more is heard for now.
    pub fn has_replied_enough(&self) -> bool {
        self.run.cost() >= self.run_cost_max
    }
}

impl Published {
    /// Adds a message.
    pub fn push(&mut self, message: Message) {
        self.cost += message.cost();
        self.messages.push(message);
    }

    /// The memory that the messages take, in bytes.
    pub fn cost(&self) -> usize {
        self.cost
    }

    /// Takes the messages out, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = Message> + use<'_> {
        self.cost = 0;
        self.messages.drain(..)
    }
}
