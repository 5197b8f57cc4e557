//! `pushctl check`: reports everything that is wrong with a configuration, as `pushd --check` does. For root it also
//! rehearses a start of the unit that would run it.

use std::path::{Path, PathBuf};

use clap::Args;

use super::fault::Fault;
use super::unit::{Rehearsal, Unit};
use super::{CONFIG, Outcome, notice, print};
use crate::config::{self, Config, Settings};
use crate::daemon::exit::{Exit, Failure};
use crate::daemon::journal;
use crate::daemon::privileges::Identity;
use crate::daemon::timeout;

/// Report everything wrong with a configuration (exit code 78), or that nothing is (0)
#[derive(Debug, Args)]
pub(super) struct Check {
    /// The configuration. For root, also whether the systemd unit that runs it could start
    #[arg(value_name = "FILE", default_value = CONFIG)]
    file: PathBuf,

    /// Rehearse a start of this systemd unit instead: with its file, its user and its sandbox
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    unit: Option<String>,
}

impl Check {
    pub fn run(&self) -> Outcome {
        if let Some(name) = &self.unit {
            let unit = Unit::named(name)?;
            rehearsed(&unit, unit.rehearse()?)?;
            print(&format!("{name} could be started\n"))?;
            return Ok(Exit::Clean.code());
        }
        let file = absolute(&self.file);
        let config = load(&file)?;
        let daemon = &config.daemon;
        // A user that does not exist is an error. Whether this process may become that user is not checked.
        Identity::find(daemon.user.as_deref(), daemon.group.as_deref())?;
        if let Some(unit) = Unit::that_runs(&file) {
            match unit.rehearse() {
                Ok(rehearsal) => rehearsed(&unit, rehearsal)?,
                Err(fault) => notice(&format!("checked as root only: {}", fault.message)),
            }
        }
        print(&format!("{}: the configuration is good\n", config.provenance()))?;
        Ok(Exit::Clean.code())
    }
}

/// Reports why the unit could not be started, with the settings of the unit that may be the cause.
fn rehearsed(unit: &Unit, rehearsal: Rehearsal) -> Result<(), Fault> {
    let (code, why) = match rehearsal {
        Rehearsal::Refused(code, why) => (code, why),
        Rehearsal::Good(unread) => {
            unread.iter().for_each(|what| notice(&format!("{}: {what}", unit.name())));
            return Ok(());
        }
    };
    let mut message = format!("{} could not be started:\n{why}", unit.name());
    if code == Exit::Config.code() || code == Exit::NoPermission.code() {
        let found = unit.restrictions().join(", ");
        message += &format!(
            "\nthis is the result under the settings of the unit, which has {found} (systemd.exec(5), `systemctl edit {}`)",
            unit.name()
        );
    }
    Err(Fault { code, message })
}

/// The configuration at `file`. Its warnings are printed.
pub(super) fn load(file: &Path) -> Result<Config, Fault> {
    let config = config::load_for_another(file).map_err(Failure::from)?;
    warn(&config);
    Ok(config)
}

/// The configuration at `file` with the effective value of every key. Its warnings are printed.
pub(super) fn load_settings(file: &Path) -> Result<(Config, Vec<Settings>), Fault> {
    let (config, settings) = config::load_settings(&absolute(file)).map_err(Failure::from)?;
    warn(&config);
    Ok((config, settings))
}

fn warn(config: &Config) {
    let expiring = config.expiring(timeout::seconds_since_1970());
    for warning in config.warnings.iter().map(ToString::to_string).chain(expiring) {
        journal::print(log::Level::Warn, &warning);
    }
}

fn absolute(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}
