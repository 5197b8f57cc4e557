//! The configured limits hold: connections, subscribers, queues, timeouts, descriptors. Clients within the limits are
//! not affected.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::http::{Answer, ask, get, metric, publish, request};
use common::wire::Wire;
use common::ws::{CLOSE, Hixie, KEYS_76, PONG, TEXT, Ws, frame, handshake, handshake_76};
use common::{PLAIN, Pushd, Start, start, until, until_true};
use pushd::config::limits::CONNECTIONS_RESERVED;

/// The plain configuration with more keys for its server, its hub, and the file.
fn with(server: &str, hub: &str, rest: &str) -> String {
    let listen = "listen = \"127.0.0.1:0\"";
    assert!(PLAIN.contains(listen) && PLAIN.trim_end().ends_with("[hub.push]"));
    format!("{}{hub}\n{rest}\n", PLAIN.replace(listen, &format!("{listen}\n{server}")))
}

#[test]
fn a_connection_beyond_the_limit_is_refused_and_the_others_are_served() {
    let pushd = start(&with("", "", "[daemon]\nconnections_max = 3"));
    let address = pushd.address();
    let mut first = Ws::open(address, "/echo");
    let mut second = Ws::open(address, "/echo");
    let mut asking = Wire::connect(address);
    asking.send(&request(address, "GET", "/healthz", &[], b""));
    assert_eq!(Answer::read(&mut asking).status, 200);

    let mut refused = Wire::connect(address);
    refused.send(&handshake(address, "/echo", &[]));
    let answer = Answer::read(&mut refused);
    assert_eq!(answer.status, 503);
    assert_eq!(answer.field("retry-after"), Some("1"));
    assert_eq!(answer.field("connection"), Some("close"));
    assert!(answer.text().contains("as many connections as it may"), "{answer:?}");
    refused.expect_end();
    drop(refused);
    until_true("an empty reserve", || {
        asking.send(&request(address, "GET", "/metrics", &[], b""));
        let metrics = Answer::read(&mut asking);
        let open = metrics.text().lines().filter(|line| line.starts_with("pushd_connections{"));
        open.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum::<usize>() == 3
    });
    let silent = fill_reserve(address);
    let mut refused = Wire::connect(address);
    refused.send(&request(address, "POST", "/publish/all", &[], &[b'x'; 60_000]));
    let answer = Answer::read(&mut refused);
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")));
    assert!(answer.text().contains("as many connections as it may"), "{answer:?}");
    refused.expect_end();
    // A client that sends nothing is refused with a response, too.
    let mut refused = Wire::connect(address);
    assert_eq!(Answer::read(&mut refused).status, 503);
    refused.expect_end();
    drop(silent);

    for client in [&mut first, &mut second] {
        client.text("still served");
        client.expect_text("still served");
    }
    asking.send(&request(address, "GET", "/metrics", &[], b""));
    let metrics = Answer::read(&mut asking);
    assert!(metrics.text().contains("\npushd_connections_refused_total 2\n"), "{}", metrics.text());

    first.close();
    let mut third = until("a free connection", || {
        let mut wire = Wire::connect(address);
        wire.try_send(&handshake(address, "/echo", &[]));
        (Answer::read(&mut wire).status == 101).then_some(Ws { wire })
    });
    third.text("in");
    third.expect_text("in");
}

/// Opens connections that take the whole reserve.
fn fill_reserve(address: SocketAddr) -> Vec<Wire> {
    let silent = (0..CONNECTIONS_RESERVED).map(|_| {
        let mut wire = Wire::connect(address);
        wire.send(b"GET /healthz");
        wire
    });
    silent.collect()
}

#[test]
fn a_full_server_still_answers_requests_and_does_not_affect_others() {
    let other = "[server.other]\nlisten = \"127.0.0.1:0\"\nroutes.\"/healthz\" = { health = true }";
    let pushd = start(&with("connections_max = 3", "", other));
    let address = pushd.address();
    let mut clients = [(); 3].map(|()| Ws::open(address, "/ws"));
    for _ in 0..50 {
        assert_eq!(get(pushd.address_of("other"), "/healthz").status, 200);
        assert_eq!(get(address, "/healthz").status, 200);
        assert_eq!(get(address, "/metrics").status, 200);
        assert_eq!(publish(address, "/publish/all", "still published"), 3);
        let (answer, _) = Ws::ask(address, "/ws", &[]);
        assert_eq!(answer.status, 503, "{answer:?}");
    }
    for client in &mut clients {
        (0..50).for_each(|_| client.expect_text("still published"));
    }
    // Connections in the reserve that send nothing, or not all of a request, are closed soon.
    let mut silent: Vec<Wire> = (0..CONNECTIONS_RESERVED).map(|_| Wire::connect(address)).collect();
    silent[0].send(b"POST /publish/all HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n");
    silent[1].send(b"GET /healthz HTTP/1.1\r\n");
    let began = Instant::now();
    until_true("space in the reserve", || get(address, "/healthz").status == 200);
    assert!(began.elapsed() < Duration::from_secs(8), "after {:?}", began.elapsed());
    drop(silent);
    // A connection in the reserve has one response only, so that none takes space that others need.
    let mut asking = Wire::connect(address);
    asking.send(&request(address, "GET", "/healthz", &[], b""));
    assert_eq!(Answer::read(&mut asking).field("connection"), Some("close"));
    asking.expect_end();
    let words = "server main holds 3 connections, its `connections_max` in [server.main]: one more is refused";
    assert_eq!(pushd.log().matches(words).count(), 1, "once a minute: {}", pushd.log());
    drop(clients);
    until_true("a free connection", || Ws::ask(address, "/ws", &[]).0.status == 101);
}

#[test]
fn a_refused_client_receives_the_refusal_whatever_it_sends() {
    let pushd = start(&with("", "", "[daemon]\nconnections_per_address_max = 1"));
    let address = pushd.address();
    let _only = Ws::open(address, "/ws");
    let body = [b'x'; 50_000];
    for round in 0..40 {
        let whole = request(address, "POST", "/publish/all", &[], &body);
        let mut refused = Wire::connect(address);
        // All at once, and in pieces: then the response is there before the rest is sent.
        if round % 2 == 0 {
            refused.send(&whole);
        } else {
            let (head, rest) = whole.split_at(whole.len() - body.len());
            refused.send(head);
            rest.chunks(10_000).for_each(|piece| refused.send(piece));
        }
        assert_eq!(Answer::read(&mut refused).status, 429);
        refused.expect_end();
    }
    let url = format!("http://{address}/publish/all");
    for _ in 0..40 {
        let mut pushctl = std::process::Command::new(env!("CARGO_BIN_EXE_pushctl"));
        let ran = common::run(pushctl.args(["publish", &url, "hello"]));
        assert!(ran.code() != 0 && ran.stderr.contains("429"), "{}", ran.stderr);
    }
    let words = "127.0.0.1 holds 1 connections, the `connections_per_address_max` in [daemon]: one more is refused";
    assert_eq!(pushd.log().matches(words).count(), 1, "{}", pushd.log());
}

#[test]
fn one_address_is_limited_and_others_are_not() {
    let pushd = start(&with("", "", "[daemon]\nconnections_per_address_max = 2"));
    let address = pushd.address();
    let mut first = Ws::open(address, "/echo");
    let second = Ws::open(address, "/echo");
    let mut refused = Wire::connect(address);
    let answer = Answer::read(&mut refused);
    assert_eq!((answer.status, answer.field("retry-after")), (429, Some("1")));
    assert!(answer.text().contains("your address holds as many connections"), "{answer:?}");
    refused.expect_end();
    let mut other = Ws::open_on(Wire::connect_from([127, 0, 0, 2], address), "/echo");
    for client in [&mut first, &mut other] {
        client.text("served");
        client.expect_text("served");
    }
    second.close();
    until_true("a free connection", || get(address, "/healthz").status == 200);
}

#[test]
fn a_subscriber_beyond_the_limit_is_refused_and_may_come_back() {
    let pushd = start(&with("", "subscribers_max = 2", ""));
    let address = pushd.address();
    let mut first = Ws::open(address, "/ws");
    let second = Ws::open(address, "/ws");
    let (answer, _) = Ws::ask(address, "/ws", &[]);
    assert_eq!(answer.status, 503);
    assert_eq!(answer.field("retry-after"), Some("1"));
    assert!(answer.text().contains("hub push is full (2 sessions)"), "{answer:?}");
    assert_eq!(publish(address, "/publish/all", "to two"), 2);
    first.expect_text("to two");
    drop(second);
    let mut third = until("a free place in the hub", || {
        let (answer, client) = Ws::ask(address, "/ws", &[]);
        (answer.status == 101).then_some(client)
    });
    until_true("two subscribers", || publish(address, "/publish/all", "again") == 2);
    assert_eq!(third.next_text(), "again");
}

/// A hub whose queue holds two messages of 32 KiB for each subscriber.
fn narrow(when_slow: &str) -> Pushd {
    start(&with("", &format!("message_max = \"32KiB\"\nqueue_max = \"80KiB\"\nwhen_slow = \"{when_slow}\""), ""))
}

/// Message number `number`, of the largest size of this hub.
fn numbered(number: usize) -> String {
    format!("{number:09}{}", "x".repeat((32 << 10) - 9))
}

fn number(message: &str) -> usize {
    assert_eq!(message.len(), 32 << 10);
    message[..9].parse().unwrap()
}

/// Publishes numbered messages until `enough`. One healthy subscriber receives all of them. Returns the number of
/// messages.
fn publish_until(pushd: &Pushd, healthy: &mut Ws, enough: impl Fn() -> bool) -> usize {
    let mut count = 0;
    while !enough() {
        assert!(count < 10_000, "no subscriber is slow");
        publish(pushd.address(), "/publish/all", &numbered(count));
        assert_eq!(number(&healthy.next_text()), count);
        count += 1;
    }
    count
}

#[test]
fn a_slow_subscriber_is_closed_with_a_reason_and_others_are_not_affected() {
    let pushd = narrow("disconnect");
    let address = pushd.address();
    let mut healthy = Ws::open(address, "/ws");
    let mut slow = Ws::open_on(Wire::connect_narrow(address), "/ws");
    let count = publish_until(&pushd, &mut healthy, || metric(address, "pushd_slow_disconnects_total") == 1);
    pushd.logged("disconnected: too slow");
    // When it reads again, the frames in transit arrive complete and in order, then the reason.
    let mut received = 0;
    let (code, reason) = loop {
        let (first, payload) = slow.next();
        if first == common::ws::CLOSE {
            break (u16::from_be_bytes([payload[0], payload[1]]), String::from_utf8(payload[2..].to_vec()).unwrap());
        }
        assert_eq!(number(std::str::from_utf8(&payload).unwrap()), received);
        received += 1;
    };
    assert_eq!(code, 1008);
    assert_eq!(reason, "too slow: more messages were waiting than the queue holds");
    assert!(received > 0 && received < count, "{received} of {count}");
    slow.send(common::ws::CLOSE, &common::ws::close_payload(1008, ""));
    slow.wire.expect_end();
    until_true("only the healthy subscriber remains", || metric(address, "pushd_sessions") == 1);
    assert_eq!(publish(address, "/publish/all", "on we go"), 1);
    healthy.expect_text("on we go");
}

/// The messages that a slow subscriber receives when it reads again, under this policy, and how many were published.
fn received_after_a_pause(when_slow: &str) -> (Vec<usize>, usize) {
    let pushd = narrow(when_slow);
    let address = pushd.address();
    let mut healthy = Ws::open(address, "/ws");
    let mut slow = Ws::open_on(Wire::connect_narrow(address), "/ws");
    let count = publish_until(&pushd, &mut healthy, || metric(address, "pushd_messages_dropped_total") >= 10);
    assert_eq!(metric(address, "pushd_slow_disconnects_total"), 0);
    // The answer to this ping comes after everything that waits.
    slow.send(common::ws::PING, b"end");
    let mut received = Vec::new();
    loop {
        let (first, payload) = slow.next();
        if first == PONG {
            break;
        }
        received.push(number(std::str::from_utf8(&payload).unwrap()));
    }
    // It is still subscribed.
    assert_eq!(publish(address, "/publish/all", "present"), 2);
    slow.expect_text("present");
    healthy.expect_text("present");
    assert!(received.is_sorted_by(|a, b| a < b), "{received:?}");
    assert!(received.len() <= count - 10, "{} of {count}", received.len());
    (received, count)
}

#[test]
fn drop_oldest_keeps_the_newest() {
    let (received, count) = received_after_a_pause("drop_oldest");
    assert_eq!(received[received.len() - 2..], [count - 2, count - 1], "{received:?}");
    assert_eq!(received[0], 0, "what the kernel has accepted cannot be dropped");
}

#[test]
fn drop_newest_keeps_the_oldest() {
    let (received, count) = received_after_a_pause("drop_newest");
    assert_eq!(received, (0..received.len()).collect::<Vec<_>>());
    assert!(!received.contains(&(count - 1)));
}

#[test]
fn a_client_that_does_not_read_its_echoes_is_not_read_until_it_does() {
    const FRAMES: usize = 400_000;
    let pushd = start(&with("", "message_max = \"1KiB\"\nqueue_max = \"1KiB\"\nqueue_messages_max = 4", ""));
    let mut client = Ws::open(pushd.address(), "/echo");
    let (mut sender, sent) = (client.wire.second(), Arc::new(AtomicUsize::new(0)));
    let progress = sent.clone();
    let sending = std::thread::spawn(move || {
        let hundred = frame(TEXT, &[b'x'; 50]).repeat(100);
        for _ in 0..FRAMES / 100 {
            sender.send(&hundred);
            progress.fetch_add(100, Relaxed);
        }
    });
    let (mut before, mut same) = (0, 0);
    until_true("the server to stop reading", || {
        let now = sent.load(Relaxed);
        same = if now > 0 && now == before { same + 1 } else { 0 };
        before = now;
        same == 20
    });
    assert!(before < FRAMES, "the kernel accepted everything");
    for _ in 0..FRAMES {
        assert_eq!(client.next(), (TEXT, vec![b'x'; 50]));
    }
    sending.join().unwrap();
    client.close();
}

/// Checks that the server closes this connection, and not before `least`.
fn is_closed(mut wire: Wire, began: Instant, least: Duration) {
    wire.expect_end();
    assert!(began.elapsed() >= least, "after {:?}", began.elapsed());
}

#[test]
fn a_client_that_does_not_finish_its_request_is_closed() {
    let config =
        with("header_timeout = \"3s\"\nbody_timeout = \"3s\"\nkeep_alive = \"3s\"", "", "[daemon]\nworkers = 1");
    let config = config.replace("on_message = \"broadcast\"", "on_message = \"broadcast\", draft76 = true");
    let pushd = start(&config);
    let address = pushd.address();
    let least = Duration::from_millis(2900);
    let began = Instant::now();
    let silent = Wire::connect(address);
    let mut halfway = Wire::connect(address);
    halfway.send(b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: webso");
    let mut without_key3 = Wire::connect(address);
    without_key3.send(&[&handshake_76(address, "/chat", &[]), &KEYS_76.2[..7]].concat());
    assert_eq!(Answer::read_head(&mut without_key3).status, 101);
    let mut idle = Wire::connect(address);
    idle.send(&request(address, "GET", "/healthz", &[], b""));
    assert_eq!(Answer::read(&mut idle).status, 200);
    let mut stingy = Wire::connect(address);
    stingy.send(b"POST /publish/all HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nthree");
    // Sessions that are open already are not affected.
    let mut session = Ws::open(address, "/echo");
    let mut old = Hixie::open(address, "/chat");

    for wire in [silent, halfway, without_key3, idle] {
        is_closed(wire, began, least);
    }
    let answer = Answer::read(&mut stingy);
    assert_eq!((answer.status, answer.json()["error"].as_str()), (408, Some("the body did not come in time")));
    assert!(began.elapsed() < common::DEADLINE);
    session.text("here");
    session.expect_text("here");
    old.text("here");
    old.expect_text("here");
    drop(stingy);
    until_true("only those two and the asking connection remain", || {
        metric(address, "pushd_connections{shard=\"0\"}") == 3
    });
}

#[test]
fn a_second_request_that_is_not_finished_is_closed_after_the_same_time() {
    let pushd = start(&with("header_timeout = \"3s\"\nkeep_alive = \"7d\"", "", ""));
    let address = pushd.address();
    let mut wire = Wire::connect(address);
    wire.send(&request(address, "GET", "/healthz", &[], b""));
    assert_eq!(Answer::read(&mut wire).status, 200);
    let began = Instant::now();
    wire.send(b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: webso");
    is_closed(wire, began, Duration::from_millis(2900));
}

#[test]
fn without_descriptors_it_pauses_accepting_and_recovers() {
    // More connections are allowed than there are descriptors.
    let pushd = Start::new(&with("", "", "[daemon]\nconnections_max = 1000\nworkers = 2")).after("ulimit -n 80").run();
    let address = pushd.address();
    let mut first = Ws::open(address, "/echo");
    let waiting: Vec<Wire> = (0..120).map(|_| Wire::connect(address)).collect();
    pushd.logged("connections_max is 1000, but the limit of open files allows only 40");
    pushd.logged("cannot accept connections for now");
    // Meanwhile it serves its sessions, and does not spin: two seconds of that would be 200 ticks.
    let (before, began) = (pushd.ticks(), Instant::now());
    while began.elapsed() < Duration::from_secs(2) {
        first.text("still here");
        first.expect_text("still here");
        // Paced, not waiting: the processor time until this deadline is measured.
        std::thread::sleep(Duration::from_millis(50));
    }
    let used = pushd.ticks() - before;
    assert!(used < 50, "{used} ticks in two seconds");
    assert_eq!(
        pushd.log().matches("cannot accept connections for now").count(),
        1,
        "logged once, not ten times a second"
    );
    drop(waiting);
    until_true("service again", || get(address, "/healthz").status == 200);
    let (answer, _) = Ws::ask(address, "/ws", &[]);
    assert_eq!(answer.status, 101);
}

#[test]
fn the_soft_limit_of_descriptors_is_raised_to_the_hard_limit() {
    for connections_max in ["", "[daemon]\nconnections_max = 1000"] {
        let pushd = Start::new(&with("", "", connections_max)).after("ulimit -Sn 80").run();
        let address = pushd.address();
        let all: Vec<Ws> = (0..100).map(|_| Ws::open(address, "/ws")).collect();
        assert_eq!(publish(address, "/publish/all", "to all"), 100, "{connections_max}");
        for mut client in all {
            client.expect_text("to all");
        }
    }
}

#[test]
fn a_message_of_the_largest_size_is_accepted_and_one_byte_more_is_not() {
    let pushd = start(&with("", "message_max = \"100\"", ""));
    let address = pushd.address();
    let mut client = Ws::open(address, "/ws");
    assert_eq!(publish(address, "/publish/all", &"x".repeat(100)), 1);
    client.expect_text(&"x".repeat(100));
    let answer = ask(address, "POST", "/publish/all", &[], "x".repeat(101).as_bytes());
    assert_eq!(answer.status, 413);
    client.expect_nothing();
}

#[test]
fn a_compressed_message_is_limited_by_its_uncompressed_size() {
    let pushd = start(&with("", "message_max = \"100\"\ndeflate = true", ""));
    let address = pushd.address();
    let offer = "Sec-WebSocket-Extensions: permessage-deflate";
    // RFC 7692 §7.2.3.3: a stored block is six bytes longer than its content. Sent in one frame, and in two.
    let stored = |length: u8| [&[0, length, 0, !length, 0xff][..], &vec![b'x'; length.into()], &[0]].concat();
    let (_, mut client) = Ws::ask(address, "/echo", &[offer]);
    client.send(0xc1, &stored(100));
    client.expect_text(&"x".repeat(100));
    client.send(0x41, &stored(100)[..50]);
    client.send(0x80, &stored(100)[50..]);
    client.expect_text(&"x".repeat(100));
    client.send(0xc1, &stored(101));
    assert_eq!(client.next_close(), (1009, "a message may have at most 100 bytes".to_owned()));
    // Compressed data without an end does not get around the limit.
    let (_, mut client) = Ws::ask(address, "/echo", &[offer]);
    client.send(0x41, &[0; 100]);
    client.wire.send(&frame(0x80, &[0; 200])[..8]);
    assert_eq!(client.next_close().0, 1009);
}

/// This number of empty frames, with a mask of zeros.
fn empty_frames(first_byte: u8, count: usize) -> Vec<u8> {
    [first_byte, 0x80, 0, 0, 0, 0].repeat(count)
}

#[test]
fn a_client_that_floods_is_closed_with_a_reason_and_others_are_not_affected() {
    let floods: [(&str, &str, Vec<u8>); 5] = [
        ("messages_per_second = 100", "messages_per_second", empty_frames(0x81, 1001)),
        ("messages_per_second = 100", "messages_per_second", empty_frames(0x89, 1001)),
        // A message that never ends, in empty fragments.
        (
            "messages_per_second = 100",
            "messages_per_second",
            [empty_frames(0x01, 1), empty_frames(0x00, 1001)].concat(),
        ),
        ("bytes_per_second = \"64KiB\"", "bytes_per_second", frame(TEXT, &[b'x'; 60_000]).repeat(12)),
        ("messages_per_second = 100", "messages_per_second", empty_frames(0x8a, 1001)),
    ];
    for (limit, named, flood) in floods {
        let pushd = start(&with("", limit, ""));
        let mut neighbour = Ws::open(pushd.address(), "/echo");
        let mut flooding = Ws::open(pushd.address(), "/ws");
        flooding.wire.try_send(&flood);
        // Messages before the limit was exceeded are answered.
        let close = until("a close", || Some(flooding.next()).filter(|(first, _)| *first == CLOSE)).1;
        assert_eq!(close[..2], 1008u16.to_be_bytes(), "{limit}");
        assert!(String::from_utf8_lossy(&close[2..]).contains(named), "{close:?}");
        // Fewer messages than the limit allows, one by one.
        for _ in 0..50 {
            neighbour.text("still here");
            neighbour.expect_text("still here");
        }
        neighbour.close();
    }
}

#[test]
fn a_message_that_has_begun_must_end_within_its_timeout() {
    for pings in ["", "ping = false\n"] {
        let pushd = start(&with("", &format!("{pings}message_timeout = \"1s\""), ""));
        let mut slow = Ws::open(pushd.address(), "/ws");
        let mut idle = Ws::open(pushd.address(), "/echo");
        // The first two bytes of a frame.
        let began = Instant::now();
        slow.wire.send(&[0x81, 0x85]);
        slow.expect_close(1008, "message_timeout");
        assert!(began.elapsed() >= Duration::from_secs(1), "after {:?}", began.elapsed());
        // There is no time limit between two messages.
        idle.text("hello");
        idle.expect_text("hello");
    }
}

#[test]
fn the_sum_of_all_request_bodies_is_bounded() {
    const PART: usize = 60 << 20;
    let hub = "message_max = \"64MiB\"\nqueue_max = \"64MiB\"";
    let pushd = start(&with("body_timeout = \"60s\"", hub, ""));
    let address = pushd.address();
    let head = format!("POST /publish/all HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", 64 << 20);
    let mut held: Vec<Wire> = (0..5)
        .map(|_| {
            let mut wire = Wire::connect(address);
            wire.try_send(head.as_bytes());
            wire.try_send(&vec![b'x'; PART]);
            wire
        })
        .collect();
    // Five times 60 MiB do not fit: the last request is refused.
    let answer = Answer::read(&mut held.pop().unwrap());
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")), "{answer:?}");
    assert_eq!(publish(address, "/publish/all", "a small one fits"), 0);
}
