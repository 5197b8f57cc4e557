//! SIGHUP: a good file counts as a whole and nobody's connection is lost for it; a bad one is a line in the log and nothing else.

mod common;

use std::collections::HashSet;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use common::http::{Answer, ask, get, publish, request};
use common::wire::Wire;
use common::ws::{Hixie, PING, Ws};
use common::{PLAIN, Start, free_port, start, until, until_true};
use nix::sys::signal::Signal;
use rustix::process::{Resource, Rlimit, prlimit};

/// A first configuration, whose parts the tests change.
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

/// `FIRST` with parts replaced, each of which must be there.
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

/// Starts with `FIRST`, beside two directories of pages.
fn first() -> common::Pushd {
    let start = Start::new(FIRST);
    page(&start.path().join("www"), "old pages");
    page(&start.path().join("new"), "new pages");
    start.run()
}

#[test]
fn a_good_file_changes_everything_and_connections_stay() {
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
    // On the connection that was there before, too.
    until_true("the new pages", || {
        asking.send(&request(address, "GET", "/pages/", &[], b""));
        Answer::read(&mut asking).text() == "new pages"
    });
    assert_eq!(ask(address, "POST", "/publish", &[], b"x").status, 404);
    until_true("the new limit", || ask(address, "POST", "/say", &[], b"eleven byte").status == 413);
    assert_eq!(publish(address, "/say", "ten bytes!"), 2);
    for heard in [client.next_text(), old.next_text()] {
        assert_eq!(heard, "ten bytes!");
    }
    // Sessions go by the new terms as well: what was ignored is echoed, what is too long is refused.
    client.text("echo");
    client.expect_text("echo");
    client.text("eleven byte");
    client.expect_close(1009, "at most 10 bytes");
    old.text("chat");
    old.expect_text("chat");
}

#[test]
fn a_session_whose_route_is_gone_is_told_so() {
    let pushd = first();
    let address = pushd.address();
    let mut going = Ws::open(address, "/ws");
    let mut staying = Ws::open(address, "/chat");
    pushd.reload(&changed(&[("\"/ws\"", "\"/elsewhere\"")]));
    going.expect_close(1001, "this route is no longer served");
    assert_eq!(publish(address, "/publish", "still here"), 1);
    staying.expect_text("still here");
    let mut old = Hixie::open(address, "/chat");
    // Another hub at the same path is another route.
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
fn addresses_come_and_go_and_those_that_stay_are_never_closed() {
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
fn each_port_0_is_a_port_of_its_own_and_stays_with_its_server() {
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
fn the_address_of_one_server_may_become_anothers() {
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
fn the_limits_of_a_hub_and_the_pings_change_for_those_who_are_there() {
    let pushd = first();
    let address = pushd.address();
    let mut client = Ws::open(address, "/ws");
    pushd.reload(&changed(&[("[hub.push]", "[hub.push]\nsubscribers_max = 1")]));
    until_true("the new limit", || Ws::ask(address, "/ws", &[]).0.status == 503);
    pushd.reload(&changed(&[("[hub.push]", "[hub.push]\nping = \"1s\"")]));
    let mut second = Ws::open(address, "/ws");
    assert_eq!(second.next().0, PING);
    // Who was there before goes by the new pace as well.
    assert_eq!(client.next().0, PING);
}

#[test]
fn the_level_and_the_place_of_the_log_change() {
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
    let said = |words: &str| std::fs::read_to_string(&moved).is_ok_and(|log| log.contains(words));
    until_true("the new log", || said("Log opened"));
    // What was said of the reload itself may still stand in the old one.
    until_true("the end of the reload", || said("Reloaded ") || pushd.log().matches("Reloaded ").count() == 2);
    get(address, "/pages/moved");
    until_true("a line in the new place", || said("GET /pages/moved 404"));
    let log = std::fs::read_to_string(&moved).unwrap();
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["message"].is_string() && line["level"].is_string() && line["time"].is_string(), "{line}");
    }
    assert!((pushd.log() + &log).contains("changed only by a restart: daemon.workers"), "{log}");
    assert!(!pushd.log().contains("/pages/moved"));
}

#[test]
fn feeds_come_and_go_and_those_that_stay_count_on() {
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
    let mut heard = vec![client.next_text()];
    while heard.len() < 5 {
        heard.push(client.next_text());
    }
    let (b, a): (Vec<_>, Vec<_>) = heard.into_iter().partition(|text| text.starts_with("b "));
    assert_eq!(b, ["b 0"]);
    assert_eq!(a, ["a 3", "a 4", "a 5", "a 6"]);
    // Another limit of its hub counts at once, and is no reason to begin anew.
    let short = changed(&[("[hub.push]", "[hub.push]\nmessage_max = 1")]);
    pushd.reload(&format!("{short}{}", feed("a", "100ms")));
    until_true("the limit", || client.next_text() == "a");
    pushd.reload(&format!("{FIRST}{}", feed("a", "100ms")));
    let next = until("the old limit", || Some(client.next_text()).filter(|text| text != "a"));
    let number: u32 = next.strip_prefix("a ").unwrap().parse().unwrap();
    assert!(number > 6, "{next}");
    pushd.reload(FIRST);
    // What was under way comes, then nothing.
    until_true("silence", || {
        client.wire.is_silent_for(std::time::Duration::from_millis(300)) || client.next_text().is_empty()
    });
}

#[test]
fn who_may_publish_is_asked_with_each_request() {
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
fn a_bad_file_is_one_line_and_changes_nothing() {
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
        (broken, &["pushd.toml:6:33", "on_mesage", "pushd.toml:8:23", "no such directory"]),
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
        assert!(!pushd.path().join("x.sock").exists(), "a Unix socket was left");
        assert_eq!(publish(address, "/publish", "as before"), 1);
        client.expect_text("as before");
    }
    std::fs::remove_file(pushd.path().join("pushd.toml")).unwrap();
    pushd.signal(Signal::SIGHUP);
    pushd.logged_times("Reload refused, nothing changed", 6);
    assert_eq!(publish(address, "/publish", "as before"), 1);
    // And a good one counts again.
    let line = pushd.reload(&changed(&[good_otherwise]));
    assert!(line.contains("Reloaded"), "{line}");
    until_true("the change", || get(address, "/changed").status == 200);
    client.expect_text("as before");
    client.expect_nothing();
}

#[test]
fn one_address_becomes_all_and_one_again() {
    let port = free_port();
    let listening = |host: &str| PLAIN.replace("127.0.0.1:0", &format!("{host}:{port}"));
    let pushd = start(&listening("127.0.0.1"));
    let mut client = Ws::open(([127, 0, 0, 1], port).into(), "/ws");
    // The kernel refuses the one while anybody listens on the other.
    for round in 0..3 {
        let line = pushd.reload(&listening("0.0.0.0"));
        assert!(line.contains("] Reloaded "), "{round}: {line}");
        assert_eq!(publish(([127, 0, 0, 2], port).into(), "/publish/all", "to all"), 1);
        client.expect_text("to all");
        assert!(TcpListener::bind(("127.0.0.1", port)).is_err(), "somebody else may share the port");
        let line = pushd.reload(&listening("127.0.0.1"));
        assert!(line.contains("] Reloaded "), "{round}: {line}");
        assert_eq!(publish(([127, 0, 0, 1], port).into(), "/publish/all", "to one"), 1);
        client.expect_text("to one");
        until_true("the end of the others", || TcpStream::connect(("127.0.0.2", port)).is_err());
    }
}

#[test]
fn an_address_that_went_can_come_again_at_once() {
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
fn an_address_without_a_descriptor_to_accept_on_is_accepted_on_later() {
    let pushd = start(PLAIN);
    let clients: Vec<Ws> = (0..4).map(|_| Ws::open(pushd.address(), "/ws")).collect();
    let pid = rustix::process::Pid::from_raw(pushd.pid().as_raw());
    let open: HashSet<u64> = fs::read_dir(format!("/proc/{}/fd", pushd.pid()))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().parse().unwrap())
        .collect();
    // Room for one more: the socket that is bound, but not the handle by which it is accepted on.
    let second = (0..).filter(|number| !open.contains(number)).nth(1);
    prlimit(pid, Resource::Nofile, Rlimit { current: second, maximum: second }).unwrap();
    let told = pushd.reload(&PLAIN.replace("\"127.0.0.1:0\"", "[\"127.0.0.1:0\", \"127.0.0.2:0\"]"));
    assert!(told.contains("Reloaded"), "{told}");
    pushd.logged("cannot accept connections for now");
    drop(clients);
    assert_eq!(get(pushd.address(), "/healthz").text(), "ok\n");
}

#[test]
fn a_file_that_changes_nothing_disturbs_nothing() {
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
fn what_needs_a_restart_is_told_until_it_has_had_one() {
    let first = changed(&[("\"/pages\" = { static = \"www\" }\n", "")]);
    let pushd = start(&(first.clone() + "[daemon]\nworkers = 1\n"));
    let said = |pushd: &common::Pushd| pushd.log().matches("changed only by a restart: daemon.workers").count();
    let reload = |more: &str| {
        let line = pushd.reload(&(first.clone() + more));
        assert!(line.contains("] Reloaded "), "{line}");
        said(&pushd)
    };
    // It stands before the line that says that it was reloaded.
    assert_eq!(reload("[daemon]\nworkers = 2\n"), 1);
    assert_eq!(reload("[daemon]\nworkers = 2\n"), 2);
    assert_eq!(reload("[daemon]\nworkers = 3\n"), 3);
    assert_eq!(reload("[daemon]\nworkers = 1\n"), 3);
}
