//! A restart that keeps the sessions: after SIGUSR2, the service manager passes them to the next process.

mod common;
#[path = "handover/crowd.rs"]
mod crowd;

use std::collections::HashSet;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use common::http::{Answer, metric, publish, request};
use common::service::{Service, alone};
use common::wire::Wire;
use common::ws::{Hixie, TEXT, Ws, frame};
use common::{PLAIN, PUSHD, free_port, start, until_true};
use crowd::{Client, Crowd, Publisher, Speech, post_surely};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

/// The number of clients.
const CROWD: usize = 1000;
/// The number of handovers.
const RESTARTS: usize = 10;
/// The channels of the clients.
const CHANNELS: &[&str] = &["a", "b", "c"];

/// Sessions of every kind. Without pings: on a slow machine a client may wait longer than a ping timeout.
const KINDS: &str = r#"
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/one" = { websocket = "push", channels = ["{channel}"] }
"/two" = { websocket = "push", channels = ["{channel}", "{other}"], on_message = "broadcast" }
"/events" = { events = "push", channels = ["{channel}"] }
"/old" = { websocket = "push", channels = ["{channel}"], draft76 = true, greeting = "hello" }
"/echo" = { websocket = "echo", on_message = "echo", draft76 = true }
"/publish/{channel}" = { publish = "push", channel = "{channel}" }
"/metrics" = { metrics = true }
[hub.push]
deflate = true
deflate_min = "64"
ping = false
[hub.echo]
ping = false
message_max = "4MiB"
queue_max = "16MiB"
"#;

fn kinds(workers: usize) -> String {
    format!("{KINDS}\n[daemon]\nworkers = {workers}\n")
}

fn raise_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    assert!(hard as usize > CROWD + 200, "the limit of open files is too low: {hard}");
}

#[test]
fn a_thousand_clients_keep_their_sessions_over_ten_restarts() {
    raise_limit();
    let mut service = Service::started(&kinds(2));
    let address = service.address();
    let clients = (0..CROWD).map(|number| {
        let (one, two) = (CHANNELS[number % 3], CHANNELS[(number + 1) % 3]);
        match number % 10 {
            0 => Client::open(address, "/two", &[one, two], Speech::Plain),
            1..5 => Client::open(address, "/one", &[one], Speech::Deflate),
            5 => Client::open(address, "/two", &[one, two], Speech::Deflate),
            6 => Client::open(address, "/old", &[one], Speech::Old),
            7 | 8 => Client::open(address, "/events", &[one], Speech::Events),
            _ => Client::open(address, "/one", &[one], Speech::Plain),
        }
    });
    let crowd = Crowd::new(clients.collect(), "the end");
    // Frames that are half sent at a restart, one more of each kind at every restart.
    let long = "a message that is sent in two halves ".repeat(100);
    let (first, second) = long.as_bytes().split_at(long.len() / 2);
    let sent = frame(TEXT, long.as_bytes());
    let (sent_first, sent_second) = sent.split_at(sent.len() / 3);
    let mut halves: Vec<Ws> = (0..RESTARTS).map(|_| Ws::open(address, "/echo")).collect();
    let mut old_halves: Vec<Hixie> = (0..RESTARTS).map(|_| Hixie::open(address, "/echo")).collect();
    let mut pieces = Ws::open(address, "/echo");
    // This client reads nothing until the end, so frames wait for it, the first of them partly written.
    let mut slow = Ws::open_on(Wire::connect_narrow(address), "/echo");
    let big = vec![b'x'; 3 << 20];
    slow.send(TEXT, &big);
    until_true("waiting frames", || metric(address, "pushd_messages_received_total") > 0);
    let publisher = Publisher::new(address, CHANNELS);
    for round in 0..RESTARTS {
        service.configure(&kinds(1 + round % 3));
        publisher.goes_on(10);
        halves[round].wire.send(sent_first);
        old_halves[round].wire.send(&[b"\x00", first].concat());
        pieces.wire.send(&frame(if round == 0 { 0x01 } else { 0x00 }, b"piece "));
        service.restart();
        halves[round].wire.send(sent_second);
        old_halves[round].wire.send(&[second, b"\xff"].concat());
    }
    publisher.goes_on(10);
    let posted = publisher.end();
    for channel in CHANNELS {
        post_surely(address, channel, "the end");
    }
    halves.iter_mut().for_each(|client| client.expect_text(&long));
    old_halves.iter_mut().for_each(|client| client.expect_text(&long));
    pieces.send(0x80, b"end");
    pieces.expect_text(&("piece ".repeat(RESTARTS) + "end"));
    assert_eq!(slow.next(), (TEXT, big));
    slow.expect_nothing();
    assert_eq!(service.kept(), [""; 0]);
    assert_eq!(metric(address, "pushd_sessions"), (CROWD + 2 * RESTARTS + 2) as u64);

    println!("{} acknowledged, {} not", posted.acknowledged.len(), posted.unanswered);
    assert!(posted.acknowledged.len() > 10 * RESTARTS, "only {}", posted.acknowledged.len());
    let everything = crowd.end();
    assert_eq!(everything.len(), CROWD);
    for (channels, received) in everything {
        let texts: Vec<_> = received.iter().filter(|text| !matches!(text.as_str(), "hello" | "the end")).collect();
        for channel in &channels {
            let of_channel: Vec<_> = texts.iter().filter(|text| text.split(' ').next() == Some(channel)).collect();
            assert!(of_channel.is_sorted_by(|a, b| a < b), "in order, and none twice");
            let of_channel: HashSet<_> = of_channel.iter().map(|text| text.as_str()).collect();
            let published = posted.acknowledged.iter().filter(|text| text.split(' ').next() == Some(channel));
            let missing: Vec<_> = published.filter(|text| !of_channel.contains(text.as_str())).collect();
            assert!(missing.is_empty(), "acknowledged, but not received: {missing:?}");
        }
    }
}

/// `PUSHD_BEFORE=PROGRAM cargo test --test handover another_build -- --ignored`
#[test]
#[ignore = "needs another build of pushd, named by PUSHD_BEFORE"]
fn a_thousand_clients_of_another_build_notice_nothing() {
    raise_limit();
    let before = std::env::var_os("PUSHD_BEFORE").expect("PUSHD_BEFORE names the other build");
    let kinds: String =
        KINDS.lines().filter(|line| !line.contains("events = ")).map(|line| format!("{line}\n")).collect();
    let mut service = Service::new(&kinds, 512);
    service.program = before.clone().into();
    service.start();
    let address = service.address();
    let clients = (0..CROWD).map(|number| {
        let (one, two) = (CHANNELS[number % 3], CHANNELS[(number + 1) % 3]);
        match number % 4 {
            0 => Client::open(address, "/two", &[one, two], Speech::Plain),
            1 => Client::open(address, "/one", &[one], Speech::Deflate),
            2 => Client::open(address, "/old", &[one], Speech::Old),
            _ => Client::open(address, "/one", &[one], Speech::Plain),
        }
    });
    let crowd = Crowd::new(clients.collect(), "the end");
    let publisher = Publisher::new(address, CHANNELS);
    for program in [PUSHD.into(), before, PUSHD.into()] {
        publisher.goes_on(10);
        service.program = std::path::PathBuf::from(program);
        service.restart();
    }
    publisher.goes_on(10);
    let posted = publisher.end();
    for channel in CHANNELS {
        post_surely(address, channel, "the end");
    }
    assert_eq!(metric(address, "pushd_sessions"), CROWD as u64);
    for (channels, heard) in crowd.end() {
        for channel in &channels {
            let of_channel = |text: &&String| text.split(' ').next() == Some(*channel);
            let heard: Vec<_> = heard.iter().filter(of_channel).collect();
            assert!(heard.is_sorted_by(|a, b| a < b), "one after the other, and none twice");
            let missing = posted.acknowledged.iter().filter(of_channel).filter(|text| !heard.contains(text)).count();
            assert_eq!(missing, 0, "acknowledged, and not received");
        }
    }
}

#[test]
fn sessions_of_a_removed_route_are_closed_and_the_others_get_the_new_terms() {
    let mut service = Service::started(PLAIN);
    let address = service.address();
    let mut going = Ws::open(address, "/ws");
    let mut elsewhere = Ws::open(address, "/chat");
    let mut staying = Ws::open(address, "/echo");
    let changed = PLAIN
        .replace("\"/ws\" = {", "\"/else\" = {")
        .replace("\"/chat\" = { websocket = \"push\"", "\"/chat\" = { websocket = \"other\"");
    service.configure(&format!("{}message_max = \"10\"\n[hub.other]\n", changed));
    service.restart();
    going.expect_close(1001, "this route is no longer served");
    elsewhere.expect_close(1001, "this route is no longer served");
    staying.text("ten bytes!");
    staying.expect_text("ten bytes!");
    staying.text("eleven byte");
    staying.expect_close(1009, "at most 10 bytes");
    service.logged_times("2 of them came by a route that is no longer served", 1);
}

#[test]
fn messages_that_wait_for_a_slow_client_and_its_gaps_survive_a_restart() {
    let config = PLAIN.to_owned()
        + "queue_max = \"64KiB\"\nmessage_max = \"16KiB\"\nwhen_slow = \"drop_newest\"\ngap_notice = \"missed {dropped}\"\nping = false\n";
    let mut service = Service::started(&config);
    let address = service.address();
    let mut slow = Ws::open_on(Wire::connect_narrow(address), "/ws");
    let pad = "x".repeat(16 << 10);
    let pad = &pad[..(16 << 10) - 8];
    let mut sent = 0;
    while metric(address, "pushd_messages_dropped_total") < 3 {
        assert_eq!(publish(address, "/publish/all", &format!("{sent:07} {pad}")), 1);
        sent += 1;
    }
    let dropped = metric(address, "pushd_messages_dropped_total");
    for _ in 0..3 {
        service.restart();
    }
    // One more message is dropped by the last process: the queue is as full as before.
    assert_eq!(publish(address, "/publish/all", &format!("{sent:07} {pad}")), 1);
    until_true("the drop", || metric(address, "pushd_messages_dropped_total") == 1);
    for number in 0..sent - dropped {
        slow.expect_text(&format!("{number:07} {pad}"));
    }
    slow.expect_text(&format!("missed {}", dropped + 1));
    slow.expect_nothing();
}

#[test]
fn a_client_in_the_closing_handshake_may_finish_it() {
    let mut service = Service::started(PLAIN);
    let mut client = Ws::open(service.address(), "/ws");
    // It violates the protocol and is closed. It has not closed its own side yet.
    client.wire.send(&[0x81, 0x00]);
    assert_eq!(client.next_close().0, 1002);
    service.restart();
    client.wire.expect_end();
}

#[test]
fn without_a_descriptor_store_clients_are_asked_to_reconnect_one_by_one() {
    const CLIENTS: usize = 200;
    let words = "there is no service manager to keep them";
    let mut pushd = alone(|| start(&format!("{PLAIN}[daemon]\nworkers = 1\n")));
    let mut clients: Vec<Ws> = (0..CLIENTS).map(|_| Ws::open(pushd.address(), "/ws")).collect();
    let began = Instant::now();
    pushd.signal(Signal::SIGUSR2);
    clients.iter_mut().for_each(|client| client.expect_close(1012, "come back"));
    assert_eq!(pushd.wait(), 0);
    // A thousand a second. The first ones and the last ones are not in the same moment.
    assert!(began.elapsed() >= Duration::from_millis(150), "all at once: {:?}", began.elapsed());
    assert!(pushd.log().contains(words), "{}", pushd.log());

    // A service manager that does not keep descriptors.
    let mut service = Service::new(PLAIN, 0);
    service.start();
    let mut client = Ws::open(service.address(), "/ws");
    service.signal(Signal::SIGUSR2);
    client.expect_close(1012, "come back");
    assert_eq!(service.wait(), 0);
    assert!(service.log().contains("the service manager does not keep descriptors"), "{}", service.log());
}

#[test]
fn a_stop_hands_nothing_over() {
    let mut service = Service::started(PLAIN);
    let mut client = Ws::open(service.address(), "/ws");
    service.signal(Signal::SIGTERM);
    client.expect_close(1001, "the server is going away");
    assert_eq!(service.wait(), 0);
    assert_eq!(service.kept(), [""; 0]);
}

#[test]
fn with_an_invalid_configuration_nothing_is_handed_over() {
    let mut service = Service::started(PLAIN);
    let mut client = Ws::open(service.address(), "/ws");
    service.configure("[server.main]\nlisten = 7\n");
    service.signal(Signal::SIGUSR2);
    client.expect_close(1012, "come back");
    assert_eq!(service.wait(), 0);
    assert!(service.log().contains("the next process could not start with its configuration: "), "{}", service.log());
    assert_eq!(service.kept(), [""; 0]);
}

#[test]
fn a_newly_installed_program_decides_whether_the_configuration_is_valid() {
    // The result of its check, and whether sessions are handed over. If it cannot decide, the running program does.
    let good = "exit 0";
    let refuses = "echo 'no such key: old' >&2; echo 'and more' >&2; exit 78";
    let future = format!("{PLAIN}[server.main.future]\nkey = 1\n");
    let cases = [
        (good, future.as_str(), None),
        (refuses, PLAIN, Some("could not start with its configuration: no such key: old; and more")),
        ("exit 77", PLAIN, None),
        ("exit 77", future.as_str(), Some("could not start with its configuration: ")),
    ];
    for (check, config, refused) in cases {
        let mut service = Service::new(PLAIN, 512);
        service.program = service.path().join("installed");
        alone(|| std::fs::copy(PUSHD, &service.program)).unwrap();
        service.start();
        let mut client = Ws::open(service.address(), "/ws");
        // As packages do it: the new file is written beside the old one, and renamed.
        let next = service.path().join("next");
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = --check ] || exec {PUSHD} \"$@\"\n[ -z \"$NOTIFY_SOCKET\" ] || exit 0\n{check}\n"
        );
        alone(|| std::fs::write(&next, script)).unwrap();
        std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&next, &service.program).unwrap();
        service.configure(config);
        match refused {
            None => {
                service.hand_over();
                service.configure(PLAIN);
                service.start();
                assert_eq!(publish(service.address(), "/publish/all", "on"), 1);
                client.expect_text("on");
            }
            Some(words) => {
                service.signal(Signal::SIGUSR2);
                client.expect_close(1012, "come back");
                assert_eq!(service.wait(), 0);
                assert!(service.log().contains(words), "{}", service.log());
            }
        }
    }
}

#[test]
fn a_failed_start_leaves_everything_to_the_next_start() {
    let mut service = Service::started(PLAIN);
    let address = service.address();
    let mut client = Ws::open(address, "/ws");
    service.hand_over();
    let kept = service.kept();
    assert!(kept.len() > 3, "{kept:?}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let also = format!("listen = [\"127.0.0.1:0\", \"{}\"]", taken.local_addr().unwrap());
    service.configure(&PLAIN.replace("listen = \"127.0.0.1:0\"", &also));
    assert_eq!(service.fail_to_start(), 69);
    assert_eq!(service.kept(), kept);
    service.configure(PLAIN);
    service.start();
    assert_eq!(publish(address, "/publish/all", "at last"), 1);
    client.expect_text("at last");
}

#[test]
fn a_start_without_enough_descriptors_leaves_everything_to_the_next_start() {
    let feed = "[feed.f]\nhub = \"push\"\nchannel = \"f\"\nevery = \"1h\"\nmessage = \"f\"\n";
    let config = format!("{PLAIN}{feed}[daemon]\nworkers = 3\n");
    let handed_over = || {
        let mut service = Service::started(&config);
        let client = Ws::open(service.address(), "/ws");
        service.hand_over();
        (service, client)
    };
    // Each limit makes another step fail. Limits that suffice for the start, but not for the sessions, are covered by
    // other tests.
    let (mut service, _client) = handed_over();
    let starts = |service: &mut Service, limit: u32| {
        service.before = format!("ulimit -n {limit};");
        service.try_start().is_ok()
    };
    let enough = (12..).find(|limit| starts(&mut service, *limit)).unwrap();
    // If there are none for the signal handlers of the runtime, it panics.
    service.clear_log();
    let (mut service, mut client) = handed_over();
    let kept = service.kept();
    for limit in 12..enough - 2 {
        assert!(!starts(&mut service, limit), "with {limit} of {enough}");
        assert_eq!(service.kept(), kept, "with {limit}");
    }
    assert!(service.log().contains("could not start: Too many open files"), "no shard has reported the failure");
    service.clear_log();
    service.before.clear();
    service.start();
    assert_eq!(publish(service.address(), "/publish/all", "at last"), 1);
    client.expect_text("at last");
}

#[test]
fn sessions_that_made_starts_die_are_ended() {
    const MARKER: &str = "pushd-handover-tried";
    let marker = || (MARKER.to_owned(), std::io::pipe().unwrap().0.into());
    let mut service = Service::started(PLAIN);
    let address = service.address();
    let mut client = Ws::open(address, "/ws");
    // A start that dies leaves one marker. Two markers do not yet suffice.
    service.sockets = vec![marker(), marker()];
    service.restart();
    assert_eq!(publish(address, "/publish/all", "still there"), 1);
    client.expect_text("still there");
    assert_eq!(service.kept(), [""; 0], "a successful start removes its own marker");
    service.sockets.push(marker());
    service.restart();
    client.wire.expect_end();
    let words = "3 starts died while they took up the sessions of the previous process: these sessions are ended";
    service.logged_times(words, 1);
    assert_eq!(publish(address, "/publish/all", "no session"), 0);
}

#[test]
fn damaged_descriptors_are_closed_and_the_server_serves() {
    for damaged in ["pushd-handover-state", "pushd-handover-records-0"] {
        let mut service = Service::started(&format!("{PLAIN}[daemon]\nworkers = 1\n"));
        let address = service.address();
        let mut client = Ws::open(address, "/ws");
        client.send(TEXT, b"unread");
        service.hand_over();
        let mut file = service.kept_as(damaged).pop().unwrap();
        file.seek(SeekFrom::Start(12)).and_then(|_| file.write_all(&[9])).unwrap();
        if damaged.ends_with("state") {
            // Without its description, a listener is recognised by its address only.
            service.configure(&PLAIN.replace("127.0.0.1:0", &address.to_string()));
        }
        service.start();
        assert_eq!(service.address(), address);
        service.logged_times("it is written in a format of another version", 1);
        if damaged.ends_with("state") {
            assert_eq!(publish(address, "/publish/all", "a"), 1);
            client.expect_text("a");
        } else {
            client.wire.expect_end();
            service.logged_times("1 connections of the previous process could not be taken up", 1);
        }
        assert_eq!(service.kept(), [""; 0]);
    }
}

#[test]
fn addresses_can_change_at_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let unix = format!("unix:{}", directory.path().join("hub.sock").display());
    let port = free_port();
    let both = format!("[\"127.0.0.1:{port}\", \"{unix}\"]");
    let mut service = Service::started(&PLAIN.replace("\"127.0.0.1:0\"", &both));
    let client = Ws::open(([127, 0, 0, 1], port).into(), "/ws");
    // All addresses instead of one: the kernel would refuse that while any process holds the old one.
    service.configure(&PLAIN.replace("127.0.0.1:0", &format!("0.0.0.0:{port}")));
    service.restart();
    Ws::open(([127, 0, 0, 1], port).into(), "/ws").close();
    client.close();
    assert!(!directory.path().join("hub.sock").exists());
}

#[test]
fn the_owner_of_a_socket_file_is_known_after_a_restart() {
    let config = |address: &str| PLAIN.replace("\"127.0.0.1:0\"", &format!("[\"127.0.0.1:0\", {address}]"));
    let mut service = Service::started(&config("\"unix:one.sock\", \"unix:two.sock\""));
    let [one, two] = ["one.sock", "two.sock"].map(|name| service.path().join(name));
    service.restart();
    std::fs::remove_file(&one).unwrap();
    let _other = UnixListener::bind(&one).unwrap();
    service.restart();
    let outcome = service.reload(PLAIN);
    assert!(outcome.contains("Reloaded"), "{outcome}");
    assert!(one.exists(), "another program's socket was removed");
    assert!(!two.exists(), "pushd's own socket remains");
    // The same if an address is removed between two processes.
    service.reload(&config("\"unix:two.sock\""));
    service.hand_over();
    service.configure(PLAIN);
    assert!(two.exists());
    service.start();
    assert!(!two.exists());
}

#[test]
fn requests_in_flight_are_finished_and_new_connections_wait() {
    let mut service = Service::started(&format!("{PLAIN}[daemon]\ngrace = \"90s\"\n"));
    let address = service.address();
    let mut publisher = Wire::connect(address);
    let whole = request(address, "POST", "/publish/all", &["Expect: 100-continue"], b"in flight");
    let (first, rest) = whole.split_at(whole.len() - 4);
    publisher.send(first);
    assert_eq!(Answer::read_head(&mut publisher).status, 100, "the request is in flight");
    let mut client = Ws::open(address, "/ws");
    // Accepted, but nothing was sent on it yet.
    let mut silent = Wire::connect(address);
    until_true("all accepted", || metric(address, "pushd_connections_accepted_total") >= 4);
    let mut idle = Wire::connect(address);
    idle.send(&request(address, "GET", "/healthz", &[], b""));
    assert_eq!(Answer::read(&mut idle).status, 200);
    let mut other = Wire::connect(address);
    other.send(b"POST /publish/all HTTP/1.1\r\nHost: localhost\r\nContent-Le");
    until_true("all accepted", || metric(address, "pushd_connections_accepted_total") >= 8);
    service.signal(Signal::SIGUSR2);
    publisher.send(rest);
    let answer = Answer::read(&mut publisher);
    assert_eq!((answer.status, answer.field("connection")), (200, None));
    assert_eq!(answer.json()["subscribers"], 1);
    assert_eq!(service.wait(), 0);
    // The address is listened on although no process runs.
    let mut early = Wire::connect(address);
    early.send(&request(address, "POST", "/publish/all", &[], b"meanwhile"));
    service.start();
    assert_eq!(Answer::read(&mut early).status, 200);
    client.expect_text("in flight");
    client.expect_text("meanwhile");
    silent.send(&request(address, "POST", "/publish/all", &[], b"at last"));
    assert_eq!(Answer::read(&mut silent).status, 200);
    client.expect_text("at last");
    // Connections without a request in flight are handed over, with the bytes already read of the next one.
    other.send(b"ngth: 4\r\n\r\nhalf");
    assert_eq!(Answer::read(&mut other).status, 200);
    client.expect_text("half");
    for wire in [&mut idle, &mut publisher, &mut other] {
        wire.send(&request(address, "POST", "/publish/all", &[], b"again"));
        assert_eq!(Answer::read(wire).status, 200);
        client.expect_text("again");
    }
    let words = "Handed over 1 sessions, 4 other connections and 1 addresses";
    assert!(service.log().contains(words), "{}", service.log());
}

#[test]
fn a_publisher_on_one_connection_loses_nothing_in_ten_restarts() {
    let mut service = Service::started(&format!("{PLAIN}[daemon]\ngrace = \"90s\"\nworkers = 2\n"));
    let address = service.address();
    let mut client = Ws::open(address, "/ws");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let ends = stop.clone();
    let publishing = std::thread::spawn(move || {
        let mut wire = Wire::connect(address);
        let mut count = 0;
        while !ends.load(std::sync::atomic::Ordering::Relaxed) {
            let text = count.to_string();
            wire.send(&request(address, "POST", "/publish/all", &[], text.as_bytes()));
            let answer = Answer::read(&mut wire);
            // During a handover, new publications are refused for a moment; that is an answer, too.
            match answer.status {
                200 => count += 1,
                status => assert_eq!((status, answer.field("retry-after")), (503, Some("1"))),
            }
            if answer.field("connection") == Some("close") {
                wire = Wire::connect(address);
            }
        }
        count
    });
    // A client that is slow to send its head delays nothing.
    let mut slow = Wire::connect(address);
    slow.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n");
    until_true("all accepted", || metric(address, "pushd_connections_accepted_total") >= 3);
    for _ in 0..RESTARTS {
        let began = Instant::now();
        service.restart();
        assert!(began.elapsed() < Duration::from_secs(20), "a third of the grace is 30 s");
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let count: usize = publishing.join().unwrap();
    assert!(count > RESTARTS, "{count}");
    (0..count).for_each(|number| client.expect_text(&number.to_string()));
    client.expect_nothing();
    slow.send(b"\r\n");
    assert_eq!(Answer::read(&mut slow).status, 200);
}

#[test]
fn a_request_that_takes_too_long_is_not_handed_over() {
    let mut service = Service::started(&format!("{PLAIN}[daemon]\ngrace = \"2s\"\n"));
    let address = service.address();
    let mut halfway = Wire::connect(address);
    halfway.send(&request(address, "POST", "/publish/all", &["Expect: 100-continue"], b"never whole")[..99]);
    assert_eq!(Answer::read_head(&mut halfway).status, 100, "the request is in flight");
    let mut client = Ws::open(address, "/ws");
    service.restart();
    halfway.expect_end();
    assert!(service.log().contains("not handed over: 0 sessions, 1 requests"), "{}", service.log());
    assert_eq!(publish(address, "/publish/all", "on"), 1);
    client.expect_text("on");
}

#[test]
fn feeds_continue_where_they_stopped() {
    let config = PLAIN.to_owned()
        + "[feed.log]\nhub = \"push\"\nchannel = \"log\"\ntail = \"log\"\nmessage = \"{n} {line}\"\n\
           [feed.late]\nhub = \"push\"\nchannel = \"late\"\ntail = \"late\"\nmessage = \"{n} {line}\"\n";
    let mut service = Service::new(&config, 512);
    let append = |service: &Service, name: &str, text: &str| {
        let mut file = File::options().append(true).create(true).open(service.path().join(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    append(&service, "log", "old\n");
    service.start();
    let mut client = Ws::open(service.address(), "/ws?channel=log");
    let mut late = Ws::open(service.address(), "/ws?channel=late");
    append(&service, "log", "one\ntwo\nthr");
    client.expect_text("0 one");
    client.expect_text("1 two");
    service.hand_over();
    append(&service, "log", "ee\nfour\n");
    // The name leads to another file now, but the writer still uses the old one.
    std::fs::rename(service.path().join("log"), service.path().join("log.1")).unwrap();
    append(&service, "log.1", "five\n");
    append(&service, "log", "six\n");
    append(&service, "late", "first\n");
    service.start();
    for line in ["2 three", "3 four", "4 five", "5 six"] {
        client.expect_text(line);
    }
    late.expect_text("0 first");
    for round in 0..3 {
        append(&service, "log", "more\n");
        service.restart();
        client.expect_text(&format!("{} more", 6 + round));
    }
    client.expect_nothing();
    late.expect_nothing();
}
