//! Hubs on disk: what was acknowledged outlives `kill -9`.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use common::events::Events;
use common::http::{ask, metric, publish_kept as publish, request};
use common::polls::{Poll, texts};
use common::service::Service;
use common::wire::Wire;
use common::{Start, until};
use pushd::store::Inspection;

const CONFIG: &str = r#"
[daemon]
workers = 2
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/events" = { events = "news", channels = ["{channel=all}"] }
"/poll" = { poll = "news", channels = ["all"] }
"/publish/{channel}" = { publish = "news", channel = "{channel}" }
"/metrics" = { metrics = true }
"/other" = { publish = "other", channel = "x" }
[hub.other]
[hub.news]
history = { messages = 5000 }
durable = true
"#;

/// Runs pushd with a disk of its own for the store, of 4 MiB.
const SMALL_DISK: &str = "mkdir store && exec unshare -m sh -c \
    'mount -t tmpfs -o size=4m,mode=700 none store && exec \"$0\" \"$@\"' \"$0\" \"$@\"";

#[test]
fn an_acknowledged_message_outlives_a_kill() {
    let mut service = Service::started(CONFIG);
    let address = service.address();
    let key = ["Idempotency-Key: once"];
    let first = ask(address, "POST", "/publish/all", &key, b"0");
    let mut ids = vec![first.json()["id"].as_str().unwrap().to_owned()];
    for round in 0..3 {
        for n in 1..20 {
            ids.push(publish(service.address(), "all", &format!("{}", round * 19 + n)));
        }
        service.kill();
        // The next process has another address.
        service.clear_log();
        service.start();
        let again = ask(service.address(), "POST", "/publish/all", &key, b"0");
        assert_eq!(again.text(), first.text());
    }
    let mut all = Events::resume(service.address(), "/events", "earliest");
    for (n, id) in ids.iter().enumerate() {
        all.expect(&n.to_string());
        assert_eq!(all.id.as_ref(), Some(id));
    }
    let mut some = Events::resume(service.address(), "/events", &ids[30]);
    (31..ids.len()).for_each(|n| some.expect(&n.to_string()));
    service.restart();
    let last = publish(service.address(), "all", "last");
    for stream in [&mut all, &mut some] {
        stream.expect("last");
        assert_eq!(stream.id.as_ref(), Some(&last));
    }
    assert!(!ids.contains(&last));
}

#[test]
fn what_a_subscriber_has_received_is_not_published_again_after_a_kill() {
    for sync in ["always", "100ms"] {
        let mut service =
            Service::started(&CONFIG.replace("[hub.other]", &format!("[store]\nsync = \"{sync}\"\n[hub.other]")));
        for round in 0..15 {
            let address = service.address();
            let mut live = Events::open(address, "/events");
            live.expect_id();
            let key = format!("Idempotency-Key: {round}");
            let (text, send) = (format!("order {round}"), ["Accept: */*", &key]);
            let mut publisher = Wire::connect(address);
            publisher.send(&request(address, "POST", "/publish/all", &send, text.as_bytes()));
            // Killed as soon as one has it: the publisher may have no answer yet, and asks again.
            live.expect(&text);
            let received = live.id.clone().unwrap();
            service.kill();
            service.clear_log();
            service.start();
            let again = ask(service.address(), "POST", "/publish/all", &send, text.as_bytes());
            assert_eq!(again.json()["id"], received.as_str(), "round {round}, sync {sync}");
            let mut returning = Events::resume(service.address(), "/events", &received);
            // It has missed nothing.
            returning.expect_id();
            publish(service.address(), "all", "next");
            returning.expect("next");
        }
    }
}

/// Without its hub, and what needs it.
fn without_hub(config: &str) -> String {
    let is_other =
        |line: &&str| !["\"news\"", "[hub.news]", "history", "durable"].iter().any(|word| line.contains(word));
    config.lines().filter(is_other).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_hub_that_a_reload_removes_and_another_one_brings_back_continues() {
    let service = Service::started(CONFIG);
    let address = service.address();
    let key = ["Idempotency-Key: once"];
    let first = ask(address, "POST", "/publish/all", &key, b"0");
    let mut ids = vec![first.json()["id"].as_str().unwrap().to_owned()];
    for round in 1..4 {
        // It has sessions, so the server still knows it while it is not configured.
        let mut live = Events::open(address, "/events");
        live.expect_id();
        service.reload(&without_hub(CONFIG));
        assert_eq!(ask(address, "POST", "/publish/all", &[], b"x").status, 404);
        service.reload(CONFIG);
        let again = ask(address, "POST", "/publish/all", &key, b"0");
        assert_eq!(again.text(), first.text(), "round {round}");
        ids.push(publish(address, "all", &round.to_string()));
    }
    let mut all = Events::resume(address, "/events", "earliest");
    for (n, id) in ids.iter().enumerate() {
        all.expect(&n.to_string());
        assert_eq!(all.id.as_ref(), Some(id));
    }
    let mut some = Events::resume(address, "/events", &ids[1]);
    (2..ids.len()).for_each(|n| some.expect(&n.to_string()));
}

#[test]
fn a_reload_that_cannot_begin_a_hub_changes_nothing() {
    let service = Service::started(CONFIG);
    let address = service.address();
    (0..10).for_each(|n| _ = publish(address, "all", &n.to_string()));
    // The disk does not accept a write.
    let busy = rusqlite::Connection::open(service.path().join("store/history.db")).unwrap();
    busy.execute_batch("BEGIN IMMEDIATE").unwrap();
    let less = CONFIG.replace("messages = 5000", "messages = 2");
    let line = service.reload(&format!("{less}[hub.more]\nhistory = {{ messages = 2 }}\ndurable = true\n"));
    assert!(line.contains("Reload refused, nothing changed: the store cannot begin the hub more"), "{line}");
    drop(busy);
    until("messages are accepted", || (ask(address, "POST", "/publish/all", &[], b"10").status == 200).then_some(()));
    // What a client gets may also come from memory.
    let stored = Inspection::open(&service.path().join("store")).unwrap().hubs().unwrap();
    assert_eq!((stored.len(), stored[0].messages, stored[0].limits.messages), (1, 11, Some(5000)));
}

#[test]
fn polls_that_wait_are_answered_by_the_next_process() {
    let mut service = Service::started(CONFIG);
    let address = service.address();
    let since = publish(address, "all", "before");
    let polls: Vec<Poll> = (0..8).map(|_| Poll::waiting(address, "/poll", &since)).collect();
    service.restart();
    publish(address, "all", "after");
    for poll in polls {
        assert_eq!(texts(&poll.answer()), ["after"]);
    }
}

#[test]
fn clients_that_catch_up_go_on_in_the_next_process() {
    let config = format!("{CONFIG}message_max = \"1MiB\"\nqueue_max = \"16MiB\"\n");
    let mut service = Service::started(&config);
    let address = service.address();
    let pad = "x".repeat(100_000);
    (0..60).for_each(|n| _ = publish(address, "all", &format!("{n} {pad}")));
    // It reads nothing meanwhile.
    let mut wire = Wire::connect_narrow(address);
    wire.send(&request(address, "GET", "/events?since=earliest", &["Accept: text/event-stream"], b""));
    for round in 0..3 {
        // A shard less or more owns other hubs.
        service.configure(&config.replace("workers = 2", &format!("workers = {}", 1 + round)));
        service.restart();
        publish(address, "all", &format!("after {round}"));
    }
    let mut behind = Events::read(wire);
    (0..60).for_each(|n| behind.expect(&format!("{n} {pad}")));
    (0..3).for_each(|round| behind.expect(&format!("after {round}")));
}

#[test]
fn a_full_disk_refuses_durable_messages_only_and_recovers() {
    if !nix::unistd::Uid::effective().is_root() {
        return eprintln!("skipped: only root can mount a small disk");
    }
    let pushd = Start::new(CONFIG).after(SMALL_DISK).run();
    let address = pushd.address();
    let mut stream = Events::open(address, "/events");
    stream.expect_id();
    publish(address, "all", "before");
    stream.expect("before");
    // From outside, the disk is seen through the process.
    let filler = format!("/proc/{}/root{}/store/filler", pushd.pid(), pushd.path().display());
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let text = "x".repeat(50_000);
    let refused = until("a refusal", || {
        let answer = ask(address, "POST", "/publish/all", &[], text.as_bytes());
        (answer.status != 200).then_some(answer)
    });
    assert_eq!((refused.status, refused.field("retry-after")), (503, Some("5")), "{refused:?}");
    assert!(refused.text().contains("disk"), "{}", refused.text());
    for _ in 0..3 {
        assert_eq!(ask(address, "POST", "/publish/all", &[], b"x").status, 503);
        assert_eq!(ask(address, "POST", "/other", &[], b"x").status, 200);
    }
    assert!(metric(address, "pushd_publications_unkept_total") >= 3);
    fs::remove_file(filler).unwrap();
    drop(file);
    let id = until("recovery", || {
        let answer = ask(address, "POST", "/publish/all", &[], b"after");
        (answer.status == 200).then(|| answer.json()["id"].as_str().unwrap().to_owned())
    });
    let mut again = Events::ask(address, "/events?since=earliest", &["Accept: text/event-stream"]);
    again.expect("before");
    while again.id.as_ref() != Some(&id) {
        drop(again.next());
    }
}

#[test]
fn a_store_that_cannot_be_written_refuses_the_start() {
    let start = Start::new(CONFIG);
    fs::write(start.path().join("store"), "a file").unwrap();
    let why = start.try_run().err().unwrap();
    assert!(why.starts_with("exit status: 73") && why.contains("store"), "{why}");
    if nix::unistd::Uid::effective().is_root() {
        return eprintln!("the rest is skipped: root may write everywhere");
    }
    let start = Start::new(CONFIG);
    fs::create_dir(start.path().join("store")).unwrap();
    fs::set_permissions(start.path().join("store"), fs::Permissions::from_mode(0o500)).unwrap();
    let why = start.try_run().err().unwrap();
    assert!(why.starts_with("exit status: 77"), "{why}");
}

#[test]
fn a_damaged_store_starts_and_gives_no_position_twice() {
    let mut service = Service::started(CONFIG);
    let mut ids: Vec<String> = (0..300).map(|n| publish(service.address(), "all", &n.to_string())).collect();
    for round in 0..3 {
        service.kill();
        for file in fs::read_dir(service.path().join("store")).unwrap() {
            let path = file.unwrap().path();
            let Ok(bytes) = fs::read(&path) else { continue };
            if round == 0 {
                fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            } else {
                let damaged: Vec<u8> =
                    bytes.iter().enumerate().map(|(at, byte)| if at % 5000 == 4000 { !byte } else { *byte }).collect();
                fs::write(&path, damaged).unwrap();
            }
        }
        service.clear_log();
        service.start();
        for n in 0..20 {
            let id = publish(service.address(), "all", &format!("{round} {n}"));
            assert!(!ids.contains(&id), "{id} was given before");
            ids.push(id);
        }
    }
}
