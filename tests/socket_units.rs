//! Sockets that the service manager opened: all sockets of one name are served, they stay over reloads and restarts,
//! and the name of a missing one is reported.

mod common;

use std::net::{SocketAddr, TcpListener};

use common::http::{get, publish};
use common::service::Service;
use common::ws::Ws;

const FILE: &str = r#"
[server.main]
listen = "systemd:hub"
[server.main.routes]
"/ws" = { websocket = "push" }
"/publish" = { publish = "push", channel = "all" }
[hub.push]
"#;

/// A service with `count` sockets named `hub`, and one named `other`. Returns their addresses, too.
fn service(count: usize) -> (Service, Vec<SocketAddr>) {
    let mut service = Service::new(FILE, 512);
    let sockets: Vec<_> = (0..=count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
    for (number, socket) in sockets.into_iter().enumerate() {
        service.sockets.push((if number < count { "hub" } else { "other" }.to_owned(), socket.into()));
    }
    service.start();
    (service, addresses)
}

#[test]
fn all_sockets_of_a_name_serve_over_reloads_and_restarts() {
    let (mut service, addresses) = service(3);
    let mut clients: Vec<Ws> = addresses[..3].iter().map(|address| Ws::open(*address, "/ws")).collect();
    let mut publish_to_all = |text: &str| {
        for address in &addresses[..3] {
            assert_eq!(publish(*address, "/publish", text), 3);
            clients.iter_mut().for_each(|client| client.expect_text(text));
        }
    };
    publish_to_all("first");
    // Only a route changes.
    let more = FILE.replace("\"/ws\"", "\"/healthz\" = { health = true }\n\"/ws\"");
    let line = service.reload(&more);
    assert!(line.contains("Reloaded"), "{line}");
    common::until_true("the new route", || {
        addresses[..3].iter().all(|address| get(*address, "/healthz").status == 200)
    });
    publish_to_all("second");
    service.restart();
    publish_to_all("third");
    assert!(addresses[..3].iter().all(|address| get(*address, "/healthz").status == 200));
    assert_eq!(service.log().matches("(server main)").count(), 3 * 3);
}

#[test]
fn a_socket_can_be_dropped_used_again_and_moved_to_another_server() {
    let (service, addresses) = service(2);
    let line = service.reload(&FILE.replace("systemd:hub", "systemd:other"));
    assert!(line.contains("Reloaded"), "{line}");
    common::until_true("the other", || get(addresses[2], "/publish").status == 405);
    let second = "[server.second]\nlisten = \"systemd:hub\"\nroutes.\"/healthz\" = { health = true }\n";
    let line = service.reload(&format!("{}{second}", FILE.replace("systemd:hub", "systemd:other")));
    assert!(line.contains("Reloaded"), "{line}");
    common::until_true("the second", || addresses[..2].iter().all(|address| get(*address, "/healthz").status == 200));
    let line = service.reload(FILE);
    assert!(line.contains("Reloaded"), "{line}");
    common::until_true("the first", || addresses[..2].iter().all(|address| get(*address, "/publish").status == 405));
}

#[test]
fn a_socket_that_was_never_passed_is_reported_by_name() {
    let (mut service, addresses) = service(2);
    let missing = FILE.replace("\"systemd:hub\"", "[\"systemd:hub\", \"systemd:hup\"]");
    let line = service.reload(&missing);
    let why = "cannot listen on systemd:hup: the service manager passed no socket of that name; at the start it passed hub, other";
    assert!(line.contains("Reload refused, nothing changed") && line.contains(why), "{line}");
    assert_eq!(get(addresses[0], "/publish").status, 405);
    service.hand_over();
    assert_eq!(service.fail_to_start(), 71);
    assert!(service.log().trim_end().ends_with("(FileDescriptorName=hup in a socket unit)"), "{}", service.log());
    service.configure(FILE);
    service.start();
}
