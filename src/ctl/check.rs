//! `pushctl check`: everything wrong with a configuration, as `pushd --check` tells it.

use std::path::{Path, PathBuf};

use clap::Args;

use super::fault::Fault;
use super::{CONFIG, Outcome, print};
use crate::config::{self, Config, Settings};
use crate::daemon::exit::{Exit, Failure};
use crate::daemon::journal;
use crate::daemon::privileges::Identity;

/// Report everything wrong with a configuration (exit code 78), or that nothing is (0)
#[derive(Debug, Args)]
pub(super) struct Check {
    /// The configuration
    #[arg(value_name = "FILE", default_value = CONFIG)]
    file: PathBuf,
}

impl Check {
    pub fn run(&self) -> Outcome {
        let config = load(&absolute(&self.file))?;
        let daemon = &config.daemon;
        // A user that does not exist is a mistake; whether this process could become it is not what was asked.
        Identity::find(daemon.user.as_deref(), daemon.group.as_deref())?;
        print(&format!("{}: the configuration is good\n", config.provenance()))?;
        Ok(Exit::Clean.code())
    }
}

/// The configuration at `file`; its warnings are printed.
pub(super) fn load(file: &Path) -> Result<Config, Fault> {
    let config = config::load(file).map_err(Failure::from)?;
    warn(&config);
    Ok(config)
}

/// The configuration at `file` with what counts for every key; its warnings are printed.
pub(super) fn load_settings(file: &Path) -> Result<(Config, Vec<Settings>), Fault> {
    let (config, settings) = config::load_settings(&absolute(file)).map_err(Failure::from)?;
    warn(&config);
    Ok((config, settings))
}

fn warn(config: &Config) {
    for warning in &config.warnings {
        journal::say(log::Level::Warn, &warning.to_string());
    }
}

fn absolute(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}
