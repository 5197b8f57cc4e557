//! The file of a Unix socket: which one it is, so that only that one is given away or removed.
//!
//! Its name does not say: another program may have removed the file since, and bound a socket of its own there. So the file
//! itself is held (`O_PATH`). What is done to it is done through that handle, or after a look that the name still means it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, unlinkat};

/// The file of a Unix socket, held.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    file: OwnedFd,
}

impl SocketFile {
    /// The socket that stands at `path` now.
    ///
    /// # Errors
    /// There is none.
    pub fn at(path: &Path) -> io::Result<SocketFile> {
        SocketFile::held(path, open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?)
    }

    /// The one that another process held, and had bound at `path`.
    ///
    /// # Errors
    /// It is none.
    pub fn held(path: &Path, file: OwnedFd) -> io::Result<SocketFile> {
        match SFlag::from_bits_truncate(fstat(&file)?.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFSOCK => Ok(SocketFile { path: path.to_owned(), file }),
            _ => Err(io::Error::other(format!("{} is no socket", path.display()))),
        }
    }

    /// Where it was bound.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it to a user and a group.
    ///
    /// # Errors
    /// What the system says.
    pub fn give(&self, uid: Uid, gid: Gid) -> io::Result<()> {
        Ok(fchownat(&self.file, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)?)
    }

    /// Removes it, if its name still means it. Whether it did.
    ///
    /// # Errors
    /// What the system says; a file or a directory that is gone is no error.
    pub fn remove(&self) -> io::Result<bool> {
        match self.remove_named() {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            removed => removed,
        }
    }

    fn remove_named(&self) -> io::Result<bool> {
        let name = self.path.file_name().unwrap_or(OsStr::new(""));
        // Looked at and removed in one directory, whatever becomes of the path meanwhile.
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let is_ours = same(&fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?, &fstat(&self.file)?);
        if is_ours {
            unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir)?;
        }
        Ok(is_ours)
    }
}

fn same(one: &FileStat, other: &FileStat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

impl AsFd for SocketFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_the_socket_itself_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        assert!(SocketFile::at(&path).is_err());
        let _first = UnixListener::bind(&path).unwrap();
        let first = SocketFile::at(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(!first.remove().unwrap(), "it is gone");
        let _second = UnixListener::bind(&path).unwrap();
        assert!(!first.remove().unwrap(), "it is another's");
        assert!(path.exists());
        let second = SocketFile::held(&path, SocketFile::at(&path).unwrap().file).unwrap();
        assert!(second.remove().unwrap());
        assert!(!path.exists());
        drop(directory);
        assert!(!second.remove().unwrap(), "its directory is gone");
    }

    #[test]
    fn a_link_or_a_plain_file_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, link, plain) =
            (directory.path().join("s"), directory.path().join("l"), directory.path().join("p"));
        let _listener = UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::symlink(&socket, &link).unwrap();
        std::fs::write(&plain, "").unwrap();
        assert!(SocketFile::at(&link).is_err() && SocketFile::at(&plain).is_err());
    }
}
