//! Event streams, for browsers, proxies and scripts.

mod common;

use std::net::SocketAddr;

use common::events::{Block, Events};
use common::http::{Answer, ask, metric, publish, request};
use common::wire::Wire;
use common::ws::Ws;
use common::{start, until, until_true};
use nix::sys::signal::Signal;

const CONFIG: &str = r#"
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/events" = { events = "push", channels = ["{channel=all}"] }
"/named" = { events = "push", channels = ["{channel=all}", "news"], event = "{channel}" }
"/listed" = { events = "push", origins = ["https://www.example.com"] }
"/any" = { events = "push", origins = "any" }
"/ws" = { websocket = "push", channels = ["{channel=all}"] }
"/publish/{channel}" = { publish = "push", channel = "{channel}" }
"/metrics" = { metrics = true }
"/healthz" = { health = true }
[hub.push]
"#;

fn count(address: SocketAddr) -> u64 {
    metric(address, "pushd_sessions")
}

#[test]
fn a_stream_has_the_header_that_browsers_and_proxies_need() {
    let pushd = start(CONFIG);
    for fields in [&["Accept: text/event-stream"][..], &[], &["Accept: */*"]] {
        let stream = Events::ask(pushd.address(), "/events", fields);
        assert_eq!(stream.head.line, "HTTP/1.1 200 OK");
        for (name, value) in [
            ("cache-control", Some("no-store, no-transform")),
            ("x-accel-buffering", Some("no")),
            ("x-content-type-options", Some("nosniff")),
            ("connection", Some("close")),
            ("content-length", None),
            ("transfer-encoding", Some("chunked")),
            ("access-control-allow-origin", None),
        ] {
            assert_eq!(stream.head.field(name), value, "{name}");
        }
        assert!(stream.head.field("date").is_some());
        assert!((2000..4000).contains(&stream.retry), "{}", stream.retry);
    }
}

#[test]
fn any_text_is_received_as_one_event() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut stream = Events::open(address, "/events?channel=news");
    let mut named = Events::open(address, "/named");
    let mut socket = Ws::open(address, "/ws?channel=news");
    for text in ["hello", "two\nlines", "", " indented", "data: x", ":", "id: 1\nretry: 5", "ä€😀", "a\n\nb\n"] {
        assert_eq!(publish(address, "/publish/news", text), 3, "{text:?}");
        stream.expect(text);
        assert_eq!(named.next(), Block::Event(Some("news".to_owned()), text.to_owned()));
        socket.expect_text(text);
    }
    for (text, data) in [("a\r\nb", "a\nb"), ("a\rb\r", "a\nb\n"), ("\r\n", "\n")] {
        publish(address, "/publish/news", text);
        stream.expect(data);
    }
    publish(address, "/publish/all", "to all");
    (0..3).for_each(|_| drop(named.next()));
    assert_eq!(named.next(), Block::Event(Some("all".to_owned()), "to all".to_owned()));
}

#[test]
fn binary_messages_are_neither_sent_nor_counted_as_sent() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut stream = Events::open(address, "/events");
    let binary = ["Content-Type: application/octet-stream"];
    let answer = ask(address, "POST", "/publish/all", &binary, &[0, 255]);
    assert_eq!(answer.json()["subscribers"], 0);
    assert_eq!(metric(address, "pushd_messages_unspeakable_total"), 1);
    publish(address, "/publish/all", "text");
    stream.expect("text");
}

#[test]
fn a_stream_may_follow_other_requests_of_its_connection() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut wire = Wire::connect(address);
    wire.send(&request(address, "GET", "/healthz", &[], b""));
    assert_eq!(Answer::read(&mut wire).text(), "ok\n");
    // Two requests at once, and after the stream begins another one, which is ignored.
    let both = [request(address, "GET", "/healthz", &[], b""), request(address, "GET", "/events", &[], b"")].concat();
    wire.send(&[both, request(address, "GET", "/healthz", &[], b"")].concat());
    assert_eq!(Answer::read(&mut wire).text(), "ok\n");
    let mut stream = Events::read(wire);
    publish(address, "/publish/all", "first");
    stream.expect("first");
    stream.wire.send(b"GET /healthz HTTP/1.1\r\n\r\n");
    publish(address, "/publish/all", "second");
    stream.expect("second");
    stream.wire.finish();
    until_true("the end of the session", || count(address) == 0);
    stream.wire.expect_end();
}

#[test]
fn a_proxy_with_http_1_0_gets_the_same_stream() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    // The second is what nginx sends by default.
    for fields in ["", "Connection: close\r\nAccept: text/event-stream\r\n"] {
        let mut wire = Wire::connect(address);
        wire.send(format!("GET /events HTTP/1.0\r\nHost: 127.0.0.1\r\n{fields}\r\n").as_bytes());
        let mut stream = Events::read(wire);
        assert_eq!((stream.head.field("transfer-encoding"), stream.head.field("connection")), (None, Some("close")));
        publish(address, "/publish/all", "hello");
        stream.expect("hello");
    }
}

#[test]
fn other_requests_are_refused_with_the_reason() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let head = ask(address, "HEAD", "/events", &[], b"");
    assert_eq!((head.status, head.field("content-type")), (200, Some("text/event-stream")));
    assert_eq!(head.field("content-length"), None);
    for (method, fields, body, status, words) in [
        ("POST", &[][..], &b"x"[..], 405, "GET, HEAD, OPTIONS"),
        ("DELETE", &[], b"", 405, "GET, HEAD, OPTIONS"),
        ("GET", &["Accept: application/json"], b"", 406, "text/event-stream"),
        ("GET", &[], b"a body", 400, "no body"),
    ] {
        let answer = ask(address, method, "/events", fields, body);
        assert_eq!(answer.status, status, "{method}: {answer:?}");
        assert!(answer.text().contains(words), "{answer:?}");
    }
    let long = format!("/events?channel={}", "x".repeat(2000));
    for target in ["/events?channel=", "/events?channel=%01", &long] {
        assert_eq!(ask(address, "GET", target, &["Accept: text/event-stream"], b"").status, 400, "{target}");
    }
    assert_eq!(ask(address, "POST", "/events", &[], b"").field("allow"), Some("GET, HEAD, OPTIONS"));
    assert_eq!(count(address), 0);
}

#[test]
fn pages_of_other_origins_may_read_a_stream_if_the_route_allows_it() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let (own, listed) = (format!("http://{address}"), "https://www.example.com".to_owned());
    for (path, origin, credentials) in [
        ("/events", Some(&own), Some("true")),
        ("/events", None, None),
        ("/listed", Some(&listed), Some("true")),
        ("/any", Some(&listed), None),
    ] {
        let origin_field = origin.map(|origin| format!("Origin: {origin}"));
        let fields: Vec<&str> = origin_field.iter().map(String::as_str).chain(["Accept: text/event-stream"]).collect();
        let stream = Events::ask(address, path, &fields);
        assert_eq!(stream.head.field("access-control-allow-origin"), origin.map(String::as_str), "{path}");
        assert_eq!(stream.head.field("access-control-allow-credentials"), credentials, "{path}");
        assert_eq!(stream.head.field("vary"), origin.map(|_| "Origin"), "{path}");
        let answer = ask(address, "OPTIONS", path, &fields[..fields.len() - 1], b"");
        assert_eq!((answer.status, answer.field("access-control-allow-origin")), (204, origin.map(String::as_str)));
        assert!(answer.field("access-control-allow-headers").unwrap().contains("last-event-id"));
    }
    for fields in [["Origin: https://other.example"], ["Sec-Fetch-Site: cross-site"]] {
        for path in ["/events", "/listed"] {
            assert_eq!(ask(address, "GET", path, &fields, b"").status, 403, "{path} {fields:?}");
        }
    }
    until_true("the ends of the other sessions", || count(address) == 0);
}

#[test]
fn programs_read_a_stream_under_any_name_of_the_server() {
    let config = CONFIG.replace("\"127.0.0.1:0\"", "\"127.0.0.1:0\"\nhosts = [\"www.example.com\"]");
    let pushd = start(&config);
    for fields in ["", "Sec-Fetch-Mode: cors\r\n", "Accept: text/event-stream\r\n"] {
        let mut wire = Wire::connect(pushd.address());
        wire.send(format!("GET /events HTTP/1.1\r\nHost: www.example.com\r\n{fields}\r\n").as_bytes());
        let mut stream = Events::read(wire);
        publish(pushd.address(), "/publish/all", "to a program");
        stream.expect("to a program");
    }
}

#[test]
fn a_client_that_ends_its_side_receives_the_head() {
    let pushd = start(CONFIG);
    let health = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // Read by the fast path, by hyper, and by hyper behind another request.
    for (before, fields) in [("", "Accept: text/event-stream\r\n"), ("", ""), (health, "")] {
        for _ in 0..20 {
            let mut wire = Wire::connect(pushd.address());
            wire.send(format!("{before}GET /events HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").as_bytes());
            wire.finish();
            if !before.is_empty() {
                assert_eq!(Answer::read(&mut wire).text(), "ok\n");
            }
            Events::read(wire).wire.expect_end();
        }
    }
    until_true("the end of all sessions", || count(pushd.address()) == 0);
}

#[test]
fn comments_keep_an_idle_stream_alive() {
    let pushd = start(&format!("{CONFIG}ping = \"1s\"\npong_timeout = \"1s\"\n"));
    let mut stream = Events::open(pushd.address(), "/events");
    // The client does not answer them, and its stream continues.
    for _ in 0..4 {
        assert_eq!(stream.next(), Block::Comment(String::new()));
    }
    publish(pushd.address(), "/publish/all", "still here");
    until("the event", || match stream.next() {
        Block::Comment(_) => None,
        block => {
            assert_eq!(block, Block::Event(None, "still here".to_owned()));
            Some(())
        }
    });
}

#[test]
fn a_slow_reader_is_treated_by_the_policy_of_its_hub() {
    for (when_slow, ends) in [("disconnect", true), ("drop_oldest", false)] {
        let hub = "queue_max = \"100KB\"\ngap_notice = \"missed {dropped}\"\n";
        let pushd = start(&format!("{CONFIG}when_slow = \"{when_slow}\"\n{hub}"));
        let address = pushd.address();
        let mut wire = Wire::connect_narrow(address);
        wire.send(&request(address, "GET", "/events", &[], b""));
        let mut stream = Events::read(wire);
        let mut quick = Events::open(address, "/events");
        let long = "x".repeat(60_000);
        let name = if ends { "pushd_slow_disconnects_total" } else { "pushd_messages_dropped_total" };
        until_true("a full queue", || {
            publish(address, "/publish/all", &long);
            quick.expect(&long);
            metric(address, name) > 0
        });
        publish(address, "/publish/all", "last");
        quick.expect("last");
        let mut notices = 0;
        loop {
            match stream.next() {
                Block::Event(None, data) if data == long => {}
                Block::Event(None, data) if data == "last" => break,
                Block::Event(None, data) => notices += u64::from(data.starts_with("missed ")),
                Block::Comment(comment) => {
                    assert!(ends && comment.contains("too slow"), "{comment:?}");
                    stream.expect_no_more();
                    break;
                }
                block => panic!("{block:?}"),
            }
        }
        assert_eq!(notices > 0, !ends, "{when_slow}");
    }
}

#[test]
fn beyond_a_limit_the_answer_is_a_time_to_reconnect() {
    let full = |pushd: &common::Pushd, target: &str| {
        let fields = ["Accept: text/event-stream", "Origin: http://127.0.0.1"];
        let mut stream = Events::ask(pushd.address(), target, &fields);
        stream.wire.expect_end();
        assert_eq!(stream.head.field("access-control-allow-origin"), Some("http://127.0.0.1"));
        assert!((2000..4000).contains(&stream.retry), "{}", stream.retry);
    };
    let config = CONFIG.replace("\"127.0.0.1:0\"", "\"127.0.0.1:0\"\norigins = \"any\"");
    let of_hub = start(&format!("{config}subscribers_max = 1\n"));
    let _only = Ws::open(of_hub.address(), "/ws");
    full(&of_hub, "/events");
    for limit in ["connections_max = 1", "connections_per_address_max = 1"] {
        let pushd = start(&format!("{config}[daemon]\n{limit}\n"));
        let _only = Ws::open(pushd.address(), "/ws");
        (0..30).for_each(|_| full(&pushd, "/events"));
        let status = ask(pushd.address(), "GET", "/ws", &[], b"").status;
        assert!(matches!(status, 426 | 429 | 503), "other requests are refused as usual: {status}");
    }
    // What may be the request of a stream is answered by nothing: after that, a browser connects again.
    let pushd = start(&format!("{config}[daemon]\nconnections_per_address_max = 1\n"));
    let _only = Ws::open(pushd.address(), "/ws");
    for part in ["", "GET /events HTTP/1.1\r\nAcc"] {
        let mut wire = Wire::connect(pushd.address());
        wire.send(part.as_bytes());
        wire.expect_end();
    }
    for accept in ["Accept: Text/Event-Stream", "Accept: text/html\r\nAccept: text/event-stream"] {
        let mut wire = Wire::connect(pushd.address());
        wire.send(format!("GET /events HTTP/1.1\r\n{accept}\r\n\r\n").as_bytes());
        Events::read(wire).wire.expect_end();
    }
}

#[test]
fn a_stream_ends_when_its_server_or_its_route_ends() {
    let mut pushd = start(CONFIG);
    let mut removed = Events::open(pushd.address(), "/named");
    let mut stays = Events::open(pushd.address(), "/events");
    let mut changed = Events::open(pushd.address(), "/any");
    let without = CONFIG.lines().filter(|line| !line.starts_with("\"/named\"")).collect::<Vec<_>>().join("\n");
    let without = without.replace("\"/any\" = { events", "\"/any\" = { websocket");
    let renamed =
        without.replace("[\"{channel=all}\"] }\n\"/listed\"", "[\"{channel=all}\"], event = \"tick\" }\n\"/listed\"");
    assert_ne!(renamed, without);
    pushd.reload(&renamed);
    removed.expect_end("no longer served");
    // A route of another kind is another route.
    changed.expect_end("no longer served");
    // A reload may change the type of events of an open stream.
    publish(pushd.address(), "/publish/all", "after");
    assert_eq!(stays.next(), Block::Event(Some("tick".to_owned()), "after".to_owned()));
    pushd.signal(Signal::SIGTERM);
    stays.expect_end("going away");
    assert_eq!(pushd.wait(), 0);
}
