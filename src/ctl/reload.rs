//! `pushctl reload`: checks the configuration, sends SIGHUP, and waits for the outcome.

use std::thread::sleep;
use std::time::Instant;

use clap::Args;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::fault::Fault;
use super::instance::{Found, Held, Instance, signal};
use super::{FAILED, Outcome, check, notice, print};
use crate::config::duration_text;
use crate::config::limits::{CTL_POLL, CTL_RELOAD_TIMEOUT};
use crate::daemon::exit::Exit;
use crate::daemon::reloads::{self, Report};

/// Have pushd read its configuration again, and wait until it has; what is refused changes nothing
#[derive(Debug, Args)]
pub(super) struct Reload {
    #[command(flatten)]
    instance: Instance,
}

impl Reload {
    pub fn run(&self) -> Outcome {
        match self.instance.config_file() {
            Some(file) => {
                check::load(&file).map_err(|fault| Fault {
                    message: format!("not reloaded, nothing has changed:\n{}", fault.message),
                    ..fault
                })?;
            }
            None => notice("no --config was given, so pushd itself checks the file"),
        }
        let found = self.instance.find()?;
        let Some(pid) = found.holder()? else { return Err(found.nothing_to_signal()) };
        let named = found.named(pid);
        let before = report(&found, pid);
        if !signal(pid, Signal::SIGHUP)? {
            return Err(found.nothing_to_signal());
        }
        let Some(before) = before else {
            print(&format!("{named} reads its configuration again; its log says how that went\n"))?;
            return Ok(Exit::Clean.code());
        };
        let reloads::Outcome { code, message } = outcome(&found, pid, before.begun + 1)?;
        // The message comes from another process and is shown on a terminal.
        let message: String = message.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect();
        match code {
            0 => {
                let (what, warnings) = message.split_once('\n').unwrap_or((&message, ""));
                warnings.lines().for_each(notice);
                print(&format!("{named} has reloaded {what}\n"))?;
                Ok(Exit::Clean.code())
            }
            code => {
                let message = format!("{named} has refused it, nothing has changed: {message}");
                Err(Fault { code, message })
            }
        }
    }
}

/// The report of that process about its reloads.
fn report(found: &Found, pid: Pid) -> Option<Report> {
    reloads::read(&found.pidfile).filter(|report| report.pid == pid)
}

/// Waits for the outcome of reload `number`, or of a later one.
fn outcome(found: &Found, pid: Pid, number: u64) -> Result<reloads::Outcome, Fault> {
    let deadline = Instant::now() + CTL_RELOAD_TIMEOUT;
    loop {
        if let Some(report) = report(found, pid)
            && report.ended >= number
        {
            return Ok(report.last);
        }
        if found.held()? != Held::By(pid) {
            let message = format!("{} has ended before it had reloaded; its log says why", found.named(pid));
            return Err(Fault { code: FAILED, message });
        }
        if Instant::now() >= deadline {
            let waited = duration_text(CTL_RELOAD_TIMEOUT);
            let message =
                format!("{} was asked to reload and did not within {waited}; its log says more", found.named(pid));
            return Err(Fault { code: FAILED, message });
        }
        sleep(CTL_POLL);
    }
}
