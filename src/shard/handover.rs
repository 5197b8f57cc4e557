//! The part of a shard in a restart that keeps the connections.
//!
//! In the process that ends, all shards take these steps. No shard begins a step before all have finished the one before:
//!
//! 1. [`Step::StopAccepting`]: no connection is accepted, requests in flight are finished, and connections without one are put
//!    aside.
//! 2. [`Step::StopReading`]: no session is read, and nothing more is published, except what is in the lanes of requests.
//!    No member joins or leaves a channel.
//! 3. [`Step::Spread`]: these lanes are emptied. The publications are now in the lanes of deliveries.
//! 4. [`Step::Pack`]: these are emptied, too. Each publication is now in the sockets or outboxes of its subscribers. The sessions
//!    are packed, and not touched any longer.
//! 5. [`Step::Leave`] if another process has the sessions now. [`Step::Resume`] if none has: then they continue until the drain
//!    that follows.
//!
//! In the process that begins, shards take up the sessions before they accept connections or read. So all sessions receive what is
//! published from then on.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use super::parcel::{Item, Packer, Parcel, Present};
use super::stream::Raw;
use super::table::SessionKey;
use super::{Shard, histories};
use crate::config::HubId;
use crate::hub::Membership;
use crate::session::record::Record;
use crate::session::{Socket, Terms};

/// A step of the hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Stop accepting, and finish the requests in flight.
    StopAccepting,
    /// Stop reading and publishing.
    StopReading,
    /// Spread the messages that wait to be published.
    Spread,
    /// Deliver them, and pack the sessions.
    Pack,
    /// Another process has the packed sessions: drop them here.
    Leave,
    /// No other process has them: continue with them.
    Resume,
    /// Answer once all earlier commands are done.
    Wait,
}

/// The packed sessions and connections of a shard.
#[derive(Debug)]
pub struct Packed {
    /// Their records and sockets.
    pub parcel: Parcel,
    /// The number of sessions. The rest of the parcel are connections without a request in flight.
    pub sessions: usize,
    /// How many could not be packed.
    pub left_out: usize,
    /// What the hubs of this shard remember.
    pub histories: OwnedFd,
}

/// A session of another process that is taken up.
#[derive(Debug)]
pub struct Returning {
    /// Its socket.
    pub socket: Raw,
    /// Everything else.
    pub record: Record,
    /// Its terms from now on. `None`: its route is no longer configured.
    pub terms: Option<Arc<Terms>>,
    /// Its part in the count of its hub.
    pub membership: Membership,
}

impl Shard {
    /// Whether the sessions are packed. They must not be touched then.
    pub(super) fn is_packed(&self) -> bool {
        self.packed.borrow().is_some()
    }

    /// Takes a step of the hand-over.
    pub(super) fn hand_over(self: &Rc<Self>, step: Step) -> io::Result<Option<Packed>> {
        let mut table = self.table.borrow_mut();
        match step {
            Step::StopAccepting => {
                self.accepting.borrow_mut().drain(..).for_each(|(_, task)| task.abort());
                self.drain.send_replace(true);
                drop(table);
                self.clear_lobby();
            }
            Step::StopReading => {
                table.pause_reading(true);
                self.publishing_stopped.set(true);
                self.relay.register().hold();
            }
            Step::Spread => self.relay.serve_all(&mut table),
            Step::Pack => {
                drop(table);
                return self.pack().map(Some);
            }
            Step::Leave => {
                let packed = self.packed.take().unwrap_or_default();
                self.idle_connections.borrow_mut().clear();
                packed.into_iter().for_each(|key| table.forget(key));
                table.pause_reading(false);
            }
            Step::Resume => {
                self.packed.take();
                self.publishing_stopped.set(false);
                self.relay.register().settle(self.now());
                table.pause_reading(false);
            }
            Step::Wait => {}
        }
        self.mailbox().bell.notify_one();
        Ok(None)
    }

    fn pack(&self) -> io::Result<Packed> {
        let (mut table, idle) = (self.table.borrow_mut(), self.idle_connections.borrow());
        self.relay.take_all(&mut table);
        let mut packer = Packer::new(self.now(), self.present())?;
        let mut keys = Vec::with_capacity(table.len());
        let connections = idle.iter().map(|(socket, early, server)| {
            (None, Item::Idle { server: server.to_string(), early: early.to_vec() }, socket)
        });
        let sessions = table.records().map(|(key, record, socket)| (Some(key), Item::Session(record.into()), socket));
        for (key, item, socket) in sessions.chain(connections) {
            if !socket.can_be_given_away() {
                continue;
            }
            match packer.pack(&item, socket.as_fd()) {
                Ok(true) => keys.push(key),
                Ok(false) => log::warn!("{} cannot be handed over: its record is too large", socket.peer()),
                Err(error) => {
                    log::warn!("not all sessions can be handed over: {error}");
                    break;
                }
            }
        }
        let parcel = packer.close()?;
        // Without those of a message that could not be sent.
        keys.truncate(parcel.count);
        let left_out = table.len() + idle.len() - keys.len();
        let keys: Vec<SessionKey> = keys.into_iter().flatten().collect();
        let sessions = keys.len();
        let histories = self.pack_histories()?;
        self.packed.replace(Some(keys));
        Ok(Packed { parcel, sessions, left_out, histories })
    }

    fn pack_histories(&self) -> io::Result<OwnedFd> {
        let (owner, plan) = (self.relay.owner(), self.plan.borrow());
        let name = |id: HubId| plan.hubs.iter().find(|hub| hub.id == id).map(|hub| hub.name.as_str());
        histories::write(owner.in_memory().filter_map(|(id, history, keys)| Some((name(id)?, history, keys))))
    }

    /// The members of the channels that this shard owns, of which it has told.
    fn present(&self) -> Vec<Present> {
        let (register, plan) = (self.relay.register(), self.plan.borrow());
        let names: HashMap<HubId, &str> = plan.hubs.iter().map(|hub| (hub.id, hub.name.as_str())).collect();
        let (present, left_out) = Present::of(register.told(), |hub| names.get(&hub).copied());
        if left_out > 0 {
            log::warn!("{left_out} members of channels are too many to be handed over: they are told as joining again");
        }
        present
    }

    /// Takes up sessions of another process.
    pub(super) fn take_up(&self, sessions: Vec<Returning>) {
        let mut table = self.table.borrow_mut();
        for Returning { socket, record, terms, membership } in sessions {
            let key = table.take_up(socket, record, terms, membership);
            if let Some(session) = table.session(key)
                && let Err(error) = self.poller.add(session.socket(), key)
            {
                log::warn!("{} could not be taken up: {error}", session.socket().peer());
                table.abandon(key);
            }
        }
        // Before this shard says that it has them: then the owners of their channels know of all sessions before anybody asks.
        self.relay.relay_visits(&mut table);
        self.mailbox().bell.notify_one();
    }
}
