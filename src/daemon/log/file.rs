//! The log file: appended to, rotated by size, reopened after it was moved.
//!
//! Rotation and reopening keep its mode and owner. Lines of a failed write are lost and counted. If a full disk left an
//! incomplete line, it is ended before the next line is written.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::Rotate;
use crate::daemon::behalf::Behalf;
use nix::fcntl::OFlag;
use nix::unistd::{Gid, Uid};

/// The mode of a log that pushd creates, whatever the mask: its owner writes, and a group may read.
const MODE: u32 = 0o640;
/// How often to check whether the file was moved without a signal.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Lines that could not be written.
#[derive(Debug)]
pub(super) struct Loss {
    pub(super) lines: u64,
    pub(super) error: io::Error,
}

#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// Only a regular file has a size and can be rotated.
    regular: bool,
    bytes: u64,
    /// The size at which the next rotation is tried.
    rotate_at: u64,
    rotate: Option<Rotate>,
    /// The file ends with an incomplete line.
    torn: bool,
    looked: Instant,
    missing: bool,
}

/// Mode and owner that the next file takes over from the current one.
#[derive(Debug, Clone, Copy)]
struct Attributes {
    mode: u32,
    owner: Option<(u32, u32)>,
}

impl LogFile {
    /// Opens the file at `path` for appending. If it does not exist, it is created on `behalf` of the later user.
    pub(super) fn open(path: &Path, rotate: Option<Rotate>, behalf: &Behalf) -> io::Result<LogFile> {
        // A link could lead out of the directory that was checked on behalf of the other user.
        let links = if *behalf == Behalf::default() { OFlag::empty() } else { OFlag::O_NOFOLLOW };
        let attributes = Attributes { mode: MODE, owner: None };
        let give = |(file, made): &(File, bool), uid: Uid, gid: Gid| match made {
            true => fchown(file, Some(uid.as_raw()), Some(gid.as_raw())),
            false => Ok(()),
        };
        let (file, _) = behalf.open(path, || open_append(path, attributes, links), give)?;
        let metadata = file.metadata()?;
        let mut log = LogFile {
            path: path.to_path_buf(),
            file,
            regular: metadata.is_file(),
            bytes: metadata.len(),
            rotate_at: 0,
            rotate: None,
            torn: false,
            looked: Instant::now(),
            missing: false,
        };
        log.set_rotate(rotate);
        Ok(log)
    }

    pub(super) fn set_rotate(&mut self, rotate: Option<Rotate>) {
        self.rotate = rotate.filter(|_| self.regular);
        self.rotate_at = self.rotate.map_or(u64::MAX, |rotate| rotate.size_bytes);
    }

    /// Whether to rotate before `more` bytes are written after the `staged` ones. An entry longer than the limit gets a
    /// file of its own.
    pub(super) fn is_full(&self, staged: usize, more: usize) -> bool {
        let before = self.bytes.saturating_add(staged as u64);
        before > 0 && before.saturating_add(more as u64) > self.rotate_at
    }

    /// Appends whole lines.
    pub(super) fn write(&mut self, mut lines: &[u8]) -> Result<(), Loss> {
        if self.torn && !lines.is_empty() {
            self.file.write_all(b"\n").map_err(|error| Loss { lines: count(lines), error })?;
            self.bytes += 1;
            self.torn = false;
        }
        while !lines.is_empty() {
            let error = match self.file.write(lines) {
                Ok(0) => io::Error::from(ErrorKind::WriteZero),
                Ok(written) => {
                    self.bytes += written as u64;
                    self.torn = lines[written - 1] != b'\n';
                    lines = &lines[written..];
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            return Err(Loss { lines: count(lines), error });
        }
        Ok(())
    }

    /// Checks at intervals whether the file was moved without a signal, and then opens the path again. True if it did.
    pub(super) fn look(&mut self) -> bool {
        if !self.regular || self.looked.elapsed() < LOOK_INTERVAL {
            return false;
        }
        self.looked = Instant::now();
        // Another program may have truncated it.
        self.bytes = self.file.metadata().map_or(self.bytes, |metadata| metadata.len());
        match self.named() {
            Some(true) => self.missing = false,
            Some(false) => return self.open_again().is_ok(),
            // A rotation by another program creates the new file right after it moved the old one: wait one interval
            // for it.
            None if self.missing => return self.open_again().is_ok(),
            None => self.missing = true,
        }
        false
    }

    /// SIGUSR1: opens the path again if the file was moved. If it was not, and pushd rotates the log itself, rotates
    /// it.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if self.named() == Some(true) && self.rotate.is_some() && self.bytes > 0 {
            return self.rotate();
        }
        self.open_again()
    }

    /// Moves the file to `.1`, the former `.1` to `.2` and so on, and starts a new one. If that fails, the old file
    /// stays in use, and the next attempt waits until as many bytes again were written. If another program moved the
    /// file, only a new one is started.
    pub(super) fn rotate(&mut self) -> io::Result<()> {
        let Some(rotate) = self.rotate else { return Ok(()) };
        let shifted = if self.named() == Some(true) { self.shift(rotate.keep) } else { Ok(()) };
        let rotated = shifted.and_then(|()| self.open_again());
        self.rotate_at = match &rotated {
            Ok(()) => rotate.size_bytes,
            Err(_) => self.bytes.saturating_add(rotate.size_bytes),
        };
        rotated
    }

    fn shift(&self, keep: u32) -> io::Result<()> {
        if keep == 0 {
            return fs::remove_file(&self.path);
        }
        // Files beyond `keep`, from a time when more were kept.
        let mut beyond = keep.saturating_add(1);
        while fs::remove_file(self.numbered(beyond)).is_ok() {
            beyond = beyond.saturating_add(1);
        }
        let free = (1..keep).find(|number| !self.numbered(*number).exists()).unwrap_or(keep);
        for number in (1..free).rev() {
            fs::rename(self.numbered(number), self.numbered(number + 1))?;
        }
        fs::rename(&self.path, self.numbered(1))
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }

    fn open_again(&mut self) -> io::Result<()> {
        let before = self.file.metadata()?;
        let attributes = Attributes { mode: before.mode() & 0o7777, owner: Some((before.uid(), before.gid())) };
        let (file, _) = open_append(&self.path, attributes, OFlag::empty())?;
        let metadata = file.metadata()?;
        self.regular = metadata.is_file();
        self.bytes = metadata.len();
        self.torn = false;
        self.missing = false;
        self.file = file;
        Ok(())
    }

    /// Whether the path names the open file; `None` if it names nothing.
    fn named(&self) -> Option<bool> {
        let named = fs::metadata(&self.path).ok()?;
        let open = self.file.metadata().ok()?;
        Some((named.dev(), named.ino()) == (open.dev(), open.ino()))
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// The file, and whether this call created it.
fn open_append(path: &Path, attributes: Attributes, links: OFlag) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    // Non-blocking, so that a FIFO without a reader is an error and not a hang.
    options.append(true).mode(MODE).custom_flags((links | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits());
    match options.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        opened => return Ok((opened?, false)),
    }
    let file = match options.create_new(true).open(path) {
        // Another program created it in the meantime: the file and its mode are that program's. (A dangling link gives
        // this error, too.)
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Ok((options.create_new(false).create(true).open(path)?, false));
        }
        created => created?,
    };
    file.set_permissions(Permissions::from_mode(attributes.mode))?;
    if let Some((uid, gid)) = attributes.owner {
        // Only root can change the owner. Otherwise the owner is right already, or cannot be changed.
        let _ = fchown(&file, Some(uid), Some(gid));
    }
    Ok((file, true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::privileges::Identity;

    const SMALL: Rotate = Rotate { size_bytes: 10, keep: 3 };

    fn temporary_path() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pushd.log");
        (dir, path)
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn appends_and_keeps_the_mode_of_an_existing_file() {
        let (_dir, path) = temporary_path();
        fs::write(&path, "old\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o604)).unwrap();
        let mut log = LogFile::open(&path, Some(SMALL), &Behalf::default()).unwrap();
        log.write(b"new\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old\nnew\n");
        assert!(!log.is_full(0, 2));
        assert!(log.is_full(0, 3));
        log.rotate().unwrap();
        assert_eq!(mode(&path), 0o604);
        assert_eq!(mode(&log.numbered(1)), 0o604);
    }

    #[test]
    fn on_behalf_of_another_user_no_link_is_followed() {
        let (dir, path) = temporary_path();
        let (uid, gid) = (Uid::current().to_string(), Gid::current().to_string());
        let another = Behalf::of(Identity::find(Some(&uid), Some(&gid)).unwrap().as_ref());
        for victim in ["one", "another"].map(|name| dir.path().join(name)) {
            std::os::unix::fs::symlink(&victim, &path).unwrap();
            let refused = LogFile::open(&path, None, &another).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(nix::errno::Errno::ELOOP as i32));
            assert!(!victim.exists());
            assert!(LogFile::open(&path, None, &Behalf::default()).is_ok(), "a user's own links are followed");
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn number_one_is_the_newest_and_no_more_than_keep_are_kept() {
        let (dir, path) = temporary_path();
        let mut log = LogFile::open(&path, Some(SMALL), &Behalf::default()).unwrap();
        assert_eq!(mode(&path), MODE);
        for number in 0..6 {
            log.write(format!("{number}\n").as_bytes()).unwrap();
            log.rotate().unwrap();
        }
        assert_eq!(names(dir.path()), ["pushd.log", "pushd.log.1", "pushd.log.2", "pushd.log.3"]);
        assert_eq!(fs::read_to_string(log.numbered(1)).unwrap(), "5\n");
        assert_eq!(fs::read_to_string(log.numbered(3)).unwrap(), "3\n");
        log.set_rotate(Some(Rotate { size_bytes: 10, keep: 1 }));
        log.rotate().unwrap();
        assert_eq!(names(dir.path()), ["pushd.log", "pushd.log.1"]);
        log.set_rotate(Some(Rotate { size_bytes: 10, keep: 0 }));
        log.rotate().unwrap();
        assert_eq!(names(dir.path()), ["pushd.log", "pushd.log.1"]);
    }

    #[test]
    fn rotation_fills_a_gap_and_moves_no_file_beyond_it() {
        let (_dir, path) = temporary_path();
        let mut log = LogFile::open(&path, Some(SMALL), &Behalf::default()).unwrap();
        fs::write(log.numbered(1), "one").unwrap();
        fs::write(log.numbered(3), "three").unwrap();
        log.rotate().unwrap();
        assert_eq!(fs::read_to_string(log.numbered(2)).unwrap(), "one");
        assert_eq!(fs::read_to_string(log.numbered(3)).unwrap(), "three");
    }

    #[test]
    fn a_file_moved_by_another_program_is_reopened_and_not_rotated() {
        let (dir, path) = temporary_path();
        let mut log = LogFile::open(&path, Some(SMALL), &Behalf::default()).unwrap();
        log.write(b"a\n").unwrap();
        fs::rename(&path, dir.path().join("moved")).unwrap();
        log.reopen().unwrap();
        log.write(b"b\n").unwrap();
        assert_eq!(names(dir.path()), ["moved", "pushd.log"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "b\n");
    }

    #[test]
    fn a_full_file_that_another_program_moved_is_not_rotated_again() {
        let (dir, path) = temporary_path();
        let mut log = LogFile::open(&path, Some(SMALL), &Behalf::default()).unwrap();
        log.write(b"0123456789\n").unwrap();
        fs::rename(&path, dir.path().join("moved")).unwrap();
        log.rotate().unwrap();
        log.write(b"0123456789\n").unwrap();
        fs::rename(&path, dir.path().join("moved again")).unwrap();
        fs::write(&path, "theirs\n").unwrap();
        log.rotate().unwrap();
        assert_eq!(names(dir.path()), ["moved", "moved again", "pushd.log"]);
        log.write(b"ours\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs\nours\n");
    }

    #[test]
    fn reopening_a_file_that_was_not_moved_rotates_it_if_rotation_is_configured() {
        let (dir, path) = temporary_path();
        let mut log = LogFile::open(&path, None, &Behalf::default()).unwrap();
        log.write(b"a\n").unwrap();
        log.reopen().unwrap();
        assert_eq!(names(dir.path()), ["pushd.log"]);
        log.set_rotate(Some(SMALL));
        log.reopen().unwrap();
        assert_eq!(names(dir.path()), ["pushd.log", "pushd.log.1"]);
    }

    #[test]
    fn a_move_without_a_signal_is_detected() {
        let (dir, path) = temporary_path();
        let mut log = LogFile::open(&path, None, &Behalf::default()).unwrap();
        let long_ago = Instant::now().checked_sub(LOOK_INTERVAL).unwrap();
        log.looked = long_ago;
        assert!(!log.look());
        fs::rename(&path, dir.path().join("moved")).unwrap();
        log.looked = long_ago;
        assert!(!log.look(), "waits for the new file");
        log.looked = long_ago;
        assert!(log.look());
        assert_eq!(names(dir.path()), ["moved", "pushd.log"]);
    }

    #[test]
    fn a_failed_rotation_does_not_stop_the_log() {
        let (dir, path) = temporary_path();
        let mut log = LogFile::open(&path, Some(SMALL), &Behalf::default()).unwrap();
        log.write(b"0123456789\n").unwrap();
        log.set_rotate(Some(Rotate { size_bytes: 10, keep: 1 }));
        fs::create_dir(log.numbered(1)).unwrap();
        assert!(log.is_full(0, 1));
        assert!(log.rotate().is_err());
        assert!(!log.is_full(0, 1), "the next attempt must wait");
        log.write(b"more\n").unwrap();
        assert!(fs::read_to_string(&path).unwrap().ends_with("more\n"));
        drop(dir);
    }

    #[test]
    fn lines_lost_to_a_full_disk_are_counted() {
        let mut log = LogFile::open(Path::new("/dev/full"), Some(SMALL), &Behalf::default()).unwrap();
        let loss = log.write(b"a\nb\nc\n").unwrap_err();
        assert_eq!(loss.lines, 3);
        assert_eq!(loss.error.raw_os_error(), Some(nix::errno::Errno::ENOSPC as i32));
        assert!(!log.is_full(1, usize::MAX), "a device is not rotated");
    }
}
