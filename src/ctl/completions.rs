//! `pushctl completions`: prints a script with which a shell completes `pushctl` on TAB. The packages contain one for
//! each shell.
//!
//! There is none for `pushd`: in all three shells this word is also the built-in command of the directory stack, for
//! which TAB must keep offering directories.

use clap::{Args, CommandFactory, ValueEnum};

use super::{Ctl, Outcome, print};
use crate::daemon::exit::Exit;

const WHERE: &str = "\
Where it goes, for one user:
  pushctl completions bash >~/.local/share/bash-completion/completions/pushctl
  pushctl completions zsh >~/.zfunc/_pushctl     with ~/.zfunc in fpath
  pushctl completions fish >~/.config/fish/completions/pushctl.fish

The packages have all three.";

/// Print what a shell needs to complete pushctl on TAB
#[derive(Debug, Args)]
#[command(after_help = WHERE)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

/// The shells whose scripts were tested; clap could generate scripts for others.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Completions {
    pub fn run(&self) -> Outcome {
        let shell = match self.shell {
            Shell::Bash => clap_complete::Shell::Bash,
            Shell::Zsh => clap_complete::Shell::Zsh,
            Shell::Fish => clap_complete::Shell::Fish,
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Ctl::command(), "pushctl", &mut script);
        print(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Clean.code())
    }
}
