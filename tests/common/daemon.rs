//! Daemons: launched as an operator does, and adopted, so that their end can be seen.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{PUSHD, address_in, run, until};

/// A directory with a configuration in it.
pub fn place(config: &str) -> TempDir {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("hub.toml"), config).unwrap();
    place
}

/// pushd with these arguments, about to be started in `path`.
pub fn pushd(path: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PUSHD);
    command.args(arguments).current_dir(path);
    command
}

/// A daemon whose launcher has ended. Dropped it is ended at once.
pub struct Daemon {
    /// Its process id.
    pub pid: Pid,
    path: PathBuf,
    ended: bool,
}

impl Daemon {
    /// Launches a daemon that must serve when the launcher is back. We adopt it, so that its exit code can be seen.
    pub fn launch(command: &mut Command, path: &Path) -> Daemon {
        set_child_subreaper(true).unwrap();
        let ran = run(command);
        assert_eq!((ran.code(), &ran.stdout[..], &ran.stderr[..]), (0, "", ""));
        Daemon::adopt(&path.join("pushd.pid"))
    }

    /// Adopts the daemon that a pidfile names.
    pub fn adopt(pidfile: &Path) -> Daemon {
        let number = fs::read_to_string(pidfile).unwrap();
        let pid = Pid::from_raw(number.strip_suffix('\n').unwrap().parse().unwrap());
        assert_eq!(number, format!("{pid}\n"), "decimal and nothing else");
        Daemon { pid, path: pidfile.parent().unwrap().to_owned(), ended: false }
    }

    /// What its log says.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path.join("pushd.log")).unwrap()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        until("the address in the log", || address_in(&self.log(), "main"))
    }

    /// Ends it by a signal; its exit code.
    pub fn end(self, signal: Signal) -> i32 {
        kill(self.pid, signal).unwrap();
        self.wait()
    }

    /// Waits for its end; its exit code.
    pub fn wait(mut self) -> i32 {
        self.ended = true;
        until("its end", || match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)).unwrap() {
            WaitStatus::StillAlive => None,
            WaitStatus::Exited(_, code) => Some(code),
            other => panic!("{other:?}"),
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.ended {
            let _ = kill(self.pid, Signal::SIGKILL).and_then(|()| waitpid(self.pid, None));
        }
    }
}
