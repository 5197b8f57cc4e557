//! The opening handshake: RFC 6455 to the letter, refusals with status, fields and a message, and which origins are
//! allowed.

mod common;

use std::net::SocketAddr;

use common::http::{Answer, ask, get};
use common::wire::Wire;
use common::ws::{Hixie, KEY, KEYS_76, TEXT, Ws, frame, handshake, handshake_76};
use common::{PLAIN, start, until_true};

#[test]
fn a_handshake_is_answered_as_in_the_rfc() {
    let pushd = start(PLAIN);
    let mut wire = Wire::connect(pushd.address());
    wire.send(&handshake(pushd.address(), "/ws?channel=a", &[]));
    let answer = Answer::read_head(&mut wire);
    assert_eq!(answer.line, "HTTP/1.1 101 Switching Protocols");
    assert_eq!(answer.field("upgrade"), Some("websocket"));
    assert_eq!(answer.field("connection"), Some("Upgrade"));
    assert_eq!(answer.field("sec-websocket-accept"), Some(KEY.1));
    assert_eq!(answer.field("sec-websocket-protocol"), None);
    assert_eq!(answer.field("sec-websocket-extensions"), None);
    assert_eq!(answer.field("content-length"), None);
}

/// Most handshakes arrive in one piece and are parsed without hyper. Those that arrive in pieces, or with more bytes
/// than expected, are parsed by hyper.
#[test]
fn a_handshake_has_the_same_answer_in_one_piece_and_in_several() {
    let config = PLAIN
        .replace("on_message = \"echo\"", "on_message = \"echo\", subprotocols = [\"chat\"]")
        .replace("[hub.push]", "[hub.push]\ndeflate = true");
    let pushd = start(&config);
    let address = pushd.address();
    let many: Vec<String> = (0..90).map(|number| format!("X-{number}: {number}")).collect();
    let too_many: Vec<String> = (0..120).map(|number| format!("X-{number}: {number}")).collect();
    let long = format!("Cookie: {}", "c".repeat(8 << 10));
    let too_long = format!("Cookie: {}", "c".repeat(20 << 10));
    let cases: Vec<Vec<String>> = vec![
        Vec::new(),
        vec!["Sec-WebSocket-Protocol: soap, chat".to_owned()],
        vec!["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits".to_owned()],
        many,
        too_many,
        vec![long],
        vec![too_long],
        vec!["Host: a, b".to_owned()],
        vec!["Host: a".to_owned(), "host: b".to_owned()],
        vec!["Host:".to_owned()],
        vec!["Sec-WebSocket-Key: short".to_owned()],
        vec!["Sec-WebSocket-Version: 12".to_owned()],
        vec!["Origin: http://elsewhere.example".to_owned()],
        vec!["Connection: close, Upgrade".to_owned()],
        vec!["X-Folded: a\r\n b".to_owned()],
        vec!["X-Nul: \0".to_owned()],
        vec!["X-Space : a".to_owned()],
        vec!["X-Text: \u{e9}".to_owned()],
    ];
    let targets = ["/echo?a=%zz", "/%65cho", "http://here/echo", "/nowhere", "*", "/echo#part"];
    let plain = targets.map(|target| (target, &cases[0]));
    for (target, fields) in cases.iter().map(|fields| ("/echo", fields)).chain(plain) {
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let request = handshake(address, target, &fields);
        let [whole, in_pieces] = [request.len(), 10].map(|cut| {
            let mut wire = Wire::connect(address);
            wire.send(&request[..cut]);
            if cut < request.len() {
                // The second piece is one of its own only if the first was read before.
                until_true("the server to read the first piece", || unread(address, wire.local_address()) == 0);
                wire.send(&request[cut..]);
            }
            let answer = String::from_utf8(wire.take_until(b"\r\n\r\n")).unwrap();
            answer.lines().filter(|line| !line.starts_with("date: ")).collect::<Vec<_>>().join("\n")
        });
        assert_eq!(whole, in_pieces, "{target} {fields:?}");
    }
}

/// The bytes that wait for the server in this client's socket, according to the kernel.
fn unread(server: SocketAddr, client: SocketAddr) -> u64 {
    let port = |address: SocketAddr| format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let line = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut line = line.filter(|words| words[1].ends_with(&port(server)) && words[2].ends_with(&port(client)));
    let words = line.next().expect("the connection exists");
    u64::from_str_radix(words[4].split_once(':').unwrap().1, 16).unwrap()
}

#[test]
fn header_fields_are_parsed_as_http_requires() {
    let pushd = start(PLAIN);
    for fields in [
        &["Upgrade: WebSocket", "Connection: UPGRADE"][..],
        &["Upgrade: h2c, websocket", "Connection: keep-alive, Upgrade"],
        &["Connection: keep-alive", "connection: upgrade"],
        &["Upgrade: TLS/1.0", "upgrade:   websocket  "],
        &["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"],
    ] {
        let (answer, mut client) = Ws::ask(pushd.address(), "/echo", fields);
        assert_eq!(answer.status, 101, "{fields:?}: {answer:?}");
        assert_eq!(answer.field("sec-websocket-extensions"), None, "no extension is agreed on");
        client.text("open");
        client.expect_text("open");
    }
}

#[test]
fn an_invalid_handshake_is_refused_with_a_message() {
    let pushd = start(PLAIN);
    let address = pushd.address();
    let not_key = "must be 16 bytes in base64";
    let refused: &[(&[&str], u16, &str)] = &[
        (&["Host:"], 400, "exactly one Host"),
        (&["Host: a", "host: b"], 400, "exactly one Host"),
        (&["Upgrade:"], 426, "speaks WebSocket"),
        (&["Upgrade: h2c"], 426, "speaks WebSocket"),
        (&["Connection:"], 426, "speaks WebSocket"),
        (&["Connection: keep-alive"], 426, "speaks WebSocket"),
        (&["Sec-WebSocket-Version:"], 426, "version 13"),
        (&["Sec-WebSocket-Version: 8"], 426, "version 13"),
        (&["Sec-WebSocket-Version: 13, 8"], 426, "version 13"),
        (&["Sec-WebSocket-Version: 13", "sec-websocket-version: 13"], 426, "version 13"),
        (&["Sec-WebSocket-Key:"], 400, not_key),
        (&["Sec-WebSocket-Key: AAAA"], 400, not_key),
        (&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"], 400, not_key),
        (&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR=="], 400, not_key),
        (&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j!!=="], 400, not_key),
        (&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA=="], 400, not_key),
    ];
    for (fields, status, words) in refused {
        let (answer, _) = Ws::ask(address, "/ws", fields);
        assert_eq!(answer.status, *status, "{fields:?}: {answer:?}");
        assert!(answer.text().contains(words), "{fields:?}: {}", answer.text());
        assert_eq!(answer.field("content-type"), Some("text/plain; charset=utf-8"));
        if *status == 426 {
            assert_eq!(answer.field("upgrade"), Some("websocket"), "{fields:?}");
            assert_eq!(
                answer.field("connection").map(str::to_ascii_lowercase).as_deref(),
                Some("upgrade"),
                "{fields:?}"
            );
        }
        assert_eq!(answer.field("sec-websocket-version"), words.contains("version").then_some("13"), "{fields:?}");
    }
    assert_eq!(get(address, "/ws").status, 426, "as from a browser's address bar");
}

#[test]
fn other_methods_versions_and_paths_are_refused() {
    let pushd = start(PLAIN);
    let address = pushd.address();
    for method in ["POST", "PUT", "DELETE", "HEAD"] {
        let answer = ask(address, method, "/ws", &["Upgrade: websocket", "Connection: Upgrade"], b"");
        assert_eq!((answer.status, answer.field("allow")), (405, Some("GET")), "{method}");
    }
    let (answer, _) = Ws::ask(address, "/nowhere", &[]);
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("no route serves /nowhere"), "{answer:?}");
    let mut wire = Wire::connect(address);
    let old = String::from_utf8(handshake(address, "/ws", &[])).unwrap().replace("HTTP/1.1", "HTTP/1.0");
    wire.send(old.as_bytes());
    let answer = Answer::read(&mut wire);
    assert_eq!((answer.status, answer.text()), (400, "a WebSocket opens with HTTP/1.1\n"));
    let (answer, _) = Ws::ask(address, &format!("/ws?channel={}", "x".repeat(257)), &[]);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("at most 256 bytes"), "{answer:?}");
    let (answer, _) = Ws::ask(address, "/ws?channel=", &[]);
    assert_eq!((answer.status, answer.text()), (400, "the channel's name is empty\n"));
}

#[test]
fn the_connection_can_be_used_after_a_refusal() {
    let pushd = start(PLAIN);
    let address = pushd.address();
    let mut wire = Wire::connect(address);
    wire.send(&handshake(address, "/echo", &["Sec-WebSocket-Version: 8"]));
    assert_eq!(Answer::read(&mut wire).status, 426);
    wire.send(&handshake(address, "/echo", &[]));
    assert_eq!(Answer::read(&mut wire).status, 101);
    let mut client = Ws { wire };
    client.text("second try");
    client.expect_text("second try");
}

#[test]
fn the_server_chooses_among_the_offered_subprotocols() {
    let config = PLAIN.replace("on_message = \"echo\"", "on_message = \"echo\", subprotocols = [\"best\", \"good\"]");
    let pushd = start(&config);
    for (offer, chosen) in [
        ("", None),
        ("Sec-WebSocket-Protocol: good, best", Some("best")),
        ("Sec-WebSocket-Protocol: other,good", Some("good")),
        ("Sec-WebSocket-Protocol: other", None),
        ("Sec-WebSocket-Protocol: BEST", None),
    ] {
        let fields: Vec<&str> = [offer].into_iter().filter(|offer| !offer.is_empty()).collect();
        let (answer, mut client) = Ws::ask(pushd.address(), "/echo", &fields);
        assert_eq!((answer.status, answer.field("sec-websocket-protocol")), (101, chosen), "{offer}");
        client.text("open");
        client.expect_text("open");
    }
}

#[test]
fn frames_sent_together_with_the_request_are_received() {
    let config = PLAIN.replace("on_message = \"echo\"", "on_message = \"echo\", draft76 = true");
    let pushd = start(&config);
    let address = pushd.address();
    let early = [frame(TEXT, b"early"), frame(TEXT, b"bird")].concat();
    // Complete, and cut inside the second frame.
    for cut in [early.len(), early.len() - 3] {
        let mut wire = Wire::connect(address);
        wire.send(&[&handshake(address, "/echo", &[]), &early[..cut]].concat());
        assert_eq!(Answer::read_head(&mut wire).status, 101);
        let mut client = Ws { wire };
        client.expect_text("early");
        client.wire.send(&early[cut..]);
        client.expect_text("bird");
    }
    // More than is read at once for a head.
    let mut wire = Wire::connect(address);
    let many: Vec<u8> = (0..1200).flat_map(|number| frame(TEXT, number.to_string().as_bytes())).collect();
    wire.send(&[handshake(address, "/echo", &[]), many].concat());
    assert_eq!(Answer::read_head(&mut wire).status, 101);
    let mut client = Ws { wire };
    (0..1200).for_each(|number| client.expect_text(&number.to_string()));
    let mut wire = Wire::connect(address);
    wire.send(&[&handshake_76(address, "/echo", &[]), &KEYS_76.2[..], b"\x00early\xff\x00bi"].concat());
    let answer = Answer::read_head(&mut wire);
    assert_eq!((answer.status, &wire.take(16)[..]), (101, &KEYS_76.3[..]));
    let mut client = Hixie { wire, answer };
    client.expect_text("early");
    client.wire.send(b"rd\xff");
    client.expect_text("bird");
}

#[test]
fn draft_76_is_accepted_only_where_it_is_allowed() {
    let pushd = start(&PLAIN.replace("on_message = \"echo\"", "on_message = \"echo\", draft76 = true"));
    let address = pushd.address();
    let client = Hixie::open_with(address, "/echo?a=b", &["Sec-WebSocket-Protocol: sample"]);
    assert_eq!(client.answer.field("upgrade"), Some("WebSocket"));
    assert_eq!(client.answer.field("sec-websocket-origin"), Some(&*format!("http://{address}")));
    assert_eq!(client.answer.field("sec-websocket-location"), Some(&*format!("ws://{address}/echo?a=b")));
    assert_eq!(client.answer.field("sec-websocket-protocol"), Some("sample"));
    client.close();
    // The eight bytes may arrive later than the header.
    let mut wire = Wire::connect(address);
    wire.send(&handshake_76(address, "/echo", &[]));
    assert_eq!(Answer::read_head(&mut wire).status, 101);
    for byte in KEYS_76.2 {
        wire.send(&[*byte]);
    }
    assert_eq!(wire.take(16), KEYS_76.3);
    for (key, words) in
        [("12345", "a key without spaces"), ("1 0 1", "no multiple of its spaces"), ("99999999999 ;", "too large")]
    {
        for good in [KEYS_76.0, KEYS_76.1] {
            let mut wire = Wire::connect(address);
            let request = String::from_utf8(handshake_76(address, "/echo", &[])).unwrap().replace(good, key);
            wire.send(&[request.as_bytes(), KEYS_76.2].concat());
            let answer = Answer::read(&mut wire);
            assert_eq!(answer.status, 400, "{key}");
            assert!(answer.text().contains(words), "{key}: {answer:?}");
        }
    }
    let mut wire = Wire::connect(address);
    wire.send(&[&handshake_76(address, "/ws", &[]), &KEYS_76.2[..]].concat());
    let answer = Answer::read(&mut wire);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("draft76 = true"), "{answer:?}");
}

/// Some libraries, such as Autobahn, announced the eight bytes in Content-Length. Then they are the request's body, and
/// the HTTP parser consumes them.
#[test]
fn the_key_of_draft_76_may_be_announced_by_content_length() {
    let pushd = start(&PLAIN.replace("on_message = \"echo\"", "on_message = \"echo\", draft76 = true"));
    let address = pushd.address();
    let request = handshake_76(address, "/echo", &["Content-Length: 8"]);
    for cut in [0, request.len(), request.len() + 3] {
        let bytes = [&request, &KEYS_76.2[..], b"\x00early\xff"].concat();
        let mut wire = Wire::connect(address);
        wire.send(&bytes[..cut]);
        wire.send(&bytes[cut..]);
        let answer = Answer::read_head(&mut wire);
        assert_eq!((answer.status, &wire.take(16)[..]), (101, &KEYS_76.3[..]), "cut at {cut}");
        let mut client = Hixie { wire, answer };
        client.expect_text("early");
        client.close();
    }
    let mut wire = Wire::connect(address);
    wire.send(&[&handshake_76(address, "/echo", &["Content-Length: 9"]), &KEYS_76.2[..], b"x"].concat());
    assert_eq!(Answer::read(&mut wire).status, 400);
}

/// A WebSocket and a publish route for each value of `origins`.
const ORIGINS: &str = r#"
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/same/ws" = { websocket = "h" }
"/same/publish" = { publish = "h", channel = "all", methods = ["GET", "POST"], message = "{m=}" }
"/any/ws" = { websocket = "h", origins = "any" }
"/any/publish" = { publish = "h", channel = "all", methods = ["GET", "POST"], message = "{m=}", origins = "any" }
"/listed/ws" = { websocket = "h", origins = ["https://example.com"] }
"/listed/publish" = { publish = "h", channel = "all", methods = ["GET", "POST"], message = "{m=}", origins = ["https://example.com"] }
[hub.h]
"#;

#[test]
fn pages_are_admitted_by_their_origin() {
    let pushd = start(ORIGINS);
    let address = pushd.address();
    let port = address.port();
    let own = format!("Origin: http://{address}");
    let (local_host, local) = (format!("Host: localhost:{port}"), format!("Origin: http://localhost:{port}"));
    let other_port = format!("Origin: http://127.0.0.1:{}", port ^ 1);
    // Header fields, and whether they are admitted with "same", "any" and a list.
    let cases: &[(&[&str], [bool; 3])] = &[
        (&[], [true, true, true]),
        (&[&own], [true, true, true]),
        (&[&local_host, &local], [true, true, true]),
        // All names of the loopback count as one.
        (&[&local], [true, true, true]),
        (&[&other_port], [false, true, false]),
        (&["Origin: https://example.com"], [false, true, true]),
        (&["Origin: http://example.com"], [false, true, false]),
        (&["Origin: https://example.com.evil.example"], [false, true, false]),
        (&["Origin: null"], [false, true, false]),
        (&["Origin: file://"], [false, true, false]),
        // An image or a link on a page of another site sends no Origin.
        (&["Sec-Fetch-Site: cross-site"], [false, true, false]),
        (&["Sec-Fetch-Site: same-site"], [false, true, false]),
        (&["Sec-Fetch-Site: same-origin"], [true, true, true]),
        (&["Sec-Fetch-Site: none"], [true, true, true]),
    ];
    for (fields, allowed) in cases {
        for (kind, allowed) in ["same", "any", "listed"].into_iter().zip(allowed) {
            let (upgraded, _) = Ws::ask(address, &format!("/{kind}/ws"), fields);
            assert_eq!(upgraded.status, if *allowed { 101 } else { 403 }, "{kind} {fields:?}: {upgraded:?}");
            let published = ask(address, "GET", &format!("/{kind}/publish?m=x"), fields, b"");
            assert_eq!(published.status, if *allowed { 200 } else { 403 }, "{kind} {fields:?}: {published:?}");
            if *allowed {
                continue;
            }
            for text in [upgraded.text(), published.json()["error"].as_str().unwrap()] {
                assert!(text.contains("origin") || text.contains("Origin") || text.contains("Host"), "{text}");
            }
        }
    }
}

#[test]
fn a_get_that_an_image_could_send_does_not_publish() {
    let pushd = start(&ORIGINS.replace("[server.main.routes]", "hosts = [\"push.example.com\"]\n[server.main.routes]"));
    let address = pushd.address();
    // As forwarded by a proxy without TLS before pushd's loopback address: then browsers do not send Sec-Fetch-Site.
    let host = "Host: push.example.com";
    let own = "Referer: http://push.example.com/page";
    for (kind, read) in [("same", 403), ("any", 200), ("listed", 403)] {
        assert_eq!(Ws::ask(address, &format!("/{kind}/ws"), &[host]).0.status, 101, "{kind}");
        let path = format!("/{kind}/publish?m=x");
        assert_eq!(ask(address, "POST", &path, &[host], b"").status, 200, "{kind}");
        let answer = ask(address, "GET", &path, &[host], b"");
        assert_eq!(answer.status, read, "{kind}: {answer:?}");
        assert_eq!(ask(address, "GET", &path, &[host, own], b"").status, 200, "{kind}: its own page");
        let foreign = ask(address, "GET", &path, &[host, "Referer: http://attacker.example/"], b"");
        assert_eq!(foreign.status, read, "{kind}: {foreign:?}");
    }
}

#[test]
fn an_admitted_page_may_read_the_response() {
    let pushd = start(ORIGINS);
    let address = pushd.address();
    for method in ["POST", "GET", "OPTIONS"] {
        for (path, status) in [("/any/publish", 200), ("/listed/publish", 200), ("/same/publish", 403)] {
            let fields = ["Origin: https://example.com", "Access-Control-Request-Method: POST"];
            let answer = ask(address, method, path, &fields, b"");
            let expected = if method == "OPTIONS" && status == 200 { 204 } else { status };
            assert_eq!(answer.status, expected, "{method} {path}: {answer:?}");
            let origin = (status == 200).then_some("https://example.com");
            assert_eq!(answer.field("access-control-allow-origin"), origin, "{method} {path}");
            if status == 200 {
                assert_eq!(answer.field("access-control-allow-methods"), Some("GET, POST, OPTIONS"));
                assert_eq!(
                    answer.field("access-control-allow-headers"),
                    Some("authorization, content-type, idempotency-key")
                );
                assert_eq!(answer.field("vary"), Some("Origin"));
            }
        }
    }
    // A refusal for another reason can be read too.
    let answer = ask(address, "DELETE", "/any/publish", &["Origin: https://example.com"], b"");
    assert_eq!((answer.status, answer.field("access-control-allow-origin")), (405, Some("https://example.com")));
    // A client without an Origin gets no CORS fields.
    assert_eq!(get(address, "/any/publish?m=x").field("access-control-allow-origin"), None);
}

/// A browser does not show the message to the page.
#[test]
fn the_log_says_why_a_page_was_refused_and_how_to_allow_it() {
    let pushd = start(PLAIN);
    for origin in ["https://evil.example", "null"] {
        let mut wire = Wire::connect(pushd.address());
        wire.send(&handshake(pushd.address(), "/ws", &[&format!("Origin: {origin}")]));
        assert_eq!(Answer::read(&mut wire).status, 403);
    }
    pushd.logged(
        "refused at /ws: Origin https://evil.example is not allowed here: origins = [\"https://evil.example\"] on the route",
    );
    // Not every refusal is logged: a client could fill the disk.
    assert!(!pushd.log().contains("Origin null"), "{}", pushd.log());
}
