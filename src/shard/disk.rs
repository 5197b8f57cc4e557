//! The disk of a durable hub: what its owner asks of the store.
//!
//! The store holds a publication until it is written. So the receipt of a publisher, which is sent when the last holder lets go, means
//! that the message is on the disk. The owner delivers it then, and not before. Nobody waits for a page of the store: it comes by the
//! lane of deliveries, as every page does.

use std::sync::Arc;

use super::lane::Delivery;
use super::mailbox::Mailbox;
use super::owner::{Answer, Question};
use crate::config;
use crate::config::limits::HISTORY_PAGE_BYTES_MAX;
use crate::hub::history::{Kept, Page};
use crate::hub::{Epoch, Message, Outcome, Position, Publication, Since};
use crate::store::{Entry, Hold, PageQuery, Store, StoredHub, StoredMessage, StoredPage};

/// A hub in the store.
#[derive(Debug, Clone)]
pub struct Disk {
    store: Store,
    hub: StoredHub,
}

/// A publication that waits to be written. What is not written is refused.
struct Held<W: FnOnce()> {
    publication: Arc<Publication>,
    is_written: bool,
    /// Wakes the owner.
    wake: Option<W>,
}

impl<W: FnOnce() + Send> Hold for Held<W> {
    fn written(mut self: Box<Self>) {
        self.is_written = true;
    }
}

impl<W: FnOnce()> Drop for Held<W> {
    fn drop(&mut self) {
        if !self.is_written {
            self.publication.message.refuse();
        }
        self.publication.settle();
        if let Some(wake) = self.wake.take() {
            wake();
        }
    }
}

impl Disk {
    /// The disk of a hub.
    pub fn new(store: Store, hub: StoredHub) -> Disk {
        Disk { store, hub }
    }

    /// Sets how much is kept of each channel.
    pub fn set_limits(&self, history: &config::History) {
        self.store.set_limits(&self.hub, history.into());
    }

    /// Whether messages can be kept: the disk accepts them, and not too many wait.
    pub fn accepts(&self) -> bool {
        self.store.accepts()
    }

    /// How often the store, which all durable hubs share, has written what was queued.
    pub fn commits(&self) -> u64 {
        self.store.commits()
    }

    /// Up to where everything is written.
    pub fn written(&self) -> u64 {
        self.hub.written()
    }

    /// Has the publisher of a message with a key answered only after the answer itself is on the disk: it is the same after a crash.
    pub fn keep_outcome(&self, message: &mut Message) {
        let Some(receipt) = &mut message.receipt else { return };
        let Some(key) = receipt.key().map(Box::from) else { return };
        let (store, hub, channel) = (self.store.clone(), self.hub.clone(), message.channel.clone());
        receipt.intercept(move |outcome, report| {
            if outcome.is_refused {
                return report(outcome);
            }
            let Outcome { subscribers, .. } = outcome;
            store.complete_key(&hub, channel, key, subscribers, Box::new(move || report(outcome)));
        });
    }

    /// Keeps the mark of a feed without a message; `None`: forgets it. `hold` is dropped when that is written.
    pub fn keep_mark(&self, feed: &str, mark: Option<Box<[u8]>>, hold: Option<Box<dyn Send>>) {
        self.store.mark(&self.hub, feed, mark, hold);
    }

    /// Keeps a publication, and settles it when that is done or has failed. Then `wake` is called.
    pub fn append(&self, publication: &Arc<Publication>, offset: u64, wake: impl FnOnce() + Send + 'static) {
        let Message { channel, kind, payload, receipt, .. } = &publication.message;
        let receipt = receipt.as_ref();
        let key = receipt.and_then(|receipt| receipt.key()).map(Box::from);
        let progress = receipt.and_then(|receipt| receipt.progress()).cloned();
        let (channel, payload) = (channel.clone(), payload.clone());
        let hold = Box::new(Held { publication: publication.clone(), is_written: false, wake: Some(wake) });
        let entry = Entry { offset, channel, kind: *kind, payload, key, progress, hold };
        self.store.append(&self.hub, entry);
    }

    /// Answers a question from the store: with the messages after `since`, up to `until`, which is not the end. The channels in
    /// which a client must be told of a gap in any case, and those of [`Page::gone_before`], are given.
    pub fn answer(
        &self,
        question: &Question,
        (since, until): (u64, u64),
        (mut gone, mut gone_before): (Vec<Arc<str>>, Vec<Arc<str>>),
        epoch: Epoch,
        mailboxes: Arc<[Mailbox]>,
    ) {
        // A client that begins with the oldest message misses nothing, or is told of a gap in all of its channels.
        let is_beginning = !gone.is_empty() || question.since == Since::Earliest;
        let query = PageQuery {
            hub: self.hub.clone(),
            channels: question.selectors.clone(),
            since,
            until,
            messages: question.messages_max,
            bytes: HISTORY_PAGE_BYTES_MAX,
        };
        let asker = question.asker;
        let kept = |StoredMessage { offset, channel, kind, payload, .. }| Kept { offset, channel, kind, payload };
        let answer = move |stored: StoredPage| {
            if is_beginning { &mut gone_before } else { &mut gone }.extend(stored.gone);
            let page = Page {
                messages: stored.messages.into_iter().map(kept).collect(),
                position: Position { epoch, offset: stored.next },
                is_end: false,
                gone,
                gone_before,
            };
            mailboxes[asker.shard].deliver(Delivery::Page(Box::new(Answer { asker, page: Some(page) })));
        };
        self.store.page(query, Box::new(answer));
    }
}
