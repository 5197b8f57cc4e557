//! What pushd receives from a service manager: sockets, and credentials.
//!
//! A shell acts as the service manager. It puts a listening socket on descriptor 3, sets the variables like systemd
//! (sd_listen_fds(3)), and executes pushd. `.ci/run socket_activation` does the same with systemd's own program and the
//! packaged units.

mod common;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use common::http::{Answer, get, publish, request};
use common::wire::Wire;
use common::ws::Ws;
use common::{Pushd, Ran, Start};
use nix::sys::signal::Signal;

const CONFIG: &str = r#"
[server.main]
listen = "systemd:main"
[server.main.routes]
"/ws" = { websocket = "push" }
"/publish/{channel}" = { publish = "push", channel = "{channel}" }
"/healthz" = { health = true }
[hub.push]
"#;

/// Passes one socket on descriptor 3.
const ACTIVATE: &str = "export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=main; exec 3<&0 </dev/null";

fn activated(socket: &TcpListener) -> Pushd {
    let socket: OwnedFd = socket.try_clone().unwrap().into();
    Start::new(CONFIG).after(ACTIVATE).stdin(socket).run()
}

#[test]
fn a_socket_of_the_service_manager_is_served() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = socket.local_addr().unwrap();
    // A client that connects before pushd runs waits in the kernel's queue.
    let mut early = Wire::connect(address);
    early.send(&request(address, "GET", "/healthz", &[], b""));
    let mut pushd = activated(&socket);
    assert_eq!(pushd.address(), address);
    assert_eq!(Answer::read(&mut early).status, 200);
    drop(early);
    let mut subscriber = Ws::open(address, "/ws");
    assert_eq!(publish(address, "/publish/all", "through"), 1);
    subscriber.expect_text("through");
    pushd.signal(Signal::SIGTERM);
    subscriber.expect_close(1001, "going away");
    assert_eq!(pushd.wait(), 0);
    // The service manager keeps the socket open for the next pushd.
    let mut late = Wire::connect(address);
    late.send(&request(address, "GET", "/healthz", &[], b""));
    let _next = activated(&socket);
    assert_eq!(Answer::read(&mut late).status, 200);
    drop(late);
}

#[test]
fn the_file_of_a_passed_unix_socket_is_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("main.sock");
    let socket: OwnedFd = UnixListener::bind(&path).unwrap().into();
    let mut pushd = Start::new(CONFIG).after(ACTIVATE).stdin(socket.try_clone().unwrap()).run();
    assert_eq!(pushd.end(Signal::SIGTERM), 0);
    UnixStream::connect(&path).unwrap();
}

/// Starts pushd after these shell commands. It must refuse to start.
fn refused(commands: &str, config: &str) -> Ran {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pushd.toml"), config).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{commands}; exec \"$0\" -n -c pushd.toml"), common::PUSHD]);
    common::run(shell.current_dir(directory.path()))
}

#[test]
fn sockets_are_found_by_their_names() {
    let other = refused("export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=other; exec 3<&0", CONFIG);
    assert_eq!(other.code(), 71, "{}", other.stderr);
    let why = "systemd:main: the service manager passed no socket of that name; at the start it passed other";
    assert!(other.stderr.contains(why), "{}", other.stderr);
    let none = refused(":", CONFIG);
    assert_ne!(none.code(), 0);
    assert!(none.stderr.contains("no socket of that name; it passed none at the start"), "{}", none.stderr);
}

/// As in a program that is started by a service which was passed sockets.
#[test]
fn sockets_for_another_process_are_not_used() {
    let config = CONFIG.replace("systemd:main", "127.0.0.1:0");
    let pushd = Start::new(&config).after("export LISTEN_PID=1 LISTEN_FDS=1 LISTEN_FDNAMES=main").run();
    assert_eq!(get(pushd.address(), "/healthz").status, 200);
}

/// The command of a feed can read the credentials that the unit loads.
#[test]
fn the_command_of_a_feed_finds_the_credentials() {
    let config = r#"
        [server.main]
        listen = "127.0.0.1:0"
        [server.main.routes]
        "/ws" = { websocket = "push" }
        [hub.push]
        [feed.broker]
        hub = "push"
        channel = "all"
        command = ["sh", "-c", 'while :; do cat "$CREDENTIALS_DIRECTORY/broker"; sleep 0.05; done']
    "#;
    let start = Start::new(config)
        .after("mkdir credentials; echo secret >credentials/broker; export CREDENTIALS_DIRECTORY=$PWD/credentials");
    let pushd = start.run();
    Ws::open(pushd.address(), "/ws").expect_text("secret");
}
