//! `pushctl stop`: sends SIGINT, and waits until the pidfile is free.

use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::fault::Fault;
use super::instance::{Found, Held, Instance, signal};
use super::{Outcome, print};
use crate::config::duration_text;
use crate::config::limits::{CTL_POLL, CTL_STOP_MARGIN};
use crate::daemon::exit::Exit;

/// The pause between two signals of `--now`: pushd counts two signals within a moment as one.
const AGAIN: Duration = Duration::from_millis(100);

/// End pushd gracefully, and wait until it has ended
#[derive(Debug, Args)]
pub(super) struct Stop {
    #[command(flatten)]
    instance: Instance,

    /// Do not wait for the grace: clients are cut off
    #[arg(long)]
    now: bool,
}

impl Stop {
    pub fn run(&self) -> Outcome {
        let found = self.instance.find()?;
        let Some(pid) = found.holder()? else { return Err(found.nothing_to_signal()) };
        let limit = if self.now { CTL_STOP_MARGIN } else { found.grace + CTL_STOP_MARGIN };
        let begin = Instant::now();
        let mut signalled = None;
        while is_held(&found, pid)? {
            if begin.elapsed() >= limit {
                return Err(self.still_there(&found, pid, limit));
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

    fn still_there(&self, found: &Found, pid: Pid, limit: Duration) -> Fault {
        let hint = match self.now {
            true => format!("only `kill -KILL {pid}` remains"),
            false => "`pushctl stop --now` does not wait for clients".to_owned(),
        };
        let waited = duration_text(limit);
        Fault::failed(format!("{} was asked to stop and did not within {waited}: {hint}", found.named(pid)))
    }
}

/// Whether `pid` still holds the pidfile, and not a pushd that was started meanwhile.
fn is_held(found: &Found, pid: Pid) -> Result<bool, Fault> {
    Ok(found.held()? == Held::By(pid))
}
