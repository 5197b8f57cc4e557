//! What was sent lately, ready to be sent again by the shard's own thread.
//!
//! A copy in memory counts only while its path still leads to the same state of the same file ([`Identity`]): one `stat` for each request. So what
//! is on the disk is what is sent, a deployment shows at once, and a hot file costs neither a trip to another thread nor a read. The file was
//! found below its root when it was read, and is no less so while it is the same; anything else is looked up
//! anew. Only files of this machine's own file systems are kept (`open` tells), so the `stat` waits for no network.
//! One cache for each thread, bounded; when full it begins anew.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::description::Description;
use crate::config::limits::PAGE_CACHE_BYTES_MAX;

/// Which file it is, and which state of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// A file that was read whole.
#[derive(Debug)]
pub(super) struct Kept {
    /// Where it was found, below its root: decoded, links not resolved.
    pub(super) below: PathBuf,
    pub(super) identity: Identity,
    pub(super) description: Arc<Description>,
    pub(super) bytes: Bytes,
}

/// What an entry costs beside its bytes: names, identity, header, place in the table; about that.
const ENTRY_BYTES: usize = 2048;

struct Entry {
    path: PathBuf,
    identity: Identity,
    description: Arc<Description>,
    bytes: Bytes,
}

#[derive(Default)]
struct Cache {
    /// By root and what was found below it, with a NUL between them: the same path may lead out of another root, by a link that is
    /// itself a root somewhere else.
    files: HashMap<Vec<u8>, Entry>,
    bytes: usize,
    /// The name looked for, kept so that looking allocates nothing.
    name: Vec<u8>,
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
}

/// The file at `below`, given in pieces, as it is now, and its bytes, if they were sent lately from below this very `root`.
pub(super) fn find(root: &Path, below: &[&[u8]]) -> Option<(Arc<Description>, Bytes)> {
    CACHE.with_borrow_mut(|Cache { files, name, .. }| {
        write_name(name, root, below);
        let entry = files.get(name.as_slice())?;
        let metadata = std::fs::metadata(&entry.path).ok()?;
        let same = metadata.is_file() && Identity::of(&metadata) == entry.identity;
        same.then(|| (entry.description.clone(), entry.bytes.clone()))
    })
}

/// Keeps a file that was found below `root`.
pub(super) fn keep(root: &Path, kept: Kept) {
    let Kept { below, identity, description, bytes } = kept;
    let mut name = Vec::new();
    write_name(&mut name, root, &[below.as_os_str().as_bytes()]);
    CACHE.with_borrow_mut(|cache| {
        let cost = bytes.len() + ENTRY_BYTES;
        // What is gone from the disk is found out by nobody: beginning anew throws it out with the rest.
        if cache.bytes + cost > PAGE_CACHE_BYTES_MAX {
            *cache = Cache::default();
        }
        cache.bytes += cost;
        let entry = Entry { path: root.join(below), identity, description, bytes };
        if let Some(replaced) = cache.files.insert(name, entry) {
            cache.bytes -= replaced.bytes.len() + ENTRY_BYTES;
        }
    });
}

fn write_name(name: &mut Vec<u8>, root: &Path, below: &[&[u8]]) {
    name.clear();
    name.extend_from_slice(root.as_os_str().as_bytes());
    name.push(0);
    below.iter().for_each(|piece| name.extend_from_slice(piece));
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

    /// Keeps these bytes as those of the file `below`.
    fn keep_as(root: &Path, below: &str, bytes: Bytes) {
        let path = root.join(below);
        let metadata = std::fs::metadata(&path).unwrap();
        let description = Arc::new(Description::of(&metadata, &path, SystemTime::now()));
        keep(root, Kept { below: below.into(), identity: Identity::of(&metadata), description, bytes });
    }

    #[test]
    fn a_copy_counts_while_the_file_is_the_same() {
        let ground = tempfile::tempdir().unwrap();
        let (root, path) = (ground.path(), ground.path().join("sub/page"));
        std::fs::create_dir(root.join("sub")).unwrap();
        std::fs::write(&path, "old").unwrap();
        let keep_now = || keep_as(root, "sub/page", Bytes::from_static(b"kept"));
        let is_there = || find(root, &[b"sub/page"]).is_some();
        keep_now();
        assert_eq!(find(root, &[b"sub/", b"page"]).unwrap().1, "kept");
        assert!(find(&root.join("sub"), &[b"page"]).is_none(), "found below another root");
        std::fs::write(&path, "other").unwrap();
        assert!(!is_there(), "another length");
        keep_now();
        std::fs::rename(&path, root.join("aside")).unwrap();
        assert!(!is_there(), "gone");
        std::fs::write(&path, "other").unwrap();
        assert!(!is_there(), "another file of the same length");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let ground = tempfile::tempdir().unwrap();
        let piece = Bytes::from(vec![0; PAGE_CACHE_BYTES_MAX / 4]);
        for number in 0..20 {
            let below = number.to_string();
            std::fs::write(ground.path().join(&below), "").unwrap();
            keep_as(ground.path(), &below, piece.clone());
            keep_as(ground.path(), &below, piece.clone());
            assert!(find(ground.path(), &[below.as_bytes()]).is_some());
            assert!(CACHE.with_borrow(|cache| cache.bytes) <= PAGE_CACHE_BYTES_MAX);
        }
        assert!(CACHE.with_borrow(|cache| cache.files.len() < 5));
    }
}
