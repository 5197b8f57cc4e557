//! Costs that do not depend on the speed of the machine: the memory of a session and of a request body, and the balance between shards.

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::http::{Answer, metric, request};
use common::polls::{poll, position};
use common::wire::Wire;
use common::{DEADLINE, PLAIN, Pushd, start, until_true, ws};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pushd::session::Session;
use pushd::shard::stream::Raw;

/// The sessions that each test opens, if so many files may be open.
const SESSIONS: usize = 10_000;
/// With fewer, a single page of memory would change the result by several bytes per session.
const SESSIONS_MIN: usize = 2000;
/// The files that this process and pushd have open, other than those of sessions.
const OTHER_FILES: usize = 200;
/// The memory that an idle session may take, in bytes.
const SESSION_BYTES_MAX: usize = 1024;
/// The same when all sessions connect at once, four times.
const STORM_SESSION_BYTES_MAX: usize = 600;
/// The size of the session itself, without its boxes and names: four cache lines.
const SESSION_SIZE_MAX: usize = 256;

/// Held by one test at a time. Together they would have more files open than many machines allow.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of sessions to open. It raises the limit of open files of this process, which pushd inherits.
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
    let more = "\"/events\" = { events = \"push\" }\n\"/poll\" = { poll = \"kept\" }\n[hub.push]";
    let routes = PLAIN.replace("[hub.push]", more);
    start(&format!("{routes}\n[hub.kept]\nhistory = {{ messages = 10 }}\n[daemon]\nworkers = {workers}\n"))
}

/// What a client of the measured sessions uses.
#[derive(Debug, Clone, Copy)]
enum Client {
    WebSocket,
    EventStream,
    Poll,
}

impl Client {
    fn request(self, address: SocketAddr) -> Vec<u8> {
        match self {
            Client::WebSocket => ws::handshake(address, "/ws", &[]),
            Client::EventStream => request(address, "GET", "/events", &["Accept: text/event-stream"], b""),
            Client::Poll => {
                let since = position(&poll(address, "/poll"));
                request(address, "GET", &format!("/poll?since={since}&wait=60s"), &[], b"")
            }
        }
    }

    /// Reads the response, up to the point from which the session is idle.
    fn read_response(self, stream: &mut TcpStream) {
        let (status, end) = match self {
            Client::WebSocket => (&b"HTTP/1.1 101 "[..], &b"\r\n\r\n"[..]),
            Client::EventStream => (&b"HTTP/1.1 200 "[..], &b"\n\n\r\n"[..]),
            Client::Poll => (&b"HTTP/1.1 200 "[..], &b"\r\n\r\n"[..]),
        };
        let (mut response, mut length) = ([0; 1024], 0);
        while !response[..length].ends_with(end) {
            let count = match stream.read(&mut response[length..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                count => count.unwrap(),
            };
            assert!(count > 0, "{:?}", String::from_utf8_lossy(&response[..length]));
            length += count;
        }
        assert!(response.starts_with(status), "{:?}", String::from_utf8_lossy(&response[..length]));
    }
}

/// Opens sessions, 50 at once, and waits until pushd has all of them.
fn open(pushd: &Pushd, client: Client, sessions: usize) -> Vec<TcpStream> {
    open_at_once(pushd, client, sessions, 50)
}

/// The same with `at_once` sessions at once: all of a batch are connected before the first of them sends its request.
fn open_at_once(pushd: &Pushd, client: Client, sessions: usize, at_once: usize) -> Vec<TcpStream> {
    let address = pushd.address();
    let request = client.request(address);
    let mut open = Vec::with_capacity(sessions);
    while open.len() < sessions {
        let begun = open.len();
        for _ in begun..sessions.min(begun + at_once) {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            open.push(stream);
        }
        open[begun..].iter_mut().for_each(|stream| stream.write_all(&request).unwrap());
        open[begun..].iter_mut().for_each(|stream| client.read_response(stream));
    }
    until_true("all sessions", || metric(address, "pushd_sessions") == sessions as u64);
    open
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
    for client in [Client::WebSocket, Client::EventStream, Client::Poll] {
        let pushd = with_workers(1);
        // Some memory is taken once, by the first sessions and the first request for metrics.
        drop(open(&pushd, client, 10));
        until_true("the end of these sessions", || metric(pushd.address(), "pushd_sessions") == 0);
        let before = resident(&pushd, "VmRSS:");
        let open = open(&pushd, client, sessions);
        let bytes = resident(&pushd, "VmRSS:").saturating_sub(before) / sessions;
        println!("{client:?}: {bytes} bytes for each of {sessions} idle sessions");
        assert!(bytes < SESSION_BYTES_MAX, "{client:?}: {bytes} bytes for each of {sessions} idle sessions");
        drop(open);
    }
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
    drop(open(&pushd, Client::WebSocket, 10));
    until_true("those to be gone", || metric(pushd.address(), "pushd_sessions") == 0);
    let before = resident(&pushd, "VmRSS:");
    for round in 1..=4 {
        let open = open_at_once(&pushd, Client::WebSocket, sessions, AT_ONCE);
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
        let open = open(&pushd, Client::WebSocket, sessions);
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
