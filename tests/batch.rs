//! Batches: several messages in one request, each with a result of its own, published in their order.

mod common;

use std::net::SocketAddr;

use common::events::Events;
use common::http::{Answer, ask};
use common::start;
use common::ws::{BINARY, Ws};
use serde_json::{Value, json};

const CONFIG: &str = r#"
[daemon]
workers = 3
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/batch" = { publish = "push", batch = true }
"/default" = { publish = "push", channel = "{to}", batch = true, origins = ["https://a.example"] }
"/news" = { publish = "news", channel = "news", batch = true }
"/publish/{channel}" = { publish = "push", channel = "{channel}" }
"/publish-news/{channel}" = { publish = "news", channel = "{channel}" }
"/ws" = { websocket = "push", channels = ["{channel=a}", "{other=b}"] }
"/events" = { events = "news", channels = ["{channel=news}"] }
[hub.push]
message_max = "100"
[hub.news]
history = { messages = 20000 }
"#;

fn post(address: SocketAddr, target: &str, kind: &str, body: &str) -> Answer {
    ask(address, "POST", target, &[&format!("Content-Type: {kind}")], body.as_bytes())
}

/// The results of a batch that was read.
fn results(answer: &Answer) -> Vec<Value> {
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("application/x-ndjson")), "{answer:?}");
    let text = answer.text();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn published(channel: &str, subscribers: u64) -> Value {
    json!({ "channel": channel, "subscribers": subscribers })
}

fn error(result: &Value) -> &str {
    assert_eq!(result.as_object().unwrap().len(), 1, "{result}");
    result["error"].as_str().unwrap()
}

#[test]
fn each_message_is_published_on_its_channel_in_order() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut both = Ws::open(address, "/ws");
    let mut one = Ws::open(address, "/ws?other=a");
    let lines = "{\"channel\":\"a\",\"data\":\"1\"}\n{\"data\":\"gr\\u00fc\\u00dfe\",\"channel\":\"b\"}\n\n\
                 {\"channel\":\"c\",\"data\":\"\"}\n{\"channel\":\"a\",\"base64\":\"AP8B\"}\n";
    let array = format!("\n[{}]", lines.trim().replace("\n\n", "\n").replace('\n', ","));
    for (kind, body) in [
        ("application/x-ndjson", lines),
        ("application/jsonl; charset=utf-8", lines),
        ("text/plain", lines),
        ("application/json", &array),
        // As curl sends it.
        ("application/x-www-form-urlencoded", &array),
    ] {
        let answer = post(address, "/batch", kind, body);
        let expected = [published("a", 2), published("b", 1), published("c", 0), published("a", 2)];
        assert_eq!(results(&answer), expected, "{kind}");
        one.expect_text("1");
        assert_eq!(one.next(), (BINARY, vec![0, 255, 1]));
        // Different channels of a hub without history have different owners, so only the order of a channel is certain.
        let mut heard: Vec<_> = (0..3).map(|_| both.next().1).collect();
        assert!(heard.iter().position(|text| text == b"1") < heard.iter().position(|bytes| bytes[..] == [0, 255, 1]));
        heard.sort();
        assert_eq!(heard, [vec![0, 255, 1], b"1".to_vec(), "grüße".into()]);
    }
    for empty in ["", "[]", "\n"] {
        assert_eq!(results(&post(address, "/batch", "application/json", empty)), [] as [Value; 0]);
    }
    both.expect_nothing();
    one.expect_nothing();
}

#[test]
fn a_message_that_is_refused_does_not_affect_the_others() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut client = Ws::open(address, "/ws?channel=x&other=y");
    let long = "x".repeat(101);
    let entries = [
        (json!({ "channel": "x", "data": "first" }), None),
        (json!({ "channel": "x", "data": long }), Some("at most 100 bytes")),
        (json!({ "channel": "x" }), Some("neither `data` nor `base64`")),
        (json!({ "channel": "x", "data": "a", "base64": "AA==" }), Some("both `data` and `base64`")),
        (json!({ "channel": "x", "data": { "json": 1 } }), Some("`data` is a string")),
        (json!({ "channel": "x", "base64": "?" }), Some("base64")),
        (json!({ "channel": "", "data": "a" }), Some("name is empty")),
        (json!({ "channel": long.repeat(3), "data": "a" }), Some("at most 256 bytes")),
        (json!({ "channel": "a\nb", "data": "a" }), Some("no control characters")),
        (json!({ "channel": "x", "data": "a", "key": "ü" }), Some("Idempotency-Key")),
        (json!({ "data": "a" }), Some("names no channel")),
        (json!("text"), Some("a message is an object")),
        (json!({ "channel": "x", "data": "a", "dat": "a" }), Some("no member `dat`")),
        (json!({ "channel": "x", "data": "last" }), None),
    ];
    let lines: String = entries.iter().map(|(entry, _)| format!("{entry}\n")).collect();
    let array = Value::from(entries.iter().map(|(entry, _)| entry.clone()).collect::<Vec<_>>()).to_string();
    for body in [lines, array] {
        let results = results(&post(address, "/batch", "application/x-ndjson", &body));
        assert_eq!(results.len(), entries.len());
        for ((entry, refusal), result) in entries.iter().zip(&results) {
            match refusal {
                None => assert_eq!(*result, published("x", 1)),
                Some(part) => assert!(error(result).contains(part), "{entry}: {result}"),
            }
        }
        client.expect_text("first");
        client.expect_text("last");
    }
    client.expect_nothing();
}

#[test]
fn a_body_that_cannot_be_parsed_publishes_nothing() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut client = Ws::open(address, "/ws");
    let good = "{\"channel\":\"a\",\"data\":\"1\"}";
    for (body, place) in [
        (format!("{good}\n{{\"channel\":\"a\",\"data"), "line 2 column 20"),
        (format!("[{good},\n{good}"), "line 2 column 26"),
        (format!("{good}\nnonsense"), "line 2 column 2"),
        (format!("{good}\n{{\"channel\":\"a\",\"data\":\"\\udc00\"}}"), "line 2"),
    ] {
        let answer = post(address, "/batch", "application/x-ndjson", &body);
        assert_eq!(answer.status, 400, "{body}");
        let why = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(why.contains(place), "{body}: {why}");
    }
    let broken = [good.as_bytes(), b"\n{\"channel\":\"a\",\"data\":\"\xff\"}"].concat();
    let answer = ask(address, "POST", "/batch", &[], &broken);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("line 2"), "{answer:?}");
    client.expect_nothing();
}

#[test]
fn a_batch_has_a_limit_of_messages_and_of_bytes() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut client = Ws::open(address, "/ws");
    let line = "{\"channel\":\"a\",\"data\":\"1\"}\n";
    let answer = post(address, "/batch", "application/x-ndjson", &line.repeat(10_001));
    assert_eq!(answer.status, 413);
    assert_eq!(answer.json()["error"], "a batch may have at most 10000 messages");
    let answer = post(address, "/batch", "application/x-ndjson", &"\n".repeat((16 << 20) + 1));
    assert_eq!(answer.status, 413);
    assert_eq!(answer.json()["error"], "a batch may have at most 16777216 bytes");
    client.expect_nothing();
    let answer = post(address, "/batch", "application/x-ndjson", &line.repeat(10_000));
    assert_eq!(results(&answer), vec![published("a", 1); 10_000]);
    (0..10_000).for_each(|_| client.expect_text("1"));
    client.expect_nothing();
}

#[test]
fn the_route_may_have_a_default_channel() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut client = Ws::open(address, "/ws");
    let body = "{\"data\":\"1\"}\n{\"channel\":\"b\",\"data\":\"2\"}";
    let answer = post(address, "/default?to=a", "text/plain", body);
    assert_eq!(results(&answer), [published("a", 1), published("b", 1)]);
    let mut heard = [client.next_text(), client.next_text()];
    heard.sort();
    assert_eq!(heard, ["1", "2"]);
    let answer = results(&post(address, "/default", "text/plain", body));
    assert_eq!(error(&answer[0]), "missing argument `to`");
    assert_eq!(answer[1], published("b", 1));
    client.expect_text("2");
    client.expect_nothing();
}

#[test]
fn it_is_published_by_post_from_allowed_pages_only() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let body = b"{\"channel\":\"a\",\"data\":\"1\"}";
    for method in ["GET", "PUT", "DELETE"] {
        let answer = ask(address, method, "/batch", &[], body);
        assert_eq!((answer.status, answer.field("allow")), (405, Some("POST, OPTIONS")), "{method}");
    }
    let answer = ask(address, "POST", "/default", &["Origin: https://b.example"], body);
    assert_eq!(answer.status, 403);
    let answer = ask(address, "POST", "/default", &["Origin: https://a.example"], body);
    assert_eq!((answer.status, answer.field("access-control-allow-origin")), (200, Some("https://a.example")));
    let preflight = ["Origin: https://a.example", "Access-Control-Request-Method: POST"];
    let answer = ask(address, "OPTIONS", "/default", &preflight, b"");
    assert_eq!((answer.status, answer.field("access-control-allow-methods")), (204, Some("POST, OPTIONS")));
}

#[test]
fn positions_rise_over_all_channels_of_a_hub_with_history() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let body: String = (0..2000).map(|n| format!("{{\"channel\":\"c{}\",\"data\":\"{n}\"}}\n", n % 3)).collect();
    let results = results(&post(address, "/news", "application/x-ndjson", &body));
    let offset = |result: &Value| {
        let (epoch, offset) = result["id"].as_str().unwrap().split_once('-').unwrap();
        (epoch.to_owned(), u64::from_str_radix(offset, 36).unwrap())
    };
    let (epoch, first) = offset(&results[0]);
    for (n, result) in results.iter().enumerate() {
        assert_eq!(result["channel"], format!("c{}", n % 3));
        assert_eq!(offset(result), (epoch.clone(), first + n as u64));
    }
    let mut missed = Events::open(address, "/events?channel=c1&since=earliest");
    (1..2000).step_by(3).for_each(|n| missed.expect(&n.to_string()));
    let last = ask(address, "POST", "/publish-news/c1", &[], b"last");
    assert_eq!(offset(&last.json()), (epoch, first + 2000));
    missed.expect("last");
}

#[test]
fn a_message_with_a_key_is_published_once() {
    let pushd = start(CONFIG);
    let address = pushd.address();
    let mut client = Events::open(address, "/events");
    client.expect_id();
    let body = "[{\"key\":\"1\",\"data\":\"one\"},{\"key\":\"2\",\"data\":\"two\"},{\"key\":\"1\",\"data\":\"one\"},\
                {\"key\":\"1\",\"channel\":\"other\",\"data\":\"one\"}]";
    let first = results(&post(address, "/news", "application/json", body));
    assert_eq!(first[0], first[2], "the same message");
    assert_ne!(first[0]["id"], first[1]["id"]);
    assert_ne!(first[0]["id"], first[3]["id"]);
    assert_eq!(results(&post(address, "/news", "application/json", body)), first);
    // A single publication has the same keys.
    let single = ask(address, "POST", "/publish-news/news", &["Idempotency-Key: 2"], b"two");
    assert_eq!(single.json(), first[1]);
    client.expect("one");
    client.expect("two");
    // A key of the request is one for each message that has none.
    let body =
        "{\"data\":\"three\"}\n{\"data\":\"four\"}\n{\"key\":\"2\",\"data\":\"two\"}\n{\"data\":5}\n{\"data\":\"six\"}";
    let send = || ask(address, "POST", "/news", &["Idempotency-Key: K"], body.as_bytes());
    let answer = send();
    let whole = results(&answer);
    assert_eq!(whole[2], first[1]);
    assert!(error(&whole[3]).contains("string"));
    assert_eq!(send().text(), answer.text(), "answered word for word as the first time");
    ["three", "four", "six"].iter().for_each(|text| client.expect(text));
    assert_eq!(ask(address, "POST", "/publish-news/news", &[], b"nothing else").status, 200);
    client.expect("nothing else");
    assert_eq!(ask(address, "POST", "/news", &["Idempotency-Key:"], body.as_bytes()).status, 400);
}
