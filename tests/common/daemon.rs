//! Daemons that are launched as by an operator. The test becomes their parent, so that it sees how they end.

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

/// A temporary directory with this configuration as `hub.toml`.
pub fn directory_with(config: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("hub.toml"), config).unwrap();
    directory
}

/// The command for pushd with these arguments in directory `path`.
pub fn pushd(path: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PUSHD);
    command.args(arguments).current_dir(path);
    command
}

/// A daemon whose launcher has exited. It is killed when dropped.
pub struct Daemon {
    /// Its process id.
    pub pid: Pid,
    path: PathBuf,
    ended: bool,
}

impl Daemon {
    /// Launches a daemon, which must serve when the launcher exits. The test becomes its parent, to see its exit code.
    pub fn launch(command: &mut Command, path: &Path) -> Daemon {
        set_child_subreaper(true).unwrap();
        let ran = run(command);
        assert_eq!((ran.code(), &ran.stdout[..], &ran.stderr[..]), (0, "", ""));
        Daemon::adopt(&path.join("pushd.pid"))
    }

    /// Becomes responsible for the daemon that a pidfile names.
    pub fn adopt(pidfile: &Path) -> Daemon {
        let number = fs::read_to_string(pidfile).unwrap();
        let pid = Pid::from_raw(number.strip_suffix('\n').unwrap().parse().unwrap());
        assert_eq!(number, format!("{pid}\n"), "only decimal digits and a newline");
        Daemon { pid, path: pidfile.parent().unwrap().to_owned(), ended: false }
    }

    /// The content of its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path.join("pushd.log")).unwrap()
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        until("the address in the log", || address_in(&self.log(), "main"))
    }

    /// Ends it by a signal. Returns its exit code.
    pub fn end(self, signal: Signal) -> i32 {
        kill(self.pid, signal).unwrap();
        self.wait()
    }

    /// Waits for its end. Returns its exit code.
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
