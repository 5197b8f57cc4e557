//! Patterns: a client of `news/*` receives what is published on all channels that match, once and in order.

mod common;

use std::net::SocketAddr;

use common::events::Events;
use common::http::{ask, metric, publish};
use common::service::Service;
use common::wire::Wire;
use common::ws::Ws;
use common::{start, until_true};
use serde_json::{Value, json};

const CONFIG: &str = r#"
[daemon]
workers = 3
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/one" = { websocket = "push", channels = ["news/*"] }
"/rest" = { websocket = "push", channels = ["**"] }
"/three" = { websocket = "push", channels = ["news/7", "news/*", "*/7", "other"] }
"/user/{user}" = { websocket = "push", channels = ["user/{user}/*"] }
"/events" = { events = "push", channels = ["news/*"] }
"/events-of-two" = { events = "push", channels = ["news/*", "*/7"] }
"/latest" = { websocket = "latest", channels = ["news/*"] }
"/kept" = { events = "kept", channels = ["news/*", "other"] }
"/kept-ws" = { websocket = "kept", channels = ["**"], envelope = true }
"/publish/{hub}/{channel}" = { publish = "push", channel = "{hub}/{channel}" }
"/publish/{channel}" = { publish = "push", channel = "{channel}" }
"/publish-latest/{channel}" = { publish = "latest", channel = "news/{channel}" }
"/publish-user/{user}/{channel}" = { publish = "push", channel = "user/{user}/{channel}" }
"/publish-kept/{first}/{channel}" = { publish = "kept", channel = "{first}/{channel}" }
"/metrics" = { metrics = true }
[hub.push]
ping = false
queue_max = "16MiB"
queue_messages_max = 100000
message_max = "2MiB"
[hub.latest]
ping = false
when_slow = "conflate"
queue_max = "16MiB"
message_max = "2MiB"
[hub.kept]
history = { messages = 5 }
"#;

fn kept(address: SocketAddr, channel: &str, text: &str) -> String {
    let answer = ask(address, "POST", &format!("/publish-kept/{channel}"), &[], text.as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

fn object(socket: &mut Ws) -> Value {
    serde_json::from_str(&socket.next_text()).unwrap()
}

#[test]
fn a_pattern_receives_all_channels_that_match() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let (mut one, mut rest) = (Ws::open(address, "/one"), Ws::open(address, "/rest"));
    let mut events = Events::open(address, "/events");
    let mut user = Ws::open(address, "/user/ann");
    // The value of a placeholder is no pattern.
    let mut star = Ws::open(address, "/user/*");
    assert_eq!(publish(address, "/publish/news/1", "a"), 3);
    assert_eq!(publish(address, "/publish/news", "b"), 1);
    assert_eq!(publish(address, "/publish-user/ann/x", "c"), 2);
    assert_eq!(publish(address, "/publish/news/2", "d"), 3);
    ["a", "d"].iter().for_each(|text| one.expect_text(text));
    ["a", "b", "c", "d"].iter().for_each(|text| rest.expect_text(text));
    ["a", "d"].iter().for_each(|text| events.expect(text));
    user.expect_text("c");
    [&mut one, &mut rest, &mut user, &mut star].into_iter().for_each(Ws::expect_nothing);
    // Patterns are no channels.
    assert_eq!(metric(address, "pushd_channels"), 0);
    drop((one, rest, events, user, star));
    until_true("the end of the sessions", || metric(address, "pushd_sessions") == 0);
    assert_eq!(publish(address, "/publish/news/1", "nobody"), 0);
}

#[test]
fn a_session_of_several_selectors_receives_each_publication_once() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut sockets: Vec<Ws> = (0..9).map(|_| Ws::open(address, "/three")).collect();
    for (n, channel) in ["news/7", "news/8", "x/7", "other", "news/7", "news/9"].iter().enumerate() {
        assert_eq!(publish(address, &format!("/publish/{channel}"), &n.to_string()), 9);
    }
    for socket in &mut sockets {
        (0..6).for_each(|n| socket.expect_text(&n.to_string()));
        socket.expect_nothing();
    }
    assert_eq!(metric(address, "pushd_deliveries_total"), 54);
}

#[test]
fn a_message_that_a_stream_cannot_carry_is_counted_once() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut events = Events::open(address, "/events-of-two");
    let binary = ["Content-Type: application/octet-stream"];
    assert_eq!(ask(address, "POST", "/publish/news/7", &binary, b"\0").json()["subscribers"], 0);
    assert_eq!(publish(address, "/publish/news/7", "text"), 1);
    events.expect("text");
    assert_eq!(metric(address, "pushd_messages_unspeakable_total"), 1);
}

#[test]
fn a_pattern_resumes_from_one_position() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let first = kept(address, "news/1", "0");
    for n in 1..6 {
        kept(address, &format!("news/{}", n % 2), &n.to_string());
        kept(address, "sport/1", "x");
    }
    let mut stream = Events::open(address, &format!("/kept?since={first}"));
    (1..6).for_each(|n| stream.expect(&n.to_string()));
    let live = kept(address, "news/new", "live");
    stream.expect("live");
    assert_eq!(stream.id, Some(live));
    // Both channels have lost something after the first message; one that is not selected is not told.
    for n in 0..14 {
        kept(address, &format!("news/{}", n % 2), &n.to_string());
        for _ in 0..6 {
            kept(address, "sport/1", "x");
        }
    }
    let mut stream = Events::open(address, &format!("/kept?since={first}"));
    let mut told = [(); 2].map(|()| match stream.next() {
        common::events::Block::Event(Some(name), data) if name == "gap" => data,
        other => panic!("{other:?}"),
    });
    told.sort();
    assert_eq!(told, ["{\"channel\":\"news/0\"}", "{\"channel\":\"news/1\"}"]);
    stream.expect("live");
    (4..14).for_each(|n| stream.expect(&n.to_string()));
    let mut all = Ws::open(address, "/kept-ws?since=earliest");
    assert_eq!(object(&mut all)["channel"], "news/new");
    let mut unknown = Ws::open(address, "/kept-ws?since=unknown");
    assert_eq!(object(&mut unknown), json!({ "channel": "**", "gap": true }));
}

#[test]
fn patterns_go_to_the_next_process_with_what_waits() {
    let mut service = Service::started(CONFIG);
    let address = service.address();
    let mut quick = Ws::open(address, "/three");
    let mut events = Events::open(address, "/events");
    let mut slow = Ws::open_on(Wire::connect_narrow(address), "/rest");
    let mut latest = Ws::open_on(Wire::connect_narrow(address), "/latest");
    let big = "x".repeat(1 << 20);
    // Two of them fill the kernel's buffers. The others wait in the outbox, and so do small ones of other channels behind.
    for n in 0..8 {
        publish(address, "/publish/big", &format!("{n} {big}"));
        publish(address, "/publish-latest/big", &format!("{n} {big}"));
    }
    for n in 0..100 {
        publish(address, &format!("/publish/many/n{n}"), &n.to_string());
    }
    service.restart();
    assert_eq!(publish(address, "/publish/news/7", "after"), 3);
    assert_eq!(publish(address, "/publish/x/7", "after, too"), 2);
    publish(address, "/publish-latest/big", "the last");
    quick.expect_text("after");
    quick.expect_text("after, too");
    quick.expect_nothing();
    events.expect("after");
    (0..8).for_each(|n| slow.expect_text(&format!("{n} {big}")));
    (0..100).for_each(|n| slow.expect_text(&n.to_string()));
    slow.expect_text("after");
    slow.expect_text("after, too");
    slow.expect_nothing();
    // What was replaced by something later before the restart stays away. The rest comes in order, and the last one is there.
    let mut numbers = Vec::new();
    loop {
        match latest.next_text().split_once(' ') {
            Some(("the", "last")) => break,
            Some((number, _)) => numbers.push(number.parse::<u32>().unwrap()),
            None => panic!("no number"),
        }
    }
    assert!(numbers.is_sorted_by(|one, next| one < next) && numbers.len() < 8, "{numbers:?}");
    latest.expect_nothing();
}
