//! Long polls: messages since a position, at once or when there are some.

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::http::{Answer, ask, metric, publish_kept as publish, request};
use common::polls::{Poll, poll, position, texts};
use common::service::Service;
use common::wire::Wire;
use common::ws::Ws;
use common::{start, until_true};
use nix::sys::signal::Signal;
use serde_json::json;

const CONFIG: &str = r#"
[daemon]
workers = 3
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/poll" = { poll = "news", channels = ["{channel=all}"] }
"/two" = { poll = "news", channels = ["a", "b"] }
"/pattern" = { poll = "news", channels = ["news/*", "all"] }
"/listed" = { poll = "news", origins = ["https://www.example.com"] }
"/any" = { poll = "news", origins = "any" }
"/ws" = { websocket = "news", channels = ["{channel=all}"] }
"/publish/{channel}" = { publish = "news", channel = "{channel}" }
"/publish/{a}/{b}" = { publish = "news", channel = "{a}/{b}" }
"/metrics" = { metrics = true }
[hub.news]
history = { messages = 5 }
"#;

/// With the history in memory, and on disk.
fn memory_and_disk() -> [String; 2] {
    [CONFIG.to_owned(), format!("{CONFIG}durable = true\n")]
}

fn now(address: SocketAddr, target: &str) -> String {
    let answer = poll(address, target);
    assert_eq!(answer, json!({ "position": answer["position"], "messages": [], "gap": false }));
    position(&answer)
}

fn sessions(address: SocketAddr) -> u64 {
    metric(address, "pushd_sessions")
}

/// Waits until this many polls wait on all shards.
fn until_waiting(address: SocketAddr, count: u64) {
    until_true("polls that wait", || sessions(address) == count);
}

#[test]
fn a_poll_without_a_position_tells_the_present_one() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let first = now(address, "/poll");
    let published = publish(address, "all", "1");
    assert_eq!(now(address, "/poll?channel=other"), published);
    assert_eq!(texts(&poll(address, &format!("/poll?since={first}"))), ["1"]);
    // It is an answer like others, after which the connection serves the next request.
    let mut wire = Wire::connect(address);
    for _ in 0..3 {
        wire.send(&request(address, "GET", "/poll", &[], b""));
        assert_eq!(Answer::read(&mut wire).json()["position"], published);
    }
    until_waiting(address, 0);
}

#[test]
fn what_was_published_since_comes_at_once() {
    for config in memory_and_disk() {
        let pushd = start(&config);
        let address = pushd.address();
        let before = now(address, "/poll");
        let ids: Vec<String> = ["1", "2", "3"].iter().map(|text| publish(address, "all", text)).collect();
        publish(address, "other", "x");
        let message = |n: usize| json!({ "channel": "all", "id": ids[n], "data": (n + 1).to_string() });
        let answer = poll(address, &format!("/poll?since={before}"));
        assert_eq!(
            answer,
            json!({ "position": answer["position"], "messages": [message(0), message(1), message(2)], "gap": false })
        );
        // The position of an answer is that of the hub: the message of another channel does not come again.
        assert_eq!(texts(&poll(address, &format!("/poll?channel=other&since={}&wait=0s", position(&answer)))), [""; 0]);
        for target in [format!("/poll?since={}", ids[0]), format!("/poll?last_event_id={}&since=earliest", ids[0])] {
            assert_eq!(texts(&poll(address, &target)), ["2", "3"]);
        }
        let header = format!("Last-Event-ID: {}", ids[1]);
        let answer = Poll::send(address, "/poll?since=earliest", &[&header]).answer();
        assert_eq!(answer["messages"], json!([message(2)]));
        let limited = poll(address, &format!("/poll?since={before}&limit=2"));
        assert_eq!((texts(&limited), position(&limited)), (vec!["1", "2"], ids[1].clone()));
        assert_eq!(texts(&poll(address, &format!("/poll?since={}&limit=2", position(&limited)))), ["3"]);
        assert_eq!(texts(&poll(address, "/poll?since=earliest")), ["1", "2", "3"]);
        let binary = ["Content-Type: application/octet-stream"];
        let id = ask(address, "POST", "/publish/bytes", &binary, &[0, 255, 1]).json()["id"].clone();
        let answer = poll(address, "/poll?channel=bytes&since=earliest");
        assert_eq!(answer["messages"], json!([{ "channel": "bytes", "id": id, "base64": "AP8B" }]));
    }
}

#[test]
fn a_poll_waits_for_the_next_message() {
    for config in memory_and_disk() {
        let pushd = start(&config);
        let address = pushd.address();
        let mut last = now(address, "/poll");
        for (round, channel) in ["all", "a", "b"].into_iter().cycle().take(12).enumerate() {
            let target = if channel == "all" { "/poll" } else { "/two" };
            let polls: Vec<Poll> = (0..7).map(|_| Poll::waiting(address, target, &last)).collect();
            publish(address, "another", "not for these");
            let text = format!("round {round}");
            let answer = ask(address, "POST", &format!("/publish/{channel}"), &[], text.as_bytes()).json();
            assert_eq!(answer["subscribers"], 7);
            let id = answer["id"].as_str().unwrap();
            for poll in polls {
                let message = json!({ "channel": channel, "id": id, "data": text });
                assert_eq!(poll.answer(), json!({ "position": id, "messages": [message], "gap": false }));
            }
            last = id.to_owned();
        }
        until_waiting(address, 0);
    }
}

#[test]
fn a_poll_may_have_patterns() {
    for config in memory_and_disk() {
        let pushd = start(&config);
        let address = pushd.address();
        let since = now(address, "/poll");
        let waiting = Poll::waiting(address, "/pattern", &since);
        publish(address, "news%2F7%2Fx", "no");
        publish(address, "news%2F7", "1");
        let answer = waiting.answer();
        assert_eq!((texts(&answer), &answer["messages"][0]["channel"]), (vec!["1"], &json!("news/7")));
        publish(address, "all", "2");
        publish(address, "news%2F8", "3");
        assert_eq!(texts(&poll(address, &format!("/pattern?since={}", position(&answer)))), ["2", "3"]);
        assert_eq!(texts(&poll(address, &format!("/pattern?since={since}"))), ["1", "2", "3"]);
    }
}

#[test]
fn what_is_published_between_two_polls_is_not_missed() {
    const COUNT: usize = 300;
    let pushd = start(&CONFIG.replace("messages = 5", "messages = 1000"));
    let address = pushd.address();
    let since = now(address, "/poll");
    let pollers: Vec<_> = (0..3)
        .map(|n| {
            let mut since = since.clone();
            std::thread::spawn(move || {
                let mut received = Vec::new();
                while received.len() < COUNT {
                    let answer = poll(address, &format!("/poll?since={since}&limit={}", 1 + 49 * n));
                    assert_eq!(answer["gap"], false);
                    received.extend(texts(&answer).into_iter().map(str::to_owned));
                    since = position(&answer);
                }
                received
            })
        })
        .collect();
    let texts: Vec<String> = (0..COUNT).map(|n| n.to_string()).collect();
    // Bursts on a few connections, so that several messages are staged in one turn.
    let mut wire = Wire::connect(address);
    for burst in texts.chunks(10) {
        let requests: Vec<u8> =
            burst.iter().flat_map(|text| request(address, "POST", "/publish/all", &[], text.as_bytes())).collect();
        wire.send(&requests);
        burst.iter().for_each(|_| assert_eq!(Answer::read(&mut wire).status, 200));
    }
    for poller in pollers {
        assert_eq!(poller.join().unwrap(), texts);
    }
}

#[test]
fn a_poll_that_waited_in_vain_is_answered_empty() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let last = publish(address, "all", "1");
    let answer = json!({ "position": last, "messages": [], "gap": false });
    let began = Instant::now();
    assert_eq!(poll(address, &format!("/poll?since={last}&wait=0s")), answer);
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    assert_eq!(poll(address, &format!("/poll?since={last}&wait=1s")), answer);
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    // While it waited, something was published that is not for it.
    let waiting = Poll::send(address, &format!("/poll?since={last}&wait=1s"), &[]);
    until_waiting(address, 1);
    let other = publish(address, "other", "x");
    assert_eq!(position(&waiting.answer()), other);
    until_waiting(address, 0);
}

#[test]
fn a_gap_is_answered_at_once() {
    for config in memory_and_disk() {
        let pushd = start(&config);
        let address = pushd.address();
        let ids: Vec<String> = (0..9).map(|n| publish(address, "a", &n.to_string())).collect();
        let last = publish(address, "b", "x");
        let answer = poll(address, &format!("/two?since={}", ids[2]));
        assert_eq!((&answer["gap"], &answer["gaps"]), (&json!(true), &json!(["a"])));
        assert_eq!((texts(&answer), position(&answer)), (vec!["4", "5", "6", "7", "8", "x"], last.clone()));
        let complete = poll(address, &format!("/two?since={}&limit=1000", ids[3]));
        assert_eq!((&complete["gap"], &complete["gaps"], texts(&complete).len()), (&json!(false), &json!(null), 6));
        assert_eq!(poll(address, "/two?since=earliest")["gap"], false);
        for unknown in ["other-1", "nonsense", "%20"] {
            let answer = poll(address, &format!("/two?since={unknown}&limit=1"));
            assert_eq!((&answer["gap"], &answer["gaps"]), (&json!(true), &json!(["a", "b"])), "{unknown}");
            assert_eq!(texts(&answer), ["4"]);
            // It is told once.
            let next = poll(address, &format!("/two?since={}&limit=1", position(&answer)));
            assert_eq!((&next["gap"], texts(&next)), (&json!(false), vec!["5"]));
        }
        // Nothing is kept of the channel.
        let answer = poll(address, "/poll?channel=silent&since=lost-1");
        assert_eq!(answer, json!({ "position": last, "messages": [], "gap": true, "gaps": ["silent"] }));
    }
}

#[test]
fn no_gap_is_told_to_a_client_that_asks_for_the_oldest_messages() {
    let mut service = Service::started(&format!("{CONFIG}durable = true\n"));
    publish(service.address(), "other", "before");
    // The store has everything up to here, and the rest is in memory: this takes two pages.
    service.kill();
    service.clear_log();
    service.start();
    let address = service.address();
    (0..9).for_each(|n| drop(publish(address, "a", &n.to_string())));
    (0..9).for_each(|n| drop(publish(address, "news/1", &n.to_string())));
    for target in ["/poll?channel=a", "/two?", "/pattern?"] {
        let answer = poll(address, &format!("{target}&since=earliest"));
        assert_eq!((&answer["gap"], &answer["gaps"]), (&json!(false), &json!(null)), "{target}");
        assert_eq!(texts(&answer), ["4", "5", "6", "7", "8"], "{target}");
    }
}

#[test]
fn spaces_keep_a_poll_alive() {
    let pushd = start(&format!("{CONFIG}ping = \"1s\"\npong_timeout = \"1s\"\n"));
    let address = pushd.address();
    let mut waiting = Poll::waiting(address, "/poll", &now(address, "/poll"));
    for _ in 0..3 {
        assert_eq!(waiting.wire.take(6), b"1\r\n \r\n");
    }
    publish(address, "all", "still here");
    assert_eq!(texts(&waiting.answer()), ["still here"]);
}

#[test]
fn the_response_has_the_header_that_browsers_and_proxies_need() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let last = publish(address, "all", "1");
    for target in ["/poll".to_owned(), "/poll?since=earliest".to_owned(), format!("/poll?since={last}&wait=0s")] {
        let mut poll = Poll::send(address, &target, &["Accept: application/json"]);
        let head = poll.head();
        assert_eq!(head.line, "HTTP/1.1 200 OK");
        for (name, value) in [
            ("content-type", "application/json"),
            ("cache-control", "no-store"),
            ("x-accel-buffering", "no"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(head.field(name), Some(value), "{target}");
        }
        assert!(head.field("date").is_some() && head.field("access-control-allow-origin").is_none());
        let head = ask(address, "HEAD", &target, &[], b"");
        assert_eq!((head.status, head.field("content-type")), (200, Some("application/json")));
    }
    until_waiting(address, 0);
}

#[test]
fn a_proxy_with_http_1_0_gets_the_same_answer() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let last = publish(address, "all", "1");
    for since in ["earliest", &last] {
        let mut wire = Wire::connect(address);
        wire.send(format!("GET /poll?since={since} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").as_bytes());
        let head = Answer::read_head(&mut wire);
        assert_eq!((head.field("transfer-encoding"), head.field("connection")), (None, Some("close")));
        if since != "earliest" {
            until_waiting(address, 1);
            publish(address, "all", "2");
        }
        let body = String::from_utf8(wire.take_all()).unwrap();
        let answer = serde_json::from_str(&body).unwrap();
        assert_eq!(texts(&answer), [if since == "earliest" { "1" } else { "2" }]);
    }
}

#[test]
fn wrong_requests_are_refused_with_a_reason() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let refused = |method: &str, target: &str, fields: &[&str], body: &[u8]| {
        let answer = ask(address, method, target, fields, body);
        (answer.status, answer.text().to_owned())
    };
    for (target, words) in [
        ("/poll?wait=25", "wait = 25: add the unit: `25s`"),
        ("/poll?since=earliest&wait=soon", "wait = soon: write a whole number"),
        ("/poll?since=earliest&limit=0", "limit = 0: write a whole number of messages from 1 to 1000"),
        ("/poll?limit=all", "limit = all: "),
        ("/poll?channel=", "empty"),
    ] {
        let (status, text) = refused("GET", target, &[], b"");
        assert!(status == 400 && text.contains(words), "{target}: {status} {text}");
    }
    for target in ["/poll", "/poll?since=earliest"] {
        assert_eq!(refused("GET", target, &["Accept: text/event-stream"], b"").0, 406);
        assert_eq!(refused("GET", target, &["Accept: application/*;q=0.1"], b"").0, 200);
    }
    let (status, text) = refused("GET", "/poll?since=earliest", &[], b"a body");
    assert!(status == 400 && text.contains("has no body"), "{text}");
    let answer = ask(address, "POST", "/poll", &[], b"x");
    assert_eq!((answer.status, answer.field("allow")), (405, Some("GET, HEAD, OPTIONS")));
    until_waiting(address, 0);
}

#[test]
fn pages_of_other_origins_may_read_an_answer_if_the_route_allows_it() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    publish(address, "all", "1");
    let (own, listed) = (format!("http://{address}"), "https://www.example.com".to_owned());
    for (path, origin, credentials) in
        [("/poll", &own, Some("true")), ("/listed", &listed, Some("true")), ("/any", &listed, None)]
    {
        let field = format!("Origin: {origin}");
        for target in [path.to_owned(), format!("{path}?since=earliest")] {
            let mut poll = Poll::send(address, &target, &[&field]);
            let head = poll.head();
            assert_eq!(head.field("access-control-allow-origin"), Some(origin.as_str()), "{target}");
            assert_eq!(head.field("access-control-allow-credentials"), credentials, "{target}");
            assert_eq!(head.field("vary"), Some("Origin"));
        }
        let answer = ask(address, "GET", &format!("{path}?since=earliest"), &[&field], b"a body");
        assert_eq!((answer.status, answer.field("access-control-allow-origin")), (400, Some(origin.as_str())));
        let answer = ask(address, "OPTIONS", path, &[&field], b"");
        assert_eq!((answer.status, answer.field("access-control-allow-origin")), (204, Some(origin.as_str())));
    }
    for fields in [["Origin: https://other.example"], ["Sec-Fetch-Site: cross-site"]] {
        for target in ["/poll", "/poll?since=earliest", "/listed?since=earliest"] {
            assert_eq!(ask(address, "GET", target, &fields, b"").status, 403, "{target} {fields:?}");
        }
    }
}

#[test]
fn beyond_a_limit_the_answer_says_when_to_try_again() {
    let pushd = start(&format!("{CONFIG}subscribers_max = 1\n"));
    let address = pushd.address();
    let since = now(address, "/poll");
    let only = Ws::open(address, "/ws");
    let full = ask(address, "GET", &format!("/poll?since={since}"), &[&format!("Origin: http://{address}")], b"");
    assert_eq!((full.status, full.field("retry-after")), (503, Some("1")), "{full:?}");
    assert!(full.field("access-control-allow-origin").is_some());
    assert_eq!(now(address, "/poll"), since);
    drop(only);
    until_waiting(address, 0);
    let _waiting = Poll::waiting(address, "/poll", &since);
    assert_eq!(ask(address, "GET", &format!("/poll?since={since}"), &[], b"").status, 503);
    let pushd = start(&format!("{CONFIG}[daemon]\nconnections_max = 1\n").replacen("[daemon]\nworkers = 3\n", "", 1));
    let _only = Ws::open(pushd.address(), "/ws");
    let full = ask(pushd.address(), "GET", "/poll?since=earliest", &[], b"");
    assert_eq!((full.status, full.field("retry-after")), (503, Some("1")), "{full:?}");
}

#[test]
fn a_client_that_goes_or_ends_its_side_is_not_waited_for() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let since = publish(address, "all", "1");
    let waiting: Vec<Poll> = (0..9).map(|_| Poll::waiting(address, "/poll", &since)).collect();
    until_waiting(address, 9);
    drop(waiting);
    until_waiting(address, 0);
    // A client that ends its side behind its request is answered at once.
    for (since, expected) in [("earliest", &["1"][..]), (&since, &[])] {
        for fields in [&[][..], &["Connection: close"]] {
            let mut poll = Poll::send(address, &format!("/poll?since={since}"), fields);
            poll.wire.finish();
            assert_eq!(texts(&poll.answer()), expected);
        }
    }
    until_waiting(address, 0);
}

#[test]
fn a_poll_is_answered_when_its_server_or_its_route_ends() {
    let mut pushd = start(CONFIG);
    let address = pushd.address();
    let last = publish(address, "all", "1");
    let empty = json!({ "position": last, "messages": [], "gap": false });
    let [removed, changed, stays] = ["/two", "/any", "/poll"].map(|path| Poll::waiting(address, path, &last));
    let without = CONFIG.lines().filter(|line| !line.starts_with("\"/two\"")).collect::<Vec<_>>().join("\n");
    pushd.reload(&without.replace("\"/any\" = { poll", "\"/any\" = { events"));
    assert_eq!(removed.answer(), empty);
    // A route of another kind is another route.
    assert_eq!(changed.answer(), empty);
    publish(address, "all", "2");
    let answer = stays.answer();
    assert_eq!(texts(&answer), ["2"]);
    let ending = Poll::waiting(address, "/poll", &position(&answer));
    pushd.signal(Signal::SIGTERM);
    assert_eq!(ending.answer(), json!({ "position": answer["position"], "messages": [], "gap": false }));
    assert_eq!(pushd.wait(), 0);
}

#[test]
fn a_large_answer_to_a_slow_reader_is_complete() {
    let pushd = start(&CONFIG.replace("messages = 5", "messages = 2000"));
    let address = pushd.address();
    let mut since = now(address, "/poll");
    let long = "x".repeat(60_000);
    (0..20).for_each(|n| drop(publish(address, "all", &format!("{n} {long}"))));
    let mut received = 0;
    while received < 20 {
        let mut wire = Wire::connect_narrow(address);
        wire.send(&request(address, "GET", &format!("/poll?since={since}&limit=1000"), &[], b""));
        let mut poll = Poll::of(wire);
        poll.head();
        let answer = poll.answer();
        for text in texts(&answer) {
            assert_eq!(text, format!("{received} {long}"));
            received += 1;
        }
        since = position(&answer);
    }
    // A thousand small ones come in one answer.
    (0..1200).for_each(|n| drop(publish(address, "many", &n.to_string())));
    assert_eq!(texts(&poll(address, "/poll?channel=many&since=earliest&limit=5000")).len(), 1000);
    assert_eq!(texts(&poll(address, "/poll?channel=many&since=earliest")).len(), 100);
}
