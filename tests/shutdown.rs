//! The shutdown: every session is closed, requests in flight are finished, no new connection is accepted, and the grace
//! is kept even if clients do not answer.

mod common;

use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use common::http::{Answer, metric, publish, request};
use common::wire::Wire;
use common::ws::{CLOSE, Hixie, Ws};
use common::{PLAIN, Pushd, start, until_true};
use nix::fcntl::AT_FDCWD;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use nix::sys::signal::Signal;

/// The plain configuration with this grace.
fn grace(grace: &str) -> String {
    format!(
        "{}\n[daemon]\ngrace = \"{grace}\"\nworkers = 2\n",
        PLAIN.replace("\"broadcast\"", "\"broadcast\", draft76 = true")
    )
}

/// Checks the last lines of the log after a clean shutdown.
fn ended_well(pushd: &Pushd, signal: &str) {
    let log = pushd.log();
    let offset = |words: &str| log.find(words).unwrap_or_else(|| panic!("no {words:?} in {log}"));
    assert!(offset(&format!("Received {signal}, shutting down")) < offset("Server Shut Down"), "{log}");
    assert!(log.trim_end().ends_with("Server Shut Down"), "{log}");
    assert!(!pushd.path().join("pushd.pid").exists());
}

fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

#[test]
fn every_session_is_closed_and_idle_connections_are_not_waited_for() {
    for (signal, name) in [(Signal::SIGTERM, "SIGTERM"), (Signal::SIGINT, "SIGINT")] {
        let mut pushd = start(&grace("30s"));
        let address = pushd.address();
        let mut clients: Vec<Ws> = (0..9).map(|_| Ws::open(address, "/ws")).collect();
        let mut old = Hixie::open(address, "/chat");
        let mut idle = Wire::connect(address);
        idle.send(&request(address, "GET", "/healthz", &[], b""));
        assert_eq!(Answer::read(&mut idle).status, 200);
        // Connected, without any request.
        let mut silent = Wire::connect(address);
        until_true("all accepted", || metric(address, "pushd_connections_accepted_total") >= 12);
        let began = Instant::now();
        pushd.signal(signal);
        for client in &mut clients {
            client.expect_close(1001, "the server is going away");
        }
        old.expect_close();
        idle.expect_end();
        silent.expect_end();
        assert_eq!(pushd.wait(), 0);
        assert!(began.elapsed() < Duration::from_secs(10), "nothing to wait for, but it took {:?}", began.elapsed());
        ended_well(&pushd, name);
        assert!(is_refused(address));
    }
}

#[test]
fn publications_before_the_shutdown_arrive_before_the_close() {
    let mut pushd = start(&grace("30s"));
    let address = pushd.address();
    let mut client = Ws::open(address, "/ws");
    for number in 0..100 {
        assert_eq!(publish(address, "/publish/all", &number.to_string()), 1);
    }
    pushd.signal(Signal::SIGTERM);
    for number in 0..100 {
        client.expect_text(&number.to_string());
    }
    client.expect_close(1001, "going away");
    assert_eq!(pushd.wait(), 0);
}

#[test]
fn a_request_in_flight_is_finished() {
    let mut pushd = start(&grace("30s"));
    let address = pushd.address();
    let mut publisher = Wire::connect(address);
    let whole = request(address, "POST", "/publish/all", &["Expect: 100-continue"], b"in flight");
    let (first, rest) = whole.split_at(whole.len() - 4);
    publisher.send(first);
    assert_eq!(Answer::read_head(&mut publisher).status, 100, "the request is in flight");
    // A session that does not answer delays the end of the process long enough for the checks.
    let mut silent = Ws::open(address, "/ws");
    pushd.signal(Signal::SIGTERM);
    assert_eq!(silent.next_close().0, 1001);
    publisher.send(rest);
    let answer = Answer::read(&mut publisher);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.field("connection"), Some("close"));
    publisher.expect_end();
    drop(silent);
    assert_eq!(pushd.wait(), 0);
    ended_well(&pushd, "SIGTERM");
}

#[test]
fn a_request_with_an_incomplete_head_is_not_waited_for() {
    let mut pushd = start(&grace("30s"));
    let address = pushd.address();
    let mut first = Wire::connect(address);
    first.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n");
    let mut second = Wire::connect(address);
    second.send(&request(address, "GET", "/healthz", &[], b""));
    assert_eq!(Answer::read(&mut second).status, 200);
    second.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n");
    until_true("all accepted", || metric(address, "pushd_connections_accepted_total") >= 3);
    let began = Instant::now();
    pushd.signal(Signal::SIGTERM);
    first.expect_end();
    second.expect_end();
    assert_eq!(pushd.wait(), 0);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[test]
fn a_request_that_arrived_before_the_shutdown_is_answered() {
    let mut pushd = start(&grace("30s"));
    let address = pushd.address();
    let mut idle: Vec<Wire> = (0..8).map(|_| Wire::connect(address)).collect();
    for wire in &mut idle[..4] {
        wire.send(&request(address, "GET", "/healthz", &[], b""));
        assert_eq!(Answer::read(wire).status, 200);
    }
    until_true("all accepted", || metric(address, "pushd_connections_accepted_total") >= 9);
    // Requests sent to a stopped process are in the kernel when it continues and shuts down.
    pushd.signal(Signal::SIGSTOP);
    for wire in &mut idle {
        wire.send(&request(address, "POST", "/publish/all", &[], b"the last one"));
    }
    pushd.signal(Signal::SIGTERM);
    pushd.signal(Signal::SIGCONT);
    for wire in &mut idle {
        let answer = Answer::read(wire);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(wire.take_all().is_empty());
    }
    drop(idle);
    assert_eq!(pushd.wait(), 0);
}

#[test]
fn no_new_connection_is_accepted() {
    let mut pushd = start(&grace("30s"));
    let address = pushd.address();
    let mut silent = Ws::open(address, "/ws");
    pushd.signal(Signal::SIGTERM);
    assert_eq!(silent.next_close().0, 1001);
    until_true("a refusal", || is_refused(address));
    // Before the timeout for the session's answer: the server no longer listens, but it still runs.
    assert!(!pushd.has_ended());
    silent.send(CLOSE, &[]);
    assert_eq!(pushd.wait(), 0);
}

#[test]
fn clients_that_do_not_answer_are_cut_off_after_the_grace() {
    let mut pushd = start(&grace("1s"));
    let address = pushd.address();
    let mut silent = Ws::open(address, "/ws");
    let mut halfway = Wire::connect(address);
    halfway.send(&request(address, "POST", "/publish/all", &["Expect: 100-continue"], b"never whole")[..99]);
    assert_eq!(Answer::read_head(&mut halfway).status, 100, "the request is in flight");
    let began = Instant::now();
    pushd.signal(Signal::SIGINT);
    assert_eq!(silent.next_close().0, 1001);
    assert_eq!(pushd.wait(), 0, "slow clients are not an error");
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    silent.wire.expect_end();
    assert!(pushd.log().contains("2 connections did not end within the grace and were cut off"), "{}", pushd.log());
    ended_well(&pushd, "SIGINT");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second) in [(Signal::SIGTERM, Signal::SIGTERM), (Signal::SIGTERM, Signal::SIGINT)] {
        let mut pushd = start(&grace("1h"));
        let mut silent = Ws::open(pushd.address(), "/ws");
        pushd.signal(first);
        assert_eq!(silent.next_close().0, 1001);
        // Two signals within a few milliseconds count as one, so it is sent repeatedly.
        until_true("its end", || {
            pushd.signal(second);
            pushd.has_ended()
        });
        assert_eq!(pushd.wait(), 1, "not a clean end");
        silent.wire.expect_end();
    }
}

#[test]
fn a_configuration_that_was_replaced_by_a_pipe_blocks_nothing() {
    let mut pushd = start(&grace("1h"));
    let file = pushd.path().join("pushd.toml");
    std::fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    pushd.signal(Signal::SIGHUP);
    pushd.logged("Reload refused, nothing changed");
    assert!(pushd.log().contains("this is a pipe, not a file"), "{}", pushd.log());
    assert_eq!(pushd.end(Signal::SIGTERM), 0);
}

/// Blocks every opening of a file until the returned value is dropped, like a file system that hangs. This needs root.
fn hung(file: &Path) -> Fanotify {
    let hung = Fanotify::init(InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC, EventFFlags::O_RDONLY).unwrap();
    hung.mark(MarkFlags::FAN_MARK_ADD, MaskFlags::FAN_OPEN_PERM, AT_FDCWD, Some(file)).unwrap();
    hung
}

#[test]
fn a_configuration_on_a_hanging_file_system_does_not_delay_the_shutdown() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let mut pushd = start(&grace("1h"));
    let hung = hung(&pushd.path().join("pushd.toml"));
    pushd.signal(Signal::SIGHUP);
    // The thread that reads the file exists, and waits.
    until_true("the reload", || threads(pushd.pid()).contains(&"timeout".to_owned()));
    assert_eq!(pushd.end(Signal::SIGTERM), 0);
    assert!(pushd.log().contains("pushd.toml cannot be read: "), "{}", pushd.log());
    drop(hung);
}

#[test]
fn a_second_signal_ends_even_a_process_that_is_stuck_in_a_reload() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let mut pushd = start(&grace("1h"));
    let log = pushd.path().join("other.log");
    std::fs::write(&log, "").unwrap();
    let hung = hung(&log);
    let other = format!("{}[log]\nfile = \"other.log\"\n", grace("1h"));
    std::fs::write(pushd.path().join("pushd.toml"), other).unwrap();
    pushd.signal(Signal::SIGHUP);
    until_true("the reload at the log", || {
        let mut asked = [PollFd::new(hung.as_fd(), PollFlags::POLLIN)];
        poll(&mut asked, PollTimeout::ZERO).unwrap() > 0
    });
    until_true("its end", || {
        pushd.signal(Signal::SIGTERM);
        pushd.has_ended()
    });
    assert_eq!(pushd.wait(), 1, "not a clean end");
    drop(hung);
}

/// The names of its threads.
fn threads(pid: nix::unistd::Pid) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(Result::unwrap);
    tasks.filter_map(|task| Some(std::fs::read_to_string(task.path().join("comm")).ok()?.trim().to_owned())).collect()
}

#[test]
fn two_signals_at_once_count_as_one() {
    let mut pushd = start(&grace("30s"));
    let mut client = Ws::open(pushd.address(), "/ws");
    pushd.signal(Signal::SIGTERM);
    pushd.signal(Signal::SIGTERM);
    client.expect_close(1001, "going away");
    assert_eq!(pushd.wait(), 0);
}

#[test]
fn feeds_and_their_commands_end_too() {
    let feed =
        "[feed.lines]\nhub = \"push\"\nchannel = \"all\"\ncommand = [\"sh\", \"-c\", \"echo $$; exec sleep 1000\"]\n";
    let mut pushd = start(&format!("{}\n{feed}", grace("30s")));
    pushd.logged("feed lines: sh started, PID ");
    let log = pushd.log();
    let number = log.split("sh started, PID ").nth(1).unwrap().lines().next().unwrap();
    let stat = format!("/proc/{number}/stat");
    assert!(std::fs::exists(&stat).unwrap());
    assert_eq!(pushd.end(Signal::SIGTERM), 0);
    // The process that becomes its parent may leave it as a zombie for a while.
    let is_gone =
        || std::fs::read_to_string(&stat).map_or(true, |stat| stat.rsplit(')').next().unwrap().starts_with(" Z"));
    until_true("the end of the command", is_gone);
}
