//! The host names that a server accepts. A foreign name that resolves to this machine reaches no route.

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use common::http::{Answer, ask, get, request};
use common::wire::Wire;
use common::ws::Ws;
use common::{PLAIN, Start, start};

const FOREIGN: &str = "Host: attacker.example:8888";

#[test]
fn a_foreign_host_name_reaches_no_route() {
    let pushd = Start::new(&PLAIN.replace("[hub.push]", "\"/www\" = { static = \"www\" }\n[hub.push]"));
    fs::create_dir(pushd.path().join("www")).unwrap();
    fs::write(pushd.path().join("www/a.txt"), "a").unwrap();
    let pushd = pushd.run();
    let address = pushd.address();
    // The second response comes from the cache.
    assert_eq!([get(address, "/www/a.txt").status, get(address, "/www/a.txt").status], [200, 200]);
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/www/a.txt"),
        ("HEAD", "/www/a.txt"),
        ("GET", "/www/none"),
        ("GET", "/metrics"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("OPTIONS", "/publish/all"),
        ("POST", "/publish/all"),
        ("GET", "/no-such-route"),
    ] {
        let answer = ask(address, method, path, &[FOREIGN], b"");
        assert_eq!(answer.status, 421, "{method} {path}: {answer:?}");
        if method != "HEAD" {
            let said = answer.text();
            assert!(said.contains("hosts = [\"attacker.example\"] in [server.main] would allow it"), "{said}");
        }
    }
    assert_eq!(Ws::ask(address, "/ws", &[FOREIGN]).0.status, 421);
    pushd.logged(
        "refused at /: no server answers to the name \"attacker.example:8888\" here: hosts = [\"attacker.example\"]",
    );
    assert_eq!(pushd.log().matches("attacker.example:8888").count(), 1, "{}", pushd.log());
}

#[test]
fn a_server_accepts_its_own_names_and_the_listed_ones() {
    let hosts = "origins = [\"https://www.example.com\"]\nhosts = [\"push.example.com\"]\n[server.main.routes]";
    let pushd = start(&PLAIN.replace("[server.main.routes]", hosts));
    let address = pushd.address();
    let machine = nix::unistd::gethostname().unwrap().into_string().unwrap();
    for host in ["localhost", "LOCALHOST.:1", "[::1]", "192.0.2.1:80", "push.example.com", "www.example.com", &machine]
    {
        let answer = ask(address, "GET", "/healthz", &[&format!("Host: {host}")], b"");
        assert_eq!(answer.status, 200, "{host}: {answer:?}");
    }
    for host in ["example.com", "x.push.example.com", "localhost.example.com"] {
        let answer = ask(address, "GET", "/healthz", &[&format!("Host: {host}")], b"");
        assert_eq!(answer.status, 421, "{host}: {answer:?}");
    }
    let mut wire = Wire::connect(address);
    wire.send(b"GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!(Answer::read(&mut wire).status, 200, "a request without Host");
}

#[test]
fn a_server_that_accepts_any_name_still_distinguishes_its_own_pages() {
    let pushd = start(&PLAIN.replace("[server.main.routes]", "hosts = \"any\"\n[server.main.routes]"));
    let address = pushd.address();
    assert_eq!(ask(address, "GET", "/metrics", &[FOREIGN], b"").status, 200);
    assert_eq!(ask(address, "POST", "/publish/all", &[FOREIGN], b"x").status, 200, "a program");
    let page = "Origin: http://attacker.example:8888";
    assert_eq!(ask(address, "POST", "/publish/all", &[FOREIGN, page], b"x").status, 403);
    assert_eq!(Ws::ask(address, "/ws", &[FOREIGN, page]).0.status, 403);
}

#[test]
fn a_unix_socket_has_the_same_rules() {
    let pushd = start(&PLAIN.replace("\"127.0.0.1:0\"", "[\"127.0.0.1:0\", \"unix:hub.sock\"]"));
    let path = pushd.path().join("hub.sock");
    for (host, status) in [("Host: localhost", "200"), (FOREIGN, "421")] {
        let mut socket = UnixStream::connect(&path).unwrap();
        socket
            .write_all(&request(([127, 0, 0, 1], 1).into(), "GET", "/healthz", &[host, "Connection: close"], b""))
            .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
    }
}
