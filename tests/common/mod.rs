//! Shared by all tests from outside: the real binary on port 0, and clients that work on bytes.
//!
//! Nothing here waits for a fixed time. Every wait is for a condition; the deadline only ends a test that failed.

#![allow(dead_code, reason = "each test uses a part of this file")]

pub mod daemon;
pub mod events;
pub mod http;
pub mod polls;
pub mod service;
pub mod tls;
pub mod wire;
pub mod ws;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// The binary under test.
pub const PUSHD: &str = env!("CARGO_BIN_EXE_pushd");
/// A test that waits longer than this has failed.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How often a condition is checked.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// A server with every kind of route, for tests that need no configuration of their own.
pub const PLAIN: &str = r#"
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/ws" = { websocket = "push", channels = ["{channel=all}"] }
"/echo" = { websocket = "push", on_message = "echo" }
"/chat" = { websocket = "push", channels = ["{channel=all}"], on_message = "broadcast" }
"/publish/{channel}" = { publish = "push", channel = "{channel}" }
"/metrics" = { metrics = true }
"/healthz" = { health = true }
"/readyz" = { ready = true }
"/" = { page = "live" }
[hub.push]
"#;

/// Waits until `look` returns something.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < DEADLINE, "timed out waiting for {what}");
        // Polls until the deadline.
        sleep(LOOK_PAUSE);
    }
}

/// Waits until `look` returns true.
pub fn until_true(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || look().then_some(()));
}

/// Asks for a reload. Returns the line of the log with the outcome.
pub fn outcome_of_reload(log: impl Fn() -> String, ask: impl FnOnce()) -> String {
    let answers = || -> Vec<String> {
        let log = log();
        let lines = log.lines().filter(|line| line.contains("] Reloaded ") || line.contains("] Reload refused"));
        lines.map(str::to_owned).collect()
    };
    let before = answers().len();
    ask();
    until("the end of the reload", || answers().get(before).cloned())
}

/// A pushd to be started in the foreground, in a directory of its own.
pub struct Start {
    directory: TempDir,
    arguments: Vec<String>,
    shell: Option<&'static str>,
    stdin: Stdio,
}

impl Start {
    /// Sets the configuration.
    pub fn new(config: &str) -> Start {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("pushd.toml"), config).unwrap();
        Start { directory, arguments: Vec::new(), shell: None, stdin: Stdio::null() }
    }

    /// Adds arguments.
    pub fn arguments(mut self, arguments: &[&str]) -> Start {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Runs these shell commands first, in a shell that then executes pushd.
    pub fn after(mut self, commands: &'static str) -> Start {
        self.shell = Some(commands);
        self
    }

    /// Sets its standard input.
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Start {
        self.stdin = stdin.into();
        self
    }

    /// The directory it runs in.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Starts it, and waits until it is ready.
    pub fn run(self) -> Pushd {
        self.try_run().unwrap_or_else(|why| panic!("it ended at its start, {why}"))
    }

    /// The same for a pushd that may refuse to start. The error contains the exit code and the log.
    pub fn try_run(self) -> Result<Pushd, String> {
        let mut command = match self.shell {
            None => Command::new(PUSHD),
            Some(commands) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("{commands}; exec \"$0\" \"$@\""), PUSHD]);
                shell
            }
        };
        let stream = |name: &str| Stdio::from(File::create(self.directory.path().join(name)).unwrap());
        command.args(["-n", "-c", "pushd.toml"]).args(&self.arguments).current_dir(self.directory.path());
        command.stdin(self.stdin).stdout(stream("stdout")).stderr(stream("stderr"));
        let mut pushd = Pushd { child: command.spawn().unwrap(), directory: self.directory, ended: false };
        let pidfile = pushd.path().join("pushd.pid");
        let ended = until("readiness", || {
            let is_ready = fs::read_to_string(&pidfile).is_ok_and(|number| number.ends_with('\n'));
            let ended = pushd.child.try_wait().unwrap();
            (is_ready || ended.is_some()).then_some(ended)
        });
        match ended {
            None => Ok(pushd),
            Some(status) => {
                pushd.ended = true;
                Err(format!("{status}:\n{}", pushd.log()))
            }
        }
    }
}

/// A pushd that runs in the foreground. When dropped, it is ended by SIGTERM, and must exit with 0.
pub struct Pushd {
    child: Child,
    directory: TempDir,
    ended: bool,
}

/// Starts pushd with this configuration.
pub fn start(config: &str) -> Pushd {
    Start::new(config).run()
}

impl Pushd {
    /// The directory it runs in.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// Its standard error so far, which is its log by default.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("stderr")).unwrap()
    }

    /// Waits until the log contains these words.
    pub fn logged(&self, words: &str) {
        self.logged_times(words, 1);
    }

    /// Waits until the log contains these words that many times.
    pub fn logged_times(&self, words: &str, times: usize) {
        until_true(&format!("{words:?} in the log"), || self.log().matches(words).count() >= times);
    }

    /// The address of the configuration's only server.
    pub fn address(&self) -> SocketAddr {
        self.address_of("main")
    }

    /// The last address in the log of server `name`.
    pub fn address_of(&self, name: &str) -> SocketAddr {
        until("the address in the log", || address_in(&self.log(), name))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Writes another configuration and reloads. Returns the line of the log with the outcome.
    pub fn reload(&self, config: &str) -> String {
        fs::write(self.directory.path().join("pushd.toml"), config).unwrap();
        outcome_of_reload(|| self.log(), || self.signal(Signal::SIGHUP))
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end. Returns its exit code.
    pub fn wait(&mut self) -> i32 {
        let status = until("its end", || self.child.try_wait().unwrap());
        self.ended = true;
        status.code().unwrap_or_else(|| panic!("it was killed, {status}"))
    }

    /// Ends it by a signal. Returns its exit code.
    pub fn end(&mut self, signal: Signal) -> i32 {
        self.signal(signal);
        self.wait()
    }

    /// The processor time it has used, in the kernel's ticks of 10 ms.
    pub fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        // User and system time are fields 14 and 15. The name, which was cut off, is field 2.
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Pushd {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if std::thread::panicking() {
            eprintln!("---- the log of pushd\n{}", self.log());
            let _ = self.child.kill().and_then(|()| self.child.wait());
            return;
        }
        let code = self.end(Signal::SIGTERM);
        let log = self.log();
        assert_eq!(code, 0, "{log}");
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// The address of server `name` in a log, the last one if there are several.
pub fn address_in(log: &str, name: &str) -> Option<SocketAddr> {
    let end = format!(" (server {name})");
    let mut lines = log.lines().filter_map(|line| line.split_once("Listening on ")?.1.strip_suffix(&end));
    lines.next_back().map(|address| address.parse().unwrap())
}

/// A port outside of the range for clients (`net.ipv4.ip_local_port_range`) that is free, was not returned to another
/// test of this process, and is not the first choice of another process of these tests.
pub fn free_port() -> u16 {
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap();
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    let port = (first.max(*next)..32_000).find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok()).unwrap();
    *next = port + 1;
    port
}

/// The result of a command that ended by itself.
#[derive(Debug)]
pub struct Ran {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ran {
    /// Its exit code.
    pub fn code(&self) -> i32 {
        let killed = || panic!("killed by signal {:?}: {}", self.status.signal(), self.stderr);
        self.status.code().unwrap_or_else(killed)
    }
}

/// Runs a command to its end, within the deadline.
pub fn run(command: &mut Command) -> Ran {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let stream = |name: &str| File::create(file(name)).unwrap();
    command.stdin(Stdio::null()).stdout(stream("stdout")).stderr(stream("stderr"));
    // A binary that was just copied may still be open for writing in a child that another test is starting.
    let mut child = until("a binary that is not open for writing", || match command.spawn() {
        Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => None,
        spawned => Some(spawned.unwrap()),
    });
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > DEADLINE {
            child.kill().and_then(|()| child.wait()).unwrap();
            panic!("it did not end: {}", fs::read_to_string(file("stderr")).unwrap());
        }
        // Polls until the deadline.
        sleep(LOOK_PAUSE);
    };
    let text = |name: &str| String::from_utf8(fs::read(file(name)).unwrap()).unwrap();
    Ran { status, stdout: text("stdout"), stderr: text("stderr") }
}

/// Copies a directory with its content.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_tree(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}
