//! A minimal service manager: like systemd, it keeps descriptors from one process to the next.

use std::fs::{self, File};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;

use super::{PUSHD, address_in, outcome_of_reload, until, until_true};

/// Held while a process is started: until the child executes its program, it holds all descriptors of this process,
/// including listening sockets.
static STARTING: Mutex<()> = Mutex::new(());

/// Starts a process while no other one is started.
pub fn alone<T>(start: impl FnOnce() -> T) -> T {
    let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    start()
}

/// Descriptors, each with its name.
pub type Named = Vec<(String, OwnedFd)>;

/// The state of the service manager.
#[derive(Default)]
struct Known {
    kept: Named,
    /// How many descriptors it keeps (`FileDescriptorStoreMax=`).
    most: usize,
    ready: bool,
    ended: bool,
    /// How many times [`Service::settle`] has been heard.
    settled: usize,
}

/// A service with one pushd at a time. When dropped, it is ended by SIGTERM, and must exit with 0.
pub struct Service {
    directory: TempDir,
    known: Arc<Mutex<Known>>,
    listener: Option<std::thread::JoinHandle<()>>,
    /// Sockets that are passed at every start (`systemd:NAME`).
    pub sockets: Named,
    /// Shell commands that run before the program.
    pub before: String,
    /// The program.
    pub program: PathBuf,
    child: Option<Child>,
}

impl Service {
    /// A service manager that keeps up to `most` descriptors.
    pub fn new(config: &str, most: usize) -> Service {
        let directory = tempfile::tempdir().unwrap();
        let known = Arc::new(Mutex::new(Known { most, ..Known::default() }));
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let shared = known.clone();
        let listener = std::thread::spawn(move || {
            while !shared.lock().unwrap().ended {
                receive(&socket, &shared);
            }
        });
        let listener = Some(listener);
        let service = Service {
            directory,
            known,
            listener,
            sockets: Vec::new(),
            before: String::new(),
            program: PUSHD.into(),
            child: None,
        };
        service.configure(config);
        service
    }

    /// A service that runs already.
    pub fn started(config: &str) -> Service {
        let mut service = Service::new(config, 512);
        service.start();
        service
    }

    /// The directory it runs in.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes another configuration.
    pub fn configure(&self, config: &str) {
        fs::write(self.path().join("pushd.toml"), config).unwrap();
    }

    /// The standard error of all its processes.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path().join("stderr")).unwrap_or_default()
    }

    /// Empties the log.
    pub fn clear_log(&self) {
        fs::write(self.path().join("stderr"), "").unwrap();
    }

    /// Waits until the log contains these words that many times.
    pub fn logged_times(&self, words: &str, times: usize) {
        until_true(&format!("{words:?} in the log"), || self.log().matches(words).count() >= times);
    }

    /// The last address in the log of a server.
    pub fn address_of(&self, name: &str) -> SocketAddr {
        until("the address in the log", || address_in(&self.log(), name))
    }

    /// The address of the server `main`.
    pub fn address(&self) -> SocketAddr {
        self.address_of("main")
    }

    /// The names of the kept descriptors, sorted.
    pub fn kept(&self) -> Vec<String> {
        let mut names: Vec<_> = self.known.lock().unwrap().kept.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }

    /// Copies of the descriptors kept under a name.
    pub fn kept_as(&self, name: &str) -> Vec<File> {
        let known = self.known.lock().unwrap();
        let kept = known.kept.iter().filter(|(kept, _)| kept == name);
        kept.map(|(_, descriptor)| File::from(descriptor.try_clone().unwrap())).collect()
    }

    /// Keeps a descriptor as if a process had sent it.
    pub fn keep(&self, name: &str, descriptor: OwnedFd) {
        self.known.lock().unwrap().kept.insert(0, (name.to_owned(), descriptor));
    }

    fn spawn(&mut self) {
        assert!(self.child.is_none(), "only one process at a time");
        let copy = |(name, descriptor): &(String, OwnedFd)| (name.clone(), descriptor.try_clone().unwrap());
        let mut passed: Named = self.sockets.iter().map(copy).collect();
        passed.extend(self.known.lock().unwrap().kept.iter().map(copy));
        let names: Vec<String> = passed.iter().map(|(name, _)| name.clone()).collect();
        let stderr = File::options().append(true).create(true).open(self.path().join("stderr")).unwrap();
        let mut command = Command::new("sh");
        let script = format!("{} LISTEN_PID=$$ exec \"$0\" -n -c pushd.toml", self.before);
        command.args(["-c", &script]).arg(&self.program).current_dir(self.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        command.env("NOTIFY_SOCKET", self.path().join("notify"));
        if !names.is_empty() {
            command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        }
        let mapping = |(number, (_, parent_fd))| FdMapping { parent_fd, child_fd: 3 + number as i32 };
        command.fd_mappings(passed.into_iter().enumerate().map(mapping).collect()).unwrap();
        self.child = Some(command.spawn().unwrap());
    }

    /// Starts a process, and waits until it is ready.
    pub fn start(&mut self) {
        alone(|| self.start_now());
    }

    fn start_now(&mut self) {
        if let Err(status) = self.try_start_now() {
            panic!("it ended at its start, {status}:\n{}", self.log());
        }
    }

    /// Starts a process, and waits until it is ready or has ended.
    pub fn try_start(&mut self) -> Result<(), ExitStatus> {
        alone(|| self.try_start_now())
    }

    fn try_start_now(&mut self) -> Result<(), ExitStatus> {
        self.known.lock().unwrap().ready = false;
        self.spawn();
        let ended = until("readiness", || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            (ended.is_some() || self.known.lock().unwrap().ready).then_some(ended)
        });
        let Some(status) = ended else { return Ok(()) };
        self.child = None;
        self.settle();
        Err(status)
    }

    /// Waits until the messages of a process that has ended are processed.
    fn settle(&self) {
        let before = self.known.lock().unwrap().settled;
        let socket = UnixDatagram::unbound().unwrap();
        socket.send_to(b"SETTLE=1", self.path().join("notify")).unwrap();
        until_true("the last messages", || self.known.lock().unwrap().settled > before);
    }

    /// Starts a process that must fail to start. Returns its exit code.
    pub fn fail_to_start(&mut self) -> i32 {
        alone(|| {
            self.spawn();
            self.wait()
        })
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a process");
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
    }

    /// Waits for the end of the process. Returns its exit code.
    pub fn wait(&mut self) -> i32 {
        let mut child = self.child.take().expect("a process");
        let status = until("its end", || child.try_wait().unwrap());
        status.code().unwrap_or_else(|| panic!("it was killed, {status}:\n{}", self.log()))
    }

    /// Kills the process.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().and_then(|()| child.wait()).unwrap();
        }
    }

    /// Ends the process with a handover, as a restart does.
    pub fn hand_over(&mut self) {
        self.signal(Signal::SIGUSR2);
        assert_eq!(self.wait(), 0, "{}", self.log());
    }

    /// Replaces the process by another one.
    pub fn restart(&mut self) {
        self.hand_over();
        self.start();
    }

    /// Reloads another configuration. Returns the line of the log with the outcome.
    pub fn reload(&self, config: &str) -> String {
        self.configure(config);
        outcome_of_reload(|| self.log(), || self.signal(Signal::SIGHUP))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        let panicking = std::thread::panicking();
        if panicking {
            eprintln!("---- the log of pushd\n{}", self.log());
        }
        if let Some(mut child) = self.child.take() {
            if panicking {
                let _ = child.kill().and_then(|()| child.wait());
            } else {
                kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
                assert!(until("its end", || child.try_wait().unwrap()).success(), "{}", self.log());
            }
        }
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        assert!(panicking || !self.log().contains("panicked"), "{}", self.log());
    }
}

/// Receives one message of the service, if there is one.
fn receive(socket: &UnixDatagram, known: &Mutex<Known>) {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC);
    let Ok(received) = received else { return };
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors: Vec<OwnedFd> = descriptors.flatten().collect();
    let text = std::str::from_utf8(&bytes[..received.bytes]).unwrap();
    let has = |wanted: &str| text.lines().any(|line| line == wanted);
    let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored");
    let mut known = known.lock().unwrap();
    if has("FDSTOREREMOVE=1") {
        known.kept.retain(|(kept, _)| kept != name);
    } else if has("FDSTORE=1") {
        assert!(has("FDPOLL=0"), "systemd would drop a pipe whose other end is closed");
        let free = known.most - known.kept.len();
        // The latest first, as in systemd.
        descriptors.into_iter().take(free).for_each(|kept| known.kept.insert(0, (name.to_owned(), kept)));
    }
    // Other descriptors, such as that of a barrier, are closed here.
    known.ready |= has("READY=1");
    known.settled += usize::from(has("SETTLE=1"));
}
