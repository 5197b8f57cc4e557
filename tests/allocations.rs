//! What a delivery and a handshake cost, counted instead of timed: allocations and writes.
//!
//! Publishing to many healthy subscribers allocates no more than publishing to few, in whatever framing, and a batch of publications is
//! one write for each subscriber. A message that is echoed allocates nothing. A handshake allocates what its session keeps, and little
//! more.

#![allow(unsafe_code, reason = "a global allocator that counts cannot be had without")]

#[path = "common/sinks.rs"]
mod sinks;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use pushd::config::limits::RUN_FRAME_BYTES_MAX;
use pushd::config::{self, HubId, OnMessage};
use pushd::http::opening::Opening;
use pushd::http::pages::Files;
use pushd::http::{Backend, HubInUse, Sample, Site};
use pushd::hub::presence::Attendees;
use pushd::hub::{Members, Message, Outcome, Partition, Position};
use pushd::session::Arrival;
use pushd::shard::table::Table;

use sinks::{Framing, Sink, Sinks};

/// Publications of a batch.
const BATCH: usize = 64;
/// What a publication may allocate, for whatever number of subscribers: itself, its frame and what shares that.
const PUBLICATION_ALLOCATIONS_MAX: usize = 5;
/// What each further framing adds: its frame, what shares that, and its entry in the list of encodings.
const FRAME_ALLOCATIONS_MAX: usize = 3;
/// What a client's message may allocate that is published: its text, and what a publication does.
const BROADCAST_ALLOCATIONS_MAX: usize = PUBLICATION_ALLOCATIONS_MAX + 1;
/// What a handshake may allocate: its channel's name, its arguments, its key's answer, and what its answer is put together in.
const HANDSHAKE_ALLOCATIONS_MAX: usize = 11;

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

/// The allocations of `work`.
fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

/// What one more subscriber must not change: the allocations of a turn with one publication, and of a turn with 64. Checks that each
/// subscriber gets one write in a turn, and all bytes.
fn expect_none_per_subscriber(what: &str, framings: &[Framing], channels: &[&str], payload: &Bytes) -> (usize, usize) {
    let costs = [12, 1_002].map(|subscribers| {
        let mut sinks = Sinks::new(subscribers, framings, channels, OnMessage::Ignore);
        // The first turns grow what is kept for later turns.
        (0..3).for_each(|_| sinks.turn(BATCH, payload));
        sinks.take_written();
        let one = allocations(|| sinks.turn(1, payload));
        let written_of_one = sinks.take_written();
        let batch = allocations(|| sinks.turn(BATCH, payload));
        for ((writes, bytes), (writes_of_one, bytes_of_one)) in sinks.take_written().into_iter().zip(written_of_one) {
            assert_eq!((writes_of_one, writes), (1, 1), "{what}: a batch is one write, as a single publication is");
            assert_eq!(bytes, BATCH * bytes_of_one, "{what}: and it is all of the batch");
        }
        (one, batch)
    });
    let [(one_to_few, batch_to_few), (one_to_many, batch_to_many)] = costs;
    println!("{what}: {one_to_many} allocations for one publication, {batch_to_many} for {BATCH}");
    assert_eq!(one_to_few, one_to_many, "{what}: allocations for one publication, to 12 and to 1002 subscribers");
    assert_eq!(batch_to_few, batch_to_many, "{what}: allocations for a batch, to 12 and to 1002 subscribers");
    (one_to_many, batch_to_many)
}

#[test]
fn a_subscriber_more_costs_one_write_and_no_allocation() {
    let payload = Bytes::from_static(&[b'x'; 100]);
    // A poll ends with its first answer.
    let lasting: Vec<Framing> = Framing::ALL.into_iter().filter(|framing| !framing.is_poll()).collect();
    for (what, framings, most) in [
        ("RFC 6455", &[Framing::Rfc6455][..], PUBLICATION_ALLOCATIONS_MAX),
        ("draft-76", &[Framing::Hixie76], PUBLICATION_ALLOCATIONS_MAX),
        ("compressed", &[Framing::Deflate], PUBLICATION_ALLOCATIONS_MAX),
        ("event stream", &[Framing::EventStream], PUBLICATION_ALLOCATIONS_MAX),
        ("every framing", &lasting, PUBLICATION_ALLOCATIONS_MAX + 4 * FRAME_ALLOCATIONS_MAX),
    ] {
        let (one, batch) = expect_none_per_subscriber(what, framings, &["all"], &payload);
        assert!(one <= most, "{what}: {one} allocations for one publication");
        assert!(batch <= most * BATCH, "{what}: {batch} allocations for {BATCH} publications");
    }
}

#[test]
fn publications_to_alternating_channels_cost_no_allocation_per_subscriber() {
    let payload = Bytes::from_static(&[b'x'; 100]);
    let (_, batch) = expect_none_per_subscriber("two channels", &[Framing::Rfc6455], &["one", "two"], &payload);
    assert!(batch <= PUBLICATION_ALLOCATIONS_MAX * BATCH, "{batch} allocations for {BATCH} publications");
}

#[test]
fn a_large_frame_is_not_copied_for_its_subscribers() {
    // So few that their slices need no list of its own.
    const FRAMES: usize = 4;
    let payload = Bytes::from(vec![b'x'; 2 * RUN_FRAME_BYTES_MAX]);
    let costs = [10, 1_000].map(|subscribers| {
        let mut sinks = Sinks::new(subscribers, &[Framing::Rfc6455], &["all"], OnMessage::Ignore);
        (0..3).for_each(|_| sinks.turn(FRAMES, &payload));
        allocations(|| sinks.turn(FRAMES, &payload))
    });
    assert_eq!(costs[0], costs[1], "allocations for {FRAMES} large publications, to 10 and to 1000 subscribers");
    assert!(costs[1] <= PUBLICATION_ALLOCATIONS_MAX * FRAMES, "{} allocations for {FRAMES} publications", costs[1]);
}

/// A client's text of 100 bytes: masked with zeroes, which change nothing.
fn client_frame() -> Vec<u8> {
    [&[0x81, 0x80 | 100, 0, 0, 0, 0][..], &[b'x'; 100]].concat()
}

#[test]
fn an_echo_allocates_nothing() {
    let mut sinks = Sinks::new(1, &[Framing::Rfc6455], &["all"], OnMessage::Echo);
    let batch = client_frame().repeat(BATCH);
    (0..3).for_each(|_| sinks.receive(0, &batch));
    sinks.take_written();
    let allocated = allocations(|| sinks.receive(0, &batch));
    assert_eq!(sinks.take_written(), [(1, BATCH * 102)], "all echoes, in one write");
    assert_eq!(allocated, 0, "allocations for {BATCH} echoes");
}

#[test]
fn a_broadcast_allocates_for_its_publication_alone() {
    let costs = [10, 1_000].map(|subscribers| {
        let mut sinks = Sinks::new(subscribers, &[Framing::Rfc6455], &["all"], OnMessage::Broadcast);
        let batch = client_frame().repeat(BATCH);
        (0..3).for_each(|_| sinks.receive(0, &batch));
        sinks.take_written();
        let allocated = allocations(|| sinks.receive(0, &batch));
        assert!(sinks.take_written().iter().all(|written| *written == (1, BATCH * 102)), "all of it, in one write");
        allocated
    });
    println!("broadcast: {} allocations for {BATCH} messages", costs[1]);
    assert_eq!(costs[0], costs[1], "allocations for a batch of broadcasts, to 10 and to 1000 subscribers");
    assert!(costs[1] <= BROADCAST_ALLOCATIONS_MAX * BATCH, "{} allocations for {BATCH} broadcasts", costs[1]);
}

/// The server behind a handshake.
#[derive(Clone)]
struct Server(Arc<Site>);

impl Backend for Server {
    type Io = tokio::io::DuplexStream;

    fn site(&self, _: &str) -> Option<Arc<Site>> {
        Some(self.0.clone())
    }

    async fn publish(&self, _: Message, _: Option<Box<str>>) -> Option<Outcome> {
        None
    }

    async fn publish_all(&self, _: Vec<(Message, Option<Box<str>>)>) -> Option<Vec<Option<Outcome>>> {
        None
    }

    fn position(&self, _: HubId) -> Option<Position> {
        None
    }

    async fn attendees(&self, _: HubId, _: Arc<str>, _: Partition) -> Option<Attendees> {
        None
    }

    fn adopt(&self, _: Self::Io, _: Arrival) {}

    fn read_now(_: &mut Self::Io, _: &mut [u8]) -> io::Result<usize> {
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
    let server = Server(Arc::new(Site::new(&config.servers[0], &[hub], &[], &HashMap::new())));
    let (mut opening, mut table) = (Opening::default(), Table::new(Arc::default()));
    let mut open = || {
        let (arrival, answer) = opening.agree(REQUEST.as_bytes(), "main", true, &server).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 101 ") && answer.ends_with(b"\r\n\r\n"));
        table.adopt(Sink::default(), arrival);
    };
    // The first ones grow what is kept for all others, and a list that grows with its sessions doubles in between.
    (0..1100).for_each(|_| open());
    let allocations = allocations(|| (0..100).for_each(|_| open())) / 100;
    println!("{allocations} allocations for one handshake, one of them the sink's");
    assert!(allocations <= HANDSHAKE_ALLOCATIONS_MAX, "{allocations} allocations for one handshake");
}
