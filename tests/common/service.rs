//! A small service manager: it keeps descriptors from one process to the next, as systemd does for a restart.

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

/// Held while a process is started: until it is another program, a child of this one holds everything that is kept here, addresses
/// too.
static STARTING: Mutex<()> = Mutex::new(());

/// Starts a process of a test with nothing else being started.
pub fn alone<T>(start: impl FnOnce() -> T) -> T {
    let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    start()
}

/// Descriptors, each with its name.
pub type Named = Vec<(String, OwnedFd)>;

/// What the service manager knows of its service.
#[derive(Default)]
struct Known {
    kept: Named,
    /// How many descriptors it keeps at most (`FileDescriptorStoreMax=`).
    most: usize,
    ready: bool,
    ended: bool,
}

/// A service with one pushd at a time. Dropped it is ended by SIGTERM, and must end with 0.
pub struct Service {
    place: TempDir,
    known: Arc<Mutex<Known>>,
    listener: Option<std::thread::JoinHandle<()>>,
    /// Sockets that are passed at every start (`systemd:NAME`).
    pub sockets: Named,
    /// What a shell does before it becomes the process.
    pub before: String,
    /// The program.
    pub program: PathBuf,
    child: Option<Child>,
}

impl Service {
    /// One that keeps so many descriptors.
    pub fn new(config: &str, most: usize) -> Service {
        let place = tempfile::tempdir().unwrap();
        let known = Arc::new(Mutex::new(Known { most, ..Known::default() }));
        let socket = UnixDatagram::bind(place.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let heard = known.clone();
        let listener = std::thread::spawn(move || {
            while !heard.lock().unwrap().ended {
                hear(&socket, &heard);
            }
        });
        let listener = Some(listener);
        let service = Service {
            place,
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

    /// One that runs already.
    pub fn started(config: &str) -> Service {
        let mut service = Service::new(config, 512);
        service.start();
        service
    }

    /// The directory it runs in.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Writes another configuration.
    pub fn configure(&self, config: &str) {
        fs::write(self.path().join("pushd.toml"), config).unwrap();
    }

    /// What all its processes wrote to standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path().join("stderr")).unwrap_or_default()
    }

    /// Begins the log anew.
    pub fn forget_log(&self) {
        fs::write(self.path().join("stderr"), "").unwrap();
    }

    /// Waits until the log says these words so many times.
    pub fn logged_times(&self, words: &str, times: usize) {
        until_true(&format!("{words:?} in the log"), || self.log().matches(words).count() >= times);
    }

    /// Where a server listens, as the log said last.
    pub fn address_of(&self, name: &str) -> SocketAddr {
        until("the address in the log", || address_in(&self.log(), name))
    }

    /// Where the server `main` listens.
    pub fn address(&self) -> SocketAddr {
        self.address_of("main")
    }

    /// The names of what is kept, sorted.
    pub fn kept(&self) -> Vec<String> {
        let mut names: Vec<_> = self.known.lock().unwrap().kept.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }

    /// Copies of what is kept under a name.
    pub fn kept_as(&self, name: &str) -> Vec<File> {
        let known = self.known.lock().unwrap();
        let kept = known.kept.iter().filter(|(kept, _)| kept == name);
        kept.map(|(_, descriptor)| File::from(descriptor.try_clone().unwrap())).collect()
    }

    /// Keeps a descriptor as if a process had left it.
    pub fn keep(&self, name: &str, descriptor: OwnedFd) {
        self.known.lock().unwrap().kept.insert(0, (name.to_owned(), descriptor));
    }

    fn spawn(&mut self) {
        assert!(self.child.is_none(), "one at a time");
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

    /// Starts a process, and waits until it is ready, or has ended.
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
        Err(status)
    }

    /// Starts a process that cannot start; its exit code.
    pub fn fail_to_start(&mut self) -> i32 {
        alone(|| {
            self.spawn();
            self.wait()
        })
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a process");
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
    }

    /// Waits for the end of the process; its exit code.
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

    /// Ends the process as a restart does.
    pub fn hand_over(&mut self) {
        self.signal(Signal::SIGUSR2);
        assert_eq!(self.wait(), 0, "{}", self.log());
    }

    /// Another process in the place of this one.
    pub fn restart(&mut self) {
        self.hand_over();
        self.start();
    }

    /// Reads the configuration again; the line of the log that says what came of it.
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

/// Hears one message of the service, if one comes.
fn hear(socket: &UnixDatagram, known: &Mutex<Known>) {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let heard = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC);
    let Ok(heard) = heard else { return };
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors: Vec<OwnedFd> = descriptors.flatten().collect();
    let text = std::str::from_utf8(&bytes[..heard.bytes]).unwrap();
    let says = |line: &str| text.lines().any(|said| said == line);
    let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored");
    let mut known = known.lock().unwrap();
    if says("FDSTOREREMOVE=1") {
        known.kept.retain(|(kept, _)| kept != name);
    } else if says("FDSTORE=1") {
        assert!(says("FDPOLL=0"), "a pipe whose other end is closed would be forgotten");
        let room = known.most - known.kept.len();
        // The latest first, as systemd has them.
        descriptors.into_iter().take(room).for_each(|kept| known.kept.insert(0, (name.to_owned(), kept)));
    }
    // Whatever else came with it, a barrier for one, is closed here.
    known.ready |= says("READY=1");
}
