//! Why a start failed, and the matching exit code.
//!
//! The codes are those of `sysexits.h`. So a script or a service manager can distinguish a taken port (worth another
//! try) from a bad configuration (not worth one) without parsing the message.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::process::ExitCode;

use nix::errno::Errno;

use super::journal;

/// What an exit code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: a clean stop, or a good check.
    Clean,
    /// 64: the command line was not understood.
    Usage,
    /// 69: a port is taken, or another pushd is running.
    Unavailable,
    /// 71: the system refused.
    System,
    /// 73: a file cannot be created.
    CannotCreate,
    /// 77: no permission.
    NoPermission,
    /// 78: the configuration is wrong.
    Config,
}

impl Exit {
    const ALL: [Exit; 7] = [
        Exit::Clean,
        Exit::Usage,
        Exit::Unavailable,
        Exit::System,
        Exit::CannotCreate,
        Exit::NoPermission,
        Exit::Config,
    ];

    /// The number that the process exits with.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Clean => 0,
            Exit::Usage => 64,
            Exit::Unavailable => 69,
            Exit::System => 71,
            Exit::CannotCreate => 73,
            Exit::NoPermission => 77,
            Exit::Config => 78,
        }
    }

    /// The meaning of a number, if pushd uses it.
    pub fn from_code(code: u8) -> Option<Exit> {
        Exit::ALL.into_iter().find(|exit| exit.code() == code)
    }

    /// The exit code for an error of the system, whatever operation failed.
    pub fn of_error(error: &io::Error) -> Exit {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EADDRINUSE) => Exit::Unavailable,
            Some(Errno::EACCES | Errno::EPERM) => Exit::NoPermission,
            _ if error.kind() == io::ErrorKind::PermissionDenied => Exit::NoPermission,
            _ => Exit::System,
        }
    }

    /// The exit code for a configuration with errors. A file that may not be read is a matter of permission: its
    /// content is unknown, not wrong.
    pub fn of_errors(errors: &crate::config::Errors) -> Exit {
        if errors.are_of_permission() { Exit::NoPermission } else { Exit::Config }
    }

    /// The exit code where a file was to be created: for a path that does not exist or a full disk it is 73. A full
    /// table of descriptors stays an error of the system.
    pub fn of_create_error(error: &io::Error) -> Exit {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(
                Errno::ENOENT
                | Errno::ENOTDIR
                | Errno::EISDIR
                | Errno::EROFS
                | Errno::ENOSPC
                | Errno::EDQUOT
                | Errno::ENAMETOOLONG
                | Errno::ELOOP
                | Errno::EEXIST
                | Errno::ENXIO
                | Errno::ETXTBSY,
            ) => Exit::CannotCreate,
            _ => Exit::of_error(error),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// A start, check or reload that failed: the message for the operator, the exit code for a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened, without a trailing newline.
    pub message: String,
}

impl Failure {
    /// A failure with this message.
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into() }
    }

    /// Prints it on standard error.
    pub fn print(&self) {
        journal::print(log::Level::Error, &format!("pushd: {self}"));
    }

    /// Operation `what`, for example `cannot listen on 127.0.0.1:80`, failed with `error`.
    pub fn io(what: impl fmt::Display, error: &io::Error) -> Failure {
        Failure::new(Exit::of_error(error), format!("{what}: {}", reason(error)))
    }

    /// The file at `path`, described by `what` (for example `the log`), cannot be created or opened for writing.
    pub fn create(what: impl fmt::Display, path: &Path, error: &io::Error) -> Failure {
        let message = format!("cannot open {what} {}: {}", path.display(), reason(error));
        Failure::new(Exit::of_create_error(error), message)
    }
}

/// Writes text to standard output. A reader that closed its end is not an error: it has read enough.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// The text of an error without the number that Rust appends, which does not help an operator.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match (error.raw_os_error(), text.rfind(" (os error ")) {
        (Some(_), Some(end)) => text[..end].to_string(),
        _ => text,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::new(Exit::of_error(&error), reason(&error))
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Failure {
        io::Error::from(errno).into()
    }
}

impl From<crate::config::Errors> for Failure {
    fn from(errors: crate::config::Errors) -> Failure {
        Failure::new(Exit::of_errors(&errors), errors.to_string().trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(errno: Errno) -> io::Error {
        io::Error::from(errno)
    }

    #[test]
    fn each_code_maps_back_to_its_meaning() {
        for exit in Exit::ALL {
            assert_eq!(Exit::from_code(exit.code()), Some(exit));
        }
        assert_eq!(Exit::from_code(1), None);
    }

    #[test]
    fn system_errors_map_to_the_documented_codes() {
        assert_eq!(Exit::of_error(&error(Errno::EADDRINUSE)), Exit::Unavailable);
        assert_eq!(Exit::of_error(&error(Errno::EACCES)), Exit::NoPermission);
        assert_eq!(Exit::of_error(&error(Errno::EPERM)), Exit::NoPermission);
        assert_eq!(Exit::of_error(&error(Errno::EMFILE)), Exit::System);
        assert_eq!(Exit::of_error(&error(Errno::ENOENT)), Exit::System);
        assert_eq!(Exit::of_create_error(&error(Errno::ENOENT)), Exit::CannotCreate);
        assert_eq!(Exit::of_create_error(&error(Errno::ENOSPC)), Exit::CannotCreate);
        assert_eq!(Exit::of_create_error(&error(Errno::EACCES)), Exit::NoPermission);
        assert_eq!(Exit::of_create_error(&error(Errno::EMFILE)), Exit::System);
    }

    #[test]
    fn a_message_does_not_contain_the_error_number() {
        let failure = Failure::io("cannot listen on 127.0.0.1:80", &error(Errno::EADDRINUSE));
        assert_eq!(failure.to_string(), "cannot listen on 127.0.0.1:80: Address already in use");
        assert_eq!(failure.exit, Exit::Unavailable);
    }
}
