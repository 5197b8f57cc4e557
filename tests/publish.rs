//! Publishing over HTTP: which subscribers are reached, what is refused and how, and that HTTP works as its clients
//! expect.

mod common;

use common::http::{Answer, ask, get, publish, request};
use common::wire::Wire;
use common::ws::{BINARY, TEXT, Ws};
use common::{PLAIN, start};

/// Routes that take arguments from path, query and form.
const ARGUMENTS: &str = r#"
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/ws" = { websocket = "push", channels = ["user/{a}/{b}"] }
"/path/{a}/{b}" = { publish = "push", channel = "user/{a}/{b}", methods = ["POST", "PUT"] }
"/push" = { publish = "push", channel = "user/{a}/{b}", message = "<{message}>", methods = ["GET", "POST"] }
"/default" = { publish = "push", channel = "user/{a=x}/{b=y}", message = "{message=nothing}", methods = ["GET"] }
[hub.push]
message_max = "100"
"#;

#[test]
fn the_response_names_the_channel_and_the_number_of_subscribers() {
    let pushd = start(PLAIN);
    let address = pushd.address();
    let mut clients: Vec<Ws> = (0..5).map(|_| Ws::open(address, "/ws?channel=news")).collect();
    let mut elsewhere = Ws::open(address, "/ws?channel=other");
    let answer = ask(address, "POST", "/publish/news", &[], "grüße".as_bytes());
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), "{\"channel\":\"news\",\"subscribers\":5}\n");
    assert_eq!(answer.json()["subscribers"], 5);
    for client in &mut clients {
        client.expect_text("grüße");
    }
    elsewhere.expect_nothing();
    assert_eq!(publish(address, "/publish/nobody", "is there"), 0);
    assert_eq!(publish(address, "/publish/news", ""), 5);
    for client in &mut clients {
        client.expect_text("");
        client.expect_nothing();
    }
}

#[test]
fn a_message_is_text_unless_its_type_is_binary() {
    let pushd = start(PLAIN);
    let address = pushd.address();
    let mut client = Ws::open(address, "/ws");
    let as_type =
        |kind: &str, body: &[u8]| ask(address, "POST", "/publish/all", &[&format!("Content-Type: {kind}")], body);
    for (kind, first) in [
        ("application/octet-stream", BINARY),
        ("Application/Octet-Stream; charset=x", BINARY),
        ("application/json", TEXT),
        ("text/plain", TEXT),
        // If the body is the message, a form is a text like any other.
        ("application/x-www-form-urlencoded", TEXT),
    ] {
        assert_eq!(as_type(kind, b"a=b+c").status, 200, "{kind}");
        assert_eq!(client.next(), (first, b"a=b+c".to_vec()), "{kind}");
    }
    assert_eq!(as_type("application/octet-stream", &[0xff, 0, 0x80]).status, 200);
    assert_eq!(client.next(), (BINARY, vec![0xff, 0, 0x80]));
    let answer = as_type("text/plain", &[0xff, 0, 0x80]);
    assert_eq!(answer.status, 400);
    assert!(answer.json()["error"].as_str().unwrap().contains("not UTF-8"), "{answer:?}");
    client.expect_nothing();
}

#[test]
fn arguments_are_taken_from_path_query_and_form() {
    let pushd = start(ARGUMENTS);
    let address = pushd.address();
    let mut client = Ws::open(address, "/ws?a=7&b=1");
    let mut default = Ws::open(address, "/ws?a=x&b=y");
    let form = ["Content-Type: application/x-www-form-urlencoded; charset=utf-8"];
    let reached = |answer: Answer| {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["channel"], "user/7/1");
        answer.json()["subscribers"].as_u64().unwrap()
    };
    assert_eq!(reached(get(address, "/push?a=7&b=1&message=by+query%21")), 1);
    client.expect_text("<by query!>");
    assert_eq!(reached(ask(address, "POST", "/push", &form, b"a=7&b=1&message=by+form%21&c")), 1);
    client.expect_text("<by form!>");
    assert_eq!(reached(ask(address, "POST", "/push?a=7&b=1", &form, b"message=%C3%BCber%20both&a=8")), 1);
    client.expect_text("<über both>");
    assert_eq!(reached(get(address, "/push?a=1&a=7&b=1&message=the+last+counts")), 1);
    client.expect_text("<the last counts>");
    assert_eq!(reached(ask(address, "PUT", "/path/7/1", &[], b"by path")), 1);
    client.expect_text("by path");
    assert_eq!(get(address, "/default").json()["channel"], "user/x/y");
    default.expect_text("nothing");
    client.expect_nothing();
}

#[test]
fn a_missing_argument_is_named() {
    let pushd = start(ARGUMENTS);
    let address = pushd.address();
    for (target, name) in [
        ("/push?b=1&message=m", "a"),
        ("/push?a=7&message=m", "b"),
        ("/push?a=7&b=1", "message"),
        ("/push?A=7&a&b=1&Message=m", "message"),
    ] {
        let answer = get(address, target);
        assert_eq!(answer.status, 400, "{target}");
        assert_eq!(answer.json()["error"], format!("missing argument `{name}`"), "{target}");
    }
    let (answer, _) = Ws::ask(address, "/ws?a=7", &[]);
    assert_eq!((answer.status, answer.text()), (400, "missing argument `b`\n"));
}

#[test]
fn no_value_can_lead_to_another_channel() {
    let pushd = start(ARGUMENTS);
    let address = pushd.address();
    let mut first = Ws::open(address, "/ws?a=a/b&b=c");
    let mut second = Ws::open(address, "/ws?a=a&b=b/c");
    let mut escaped = Ws::open(address, "/ws?a=a%252Fb&b=c");
    assert_eq!(publish(address, "/path/a%2Fb/c", "for the first"), 1);
    assert_eq!(publish(address, "/path/a/b%2Fc", "for the second"), 1);
    assert_eq!(publish(address, "/path/a%252Fb/c", "for the third"), 1);
    assert_eq!(get(address, "/push?a=a/b&b=c&message=for+the+first").json()["channel"], "user/a%2Fb/c");
    first.expect_text("for the first");
    first.expect_text("<for the first>");
    second.expect_text("for the second");
    escaped.expect_text("for the third");
    for client in [&mut first, &mut second, &mut escaped] {
        client.expect_nothing();
    }
    assert_eq!(ask(address, "POST", "/path/a/b/c", &[], b"x").status, 404);
    assert_eq!(ask(address, "POST", "/path/a/", &[], b"x").status, 404);
}

/// Letters of several scripts, in the file and in the query.
#[test]
fn a_value_is_compared_with_the_channels_name_in_the_file() {
    let pushd = start(
        &PLAIN.replace("[hub.push]", "\"/fixed\" = { publish = \"push\", channel = \"zürich & 東京\" }\n[hub.push]"),
    );
    let address = pushd.address();
    let mut client = Ws::open(address, "/ws?channel=z%C3%BCrich+%26+%E6%9D%B1%E4%BA%AC");
    let answer = ask(address, "POST", "/fixed", &[], b"by the file");
    assert_eq!(answer.json()["channel"], "zürich & 東京");
    assert_eq!(answer.json()["subscribers"], 1);
    client.expect_text("by the file");
    let answer = ask(address, "POST", "/publish/z%C3%BCrich%20&%20%E6%9D%B1%E4%BA%AC", &[], b"by the path");
    assert_eq!(answer.json()["channel"], "zürich & 東京");
    client.expect_text("by the path");
}

#[test]
fn a_message_that_is_too_large_is_refused_before_it_is_read() {
    let pushd = start(ARGUMENTS);
    let address = pushd.address();
    let mut client = Ws::open(address, "/ws?a=7&b=1");
    let fits = "x".repeat(100);
    assert_eq!(publish(address, "/path/7/1", &fits), 1);
    client.expect_text(&fits);
    let words = "a message may have at most 100 bytes";
    let mut announced = Wire::connect(address);
    announced.send(b"POST /path/7/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000000\r\n\r\n");
    let answer = Answer::read(&mut announced);
    assert_eq!((answer.status, answer.json()["error"].as_str()), (413, Some(words)));
    let mut chunked = Wire::connect(address);
    chunked.send(b"POST /path/7/1 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    chunked.send(&[b"65\r\n", "x".repeat(101).as_bytes(), b"\r\n0\r\n\r\n"].concat());
    assert_eq!(Answer::read(&mut chunked).status, 413);
    // A form may be longer than the limit, but not the message in it.
    let form = ["Content-Type: application/x-www-form-urlencoded"];
    let escaped = format!("a=7&b=1&message={}", "%78".repeat(98));
    assert_eq!(ask(address, "POST", "/push", &form, escaped.as_bytes()).status, 200);
    client.expect_text(&format!("<{}>", "x".repeat(98)));
    let escaped = format!("a=7&b=1&message={}", "%78".repeat(99));
    assert_eq!(ask(address, "POST", "/push", &form, escaped.as_bytes()).status, 413);
    assert_eq!(get(address, &format!("/push?a=7&b=1&message={}", "x".repeat(99))).status, 413);
    client.expect_nothing();
    // Chunks within the limit are accepted.
    let mut chunked = Wire::connect(address);
    chunked.send(b"POST /path/7/1 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nin\r\n7\r\n pieces\r\n0\r\n\r\n");
    assert_eq!(Answer::read(&mut chunked).status, 200);
    client.expect_text("in pieces");
}

#[test]
fn unknown_paths_and_methods_are_refused() {
    let pushd = start(PLAIN);
    let address = pushd.address();
    let answer = ask(address, "POST", "/nowhere", &[], b"x");
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("/nowhere"), "{answer:?}");
    for method in ["GET", "HEAD", "PUT", "DELETE", "BREW"] {
        let answer = ask(address, method, "/publish/all", &[], b"");
        assert_eq!((answer.status, answer.field("allow")), (405, Some("POST, OPTIONS")), "{method}");
    }
    let answer = ask(address, "OPTIONS", "/publish/all", &[], b"");
    assert_eq!((answer.status, answer.field("allow")), (204, Some("POST, OPTIONS")));
    for path in ["/", "/healthz", "/readyz", "/metrics"] {
        let (whole, head) = (get(address, path), ask(address, "HEAD", path, &[], b""));
        assert_eq!((whole.status, head.status), (200, 200), "{path}");
        assert!(!whole.body.is_empty());
        assert_eq!(head.field("content-type"), whole.field("content-type"), "{path}");
        if path != "/metrics" {
            assert_eq!(head.field("content-length"), whole.field("content-length"), "{path}");
        }
        let answer = ask(address, "POST", path, &[], b"");
        assert_eq!((answer.status, answer.field("allow")), (405, Some("GET, HEAD, OPTIONS")), "{path}");
        let answer = ask(address, "OPTIONS", path, &[], b"");
        assert_eq!((answer.status, answer.field("allow")), (204, Some("GET, HEAD, OPTIONS")), "{path}");
    }
    let long = format!("/publish/{}", "x".repeat(257));
    assert_eq!(ask(address, "POST", &long, &[], b"x").status, 400);
    // Not HTTP at all.
    let mut wire = Wire::connect(address);
    wire.send(b"how are you?\r\n\r\n");
    assert_eq!(Answer::read_head(&mut wire).status, 400);
    // A head without an end.
    let mut wire = Wire::connect(address);
    wire.try_send(format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(32 << 10)).as_bytes());
    assert_eq!(Answer::read_head(&mut wire).status, 431);
}

#[test]
fn requests_may_be_pipelined() {
    let pushd = start(PLAIN);
    let address = pushd.address();
    let mut client = Ws::open(address, "/ws");
    let mut wire = Wire::connect(address);
    let messages: Vec<String> = (0..20).map(|number| format!("message {number}")).collect();
    let all: Vec<u8> =
        messages.iter().flat_map(|text| request(address, "POST", "/publish/all", &[], text.as_bytes())).collect();
    wire.send(&all);
    for text in &messages {
        assert_eq!(Answer::read(&mut wire).json()["subscribers"], 1);
        client.expect_text(text);
    }
    wire.send(&request(address, "POST", "/publish/all", &["Connection: close"], b"last"));
    let answer = Answer::read(&mut wire);
    assert_eq!((answer.status, answer.field("connection")), (200, Some("close")));
    wire.expect_end();
    client.expect_text("last");
}

#[test]
fn a_body_may_wait_for_100_continue() {
    let pushd = start(PLAIN);
    let address = pushd.address();
    let mut wire = Wire::connect(address);
    wire.send(b"POST /publish/all HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(Answer::read_head(&mut wire).status, 100);
    wire.send(b"hello");
    assert_eq!(Answer::read(&mut wire).status, 200);
}

#[test]
fn http_1_0_is_answered_and_closed() {
    let pushd = start(PLAIN);
    let address = pushd.address();
    let mut client = Ws::open(address, "/ws");
    let mut wire = Wire::connect(address);
    wire.send(b"POST /publish/all HTTP/1.0\r\nContent-Length: 3\r\n\r\nold");
    let answer = Answer::read(&mut wire);
    assert_eq!((answer.status, answer.json()["subscribers"].as_u64()), (200, Some(1)));
    wire.expect_end();
    client.expect_text("old");
    let mut wire = Wire::connect(address);
    wire.send(b"GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!(Answer::read(&mut wire).text(), "ok\n");
    wire.expect_end();
}

#[test]
fn a_request_needs_exactly_one_host() {
    let pushd = start(PLAIN);
    for hosts in ["", "Host: a\r\nHost: b\r\n"] {
        for request in ["GET /healthz HTTP/1.1\r\n", "POST /publish/all HTTP/1.1\r\nContent-Length: 0\r\n"] {
            let mut wire = Wire::connect(pushd.address());
            wire.send(format!("{request}{hosts}\r\n").as_bytes());
            let answer = Answer::read(&mut wire);
            assert_eq!((answer.status, answer.text()), (400, "a request names exactly one Host\n"), "{request}{hosts}");
        }
    }
}

/// A feed on a channel whose name has a slash, and every kind of route by which clients name a channel.
const NAMING: &str = r#"
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/ws" = { websocket = "h", channels = ["{channel=sys/load}"] }
"/ws/{channel}" = { websocket = "h", channels = ["{channel}"] }
"/say" = { websocket = "h", channels = ["none"], to = "{to}", on_message = "broadcast" }
"/publish/{channel}" = { publish = "h", channel = "{channel}" }
"/fixed" = { publish = "h", channel = "sys/load" }
"/same" = { websocket = "h", channels = ["all", "{a=all}", "{b}", "x/{c=y}", "{d=x/y}"] }
[hub.h]
[feed.clock]
hub = "h"
channel = "sys/clock"
every = "10ms"
message = "{n}"
"#;

#[test]
fn a_channel_has_the_same_name_by_every_route() {
    let pushd = start(NAMING);
    let address = pushd.address();
    let paths = ["/ws?channel=sys/load", "/ws?channel=sys%2Fload", "/ws", "/ws/sys%2Fload"];
    let mut clients: Vec<_> = paths.iter().map(|path| Ws::open(address, path)).collect();
    assert_eq!(publish(address, "/publish/sys%2Fload", "named"), 4);
    assert_eq!(publish(address, "/fixed", "fixed"), 4);
    let mut publisher = Ws::open(address, "/say?to=sys/load");
    publisher.text("said");
    for client in &mut clients {
        for text in ["named", "fixed", "said"] {
            client.expect_text(text);
        }
    }
    let answer = ask(address, "POST", "/publish/50%25%2F%C3%BC", &[], b"x");
    assert_eq!(answer.json()["channel"], "50%/ü");
    Ws::open(address, "/ws?channel=sys/clock").next_text();
}

#[test]
fn a_client_is_subscribed_once_to_each_channel() {
    let pushd = start(NAMING);
    let address = pushd.address();
    let mut client = Ws::open(address, "/same?b=all");
    for (path, text) in [("/publish/all", "one"), ("/publish/x%2Fy", "two"), ("/publish/all", "three")] {
        assert_eq!(publish(address, path, text), 1, "{path}");
        client.expect_text(text);
    }
}

#[test]
fn the_length_of_a_path_is_limited_for_all_routes() {
    let pushd = start(PLAIN);
    let address = pushd.address();
    for (method, path) in [("GET", "/ws"), ("POST", "/publish/"), ("GET", "/none/"), ("GET", "/")] {
        let long = format!("{path}{}", "%61".repeat(1366));
        let answer = ask(address, method, &long, &[], b"");
        assert_eq!((answer.status, answer.text()), (414, "a path has at most 4096 bytes\n"), "{method} {path}");
    }
    // Arguments do not count.
    assert_eq!(get(address, &format!("/healthz?{}", "a=b&".repeat(1500))).status, 200);
}

#[test]
fn a_channels_name_has_no_control_characters() {
    let pushd = start(PLAIN);
    for name in ["a%0Ab", "%00", "a%1Bb", "%C2%85"] {
        let answer = ask(pushd.address(), "POST", &format!("/publish/{name}"), &[], b"x");
        assert_eq!(answer.status, 400, "{name}: {answer:?}");
        assert!(answer.text().contains("control characters"), "{answer:?}");
    }
}
