//! Going into the background, and reporting to the launching process how the start went.
//!
//! The launching process and the daemon share a pipe. The launcher reads it to its end. After `ready` it exits 0. After
//! `fail CODE MESSAGE` it prints the message and exits with the code. If it reads nothing, the daemon died during its
//! start, which is an error too. The crate `daemonize` is used for fork, setsid, umask and the standard streams only.
//! Its pidfile, its change of user and its `start()` (which exits 0 before the outcome is known) are not used.
//!
//! No other thread may exist yet, because `fork` copies only the thread that calls it.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::path::Path;

use daemonize::{Daemonize, Outcome};
use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};

use super::exit::{Exit, Failure, reason};

/// The default file mode creation mask of a daemon, as twistd's: only its user can read what it writes.
pub const UMASK: u32 = 0o077;

/// The daemon's end of the pipe. If it is dropped without a message, the launcher reports that the daemon died.
///
/// Release the pidfile before sending the message that ends the launcher: after a reported failure, the next pushd may
/// be started at once.
#[derive(Debug)]
pub struct StatusPipe {
    pipe: Option<PipeWriter>,
}

impl StatusPipe {
    /// For a process that was not detached: no launcher waits.
    pub fn none() -> StatusPipe {
        StatusPipe { pipe: None }
    }

    /// Reports that the daemon serves: the launcher exits 0.
    pub fn ready(self) {
        self.send(b"ready");
    }

    /// Reports a failure: the launcher prints the message and exits with the code. Without a launcher the message goes
    /// to standard error, so that callers need not distinguish the two cases.
    pub fn fail(self, failure: &Failure) {
        if self.pipe.is_none() {
            failure.print();
        }
        self.send(format!("fail {} {}", failure.exit.code(), failure.message).as_bytes());
    }

    fn send(mut self, message: &[u8]) {
        // The launcher may have been interrupted; the daemon serves all the same.
        if let Some(pipe) = &mut self.pipe {
            let _ = pipe.write_all(message);
        }
    }
}

/// Changes into the run directory. Both kinds of start do this first, because relative paths are relative to it.
pub fn enter(rundir: &Path) -> Result<(), Failure> {
    std::env::set_current_dir(rundir).map_err(|error| {
        let exit = match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG) => Exit::Config,
            _ => Exit::of_error(&error),
        };
        let message = format!("cannot change to the run directory {}: {}", rundir.display(), reason(&error));
        Failure::new(exit, message)
    })
}

/// Sets the file mode creation mask, if one was configured.
pub fn mask(mask: Option<u32>) {
    if let Some(mask) = mask {
        umask(Mode::from_bits_truncate(mask));
    }
}

/// Continues in a new process without a terminal, in the current directory (see [`enter`]), with `mask` and with the
/// standard streams on `/dev/null`.
///
/// Returns in the daemon only. The launching process waits for the daemon's message and exits without running
/// destructors.
pub fn detach(mask: u32) -> Result<StatusPipe, Failure> {
    let (reader, writer) = pipe().map_err(|error| Failure::io("cannot make a pipe to the daemon", &error))?;
    match Daemonize::new().working_directory(".").umask(mask).execute() {
        Outcome::Child(outcome) => {
            drop(reader);
            let status = StatusPipe { pipe: Some(writer) };
            if let Err(error) = outcome {
                // The streams may still be the launcher's, so the message goes only through the pipe. And this process
                // must not continue as if it were the launcher.
                status.fail(&Failure::new(Exit::System, format!("cannot detach: {error}")));
                std::process::exit(Exit::System.code().into());
            }
            Ok(status)
        }
        Outcome::Parent(outcome) => {
            drop(writer);
            let verdict = match (read(reader), outcome) {
                (Verdict::Silence, Err(error)) => {
                    Verdict::Failed(Failure::new(Exit::System, format!("cannot detach: {error}")))
                }
                // A failed wait (the caller may ignore SIGCHLD) does not matter once the daemon has sent its message.
                (verdict, _) => verdict,
            };
            std::process::exit(verdict.report().code().into());
        }
    }
}

/// What the launcher read from the pipe.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Ready,
    Failed(Failure),
    Silence,
}

impl Verdict {
    fn parse(words: &str) -> Verdict {
        if words == "ready" {
            return Verdict::Ready;
        }
        let failure = words.strip_prefix("fail ").and_then(|rest| rest.split_once(' '));
        let parsed = failure.and_then(|(code, message)| {
            let exit = Exit::from_code(code.parse().ok()?).filter(|exit| *exit != Exit::Clean)?;
            Some(Failure::new(exit, message))
        });
        parsed.map_or(Verdict::Silence, Verdict::Failed)
    }

    fn report(self) -> Exit {
        let failure = match self {
            Verdict::Ready => return Exit::Clean,
            Verdict::Failed(failure) => failure,
            Verdict::Silence => Failure::new(Exit::System, "the daemon died before it was ready; its log may say why"),
        };
        failure.print();
        failure.exit
    }
}

fn read(mut reader: PipeReader) -> Verdict {
    let mut words = Vec::new();
    match reader.read_to_end(&mut words) {
        Ok(_) => Verdict::parse(&String::from_utf8_lossy(&words)),
        Err(_) => Verdict::Silence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_after(report: impl FnOnce(StatusPipe)) -> Verdict {
        let (reader, writer) = pipe().unwrap();
        report(StatusPipe { pipe: Some(writer) });
        read(reader)
    }

    #[test]
    fn the_launcher_reads_what_the_daemon_reports() {
        assert_eq!(read_after(StatusPipe::ready), Verdict::Ready);
        let failure = Failure::new(Exit::Unavailable, "127.0.0.1:80: Address already in use\nand more");
        assert_eq!(read_after(|pipe| pipe.fail(&failure)), Verdict::Failed(failure));
        assert_eq!(read_after(drop), Verdict::Silence);
    }

    #[test]
    fn a_malformed_report_is_never_taken_for_success() {
        for words in ["", "read", "readyfail 69 x", "fail", "fail 0 fine", "fail 300 x", "fail 69"] {
            assert_eq!(Verdict::parse(words), Verdict::Silence, "{words:?}");
        }
        assert_eq!(Verdict::Silence.report(), Exit::System);
    }

    #[test]
    fn a_missing_run_directory_is_a_configuration_error() {
        let failure = enter(Path::new("/nonexistent/pushd")).unwrap_err();
        assert_eq!(failure.exit, Exit::Config);
        assert!(failure.message.contains("/nonexistent/pushd"), "{failure}");
    }
}
