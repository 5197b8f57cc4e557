//! Servers that share their addresses: the name in `Host` chooses one.

mod common;

use std::fs;
use std::net::SocketAddr;

use common::http::{Answer, ask, get, publish};
use common::wire::Wire;
use common::ws::Ws;
use common::{Pushd, Start, free_port, start};

fn config(port: u16) -> String {
    format!(
        r#"
[server.first]
listen = "127.0.0.1:{port}"
hosts = ["first.example"]
routes."/who" = {{ static = "first" }}
routes."/ws" = {{ websocket = "one" }}
routes."/publish" = {{ publish = "one", channel = "all" }}
routes."/metrics" = {{ metrics = true }}

[server.second]
listen = "127.0.0.1:{port}"
hosts = ["second.example", "www.second.example"]
routes."/who" = {{ static = "second" }}
routes."/ws" = {{ websocket = "two" }}
routes."/publish" = {{ publish = "two", channel = "all" }}

[hub.one]
[hub.two]
"#
    )
}

fn serve(config: &str) -> Pushd {
    let pushd = Start::new(config);
    for name in ["first", "second"] {
        fs::create_dir(pushd.path().join(name)).unwrap();
        fs::write(pushd.path().join(name).join("name"), name).unwrap();
    }
    pushd.run()
}

fn who(address: SocketAddr, host: &str) -> Answer {
    ask(address, "GET", "/who/name", &[&format!("Host: {host}")], b"")
}

#[test]
fn the_name_chooses_the_server() {
    let port = free_port();
    let pushd = serve(&config(port));
    let address = pushd.address_of("first");
    // Several times: later answers come from the cache.
    for _ in 0..3 {
        for (host, server) in [
            ("first.example", "first"),
            ("second.example", "second"),
            ("SECOND.example.:1234", "second"),
            ("www.second.example", "second"),
            ("localhost", "first"),
            ("127.0.0.1", "first"),
        ] {
            let answer = who(address, host);
            assert_eq!((answer.status, answer.text()), (200, server), "{host}");
        }
        for host in ["third.example", "x.second.example"] {
            let answer = who(address, host);
            assert_eq!(answer.status, 421, "{host}");
            assert!(answer.text().contains("in [server.first] would allow it"), "{answer:?}");
        }
    }
    // One connection may name both, and a name in the target replaces Host.
    let mut wire = Wire::connect(address);
    for (target, host, outcome) in [
        ("/who/name", "first.example", "first"),
        ("/who/name", "second.example", "second"),
        ("http://second.example/who/name", "first.example", "second"),
        ("http://first.example/who/name", "second.example", "first"),
    ] {
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert_eq!(Answer::read(&mut wire).text(), outcome, "{target} {host}");
    }
    assert_eq!(get(address, "/metrics").status, 200);
    assert_eq!(ask(address, "GET", "/metrics", &["Host: second.example"], b"").status, 404);
}

#[test]
fn sessions_are_those_of_the_server_that_was_named() {
    let port = free_port();
    let pushd = serve(&config(port));
    let address = pushd.address_of("first");
    let (_, mut one) = Ws::ask(address, "/ws", &["Host: first.example"]);
    let (_, mut two) = Ws::ask(address, "/ws", &["Host: second.example"]);
    let to = |host: &str, text: &str| {
        let answer = ask(address, "POST", "/publish", &[&format!("Host: {host}")], text.as_bytes());
        assert_eq!(answer.json()["subscribers"], 1, "{host}");
    };
    to("first.example", "for one");
    to("second.example", "for two");
    one.expect_text("for one");
    two.expect_text("for two");
    // A page of one is another origin for the other.
    let page = "Origin: http://first.example";
    assert_eq!(Ws::ask(address, "/ws", &["Host: second.example", page]).0.status, 403);
    assert_eq!(Ws::ask(address, "/ws", &["Host: first.example", page]).0.status, 101);
    // A reload keeps the sessions, also if the first server goes: then the second one has the address.
    let config = config(port);
    assert!(pushd.reload(&config).contains("Reloaded"));
    to("second.example", "still there");
    two.expect_text("still there");
    let (_, second) = config.split_once("[server.second]").unwrap();
    assert!(pushd.reload(&format!("[server.second]{second}")).contains("Reloaded"));
    assert_eq!(one.next_close().0, 1001);
    publish(address, "/publish", "alone");
    two.expect_text("alone");
    assert_eq!(who(address, "localhost").text(), "second");
    assert_eq!(who(address, "first.example").status, 421);
}

#[test]
fn a_server_that_shares_addresses_needs_names() {
    let port = free_port();
    let nameless = config(port).replace("hosts = [\"second.example\", \"www.second.example\"]\n", "");
    let why = Start::new(&nameless).try_run().err().unwrap();
    assert!(why.contains("this address is listed twice") && why.contains("two servers can share"), "{why}");
    // The same address with another port of the system is another address.
    let pushd = start(
        &nameless
            .replace(&format!(":{port}"), ":0")
            .replace("static = \"first\"", "health = true")
            .replace("static = \"second\"", "health = true"),
    );
    assert_ne!(pushd.address_of("first"), pushd.address_of("second"));
}
