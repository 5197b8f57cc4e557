//! Opens a path below a directory step by step, for systems where `openat2` is not available.
//!
//! systemd's `RestrictSUIDSGID=`, which the unit sets, forbids that call, because a system call filter cannot see its
//! flags. (The call then fails with `ENOSYS`, as in a kernel before 5.6.) What the kernel does in one call is done here
//! in several, with the same result. Each name is opened relative to the directory reached so far, without following
//! links. The content of a link is resolved like the rest of the path. `..` returns to the directory from which the
//! current one was entered. So a rename during the resolution cannot lead out of the root.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat};

/// The most links that a path may lead through, as in the kernel.
const LINKS_MAX: usize = 40;

/// Opens `path` below `root`, as `openat2` does with `RESOLVE_BENEATH` and `RESOLVE_NO_MAGICLINKS`.
pub(super) fn open(root: &OwnedFd, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    let mut ahead = names(path)?;
    let mut way: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            way.pop().ok_or(Errno::EXDEV)?;
            continue;
        }
        let here = way.last().unwrap_or(root);
        let entry =
            openat(here, name.as_os_str(), OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
        match SFlag::from_bits_truncate(fstat(&entry)?.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFDIR => way.push(entry),
            SFlag::S_IFLNK => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::ELOOP);
                }
                let mut target = names(Path::new(&readlinkat(&entry, "")?))?;
                target.append(&mut ahead);
                ahead = target;
            }
            _ if !ahead.is_empty() => return Err(Errno::ENOTDIR),
            _ if flags.contains(OFlag::O_PATH) => return Ok(entry),
            // If it was replaced by a link meanwhile, this fails instead of following it.
            _ => return openat(here, name.as_os_str(), flags | OFlag::O_NOFOLLOW, Mode::empty()),
        }
    }
    openat(way.last().unwrap_or(root), ".", flags, Mode::empty())
}

/// The names of a path, including `..`. An absolute path would leave the root.
fn names(path: &Path) -> Result<VecDeque<OsString>, Errno> {
    let mut names = VecDeque::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push_back(name.to_owned()),
            Component::ParentDir => names.push_back("..".into()),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return Err(Errno::EXDEV),
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt, symlink};

    use nix::fcntl::{OpenHow, ResolveFlag, openat2};

    use super::*;

    /// A root with all kinds of entries, and files beside it that must not be reached.
    fn sample() -> tempfile::TempDir {
        let sample = tempfile::tempdir().unwrap();
        let at = |name: &str| sample.path().join(name);
        fs::create_dir_all(at("root/a/b")).unwrap();
        fs::create_dir(at("root-beside")).unwrap();
        for name in ["secret", "root-beside/secret", "root/file", "root/a/file", "root/a/b/file"] {
            fs::write(at(name), name).unwrap();
        }
        let outside = at("secret");
        for (name, target) in [
            ("link", "file"),
            ("a/up", "../file"),
            ("a/b/down", "../b/file"),
            ("folder", "a/b"),
            ("chain", "folder/down"),
            ("here", "."),
            ("out", "../secret"),
            ("beside", "../root-beside/secret"),
            ("back-in", "../root/file"),
            ("absolute", outside.to_str().unwrap()),
            ("magic", "/proc/self/root"),
            ("lost", "nothing"),
            ("loop", "pool"),
            ("pool", "loop"),
            ("a/sly", "b/../../../secret"),
            ("through-file", "file/x"),
        ] {
            symlink(target, at("root").join(name)).unwrap();
        }
        nix::unistd::mkfifo(&at("root/fifo"), Mode::S_IRWXU).unwrap();
        sample
    }

    /// The identity of the opened file, or the error.
    fn what(opened: Result<OwnedFd, Errno>) -> Result<(u64, u64), Errno> {
        opened.map(|fd| File::from(fd).metadata().unwrap()).map(|file| (file.dev(), file.ino()))
    }

    #[test]
    fn the_result_is_the_same_as_the_kernels() {
        let sample = sample();
        let root: OwnedFd = File::open(sample.path().join("root")).unwrap().into();
        let long = "here/".repeat(LINKS_MAX + 1) + "file";
        let paths = [
            ".",
            "file",
            "a",
            "a/b",
            "a/b/file",
            "a/./b/../file",
            "..",
            "a/..",
            "a/../..",
            "../root/file",
            "none",
            "a/none",
            "file/x",
            "link",
            "link/x",
            "a/up",
            "a/b/down",
            "folder",
            "folder/file",
            "folder/..",
            "folder/../file",
            "chain",
            "here/here/file",
            "out",
            "beside",
            "back-in",
            "absolute",
            "magic",
            "magic/etc",
            "lost",
            "loop",
            "a/sly",
            "/",
            "/etc",
            "through-file",
            "fifo",
            "fifo/x",
            &long,
            &long[5..],
        ];
        let (mut found, mut refused) = (0, 0);
        for path in paths.map(Path::new) {
            for flags in [OFlag::O_PATH, OFlag::O_RDONLY | OFlag::O_NONBLOCK, OFlag::O_RDONLY | OFlag::O_DIRECTORY] {
                let flags = flags | OFlag::O_CLOEXEC;
                let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
                let kernel = what(openat2(&root, path, OpenHow::new().flags(flags).resolve(resolve)));
                assert_eq!(what(open(&root, path, flags)), kernel, "{} {flags:?}", path.display());
                *if kernel.is_ok() { &mut found } else { &mut refused } += 1;
            }
        }
        assert!(found > 40 && refused > 40, "{found} {refused}");
    }
}
