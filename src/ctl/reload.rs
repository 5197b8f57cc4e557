//! `pushctl reload`: check the configuration, then SIGHUP.

use clap::Args;
use nix::sys::signal::Signal;

use super::fault::Fault;
use super::place::{Place, signal};
use super::{Outcome, check, print, say};
use crate::daemon::exit::Exit;

/// Have pushd read its configuration again; a bad one is refused here (exit code 78) and changes nothing
#[derive(Debug, Args)]
pub(super) struct Reload {
    #[command(flatten)]
    place: Place,
}

impl Reload {
    pub fn run(&self) -> Outcome {
        match self.place.config_file() {
            Some(file) => {
                check::load(&file).map_err(|fault| Fault {
                    message: format!("not reloaded, nothing has changed:\n{}", fault.message),
                    ..fault
                })?;
            }
            None => say(
                "not checked here, for want of a --config: pushd checks the file it runs on, and logs what is wrong",
            ),
        }
        let found = self.place.find()?;
        match found.holder()? {
            Some(pid) if signal(pid, Signal::SIGHUP)? => {
                print(&format!("pushd, PID {pid}, reads its configuration again; its log says how that went\n"))?;
                Ok(Exit::Clean.code())
            }
            _ => Err(Fault::failed(found.not_running())),
        }
    }
}
