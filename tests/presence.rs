//! Presence: who is on a channel can be asked, and joins and leaves are told, exactly once and with a delay for returns.

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::events::Events;
use common::http::{ask, get, publish};
use common::polls::{Poll, poll, position, texts};
use common::service::Service;
use common::ws::Ws;
use common::{start, until_true};
use serde_json::{Value, json};

const CONFIG: &str = r#"
[daemon]
workers = 3
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/ws/{channel}" = { websocket = "news", channels = ["{channel}"], identity = "{user=}" }
"/named/{channel}" = { websocket = "news", channels = ["{channel}"], identity = "{user}" }
"/events/{channel}" = { events = "news", channels = ["{channel}", "all"], identity = "{user}" }
"/watch/{channel}" = { websocket = "news", channels = ["presence/{channel}"] }
"/past/{channel}" = { events = "past", channels = ["{channel}"], identity = "{user=}" }
"/poll/{channel}" = { poll = "past", channels = ["{channel}"], identity = "{user}" }
"/own" = { websocket = "past", channels = ["base", "any/*"], envelope = true, subscribe = ["news/*"], identity = "{user}" }
"/publish-past/{channel}" = { publish = "past", channel = "{channel}" }
"/past-watch/{channel}" = { events = "past", channels = ["presence/{channel}"] }
"/who/{channel}" = { presence = "news", channel = "{channel}", origins = ["https://page.example"] }
"/who-past/{channel}" = { presence = "past", channel = "{channel}" }
"/publish/{channel}" = { publish = "news", channel = "{channel}" }
[hub.news]
presence = true
presence_channel = "presence/{channel}"
[hub.past]
history = { messages = 100 }
presence = true
presence_channel = "presence/{channel}"
"#;

/// The delay before a member without sessions leaves.
const LEAVE_DELAY: Duration = Duration::from_secs(3);

/// The members of a channel, each with the number of its connections.
fn members(address: SocketAddr, target: &str) -> Vec<(String, u64)> {
    let answer = get(address, target).json();
    let members = answer["members"].as_array().unwrap().iter();
    members.map(|member| (member["id"].as_str().unwrap().into(), member["connections"].as_u64().unwrap())).collect()
}

/// Waits until these are the members of a channel, and the number of connections is this.
fn until_present(address: SocketAddr, target: &str, expected: &[(&str, u64)], connections: u64) {
    let expected: Vec<(String, u64)> = expected.iter().map(|(id, count)| ((*id).into(), *count)).collect();
    let mut last = Value::Null;
    until_true(&format!("{expected:?} at {target}"), || {
        last = get(address, target).json();
        members(address, target) == expected && last["connections"] == connections
    });
    let named: u64 = expected.iter().map(|(_, count)| count).sum();
    assert!(connections >= named && last["more"].is_null(), "{last}");
}

fn expect_change(watcher: &mut Ws, event: &str, channel: &str, id: &str) {
    let told: Value = serde_json::from_str(&watcher.next_text()).unwrap();
    assert_eq!(told, json!({ "event": event, "channel": channel, "id": id }));
}

#[test]
fn members_are_told_with_their_connections_in_order() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    assert_eq!(get(address, "/who/news").text(), "{\"channel\":\"news\",\"members\":[],\"connections\":0}\n");
    let mut open: Vec<Ws> = Vec::new();
    for user in ["zoe", "ann", "zoe", "ann", "zoe", "m%C3%BCller", ""] {
        open.push(Ws::open(address, &format!("/ws/news?user={user}")));
    }
    open.push(Ws::open(address, "/ws/news"));
    let stream = Events::open(address, "/events/news?user=ann");
    until_present(address, "/who/news", &[("ann", 3), ("müller", 1), ("zoe", 3)], 9);
    until_present(address, "/who/all", &[("ann", 1)], 1);
    until_present(address, "/who/other", &[], 0);
    drop(stream);
    drop(open);
    until_present(address, "/who/news", &[], 0);
    until_present(address, "/who/all", &[], 0);
}

#[test]
fn joins_and_leaves_are_told_once() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    // Channels of several owners.
    let clients = ["a", "b", "c", "d"].map(|channel| {
        let mut watcher = Ws::open(address, &format!("/watch/{channel}"));
        let target = format!("/ws/{channel}?user=");
        let first = Ws::open(address, &format!("{target}ann"));
        assert_eq!(watcher.next_text(), change_text("join", channel, "ann"));
        let second = Events::open(address, &format!("/events/{channel}?user=ann"));
        let nameless = Ws::open(address, &target);
        let other = Ws::open(address, &format!("{target}bo"));
        expect_change(&mut watcher, "join", channel, "bo");
        drop(first);
        drop(nameless);
        until_present(address, &format!("/who/{channel}"), &[("ann", 1), ("bo", 1)], 2);
        (channel, watcher, second, other)
    });
    let clients = clients.map(|(channel, watcher, second, other)| {
        let began = Instant::now();
        drop(second);
        until_present(address, &format!("/who/{channel}"), &[("ann", 0), ("bo", 1)], 1);
        (channel, watcher, other, began)
    });
    let clients = clients.map(|(channel, mut watcher, other, began)| {
        expect_change(&mut watcher, "leave", channel, "ann");
        assert!(began.elapsed() >= LEAVE_DELAY, "{:?}", began.elapsed());
        until_present(address, &format!("/who/{channel}"), &[("bo", 1)], 1);
        other.close();
        (channel, watcher)
    });
    for (channel, mut watcher) in clients {
        expect_change(&mut watcher, "leave", channel, "bo");
        watcher.expect_nothing();
    }
}

#[test]
fn a_return_within_the_delay_is_not_told() {
    let pushd = start(CONFIG);
    let mut channels = (0..).map(|attempt| format!("attempt{attempt}"));
    // On a busy machine the client may be late.
    until_true("a return in time", || returns_in_time(pushd.address(), &channels.next().unwrap()));
}

/// Two clients go, and one returns. Returns whether it did so in time: then only the leave of the other one is told.
fn returns_in_time(address: SocketAddr, channel: &str) -> bool {
    let mut watcher = Ws::open(address, &format!("/watch/{channel}"));
    let [ann, bo] = ["ann", "bo"].map(|user| {
        let socket = Ws::open(address, &format!("/ws/{channel}?user={user}"));
        expect_change(&mut watcher, "join", channel, user);
        socket
    });
    let who = format!("/who/{channel}");
    let began = Instant::now();
    drop(ann);
    until_true("the end of one", || get(address, &who).json()["connections"] == 1);
    // The leave of this one is due after that of the first.
    drop(bo);
    until_true("the end of both", || get(address, &who).json()["connections"] == 0);
    let again = Ws::open(address, &format!("/ws/{channel}?user=ann"));
    until_true("the return", || get(address, &who).json()["connections"] == 1);
    if began.elapsed() >= LEAVE_DELAY {
        return false;
    }
    expect_change(&mut watcher, "leave", channel, "bo");
    until_present(address, &who, &[("ann", 1)], 1);
    watcher.expect_nothing();
    drop(again);
    expect_change(&mut watcher, "leave", channel, "ann");
    true
}

#[test]
fn clients_that_vanish_together_all_leave() {
    const CLIENTS: usize = 600;
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut watcher = Ws::open(address, "/watch/crowd");
    let crowd: Vec<Ws> = (0..CLIENTS).map(|n| Ws::open(address, &format!("/ws/crowd?user=user{:04}", n / 2))).collect();
    let expected: Vec<String> = (0..CLIENTS / 2).map(|n| format!("user{n:04}")).collect();
    let told = |watcher: &mut Ws, event: &str| {
        let mut told: Vec<String> = (0..CLIENTS / 2)
            .map(|_| {
                let told: Value = serde_json::from_str(&watcher.next_text()).unwrap();
                assert_eq!(told["event"], event);
                told["id"].as_str().unwrap().to_owned()
            })
            .collect();
        told.sort();
        told
    };
    assert_eq!(told(&mut watcher, "join"), expected);
    let present: Vec<(&str, u64)> = expected.iter().map(|id| (id.as_str(), 2)).collect();
    until_present(address, "/who/crowd", &present, CLIENTS as u64);
    crowd.into_iter().for_each(|socket| socket.wire.reset());
    assert_eq!(told(&mut watcher, "leave"), expected);
    watcher.expect_nothing();
    until_present(address, "/who/crowd", &[], 0);
}

#[test]
fn on_a_hub_with_history_changes_have_positions() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut watcher = Events::open(address, "/past-watch/a");
    let before = watcher.expect_id();
    let client = Events::open(address, "/past/a?user=ann");
    watcher.expect(&change_text("join", "a", "ann"));
    // A client that catches up is on the channel.
    let other = Events::open(address, "/past/a?user=bo&since=earliest");
    watcher.expect(&change_text("join", "a", "bo"));
    until_present(address, "/who-past/a", &[("ann", 1), ("bo", 1)], 2);
    drop(watcher);
    drop((client, other));
    until_present(address, "/who-past/a", &[], 0);
    let mut again = Events::open(address, &format!("/past-watch/a?since={before}"));
    for id in ["ann", "bo"] {
        again.expect(&change_text("join", "a", id));
    }
    let mut left = [again.next(), again.next()].map(|block| format!("{block:?}"));
    left.sort_by_key(|block| block.contains("bo"));
    assert!(left[0].contains("leave") && left[0].contains("ann"), "{left:?}");
    assert!(left[1].contains("leave") && left[1].contains("bo"), "{left:?}");
}

#[test]
fn a_client_that_polls_stays_a_member_between_its_polls() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut watcher = Events::open(address, "/past-watch/a");
    watcher.expect_id();
    let mut since = position(&poll(address, "/poll/a?user=ann"));
    until_present(address, "/who-past/a", &[], 0);
    // The first poll waits; those after it find a message each, and are never subscribed.
    let waiting = Poll::send(address, &format!("/poll/a?user=ann&wait=60s&since={since}"), &[]);
    watcher.expect(&change_text("join", "a", "ann"));
    until_present(address, "/who-past/a", &[("ann", 1)], 1);
    let began = Instant::now();
    while began.elapsed() < 2 * LEAVE_DELAY {
        publish(address, "/publish-past/a", "x");
        let answer = poll(address, &format!("/poll/a?user=ann&wait=1s&since={since}"));
        assert_eq!(texts(&answer), ["x"]);
        since = position(&answer);
    }
    assert_eq!(texts(&waiting.answer()), ["x"]);
    until_present(address, "/who-past/a", &[("ann", 0)], 0);
    // The next block is that of its leave: it has not left meanwhile.
    watcher.expect(&change_text("leave", "a", "ann"));
    until_present(address, "/who-past/a", &[], 0);
}

/// A message about a member, as it is written.
fn change_text(event: &str, channel: &str, id: &str) -> String {
    format!("{{\"event\":\"{event}\",\"channel\":\"{channel}\",\"id\":\"{id}\"}}")
}

#[test]
fn an_identity_is_checked() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let refused = |target: &str, why: &str| {
        let (answer, _) = Ws::ask(address, target, &[]);
        assert_eq!(answer.status, 400, "{target}");
        assert!(answer.text().contains(why), "{}", answer.text());
    };
    refused("/named/a", "missing argument `user`");
    refused("/named/a?user=%0A", "an identity has no control characters");
    refused(&format!("/named/a?user={}", "x".repeat(257)), "at most 256 bytes");
    assert_eq!(ask(address, "GET", "/events/a", &["Accept: text/event-stream"], b"").status, 400);
    let longest = "x".repeat(256);
    let _socket = Ws::open(address, &format!("/named/a?user={longest}"));
    until_present(address, "/who/a", &[(&longest, 1)], 1);
}

#[test]
fn a_presence_route_answers_as_a_page_needs_it() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let page = "Origin: https://page.example";
    let answer = ask(address, "GET", "/who/a", &[page], b"");
    assert_eq!(answer.status, 200);
    for (name, value) in [
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
        ("access-control-allow-origin", "https://page.example"),
        ("vary", "Origin"),
    ] {
        assert_eq!(answer.field(name), Some(value));
    }
    assert_eq!(ask(address, "OPTIONS", "/who/a", &[page], b"").status, 204);
    let other = ask(address, "GET", "/who/a", &["Origin: https://other.example"], b"");
    assert_eq!((other.status, other.field("access-control-allow-origin")), (403, None));
    let post = ask(address, "POST", "/who/a", &[], b"x");
    assert_eq!((post.status, post.field("allow")), (405, Some("GET, HEAD, OPTIONS")));
    let long = ask(address, "GET", &format!("/who/{}", "x".repeat(257)), &[], b"");
    assert_eq!(long.status, 400);
    assert!(long.text().contains("256"), "{}", long.text());
}

#[test]
fn a_reload_ends_the_presence_of_a_removed_route_and_changes_where_it_is_told() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut watcher = Ws::open(address, "/watch/a");
    let mut leaving = Ws::open(address, "/ws/a?user=ann");
    let _staying = Ws::open(address, "/named/a?user=bo");
    until_present(address, "/who/a", &[("ann", 1), ("bo", 1)], 2);
    for _ in 0..2 {
        watcher.next_text();
    }
    pushd.reload(&CONFIG.replace("\"/ws/", "\"/gone/"));
    leaving.expect_close(1001, "route");
    expect_change(&mut watcher, "leave", "a", "ann");
    until_present(address, "/who/a", &[("bo", 1)], 1);
    let elsewhere = CONFIG.replace("\"presence/{channel}\"\n[hub.past]", "\"here/{channel}\"\n[hub.past]");
    assert_ne!(elsewhere, CONFIG);
    pushd.reload(&elsewhere.replace("[\"presence/{channel}\"]", "[\"here/{channel}\"]"));
    let mut here = Ws::open(address, "/watch/a");
    let _again = Ws::open(address, "/ws/a?user=ann");
    expect_change(&mut here, "join", "a", "ann");
    watcher.expect_nothing();
}

#[test]
fn presence_that_is_not_in_force_yet_is_503() {
    let off = CONFIG.replace("presence = true\npresence_channel = \"presence/{channel}\"\n[hub.past]", "[hub.past]");
    let off: String = off.lines().filter(|line| !line.contains("\"/who/")).map(|line| format!("{line}\n")).collect();
    let pushd = start(&off);
    let address = pushd.address();
    let _socket = Ws::open(address, "/ws/a?user=ann");
    pushd.reload(CONFIG);
    let answer = get(address, "/who/a");
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("restart") && answer.field("retry-after").is_some(), "{answer:?}");
}

#[test]
fn subscriptions_of_a_client_count_while_they_last() {
    let mut service = Service::started(&workers(3));
    let address = service.address();
    let mut socket = Ws::open(address, "/own?user=ann");
    let on = |channel: &str, connections: u64| {
        let ann = [("ann", connections)];
        until_present(address, &format!("/who-past/{channel}"), &ann, connections);
    };
    on("base", 1);
    // A pattern is no channel.
    until_present(address, "/who-past/any%2F*", &[], 0);
    for request in ["{\"subscribe\":\"news/1\"}", "{\"subscribe\":\"news/2\",\"since\":\"earliest\"}"] {
        socket.text(request);
    }
    socket.text("{\"subscribe\":\"news/*\"}");
    on("news%2F1", 1);
    on("news%2F2", 1);
    until_present(address, "/who-past/news%2F*", &[], 0);
    socket.text("{\"unsubscribe\":\"news/1\"}");
    on("news%2F1", 0);
    until_present(address, "/who-past/news%2F1", &[], 0);
    service.restart();
    on("news%2F2", 1);
    on("base", 1);
    until_present(address, "/who-past/news%2F1", &[], 0);
    service.reload(&workers(3).replace("[\"news/*\"]", "[\"other/*\"]"));
    on("news%2F2", 0);
    on("base", 1);
    drop(socket);
    on("base", 0);
    until_present(address, "/who-past/base", &[], 0);
}

fn workers(count: usize) -> String {
    CONFIG.replace("workers = 3", &format!("workers = {count}"))
}

#[test]
fn a_restart_is_no_leave_and_no_join() {
    let mut service = Service::started(&workers(3));
    let address = service.address();
    let channels = ["a", "b", "c", "d", "e"];
    let mut watchers: Vec<Ws> =
        channels.iter().map(|channel| Ws::open(address, &format!("/watch/{channel}"))).collect();
    let mut staying = Vec::new();
    let mut leaving = Vec::new();
    for (channel, watcher) in channels.iter().zip(&mut watchers) {
        staying.push(Ws::open(address, &format!("/ws/{channel}?user=ann")));
        staying.push(Ws::open(address, &format!("/ws/{channel}?user=ann")));
        expect_change(watcher, "join", channel, "ann");
        staying.push(Ws::open(address, &format!("/ws/{channel}")));
        leaving.push(Ws::open(address, &format!("/ws/{channel}?user=bo")));
        expect_change(watcher, "join", channel, "bo");
    }
    let past = Events::open(address, "/past/a?user=cy");
    until_present(address, "/who-past/a", &[("cy", 1)], 1);
    for round in 0..3 {
        service.configure(&workers(1 + round));
        service.restart();
        for channel in channels {
            until_present(address, &format!("/who/{channel}"), &[("ann", 2), ("bo", 1)], 4);
        }
        until_present(address, "/who-past/a", &[("cy", 1)], 1);
    }
    // These clients go while no process serves them.
    service.hand_over();
    drop(leaving);
    service.start();
    for (channel, watcher) in channels.iter().zip(&mut watchers) {
        expect_change(watcher, "leave", channel, "bo");
        until_present(address, &format!("/who/{channel}"), &[("ann", 2)], 3);
        watcher.expect_nothing();
    }
    // These have gone before, and their leave is due in the next process.
    drop(staying);
    drop(past);
    for channel in channels {
        until_true("their end", || get(address, &format!("/who/{channel}")).json()["connections"] == 0);
    }
    service.restart();
    for (channel, watcher) in channels.iter().zip(&mut watchers) {
        expect_change(watcher, "leave", channel, "ann");
        until_present(address, &format!("/who/{channel}"), &[], 0);
        watcher.expect_nothing();
    }
    until_present(address, "/who-past/a", &[], 0);
    assert_eq!(publish(address, "/publish/a", "x"), 0);
}
