//! What every test from outside needs: the real binary on port 0, and clients that speak in bytes.
//!
//! Nothing here waits for a time to pass: everything is waited for by its sign, and the deadline only ends a test that failed.

#![allow(dead_code, reason = "each test uses its own part of this")]

pub mod daemon;
pub mod events;
pub mod http;
pub mod service;
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
/// After this a test that still waits has failed.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// A server with every kind of room, for tests that need no configuration of their own.
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

/// Waits until `look` sees something.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < DEADLINE, "waited in vain for {what}");
        // Polls until the deadline.
        sleep(LOOK_PAUSE);
    }
}

/// Waits until `look` is true.
pub fn until_true(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || look().then_some(()));
}

/// Asks for a reload; the line of the log that says what came of it.
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

/// A pushd about to be started in the foreground, in a directory of its own.
pub struct Start {
    place: TempDir,
    arguments: Vec<String>,
    shell: Option<&'static str>,
    stdin: Stdio,
}

impl Start {
    /// With this configuration.
    pub fn new(config: &str) -> Start {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("pushd.toml"), config).unwrap();
        Start { place, arguments: Vec::new(), shell: None, stdin: Stdio::null() }
    }

    /// With these arguments too.
    pub fn arguments(mut self, arguments: &[&str]) -> Start {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// After these commands of a shell, which then becomes pushd.
    pub fn after(mut self, commands: &'static str) -> Start {
        self.shell = Some(commands);
        self
    }

    /// With this as its standard input.
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Start {
        self.stdin = stdin.into();
        self
    }

    /// The directory it will run in.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Starts it, and waits until it is ready.
    pub fn run(self) -> Pushd {
        self.try_run().unwrap_or_else(|why| panic!("it ended at its start, {why}"))
    }

    /// The same for one that may refuse to start: then with what exit code, and what it said.
    pub fn try_run(self) -> Result<Pushd, String> {
        let mut command = match self.shell {
            None => Command::new(PUSHD),
            Some(commands) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("{commands}; exec \"$0\" \"$@\""), PUSHD]);
                shell
            }
        };
        let stream = |name: &str| Stdio::from(File::create(self.place.path().join(name)).unwrap());
        command.args(["-n", "-c", "pushd.toml"]).args(&self.arguments).current_dir(self.place.path());
        command.stdin(self.stdin).stdout(stream("stdout")).stderr(stream("stderr"));
        let mut pushd = Pushd { child: command.spawn().unwrap(), place: self.place, ended: false };
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

/// A running pushd in the foreground. Dropped it is ended by SIGTERM, and must end with 0.
pub struct Pushd {
    child: Child,
    place: TempDir,
    ended: bool,
}

/// Starts pushd with this configuration.
pub fn start(config: &str) -> Pushd {
    Start::new(config).run()
}

impl Pushd {
    /// The directory it runs in.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// What it wrote to standard error so far, which is its log unless it was told another.
    pub fn log(&self) -> String {
        fs::read_to_string(self.place.path().join("stderr")).unwrap()
    }

    /// Waits until the log says these words.
    pub fn logged(&self, words: &str) {
        self.logged_times(words, 1);
    }

    /// Waits until the log says these words so many times.
    pub fn logged_times(&self, words: &str, times: usize) {
        until_true(&format!("{words:?} in the log"), || self.log().matches(words).count() >= times);
    }

    /// Where the only server of the configuration listens.
    pub fn address(&self) -> SocketAddr {
        self.address_of("main")
    }

    /// Where server `name` listens, as its log said last.
    pub fn address_of(&self, name: &str) -> SocketAddr {
        until("the address in the log", || address_in(&self.log(), name))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Writes another configuration and has it read; the line of the log that says what came of it.
    pub fn reload(&self, config: &str) -> String {
        fs::write(self.place.path().join("pushd.toml"), config).unwrap();
        outcome_of_reload(|| self.log(), || self.signal(Signal::SIGHUP))
    }

    /// Whether it runs no longer.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end; its exit code.
    pub fn wait(&mut self) -> i32 {
        let status = until("its end", || self.child.try_wait().unwrap());
        self.ended = true;
        status.code().unwrap_or_else(|| panic!("it was killed, {status}"))
    }

    /// Ends it by a signal; its exit code.
    pub fn end(&mut self, signal: Signal) -> i32 {
        self.signal(signal);
        self.wait()
    }

    /// The processor time it has used, in the kernel's ticks of 10 ms.
    pub fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        // User and system time are fields 14 and 15, and the name, which is left out, was the second.
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

/// A port that no client is given as its own (`net.ipv4.ip_local_port_range`), no other test of this process has, and no other
/// process of these tests begins with.
pub fn free_port() -> u16 {
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap();
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    let port = (first.max(*next)..32_000).find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok()).unwrap();
    *next = port + 1;
    port
}

/// What a command that ends by itself came to.
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
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
    let place = tempfile::tempdir().unwrap();
    let file = |name: &str| place.path().join(name);
    let stream = |name: &str| File::create(file(name)).unwrap();
    command.stdin(Stdio::null()).stdout(stream("stdout")).stderr(stream("stderr"));
    // A binary just copied may still be open in a child that another test is about to start.
    let mut child = until("a binary nobody writes to", || match command.spawn() {
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

/// Copies a directory with all that is in it.
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
