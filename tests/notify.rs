//! What the service manager is told, seen on a socket in its place: ready once it serves, reloads with their time, how many
//! there are, a sign of life that is none by rote, and that the end begins.

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

/// How often a signal comes where they come all the time: more often than signs of life.
const SIGNAL_PACE: Duration = Duration::from_millis(200);

/// The other end of `NOTIFY_SOCKET`.
struct Notices {
    socket: UnixDatagram,
}

/// One datagram: an assignment a line.
#[derive(Debug)]
struct Told(Vec<(String, String)>);

impl Told {
    /// What was assigned to `name`.
    fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    fn says(&self, name: &str) -> bool {
        self.value(name) == Some("1")
    }
}

impl Notices {
    /// Listens in the directory of a pushd that is about to start.
    fn new(path: &Path) -> Notices {
        let socket = UnixDatagram::bind(path.join("notify")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Notices { socket }
    }

    /// Starts pushd whose notices come here.
    fn start(config: &str) -> (Pushd, Notices) {
        let start = Start::new(config);
        let notices = Notices::new(start.path());
        (start.after("export NOTIFY_SOCKET=\"$PWD/notify\"").run(), notices)
    }

    /// The next datagram.
    fn next(&self) -> Told {
        let mut bytes = [0; 4096];
        let length = loop {
            match self.socket.recv(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                length => break length.expect("nothing is told any more"),
            }
        };
        let text = std::str::from_utf8(&bytes[..length]).unwrap();
        let assignment = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        Told(text.lines().map(|line| assignment(line).unwrap_or_else(|| panic!("{line:?} in {text:?}"))).collect())
    }

    /// Waits for the next datagram that says so.
    fn told(&self, name: &str) -> Told {
        until(name, || Some(self.next()).filter(|told| told.says(name)))
    }

    /// Waits for the next datagram with a status; whether a sign of life came before it.
    fn next_status(&self) -> (String, bool) {
        let mut alive = false;
        until("a status", || {
            let told = self.next();
            alive |= told.says("WATCHDOG");
            told.value("STATUS").map(|status| (status.to_owned(), alive))
        })
    }

    /// Throws away what was told before; how many datagrams that were.
    fn forget(&self) -> usize {
        self.socket.set_nonblocking(true).unwrap();
        let forgotten = std::iter::from_fn(|| match self.socket.recv(&mut [0; 4096]) {
            Ok(_) => Some(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        })
        .count();
        self.socket.set_nonblocking(false).unwrap();
        forgotten
    }
}

#[test]
fn ready_is_said_once_it_serves() {
    let (pushd, notices) = Notices::start(PLAIN);
    let first = notices.next();
    assert!(first.says("READY"), "{first:?}");
    assert_eq!(first.value("STATUS"), Some("0 connections, 0 sessions; 0 publications, 0 deliveries"));
    assert_eq!(get(pushd.address(), "/healthz").status, 200);
    assert_eq!(fs::read_to_string(pushd.path().join("pushd.pid")).unwrap(), format!("{}\n", pushd.pid()));
}

#[test]
fn a_start_that_fails_says_nothing() {
    let (pushd, _manager) = Notices::start(PLAIN);
    let directory = common::daemon::directory_with(&PLAIN.replace("127.0.0.1:0", &pushd.address().to_string()));
    let notices = Notices::new(directory.path());
    let mut command = common::daemon::pushd(directory.path(), &["-n", "-c", "hub.toml"]);
    let ran = run(command.env("NOTIFY_SOCKET", directory.path().join("notify")));
    assert_eq!(ran.code(), 69, "{}", ran.stderr);
    assert_eq!(notices.forget(), 0);
}

#[test]
fn a_reload_says_when_it_began_and_that_it_is_over() {
    let (pushd, notices) = Notices::start(PLAIN);
    let mut last = 0;
    for (config, answer) in [(PLAIN, "Reloaded"), ("bogus", "Reload refused"), (PLAIN, "Reloaded")] {
        let line = pushd.reload(config);
        assert!(line.contains(answer), "{line}");
        let told = notices.told("RELOADING");
        // In the same datagram, and by the clock that goes on.
        let began: u64 = told.value("MONOTONIC_USEC").unwrap_or_else(|| panic!("{told:?}")).parse().unwrap();
        assert!(began > last, "{began} after {last}");
        last = began;
        let over = until("the end of the reload", || {
            let told = notices.next();
            assert!(!told.says("RELOADING"), "{told:?}");
            told.says("READY").then_some(told)
        });
        assert!(over.value("STATUS").is_some(), "{over:?}");
    }
}

#[test]
fn the_status_counts() {
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

/// A thread of pushd that is held, as if it hung. Dropped it goes on.
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
        // While a failed test unwinds it may be gone.
        let _ = ptrace::detach(self.0, None);
    }
}

#[test]
fn a_sign_of_life_is_given_only_while_every_shard_goes_on() {
    let (pushd, notices) = Notices::start(&format!("{PLAIN}\n[daemon]\nworkers = 2\n"));
    notices.told("WATCHDOG");
    let held = Held::shard(&pushd);
    notices.forget();
    // The look that was under way, and one that still sees progress since that.
    for _ in 0..3 {
        notices.next_status();
    }
    let (_, alive) = notices.next_status();
    assert!(!alive, "a sign of life although a shard hangs");
    drop(held);
    notices.told("WATCHDOG");
}

#[test]
fn signals_that_come_all_the_time_do_not_stop_the_signs_of_life() {
    let (pushd, notices) = Notices::start(PLAIN);
    let (over, is_over) = channel::<()>();
    std::thread::scope(|threads| {
        // In here, so that its end is that of the signals also where the test fails.
        let _over = over;
        threads.spawn(|| {
            let is_over = is_over;
            let mut signals = [Signal::SIGUSR1, Signal::SIGHUP].into_iter().cycle();
            while is_over.recv_timeout(SIGNAL_PACE) == Err(RecvTimeoutError::Timeout) {
                signals.next().into_iter().for_each(|signal| pushd.signal(signal));
            }
        });
        notices.told("WATCHDOG");
        notices.told("WATCHDOG");
    });
}

#[test]
fn the_end_is_announced_as_it_begins() {
    let (mut pushd, notices) = Notices::start(&format!("{PLAIN}\n[daemon]\ngrace = \"60s\"\n"));
    let mut client = Ws::open(pushd.address(), "/ws");
    pushd.signal(Signal::SIGTERM);
    // The client has not answered yet: nothing has ended.
    client.next_close();
    notices.told("STOPPING");
    assert!(!pushd.has_ended());
    client.wire.try_send(&common::ws::frame(common::ws::CLOSE, &common::ws::close_payload(1001, "")));
    assert_eq!(pushd.wait(), 0);
    assert_eq!(notices.forget(), 0, "something is told after the end was");
}
