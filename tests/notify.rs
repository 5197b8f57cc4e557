//! The messages to the service manager, received by the test: ready once it serves, reloads with their time, the status
//! line, the watchdog message that proves progress, and the beginning of the end.

mod common;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use common::http::{get, publish};
use common::ws::Ws;
use common::{DEADLINE, PLAIN, Pushd, Start, run, until};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The interval of signals that arrive all the time: shorter than that of the watchdog messages.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(200);

/// The other end of `NOTIFY_SOCKET`.
struct Notices {
    socket: UnixDatagram,
}

/// A datagram: one assignment a line.
#[derive(Debug)]
struct Notice(Vec<(String, String)>);

impl Notice {
    /// The value of `name`.
    fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    fn has(&self, name: &str) -> bool {
        self.value(name) == Some("1")
    }
}

impl Notices {
    /// Listens in the directory of a pushd that will be started.
    fn new(path: &Path) -> Notices {
        let socket = UnixDatagram::bind(path.join("notify")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Notices { socket }
    }

    /// Starts a pushd that sends its notices here.
    fn start(config: &str) -> (Pushd, Notices) {
        let start = Start::new(config);
        let notices = Notices::new(start.path());
        (start.after("export NOTIFY_SOCKET=\"$PWD/notify\"").run(), notices)
    }

    /// The next datagram.
    fn next(&self) -> Notice {
        let mut bytes = [0; 4096];
        let length = loop {
            match self.socket.recv(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                length => break length.expect("no more notices"),
            }
        };
        let text = std::str::from_utf8(&bytes[..length]).unwrap();
        let assignment = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        Notice(text.lines().map(|line| assignment(line).unwrap_or_else(|| panic!("{line:?} in {text:?}"))).collect())
    }

    /// Waits for the next datagram with `name=1`.
    fn wait_for(&self, name: &str) -> Notice {
        until(name, || Some(self.next()).filter(|notice| notice.has(name)))
    }

    /// Waits for the next datagram with a status. Returns whether a watchdog message came before it.
    fn next_status(&self) -> (String, bool) {
        let mut alive = false;
        until("a status", || {
            let notice = self.next();
            alive |= notice.has("WATCHDOG");
            notice.value("STATUS").map(|status| (status.to_owned(), alive))
        })
    }

    /// Discards all waiting datagrams. Returns their number.
    fn discard(&self) -> usize {
        self.socket.set_nonblocking(true).unwrap();
        let discarded = std::iter::from_fn(|| match self.socket.recv(&mut [0; 4096]) {
            Ok(_) => Some(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        })
        .count();
        self.socket.set_nonblocking(false).unwrap();
        discarded
    }
}

#[test]
fn readiness_is_reported_once_it_serves() {
    let (pushd, notices) = Notices::start(PLAIN);
    let first = notices.next();
    assert!(first.has("READY"), "{first:?}");
    assert_eq!(first.value("STATUS"), Some("0 connections, 0 sessions; 0 publications, 0 deliveries"));
    assert_eq!(get(pushd.address(), "/healthz").status, 200);
    assert_eq!(fs::read_to_string(pushd.path().join("pushd.pid")).unwrap(), format!("{}\n", pushd.pid()));
}

#[test]
fn a_failed_start_sends_nothing() {
    let (pushd, _manager) = Notices::start(PLAIN);
    let directory = common::daemon::directory_with(&PLAIN.replace("127.0.0.1:0", &pushd.address().to_string()));
    let notices = Notices::new(directory.path());
    let mut command = common::daemon::pushd(directory.path(), &["-n", "-c", "hub.toml"]);
    let ran = run(command.env("NOTIFY_SOCKET", directory.path().join("notify")));
    assert_eq!(ran.code(), 69, "{}", ran.stderr);
    assert_eq!(notices.discard(), 0);
}

#[test]
fn the_beginning_and_the_end_of_a_reload_are_reported() {
    let (pushd, notices) = Notices::start(PLAIN);
    let mut last = 0;
    for (config, answer) in [(PLAIN, "Reloaded"), ("bogus", "Reload refused"), (PLAIN, "Reloaded")] {
        let line = pushd.reload(config);
        assert!(line.contains(answer), "{line}");
        let notice = notices.wait_for("RELOADING");
        // In the same datagram, and by the monotonic clock.
        let began: u64 = notice.value("MONOTONIC_USEC").unwrap_or_else(|| panic!("{notice:?}")).parse().unwrap();
        assert!(began > last, "{began} after {last}");
        last = began;
        let over = until("the end of the reload", || {
            let notice = notices.next();
            assert!(!notice.has("RELOADING"), "{notice:?}");
            notice.has("READY").then_some(notice)
        });
        assert!(over.value("STATUS").is_some(), "{over:?}");
    }
}

#[test]
fn the_status_line_has_the_current_numbers() {
    let (pushd, notices) = Notices::start(PLAIN);
    let address = pushd.address();
    let mut clients: Vec<Ws> = (0..3).map(|_| Ws::open(address, "/ws")).collect();
    assert_eq!(publish(address, "/publish/all", "counted"), 3);
    for client in &mut clients {
        client.expect_text("counted");
    }
    let expect = |status: &str| until(status, || (notices.next_status().0 == status).then_some(()));
    expect("3 connections, 3 sessions; 1 publications, 3 deliveries");
    for client in clients {
        client.close();
    }
    expect("0 connections, 0 sessions; 1 publications, 3 deliveries");
}

/// A stopped thread of pushd, as if it hung. It continues when this is dropped.
struct Held(Pid);

impl Held {
    fn shard(pushd: &Pushd) -> Held {
        let threads = fs::read_dir(format!("/proc/{}/task", pushd.pid())).unwrap().map(|entry| entry.unwrap().path());
        let shard = |path: &Path| fs::read_to_string(path.join("comm")).unwrap().starts_with("shard");
        let path = threads.into_iter().find(|path| shard(path)).expect("a shard's thread");
        let thread = Pid::from_raw(path.file_name().unwrap().to_str().unwrap().parse().unwrap());
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        let status = waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        assert!(matches!(status, WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..)), "{status:?}");
        Held(thread)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // If the test failed, the process may have ended.
        let _ = ptrace::detach(self.0, None);
    }
}

#[test]
fn the_watchdog_message_is_sent_only_while_every_shard_makes_progress() {
    let (pushd, notices) = Notices::start(&format!("{PLAIN}\n[daemon]\nworkers = 2\n"));
    notices.wait_for("WATCHDOG");
    let held = Held::shard(&pushd);
    notices.discard();
    // The check that was in progress, and one that still sees progress since the last one.
    for _ in 0..3 {
        notices.next_status();
    }
    let (_, alive) = notices.next_status();
    assert!(!alive, "a watchdog message although a shard hangs");
    drop(held);
    notices.wait_for("WATCHDOG");
}

#[test]
fn frequent_signals_do_not_stop_the_watchdog_messages() {
    let (pushd, notices) = Notices::start(PLAIN);
    let (over, is_over) = channel::<()>();
    std::thread::scope(|threads| {
        // Owned by this scope, so that the signals end even if the test fails.
        let _over = over;
        threads.spawn(|| {
            let is_over = is_over;
            let mut signals = [Signal::SIGUSR1, Signal::SIGHUP].into_iter().cycle();
            while is_over.recv_timeout(SIGNAL_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                signals.next().into_iter().for_each(|signal| pushd.signal(signal));
            }
        });
        notices.wait_for("WATCHDOG");
        notices.wait_for("WATCHDOG");
    });
}

#[test]
fn the_shutdown_is_reported_when_it_begins() {
    let (mut pushd, notices) = Notices::start(&format!("{PLAIN}\n[daemon]\ngrace = \"60s\"\n"));
    let mut client = Ws::open(pushd.address(), "/ws");
    pushd.signal(Signal::SIGTERM);
    // The client has not answered yet, so the shutdown has not ended.
    client.next_close();
    notices.wait_for("STOPPING");
    assert!(!pushd.has_ended());
    client.wire.try_send(&common::ws::frame(common::ws::CLOSE, &common::ws::close_payload(1001, "")));
    assert_eq!(pushd.wait(), 0);
    assert_eq!(notices.discard(), 0, "a notice after the end");
}
