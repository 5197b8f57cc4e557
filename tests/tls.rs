//! TLS: what is accepted and refused, which certificate is shown, and that everything works over it as without it.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ProtocolVersion};

use common::http::{Answer, ask, get, metric};
use common::tls::{Certificate, Tls, certificate, trusting};
use common::wire::Wire;
use common::{Pushd, Start, run, until_true};
use nix::sys::signal::Signal;

const CONFIG: &str = r#"
[server.main]
listen = "127.0.0.1:0"
tls = [{ certificate = "one.pem", key = "one.key" }, { certificate = "other.pem", key = "other.key" }]
[server.main.routes]
"/ws" = { websocket = "push", on_message = "broadcast", channels = ["all"] }
"/events" = { events = "push", channels = ["all"] }
"/poll" = { poll = "push", channels = ["all"] }
"/publish" = { publish = "push", channel = "all" }
"/files" = { static = "www" }
[server.plain]
listen = "127.0.0.1:0"
redirect = "https"
[server.inside]
listen = "127.0.0.1:0"
[server.inside.routes]
"/publish" = { publish = "push", channel = "all" }
"/metrics" = { metrics = true }
[hub.push]
message_max = "1MiB"
queue_max = "8MiB"
history = { messages = 10 }
"#;

struct Server {
    pushd: Pushd,
    one: Certificate,
    other: Certificate,
}

fn start() -> Server {
    let start = Start::new(CONFIG).arguments(&["--debug"]);
    let (one, other) = (certificate(&["localhost", "one.example"]), certificate(&["*.other.example"]));
    one.write(start.path(), "one");
    other.write(start.path(), "other");
    fs::create_dir(start.path().join("www")).unwrap();
    fs::write(start.path().join("www/large"), vec![b'x'; 3 << 20]).unwrap();
    Server { pushd: start.run(), one, other }
}

impl Server {
    fn settings(&self) -> Arc<ClientConfig> {
        trusting(&[&self.one, &self.other], &[&TLS13], &["http/1.1"])
    }

    fn connect(&self) -> Tls {
        Tls::connect(self.pushd.address_of("main"), self.settings(), "localhost")
    }

    fn publish(&self, message: &[u8]) -> u64 {
        let answer = ask(self.pushd.address_of("inside"), "POST", "/publish", &[], message);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["subscribers"].as_u64().unwrap()
    }
}

/// The first bytes of a server after these first bytes of a client.
fn answer_to(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(common::DEADLINE)).unwrap();
    socket.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A reset is an end, too.
    let _ = socket.read_to_end(&mut answer);
    answer
}

#[test]
fn both_versions_are_spoken_and_the_name_decides_the_certificate() {
    let server = start();
    let address = server.pushd.address_of("main");
    for (version, name) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let settings = trusting(&[&server.one], &[version], &[]);
        let mut client = Tls::connect(address, settings, "localhost");
        client.handshake().unwrap();
        assert_eq!(client.connection().protocol_version(), Some(name));
        let (head, _) = client.ask("POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n", b"hello");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    }
    // The first certificate is for names that no other is for.
    for (asked, shown) in [
        ("one.example", &server.one),
        ("x.other.example", &server.other),
        ("unknown.example", &server.one),
        ("x.y.other.example", &server.one),
    ] {
        let mut client = Tls::connect(address, trusting(&[&server.one, &server.other], &[&TLS13], &[]), asked);
        let verified = client.handshake();
        let certificates = client.connection().peer_certificates();
        assert_eq!(verified.is_ok(), !asked.contains("unknown") && !asked.contains(".y."), "{asked}");
        assert!(certificates.is_none_or(|found| found[0] == shown.der), "{asked}");
    }
}

/// The names of certificates are names of the server, also those that a star stands for.
#[test]
fn requests_may_name_what_a_certificate_is_for() {
    let server = start();
    for (host, status) in [
        ("one.example", 404),
        ("x.other.example", 404),
        ("X.Other.Example.:443", 404),
        ("other.example", 421),
        ("x.y.other.example", 421),
        (".other.example", 421),
        ("evil.example", 421),
    ] {
        let mut client = server.connect();
        let (head, _) = client.ask(&format!("GET /nothing HTTP/1.1\r\nHost: {host}\r\n\r\n"), b"");
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {head}");
    }
}

#[test]
fn a_protocol_that_is_not_offered_is_refused() {
    let server = start();
    let address = server.pushd.address_of("main");
    let mut good = Tls::connect(address, trusting(&[&server.one], &[&TLS13], &["x/1", "http/1.1"]), "localhost");
    good.handshake().unwrap();
    assert_eq!(good.connection().alpn_protocol(), Some(&b"http/1.1"[..]));
    let mut bad = Tls::connect(address, trusting(&[&server.one], &[&TLS13], &["spdy/3"]), "localhost");
    let error = bad.handshake().unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    // Plain HTTP and noise get an alert or an end, and nothing else.
    for bytes in
        [&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], b"\x16\x03\x01\xff\xff", &[0; 64], b"\x80\x2e\x01\x03\x01"]
    {
        let answer = answer_to(address, bytes);
        assert!(answer.is_empty() || answer[0] == 21, "{bytes:?}: {answer:?}");
    }
    assert_eq!(server.publish(b"it still serves"), 0);
}

#[test]
fn every_kind_of_session_works_over_tls() {
    let server = start();
    let mut socket = server.connect();
    socket.open("/ws");
    let mut events = server.connect();
    let (head, _) = events.ask("GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n", b"");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    events.take_until(b"retry: ");
    let mut poll = server.connect();
    let (_, first) = poll.ask("GET /poll HTTP/1.1\r\nHost: localhost\r\n\r\n", b"");
    let position =
        serde_json::from_slice::<serde_json::Value>(&first).unwrap()["position"].as_str().unwrap().to_owned();
    let mut poll = server.connect();
    poll.send(format!("GET /poll?since={position}&wait=25s HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
    until_true("all are subscribed", || metric(server.pushd.address_of("inside"), "pushd_sessions") == 3);
    assert_eq!(server.publish(b"hello"), 3);
    assert_eq!(socket.next_frame(), (0x81, b"hello".to_vec()));
    events.take_until(b"data: hello\n");
    let answer = String::from_utf8(poll.take_all()).unwrap();
    assert!(answer.contains("\"data\":\"hello\""), "{answer}");
    // A client's own message, in one record with a second one.
    let frame = [&[0x81, 0x82][..], &[0; 4], b"hi"].concat();
    socket.send(&[frame.clone(), frame].concat());
    assert_eq!(socket.next_frame(), (0x81, b"hi".to_vec()));
    assert_eq!(socket.next_frame(), (0x81, b"hi".to_vec()));
}

#[test]
fn messages_larger_than_records_arrive_whole_and_in_order() {
    let server = start();
    let mut socket = server.connect();
    socket.open("/ws");
    let messages: Vec<Vec<u8>> = (0..40_usize).map(|n| vec![b'a' + (n % 26) as u8; (n * 37_000) % 900_000]).collect();
    for message in &messages[..20] {
        assert_eq!(server.publish(message), 1);
    }
    for message in &messages[..20] {
        assert!(socket.next_frame().1 == *message);
    }
    // The other direction: fragments of one message over many records.
    for message in &messages[20..] {
        let frame = common::ws::frame(0x81, message);
        for piece in frame.chunks(20_011) {
            socket.send(piece);
        }
        assert!(socket.next_frame().1 == *message);
    }
}

#[test]
fn a_client_that_reads_late_loses_nothing() {
    let server = start();
    let mut slow = server.connect();
    slow.open("/ws");
    let message = vec![b'm'; 200_000];
    for _ in 0..30 {
        assert_eq!(server.publish(&message), 1);
    }
    for _ in 0..30 {
        assert_eq!(slow.next_frame().1, message);
    }
    assert_eq!(server.publish(b"and the last"), 1);
    assert_eq!(slow.next_frame().1, b"and the last");
    // A client that never reads is disconnected for that, as without TLS.
    let mut deaf = server.connect();
    deaf.open("/ws");
    until_true("it is disconnected", || {
        server.publish(&message);
        server.pushd.log().contains("disconnected: too slow") || server.pushd.log().contains("disconnected")
    });
}

#[test]
fn large_answers_and_requests_pass() {
    let server = start();
    let mut client = server.connect();
    for _ in 0..2 {
        let (head, body) = client.ask("GET /files/large HTTP/1.1\r\nHost: localhost\r\n\r\n", b"");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!((body.len(), body.iter().all(|b| *b == b'x')), (3 << 20, true));
    }
    let body = vec![b'y'; 1 << 20];
    let head = format!("POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    assert!(client.ask(&head, &body).0.starts_with("HTTP/1.1 200 "));
    let head = "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\nExpect: 100-continue\r\n\r\n";
    assert!(client.ask(head, b"").0.starts_with("HTTP/1.1 413 "));
}

#[test]
fn a_handshake_may_come_byte_by_byte_and_ends_in_order() {
    let server = start();
    let mut client = server.connect();
    // rustls writes each flight at once; the socket passes on single bytes.
    struct Trickle(TcpStream);
    impl Read for Trickle {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(buffer)
        }
    }
    impl Write for Trickle {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.write(&bytes[..1.min(bytes.len())])
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let socket = TcpStream::connect(server.pushd.address_of("main")).unwrap();
    socket.set_nodelay(true).unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut connection = rustls::ClientConnection::new(server.settings(), name).unwrap();
    let mut trickle = Trickle(socket);
    while connection.is_handshaking() {
        connection.complete_io(&mut trickle).unwrap();
    }
    // The end is said in both directions.
    client.handshake().unwrap();
    let (head, _) = client.ask("GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    assert_eq!(client.take_all(), b"");
}

/// What came before a record that cannot be decrypted is not lost.
#[test]
fn a_message_before_a_bad_record_is_heard() {
    let server = start();
    let mut other = server.connect();
    other.open("/ws");
    for bad in [&[0x17, 3, 3, 0, 32][..], b"GET / HTTP/1.1\r\n"] {
        let mut client = server.connect();
        client.open("/ws");
        let mut bytes = client.encrypted(&common::ws::frame(0x81, b"before"));
        bytes.extend_from_slice(bad);
        bytes.extend_from_slice(&[7; 32]);
        (&mut client.socket()).write_all(&bytes).unwrap();
        assert_eq!(other.next_frame().1, b"before");
        let mut rest = Vec::new();
        if let Err(error) = (&mut client.socket()).read_to_end(&mut rest) {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "it was not disconnected");
        }
    }
    until_true("the other is alone", || metric(server.pushd.address_of("inside"), "pushd_sessions") == 1);
}

/// A page of plain HTTP is not the server's own: somebody on the way could have written it.
#[test]
fn only_pages_of_https_are_its_own() {
    let server = start();
    for (origin, status) in [("https://localhost", 101), ("http://localhost", 403), ("https://evil.example", 403)] {
        let mut client = server.connect();
        let (head, _) = client.ask(
            &format!(
                "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: {origin}\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ),
            b"",
        );
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{origin}: {head}");
    }
}

/// Records that contain nothing: the client is disconnected, and its neighbours are served.
#[test]
fn a_flood_of_empty_records_ends() {
    let server = start();
    let mut flood = server.connect();
    flood.handshake().unwrap();
    let mut socket = flood.socket().try_clone().unwrap();
    // In TLS 1.3 a change_cipher_spec has no meaning behind the handshake. A client may not send it any more.
    let records = [20, 3, 3, 0, 1, 1].repeat(20_000);
    // The connection may be gone before all is sent.
    let _ = socket.write_all(&records);
    let mut rest = Vec::new();
    if let Err(error) = socket.read_to_end(&mut rest) {
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "it was not disconnected");
    }
    assert_eq!(server.publish(b"neighbours are served"), 0);
}

#[test]
fn a_plain_server_redirects_to_https() {
    let server = start();
    let port = server.pushd.address_of("main").port();
    let plain = server.pushd.address_of("plain");
    for (host, path) in [("localhost", "/"), ("localhost:8080", "/a/b?c=d&e=%2F"), ("one.example", "//evil.example/")] {
        let answer = ask(plain, "POST", path, &[&format!("Host: {host}")], b"x");
        if host == "one.example" {
            // Not one of the plain server's names.
            assert_eq!(answer.status, 421);
            continue;
        }
        assert_eq!(answer.status, 308, "{answer:?}");
        let _ = port;
        assert!(answer.field("location").unwrap().starts_with("https://localhost"), "{answer:?}");
        assert!(answer.field("location").unwrap().ends_with(path), "{answer:?}");
    }
    assert_eq!(get(plain, "/").status, 308);
}

#[test]
fn a_reload_takes_a_new_certificate_and_keeps_connections() {
    let mut server = start();
    let mut socket = server.connect();
    socket.open("/ws");
    let old = server.settings();
    // A key that does not fit changes nothing.
    fs::write(server.pushd.path().join("one.pem"), certificate(&["localhost"]).pem).unwrap();
    server.pushd.reload(CONFIG);
    server.pushd.logged("this key does not belong to the certificate");
    Tls::connect(server.pushd.address_of("main"), old.clone(), "localhost").handshake().unwrap();
    server.one = certificate(&["localhost"]);
    server.one.write(server.pushd.path(), "one");
    let line = server.pushd.reload(CONFIG);
    assert!(line.contains("Reloaded"), "{line}");
    server.connect().handshake().unwrap();
    assert!(Tls::connect(server.pushd.address_of("main"), old, "localhost").handshake().is_err());
    assert_eq!(server.publish(b"still here"), 1);
    assert_eq!(socket.next_frame().1, b"still here");
}

#[test]
fn a_certificate_that_changes_is_taken_by_itself() {
    let mut server = start();
    let mut socket = server.connect();
    socket.open("/ws");
    let new = certificate(&["localhost"]);
    // The first look knows the files as they were at the start.
    until_true("it has looked", || server.pushd.ticks() > 0);
    let is_taken = |server: &Server| {
        let settings = trusting(&[&new], &[&TLS13], &[]);
        Tls::connect(server.pushd.address_of("main"), settings, "localhost").handshake().is_ok()
    };
    until_true("the new certificate is taken", || {
        // Written again and again: the first look may come behind the first change.
        new.write(server.pushd.path(), "one");
        is_taken(&server)
    });
    server.one = new;
    assert_eq!(server.publish(b"still here"), 1);
    assert_eq!(socket.next_frame().1, b"still here");
    // A broken one is loud, and changes nothing.
    fs::write(server.pushd.path().join("one.pem"), "nonsense").unwrap();
    server.pushd.logged("has changed, and the old one is kept: this file contains no certificate");
    server.connect().handshake().unwrap();
}

#[test]
fn sessions_are_told_when_the_server_ends() {
    let mut server = start();
    let mut socket = server.connect();
    socket.open("/ws");
    let mut events = server.connect();
    events.ask("GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n", b"");
    let path = server.pushd.path().to_owned();
    let ended = std::thread::scope(|scope| {
        let ended = scope.spawn(|| server.pushd.end(Signal::SIGINT));
        let (first, payload) = socket.next_frame();
        assert_eq!((first, &payload[..2]), (0x88, &1001_u16.to_be_bytes()[..]));
        socket.send(&[&[0x88, 0x82][..], &[0; 4], &payload[..2]].concat());
        assert_eq!(socket.take_all(), b"");
        events.take_all();
        ended.join().unwrap()
    });
    assert_eq!(ended, 0);
    drop(path);
}

#[test]
fn client_certificates_are_asked_for_where_the_file_says_so() {
    let start = Start::new(&CONFIG.replace("key = \"one.key\" }", "key = \"one.key\", client_ca = \"one.pem\" }"));
    let (one, other) = (certificate(&["localhost"]), certificate(&["x.example"]));
    one.write(start.path(), "one");
    other.write(start.path(), "other");
    fs::create_dir(start.path().join("www")).unwrap();
    let pushd = start.run();
    let mut client = Tls::connect(pushd.address_of("main"), trusting(&[&one], &[&TLS13], &[]), "localhost");
    // In TLS 1.3 the refusal comes behind the client's own end of the handshake.
    let refused = client.handshake().is_err() || {
        let mut byte = [0];
        let mut socket = client.socket().try_clone().unwrap();
        matches!(socket.read(&mut byte), Ok(0 | 1) | Err(_))
    };
    assert!(refused);
    let mut socket = TcpStream::connect(pushd.address_of("inside")).unwrap();
    socket.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
}

#[test]
fn certificates_are_checked_before_the_start() {
    let start = Start::new(CONFIG);
    let (one, other) = (certificate(&["localhost"]), certificate(&["x.example"]));
    one.write(start.path(), "one");
    other.write(start.path(), "other");
    fs::create_dir(start.path().join("www")).unwrap();
    let check = || {
        let ran = run(Command::new(env!("CARGO_BIN_EXE_pushctl")).arg("check").arg(start.path().join("pushd.toml")));
        (ran.code(), ran.stderr)
    };
    let (code, said) = check();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("every user of this machine can read this key"), "{said}");
    for (file, content, expected) in [
        ("one.key", other.key.as_str(), "this key does not belong to the certificate"),
        ("one.key", "no key", "this file contains no private key"),
        ("one.pem", "no certificate", "this file contains no certificate"),
        ("one.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be"),
    ] {
        let path = start.path().join(file);
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, content).unwrap();
        let (code, said) = check();
        assert_eq!(code, 78, "{file}: {said}");
        assert!(said.contains(expected), "{file}: {said}");
        assert!(!said.contains("PRIVATE KEY-----"), "{said}");
        fs::write(&path, before).unwrap();
    }
    fs::remove_file(start.path().join("one.pem")).unwrap();
    let (code, said) = check();
    assert_eq!(code, 78);
    assert!(said.contains("this certificate cannot be read") && said.contains("there is no such file"), "{said}");
}

/// `Wire` is for plain connections; a plain server beside one with TLS is not affected.
#[test]
fn a_plain_server_beside_it_is_plain() {
    let server = start();
    let mut wire = Wire::connect(server.pushd.address_of("inside"));
    wire.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(Answer::read(&mut wire).status, 200);
}
