//! Opening what is below a directory, and nothing else.
//!
//! The kernel contains the path: `openat2` with `RESOLVE_BENEATH` follows symbolic links that stay below the root and
//! refuses those that leave it, without a moment between the check and the use; where that call is forbidden, [`beneath`]
//! does the same. Each name is first opened as a place
//! only (`O_PATH`), which touches no file, and looked at; only a regular file is then opened for reading, and looked at again: a FIFO's
//! writer is not woken, a device not rewound, and nothing can hang.
//!
//! The root itself is opened anew for each request, through whatever links lead to it, so that a deployment may swap it.

use std::fs::{File, Metadata};
use std::os::fd::OwnedFd;
use std::path::Path;

use http::StatusCode;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use nix::sys::statfs::fstatfs;

use super::{Refusal, beneath};

/// How often a resolution that a rename disturbed (`EAGAIN`) is tried.
const ATTEMPTS: usize = 8;

/// File systems of this machine's disks and memory, by the numbers that statfs(2) tells.
const LOCAL: [u32; 11] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0xf2f5_2010, // F2FS
    0x2fc1_2fc1, // ZFS
    0xca45_1a4e, // bcachefs
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x794c_7630, // overlayfs: containers
    0x7371_7368, // squashfs
    0xe0f5_e1e2, // EROFS
];

/// A directory that paths are resolved below.
pub(super) struct Root(OwnedFd);

/// What a path leads to.
pub(super) enum Found {
    /// A regular file, open for reading.
    File(File, Metadata),
    /// A directory.
    Directory,
}

impl Root {
    /// The directory at `path`.
    pub(super) fn open(path: &Path) -> Result<Root, Refusal> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open(path, flags, Mode::empty()).map(Root).map_err(|error| {
            log::error!("cannot open the directory {}: {}", path.display(), error.desc());
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the directory served here cannot be opened")
        })
    }

    /// What `path` leads to; anything but a regular file or a directory is as if it were not there.
    pub(super) fn look(&self, path: &Path) -> Result<Found, Refusal> {
        let place = self.peek(path)?;
        if place.is_dir() {
            return Ok(Found::Directory);
        }
        if !place.is_file() {
            return Err(Refusal::ABSENT);
        }
        // Between the two looks the name may have changed hands: O_NONBLOCK, and a second look.
        let file = File::from(self.resolve(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?);
        let metadata = file.metadata().map_err(|error| refusal(path, errno(&error)))?;
        if metadata.is_file() { Ok(Found::File(file, metadata)) } else { Err(Refusal::ABSENT) }
    }

    /// What is known of the thing at `path`, links followed, without opening it.
    pub(super) fn peek(&self, path: &Path) -> Result<Metadata, Refusal> {
        let place = File::from(self.resolve(path, OFlag::O_PATH)?);
        place.metadata().map_err(|error| refusal(path, errno(&error)))
    }

    /// The directory at `path`, to read its names.
    pub(super) fn directory(&self, path: &Path) -> Result<Dir, Refusal> {
        let directory = self.resolve(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NONBLOCK)?;
        Dir::from_fd(directory).map_err(|error| refusal(path, error))
    }

    fn resolve(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Refusal> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
        let mut result = Err(Errno::EAGAIN);
        for _ in 0..ATTEMPTS {
            result = match openat2(&self.0, path, how) {
                Err(Errno::ENOSYS) => beneath::open(&self.0, path, flags | OFlag::O_CLOEXEC),
                result => result,
            };
            if !matches!(result, Err(Errno::EAGAIN | Errno::EINTR)) {
                break;
            }
        }
        result.map_err(|error| refusal(path, error))
    }
}

/// Whether a file lies on one of this machine's own file systems, so that looking at it again waits for a disk at most, and
/// usually for nothing. What is not known to be one (NFS, SMB, FUSE, …) is not.
pub(super) fn is_local(file: &File) -> bool {
    fstatfs(file).is_ok_and(|system| LOCAL.contains(&(system.filesystem_type().0 as u32)))
}

fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// What the client is told when the system says `error`.
fn refusal(path: &Path, error: Errno) -> Refusal {
    match error {
        Errno::EXDEV => {
            log::debug!("{} leads out of the directory served: a link on its way does, or is absolute", path.display());
            Refusal::ABSENT
        }
        Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG | Errno::ENXIO | Errno::ENODEV => {
            Refusal::ABSENT
        }
        Errno::EACCES | Errno::EPERM => Refusal::new(StatusCode::FORBIDDEN, "the server may not read this file"),
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::EAGAIN | Errno::EINTR => {
            log::warn!("cannot open {}: {}", path.display(), error.desc());
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server is too busy to open this file")
        }
        _ => {
            log::error!("cannot open {}: {}", path.display(), error.desc());
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the system could not open this file")
        }
    }
}
