//! The compressed files beside a file: `app.js.br`, `app.js.zst` and `app.js.gz` beside `app.js`.
//!
//! One is sent only if it is not older than the file, so that a file that was edited without its compressed copies is sent as it
//! is. Where it lies is resolved below the root like every path. What `stat` says of all three is remembered with a cached file
//! ([`Siblings`]), so that a new one is noticed without a further lookup.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::cache::Identity;
use super::coding::{Coding, Codings};
use super::open::{Found, Root};

/// What lies beside a file, as `stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Siblings([Option<Identity>; Coding::COMPRESSED.len()]);

impl Siblings {
    /// Those beside the file at `path`.
    pub(super) fn beside(path: &Path) -> Siblings {
        Siblings(Coding::COMPRESSED.map(|coding| {
            let metadata = std::fs::metadata(sibling(path, coding)).ok()?;
            Some(Identity::of(&metadata))
        }))
    }

    /// The codings that exist.
    pub(super) fn codings(&self) -> Codings {
        let mut codings = Codings::default();
        for (coding, sibling) in Coding::COMPRESSED.into_iter().zip(self.0) {
            if sibling.is_some() {
                codings.add(coding);
            }
        }
        codings
    }

    /// Whether any exists.
    pub(super) fn any(&self) -> bool {
        self.0.iter().any(Option::is_some)
    }
}

/// The path of the file with this coding beside the one at `path`.
pub(super) fn sibling(path: &Path, coding: Coding) -> PathBuf {
    let mut name = OsString::with_capacity(path.as_os_str().len() + coding.suffix().len());
    name.push(path);
    name.push(coding.suffix());
    name.into()
}

/// Opens the file with this coding beside the one at `path` below `root`. `None`: there is none that may be sent instead.
pub(super) fn open(root: &Root, path: &Path, coding: Coding, original: &Metadata) -> Option<(File, Metadata)> {
    match root.look(&sibling(path, coding)) {
        Ok(Found::File(file, metadata)) if is_current(&metadata, original) => Some((file, metadata)),
        _ => None,
    }
}

/// Whether a compressed file was not modified before its `original` was. Tools that compress give both the same time.
fn is_current(metadata: &Metadata, original: &Metadata) -> bool {
    (metadata.mtime(), metadata.mtime_nsec()) >= (original.mtime(), original.mtime_nsec())
}
