//! The file of a Unix socket, identified so that no other file is removed or gets another owner.
//!
//! The path is not enough: another program may have removed the file meanwhile, and bound a socket of its own there. So a
//! descriptor of the file is kept (`O_PATH`). Operations use this descriptor, or check first that the path still refers to the same
//! file.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, unlinkat};

/// The file of a Unix socket, with a descriptor of it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    file: OwnedFd,
}

impl SocketFile {
    /// The socket that is at `path` now.
    ///
    /// # Errors
    /// There is no socket.
    pub fn at(path: &Path) -> io::Result<SocketFile> {
        SocketFile::held(path, open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?)
    }

    /// A socket that another process had bound at `path`, by its descriptor.
    ///
    /// # Errors
    /// It is not a socket.
    pub fn held(path: &Path, file: OwnedFd) -> io::Result<SocketFile> {
        match SFlag::from_bits_truncate(fstat(&file)?.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFSOCK => Ok(SocketFile { path: path.to_owned(), file }),
            _ => Err(io::Error::other(format!("{} is not a socket", path.display()))),
        }
    }

    /// The path that it was bound at.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes its owner and group.
    ///
    /// # Errors
    /// The error of the system call.
    pub fn give(&self, uid: Uid, gid: Gid) -> io::Result<()> {
        Ok(fchownat(&self.file, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)?)
    }

    /// Removes it if its path still refers to it. Returns whether it did.
    ///
    /// # Errors
    /// The error of the system call. A file or a directory that does not exist any longer is not an error.
    pub fn remove(&self) -> io::Result<bool> {
        match self.remove_named() {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            removed => removed,
        }
    }

    fn remove_named(&self) -> io::Result<bool> {
        let name = self.path.file_name().unwrap_or(OsStr::new(""));
        // The check and the removal use the same directory, even if the path changes meanwhile.
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
        assert!(!first.remove().unwrap(), "it was removed");
        let _second = UnixListener::bind(&path).unwrap();
        assert!(!first.remove().unwrap(), "it belongs to another program");
        assert!(path.exists());
        let second = SocketFile::held(&path, SocketFile::at(&path).unwrap().file).unwrap();
        assert!(second.remove().unwrap());
        assert!(!path.exists());
        drop(directory);
        assert!(!second.remove().unwrap(), "its directory was removed");
    }

    #[test]
    fn a_link_or_a_regular_file_is_not_a_socket() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, link, plain) =
            (directory.path().join("s"), directory.path().join("l"), directory.path().join("p"));
        let _listener = UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::symlink(&socket, &link).unwrap();
        std::fs::write(&plain, "").unwrap();
        assert!(SocketFile::at(&link).is_err() && SocketFile::at(&plain).is_err());
    }
}
