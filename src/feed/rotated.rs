//! Files that were rotated away while nobody followed them.
//!
//! A rotation renames a file within its directory: `log` becomes `log.1` and then `log.2`, or `log-20260102`. So the file that was
//! followed is found by its inode, and what was rotated after it by its name. A file that was compressed or moved elsewhere is not
//! found.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::followed::{self, Followed};
use super::mark::FileMark;

/// A number of more digits is a date.
const NUMBER_DIGITS_MAX: usize = 4;

/// The file of the mark, if it is beside the one that has its name now, which is `current`, and what was rotated between the two, the
/// oldest first. `current` comes last, unless it is empty: then the writer may not use it yet.
pub(super) fn find(path: &Path, mark: &FileMark, current: Option<(File, Metadata)>) -> VecDeque<Followed> {
    // It was opened before the directory is read. So what was rotated before it is there, whatever is renamed meanwhile.
    let mut files = rotated_since(path, mark, current.as_ref().map(|(_, metadata)| metadata.ino()));
    if !files.is_empty()
        && let Some((file, _)) = current.filter(|(_, metadata)| metadata.len() > 0)
        && let Ok(current) = Followed::from(file, 0)
    {
        files.push_back(current);
    }
    files
}

/// Up to the file with the inode `end`.
fn rotated_since(path: &Path, mark: &FileMark, end: Option<u64>) -> VecDeque<Followed> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (Some(name), Ok(entries)) = (path.file_name(), fs::read_dir(directory)) else { return VecDeque::new() };
    let (mut found, mut others) = (None, Vec::new());
    for entry in entries.flatten().filter(|entry| entry.file_name() != name) {
        let Some(metadata) = entry.metadata().ok().filter(Metadata::is_file) else { continue };
        let rotation = Rotation::of(&entry.file_name(), name);
        if metadata.ino() == mark.inode {
            let file = followed::open(&entry.path()).and_then(|file| Followed::find(file, mark));
            found = file.ok().flatten().map(|followed| (rotation, followed)).or(found);
        } else if let Some(rotation) = rotation {
            others.push((rotation, entry.path(), metadata.ino()));
        }
    }
    let Some((rotation, found)) = found else { return VecDeque::new() };
    others.retain(|(other, ..)| rotation.as_ref().is_some_and(|rotation| other.is_after(rotation)));
    others.sort();
    let others = others.iter().take_while(|(.., inode)| Some(*inode) != end);
    let others = others.map(|(_, path, _)| {
        let file = followed::open(path).and_then(|file| Followed::from(file, 0));
        file.inspect_err(|error| log::warn!("cannot read {}, so its lines are missing: {error}", path.display()))
    });
    std::iter::once(found).chain(others.flatten()).collect()
}

/// What a rotation has put behind the name of a file. A later one is greater.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rotation {
    /// The last one has the smallest number.
    Number(Reverse<u32>),
    Date(Vec<u8>),
}

impl Rotation {
    fn of(name: &OsStr, original: &OsStr) -> Option<Rotation> {
        let end = name.as_bytes().strip_prefix(original.as_bytes())?;
        let [b'.' | b'-', stamp @ ..] = end else { return None };
        if stamp.is_empty() || !stamp.iter().all(|byte| byte.is_ascii_digit() || b".-_".contains(byte)) {
            return None;
        }
        if stamp.len() > NUMBER_DIGITS_MAX {
            return Some(Rotation::Date(stamp.to_vec()));
        }
        let number = std::str::from_utf8(stamp).ok()?.parse().ok()?;
        Some(Rotation::Number(Reverse(number)))
    }

    /// Whether it is a later one of the same kind.
    fn is_after(&self, other: &Rotation) -> bool {
        match (self, other) {
            (Rotation::Number(this), Rotation::Number(other)) => this > other,
            (Rotation::Date(this), Rotation::Date(other)) => this.len() == other.len() && this > other,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_was_rotated_later() {
        let of = |name: &str| Rotation::of(name.as_ref(), "log".as_ref());
        let is_after = |one: &str, other: &str| of(one).unwrap().is_after(&of(other).unwrap());
        assert!(is_after("log.1", "log.2") && is_after("log.9", "log.10") && is_after("log-20260103", "log-20260102"));
        assert!(!is_after("log.3", "log.2") && !is_after("log-20260101", "log-20260102"));
        assert!(!is_after("log-20260102", "log.1") && !is_after("log.20260102-01", "log.20260101"));
        let others = ["log", "log.", "log2", "log.1.gz", "log.bak", "log.+1", "log-x", "other.1", "a-log.1"];
        assert_eq!(others.map(of), others.map(|_| None));
    }
}
