//! Files that root opens for the user it is about to become.
//!
//! Root does nothing by a name that somebody else can change: between two looks a file could become a link to one of root's. So
//! the pidfile, the log and the Unix sockets are made with the user's own rights ([`Identity::act`]). Where the user may not, as
//! in `/run`, root makes them and gives them to the user, but only in a directory that root alone can change, down from `/`.

use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, Gid, Uid, access};

use super::privileges::Identity;

/// Those who may write to something beside its owner.
const OTHERS_WRITE: u32 = 0o022;
/// Of a directory: only its own owner removes or renames an entry.
const STICKY: u32 = 0o1000;

/// On whose behalf files are opened; of nobody else's by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Behalf(Option<Identity>);

impl Behalf {
    /// Of the user that this process will become, if it will become another.
    pub fn of(identity: Option<&Identity>) -> Behalf {
        Behalf(identity.cloned())
    }

    /// Has `open` open what is at `path`; where only root could, `give` makes it the user's.
    ///
    /// # Errors
    /// What `open` or `give` says, or that neither the user nor root may do that there.
    pub fn open<T>(
        &self,
        path: &Path,
        mut open: impl FnMut() -> io::Result<T>,
        give: impl FnOnce(&T, Uid, Gid) -> io::Result<()>,
    ) -> io::Result<T> {
        let Some(identity) = &self.0 else { return open() };
        match identity.act(&mut open).map_err(|failure| io::Error::other(failure.message))? {
            Err(error) if error.kind() == ErrorKind::PermissionDenied && Uid::effective().is_root() => {
                if !is_roots_alone(path) {
                    let why = format!(
                        "user {} is not permitted to, and others than root can change a directory of that path, so root does not either",
                        identity.uid
                    );
                    return Err(io::Error::new(ErrorKind::PermissionDenied, why));
                }
                let opened = open()?;
                give(&opened, identity.uid, identity.gid)?;
                Ok(opened)
            }
            opened => opened,
        }
    }
}

/// Whether this process could write to the file at `path`, or make it, without doing so.
pub(super) fn rehearse(path: &Path) -> io::Result<()> {
    let directory = match path.metadata() {
        Ok(found) if found.is_dir() => return Err(Errno::EISDIR.into()),
        Ok(_) => return Ok(access(path, AccessFlags::W_OK)?),
        Err(_) => path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")),
    };
    Ok(access(directory, AccessFlags::W_OK | AccessFlags::X_OK)?)
}

/// Whether nobody but root can change what `path` means.
fn is_roots_alone(path: &Path) -> bool {
    let Some(directory) =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).canonicalize().ok()
    else {
        return false;
    };
    let looks = directory.ancestors().map(|directory| directory.symlink_metadata().map(|found| Look::of(&found)));
    looks.collect::<io::Result<Vec<_>>>().is_ok_and(|looks| are_roots_alone(&looks))
}

/// What counts of a directory.
#[derive(Debug, Clone, Copy)]
struct Look {
    owner: u32,
    mode: u32,
}

impl Look {
    fn of(found: &Metadata) -> Look {
        Look { owner: found.uid(), mode: found.mode() }
    }
}

/// The same of a directory and all above it, in that order. In one with the sticky bit, as `/tmp`, an entry of root's stays what it is.
fn are_roots_alone(looks: &[Look]) -> bool {
    looks.iter().enumerate().all(|(above, Look { owner, mode })| {
        *owner == 0 && (mode & OTHERS_WRITE == 0 || above > 0 && mode & STICKY != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_roots_alone_if_all_above_it_are() {
        let looks = |all: &[(u32, u32)]| {
            are_roots_alone(&all.iter().map(|&(owner, mode)| Look { owner, mode }).collect::<Vec<_>>())
        };
        assert!(looks(&[(0, 0o755), (0, 0o755)]));
        assert!(looks(&[(0, 0o700), (0, 0o1777), (0, 0o755)]));
        assert!(!looks(&[(0, 0o1777), (0, 0o755)]), "anybody makes a file there");
        assert!(!looks(&[(0, 0o775), (0, 0o755)]));
        assert!(!looks(&[(0, 0o755), (65534, 0o755), (0, 0o755)]));
        assert!(!looks(&[(0, 0o755), (0, 0o777), (0, 0o755)]));
    }

    #[test]
    fn what_is_done_for_oneself_is_just_done() {
        let opened =
            Behalf::default().open(Path::new("/nonexistent/x"), || Ok(5), |_, _, _| panic!("nobody to give it to"));
        assert_eq!(opened.unwrap(), 5);
    }
}
