//! Channels that remember: who was away receives what was missed, once and in order, or is told of the gap.

mod common;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::events::{Block, Events};
use common::http::{ask, metric, publish_kept as publish};
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
"/events" = { events = "news", channels = ["{channel=all}"] }
"/both" = { events = "news", channels = ["a", "b"] }
"/ws" = { websocket = "news", channels = ["{channel=all}"], envelope = true }
"/plain" = { websocket = "news", channels = ["{channel=all}"] }
"/publish/{channel}" = { publish = "news", channel = "{channel}" }
"/metrics" = { metrics = true }
[hub.news]
history = { messages = 5 }
"#;

fn frame(socket: &mut Ws) -> Value {
    serde_json::from_str(&socket.next_text()).unwrap()
}

#[test]
fn a_stream_continues_where_it_ended() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut stream = Events::open(address, "/events");
    let before = stream.expect_id();
    let first = publish(address, "all", "1");
    stream.expect("1");
    assert_eq!(stream.id, Some(first.clone()));
    drop(stream);
    publish(address, "all", "2");
    publish(address, "other", "x");
    publish(address, "all", "3");
    for target in [format!("/events?since={first}"), format!("/events?last_event_id={first}&since=earliest")] {
        let mut again = Events::open(address, &target);
        again.expect("2");
        again.expect("3");
    }
    let mut again = Events::resume(address, "/events?since=earliest", &first);
    again.expect("2");
    again.expect("3");
    let last = publish(address, "all", "4");
    again.expect("4");
    assert_eq!(again.id, Some(last.clone()));
    let mut all = Events::resume(address, "/events", &before);
    (1..=4).for_each(|n| all.expect(&n.to_string()));
    let mut nothing = Events::resume(address, "/events", &last);
    assert_eq!(nothing.expect_id(), last);
}

#[test]
fn a_gap_is_told_first() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let ids: Vec<String> = (0..9).map(|n| publish(address, "a", &n.to_string())).collect();
    publish(address, "b", "x");
    let mut stream = Events::resume(address, "/both", &ids[2]);
    stream.expect_gap("a");
    (4..9).for_each(|n| stream.expect(&n.to_string()));
    stream.expect("x");
    let mut complete = Events::resume(address, "/both", &ids[3]);
    complete.expect("4");
    for unknown in ["other-1", "nonsense", "%20"] {
        let mut stream = Events::resume(address, "/both", unknown);
        stream.expect_gap("a");
        stream.expect_gap("b");
        stream.expect("4");
    }
    let mut earliest = Events::resume(address, "/both", "earliest");
    earliest.expect("4");
}

#[test]
fn a_websocket_with_envelopes_continues_too() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut socket = Ws::open(address, "/ws?channel=a");
    let mut plain = Ws::open(address, "/plain?channel=a");
    let opened = Instant::now();
    let mut silent = Ws::open(address, "/ws?channel=silent");
    let first = publish(address, "a", "\"quoted\" ä");
    assert_eq!(frame(&mut socket), json!({ "channel": "a", "id": first, "data": "\"quoted\" ä" }));
    plain.expect_text("\"quoted\" ä");
    let binary = ["Content-Type: application/octet-stream"];
    let second = ask(address, "POST", "/publish/a", &binary, &[0, 255, 1]).json();
    assert_eq!(frame(&mut socket), json!({ "channel": "a", "id": second["id"], "base64": "AP8B" }));
    let mut again = Ws::open(address, &format!("/ws?channel=a&since={first}"));
    assert_eq!(frame(&mut again), json!({ "channel": "a", "id": second["id"], "base64": "AP8B" }));
    let third = publish(address, "a", "3");
    assert_eq!(frame(&mut again), json!({ "channel": "a", "id": third, "data": "3" }));
    let mut lost = Ws::open(address, "/ws?channel=a&since=lost-1");
    assert_eq!(frame(&mut lost), json!({ "channel": "a", "gap": true }));
    assert_eq!(frame(&mut lost)["id"], first);
    // One that hears nothing is told a position within two seconds: long before its ping.
    let told = frame(&mut silent);
    assert!(opened.elapsed() < Duration::from_secs(20));
    assert_eq!(told.as_object().map(|object| object.len()), Some(1), "{told}");
    let mut nothing_missed = Ws::open(address, &format!("/ws?channel=silent&since={}", told["id"].as_str().unwrap()));
    publish(address, "silent", "new");
    assert_eq!(frame(&mut nothing_missed)["data"], "new");
}

#[test]
fn a_long_history_comes_in_pages() {
    let pushd = start(&CONFIG.replace("messages = 5", "messages = 5000"));
    let address = pushd.address();
    let text = "x".repeat(1000);
    for n in 0..2000 {
        publish(address, "all", &format!("{n} {text}"));
    }
    let mut stream = Events::resume(address, "/events", "earliest");
    for n in 0..2000 {
        assert_eq!(stream.next(), Block::Event(None, format!("{n} {text}")));
    }
    publish(address, "all", "live");
    stream.expect("live");
}

#[test]
fn a_message_that_comes_again_is_not_published_again() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut stream = Events::open(address, "/events");
    stream.expect_id();
    let key = ["Idempotency-Key: order-7"];
    let first = ask(address, "POST", "/publish/all", &key, b"first");
    let again = ask(address, "POST", "/publish/all", &key, b"another");
    assert_eq!((first.status, first.text()), (again.status, again.text()));
    let other = ask(address, "POST", "/publish/other", &key, b"other");
    assert_ne!(other.text(), first.text());
    publish(address, "all", "last");
    stream.expect("first");
    stream.expect("last");
    for wrong in ["Idempotency-Key:", &format!("Idempotency-Key: {}", "x".repeat(256))] {
        assert_eq!(ask(address, "POST", "/publish/all", &[wrong], b"x").status, 400);
    }
    assert_eq!(ask(address, "POST", "/publish/all", &[key[0], "Idempotency-Key: b"], b"x").status, 400);
}

#[test]
fn a_hub_is_not_starved_by_what_others_have_filled_the_memory_with() {
    let config = CONFIG.replace("messages = 5", "messages = 100000");
    let routes = "\"/old\" = { publish = \"old\", channel = \"x\" }\n\"/old-events\" = { events = \"old\", channels = [\"x\"] }\n";
    let config = config.replace(
        "[hub.news]",
        &format!("{routes}[store]\nmemory_max = \"1MiB\"\n[hub.old]\nhistory = {{ messages = 100000 }}\n[hub.news]"),
    );
    let pushd = start(&config);
    let address = pushd.address();
    let text = "x".repeat(10_000);
    for _ in 0..120 {
        assert_eq!(ask(address, "POST", "/old", &[], text.as_bytes()).status, 200);
    }
    for n in 0..40 {
        publish(address, "all", &format!("{n} {text}"));
    }
    let mut all = Events::ask(address, "/events?since=earliest", &["Accept: text/event-stream"]);
    for n in 0..40 {
        all.expect(&format!("{n} {text}"));
    }
    // The other hub loses only as many as are needed.
    until_true("the limit of the memory", || metric(address, "pushd_history_bytes") <= 1 << 20);
    let mut old = Events::ask(address, "/old-events?since=earliest", &["Accept: text/event-stream"]);
    assert_eq!(ask(address, "POST", "/old", &[], b"end").status, 200);
    let mut kept = 0;
    while !matches!(old.next(), Block::Event(_, data) if data == "end") {
        kept += 1;
    }
    assert!((50..70).contains(&kept), "{kept} messages are kept");
}

#[test]
fn a_message_is_remembered_whenever_its_hub_comes_and_goes() {
    let pushd = Service::started(CONFIG);
    let address = pushd.address();
    let is_other = |line: &&str| !["\"news\"", "[hub.news]", "history"].iter().any(|word| line.contains(word));
    let without: String = CONFIG.lines().filter(is_other).map(|line| format!("{line}\n")).collect();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let publishers = (0..8).map(|n| {
            let is_over = &is_over;
            scope.spawn(move || {
                let (mut statuses, target) = (HashSet::new(), format!("/publish/{n}"));
                while !is_over.load(Ordering::Relaxed) {
                    let answer = ask(address, "POST", &target, &[], b"x");
                    assert!([200, 404, 503].contains(&answer.status), "{answer:?}");
                    assert!(answer.status != 200 || answer.json()["id"].is_string(), "{answer:?}");
                    statuses.insert(answer.status);
                }
                statuses
            })
        });
        let publishers: Vec<_> = publishers.collect();
        for _ in 0..30 {
            pushd.reload(&without);
            pushd.reload(CONFIG);
        }
        is_over.store(true, Ordering::Relaxed);
        for publisher in publishers {
            assert!(publisher.join().unwrap().is_superset(&HashSet::from([200, 404])), "not all has been seen");
        }
    });
}

#[test]
fn keys_go_on_in_the_next_process_also_without_history() {
    let config = CONFIG.replace("history = { messages = 5 }\n", "");
    let mut service = Service::started(&config);
    let address = service.address();
    // On channels of several owners, and each owner has others in the next process.
    let channels = (0..20).map(|n| n.to_string());
    let send = |channel: &str| ask(address, "POST", &format!("/publish/{channel}"), &["Idempotency-Key: once"], b"x");
    let mut streams: Vec<_> =
        channels.map(|name| (Events::open(address, &format!("/events?channel={name}")), name)).collect();
    let mut answers = Vec::new();
    for (stream, name) in &mut streams {
        answers.push(send(name).text().to_owned());
        stream.expect("x");
    }
    for round in 0..3 {
        service.configure(&config.replace("workers = 3", &format!("workers = {}", 2 + round)));
        service.restart();
        for ((stream, name), first) in streams.iter_mut().zip(&answers) {
            assert_eq!(send(name).text(), *first, "round {round}");
            assert_eq!(ask(address, "POST", &format!("/publish/{name}"), &[], b"live").status, 200);
            stream.expect("live");
        }
    }
}

#[test]
fn the_memory_goes_on_in_the_next_process() {
    let config = CONFIG.replace("messages = 5", "messages = 3000") + "message_max = \"1MiB\"\nqueue_max = \"16MiB\"\n";
    let mut service = Service::started(&config);
    let address = service.address();
    let key = ["Idempotency-Key: once"];
    let first = ask(address, "POST", "/publish/all", &key, b"0");
    let mut live = Events::open(address, "/events");
    live.expect_id();
    // One that has much to catch up with, and reads nothing meanwhile.
    let pad = "x".repeat(100_000);
    let ids: Vec<String> = (1..60).map(|n| publish(address, "all", &format!("{n} {pad}"))).collect();
    let mut behind = Wire::connect_narrow(address);
    behind.send(&common::http::request(address, "GET", "/events?since=earliest", &["Accept: text/event-stream"], b""));
    for round in 0..3 {
        // A shard less or more owns other hubs.
        service.configure(&config.replace("workers = 3", &format!("workers = {}", 2 + round)));
        service.restart();
        let again = ask(address, "POST", "/publish/all", &key, b"0");
        assert_eq!(again.text(), first.text(), "round {round}");
        publish(address, "all", &format!("after {round}"));
    }
    for n in 1..60 {
        live.expect(&format!("{n} {pad}"));
    }
    let mut behind = Events::read(behind);
    behind.expect("0");
    for n in 1..60 {
        behind.expect(&format!("{n} {pad}"));
    }
    let mut returning = Events::resume(address, "/events", &ids[58]);
    for round in 0..3 {
        for stream in [&mut live, &mut behind, &mut returning] {
            stream.expect(&format!("after {round}"));
        }
    }
}
