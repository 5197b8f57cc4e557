//! A hand-over: every session is written, read again, and taken up in a new table, on any shard.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use pushd::session::Terms;
use pushd::session::record::Record;
use pushd::shard::table::{SessionKey, Table};
use pushd::wire::tagged::Field;

use super::World;
use crate::setting;
use crate::socket::FakeSocket;

/// A key of no session.
const NO_SESSION: SessionKey = SessionKey { slot: u32::MAX, generation: u32::MAX };

/// The socket of a session, which identifies it.
type Pipe = Rc<RefCell<crate::socket::Pipe>>;

impl World {
    /// Hands over all sessions, in the same steps as shards.
    pub(super) fn hand_over(&mut self) {
        self.stalled = None;
        let shards = 0..self.shards.len();
        self.shards.iter_mut().for_each(|here| here.table.pause_reading(true));
        for here in &mut self.shards {
            here.relay.serve_all(&mut here.table);
        }
        for shard in shards.clone() {
            let here = &mut self.shards[shard];
            here.relay.take_all(&mut here.table);
            self.read_witnesses(shard);
            self.check_turn(shard);
        }
        let mut packed = Vec::new();
        for shard in shards.clone() {
            let here = &mut self.shards[shard];
            assert!(
                here.relay.mailbox().requests().pop().is_none() && here.relay.mailbox().deliveries().pop().is_none()
            );
            for (_, record, socket) in here.table.records() {
                packed.push((shard, written_and_read(record, &mut self.random), socket.0.clone()));
            }
        }
        shards.for_each(|shard| self.replace_table(shard));
        self.hand_over_histories();
        for (shard, record, pipe) in packed {
            self.take_up(shard, record, &pipe);
        }
        for here in &mut self.shards {
            here.table.pause_reading(false);
            here.relay.mailbox().bell.notify_one();
        }
    }

    /// Gives a shard a new table.
    fn replace_table(&mut self, shard: usize) {
        for client in self.clients.iter_mut().filter(|client| client.shard == shard) {
            // Sessions that have ended are not in the new table.
            client.key = NO_SESSION;
        }
        let here = &mut self.shards[shard];
        let counters = here.relay.mailbox().counters.clone();
        counters.sessions.set(0);
        counters.channels.set(0);
        let mut table = Table::new(counters);
        table.set_pace(setting::pace(&mut self.random));
        table.tick(self.now);
        table.pause_reading(true);
        here.table = table;
    }

    fn take_up(&mut self, from: usize, record: Record, pipe: &Pipe) {
        let terms = self.terms_of(&record);
        let members = terms.as_ref().map(|terms| terms.members.clone()).unwrap_or_default();
        let membership = members.enter();
        let witness = self.shards[from].witnesses.iter().position(|witness| Rc::ptr_eq(&witness.pipe, pipe));
        let shard = if witness.is_some() { from } else { self.random.below(self.shards.len()) };
        let key = self.shards[shard].table.take_up(FakeSocket(pipe.clone()), record, terms, membership);
        let mut socket = pipe.borrow_mut();
        // The old process has dropped it, the new one has it. A new registration with epoll reports its readiness.
        (socket.dropped, socket.readable, socket.writable) = (false, true, true);
        drop(socket);
        if let Some(at) = witness {
            self.shards[shard].witnesses[at].key = key;
            return;
        }
        let client = self.clients.iter_mut().find(|client| Rc::ptr_eq(&client.pipe, pipe)).unwrap();
        (client.shard, client.key, client.live_since) = (shard, key, self.now);
    }

    /// The terms of a session in the other process. `None`: its route was removed.
    fn terms_of(&self, record: &Record) -> Option<Arc<Terms>> {
        let number = self.hubs.iter().position(|hub| hub.name == record.hub).unwrap();
        if record.path == "/witness" {
            return Some(setting::witness(&self.hubs[number], number, &self.members[number]));
        }
        let mut routes = self.routes.iter().filter(|route| !route.is_removed);
        let route = routes.find(|route| route.terms.path == record.path && route.terms.hub.name == record.hub)?;
        Some(route.terms.clone())
    }
}

/// The same record, as the other process reads it. Also checks that truncated or changed bytes cause no panic.
fn written_and_read(record: Record, random: &mut crate::random::Random) -> Record {
    let mut bytes = Vec::new();
    record.write(&mut bytes);
    let read = Record::read(&bytes).unwrap();
    assert_eq!(read, record);
    std::hint::black_box(Record::read(&bytes[..random.below(bytes.len())]).is_ok());
    let at = random.below(bytes.len());
    bytes[at] ^= 1 << random.below(8);
    std::hint::black_box(Record::read(&bytes).is_ok());
    record
}
