//! A cache of files that were sent recently, so that the shard's own thread can send them again.
//!
//! A cached copy is used only while its path still leads to the same state of the same file ([`Identity`]), which costs
//! one `stat` for each request. So the content of the disk is what is sent, a deployment takes effect at once, and a
//! popular file needs neither another thread nor a read. The file was found below its root when it was read, and still
//! is while its identity is the same; otherwise it is looked up again. Only files on this machine's own file systems
//! are cached (see `open`), so that `stat` does not wait for a network. There is one bounded cache for each thread.
//! When it is full, it is emptied.
//!
//! An entry has a copy for each coding that was sent. The copy of a compressed file beside the file costs a second `stat`. Whether
//! there are others beside it now is checked once in [`SIBLINGS_KEPT`], so that most requests do not look for files that do not
//! exist.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::coding::{Accepted, Available, Coding};
use super::description::Description;
use super::siblings::{self, Siblings};
use crate::config::limits::{PAGE_CACHE_BYTES_MAX, SIBLINGS_KEPT};

/// The identity of a file and of its current state.
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

    /// Whether a later change would be visible in the identity. The kernel's clock for files is coarse, so two changes
    /// within one of its ticks look like one.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        self.changed.0 < now - 1
    }
}

/// A file that was read completely, in one coding.
#[derive(Debug)]
pub(super) struct Kept {
    /// Its path below its root: decoded, links not resolved.
    pub(super) below: PathBuf,
    pub(super) state: State,
    pub(super) coding: Coding,
    pub(super) copy: Copy,
}

/// What was found at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    /// The file itself.
    pub(super) identity: Identity,
    /// The compressed files beside it.
    pub(super) siblings: Siblings,
    /// The codings in which it can be sent.
    pub(super) available: Available,
}

/// What is sent in one coding.
#[derive(Debug, Clone)]
pub(super) struct Copy {
    /// The file beside the original that it was read from. `None`: it is the original, or made of it.
    pub(super) beside: Option<Identity>,
    pub(super) description: Arc<Description>,
    pub(super) bytes: Bytes,
}

/// The approximate cost of a copy beside its bytes: names, identity, header, space in the table.
const ENTRY_BYTES: usize = 2048;

struct Entry {
    path: PathBuf,
    state: State,
    /// When the files beside it were looked for.
    looked: Instant,
    copies: [Option<Copy>; Coding::COUNT],
}

#[derive(Default)]
struct Cache {
    /// The key is the root, the flavour of the route, and the path below the root: the same path may lead out of another root,
    /// by a link that is itself a root elsewhere.
    files: HashMap<Vec<u8>, Entry>,
    bytes: usize,
    /// The key of the last lookup, kept so that a lookup allocates nothing.
    name: Vec<u8>,
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
}

/// The description and the bytes of the file at `below` (given in pieces), in the coding that is accepted best, if a current copy
/// from this `root` is cached for routes of this `flavour`.
pub(super) fn find(
    root: &Path,
    flavour: u64,
    below: &[&[u8]],
    accepted: Accepted,
) -> Option<(Arc<Description>, Bytes)> {
    CACHE.with_borrow_mut(|Cache { files, name, .. }| {
        write_name(name, root, flavour, below);
        let entry = files.get_mut(name.as_slice())?;
        if current(&entry.path)? != entry.state.identity || !entry.has_same_siblings() {
            return None;
        }
        let coding = accepted.best(entry.state.available);
        let copy = entry.copies[coding as usize].as_ref()?;
        if let Some(identity) = copy.beside
            && current(&siblings::sibling(&entry.path, coding))? != identity
        {
            return None;
        }
        Some((copy.description.clone(), copy.bytes.clone()))
    })
}

/// The identity of the regular file at `path`.
fn current(path: &Path) -> Option<Identity> {
    let metadata = std::fs::metadata(path).ok()?;
    metadata.is_file().then(|| Identity::of(&metadata))
}

impl Entry {
    /// Whether the same files lie beside it as before. They are looked for only now and then.
    fn has_same_siblings(&mut self) -> bool {
        let now = Instant::now();
        if now.duration_since(self.looked) < SIBLINGS_KEPT {
            return true;
        }
        let is_same = Siblings::beside(&self.path) == self.state.siblings;
        if is_same {
            self.looked = now;
        }
        is_same
    }

    fn cost(&self) -> usize {
        self.copies.iter().flatten().map(|copy| copy.bytes.len() + ENTRY_BYTES).sum()
    }
}

/// Caches a file that was found below `root`, for routes of this `flavour`.
pub(super) fn keep(root: &Path, flavour: u64, kept: Kept) {
    let Kept { below, state, coding, copy } = kept;
    let mut name = Vec::new();
    write_name(&mut name, root, flavour, &[below.as_os_str().as_bytes()]);
    CACHE.with_borrow_mut(|cache| {
        let cost = copy.bytes.len() + ENTRY_BYTES;
        // Entries of deleted files are not detected. They disappear when the cache is emptied.
        if cache.bytes + cost > PAGE_CACHE_BYTES_MAX {
            *cache = Cache::default();
        }
        let fresh = || Entry { path: root.join(&below), state, looked: Instant::now(), copies: Default::default() };
        let entry = cache.files.entry(name).or_insert_with(fresh);
        cache.bytes -= entry.cost();
        if entry.state.identity != state.identity || entry.state.siblings != state.siblings {
            *entry = fresh();
        }
        entry.state.available = state.available;
        entry.copies[coding as usize] = Some(copy);
        cache.bytes += entry.cost();
    });
}

fn write_name(name: &mut Vec<u8>, root: &Path, flavour: u64, below: &[&[u8]]) {
    name.clear();
    name.extend_from_slice(root.as_os_str().as_bytes());
    // No path contains a NUL, so the end of the root is known.
    name.push(0);
    name.extend_from_slice(&flavour.to_ne_bytes());
    below.iter().for_each(|piece| name.extend_from_slice(piece));
}

#[cfg(test)]
mod tests {
    use super::super::description::{Origin, Sent};
    use super::*;

    fn identity(inode: u64) -> Identity {
        Identity { device: 1, inode, length: 0, modified: (0, 0), changed: (0, 0) }
    }

    #[test]
    fn a_file_changed_just_now_is_not_settled() {
        let now = UNIX_EPOCH + std::time::Duration::from_secs(1000);
        for (changed, settled) in [(990, true), (998, true), (999, false), (1000, false), (2000, false)] {
            assert_eq!(Identity { changed: (changed, 0), ..identity(1) }.is_settled(now), settled, "{changed}");
        }
    }

    /// Caches these bytes as the content of file `below`.
    fn keep_as(root: &Path, below: &str, bytes: Bytes) {
        let path = root.join(below);
        let metadata = std::fs::metadata(&path).unwrap();
        let description = Arc::new(Description::of(&whole(&metadata, &path), SystemTime::now()));
        let state = State {
            identity: Identity::of(&metadata),
            siblings: Siblings::beside(&path),
            available: Available::default(),
        };
        let copy = Copy { beside: None, description, bytes };
        keep(root, 0, Kept { below: below.into(), state, coding: Coding::Identity, copy });
    }

    fn whole<'f>(metadata: &'f Metadata, path: &'f Path) -> Sent<'f> {
        let length = metadata.len();
        let (coding, origin, cache_control) = (Coding::Identity, Origin::Disk, super::super::CACHE_CONTROL);
        Sent { metadata, path, coding, origin, length, varies: false, cache_control }
    }

    fn find(root: &Path, below: &[&[u8]]) -> Option<(Arc<Description>, Bytes)> {
        super::find(root, 0, below, Accepted::of(&Default::default()))
    }

    #[test]
    fn a_copy_is_used_while_the_file_is_the_same() {
        let fixture = tempfile::tempdir().unwrap();
        let (root, path) = (fixture.path(), fixture.path().join("sub/page"));
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
    fn the_cache_is_bounded() {
        let fixture = tempfile::tempdir().unwrap();
        let piece = Bytes::from(vec![0; PAGE_CACHE_BYTES_MAX / 4]);
        for number in 0..20 {
            let below = number.to_string();
            std::fs::write(fixture.path().join(&below), "").unwrap();
            keep_as(fixture.path(), &below, piece.clone());
            keep_as(fixture.path(), &below, piece.clone());
            assert!(find(fixture.path(), &[below.as_bytes()]).is_some());
            assert!(CACHE.with_borrow(|cache| cache.bytes) <= PAGE_CACHE_BYTES_MAX);
        }
        assert!(CACHE.with_borrow(|cache| cache.files.len() < 5));
    }
}
