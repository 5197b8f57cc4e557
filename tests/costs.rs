//! What a session costs, in bytes, and what a body does, and how sessions are dealt among shards: figures that do not depend on how fast the
//! machine is.

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::http::{Answer, metric};
use common::wire::Wire;
use common::{DEADLINE, PLAIN, Pushd, start, until_true, ws};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pushd::session::Session;
use pushd::shard::stream::Raw;

/// As many sessions as each test opens, where so many files may be open.
const SESSIONS: usize = 10_000;
/// Fewer would say nothing: a page more or less would be bytes of each.
const SESSIONS_MIN: usize = 2000;
/// Files that this process and pushd have open beside sessions.
const OTHER_FILES: usize = 200;
/// What a session may add to the memory of the process, in bytes.
const SESSION_BYTES_MAX: usize = 2048;
/// The same where they come in a storm, four times over.
const STORM_SESSION_BYTES_MAX: usize = 600;
/// How large a session is by itself, its boxes and names not counted: four lines of a cache.
const SESSION_SIZE_MAX: usize = 256;

/// One at a time: together they would have more files open than many a machine allows.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many sessions there may be, once the limit of this process, which pushd inherits, is raised as far as it goes.
fn sessions() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let sessions = SESSIONS.min(usize::try_from(hard).unwrap_or(usize::MAX).saturating_sub(OTHER_FILES));
    assert!(sessions >= SESSIONS_MIN, "only {hard} files may be open: raise the limit (ulimit -Hn)");
    if sessions < SESSIONS {
        println!("{sessions} sessions instead of {SESSIONS}, because only {hard} files may be open");
    }
    sessions
}

fn with_workers(workers: usize) -> Pushd {
    start(&format!("{PLAIN}\n[daemon]\nworkers = {workers}\n"))
}

/// Opens sessions, and sees that pushd has them all. Some at once, and with no more care than it takes: there are many.
fn open(pushd: &Pushd, sessions: usize) -> Vec<TcpStream> {
    const AT_ONCE: usize = 50;
    open_at_once(pushd, sessions, AT_ONCE)
}

/// The same so many at once: all of a batch are connected before the first of them asks.
fn open_at_once(pushd: &Pushd, sessions: usize, at_once: usize) -> Vec<TcpStream> {
    let address = pushd.address();
    let request = ws::handshake(address, "/ws", &[]);
    let mut open = Vec::with_capacity(sessions);
    while open.len() < sessions {
        let begun = open.len();
        for _ in begun..sessions.min(begun + at_once) {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            open.push(stream);
        }
        open[begun..].iter_mut().for_each(|stream| stream.write_all(&request).unwrap());
        open[begun..].iter_mut().for_each(expect_upgrade);
    }
    until_true("all sessions", || metric(address, "pushd_sessions") == sessions as u64);
    open
}

fn expect_upgrade(stream: &mut TcpStream) {
    let (mut answer, mut length) = ([0; 1024], 0);
    while !answer[..length].ends_with(b"\r\n\r\n") {
        let count = match stream.read(&mut answer[length..]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            count => count.unwrap(),
        };
        assert!(count > 0, "{:?}", String::from_utf8_lossy(&answer[..length]));
        length += count;
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{:?}", String::from_utf8_lossy(&answer[..length]));
}

/// Memory that the process holds (`VmRSS:`), or that it held at most (`VmHWM:`), in bytes.
fn resident(pushd: &Pushd, which: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", pushd.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(which)).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() << 10
}

#[test]
fn an_idle_session_takes_few_bytes() {
    let _turn = turn();
    let sessions = sessions();
    let pushd = with_workers(1);
    // What the first sessions and the first look at the metrics take is taken once.
    drop(open(&pushd, 10));
    until_true("those to be gone", || metric(pushd.address(), "pushd_sessions") == 0);
    let before = resident(&pushd, "VmRSS:");
    let open = open(&pushd, sessions);
    let bytes = resident(&pushd, "VmRSS:").saturating_sub(before) / sessions;
    println!("{bytes} bytes for each of {sessions} idle sessions");
    assert!(bytes < SESSION_BYTES_MAX, "{bytes} bytes for each of {sessions} idle sessions");
    drop(open);
}

#[test]
fn a_session_is_a_few_lines_of_a_cache() {
    let bytes = size_of::<Session<Raw>>();
    println!("{bytes} bytes for the session itself");
    assert!(bytes <= SESSION_SIZE_MAX, "{bytes} bytes for the session itself");
}

#[test]
fn a_storm_of_clients_costs_no_more_than_its_sessions() {
    const AT_ONCE: usize = 512;
    let _turn = turn();
    let sessions = sessions();
    let pushd = with_workers(1);
    drop(open(&pushd, 10));
    until_true("those to be gone", || metric(pushd.address(), "pushd_sessions") == 0);
    let before = resident(&pushd, "VmRSS:");
    for round in 1..=4 {
        let open = open_at_once(&pushd, sessions, AT_ONCE);
        let bytes = resident(&pushd, "VmRSS:").saturating_sub(before) / sessions;
        println!("round {round}: {bytes} bytes for each of {sessions} idle sessions");
        assert!(bytes < STORM_SESSION_BYTES_MAX, "round {round}: {bytes} bytes for each of {sessions} idle sessions");
        drop(open);
        until_true("those to be gone", || metric(pushd.address(), "pushd_sessions") == 0);
    }
}

#[test]
fn a_body_that_comes_byte_by_byte_weighs_what_it_is() {
    const LENGTH: usize = 128 << 10;
    let listen = "listen = \"127.0.0.1:0\"";
    let patient = PLAIN.replace(listen, &format!("{listen}\nbody_timeout = \"7d\""));
    let pushd = start(&format!("{patient}message_max = {LENGTH}\n"));
    let mut wire = Wire::connect(pushd.address());
    let mut post = |chunks: &[u8]| {
        wire.send(b"POST /publish/all HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
        wire.send(chunks);
        assert_eq!(Answer::read(&mut wire).status, 200);
    };
    // What the first takes is taken once.
    let whole = [format!("{LENGTH:x}\r\n").as_bytes(), &[b'x'; LENGTH], b"\r\n0\r\n\r\n"].concat();
    post(&whole);
    let before = resident(&pushd, "VmHWM:");
    post(&[&b"1\r\nx\r\n".repeat(LENGTH)[..], b"0\r\n\r\n"].concat());
    let bytes = resident(&pushd, "VmHWM:") - before;
    println!("{bytes} bytes more for a body of {LENGTH} in as many pieces");
    assert!(bytes < 8 * LENGTH, "{bytes} bytes more for a body of {LENGTH} in as many pieces");
}

#[test]
fn sessions_are_dealt_evenly_among_shards() {
    let _turn = turn();
    let sessions = sessions();
    for workers in [2, 4] {
        let pushd = with_workers(workers);
        let open = open(&pushd, sessions);
        let shard = |index| metric(pushd.address(), &format!("pushd_connections{{shard=\"{index}\"}}"));
        let dealt: Vec<u64> = (0..workers).map(shard).collect();
        println!("{sessions} sessions on {workers} shards: {dealt:?}");
        let (least, most) = (*dealt.iter().min().unwrap(), *dealt.iter().max().unwrap());
        assert!(
            most - least <= (sessions / workers / 100) as u64,
            "{sessions} sessions on {workers} shards: {dealt:?}"
        );
        drop(open);
    }
}
