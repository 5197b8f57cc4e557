//! A table whose sessions have sockets without a kernel: they accept every byte. With it, the cost of a delivery is counted.
//!
//! `tests/allocations.rs` and `benches/instructions.rs` share it. The library's inner types are built only here, so that a change to one
//! of them is followed in one file.

#![allow(dead_code, reason = "each target uses its own part of this")]

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use pushd::config::{Hub, HubId, OnMessage, SessionLog};
use pushd::hub::{Kind, Members, Message, Selector};
use pushd::session::speech::{Plain, Speech};
use pushd::session::{Arrival, Socket, Terms};
use pushd::shard::table::{SessionKey, Table};
pub use pushd::wire::{Framing, Transport};
use smallvec::SmallVec;

/// A socket that accepts every byte. It counts writes and bytes, and can be given bytes to read.
#[derive(Clone, Default)]
pub struct Sink(Rc<Counts>);

#[derive(Default)]
struct Counts {
    writes: Cell<usize>,
    bytes: Cell<usize>,
    input: RefCell<Vec<u8>>,
}

impl Socket for Sink {
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut input = self.0.input.borrow_mut();
        if input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = input.len();
        buffer[..count].copy_from_slice(&input);
        input.clear();
        Ok(count)
    }

    fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let taken = slices.iter().map(|slice| slice.len()).sum();
        self.0.writes.set(self.0.writes.get() + 1);
        self.0.bytes.set(self.0.bytes.get() + taken);
        Ok(taken)
    }

    fn shutdown_write(&mut self) {}

    fn peer(&self) -> String {
        "sink".to_owned()
    }
}

/// A table with subscribers, and their sockets.
pub struct Sinks {
    table: Table<Sink>,
    sinks: Vec<Sink>,
    keys: Vec<SessionKey>,
    channels: Vec<Arc<str>>,
}

/// What a session's route and hub are like here: no pings, and compression from the first byte on.
fn terms(on_message: OnMessage) -> Arc<Terms> {
    let hub = Hub {
        name: "push".to_owned(),
        ping: None,
        subscribers_max: NonZeroUsize::new(10_000),
        messages_per_second: u32::MAX,
        bytes_per_second: u32::MAX,
        deflate_bytes_min: Some(1),
        ..Hub::default()
    };
    let plain = Plain { on_message, ..Plain::receiving(None) };
    Arc::new(Terms {
        server: "main".to_owned(),
        path: "/ws".to_owned(),
        transport: Transport::WebSocket,
        log: SessionLog::Off,
        speech: Speech::Plain(plain),
        hub_id: HubId(0),
        hub,
        members: Members::default(),
        token_keys: None,
    })
}

impl Sinks {
    /// So many subscribers of every one of `channels`. They use `framings` in turn.
    pub fn new(subscribers: usize, framings: &[Framing], channels: &[&str], on_message: OnMessage) -> Sinks {
        let mut table = Table::new(Arc::default());
        let terms = terms(on_message);
        let channels: Vec<Arc<str>> = channels.iter().map(|&name| name.into()).collect();
        let sinks: Vec<_> = (0..subscribers).map(|_| Sink::default()).collect();
        let adopt = |(sink, &framing): (&Sink, &Framing)| {
            let arrival = Arrival {
                framing,
                inflates: false,
                membership: terms.members.join(usize::MAX).unwrap(),
                terms: terms.clone(),
                channels: channels.iter().cloned().map(Selector::name).collect(),
                since: None,
                poll: None,
                identity: None,
                granted: None,
                to: channels[0].clone(),
                head: Bytes::new(),
                greeting: None,
                early: Bytes::new(),
            };
            table.adopt(sink.clone(), arrival)
        };
        let keys = sinks.iter().zip(framings.iter().cycle()).map(adopt).collect();
        Sinks { table, sinks, keys, channels }
    }

    /// A turn of a shard: publishes `count` messages, to each channel in turn, and writes them to every subscriber.
    pub fn turn(&mut self, count: usize, payload: &Bytes) {
        for channel in self.channels.iter().cycle().take(count) {
            let message = Message::new(HubId(0), channel.clone(), Kind::Text, payload.clone());
            self.table.publish(Arc::new(message.into()));
        }
        self.table.flush();
    }

    /// A turn in which one session receives `input`. What it publishes reaches the subscribers in the same turn.
    pub fn receive(&mut self, session: usize, input: &[u8]) {
        self.sinks[session].0.input.borrow_mut().extend_from_slice(input);
        self.table.readable(self.keys[session], false);
        self.table.read_sessions(|_| {});
        let published: SmallVec<[Message; 64]> = self.table.take_published().collect();
        published.into_iter().for_each(|message| self.table.publish(Arc::new(message.into())));
        self.table.flush();
    }

    /// The writes of each socket since the last call, and their bytes.
    pub fn take_written(&self) -> Vec<(usize, usize)> {
        self.sinks.iter().map(|sink| (sink.0.writes.take(), sink.0.bytes.take())).collect()
    }
}
