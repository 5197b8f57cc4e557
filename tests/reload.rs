//! SIGHUP: a valid file is applied as a whole, and no connection is lost; an invalid one only causes a line in the log.

mod common;

use std::collections::HashSet;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use common::events::{Block, Events};
use common::http::{Answer, ask, get, publish, request};
use common::wire::Wire;
use common::ws::{Hixie, PING, Ws};
use common::{PLAIN, Start, free_port, start, until, until_true};
use nix::sys::signal::Signal;
use pushd::config::keys::{self, Change};
use rustix::process::{Resource, Rlimit, prlimit};

/// The first configuration. The tests change parts of it.
const FIRST: &str = r#"
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/ws" = { websocket = "push" }
"/chat" = { websocket = "push", on_message = "broadcast", draft76 = true }
"/publish" = { publish = "push", channel = "all" }
"/pages" = { static = "www" }
"/metrics" = { metrics = true }
[hub.push]
"#;

/// `FIRST` with parts replaced. Each of them must exist.
fn changed(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(FIRST.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "{old}");
        text.replace(old, new)
    })
}

fn page(folder: &Path, text: &str) {
    std::fs::create_dir(folder).unwrap();
    std::fs::write(folder.join("index.html"), text).unwrap();
}

/// Starts with `FIRST`, and two directories of pages.
fn first() -> common::Pushd {
    let start = Start::new(FIRST);
    page(&start.path().join("www"), "old pages");
    page(&start.path().join("new"), "new pages");
    start.run()
}

#[test]
fn a_valid_file_changes_everything_and_connections_stay() {
    let pushd = first();
    let address = pushd.address();
    let mut client = Ws::open(address, "/ws");
    let mut old = Hixie::open(address, "/chat");
    let mut asking = Wire::connect(address);
    asking.send(&request(address, "GET", "/pages/", &[], b""));
    assert_eq!(Answer::read(&mut asking).text(), "old pages");
    assert_eq!(get(address, "/healthz").status, 404);

    let line = pushd.reload(&changed(&[
        ("\"www\"", "\"new\""),
        ("\"/publish\"", "\"/say\""),
        ("\"/ws\" = {", "\"/healthz\" = { health = true }\n\"/ws\" = { on_message = \"echo\","),
        ("[hub.push]", "[hub.push]\nmessage_max = \"10\"\n[hub.other]\n[feed.f]\nhub = \"other\"\nchannel = \"x\"\nevery = \"1h\"\nmessage = \"m\""),
    ]));
    assert!(line.contains("[pushd#info] Reloaded "), "{line}");
    until_true("the new route", || get(address, "/healthz").status == 200);
    // On an existing connection, too.
    until_true("the new pages", || {
        asking.send(&request(address, "GET", "/pages/", &[], b""));
        Answer::read(&mut asking).text() == "new pages"
    });
    assert_eq!(ask(address, "POST", "/publish", &[], b"x").status, 404);
    until_true("the new limit", || ask(address, "POST", "/say", &[], b"eleven byte").status == 413);
    assert_eq!(publish(address, "/say", "ten bytes!"), 2);
    for received in [client.next_text(), old.next_text()] {
        assert_eq!(received, "ten bytes!");
    }
    // Sessions get the new terms as well: messages are echoed now, and long ones refused.
    client.text("echo");
    client.expect_text("echo");
    client.text("eleven byte");
    client.expect_close(1009, "at most 10 bytes");
    old.text("chat");
    old.expect_text("chat");
}

#[test]
fn messages_have_their_new_form_at_once_as_the_table_of_keys_says() {
    let pushd = first();
    let address = pushd.address();
    let form = |envelope: &str, event: &str| {
        let events =
            format!("\"/events\" = {{ events = \"push\", event = \"{event}\" }}\n\"/ws\" = {{ envelope = {envelope},");
        changed(&[("\"/ws\" = {", &events)])
    };
    pushd.reload(&form("false", "one"));
    let (mut client, mut stream) = (Ws::open(address, "/ws"), Events::open(address, "/events"));
    pushd.reload(&form("true", "other"));
    until_true("an envelope", || {
        publish(address, "/publish", "x");
        client.next_text() == r#"{"channel":"all","data":"x"}"#
    });
    until_true("the new type of events", || {
        publish(address, "/publish", "x");
        stream.next() == Block::Event(Some("other".to_owned()), "x".to_owned())
    });
    for (section, name) in [(&keys::WEBSOCKET, "envelope"), (&keys::EVENTS, "event")] {
        assert_eq!(section.key(name).unwrap().change, Change::AtOnce, "{name}");
    }
}

#[test]
fn a_session_whose_route_is_gone_is_closed_with_a_reason() {
    let pushd = first();
    let address = pushd.address();
    let mut going = Ws::open(address, "/ws");
    let mut staying = Ws::open(address, "/chat");
    pushd.reload(&changed(&[("\"/ws\"", "\"/elsewhere\"")]));
    going.expect_close(1001, "this route is no longer served");
    assert_eq!(publish(address, "/publish", "still here"), 1);
    staying.expect_text("still here");
    let mut old = Hixie::open(address, "/chat");
    // The same path with another hub is another route.
    pushd.reload(&changed(&[
        ("\"/chat\" = { websocket = \"push\"", "\"/chat\" = { websocket = \"other\""),
        ("[hub.push]", "[hub.push]\n[hub.other]"),
    ]));
    staying.expect_close(1001, "this route is no longer served");
    old.expect_close();
    let mut client = Ws::open(address, "/ws");
    assert_eq!(publish(address, "/publish", "and on"), 1);
    client.expect_text("and on");
}

#[test]
fn addresses_can_be_added_and_removed_and_the_others_are_never_closed() {
    let pushd = first();
    let address = pushd.address();
    let mut client = Ws::open(address, "/ws");
    let second =
        "[server.second]\nlisten = \"127.0.0.2:0\"\n[server.second.routes]\n\"/ws\" = { websocket = \"push\" }\n";
    pushd.reload(&changed(&[("[hub.push]", &format!("{second}[hub.push]"))]));
    let added = pushd.address_of("second");
    assert_eq!(pushd.address(), address);
    let mut other = Ws::open(added, "/ws");
    assert_eq!(publish(address, "/publish", "to both"), 2);
    client.expect_text("to both");
    other.expect_text("to both");
    pushd.reload(FIRST);
    other.expect_close(1001, "this route is no longer served");
    until_true("the end of the address", || TcpStream::connect(added).is_err());
    assert_eq!(publish(address, "/publish", "to one"), 1);
    client.expect_text("to one");
    assert_eq!(get(address, "/metrics").status, 200);
}

#[test]
fn each_port_0_is_another_port_and_stays_with_its_server() {
    let server = |name: &str| {
        format!(
            "[server.{name}]\nlisten = \"127.0.0.1:0\"\n[server.{name}.routes]\n\"/{name}\" = {{ health = true }}\n"
        )
    };
    let serves_only = |address, name: &str, others: &[&str]| {
        until_true("its routes", || get(address, &format!("/{name}")).status == 200);
        for other in others {
            assert_eq!(get(address, &format!("/{other}")).status, 404, "{other} at {name}");
        }
    };
    let pushd = start(&(server("a") + &server("b")));
    let (a, b) = (pushd.address_of("a"), pushd.address_of("b"));
    assert_ne!(a, b);
    serves_only(a, "a", &["b"]);
    serves_only(b, "b", &["a"]);
    pushd.reload(&(server("c") + &server("b") + &server("a")));
    let c = pushd.address_of("c");
    assert_eq!((pushd.address_of("a"), pushd.address_of("b")), (a, b));
    for (address, name, others) in [(a, "a", ["b", "c"]), (b, "b", ["a", "c"]), (c, "c", ["a", "b"])] {
        serves_only(address, name, &others);
    }
    pushd.reload(&server("b"));
    for ended in [a, c] {
        until_true("the end of the address", || TcpStream::connect(ended).is_err());
    }
    serves_only(b, "b", &["a"]);
}

#[test]
fn an_address_can_move_to_another_server() {
    let pushd = first();
    let address = pushd.address();
    let mut client = Ws::open(address, "/ws");
    pushd.reload(&FIRST.replace("server.main", "server.renamed").replace("\"/metrics\"", "\"/figures\""));
    assert_eq!(pushd.address_of("renamed"), address);
    client.expect_close(1001, "this route is no longer served");
    until_true("the new routes", || get(address, "/figures").status == 200);
    let mut client = Ws::open(address, "/ws");
    assert_eq!(publish(address, "/publish", "served"), 1);
    client.expect_text("served");
}

#[test]
fn limits_of_a_hub_and_pings_change_for_open_sessions() {
    let pushd = first();
    let address = pushd.address();
    let mut client = Ws::open(address, "/ws");
    pushd.reload(&changed(&[("[hub.push]", "[hub.push]\nsubscribers_max = 1")]));
    until_true("the new limit", || Ws::ask(address, "/ws", &[]).0.status == 503);
    pushd.reload(&changed(&[("[hub.push]", "[hub.push]\nping = \"1s\"")]));
    let mut second = Ws::open(address, "/ws");
    assert_eq!(second.next().0, PING);
    // Sessions from before get the new interval as well.
    assert_eq!(client.next().0, PING);
}

#[test]
fn the_level_and_the_target_of_the_log_change() {
    let pushd = first();
    let address = pushd.address();
    get(address, "/pages/quiet");
    pushd.reload(&format!("{FIRST}\n[log]\nlevel = \"debug\"\n"));
    get(address, "/pages/loud");
    pushd.logged("GET /pages/loud 404");
    assert!(!pushd.log().contains("/pages/quiet"));
    let moved_log = "[log]\nlevel = \"debug\"\nfile = \"moved.log\"\nformat = \"json\"\n[daemon]\nworkers = 7\n";
    std::fs::write(pushd.path().join("pushd.toml"), format!("{FIRST}{moved_log}")).unwrap();
    pushd.signal(Signal::SIGHUP);
    let moved = pushd.path().join("moved.log");
    let logged = |words: &str| std::fs::read_to_string(&moved).is_ok_and(|log| log.contains(words));
    until_true("the new log", || logged("Log opened"));
    // The lines about the reload itself may still be in the old log.
    until_true("the end of the reload", || logged("Reloaded ") || pushd.log().matches("Reloaded ").count() == 2);
    get(address, "/pages/moved");
    until_true("a line in the new log", || logged("GET /pages/moved 404"));
    let log = std::fs::read_to_string(&moved).unwrap();
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["message"].is_string() && line["level"].is_string() && line["time"].is_string(), "{line}");
    }
    assert!((pushd.log() + &log).contains("changed only by a restart: daemon.workers"), "{log}");
    assert!(!pushd.log().contains("/pages/moved"));
}

/// Turning a history on or off, where and whether it is durable, and presence.
#[test]
fn what_only_a_restart_can_change_stays_in_force_and_is_named() {
    let pushd = first();
    let new = "[hub.push]\nhistory = { messages = 9 }\ndurable = true\npresence = true\n[store]\ndir = \"x\"\nsync = \"1s\"\n";
    let reports = || pushd.log().matches("changed only by a restart: ").count();
    pushd.reload(&changed(&[("[hub.push]", new)]));
    pushd.logged(
        "changed only by a restart: store.dir, store.sync, hub.push.history, hub.push.durable, hub.push.presence",
    );
    let answer = ask(pushd.address(), "POST", "/publish", &[], b"x");
    assert_eq!((answer.status, answer.text()), (200, "{\"channel\":\"all\",\"subscribers\":0}\n"));
    pushd.reload(&changed(&[("[hub.push]", new)]));
    assert_eq!(reports(), 2, "it still differs");
    pushd.reload(FIRST);
    assert_eq!(reports(), 2, "nothing differs from what is in force");
}

#[test]
fn feeds_can_be_added_and_removed_and_the_others_continue_their_count() {
    let feed = |name: &str, every: &str| {
        format!("[feed.{name}]\nhub = \"push\"\nchannel = \"all\"\nevery = \"{every}\"\nmessage = \"{name} {{n}}\"\n")
    };
    let pushd = first();
    let mut client = Ws::open(pushd.address(), "/ws");
    pushd.reload(&format!("{FIRST}{}", feed("a", "100ms")));
    for number in 0..3 {
        client.expect_text(&format!("a {number}"));
    }
    pushd.reload(&format!("{FIRST}{}{}", feed("b", "1h"), feed("a", "100ms")));
    let mut received = vec![client.next_text()];
    while received.len() < 5 {
        received.push(client.next_text());
    }
    let (b, a): (Vec<_>, Vec<_>) = received.into_iter().partition(|text| text.starts_with("b "));
    assert_eq!(b, ["b 0"]);
    assert_eq!(a, ["a 3", "a 4", "a 5", "a 6"]);
    // Another limit of its hub applies at once, and does not restart the feed.
    let short = changed(&[("[hub.push]", "[hub.push]\nmessage_max = 1")]);
    pushd.reload(&format!("{short}{}", feed("a", "100ms")));
    until_true("the limit", || client.next_text() == "a");
    pushd.reload(&format!("{FIRST}{}", feed("a", "100ms")));
    let next = until("the old limit", || Some(client.next_text()).filter(|text| text != "a"));
    let number: u32 = next.strip_prefix("a ").unwrap().parse().unwrap();
    assert!(number > 6, "{next}");
    pushd.reload(FIRST);
    // Messages in transit still arrive, then none.
    until_true("silence", || {
        client.wire.is_silent_for(std::time::Duration::from_millis(300)) || client.next_text().is_empty()
    });
}

#[test]
fn the_permission_to_publish_is_checked_for_each_request() {
    let pushd = first();
    let publishing = request(pushd.address(), "POST", "/publish", &["Origin: https://example.com"], b"x");
    let mut page = Wire::connect(pushd.address());
    page.send(&publishing);
    assert_eq!(Answer::read(&mut page).status, 403);
    pushd.reload(&changed(&[("[server.main.routes]", "origins = \"any\"\n[server.main.routes]")]));
    until_true("another answer on the same connection", || {
        page.send(&publishing);
        Answer::read(&mut page).status == 200
    });
}

#[test]
fn an_invalid_file_causes_one_line_and_changes_nothing() {
    let pushd = first();
    let address = pushd.address();
    let mut client = Ws::open(address, "/ws");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_server = format!(
        "[server.x]\nlisten = [\"unix:x.sock\", \"{}\"]\n[server.x.routes]\n\"/\" = {{ health = true }}\n[hub.push]",
        taken.local_addr().unwrap()
    );
    let good_otherwise = ("\"/metrics\"", "\"/changed\"");
    let broken = changed(&[good_otherwise, ("on_message", "on_mesage"), ("\"www\"", "\"not-there\"")]);
    let cases: [(String, &[&str]); 5] = [
        ("no toml".to_owned(), &["pushd.toml:1:"]),
        (broken, &["pushd.toml:6:33", "on_mesage", "pushd.toml:8:23", "this directory does not exist"]),
        (
            changed(&[good_otherwise, ("[hub.push]", &taken_server)]),
            &["cannot listen on 127.0.0.1", "another program uses this port"],
        ),
        (
            changed(&[good_otherwise, ("[hub.push]", "[hub.push]\n[log]\nfile = \"no/such/place.log\"")]),
            &["no/such/place.log"],
        ),
        (changed(&[good_otherwise, ("[hub.push]", "[hub.push]\n[log]\nlevel = \"loud\"")]), &["level"]),
    ];
    for (config, words) in cases {
        let before = pushd.log().lines().count();
        let line = pushd.reload(&config);
        assert!(line.contains("error] Reload refused, nothing changed: "), "{line}");
        for word in words {
            assert!(line.contains(word), "{word} in {line}");
        }
        assert_eq!(pushd.log().lines().count(), before + 1, "{}", pushd.log());
        assert_eq!(get(address, "/metrics").status, 200);
        assert_eq!(get(address, "/changed").status, 404);
        assert!(!pushd.path().join("x.sock").exists(), "a Unix socket remains");
        assert_eq!(publish(address, "/publish", "as before"), 1);
        client.expect_text("as before");
    }
    std::fs::remove_file(pushd.path().join("pushd.toml")).unwrap();
    pushd.signal(Signal::SIGHUP);
    pushd.logged_times("Reload refused, nothing changed", 6);
    assert_eq!(publish(address, "/publish", "as before"), 1);
    // A valid file is applied again.
    let line = pushd.reload(&changed(&[good_otherwise]));
    assert!(line.contains("Reloaded"), "{line}");
    until_true("the change", || get(address, "/changed").status == 200);
    client.expect_text("as before");
    client.expect_nothing();
}

#[test]
fn one_address_can_become_all_addresses_and_one_again() {
    let port = free_port();
    let listening = |host: &str| PLAIN.replace("127.0.0.1:0", &format!("{host}:{port}"));
    let pushd = start(&listening("127.0.0.1"));
    let mut client = Ws::open(([127, 0, 0, 1], port).into(), "/ws");
    // The kernel refuses one while any process listens on the other.
    for round in 0..3 {
        let line = pushd.reload(&listening("0.0.0.0"));
        assert!(line.contains("] Reloaded "), "{round}: {line}");
        assert_eq!(publish(([127, 0, 0, 2], port).into(), "/publish/all", "to all"), 1);
        client.expect_text("to all");
        assert!(TcpListener::bind(("127.0.0.1", port)).is_err(), "another program could share the port");
        let line = pushd.reload(&listening("127.0.0.1"));
        assert!(line.contains("] Reloaded "), "{round}: {line}");
        assert_eq!(publish(([127, 0, 0, 1], port).into(), "/publish/all", "to one"), 1);
        client.expect_text("to one");
        until_true("the end of the others", || TcpStream::connect(("127.0.0.2", port)).is_err());
    }
}

#[test]
fn an_address_that_was_removed_can_be_added_again_at_once() {
    let address = format!("127.0.0.1:{}", free_port());
    let listening = |listen: &str| PLAIN.replace("127.0.0.1:0", listen);
    let pushd = start(&listening(&address));
    for round in 0..50 {
        for listen in ["unix:hub.sock", &address] {
            let line = pushd.reload(&listening(listen));
            assert!(line.contains("] Reloaded "), "{round}: {line}");
        }
        assert_eq!(get(address.parse().unwrap(), "/healthz").status, 200);
    }
}

#[test]
fn a_new_address_accepts_later_if_there_is_no_descriptor_now() {
    let pushd = start(PLAIN);
    let clients: Vec<Ws> = (0..4).map(|_| Ws::open(pushd.address(), "/ws")).collect();
    let pid = rustix::process::Pid::from_raw(pushd.pid().as_raw());
    let open: HashSet<u64> = fs::read_dir(format!("/proc/{}/fd", pushd.pid()))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().parse().unwrap())
        .collect();
    // Enough for one more descriptor: the listening socket, but not the copy that accepts.
    let second = (0..).filter(|number| !open.contains(number)).nth(1);
    prlimit(pid, Resource::Nofile, Rlimit { current: second, maximum: second }).unwrap();
    let outcome = pushd.reload(&PLAIN.replace("\"127.0.0.1:0\"", "[\"127.0.0.1:0\", \"127.0.0.2:0\"]"));
    assert!(outcome.contains("Reloaded"), "{outcome}");
    pushd.logged("cannot accept connections for now");
    drop(clients);
    assert_eq!(get(pushd.address(), "/healthz").text(), "ok\n");
}

#[test]
fn an_unchanged_file_disturbs_nothing() {
    let pushd = start(FIRST.replace("\"/pages\" = { static = \"www\" }", "").as_str());
    let address = pushd.address();
    let mut client = Ws::open(address, "/ws");
    for round in 1..=20 {
        pushd.signal(Signal::SIGHUP);
        pushd.logged_times("] Reloaded ", round);
        assert_eq!(publish(address, "/publish", "still"), 1);
        client.expect_text("still");
    }
}

#[test]
fn settings_that_need_a_restart_are_reported_until_it_was_restarted() {
    let first = changed(&[("\"/pages\" = { static = \"www\" }\n", "")]);
    let pushd = start(&(first.clone() + "[daemon]\nworkers = 1\n"));
    let reports = |pushd: &common::Pushd| pushd.log().matches("changed only by a restart: daemon.workers").count();
    let reload = |more: &str| {
        let line = pushd.reload(&(first.clone() + more));
        assert!(line.contains("] Reloaded "), "{line}");
        reports(&pushd)
    };
    // The report is logged before the line about the end of the reload.
    assert_eq!(reload("[daemon]\nworkers = 2\n"), 1);
    assert_eq!(reload("[daemon]\nworkers = 2\n"), 2);
    assert_eq!(reload("[daemon]\nworkers = 3\n"), 3);
    assert_eq!(reload("[daemon]\nworkers = 1\n"), 3);
}
