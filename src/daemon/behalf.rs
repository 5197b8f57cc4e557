//! Files that root opens for the user it is about to become.
//!
//! Root must not open a path that another user can change: between two checks a file could become a link to a file of
//! root's. So the pidfile, the log and the Unix sockets are created with the user's own rights ([`Identity::act`]).
//! Where the user has no permission, as in `/run`, root creates them and gives them to the user, but only if root alone
//! can change every directory of the path, from `/` down.

use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, Gid, Uid, access};

use super::privileges::Identity;

/// Write permission for group and others.
const OTHERS_WRITE: u32 = 0o022;
/// The sticky bit of a directory: only an entry's owner may remove or rename it.
const STICKY: u32 = 0o1000;

/// The user for whom files are opened; by default the current one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Behalf(Option<Identity>);

impl Behalf {
    /// For the user that this process will become, if it changes its user.
    pub fn of(identity: Option<&Identity>) -> Behalf {
        Behalf(identity.cloned())
    }

    /// Opens `path` by calling `open`. Where only root may do that, `give` then makes the result the user's.
    ///
    /// # Errors
    /// Whatever `open` or `give` return, or that neither the user nor root may open that path.
    pub fn open<T>(
        &self,
        path: &Path,
        mut open: impl FnMut() -> io::Result<T>,
        give: impl FnOnce(&T, Uid, Gid) -> io::Result<()>,
    ) -> io::Result<T> {
        let Some(identity) = &self.0 else { return open() };
        match identity.act(&mut open).map_err(|failure| io::Error::other(failure.message))? {
            Err(error) if error.kind() == ErrorKind::PermissionDenied && Uid::effective().is_root() => {
                if !only_root_can_change(path) {
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

/// Whether this process could write to the file at `path`, or create it. Changes nothing.
pub(super) fn rehearse(path: &Path) -> io::Result<()> {
    let directory = match path.metadata() {
        Ok(found) if found.is_dir() => return Err(Errno::EISDIR.into()),
        Ok(_) => return Ok(access(path, AccessFlags::W_OK)?),
        Err(_) => path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")),
    };
    Ok(access(directory, AccessFlags::W_OK | AccessFlags::X_OK)?)
}

/// Whether only root can change where `path` leads.
fn only_root_can_change(path: &Path) -> bool {
    let Some(directory) =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).canonicalize().ok()
    else {
        return false;
    };
    let owners = directory.ancestors().map(|directory| directory.symlink_metadata().map(|found| Ownership::of(&found)));
    owners.collect::<io::Result<Vec<_>>>().is_ok_and(|owners| no_other_user_can_change(&owners))
}

/// Owner and mode of a directory.
#[derive(Debug, Clone, Copy)]
struct Ownership {
    owner: u32,
    mode: u32,
}

impl Ownership {
    fn of(found: &Metadata) -> Ownership {
        Ownership { owner: found.uid(), mode: found.mode() }
    }
}

/// The same, given a directory and all its parents in that order. In a parent with the sticky bit, such as `/tmp`, only
/// root can replace an entry that it owns.
fn no_other_user_can_change(owners: &[Ownership]) -> bool {
    owners.iter().enumerate().all(|(above, Ownership { owner, mode })| {
        *owner == 0 && (mode & OTHERS_WRITE == 0 || above > 0 && mode & STICKY != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_safe_only_if_root_alone_can_change_all_its_directories() {
        let owners = |all: &[(u32, u32)]| {
            no_other_user_can_change(&all.iter().map(|&(owner, mode)| Ownership { owner, mode }).collect::<Vec<_>>())
        };
        assert!(owners(&[(0, 0o755), (0, 0o755)]));
        assert!(owners(&[(0, 0o700), (0, 0o1777), (0, 0o755)]));
        assert!(!owners(&[(0, 0o1777), (0, 0o755)]), "any user can create a file there");
        assert!(!owners(&[(0, 0o775), (0, 0o755)]));
        assert!(!owners(&[(0, 0o755), (65534, 0o755), (0, 0o755)]));
        assert!(!owners(&[(0, 0o755), (0, 0o777), (0, 0o755)]));
    }

    #[test]
    fn without_another_user_the_file_is_simply_opened() {
        let opened =
            Behalf::default().open(Path::new("/nonexistent/x"), || Ok(5), |_, _, _| panic!("there is no other user"));
        assert_eq!(opened.unwrap(), 5);
    }
}
