//! What a delivery and a handshake cost, counted instead of timed: allocations and writes.
//!
//! Publishing to many healthy subscribers allocates no more than publishing to few, and a batch of publications is one
//! write for each subscriber. A handshake allocates what its session keeps, and little more.

#![allow(unsafe_code, reason = "a global allocator that counts cannot be had without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use pushd::config::{self, Hub, HubId, SessionLog};
use pushd::http::opening::Opening;
use pushd::http::pages::Files;
use pushd::http::{Backend, HubInUse, Sample, Site};
use pushd::hub::{Kind, Members, Message};
use pushd::session::speech::{Plain, Speech};
use pushd::session::{Arrival, Socket, Terms};
use pushd::shard::table::Table;
use pushd::wire::Framing;

/// What a handshake may allocate: its channel's name, its arguments, its key's answer, and what its answer is put together in.
const HANDSHAKE_ALLOCATIONS_MAX: usize = 12;

struct Counting;

thread_local! {
    /// Of this thread alone: the harness allocates on its own whenever it gets to run.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, that is from the system.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as for `dealloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A socket that takes everything, and counts how often it is written to and how much.
#[derive(Clone, Default)]
struct Sink {
    writes: Rc<Cell<usize>>,
    bytes: Rc<Cell<usize>>,
}

impl Socket for Sink {
    fn try_read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let taken = slices.iter().map(|slice| slice.len()).sum();
        self.writes.set(self.writes.get() + 1);
        self.bytes.set(self.bytes.get() + taken);
        Ok(taken)
    }

    fn shutdown_write(&mut self) {}

    fn peer(&self) -> String {
        "sink".to_owned()
    }
}

fn terms() -> Arc<Terms> {
    let hub = Hub { name: "push".to_owned(), ping: None, subscribers_max: NonZeroUsize::new(10_000), ..Hub::default() };
    let (server, path) = ("main".to_owned(), "/ws".to_owned());
    let (log, speech, hub_id) = (SessionLog::Off, Speech::Plain(Plain::receiving(None)), HubId(0));
    Arc::new(Terms { server, path, log, speech, hub_id, hub, members: Members::default() })
}

/// A table with so many subscribers of one channel, and their sockets.
fn table(subscribers: usize) -> (Table<Sink>, Vec<Sink>) {
    let mut table = Table::new(Arc::default());
    let (terms, channel): (_, Arc<str>) = (terms(), "all".into());
    let sinks: Vec<_> = (0..subscribers).map(|_| Sink::default()).collect();
    for sink in &sinks {
        let arrival = Arrival {
            framing: Framing::Rfc6455,
            inflates: false,
            membership: terms.members.join(usize::MAX).unwrap(),
            terms: terms.clone(),
            channels: [channel.clone()].into_iter().collect(),
            to: channel.clone(),
            head: Bytes::new(),
            greeting: None,
            early: Bytes::new(),
        };
        table.adopt(sink.clone(), arrival);
    }
    (table, sinks)
}

/// Publishes `count` messages in one turn; how many allocations that took.
fn turn(table: &mut Table<Sink>, count: usize, payload: &Bytes) -> usize {
    let channel: Arc<str> = "all".into();
    let before = ALLOCATIONS.get();
    for _ in 0..count {
        let message = Message::new(HubId(0), channel.clone(), Kind::Text, payload.clone());
        table.publish(Arc::new(message.into()));
    }
    table.flush();
    ALLOCATIONS.get() - before
}

#[test]
fn a_subscriber_more_costs_one_write_and_no_allocation() {
    let payload = Bytes::from_static(&[b'x'; 100]);
    let costs = [10, 1_000].map(|subscribers| {
        let (mut table, sinks) = table(subscribers);
        // The first turns grow what is kept for all others.
        for _ in 0..3 {
            turn(&mut table, 64, &payload);
        }
        for sink in &sinks {
            sink.writes.take();
            sink.bytes.take();
        }

        let one = turn(&mut table, 1, &payload);
        assert!(sinks.iter().all(|sink| sink.writes.take() == 1 && sink.bytes.take() == 102));
        let batch = turn(&mut table, 64, &payload);
        assert!(sinks.iter().all(|sink| sink.writes.take() == 1), "a batch is one write");
        assert!(sinks.iter().all(|sink| sink.bytes.take() == 64 * 102), "and all of it");
        (one, batch)
    });
    let [(one_to_few, batch_to_few), (one_to_many, batch_to_many)] = costs;
    assert_eq!(one_to_few, one_to_many, "allocations for one publication, to 10 and to 1000 subscribers");
    assert_eq!(batch_to_few, batch_to_many, "allocations for a batch, to 10 and to 1000 subscribers");
    assert!(one_to_many <= 5, "{one_to_many} allocations for one publication");
    assert!(batch_to_many <= 5 * 64, "{batch_to_many} allocations for 64 publications");
    println!("allocations: {one_to_many} for one publication, {batch_to_many} for 64");
}

/// The server behind a handshake.
#[derive(Clone)]
struct Server(Arc<Site>);

impl Backend for Server {
    type Io = tokio::io::DuplexStream;

    fn site(&self, _: &str) -> Option<Arc<Site>> {
        Some(self.0.clone())
    }

    async fn publish(&self, _: Message) -> Option<u64> {
        None
    }

    fn adopt(&self, _: Self::Io, _: Arrival) {}

    fn read_now(_: &Self::Io, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn bound_unsent(_: &Self::Io) {}

    fn hands_over(&self) -> bool {
        false
    }

    fn put_aside(&self, _: Self::Io, _: Bytes, _: &Arc<str>) {}

    fn files(&self) -> Files {
        Files::default()
    }

    fn answered(&self, _: StatusCode) {}

    fn samples(&self) -> Vec<Sample> {
        Vec::new()
    }

    fn is_draining(&self) -> bool {
        false
    }
}

#[test]
fn a_handshake_allocates_little_and_keeps_less() {
    const REQUEST: &str = "GET /ws?channel=a HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nPragma: no-cache\r\n\
        User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nUpgrade: websocket\r\nOrigin: http://localhost\r\n\
        Sec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    let file = "[server.main]\nlisten = \"127.0.0.1:0\"\n[server.main.routes]\n\"/ws\" = { websocket = \"push\", \
        channels = [\"{channel=all}\"] }\n[hub.push]\n";
    let config = config::parse(std::path::Path::new("/"), file).unwrap();
    let hub = HubInUse { id: HubId(0), hub: config.hubs[0].clone(), members: Members::default() };
    let server = Server(Arc::new(Site::new(&config.servers[0], &[hub], &[])));
    let (mut opening, mut table) = (Opening::default(), Table::new(Arc::default()));
    let mut open = || {
        let (arrival, answer) = opening.agree(REQUEST.as_bytes(), "main", true, &server).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 101 ") && answer.ends_with(b"\r\n\r\n"));
        table.adopt(Sink::default(), arrival);
    };
    // The first ones grow what is kept for all others, and a list that grows with its sessions doubles in between.
    (0..1100).for_each(|_| open());
    let before = ALLOCATIONS.get();
    (0..100).for_each(|_| open());
    let allocations = (ALLOCATIONS.get() - before) / 100;
    println!("{allocations} allocations for one handshake, two of them the sink's");
    assert!(allocations <= HANDSHAKE_ALLOCATIONS_MAX, "{allocations} allocations for one handshake");
}
