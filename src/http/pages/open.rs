//! Opens paths below a directory, and nothing outside of it.
//!
//! The kernel confines the path: `openat2` with `RESOLVE_BENEATH` follows symbolic links that stay below the root and
//! refuses those that leave it, without a gap between check and use. Where that call is forbidden, [`beneath`] does the
//! same. Each name is first opened with `O_PATH`, which does not touch the file, and checked. Only a regular file is
//! then opened for reading, and checked again. So the writer of a FIFO is not woken, a device is not rewound, and nothing
//! blocks.
//!
//! The root itself is opened for each request, through any links that lead to it, so that a deployment may replace it.

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

/// How often a resolution is tried that a concurrent rename disturbed (`EAGAIN`).
const ATTEMPTS: usize = 8;

/// File systems on this machine's disks or in its memory, by their numbers in statfs(2).
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

/// A directory below which paths are resolved.
pub(super) struct Root(OwnedFd);

/// The target of a path.
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

    /// The target of `path`. Anything but a regular file or a directory counts as absent.
    pub(super) fn look(&self, path: &Path) -> Result<Found, Refusal> {
        let metadata = self.peek(path)?;
        if metadata.is_dir() {
            return Ok(Found::Directory);
        }
        if !metadata.is_file() {
            return Err(Refusal::ABSENT);
        }
        // The name may lead to something else by now: hence O_NONBLOCK, and a second check.
        let file = File::from(self.resolve(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?);
        let metadata = file.metadata().map_err(|error| refusal(path, errno(&error)))?;
        if metadata.is_file() { Ok(Found::File(file, metadata)) } else { Err(Refusal::ABSENT) }
    }

    /// The metadata of the target of `path`, links followed, without opening it.
    pub(super) fn peek(&self, path: &Path) -> Result<Metadata, Refusal> {
        let entry = File::from(self.resolve(path, OFlag::O_PATH)?);
        entry.metadata().map_err(|error| refusal(path, errno(&error)))
    }

    /// Opens the directory at `path` to read its names.
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

/// Whether a file is on one of this machine's own file systems, so that a `stat` waits at most for a disk. Unknown ones
/// (NFS, SMB, FUSE, …) count as remote.
pub(super) fn is_local(file: &File) -> bool {
    fstatfs(file).is_ok_and(|system| LOCAL.contains(&(system.filesystem_type().0 as u32)))
}

fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// The response for an error of the system.
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
