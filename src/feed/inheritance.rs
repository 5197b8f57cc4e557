//! What the command of a feed inherits from pushd.
//!
//! It inherits the user, the directory, the file mode creation mask, the environment, and what the service manager
//! gives the service (for example `CREDENTIALS_DIRECTORY`). It does not inherit the variables that identify a process
//! as the service. With `NOTIFY_SOCKET` a command could report that pushd stops; with `LISTEN_FDS` it would take
//! unrelated descriptors for sockets.
//!
//! The limit of open files is reset to the value at the start of pushd: pushd raises its own, and programs that use
//! `select` fail with a high one. No descriptor is inherited (all are closed on exec), and no blocked signal. SIGPIPE
//! and the signals that pushd handles have their default actions in another program.

use std::io;
use std::sync::OnceLock;

use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tokio::process::{Child, Command};

/// Variables by which a service manager addresses the service only.
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

/// The soft limit of open files before pushd raised it.
static FILES: OnceLock<Option<u64>> = OnceLock::new();

/// Records the limit of open files. Call it before the limit is raised; only the first call counts.
pub fn note_limit() {
    FILES.get_or_init(|| getrlimit(Resource::Nofile).current);
}

/// Removes the variables of the service manager from the environment of a command.
pub(super) fn without_service_variables(command: &mut Command) -> &mut Command {
    NOT_FOR_CHILDREN.iter().fold(command, |command, name| command.env_remove(name))
}

/// Starts a program with no signal blocked: otherwise it would inherit the signal mask of this thread.
pub(super) fn with_signals_unblocked<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let mask = SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let started = start();
    mask.thread_set_mask()?;
    started
}

/// Resets the limit of open files of a child that was just started.
pub(super) fn reset_limit(child: &Child) {
    let Some(Some(files)) = FILES.get() else { return };
    let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)) else { return };
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(*files), maximum }) {
        // The child has ended already, or became another user (sudo).
        log::debug!("the limit of open files of PID {pid:?} stays as it is: {error}");
    }
}
