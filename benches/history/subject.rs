//! The measured pushd: started with a configuration, with its store on a real disk.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use pushd::ctl::bench::process;
use tempfile::TempDir;

use crate::common::http::{self, Answer, ask};
use crate::common::service::Service;
use crate::processors::{pin, two_processors};

/// The processors of the server and of the generator, if there are two.
static APART: OnceLock<Option<(usize, usize)>> = OnceLock::new();
/// All processors this process may use.
static ALL: OnceLock<CpuSet> = OnceLock::new();

/// A running pushd.
pub struct Subject {
    /// Its process.
    pub service: Service,
    /// The directory of its store, which is deleted at the end.
    _store: TempDir,
    /// The processors of the server and of the generator, if each has its own.
    apart: Option<(usize, usize)>,
}

/// A directory on the disk that holds `target`. The usual one for temporary files is often in memory.
pub fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

impl Subject {
    /// Starts pushd with these routes and hubs, one worker, and a limit for the memory of history.
    pub fn start(routes: &str, hubs: &str, sync: &str, memory: &str) -> Subject {
        let store = directory();
        let config = format!(
            "[server.main]\nlisten = \"127.0.0.1:0\"\n\
             [server.main.routes]\n\"/metrics\" = {{ metrics = true }}\n{routes}\n{hubs}\n\
             [daemon]\nworkers = 1\npidfile = \"pushd.pid\"\n\
             [store]\ndir = \"{}\"\nsync = \"{sync}\"\nmemory_max = \"{memory}\"\n",
            store.path().join("store").display()
        );
        Subject { service: Service::started(&config), _store: store, apart: None }
    }

    /// Starts it on the first processor alone, and moves this process to the second one, if there are two.
    pub fn start_apart(routes: &str, hubs: &str, sync: &str, memory: &str) -> Subject {
        use_all_processors();
        let apart = *APART.get_or_init(two_processors);
        pin(apart.map(|(server, _)| server)).unwrap();
        let mut subject = Subject::start(routes, hubs, sync, memory);
        subject.apart = apart;
        pin(apart.map(|(_, generator)| generator)).unwrap();
        subject
    }

    /// Kills it as a crash does, and starts it again.
    pub fn crash(&mut self) {
        self.service.kill();
        pin(self.apart.map(|(server, _)| server)).unwrap();
        self.service.start();
        pin(self.apart.map(|(_, generator)| generator)).unwrap();
    }

    /// Where it listens now.
    pub fn address(&self) -> SocketAddr {
        self.service.address()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        let path: &Path = self.service.path();
        fs::read_to_string(path.join("pushd.pid")).unwrap().trim().parse().unwrap()
    }

    /// Its resident memory, in bytes.
    pub fn resident(&self) -> u64 {
        process::resident(self.pid()).unwrap()
    }

    /// A value of its metrics; 0 if it has no such metric.
    pub fn metric(&self, name: &str) -> u64 {
        let answer = http::get(self.address(), "/metrics");
        let value = answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// Publishes on a route, and returns the position.
    pub fn publish(&self, target: &str, message: &[u8]) -> String {
        let answer = checked(ask(self.address(), "POST", target, &[], message));
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// Publishes a batch of lines.
    pub fn publish_batch(&self, target: &str, lines: &[u8]) {
        let answer = checked(ask(self.address(), "POST", target, &["Content-Type: application/x-ndjson"], lines));
        assert!(!answer.text().contains("\"error\""), "{}", answer.text());
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // The shutdown is not measured.
        self.service.kill();
        use_all_processors();
    }
}

/// Lets this process, and those it starts from now on, use all processors again.
fn use_all_processors() {
    let this = Pid::from_raw(0);
    let all = ALL.get_or_init(|| sched_getaffinity(this).unwrap());
    sched_setaffinity(this, all).unwrap();
}

fn checked(answer: Answer) -> Answer {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}
