//! The pidfile: allows one pushd at a time, and holds its PID for signals.
//!
//! The lock (`flock`, exclusive) on the open file decides, never the PID in it: a stale, empty or garbled file counts
//! as none. The lock belongs to the open file description. So it survives `fork`, and ends with the last process that
//! holds it, however that process ends. The order is: lock (and truncate, so that the PID of a dead process is not
//! signalled), ready, write, remove. Each step is taken only while the path still names the locked file.

use std::fs::{File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{Pid, Uid, UnlinkatFlags, fchown, unlinkat};

use super::behalf::{self, Behalf};
use super::exit::{Exit, Failure};

/// Its mode, whatever the mask: monitoring and other users may ask whether pushd runs.
const MODE: u32 = 0o644;
/// How often locking is tried again while the file is replaced, or locked by a [`running`] check elsewhere.
const TRIES_MAX: u32 = 50;
/// The pause between two attempts. A `running` check takes microseconds.
const TRY_PAUSE: Duration = Duration::from_millis(5);
/// A decimal PID and its newline, with some more space so that garbage is recognised.
const CONTENT_BYTES_MAX: u64 = 32;

/// A locked pidfile. Dropping it removes the file.
///
/// The process that launches a daemon must leave without dropping it (`process::exit`), as
/// [`detach`](super::detach::detach) does.
#[derive(Debug)]
pub struct Pidfile {
    file: File,
    path: PathBuf,
}

/// The process that holds a pidfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Its PID; `None` if it has not written the PID yet, or if something garbled the file.
    pub pid: Option<Pid>,
}

impl Pidfile {
    /// Locks the file at `path`, and creates it if needed. A relative path is made absolute now, so that a later change
    /// of directory does not matter.
    pub fn lock(path: &Path) -> Result<Pidfile, Failure> {
        Pidfile::lock_for(path, &Behalf::default())
    }

    /// The same for the user that this process is about to become: that user will own the file.
    pub fn lock_for(path: &Path, behalf: &Behalf) -> Result<Pidfile, Failure> {
        let path = std::path::absolute(path).map_err(|error| Failure::create("the pidfile", path, &error))?;
        for _ in 0..TRIES_MAX {
            let file = open_for_lock(&path, behalf)?;
            match file.try_lock() {
                Ok(()) => match named(&path, &file) {
                    Some(entry) if may_be_trap(entry.nlink(), Uid::effective()) => return Err(trap(&path)),
                    Some(_) => {
                        file.set_len(0).map_err(|error| Failure::create("the pidfile", &path, &error))?;
                        return Ok(Pidfile { file, path });
                    }
                    // The former owner may have removed the file between open and lock. Then the lock is on a file
                    // without a name, and a third pushd could create and lock the next one.
                    None => {}
                },
                // A `running` check takes a shared lock for a moment; a pushd holds an exclusive one.
                Err(TryLockError::WouldBlock) if file.try_lock_shared().is_ok() => {
                    drop(file);
                    sleep(TRY_PAUSE);
                }
                Err(TryLockError::WouldBlock) => return Err(taken(&path)),
                Err(TryLockError::Error(error)) => {
                    return Err(Failure::io(format_args!("cannot lock the pidfile {}", path.display()), &error));
                }
            }
        }
        let message = format!("cannot lock the pidfile {}: it is replaced again and again", path.display());
        Err(Failure::new(Exit::System, message))
    }

    /// Writes the PID of this process. Call it only once the process serves: scripts wait for the PID to know that it
    /// is ready.
    pub fn write(&mut self) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::create("the pidfile", &self.path, &error);
        self.file.set_len(0).map_err(failed)?;
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        self.file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failed)
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // If the file was removed, a newer pushd may have created its own, which must not be removed. If the current
        // user may not change the directory, an empty file at least names no process.
        if remove(&self.path, &self.file).is_err() {
            let _ = self.file.set_len(0);
        }
    }
}

/// Removes the open file if its path still names it. Check and removal use one descriptor of the directory, so that a
/// change of the path in between does not matter.
fn remove(path: &Path, file: &File) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let directory = open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let (entry, open) = (fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?, file.metadata()?);
    if (entry.st_dev, entry.st_ino) == (open.dev(), open.ino()) {
        unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir)?;
    }
    Ok(())
}

/// The process that holds the pidfile at `path`, if any. Disturbs neither that process nor a pushd that is starting.
pub fn running(path: &Path) -> io::Result<Option<Holder>> {
    let mut file = match open_flags(OpenOptions::new().read(true)).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(Holder { pid: read_pid(&mut file) })),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The process that holds the pidfile at `path`. If there is none, checks whether the file could be created, without
/// creating it.
///
/// # Errors
/// The file cannot be examined, or could not be written.
pub fn rehearse(path: &Path) -> Result<Option<Holder>, Failure> {
    let found = match running(path) {
        Ok(None) => behalf::rehearse(path).map(|()| None),
        found => found,
    };
    found.map_err(|error| {
        let whole = std::path::absolute(path);
        Failure::create("the pidfile", whole.as_deref().unwrap_or(path), &error)
    })
}

fn open_flags(options: &mut OpenOptions) -> &mut OpenOptions {
    // Non-blocking, so that a FIFO at the path is an error and not a hang.
    options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
}

fn open_for_lock(path: &Path, behalf: &Behalf) -> Result<File, Failure> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(MODE);
    open_flags(&mut options);
    let give = |file: &File, uid, gid| Ok(fchown(file, Some(uid), Some(gid))?);
    match behalf.open(path, || options.open(path), give) {
        Ok(file) => match file.metadata() {
            Ok(metadata) if metadata.is_file() => {
                // The mask hides a daemon's files, but whether it runs is not secret. The mode of another user's file
                // cannot be changed.
                let _ = file.set_permissions(Permissions::from_mode(MODE));
                Ok(file)
            }
            _ => {
                let message = format!("cannot open the pidfile {}: not a regular file", path.display());
                Err(Failure::new(Exit::CannotCreate, message))
            }
        },
        // That another user's pushd runs is the more useful message, compared with "permission denied" for its file.
        Err(_) if matches!(running(path), Ok(Some(_))) => Err(taken(path)),
        Err(error) => Err(Failure::create("the pidfile", path, &error)),
    }
}

fn taken(path: &Path) -> Failure {
    let pid = File::open(path).ok().and_then(|mut file| read_pid(&mut file));
    let message = match pid {
        Some(pid) => format!("Another pushd is running, PID {pid}"),
        None => format!("Another pushd is running, PID unknown: it holds {}, which has no number yet", path.display()),
    };
    Failure::new(Exit::Unavailable, message)
}

fn read_pid(file: &mut File) -> Option<Pid> {
    let mut content = String::new();
    file.take(CONTENT_BYTES_MAX).read_to_string(&mut content).ok()?;
    let number: i32 = content.trim().parse().ok()?;
    (number > 0).then(|| Pid::from_raw(number))
}

/// The metadata of `path`, if it is still the open file.
fn named(path: &Path, file: &File) -> Option<Metadata> {
    let (entry, open) = (path.symlink_metadata().ok()?, file.metadata().ok()?);
    ((entry.dev(), entry.ino()) == (open.dev(), open.ino())).then_some(entry)
}

/// Whether a file with so many hard links may be a trap: root is about to truncate it and to change its owner. The
/// count must come from the same `lstat` that found the name (`named`); otherwise the name could be replaced between
/// two calls.
fn may_be_trap(names: u64, user: Uid) -> bool {
    user.is_root() && names > 1
}

fn trap(path: &Path) -> Failure {
    let message = format!(
        "cannot use the pidfile {}: the file has another name elsewhere (a hard link), and may be a trap for root",
        path.display()
    );
    Failure::new(Exit::CannotCreate, message)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn temporary_path() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pushd.pid");
        (dir, path)
    }

    fn own_pid() -> Pid {
        Pid::this()
    }

    #[test]
    fn the_pid_is_written_on_request_and_the_file_removed_on_drop() {
        let (_dir, path) = temporary_path();
        let mut pidfile = Pidfile::lock(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        assert_eq!(running(&path).unwrap(), Some(Holder { pid: None }));
        pidfile.write().unwrap();
        pidfile.write().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        assert_eq!(running(&path).unwrap(), Some(Holder { pid: Some(own_pid()) }));
        drop(pidfile);
        assert!(!path.exists());
        assert_eq!(running(&path).unwrap(), None);
    }

    #[test]
    fn a_second_process_is_refused_and_changes_nothing() {
        let (_dir, path) = temporary_path();
        let mut first = Pidfile::lock(&path).unwrap();
        let early = Pidfile::lock(&path).unwrap_err();
        assert!(early.message.starts_with("Another pushd is running, PID unknown"), "{early}");
        first.write().unwrap();
        let refused = Pidfile::lock(&path).unwrap_err();
        assert_eq!(refused.exit, Exit::Unavailable);
        assert_eq!(refused.message, format!("Another pushd is running, PID {}", std::process::id()));
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
    }

    #[test]
    fn the_content_of_an_old_file_does_not_matter() {
        for content in ["", "1\n", "garbage", "-5", "99999999999999999999", "\u{0}\u{0}"] {
            let (_dir, path) = temporary_path();
            fs::write(&path, content).unwrap();
            assert_eq!(running(&path).unwrap(), None, "{content:?}");
            let mut pidfile = Pidfile::lock(&path).unwrap();
            assert_eq!(running(&path).unwrap(), Some(Holder { pid: None }), "{content:?}");
            pidfile.write().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        }
    }

    #[test]
    fn only_its_own_file_is_removed() {
        let (_dir, path) = temporary_path();
        let first = Pidfile::lock(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = Pidfile::lock(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn a_link_a_fifo_and_a_missing_directory_are_refused() {
        let (dir, path) = temporary_path();
        std::os::unix::fs::symlink(dir.path().join("victim"), &path).unwrap();
        assert_eq!(Pidfile::lock(&path).unwrap_err().exit, Exit::CannotCreate);
        assert!(!dir.path().join("victim").exists());
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(Pidfile::lock(&path).unwrap_err().exit, Exit::CannotCreate);
        assert_eq!(Pidfile::lock(&dir.path().join("no/pushd.pid")).unwrap_err().exit, Exit::CannotCreate);
    }

    #[test]
    fn root_refuses_a_pidfile_with_another_hard_link() {
        let (dir, path) = temporary_path();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        fs::hard_link(&victim, &path).unwrap();
        let locked = Pidfile::lock(&path);
        if Uid::effective().is_root() {
            let refused = locked.unwrap_err();
            assert_eq!(refused.exit, Exit::CannotCreate);
            assert!(refused.message.contains("another name"), "{refused}");
            assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        } else {
            assert!(locked.is_ok(), "{locked:?}");
        }
        assert!(may_be_trap(2, Uid::from_raw(0)));
        assert!(!may_be_trap(1, Uid::from_raw(0)) && !may_be_trap(2, Uid::from_raw(1000)));
    }

    #[test]
    fn a_running_check_does_not_prevent_a_start() {
        let (_dir, path) = temporary_path();
        fs::write(&path, "").unwrap();
        let look = File::open(&path).unwrap();
        look.try_lock_shared().unwrap();
        let starting = std::thread::spawn({
            let path = path.clone();
            move || Pidfile::lock(&path)
        });
        // In every interleaving the check ends well within the time that a start waits.
        drop(look);
        assert!(starting.join().unwrap().is_ok());
    }
}
