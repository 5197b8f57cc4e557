//! A restart with clients over TLS: what encrypts them cannot be given to the next process, so they are asked to come back. Others stay.

mod common;

use std::io::ErrorKind;

use common::http::publish;
use common::service::Service;
use common::tls::{Certificate, Tls, certificate, trusting};
use common::ws::Ws;
use rustls::version::TLS13;

const CONFIG: &str = r#"
[server.secure]
listen = "127.0.0.1:0"
tls = { certificate = "site.pem", key = "site.key" }
[server.secure.routes]
"/ws" = { websocket = "push" }
"/events" = { events = "push" }
[server.plain]
listen = "127.0.0.1:0"
[server.plain.routes]
"/ws" = { websocket = "push" }
"/publish" = { publish = "push", channel = "all" }
[hub.push]
[daemon]
workers = 2
"#;

fn connect(service: &Service, site: &Certificate) -> Tls {
    let settings = trusting(&[site], &[&TLS13], &["http/1.1"]);
    let mut client = Tls::connect(service.address_of("secure"), settings, "localhost");
    client.handshake().unwrap();
    client
}

#[test]
fn clients_over_tls_are_asked_to_come_back_and_others_stay() {
    let site = certificate(&["localhost"]);
    let mut service = Service::new(CONFIG, 64);
    site.write(service.path(), "site");
    service.start();
    let plain_address = service.address_of("plain");
    let mut plain = Ws::open(plain_address, "/ws");
    let mut socket = connect(&service, &site);
    socket.open("/ws");
    let mut events = connect(&service, &site);
    events.ask("GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n", b"");
    events.take_until(b"\n\n");
    // A handshake that is not finished, and a connection without a request.
    let idle = connect(&service, &site);
    let begun = std::net::TcpStream::connect(service.address_of("secure")).unwrap();
    assert_eq!(publish(plain_address, "/publish", "before"), 3);
    assert_eq!(socket.next_frame().1, b"before");
    plain.expect_text("before");
    let (closed, ended) = std::thread::scope(|scope| {
        let closed = scope.spawn(move || {
            let (first, payload) = socket.next_frame();
            (first, u16::from_be_bytes([payload[0], payload[1]]))
        });
        let ended = scope.spawn(move || String::from_utf8(events.take_all()).unwrap());
        service.restart();
        (closed.join().unwrap(), ended.join().unwrap())
    });
    assert_eq!(closed, (0x88, 1012));
    assert!(ended.contains("data: before") && ended.ends_with("0\r\n\r\n"), "{ended}");
    for mut socket in [idle.socket().try_clone().unwrap(), begun] {
        let mut rest = Vec::new();
        match std::io::Read::read_to_end(&mut socket, &mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    // The session without TLS has noticed nothing, and the next process serves TLS.
    let mut again = connect(&service, &site);
    again.open("/ws");
    assert_eq!(publish(service.address_of("plain"), "/publish", "after"), 2);
    plain.expect_text("after");
    assert_eq!(again.next_frame().1, b"after");
}
