//! `pushctl stop`: SIGINT, and wait until the pidfile is free.

use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::fault::Fault;
use super::place::{Found, Held, Place, signal};
use super::{Outcome, print};
use crate::config::duration_text;
use crate::config::limits::{CTL_POLL, CTL_STOP_MARGIN};
use crate::daemon::exit::Exit;

/// The pause between two signals of `--now`: pushd takes two that come within a moment as one.
const AGAIN: Duration = Duration::from_millis(100);

/// End pushd gracefully, and wait until it has ended
#[derive(Debug, Args)]
pub(super) struct Stop {
    #[command(flatten)]
    place: Place,

    /// Do not wait for the grace: clients are cut off
    #[arg(long)]
    now: bool,
}

impl Stop {
    pub fn run(&self) -> Outcome {
        let found = self.place.find()?;
        let Some(pid) = found.holder()? else { return Err(found.nothing_to_signal()) };
        let patience = if self.now { CTL_STOP_MARGIN } else { found.grace + CTL_STOP_MARGIN };
        let begin = Instant::now();
        let mut signalled = None;
        while is_held(&found, pid)? {
            if begin.elapsed() >= patience {
                return Err(self.still_there(&found, pid, patience));
            }
            if signalled.is_none_or(|last: Instant| self.now && last.elapsed() >= AGAIN) {
                signal(pid, Signal::SIGINT)?;
                signalled = Some(Instant::now());
            }
            sleep(CTL_POLL);
        }
        print(&format!("{} has stopped\n", found.named(pid)))?;
        Ok(Exit::Clean.code())
    }

    fn still_there(&self, found: &Found, pid: Pid, patience: Duration) -> Fault {
        let hint = match self.now {
            true => format!("`kill -KILL {pid}` is what is left"),
            false => "`pushctl stop --now` does not wait for clients".to_owned(),
        };
        let waited = duration_text(patience);
        Fault::failed(format!("{} was told to stop and has not after {waited}: {hint}", found.named(pid)))
    }
}

/// Whether `pid` still holds the pidfile: a successor that was started meanwhile is not it.
fn is_held(found: &Found, pid: Pid) -> Result<bool, Fault> {
    Ok(found.held()? == Held::By(pid))
}
