//! Finds a pushd of this machine: its configuration, its pidfile, and the process that holds it.
//!
//! The lock decides whether it runs; the PID in the file decides which process to signal. A PID that another program
//! wrote, or that belongs to another PID namespace (of a container), is detected if `/proc` shows which processes have
//! the file open. A pushd writes the path of its configuration to a file beside its pidfile: if a configuration was
//! named, a pushd that runs on another one is left alone.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use super::CONFIG;
use super::fault::Fault;
use crate::config;
use crate::config::limits::{CTL_POLL, CTL_STARTING_TIMEOUT};
use crate::daemon::exit::{Exit, reason};
use crate::daemon::pidfile;
use crate::daemon::reloads;

/// The default pidfile.
const PIDFILE: &str = "pushd.pid";
/// The run directory of the packaged systemd unit.
const RUN_DIRECTORY: &str = "/run/pushd";

/// What helps where no pushd is found.
pub(super) const HINT: &str =
    "If it was started in another directory, or with another `pidfile` or `rundir`, name its pidfile: --pidfile FILE";

/// Which pushd is meant.
#[derive(Debug, Args)]
pub(super) struct Instance {
    /// The configuration that it runs with, which names its pidfile. A pushd that runs with another one is left alone
    /// [default: look for pushd.pid, or what /etc/pushd/config.toml calls it, in the current directory, then in /run/pushd]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Its pidfile, whatever configuration it runs with
    #[arg(long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,
}

/// A pushd that was looked for; it may or may not run.
#[derive(Debug)]
pub(super) struct Found {
    /// Its pidfile.
    pub pidfile: PathBuf,
    /// The other paths where it was looked for.
    others: Vec<PathBuf>,
    /// The configuration that it must run on, if one was named.
    config: Option<PathBuf>,
    /// The grace of its shutdown.
    pub grace: Duration,
}

/// The process that holds a pidfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// No process: pushd does not run.
    Not,
    /// A pushd that is not ready yet, or whose PID cannot be read.
    WithoutNumber,
    /// This process.
    By(Pid),
}

impl Instance {
    /// The configuration, if there is one: the named one, or else the default one if no pidfile was named and the file
    /// exists.
    pub fn config_file(&self) -> Option<PathBuf> {
        let usual = || Some(PathBuf::from(CONFIG)).filter(|file| self.pidfile.is_none() && file.exists());
        self.config.clone().or_else(usual)
    }

    /// Finds the pidfile.
    pub fn find(&self) -> Result<Found, Fault> {
        let daemon = match self.config_file() {
            None => None,
            Some(file) => match config::load_daemon(&file) {
                // It must be possible to stop a pushd whose file is invalid or missing by now.
                None if self.pidfile.is_none() => {
                    let errors = config::load_again(&file).err();
                    let why = errors.as_ref().and_then(|errors| errors.0.first()).map_or("", |error| error.summary());
                    let message = format!("cannot read {}: {why}; --pidfile names the pidfile itself", file.display());
                    return Err(Fault::new(errors.as_ref().map_or(Exit::Config, Exit::of_errors), message));
                }
                daemon => daemon,
            },
        };
        let grace = daemon.as_ref().map_or_else(|| config::Daemon::default().grace, |daemon| daemon.grace);
        let (pidfile, config) = match &self.pidfile {
            Some(pidfile) => (pidfile.clone(), None),
            None => {
                let configured = daemon.map(|daemon| daemon.rundir.unwrap_or_default().join(daemon.pidfile));
                (configured.unwrap_or_else(|| PathBuf::from(PIDFILE)), self.config.clone())
            }
        };
        let mut paths = vec![std::path::absolute(&pidfile).unwrap_or_else(|_| pidfile.clone())];
        // Without a run directory in the file, it is the directory where pushd was started: the current one, or the
        // unit's.
        let of_the_unit = config.as_deref().is_none_or(|config| is_same(config, Path::new(CONFIG)));
        if self.pidfile.is_none() && pidfile.is_relative() && of_the_unit {
            paths.push(Path::new(RUN_DIRECTORY).join(&pidfile));
            paths.dedup();
        }
        let found = |path: &PathBuf| Found {
            pidfile: path.clone(),
            others: paths.iter().filter(|other| *other != path).cloned().collect(),
            config: config.as_deref().map(|config| std::path::absolute(config).unwrap_or_else(|_| config.to_owned())),
            grace,
        };
        // If a pidfile cannot be examined, it may be the right one.
        let held: Vec<Found> = paths.iter().map(found).filter(|found| !matches!(found.held(), Ok(Held::Not))).collect();
        let meant = held.iter().position(|found| found.runs_on_another().is_none()).unwrap_or(0);
        Ok(held.into_iter().nth(meant).unwrap_or_else(|| found(&paths[0])))
    }
}

/// Whether both paths lead to the same file.
fn is_same(one: &Path, other: &Path) -> bool {
    one == other || one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

impl Found {
    /// The process that holds the pidfile now.
    pub fn held(&self) -> Result<Held, Fault> {
        match pidfile::running(&self.pidfile) {
            Ok(None) => Ok(Held::Not),
            Ok(Some(holder)) => Ok(holder.pid.map_or(Held::WithoutNumber, Held::By)),
            // A missing directory contains no pidfile.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(Held::Not),
            Err(error) => {
                let what = format!("cannot look at the pidfile {}: {}", self.pidfile.display(), reason(&error));
                Err(Fault::new(Exit::of_error(&error), what))
            }
        }
    }

    /// The process that holds the pidfile; `None` if there is none. Waits a little for a pushd that is starting.
    pub fn holder(&self) -> Result<Option<Pid>, Fault> {
        let deadline = Instant::now() + CTL_STARTING_TIMEOUT;
        loop {
            match self.held()? {
                Held::Not => return Ok(None),
                Held::By(pid) if has_open(pid, &self.pidfile) == Some(false) => {
                    return Err(Fault::failed(format!(
                        "the pidfile {} is held, but not by PID {pid}, which it names \
                         (a container's? something else wrote it?): nothing was done",
                        self.pidfile.display()
                    )));
                }
                Held::By(pid) if Uid::effective().is_root() && !may_name(pid, &self.pidfile) => {
                    return Err(Fault::new(
                        Exit::NoPermission,
                        format!(
                            "PID {pid}, which {} names, is not a process of the user that owns that file: root does \
                             not signal a process that another user names, and nothing was done",
                            self.pidfile.display()
                        ),
                    ));
                }
                Held::By(pid) => {
                    return match self.runs_on_another() {
                        None => Ok(Some(pid)),
                        Some(other) => {
                            let pidfile = self.pidfile.display();
                            let what = format!("{other}: nothing was done; --pidfile {pidfile} names it all the same");
                            Err(Fault::failed(what))
                        }
                    };
                }
                Held::WithoutNumber if Instant::now() < deadline => sleep(CTL_POLL),
                Held::WithoutNumber => {
                    return Err(Fault::failed(format!(
                        "a pushd holds {} but has not written its PID: it is still starting, try again",
                        self.pidfile.display()
                    )));
                }
            }
        }
    }

    /// The message for a pushd that does not run.
    pub fn not_running(&self) -> String {
        let paths: Vec<String> =
            [&self.pidfile].into_iter().chain(&self.others).map(|path| path.display().to_string()).collect();
        format!("pushd is not running (no process has locked {})", paths.join(" or "))
    }

    /// The failure of a command that found no pushd to signal.
    pub fn nothing_to_signal(&self) -> Fault {
        Fault::failed(format!("{}. {HINT}", self.not_running()))
    }

    /// The name of a running pushd in messages.
    pub fn named(&self, pid: Pid) -> String {
        format!("pushd, PID {pid} ({}),", self.pidfile.display())
    }

    /// A message if the process runs on another configuration than the named one; `None` if it runs on that one, or if
    /// that is unknown.
    pub fn runs_on_another(&self) -> Option<String> {
        let wanted = self.config.as_deref()?;
        let report = reloads::read(&self.pidfile)?;
        let config = report.config?;
        if config == reloads::one_line(wanted) || is_same(Path::new(&config), wanted) {
            return None;
        }
        let (pid, pidfile, wanted) = (report.pid, self.pidfile.display(), wanted.display());
        Some(format!("PID {pid} ({pidfile}) runs on {config}, not on {wanted}"))
    }
}

/// Sends a signal to `pid`. Returns whether the process existed.
pub(super) fn signal(pid: Pid, signal: Signal) -> Result<bool, Fault> {
    match kill(pid, signal) {
        Ok(()) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(Errno::EPERM) => {
            let message =
                format!("no permission to signal PID {pid}, it runs as another user: try as that user or root");
            Err(Fault::new(Exit::NoPermission, message))
        }
        Err(errno) => Err(Fault::io(format_args!("cannot signal PID {pid}"), &errno.into())),
    }
}

/// Whether the owner of `file`, who can write any PID into it, could also signal process `pid`.
fn may_name(pid: Pid, file: &Path) -> bool {
    let Ok(owner) = file.symlink_metadata().map(|found| found.uid()) else { return false };
    let user = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()
    };
    owner == 0 || user() == Some(owner)
}

/// Whether process `pid` has `file` open; `None` if that is unknown.
fn has_open(pid: Pid, file: &Path) -> Option<bool> {
    let wanted = file.metadata().ok().map(|found| (found.dev(), found.ino()))?;
    let open = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(open) => open,
        // A process that exists but is not shown belongs to another user, or to another user namespace (hidepid,
        // ProtectProc=).
        Err(error) if error.kind() == io::ErrorKind::NotFound && Path::new("/proc/self/fd").exists() => {
            return (kill(pid, None) == Err(Errno::ESRCH)).then_some(false);
        }
        Err(_) => return None,
    };
    let names = |entry: io::Result<fs::DirEntry>| {
        let found = entry.and_then(|entry| entry.path().metadata());
        found.is_ok_and(|found| (found.dev(), found.ino()) == wanted)
    };
    Some(open.into_iter().any(names))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::pidfile::Pidfile;

    fn instance(config: Option<PathBuf>, pidfile: Option<PathBuf>) -> Instance {
        Instance { config, pidfile }
    }

    #[test]
    fn a_relative_pidfile_is_in_the_run_directory() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        let found = |text: &str| {
            fs::write(&file, text).unwrap();
            instance(Some(file.clone()), None).find().unwrap()
        };
        let run = dir.path().join("run");
        assert_eq!(found("[daemon]\nrundir = \"run\"\n").pidfile, run.join("pushd.pid"));
        let other = found("[daemon]\nrundir = \"run\"\npidfile = \"x.pid\"\ngrace = \"1s\"\n");
        assert_eq!((other.pidfile, other.grace), (run.join("x.pid"), Duration::from_secs(1)));
        assert_eq!(found("[daemon]\npidfile = \"/run/p.pid\"\n").pidfile, Path::new("/run/p.pid"));
        assert_eq!(found("").pidfile, std::env::current_dir().unwrap().join("pushd.pid"));
        let broken = found("[server.x]\nlisten = 5\n[daemon]\nrundir = \"run\"\npidfile = \"x.pid\"\nnonsense");
        assert_eq!(broken.pidfile, run.join("x.pid"));
    }

    #[test]
    fn a_pidfile_can_be_named_without_a_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let pidfile = dir.path().join("p");
        let none = Some(dir.path().join("none.toml"));
        assert_eq!(instance(none.clone(), Some(pidfile.clone())).find().unwrap().pidfile, pidfile);
        assert_eq!(instance(None, Some(pidfile)).config_file(), None);
        assert_eq!(instance(none, None).find().unwrap_err().code, Exit::Config.code());
    }

    #[test]
    fn with_a_named_configuration_only_its_own_pidfile_is_tried() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        fs::write(&file, "").unwrap();
        let named = instance(Some(file), None).find().unwrap();
        assert!(named.others.is_empty(), "{named:?}");
        let here = std::env::current_dir().unwrap().join("pushd.pid");
        let usual = instance(None, None).find().unwrap();
        let paths: Vec<&PathBuf> = [&usual.pidfile].into_iter().chain(&usual.others).collect();
        assert!(paths.contains(&&here) && paths.contains(&&PathBuf::from("/run/pushd/pushd.pid")), "{paths:?}");
    }

    #[test]
    fn the_lock_decides_and_a_wrong_pid_is_detected() {
        let dir = tempfile::tempdir().unwrap();
        let found = instance(None, Some(dir.path().join("p"))).find().unwrap();
        assert_eq!(found.held().unwrap(), Held::Not);
        fs::write(&found.pidfile, "1\n").unwrap();
        assert_eq!((found.held().unwrap(), found.holder().unwrap()), (Held::Not, None));
        let mut lock = Pidfile::lock(&found.pidfile).unwrap();
        assert_eq!(found.held().unwrap(), Held::WithoutNumber);
        lock.write().unwrap();
        assert_eq!(found.holder().unwrap(), Some(Pid::this()));
        // A process that exists, and one that does not. Neither has the file open.
        for other in [nix::unistd::getppid().as_raw(), i32::MAX] {
            fs::write(&found.pidfile, format!("{other}\n")).unwrap();
            assert!(found.holder().unwrap_err().message.contains("not by PID"), "{other}");
        }
    }
}
