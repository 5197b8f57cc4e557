//! The inner parts, each measured alone and without the kernel. They show the cost of a change before the whole is
//! measured.
//!
//!     cargo bench --bench micro                all of them
//!     cargo bench --bench micro -- decode      those with this in their names

use std::borrow::Cow;
use std::collections::HashMap;
use std::hint::black_box;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use pushd::config::limits::{MESSAGE_BYTES_CEILING, PATH_BYTES_MAX};
use pushd::config::{self, Config, HubId, Template};
use pushd::http::{HubInUse, Site};
use pushd::hub::{Channels, Kind, Members, Message, Publication, Selector, Slot};
use pushd::session::codec::Codec;
use pushd::session::{Arrival, Socket, Terms};
use pushd::shard::table::Table;
use pushd::wire::deflate::Deflater;
use pushd::wire::{Framing, rfc6455};

/// Subscribers of the table.
const SOCKETS: usize = 1000;

fn main() {
    // Long enough that a single interruption does not affect the median.
    divan::Divan::default().min_time(Duration::from_millis(500)).config_with_args().main();
}

/// A masked frame of a client. `first` is its first byte.
fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..65536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Text that is neither random nor uniform.
fn text(length: usize) -> Vec<u8> {
    let words = "{\"user\":17,\"event\":\"moved\",\"at\":[48.2082,16.3738],\"text\":\"hello\"},";
    words.bytes().cycle().take(length).collect()
}

/// Decodes `input` completely. It needs a copy each time, because decoding unmasks in place.
fn decode(bencher: Bencher<'_, '_>, input: &[u8], messages: usize) {
    let mut codec = Codec::new(Framing::Rfc6455, false);
    let count = ItemsCount::new(messages);
    bencher.counter(count).with_inputs(|| input.to_vec()).bench_local_refs(|input| {
        let (mut at, mut decoded) = (0, 0);
        while at < input.len() {
            let Ok((used, event)) = codec.next(&mut input[at..], MESSAGE_BYTES_CEILING) else { break };
            at += used;
            decoded += usize::from(event.is_some());
        }
        assert_eq!(decoded, messages);
    });
}

#[divan::bench]
fn decode_64_frames_of_64_bytes(bencher: Bencher<'_, '_>) {
    decode(bencher, &client_frame(0x81, &text(64)).repeat(64), 64);
}

#[divan::bench]
fn decode_one_frame_of_60_kib(bencher: Bencher<'_, '_>) {
    decode(bencher, &client_frame(0x82, &text(60 << 10)), 1);
}

#[divan::bench]
fn decode_a_message_in_16_fragments_of_1_kib(bencher: Bencher<'_, '_>) {
    let piece = text(1024);
    let middle = client_frame(0x00, &piece).repeat(14);
    decode(bencher, &[client_frame(0x01, &piece), middle, client_frame(0x80, &piece)].concat(), 1);
}

#[divan::bench(args = [64, 1024, 64 << 10])]
fn encode(bencher: Bencher<'_, '_>, length: usize) {
    let payload = text(length);
    let frame = || Framing::Rfc6455.frame(Kind::Text, black_box(&payload));
    bencher.counter(BytesCount::new(length)).bench(frame);
}

#[divan::bench(args = [64, 1024, 64 << 10])]
fn unmask(bencher: Bencher<'_, '_>, length: usize) {
    let mut payload = text(length);
    let count = BytesCount::new(length);
    bencher.counter(count).bench_local(|| rfc6455::unmask([1, 2, 3, 4], 0, black_box(&mut payload)));
}

#[divan::bench]
fn deflate_1_kib(bencher: Bencher<'_, '_>) {
    let payload = text(1024);
    let mut deflater = Deflater::default();
    let count = BytesCount::new(payload.len());
    bencher.counter(count).bench_local(|| deflater.frame(Kind::Text, black_box(&payload), 256));
}

/// A socket that accepts everything.
struct Sink;

impl Socket for Sink {
    fn try_read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(black_box(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn shutdown_write(&mut self) {}

    fn peer(&self) -> String {
        String::new()
    }
}

fn shipped() -> Config {
    let parsed = config::parse(Path::new("pushd.toml"), config::DEFAULT);
    parsed.unwrap_or_else(|errors| panic!("{errors}"))
}

fn site() -> Site {
    let config = shipped();
    let in_use = |(number, hub): (usize, &config::Hub)| HubInUse {
        id: HubId(number as u32),
        hub: hub.clone(),
        members: Members::default(),
    };
    let hubs: Vec<HubInUse> = config.hubs.iter().enumerate().map(in_use).collect();
    Site::new(&config.servers[0], &hubs, &[], &HashMap::new())
}

fn arrival(terms: &Arc<Terms>, channel: &Arc<str>) -> Arrival {
    Arrival {
        framing: Framing::Rfc6455,
        inflates: false,
        terms: terms.clone(),
        membership: terms.members.join(usize::MAX).expect("a hub without a limit has a place"),
        channels: [Selector::name(channel.clone())].into_iter().collect(),
        since: None,
        poll: None,
        identity: None,
        granted: None,
        to: channel.clone(),
        head: Bytes::new(),
        greeting: None,
        early: Bytes::new(),
    }
}

/// One turn of a shard with a thousand subscribers: this number of messages is published, staged and flushed.
#[divan::bench(args = [1, 64])]
fn turn_for_1000_sockets(bencher: Bencher<'_, '_>, messages: usize) {
    let site = site();
    let terms = site.terms("/ws").expect("the default file has /ws");
    let channel: Arc<str> = "all".into();
    let mut table = Table::new(Arc::default());
    for _ in 0..SOCKETS {
        table.adopt(Sink, arrival(terms, &channel));
    }
    let payload = Bytes::from(text(64));
    let published = || -> Vec<Arc<Publication>> {
        let one = || Message::new(terms.hub_id, channel.clone(), Kind::Text, payload.clone());
        (0..messages).map(|_| Arc::new(one().into())).collect()
    };
    bencher.counter(ItemsCount::new(messages * SOCKETS)).with_inputs(published).bench_local_values(|publications| {
        for publication in publications {
            table.publish(publication);
        }
        table.flush();
    });
}

/// The patterns of the other sessions, while a message is published on `news/7/text`, which one session is subscribed to by its name.
const PATTERNS: [&str; 6] =
    ["0", "1000 of user/N/*", "1000 of news/N/*", "1000 of news/7/N", "1000 of */*/N", "1 of news/*/text"];

/// One turn of a shard in which a message is published to one subscriber, beside sessions with patterns.
#[divan::bench(args = PATTERNS)]
fn turn_beside_patterns(bencher: Bencher<'_, '_>, patterns: &str) {
    let site = site();
    let terms = site.terms("/ws").expect("the default file has /ws");
    let channel: Arc<str> = "news/7/text".into();
    let mut table = Table::new(Arc::default());
    table.adopt(Sink, arrival(terms, &channel));
    let (count, pattern) = patterns.split_once(" of ").unwrap_or((patterns, ""));
    for number in 0..count.parse().expect("a number") {
        let pattern = Selector::pattern(pattern.replace('N', &format!("n{number}")));
        table.adopt(Sink, Arrival { channels: [pattern].into_iter().collect(), ..arrival(terms, &channel) });
    }
    let payload = Bytes::from(text(64));
    let published = || Arc::new(Message::new(terms.hub_id, channel.clone(), Kind::Text, payload.clone()).into());
    bencher.with_inputs(published).bench_local_values(|publication| {
        table.publish(publication);
        table.flush();
    });
}

#[divan::bench]
fn subscribe_and_unsubscribe_one_of_1000(bencher: Bencher<'_, '_>) {
    let mut channels = Channels::default();
    let name = Selector::name("all");
    for slot in 0..SOCKETS as Slot {
        channels.subscribe(HubId(0), &name, slot);
    }
    bencher.bench_local(|| {
        let seat = channels.subscribe(HubId(0), &name, SOCKETS as Slot);
        channels.unsubscribe(seat);
    });
}

#[divan::bench]
fn subscribe_and_unsubscribe_a_channel_of_its_own(bencher: Bencher<'_, '_>) {
    let mut channels = Channels::default();
    for slot in 0..SOCKETS as Slot {
        channels.subscribe(HubId(0), &Selector::name(format!("user/{slot}")), slot);
    }
    let name = Selector::name("user/me");
    bencher.bench_local(|| {
        let seat = channels.subscribe(HubId(0), &name, SOCKETS as Slot);
        channels.unsubscribe(seat);
    });
}

#[divan::bench]
fn parse_the_default_configuration() -> Config {
    shipped()
}

#[divan::bench(args = ["/ws", "/publish/news", "/none"])]
fn find_a_route(bencher: Bencher<'_, '_>, path: &str) {
    let site = site();
    bencher.bench_local(|| site.find(black_box(path)).is_some());
}

/// The longest path that a client may send, with routes that all could match its beginning.
#[divan::bench(args = [1, 10, 100, 1000])]
fn find_a_long_path_among_routes(bencher: Bencher<'_, '_>, routes: usize) {
    let mut file = "[server.main]\nlisten = \"127.0.0.1:1\"\n[server.main.routes]\n".to_owned();
    for route in 0..routes {
        file += &format!("\"/{{name}}/{route}\" = {{ health = true }}\n");
    }
    let config = config::parse(Path::new("x.toml"), &file).unwrap_or_else(|errors| panic!("{errors}"));
    let site = Site::new(&config.servers[0], &[], &[], &HashMap::new());
    let path = format!("/{}", "%61".repeat(PATH_BYTES_MAX / 3 - 1));
    bencher.bench_local(|| site.find(black_box(&path)).is_some());
}

#[divan::bench]
fn fill_a_channel_template(bencher: Bencher<'_, '_>) {
    let template = Template::parse("user/{userid}/{compid}").unwrap_or_else(|error| panic!("{}", error.what));
    let value = |name: &str| Some(Cow::from(if name == "userid" { "17" } else { "a b/c" }));
    bencher.bench(|| template.channel(black_box(value)));
}
