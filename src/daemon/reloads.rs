//! What came of the reloads, for the one who asked for one.
//!
//! SIGHUP has no answer. So a running pushd keeps a small file beside its pidfile, `pushd.pid.reload`: its number, how many reloads
//! have begun, how many have ended, of the last one the exit code and the words, and which configuration it runs on. It is replaced
//! as a whole, never written to in place, and removed at the end.
//!
//! Who asks looks how many have begun, sends the signal, and waits until one more has ended than had begun. That one began after the
//! look, and reads the configuration after it has said that it begins; so it read what there was when it was asked for, however
//! many ask at once. Where the directory is closed to the user that pushd became there is no file, and the log has to do.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::Pid;

use super::exit::Failure;
use crate::config::limits::RELOAD_BYTES_MAX;

/// The reloads of this process.
#[derive(Debug)]
pub struct Reloads {
    path: PathBuf,
    config: String,
    begun: u64,
    ended: u64,
    last: Outcome,
}

/// What came of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// 0, or what a start with that configuration would have exited with.
    pub code: u8,
    /// What there is to say of it.
    pub message: String,
}

/// What the file of a process says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The process that says it.
    pub pid: Pid,
    /// The configuration it runs on, as [`in_words`] has it; older versions do not say it.
    pub config: Option<String>,
    /// How many reloads have begun.
    pub begun: u64,
    /// How many have ended.
    pub ended: u64,
    /// What came of the last of those.
    pub last: Outcome,
}

impl Reloads {
    /// Begins to tell, beside the pidfile of this process, which runs on `config`. Call it while the pidfile is locked, and drop it
    /// before.
    pub fn new(pidfile: &Path, config: &Path) -> Reloads {
        let (path, config) = (beside(pidfile), in_words(config));
        let reloads = Reloads { path, config, begun: 0, ended: 0, last: Outcome::default() };
        reloads.tell();
        reloads
    }

    /// One begins; nothing of the configuration has been read.
    pub fn begin(&mut self) {
        self.begun += 1;
        self.tell();
    }

    /// It has ended, with what is to be said of it, or refused.
    pub fn end(&mut self, outcome: &Result<String, Failure>) {
        self.ended = self.begun;
        self.last = match outcome {
            Ok(said) => Outcome { code: 0, message: said.clone() },
            Err(failure) => Outcome { code: failure.exit.code(), message: failure.message.clone() },
        };
        self.tell();
    }

    fn tell(&self) {
        if let Err(error) = self.replace() {
            ::log::debug!("cannot tell of reloads in {}: {error}", self.path.display());
        }
    }

    fn replace(&self) -> io::Result<()> {
        let Outcome { code, message } = &self.last;
        let (pid, begun, ended, config) = (std::process::id(), self.begun, self.ended, &self.config);
        let mut text = format!("{pid} {begun} {ended} {code} {config}\n{message}");
        // Room for the last character: it is cut between two.
        text.truncate(text.floor_char_boundary(RELOAD_BYTES_MAX));
        let new = appended(&self.path, ".new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&new)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&new, &self.path)
    }
}

impl Drop for Reloads {
    fn drop(&mut self) {
        // Where it could not be made there is nothing to remove.
        let _ = fs::remove_file(&self.path);
    }
}

/// What the process with that pidfile tells; nothing where it tells nothing, as an older version.
pub fn told(pidfile: &Path) -> Option<Told> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(beside(pidfile)).ok()?;
    let mut text = String::new();
    file.take(RELOAD_BYTES_MAX as u64).read_to_string(&mut text).ok()?;
    let (head, message) = text.split_once('\n')?;
    let mut words = head.splitn(5, ' ');
    let mut number = || words.next()?.parse::<u64>().ok();
    let pid = Pid::from_raw(number()?.try_into().ok()?);
    let (begun, ended, code) = (number()?, number()?, number()?.try_into().ok()?);
    let config = words.next().map(str::to_owned);
    Some(Told { pid, config, begun, ended, last: Outcome { code, message: message.to_owned() } })
}

/// A path as it is told: in one line, without what would act on a terminal.
pub fn in_words(path: &Path) -> String {
    path.to_string_lossy().chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn beside(pidfile: &Path) -> PathBuf {
    appended(pidfile, ".reload")
}

fn appended(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::super::exit::Exit;
    use super::*;

    #[test]
    fn each_step_can_be_read_and_the_end_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let pidfile = dir.path().join("pushd.pid");
        assert_eq!(told(&pidfile), None);
        let mut reloads = Reloads::new(&pidfile, Path::new("/etc/a b.toml"));
        let state = || told(&pidfile).map(|told| (told.pid, told.begun, told.ended, told.last.code)).unwrap();
        assert_eq!(state(), (Pid::this(), 0, 0, 0));
        assert_eq!(told(&pidfile).unwrap().config.unwrap(), "/etc/a b.toml");
        reloads.begin();
        assert_eq!(state(), (Pid::this(), 1, 0, 0));
        reloads.end(&Err(Failure::new(Exit::Unavailable, "a port\nis taken")));
        assert_eq!(state(), (Pid::this(), 1, 1, 69));
        assert_eq!(told(&pidfile).unwrap().last.message, "a port\nis taken");
        reloads.begin();
        reloads.end(&Ok("ä".repeat(RELOAD_BYTES_MAX)));
        assert_eq!(state(), (Pid::this(), 2, 2, 0));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        drop(reloads);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_others_put_there_is_replaced_and_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let pidfile = dir.path().join("pushd.pid");
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        for name in ["pushd.pid.reload", "pushd.pid.reload.new"] {
            std::os::unix::fs::symlink(&victim, dir.path().join(name)).unwrap();
        }
        assert_eq!(told(&pidfile), None);
        let reloads = Reloads::new(&pidfile, Path::new("/etc/a b.toml"));
        assert_eq!(told(&pidfile).unwrap().pid, Pid::this());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        drop(reloads);
        for text in ["", "1", "1 2 3\n", "x 0 0 0\n", "1 0 0 256\n", "99999999999 0 0 0\n"] {
            fs::write(dir.path().join("pushd.pid.reload"), text).unwrap();
            assert_eq!(told(&pidfile), None, "{text:?}");
        }
        fs::write(dir.path().join("pushd.pid.reload"), "7 2 1 0\nfrom an older version").unwrap();
        assert_eq!(told(&pidfile).map(|told| (told.begun, told.config)), Some((2, None)));
        // A directory that is closed, or gone, is no reason to end.
        drop(Reloads::new(Path::new("/nonexistent/pushd.pid"), Path::new("c")));
    }
}
