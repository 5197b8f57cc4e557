//! The outcome of reloads, for the process that asked for one.
//!
//! SIGHUP has no answer. So a running pushd keeps a small file beside its pidfile, `pushd.pid.reload`. It holds the
//! PID, the number of reloads begun and ended, exit code and message of the last one, and the path of the
//! configuration. The file is replaced as a whole, never changed in place, and removed at the end.
//!
//! A process that asks for a reload reads how many have begun, sends the signal, and waits until one more than that
//! number has ended. That reload began after the request, and it reads the configuration only after it has announced
//! its beginning. So it reads the configuration as it was when it was asked for, however many processes ask at once. If
//! the user that pushd became may not write to the directory, there is no file; then only the log has the outcome.

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

/// The outcome of one reload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// 0, or the exit code of a start with that configuration.
    pub code: u8,
    /// The message about it.
    pub message: String,
}

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The process that wrote it.
    pub pid: Pid,
    /// The path of its configuration, as [`one_line`] writes it; older versions omit it.
    pub config: Option<String>,
    /// How many reloads have begun.
    pub begun: u64,
    /// How many have ended.
    pub ended: u64,
    /// The outcome of the last one that ended.
    pub last: Outcome,
}

impl Reloads {
    /// Creates the file beside the pidfile of this process, whose configuration is `config`. Create it while the
    /// pidfile is locked, and drop it before the pidfile is dropped.
    pub fn new(pidfile: &Path, config: &Path) -> Reloads {
        let (path, config) = (beside(pidfile), one_line(config));
        let reloads = Reloads { path, config, begun: 0, ended: 0, last: Outcome::default() };
        reloads.write();
        reloads
    }

    /// A reload begins. Call this before the configuration is read.
    pub fn begin(&mut self) {
        self.begun += 1;
        self.write();
    }

    /// A reload has ended, with a message or a failure.
    pub fn end(&mut self, outcome: &Result<String, Failure>) {
        self.ended = self.begun;
        self.last = match outcome {
            Ok(said) => Outcome { code: 0, message: said.clone() },
            Err(failure) => Outcome { code: failure.exit.code(), message: failure.message.clone() },
        };
        self.write();
    }

    fn write(&self) {
        if let Err(error) = self.replace() {
            ::log::debug!("cannot write the outcome of reloads to {}: {error}", self.path.display());
        }
    }

    fn replace(&self) -> io::Result<()> {
        let Outcome { code, message } = &self.last;
        let (pid, begun, ended, config) = (std::process::id(), self.begun, self.ended, &self.config);
        let mut text = format!("{pid} {begun} {ended} {code} {config}\n{message}");
        // Truncated between two characters.
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
        // If it could not be created, there is nothing to remove.
        let _ = fs::remove_file(&self.path);
    }
}

/// The report of the process with that pidfile; `None` if there is none, as with older versions.
pub fn read(pidfile: &Path) -> Option<Report> {
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
    Some(Report { pid, config, begun, ended, last: Outcome { code, message: message.to_owned() } })
}

/// A path as one line, without control characters.
pub fn one_line(path: &Path) -> String {
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
    fn each_step_is_reported_and_dropping_removes_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let pidfile = dir.path().join("pushd.pid");
        assert_eq!(read(&pidfile), None);
        let mut reloads = Reloads::new(&pidfile, Path::new("/etc/a b.toml"));
        let state = || read(&pidfile).map(|report| (report.pid, report.begun, report.ended, report.last.code)).unwrap();
        assert_eq!(state(), (Pid::this(), 0, 0, 0));
        assert_eq!(read(&pidfile).unwrap().config.unwrap(), "/etc/a b.toml");
        reloads.begin();
        assert_eq!(state(), (Pid::this(), 1, 0, 0));
        reloads.end(&Err(Failure::new(Exit::Unavailable, "a port\nis taken")));
        assert_eq!(state(), (Pid::this(), 1, 1, 69));
        assert_eq!(read(&pidfile).unwrap().last.message, "a port\nis taken");
        reloads.begin();
        reloads.end(&Ok("ä".repeat(RELOAD_BYTES_MAX)));
        assert_eq!(state(), (Pid::this(), 2, 2, 0));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        drop(reloads);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_foreign_file_in_its_place_is_replaced_and_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let pidfile = dir.path().join("pushd.pid");
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        for name in ["pushd.pid.reload", "pushd.pid.reload.new"] {
            std::os::unix::fs::symlink(&victim, dir.path().join(name)).unwrap();
        }
        assert_eq!(read(&pidfile), None);
        let reloads = Reloads::new(&pidfile, Path::new("/etc/a b.toml"));
        assert_eq!(read(&pidfile).unwrap().pid, Pid::this());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        drop(reloads);
        for text in ["", "1", "1 2 3\n", "x 0 0 0\n", "1 0 0 256\n", "99999999999 0 0 0\n"] {
            fs::write(dir.path().join("pushd.pid.reload"), text).unwrap();
            assert_eq!(read(&pidfile), None, "{text:?}");
        }
        fs::write(dir.path().join("pushd.pid.reload"), "7 2 1 0\nfrom an older version").unwrap();
        assert_eq!(read(&pidfile).map(|report| (report.begun, report.config)), Some((2, None)));
        // A directory that is read-only or missing must not end the process.
        drop(Reloads::new(Path::new("/nonexistent/pushd.pid"), Path::new("c")));
    }
}
