//! What was sent lately, ready to be sent again by the shard's own thread.
//!
//! A copy in memory counts only while its path still leads to the same state of the same file ([`Identity`]): one `stat` for each request. So what
//! is on the disk is what is sent, a deployment shows at once, and a hot file costs neither a trip to another thread nor a read. The file was
//! found below its root when it was read, and is no less so while it is the same; anything else is looked up
//! anew. One cache for each thread, bounded; when full it begins anew.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::config::limits::PAGE_CACHE_BYTES_MAX;

/// Which file it is, and which state of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Identity {
        Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a change from now on would show: the kernel's clock for files is coarse, so two changes in one of its ticks look like one.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        self.changed.0 < now - 1
    }
}

/// What an entry costs beside its bytes: name, identity, place in the table; about that.
const ENTRY_BYTES: usize = 512;

#[derive(Default)]
struct Cache {
    /// By path: below which root it was found, in which state, and its bytes.
    files: HashMap<PathBuf, (PathBuf, Identity, Bytes)>,
    bytes: usize,
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
}

/// The file at `path` as it is now, and its bytes, if they were sent lately. It must have been found below this very `root`: the same
/// path may lead out of another one, by a link that is itself a root somewhere else.
pub(super) fn find(root: &Path, path: &Path) -> Option<(Metadata, Bytes)> {
    CACHE.with_borrow(|cache| {
        let (_, identity, bytes) = cache.files.get(path).filter(|(below, ..)| below == root)?;
        let metadata = std::fs::metadata(path).ok()?;
        (metadata.is_file() && Identity::of(&metadata) == *identity).then(|| (metadata, bytes.clone()))
    })
}

/// Keeps the bytes of a file that was found below `root`.
pub(super) fn keep(root: PathBuf, path: PathBuf, identity: Identity, bytes: Bytes) {
    CACHE.with_borrow_mut(|cache| {
        let cost = bytes.len() + ENTRY_BYTES;
        // What is gone from the disk is found out by nobody: beginning anew throws it out with the rest.
        if cache.bytes + cost > PAGE_CACHE_BYTES_MAX {
            *cache = Cache::default();
        }
        cache.bytes += cost;
        if let Some((.., replaced)) = cache.files.insert(path, (root, identity, bytes)) {
            cache.bytes -= replaced.len() + ENTRY_BYTES;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(inode: u64) -> Identity {
        Identity { device: 1, inode, length: 0, modified: (0, 0), changed: (0, 0) }
    }

    #[test]
    fn what_changed_just_now_may_change_again_unseen() {
        let now = UNIX_EPOCH + std::time::Duration::from_secs(1000);
        for (changed, settled) in [(990, true), (998, true), (999, false), (1000, false), (2000, false)] {
            assert_eq!(Identity { changed: (changed, 0), ..identity(1) }.is_settled(now), settled, "{changed}");
        }
    }

    #[test]
    fn a_copy_counts_while_the_file_is_the_same() {
        let ground = tempfile::tempdir().unwrap();
        let path = ground.path().join("page");
        std::fs::write(&path, "old").unwrap();
        let keep_now = || {
            keep(
                ground.path().into(),
                path.clone(),
                Identity::of(&std::fs::metadata(&path).unwrap()),
                Bytes::from_static(b"kept"),
            )
        };
        keep_now();
        assert_eq!(find(ground.path(), &path).unwrap().1, "kept");
        assert!(find(Path::new("/"), &path).is_none(), "found below another root");
        std::fs::write(&path, "other").unwrap();
        assert!(find(ground.path(), &path).is_none(), "another length");
        keep_now();
        std::fs::rename(&path, ground.path().join("aside")).unwrap();
        assert!(find(ground.path(), &path).is_none(), "gone");
        std::fs::write(&path, "other").unwrap();
        assert!(find(ground.path(), &path).is_none(), "another file of the same length");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let piece = Bytes::from(vec![0; PAGE_CACHE_BYTES_MAX / 4]);
        for number in 0..20 {
            keep("/".into(), format!("/{number}").into(), identity(number), piece.clone());
            keep("/".into(), format!("/{number}").into(), identity(number), piece.clone());
            assert!(CACHE.with_borrow(|cache| cache.files.contains_key(Path::new(&format!("/{number}")))));
            assert!(CACHE.with_borrow(|cache| cache.bytes) <= PAGE_CACHE_BYTES_MAX);
        }
        assert!(CACHE.with_borrow(|cache| cache.files.len() < 5));
    }
}
