//! The bounded queues between shards, and what travels in them.
//!
//! A [`Request`] goes to the shard that owns a channel. A [`Delivery`] goes from the owner to all shards. No thread blocks on a lane. Its
//! limit is soft: it is exceeded by what was read before the lane was seen to be full, and by the deliveries of one turn.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::owner::{Answer, Question};
use super::table::Visit;
use crate::config::HubId;
use crate::config::limits::{INBOX_BYTES_MAX, INBOX_MESSAGES_MAX};
use crate::hub::history::Page;
use crate::hub::presence::Attendees;
use crate::hub::{Message, Publication};
use crate::session::work;

/// What is asked of the owner of a channel.
#[derive(Debug)]
pub enum Request {
    /// To publish a message.
    Publish(Message),
    /// To send a session what it has missed.
    Page(Box<Question>),
    /// To count a session that has come to a channel, or gone from it.
    Visit(Visit),
    /// To answer who is on a channel.
    Attendees(Inquiry),
}

/// The question who is on a channel.
pub struct Inquiry {
    /// The hub.
    pub hub: HubId,
    /// The channel.
    pub channel: Arc<str>,
    /// Takes the answer.
    pub report: Box<dyn FnOnce(Attendees) + Send>,
}

impl fmt::Debug for Inquiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inquiry").field("hub", &self.hub).field("channel", &self.channel).finish_non_exhaustive()
    }
}

impl Request {
    /// What it costs beside what the limits of a turn count anyway, in nanoseconds.
    pub fn work(&self) -> u32 {
        match self {
            Request::Publish(_) | Request::Page(_) => 0,
            Request::Visit(_) => work::VISIT,
            Request::Attendees(_) => work::ATTENDEES,
        }
    }
}

/// What an owner sends to the other shards.
#[derive(Debug)]
pub enum Delivery {
    /// A publication for the subscribers there.
    Publication(Arc<Publication>),
    /// What a session there has missed.
    Page(Box<Answer>),
}

/// What a lane carries.
pub trait Load {
    /// Its size in bytes.
    fn bytes(&self) -> usize;
}

impl Load for Request {
    fn bytes(&self) -> usize {
        match self {
            Request::Publish(message) => message.payload.len(),
            Request::Page(_) | Request::Visit(_) | Request::Attendees(_) => 0,
        }
    }
}

impl Load for Delivery {
    fn bytes(&self) -> usize {
        match self {
            Delivery::Publication(publication) => publication.message.payload.len(),
            Delivery::Page(answer) => answer.page.as_ref().map_or(0, Page::bytes),
        }
    }
}

/// A queue that knows what it holds.
#[derive(Debug)]
pub struct Lane<T> {
    queue: Mutex<VecDeque<T>>,
    entries: AtomicUsize,
    bytes: AtomicUsize,
}

impl<T> Default for Lane<T> {
    fn default() -> Lane<T> {
        Lane { queue: Mutex::default(), entries: AtomicUsize::default(), bytes: AtomicUsize::default() }
    }
}

impl<T: Load> Lane<T> {
    /// Whether there is room for more.
    pub fn has_room(&self) -> bool {
        self.entries.load(Ordering::Relaxed) < INBOX_MESSAGES_MAX
            && self.bytes.load(Ordering::Relaxed) < INBOX_BYTES_MAX
    }

    /// How many entries wait.
    pub fn waiting(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// Adds an entry.
    pub fn push(&self, load: T) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(load.bytes(), Ordering::Relaxed);
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(load);
    }

    /// Adds entries, with no others between them.
    pub fn push_all(&self, loads: Vec<T>) {
        self.entries.fetch_add(loads.len(), Ordering::Relaxed);
        self.bytes.fetch_add(loads.iter().map(Load::bytes).sum(), Ordering::Relaxed);
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).extend(loads);
    }

    /// Takes the oldest entry.
    pub fn pop(&self) -> Option<T> {
        if self.waiting() == 0 {
            return None;
        }
        let load = self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()?;
        self.entries.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(load.bytes(), Ordering::Relaxed);
        Some(load)
    }
}
