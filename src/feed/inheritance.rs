//! What a feed's command inherits from pushd, and what it does not.
//!
//! Inherited: the user, the directory, the file mode creation mask, the environment, what the service manager lets the service have
//! (`CREDENTIALS_DIRECTORY` for one). Not inherited: what makes a process *be* the service. With `NOTIFY_SOCKET` a command could
//! tell the service manager that pushd stops; with `LISTEN_FDS` it would take descriptors for sockets that are none.
//!
//! The limit of open files is put back to what pushd began with: pushd raises its own, and programs that use `select` cannot bear
//! a high one. No descriptor is inherited (all are closed on exec), nor is a blocked signal; SIGPIPE and the signals that pushd handles
//! have their defaults in another program.

use std::io;
use std::sync::OnceLock;

use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tokio::process::{Child, Command};

/// What a service manager says to its service alone.
const NOT_FOR_CHILDREN: [&str; 10] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "FDSTORE",
    "JOURNAL_STREAM",
    "SYSTEMD_EXEC_PID",
];

/// How many files might be open before pushd raised that.
static FILES: OnceLock<Option<u64>> = OnceLock::new();

/// Notes the limit of open files; call it before the limit is raised. The first time counts.
pub fn note_limit() {
    FILES.get_or_init(|| getrlimit(Resource::Nofile).current);
}

/// Takes out of the environment what is not for a child.
pub(super) fn choose(command: &mut Command) -> &mut Command {
    NOT_FOR_CHILDREN.iter().fold(command, |command, name| command.env_remove(name))
}

/// Starts a program that no signal is blocked in: what this thread blocks it would inherit.
pub(super) fn unblocked<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let mask = SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let started = start();
    mask.thread_set_mask()?;
    started
}

/// Puts the limits of a child that has just begun back to what pushd began with.
pub(super) fn lower(child: &Child) {
    let Some(Some(files)) = FILES.get() else { return };
    let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)) else { return };
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(*files), maximum }) {
        // One that has ended already, or that became another user (sudo).
        log::debug!("the limit of open files of PID {pid:?} stays as it is: {error}");
    }
}
