//! Why a command failed: what, where, a way out, and the exit code.

use std::fmt;
use std::io;

use crate::daemon::exit::{Exit, Failure, reason};

/// The failure of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The exit code.
    pub code: u8,
    /// The message for standard error.
    pub message: String,
}

impl Fault {
    /// The command was tried and refused.
    pub(super) fn failed(message: impl Into<String>) -> Fault {
        Fault { code: super::FAILED, message: message.into() }
    }

    /// A failure with one of pushd's exit codes.
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Fault {
        Fault { code: exit.code(), message: message.into() }
    }

    /// Operation `what` failed with `error`.
    pub(super) fn io(what: impl fmt::Display, error: &io::Error) -> Fault {
        Fault::new(Exit::of_error(error), format!("{what}: {}", reason(error)))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Fault {
        Fault::new(failure.exit, failure.message)
    }
}
