//! Files that are sent slowly, to many clients, or many at once. A slow download has a timeout of its own, costs little
//! more than a connection, and does not affect others.

mod common;

use std::fs::{self, File};
use std::net::SocketAddr;

use common::http::{Answer, get, request};
use common::wire::Wire;
use common::{Pushd, Start, until_true};
use nix::sys::signal::Signal;

/// Larger than the kernel's buffers for a connection, and than a file kept in memory.
const LARGE: usize = 30 << 20;

/// Starts a pushd that serves a directory with a large file, after these shell commands.
fn serving(server: &str, commands: &'static str) -> Pushd {
    let config = format!(
        "[server.main]\nlisten = \"127.0.0.1:0\"\n{server}\n[server.main.routes]\n\"/\" = {{ static = \"www\", listing = true }}\n\
         \"/healthz\" = {{ health = true }}\n[daemon]\nworkers = 1\n[log]\nfile = \"pushd.log\"\n"
    );
    let start = Start::new(&config).after(commands);
    fs::create_dir(start.path().join("www")).unwrap();
    File::create(start.path().join("www/large")).unwrap().set_len(LARGE as u64).unwrap();
    start.run()
}

fn address(pushd: &Pushd) -> SocketAddr {
    common::until("the address in the log", || {
        common::address_in(&fs::read_to_string(pushd.path().join("pushd.log")).unwrap_or_default(), "main")
    })
}

/// The number of entries in a directory of `/proc/PID`, such as `fd` or `task`.
fn count(pushd: &Pushd, of: &str) -> usize {
    fs::read_dir(format!("/proc/{}/{of}", pushd.pid())).unwrap().count()
}

/// Requests the large file, and reads the head of the response.
fn ask_large(address: SocketAddr) -> Wire {
    let mut wire = Wire::connect_narrow(address);
    wire.send(&request(address, "GET", "/large", &[], b""));
    assert_eq!(Answer::read_head(&mut wire).status, 200);
    wire
}

#[test]
fn a_client_that_pauses_longer_than_keep_alive_receives_the_whole_file() {
    let pushd = serving("keep_alive = \"1s\"\nheader_timeout = \"1s\"", ":");
    let address = address(&pushd);
    let mut paused = ask_large(address);
    // Pause as long as three idle connections are kept, one after the other.
    for _ in 0..3 {
        let mut idle = Wire::connect(address);
        idle.send(&request(address, "GET", "/healthz", &[], b""));
        assert_eq!(Answer::read(&mut idle).status, 200);
        idle.expect_end();
    }
    assert!(paused.take(LARGE).iter().all(|byte| *byte == 0));
}

#[test]
fn a_file_is_opened_once_for_all_its_downloads() {
    const DOWNLOADS: usize = 60;
    let pushd = serving("", "ulimit -n 400");
    let address = address(&pushd);
    let before = count(&pushd, "fd");
    let mut unread: Vec<Wire> = (0..DOWNLOADS).map(|_| ask_large(address)).collect();
    until_true("only connections and one file are open", || count(&pushd, "fd") <= before + DOWNLOADS + 1);
    // There are descriptors left for other files.
    fs::rename(pushd.path().join("pushd.log"), pushd.path().join("pushd.log.old")).unwrap();
    pushd.signal(Signal::SIGUSR1);
    until_true("another log", || pushd.path().join("pushd.log").exists());
    for wire in &mut unread[..3] {
        assert_eq!(wire.take(LARGE).len(), LARGE);
    }
    drop(unread);
    until_true("all descriptors are closed", || count(&pushd, "fd") <= before + 1);
}

#[test]
fn downloads_leave_descriptors_for_everything_else() {
    // Half of these are for pushd itself, and an eighth of the other half is for files: eleven.
    let pushd = serving("", "ulimit -n 180");
    let address = address(&pushd);
    for number in 0..20 {
        let file = File::create(pushd.path().join(format!("www/{number}"))).unwrap();
        file.set_len(LARGE as u64).unwrap();
    }
    let mut statuses = Vec::new();
    let mut unread = Vec::new();
    for number in 0..20 {
        let mut wire = Wire::connect_narrow(address);
        wire.send(&request(address, "GET", &format!("/{number}"), &[], b""));
        let answer = Answer::read_head(&mut wire);
        statuses.push(answer.status);
        assert_eq!(answer.field("retry-after").is_some(), answer.status == 503);
        unread.push(wire);
    }
    assert_eq!(statuses, [vec![200; 11], vec![503; 9]].concat());
    assert_eq!(get(address, "/healthz").status, 200);
    drop(unread);
    until_true("a free descriptor", || get(address, "/19").status == 200);
}

#[test]
fn many_listings_at_once_need_few_threads() {
    let pushd = serving("", ":");
    let address = address(&pushd);
    fs::create_dir(pushd.path().join("www/many")).unwrap();
    for number in 0..2000 {
        File::create(pushd.path().join(format!("www/many/{number}"))).unwrap();
    }
    let before = count(&pushd, "task");
    let mut asking: Vec<Wire> = (0..100).map(|_| Wire::connect(address)).collect();
    asking.iter_mut().for_each(|wire| wire.send(&request(address, "GET", "/many/", &[], b"")));
    let bodies: Vec<Vec<u8>> = asking.iter_mut().map(|wire| Answer::read(wire).body).collect();
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    let threads = count(&pushd, "task") - before;
    assert!(threads <= pushd::config::limits::BLOCKING_THREADS_MAX, "{threads}");
}
