//! The pidfile: one pushd at a time, and its number for those who want to signal it.
//!
//! What decides is the lock (`flock`, exclusive) on the open file, never the number in it: a stale, empty or garbled
//! file is as good as none. The lock belongs to the open file description, so it survives `fork` and ends with the last
//! process that holds it, however that ends. Order: lock (and empty, so that nobody signals the number of a dead
//! process) → ready → write → removal, each only while the path still names the file that was locked.

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

/// Its mode, whatever the mask: whether pushd runs is asked by everybody, who watches it above all.
const MODE: u32 = 0o644;
/// How often locking is tried again after the file was swapped or merely looked at by a [`running`] elsewhere.
const TRIES_MAX: u32 = 50;
/// The pause between two tries; such a look takes microseconds.
const TRY_PAUSE: Duration = Duration::from_millis(5);
/// A decimal PID, its newline, and room for garbage to be recognised as such.
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

/// Who holds a pidfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Its PID; `None` while it has not written it yet, or if something else garbled the file.
    pub pid: Option<Pid>,
}

impl Pidfile {
    /// Locks the file at `path`, creating it if need be. A relative path is made absolute now, so a later change of
    /// directory does not matter.
    pub fn lock(path: &Path) -> Result<Pidfile, Failure> {
        Pidfile::lock_for(path, &Behalf::default())
    }

    /// The same for the user that this process is about to become: the file will be that user's.
    pub fn lock_for(path: &Path, behalf: &Behalf) -> Result<Pidfile, Failure> {
        let path = std::path::absolute(path).map_err(|error| Failure::create("the pidfile", path, &error))?;
        for _ in 0..TRIES_MAX {
            let file = open_for_lock(&path, behalf)?;
            match file.try_lock() {
                Ok(()) => match named(&path, &file) {
                    Some(entry) if is_bait(entry.nlink(), Uid::effective()) => return Err(bait(&path)),
                    Some(_) => {
                        file.set_len(0).map_err(|error| Failure::create("the pidfile", &path, &error))?;
                        return Ok(Pidfile { file, path });
                    }
                    // Between open and lock the former owner may have unlinked the file: then the lock is on a file
                    // without a name, and a third pushd could lock the next one.
                    None => {}
                },
                // A look by `running` takes a shared lock for an instant; a pushd holds an exclusive one.
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

    /// Writes the number of this process. Only once it is ready: who waits for the number waits for the service.
    pub fn write(&mut self) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::create("the pidfile", &self.path, &error);
        self.file.set_len(0).map_err(failed)?;
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        self.file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failed)
    }

    /// Where it is; absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // Someone may have removed our file and a newer pushd have made its own: that one is not ours to remove.
        // Where the directory is closed to the user we became, an empty file at least names nobody.
        if remove(&self.path, &self.file).is_err() {
            let _ = self.file.set_len(0);
        }
    }
}

/// Removes the open file, if its name still means it: looked at and removed in one directory, whatever becomes of the path meanwhile.
fn remove(path: &Path, file: &File) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let directory = open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let (entry, open) = (fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?, file.metadata()?);
    if (entry.st_dev, entry.st_ino) == (open.dev(), open.ino()) {
        unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir)?;
    }
    Ok(())
}

/// Who holds the pidfile at `path`, if anybody. Disturbs nothing: neither the holder nor a pushd that is starting.
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

/// Who runs with the pidfile at `path`; where nobody does, whether it could be made, without making it.
///
/// # Errors
/// It cannot be looked at, or could not be written.
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
    // Not blocking, so that a FIFO in the place of the file is an error and not a hang.
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
                // The mask of a daemon hides what it writes; whether it runs is no secret. A file of others keeps its mode.
                let _ = file.set_permissions(Permissions::from_mode(MODE));
                Ok(file)
            }
            _ => {
                let message = format!("cannot open the pidfile {}: not a regular file", path.display());
                Err(Failure::new(Exit::CannotCreate, message))
            }
        },
        // Another user's pushd is more to the point than that its file is not ours to write.
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

/// What stands at `path`, if that is still the file that is open.
fn named(path: &Path, file: &File) -> Option<Metadata> {
    let (entry, open) = (path.symlink_metadata().ok()?, file.metadata().ok()?);
    ((entry.dev(), entry.ino()) == (open.dev(), open.ino())).then_some(entry)
}

/// Whether a file with so many names may be somebody's trap: root is about to empty it and to give it away. The count must
/// come from the look that found the name (`named`), or the name could be swapped between the two.
fn is_bait(names: u64, user: Uid) -> bool {
    user.is_root() && names > 1
}

fn bait(path: &Path) -> Failure {
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

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pushd.pid");
        (dir, path)
    }

    fn own_pid() -> Pid {
        Pid::this()
    }

    #[test]
    fn written_when_told_and_removed_at_the_end() {
        let (_dir, path) = place();
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
    fn a_second_one_is_refused_and_disturbs_nothing() {
        let (_dir, path) = place();
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
    fn what_an_old_file_says_does_not_matter() {
        for content in ["", "1\n", "garbage", "-5", "99999999999999999999", "\u{0}\u{0}"] {
            let (_dir, path) = place();
            fs::write(&path, content).unwrap();
            assert_eq!(running(&path).unwrap(), None, "{content:?}");
            let mut pidfile = Pidfile::lock(&path).unwrap();
            assert_eq!(running(&path).unwrap(), Some(Holder { pid: None }), "{content:?}");
            pidfile.write().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        }
    }

    #[test]
    fn only_the_own_file_is_removed() {
        let (_dir, path) = place();
        let first = Pidfile::lock(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = Pidfile::lock(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn a_link_or_a_fifo_or_a_missing_directory_is_refused() {
        let (dir, path) = place();
        std::os::unix::fs::symlink(dir.path().join("victim"), &path).unwrap();
        assert_eq!(Pidfile::lock(&path).unwrap_err().exit, Exit::CannotCreate);
        assert!(!dir.path().join("victim").exists());
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(Pidfile::lock(&path).unwrap_err().exit, Exit::CannotCreate);
        assert_eq!(Pidfile::lock(&dir.path().join("no/pushd.pid")).unwrap_err().exit, Exit::CannotCreate);
    }

    #[test]
    fn root_neither_empties_nor_gives_away_what_has_another_name() {
        let (dir, path) = place();
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
        assert!(is_bait(2, Uid::from_raw(0)));
        assert!(!is_bait(1, Uid::from_raw(0)) && !is_bait(2, Uid::from_raw(1000)));
    }

    #[test]
    fn looking_does_not_prevent_a_start() {
        let (_dir, path) = place();
        fs::write(&path, "").unwrap();
        let look = File::open(&path).unwrap();
        look.try_lock_shared().unwrap();
        let starting = std::thread::spawn({
            let path = path.clone();
            move || Pidfile::lock(&path)
        });
        // However the two interleave: the look ends well within what the start is ready to wait.
        drop(look);
        assert!(starting.join().unwrap().is_ok());
    }
}
