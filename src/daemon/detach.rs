//! Into the background, and the truth about how it went.
//!
//! The launching process and the daemon share a pipe. The launcher reads it until its end: `ready` and it exits 0;
//! `fail CODE MESSAGE` and it prints the message and exits with the code; nothing at all means that the daemon died on
//! its way, which is an error too. The crate `daemonize` is used for fork, setsid, umask and the standard streams only:
//! its pidfile, its change of user and its `start()` (which exits 0 before anything is known) are not.
//!
//! No thread may exist yet, since `fork` copies only the one that calls it.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::path::Path;

use daemonize::{Daemonize, Outcome};
use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};

use super::exit::{Exit, Failure, reason};

/// The file mode creation mask of a daemon that was not told another (twistd's): what it writes is its own.
pub const UMASK: u32 = 0o077;

/// The daemon's end of the pipe. Dropped without a word it tells the launcher that the daemon died.
///
/// Give up the pidfile before the word that ends the launcher: who reads of a failure may start the next pushd at once.
#[derive(Debug)]
pub struct StatusPipe {
    pipe: Option<PipeWriter>,
}

impl StatusPipe {
    /// For a process that was not detached: nobody waits.
    pub fn none() -> StatusPipe {
        StatusPipe { pipe: None }
    }

    /// It serves: the launcher exits 0.
    pub fn ready(self) {
        self.say(b"ready");
    }

    /// It failed: the launcher prints the message and exits with the code. Without a launcher the message goes to
    /// standard error, so that the caller says it the same way in both cases.
    pub fn fail(self, failure: &Failure) {
        if self.pipe.is_none() {
            failure.tell();
        }
        self.say(format!("fail {} {}", failure.exit.code(), failure.message).as_bytes());
    }

    fn say(mut self, word: &[u8]) {
        // A launcher that was interrupted no longer listens; the daemon serves none the less.
        if let Some(pipe) = &mut self.pipe {
            let _ = pipe.write_all(word);
        }
    }
}

/// Changes into the run directory, as both kinds of start do first: what is relative is relative to it.
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

/// Sets the file mode creation mask, if one was asked for.
pub fn mask(mask: Option<u32>) {
    if let Some(mask) = mask {
        umask(Mode::from_bits_truncate(mask));
    }
}

/// Goes on in a new process without a terminal, in the current directory (see [`enter`]), with `mask` and the standard
/// streams on `/dev/null`.
///
/// Returns in the daemon only; the launching process waits for its word and exits, without running destructors.
pub fn detach(mask: u32) -> Result<StatusPipe, Failure> {
    let (reader, writer) = pipe().map_err(|error| Failure::io("cannot make a pipe to the daemon", &error))?;
    match Daemonize::new().working_directory(".").umask(mask).execute() {
        Outcome::Child(outcome) => {
            drop(reader);
            let status = StatusPipe { pipe: Some(writer) };
            if let Err(error) = outcome {
                // The streams may still be the launcher's: one voice is enough, and this process must not go on as if
                // it were the launcher.
                status.fail(&Failure::new(Exit::System, format!("cannot detach: {error}")));
                std::process::exit(Exit::System.code().into());
            }
            Ok(status)
        }
        Outcome::Parent(outcome) => {
            drop(writer);
            let verdict = match (listen(reader), outcome) {
                (Verdict::Silence, Err(error)) => {
                    Verdict::Failed(Failure::new(Exit::System, format!("cannot detach: {error}")))
                }
                // A wait that failed (a caller who ignores SIGCHLD) does not matter once the daemon has spoken.
                (verdict, _) => verdict,
            };
            std::process::exit(verdict.tell().code().into());
        }
    }
}

/// What the launcher learnt.
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

    fn tell(self) -> Exit {
        let failure = match self {
            Verdict::Ready => return Exit::Clean,
            Verdict::Failed(failure) => failure,
            Verdict::Silence => Failure::new(Exit::System, "the daemon died before it was ready; its log may say why"),
        };
        failure.tell();
        failure.exit
    }
}

fn listen(mut reader: PipeReader) -> Verdict {
    let mut words = Vec::new();
    match reader.read_to_end(&mut words) {
        Ok(_) => Verdict::parse(&String::from_utf8_lossy(&words)),
        Err(_) => Verdict::Silence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(speak: impl FnOnce(StatusPipe)) -> Verdict {
        let (reader, writer) = pipe().unwrap();
        speak(StatusPipe { pipe: Some(writer) });
        listen(reader)
    }

    #[test]
    fn the_launcher_learns_the_truth() {
        assert_eq!(said(StatusPipe::ready), Verdict::Ready);
        let failure = Failure::new(Exit::Unavailable, "127.0.0.1:80: Address already in use\nand more");
        assert_eq!(said(|pipe| pipe.fail(&failure)), Verdict::Failed(failure));
        assert_eq!(said(drop), Verdict::Silence);
    }

    #[test]
    fn a_failure_can_never_look_like_success() {
        for words in ["", "read", "readyfail 69 x", "fail", "fail 0 fine", "fail 300 x", "fail 69"] {
            assert_eq!(Verdict::parse(words), Verdict::Silence, "{words:?}");
        }
        assert_eq!(Verdict::Silence.tell(), Exit::System);
    }

    #[test]
    fn a_run_directory_that_is_not_there_is_a_bad_configuration() {
        let failure = enter(Path::new("/nonexistent/pushd")).unwrap_err();
        assert_eq!(failure.exit, Exit::Config);
        assert!(failure.message.contains("/nonexistent/pushd"), "{failure}");
    }
}
