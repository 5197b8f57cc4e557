//! Subscribing by a message: a client begins and ends subscriptions on a WebSocket that is open, and each request is answered.

mod common;

use std::net::SocketAddr;

use common::http::{ask, metric, publish};
use common::service::Service;
use common::wire::Wire;
use common::ws::{Hixie, TEXT, Ws, frame};
use common::{start, until_true};
use serde_json::{Value, json};

const CONFIG: &str = r#"
[daemon]
workers = 3
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/ws" = { websocket = "kept", channels = ["base", "fixed/*"], envelope = true, subscribe = ["news/*", "user/**", "all"], subscriptions_max = 5, draft76 = true }
"/talk" = { websocket = "live", channels = ["base"], envelope = true, subscribe = ["news/*"], on_message = "broadcast", accept = "binary" }
"/echo" = { websocket = "live", channels = ["base"], envelope = true, subscribe = ["**"], on_message = "echo", subscriptions_max = 10000 }
"/slow" = { websocket = "slow", channels = ["base"], envelope = true, subscribe = ["news/*"] }
"/slow/{a}/{b}" = { publish = "slow", channel = "{a}/{b}" }
"/none" = { websocket = "live", channels = ["base"], envelope = true, on_message = "echo" }
"/kept/{a}/{b}" = { publish = "kept", channel = "{a}/{b}" }
"/kept/{a}/{b}/{c}" = { publish = "kept", channel = "{a}/{b}/{c}" }
"/kept/{a}" = { publish = "kept", channel = "{a}" }
"/live/{a}/{b}" = { publish = "live", channel = "{a}/{b}" }
"/live/{a}" = { publish = "live", channel = "{a}" }
"/metrics" = { metrics = true }
[hub.kept]
history = { messages = 3000 }
ping = false
[hub.slow]
ping = false
when_slow = "drop_oldest"
queue_max = "1MiB"
[hub.live]
ping = false
messages_per_second = 2000
"#;

/// Publishes to a hub with history, and returns the position.
fn keep(address: SocketAddr, channel: &str, text: &str) -> String {
    let answer = ask(address, "POST", &format!("/kept/{channel}"), &[], text.as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

fn object(socket: &mut Ws) -> Value {
    serde_json::from_str(&socket.next_text()).unwrap()
}

/// The next answer or message. A position that the client is told for itself is left out.
fn next(socket: &mut Ws) -> Value {
    loop {
        let next = object(socket);
        if next.as_object().is_none_or(|object| object.len() != 1 || !object.contains_key("id")) {
            return next;
        }
    }
}

fn subscribe(socket: &mut Ws, channel: &str) -> Value {
    socket.text(&json!({ "subscribe": channel }).to_string());
    next(socket)
}

fn unsubscribe(socket: &mut Ws, channel: &str) -> Value {
    socket.text(&json!({ "unsubscribe": channel }).to_string());
    next(socket)
}

fn expect_message(socket: &mut Ws, channel: &str, data: &str) {
    let message = next(socket);
    assert_eq!((&message["channel"], &message["data"]), (&json!(channel), &json!(data)), "{message}");
}

#[test]
fn a_client_subscribes_and_ends_it() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut socket = Ws::open(address, "/ws");
    let before = keep(address, "news/7", "before");
    assert_eq!(subscribe(&mut socket, "news/7"), json!({ "subscribed": "news/7", "id": before }));
    assert_eq!(publish(address, "/kept/news/7", "1"), 1);
    expect_message(&mut socket, "news/7", "1");
    assert_eq!(subscribe(&mut socket, "user/**")["subscribed"], "user/**");
    keep(address, "user/ann/x", "2");
    expect_message(&mut socket, "user/ann/x", "2");
    // Both select it. It comes once.
    assert_eq!(subscribe(&mut socket, "news/*")["subscribed"], "news/*");
    keep(address, "news/7", "3");
    keep(address, "news/8", "4");
    expect_message(&mut socket, "news/7", "3");
    expect_message(&mut socket, "news/8", "4");
    assert_eq!(unsubscribe(&mut socket, "news/*"), json!({ "unsubscribed": "news/*" }));
    keep(address, "news/8", "not heard");
    keep(address, "news/7", "5");
    expect_message(&mut socket, "news/7", "5");
    assert_eq!(unsubscribe(&mut socket, "news/7"), json!({ "unsubscribed": "news/7" }));
    assert_eq!(publish(address, "/kept/news/7", "not heard"), 0);
    assert_eq!(subscribe(&mut socket, "news/7")["subscribed"], "news/7");
    keep(address, "fixed/1", "6");
    expect_message(&mut socket, "fixed/1", "6");
    drop(socket);
    until_true("no channel", || metric(address, "pushd_channels") == 0);
    assert_eq!(publish(address, "/kept/user/x", "nobody"), 0);
    let mut old = Hixie::open(address, "/ws");
    old.text(r#"{"subscribe":"all"}"#);
    assert!(old.next_text().starts_with(r#"{"subscribed":"all","id":""#));
    keep(address, "all", "x");
    assert!(old.next_text().starts_with(r#"{"channel":"all","id":""#));
}

#[test]
fn a_request_that_cannot_be_granted_is_answered_with_the_reason() {
    let pushd = start(CONFIG);
    let mut socket = Ws::open(pushd.address(), "/ws");
    let mut refused = |request: Value, why: &str| {
        socket.text(&request.to_string());
        let answer = next(&mut socket);
        let channel = request.get("subscribe").or(request.get("unsubscribe")).unwrap();
        assert_eq!(answer["channel"], *channel, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(why), "{answer}");
        assert_eq!(answer.as_object().unwrap().len(), 2, "{answer}");
    };
    refused(json!({ "subscribe": "other" }), "does not allow");
    refused(json!({ "subscribe": "news/**" }), "does not allow");
    refused(json!({ "subscribe": "news/7/8", "since": "earliest" }), "does not allow");
    refused(json!({ "subscribe": "news/x*" }), "whole segments");
    refused(json!({ "subscribe": "" }), "empty");
    refused(json!({ "subscribe": "x".repeat(300) }), "256 bytes");
    refused(json!({ "unsubscribe": "news/7" }), "not subscribed");
    refused(json!({ "unsubscribe": "base" }), "route subscribes");
    refused(json!({ "unsubscribe": "fixed/*" }), "route subscribes");
    for n in 0..5 {
        assert_eq!(subscribe(&mut socket, &format!("news/{n}"))["subscribed"], format!("news/{n}"));
    }
    assert_eq!(subscribe(&mut socket, "news/4"), json!({ "error": "already subscribed", "channel": "news/4" }));
    let many = json!({ "error": "at most 5 subscriptions are allowed", "channel": "all" });
    assert_eq!(subscribe(&mut socket, "all"), many);
    socket.text(r#"{"subscribe":"all","since":"earliest"}"#);
    assert_eq!(next(&mut socket), many);
    assert_eq!(unsubscribe(&mut socket, "news/0")["unsubscribed"], "news/0");
    assert_eq!(subscribe(&mut socket, "all")["subscribed"], "all");
}

#[test]
fn what_was_missed_comes_before_the_answer() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let first = keep(address, "news/1", "0");
    let text = "x".repeat(1000);
    for n in 1..2000 {
        keep(address, &format!("news/{}", n % 2), &format!("{n} {text}"));
    }
    let last = keep(address, "user/1", "other");
    let mut socket = Ws::open(address, "/ws");
    socket.text(&json!({ "subscribe": "news/*", "since": first }).to_string());
    socket.text(&json!({ "subscribe": "user/1", "since": last }).to_string());
    for n in 1..2000 {
        expect_message(&mut socket, &format!("news/{}", n % 2), &format!("{n} {text}"));
    }
    assert_eq!(next(&mut socket), json!({ "subscribed": "news/*", "id": last }));
    assert_eq!(next(&mut socket), json!({ "subscribed": "user/1", "id": last }));
    keep(address, "news/1", "live");
    keep(address, "user/1", "live");
    expect_message(&mut socket, "news/1", "live");
    expect_message(&mut socket, "user/1", "live");
    // A position that is not known is a gap, which is told first.
    let last = keep(address, "all", "kept");
    socket.text(r#"{"subscribe":"all","since":"unknown-1"}"#);
    assert_eq!(next(&mut socket), json!({ "channel": "all", "gap": true }));
    expect_message(&mut socket, "all", "kept");
    assert_eq!(next(&mut socket), json!({ "subscribed": "all", "id": last }));
    // A hub without a history has no positions.
    let mut socket = Ws::open(address, "/talk");
    socket.text(r#"{"subscribe":"news/1","since":"earliest"}"#);
    assert_eq!(next(&mut socket), json!({ "subscribed": "news/1" }));
}

#[test]
fn no_answer_tells_a_position_ahead_of_what_was_received() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut position = keep(address, "base", "0");
    let text = "x".repeat(1000);
    for n in 1..2000 {
        keep(address, "base", &format!("{n} {text}"));
    }
    let mut heard = 1;
    let mut receive = |value: &Value| {
        if value["channel"] == "base" {
            assert_eq!(value["data"], format!("{heard} {text}"));
            heard += 1;
        }
        value["id"].as_str().unwrap().to_owned()
    };
    // The client reads nothing for now, so a page waits for it.
    let mut socket = Ws::open_on(Wire::connect_narrow(address), &format!("/ws?since={position}"));
    socket.text(r#"{"subscribe":"news/1"}"#);
    loop {
        let value = next(&mut socket);
        position = receive(&value);
        if value["subscribed"] == "news/1" {
            break;
        }
    }
    keep(address, "news/1", "live");
    expect_message(&mut socket, "news/1", "live");
    let mut socket = Ws::open(address, &format!("/ws?since={position}"));
    let last = keep(address, "fixed/1", "last");
    while position != last {
        position = receive(&next(&mut socket));
    }
    assert_eq!(heard, 2000);
}

#[test]
fn a_subscription_ends_while_it_catches_up() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let text = "x".repeat(2000);
    for n in 0..3000 {
        keep(address, "news/1", &format!("{n} {text}"));
    }
    let last = keep(address, "news/2", "small");
    // The client reads nothing for now, so a page waits for it.
    let mut socket = Ws::open_on(Wire::connect_narrow(address), "/ws");
    let requests = [
        r#"{"subscribe":"news/1","since":"earliest"}"#,
        r#"{"subscribe":"news/2","since":"earliest"}"#,
        r#"{"subscribe":"news/1"}"#,
        r#"{"unsubscribe":"news/1"}"#,
        r#"{"unsubscribe":"news/1"}"#,
        r#"{"subscribe":"all"}"#,
    ];
    socket.wire.send(&requests.map(|request| frame(TEXT, request.as_bytes())).concat());
    let (mut heard, mut answers) = (0, Vec::new());
    while answers.last().is_none_or(|last: &Value| last["subscribed"] != "news/2") {
        let next = next(&mut socket);
        if next["channel"] == "news/1" && next.get("data").is_some() {
            assert_eq!(next["data"], format!("{heard} {text}"));
            heard += 1;
        } else {
            answers.push(next);
        }
    }
    assert!(heard < 3000, "it was ended: {heard}");
    let place =
        |answer: &Value| answers.iter().position(|other| other == answer).unwrap_or_else(|| panic!("{answers:?}"));
    let again = place(&json!({ "error": "already subscribed", "channel": "news/1" }));
    let ended = place(&json!({ "unsubscribed": "news/1" }));
    let ended_again = place(&json!({ "error": "not subscribed", "channel": "news/1" }));
    let live = place(&json!({ "subscribed": "all", "id": last }));
    let caught_up = place(&json!({ "subscribed": "news/2", "id": last }));
    assert!(again < ended && ended < ended_again && ended_again < live && live < caught_up, "{answers:?}");
    assert_eq!(answers.len(), 6, "{answers:?}");
    keep(address, "news/1", "not heard");
    keep(address, "news/2", "heard");
    expect_message(&mut socket, "news/2", "heard");
    // It is ended between two pages.
    socket.text(r#"{"subscribe":"news/1","since":"earliest"}"#);
    let first = next(&mut socket);
    assert_eq!(first["channel"], "news/1", "{first}");
    socket.text(r#"{"unsubscribe":"news/1"}"#);
    let messages = (0..).take_while(|_| next(&mut socket) != json!({ "unsubscribed": "news/1" })).count();
    assert!(messages < 2000, "{messages}");
    keep(address, "news/1", "not heard");
    keep(address, "news/2", "heard, too");
    expect_message(&mut socket, "news/2", "heard, too");
}

#[test]
fn other_texts_go_the_usual_way() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut talking = Ws::open(address, "/talk");
    let mut echoing = Ws::open(address, "/echo");
    let mut deaf = Ws::open(address, "/none");
    // `accept` concerns messages, not requests.
    assert_eq!(subscribe(&mut talking, "news/1")["subscribed"], "news/1");
    talking.text("a text that is not accepted");
    talking.send(0x82, b"binary");
    assert_eq!(next(&mut talking), json!({ "channel": "base", "base64": "YmluYXJ5" }));
    assert_eq!(next(&mut echoing)["base64"], "YmluYXJ5");
    for text in [r#"{"subscribe":7}"#, r#"{"subscribe":"a","x":1}"#, r#"{"subscribe":"a"} b"#, "subscribe"] {
        echoing.text(text);
        echoing.expect_text(text);
    }
    assert_eq!(subscribe(&mut echoing, "news/1")["subscribed"], "news/1");
    assert_eq!(next(&mut deaf)["base64"], "YmluYXJ5");
    let request = r#"{"subscribe":"news/1"}"#;
    deaf.text(request);
    deaf.expect_text(request);
}

#[test]
fn many_subscriptions_are_answered_each_and_count_as_messages() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut socket = Ws::open(address, "/echo");
    let request = |n: usize| frame(TEXT, format!("{{\"subscribe\":\"c/{n}\"}}").as_bytes());
    socket.wire.send(&(0..1500).map(request).collect::<Vec<_>>().concat());
    for n in 0..1500 {
        assert_eq!(next(&mut socket), json!({ "subscribed": format!("c/{n}") }));
    }
    assert_eq!(publish(address, "/live/c/1499", "x"), 1);
    expect_message(&mut socket, "c/1499", "x");
    let mut flood = Ws::open(address, "/echo");
    flood.wire.send(&(0..5000).map(request).collect::<Vec<_>>().concat());
    let mut answered = 0;
    while let (TEXT, _) = flood.next() {
        answered += 1;
    }
    assert!((1..5000).contains(&answered), "{answered}");
    until_true("the end of the flood", || metric(address, "pushd_protocol_errors_total") == 1);
}

#[test]
fn a_slow_client_can_end_what_it_cannot_receive() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut socket = Ws::open_on(Wire::connect_narrow(address), "/slow");
    assert_eq!(subscribe(&mut socket, "news/1")["subscribed"], "news/1");
    let text = "x".repeat(60_000);
    until_true("messages are dropped", || {
        assert_eq!(publish(address, "/slow/news/1", &text), 1);
        metric(address, "pushd_messages_dropped_total") > 10
    });
    // It reads nothing, and its answers are not dropped.
    socket.text(r#"{"subscribe":"news/2"}"#);
    socket.text(r#"{"unsubscribe":"news/1"}"#);
    until_true("the end of the subscription", || publish(address, "/slow/news/1", &text) == 0);
    for _ in 0..100 {
        publish(address, "/slow/news/2", &text);
    }
    let mut answers = Vec::new();
    while answers.len() < 2 {
        answers.extend(Some(next(&mut socket)).filter(|next| next.get("data").is_none()));
    }
    assert_eq!(answers, [json!({ "subscribed": "news/2" }), json!({ "unsubscribed": "news/1" })]);
}

#[test]
fn a_reload_ends_what_is_not_allowed_any_more() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut socket = Ws::open(address, "/ws");
    ["news/1", "news/*", "all"].iter().for_each(|channel| drop(subscribe(&mut socket, channel)));
    let less = CONFIG.replace(r#"["news/*", "user/**", "all"]"#, r#"["news/1", "user/**"]"#);
    pushd.reload(&less.replace("subscriptions_max = 5", "subscriptions_max = 1"));
    let mut ended = [next(&mut socket), next(&mut socket)];
    ended.sort_by_key(|answer| answer["unsubscribed"].to_string());
    let expected = ["all", "news/*"].map(|name| json!({ "unsubscribed": name, "error": "no longer allowed" }));
    assert_eq!(ended, expected);
    assert_eq!(publish(address, "/kept/news/2", "not heard"), 0);
    keep(address, "news/1", "heard");
    expect_message(&mut socket, "news/1", "heard");
    assert_eq!(subscribe(&mut socket, "user/1")["error"], "at most 1 subscriptions are allowed");
    assert_eq!(subscribe(&mut socket, "all")["error"], "this route does not allow it");
}

#[test]
fn subscriptions_go_to_the_next_process() {
    let mut service = Service::started(CONFIG);
    let address = service.address();
    let mut socket = Ws::open(address, "/ws");
    ["news/1", "user/**", "all"].iter().for_each(|channel| drop(subscribe(&mut socket, channel)));
    let text = "x".repeat(2000);
    for n in 0..2000 {
        keep(address, "news/7", &format!("{n} {text}"));
    }
    let mut behind = Ws::open_on(Wire::connect_narrow(address), "/ws");
    behind.text(r#"{"subscribe":"news/*","since":"earliest"}"#);
    expect_message(&mut behind, "news/7", &format!("0 {text}"));
    let less = CONFIG.replace(r#"["news/*", "user/**", "all"]"#, r#"["news/*", "user/**"]"#);
    service.configure(&less);
    service.restart();
    assert_eq!(next(&mut socket), json!({ "unsubscribed": "all", "error": "no longer allowed" }));
    keep(address, "user/1/2", "after");
    let last = keep(address, "news/1", "after");
    expect_message(&mut socket, "user/1/2", "after");
    expect_message(&mut socket, "news/1", "after");
    assert_eq!(unsubscribe(&mut socket, "user/**"), json!({ "unsubscribed": "user/**" }));
    assert_eq!(unsubscribe(&mut socket, "base")["error"], "the route subscribes to it, so it cannot be ended");
    for n in 1..2000 {
        expect_message(&mut behind, "news/7", &format!("{n} {text}"));
    }
    expect_message(&mut behind, "news/1", "after");
    assert_eq!(next(&mut behind), json!({ "subscribed": "news/*", "id": last }));
    assert_eq!(unsubscribe(&mut behind, "news/*"), json!({ "unsubscribed": "news/*" }));
    assert_eq!(publish(address, "/kept/news/1", "one"), 1);
}
