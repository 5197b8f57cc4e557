//! A shard's part in a restart that keeps the clients.
//!
//! In the process that ends, all shards take the same steps together, each when all have taken the one before:
//!
//! 1. [`Step::Rest`]: nobody is accepted, requests in flight are finished, connections without one are put aside.
//! 2. [`Step::Hush`]: nobody is read, and nothing is published any more but what waits in the lanes of requests.
//! 3. [`Step::Spread`]: these lanes are emptied; what is published waits in the lanes of deliveries.
//! 4. [`Step::Pack`]: those are emptied too. Every publication is in its subscribers' sockets or outboxes: the sessions are written
//!    down, and from here on left alone.
//! 5. [`Step::Leave`], where others hold them now; or [`Step::Resume`], where nobody does: then the sessions go on until the drain that follows.
//!
//! In the process that begins, shards take up sessions before they accept and before they read: what is published then
//! reaches all of them.

use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;

use super::Shard;
use super::parcel::{Item, Packer, Parcel};
use super::stream::Raw;
use super::table::SessionKey;
use crate::hub::Membership;
use crate::session::record::Record;
use crate::session::{Socket, Terms};

/// A step of handing over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Accept nobody, finish the requests in flight.
    Rest,
    /// Read nobody, publish nothing more.
    Hush,
    /// Spread what was to be published.
    Spread,
    /// Deliver it, and pack the sessions.
    Pack,
    /// Another holds the sessions that were packed: forget them.
    Leave,
    /// Nobody does: go on with them.
    Resume,
    /// Answer once everything before is done.
    Wait,
}

/// The sessions of a shard, packed.
#[derive(Debug)]
pub struct Packed {
    /// The sessions.
    pub parcel: Parcel,
    /// How many there are; the rest are connections without a request in flight.
    pub sessions: usize,
    /// How many there was no room for.
    pub left_out: usize,
}

/// A session of another process that is to be taken up.
#[derive(Debug)]
pub struct Returning {
    /// Its socket.
    pub socket: Raw,
    /// The rest of it.
    pub record: Record,
    /// What it may from now on; `None`: its route is gone.
    pub terms: Option<Arc<Terms>>,
    /// Its place in the count of its hub.
    pub membership: Membership,
}

impl Shard {
    /// Whether sessions may be touched.
    pub(super) fn is_awake(&self) -> bool {
        self.packed.borrow().is_none()
    }

    /// Takes a step.
    pub(super) fn hand_over(self: &Rc<Self>, step: Step) -> io::Result<Option<Packed>> {
        let mut table = self.table.borrow_mut();
        match step {
            Step::Rest => {
                self.accepting.borrow_mut().drain(..).for_each(|(_, task)| task.abort());
                self.drain.send_replace(true);
                drop(table);
                self.clear_lobby();
            }
            Step::Hush => {
                table.pause_reading(true);
                self.hushed.set(true);
            }
            Step::Spread => self.relay.serve_all(&mut table),
            Step::Pack => {
                drop(table);
                return self.pack().map(Some);
            }
            Step::Leave => {
                let packed = self.packed.take().unwrap_or_default();
                self.aside.borrow_mut().clear();
                packed.into_iter().for_each(|key| table.forget(key));
                table.pause_reading(false);
            }
            Step::Resume => {
                self.packed.take();
                self.hushed.set(false);
                table.pause_reading(false);
            }
            Step::Wait => {}
        }
        self.mailbox().bell.notify_one();
        Ok(None)
    }

    fn pack(&self) -> io::Result<Packed> {
        let (mut table, aside) = (self.table.borrow_mut(), self.aside.borrow());
        self.relay.take_all(&mut table);
        let mut packer = Packer::new(self.now())?;
        let mut keys = Vec::with_capacity(table.len());
        let silent = aside.iter().map(|(socket, early, server)| {
            (None, Item::Silent { server: server.to_string(), early: early.to_vec() }, socket)
        });
        let sessions = table.records().map(|(key, record, socket)| (Some(key), Item::Session(record), socket));
        for (key, item, socket) in sessions.chain(silent) {
            match packer.pack(&item, socket.as_fd()) {
                Ok(true) => keys.push(key),
                Ok(false) => log::warn!("{} cannot be handed over: too much waits for it", socket.peer()),
                Err(error) => {
                    log::warn!("not all sessions can be handed over: {error}");
                    break;
                }
            }
        }
        let parcel = packer.close()?;
        // Those of a message that could not be sent are not among them.
        keys.truncate(parcel.count);
        let left_out = table.len() + aside.len() - keys.len();
        let keys: Vec<SessionKey> = keys.into_iter().flatten().collect();
        let sessions = keys.len();
        self.packed.replace(Some(keys));
        Ok(Packed { parcel, sessions, left_out })
    }

    /// Goes on with sessions of another process.
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
        self.mailbox().bell.notify_one();
    }
}
