//! The files that are being sent. Each is open only once, however many clients receive it, and their number is bounded.
//!
//! Two opens are the same file if they have the same state ([`Identity`]). Readers pass the offset with each read, so
//! they do not share a file position.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::cache::Identity;
use crate::config::limits::FILES_OPEN_MAX;

/// The open files of the process.
#[derive(Debug, Clone)]
pub struct Files(Arc<Mutex<Table>>);

#[derive(Debug)]
struct Table {
    most: usize,
    /// The number of open files, including one whose last holder is just closing it.
    count: usize,
    open: HashMap<Identity, Weak<OpenFile>>,
}

/// An open file. It is closed when its last holder drops it.
#[derive(Debug)]
pub struct OpenFile {
    /// The file itself.
    pub file: File,
    identity: Identity,
    files: Files,
}

impl Default for Files {
    fn default() -> Files {
        Files(Arc::new(Mutex::new(Table { most: FILES_OPEN_MAX, count: 0, open: HashMap::new() })))
    }
}

impl Files {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the limit of open files.
    pub fn allow(&self, most: usize) {
        self.table().most = most;
    }

    /// Returns the open file with this identity. If there is none, `file` becomes it; `None` if too many files are
    /// open.
    pub(super) fn share(&self, file: File, identity: Identity) -> Option<Arc<OpenFile>> {
        let mut table = self.table();
        if let Some(open) = table.open.get(&identity).and_then(Weak::upgrade) {
            return Some(open);
        }
        if table.count >= table.most {
            return None;
        }
        table.count += 1;
        let open = Arc::new(OpenFile { file, identity, files: self.clone() });
        table.open.insert(identity, Arc::downgrade(&open));
        Some(open)
    }
}

#[cfg(test)]
impl OpenFile {
    /// A file that is not shared.
    pub(in crate::http) fn alone(file: File) -> Arc<OpenFile> {
        let identity = Identity::of(&file.metadata().unwrap());
        Files::default().share(file, identity).unwrap()
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let mut table = self.files.table();
        table.count -= 1;
        // Another one with the same identity may have been opened since the last holder dropped this one.
        if table.open.get(&self.identity).is_some_and(|open| open.strong_count() == 0) {
            table.open.remove(&self.identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_open_once_and_their_number_is_limited() {
        let files = Files::default();
        files.allow(2);
        let [first, second, third] = [0; 3].map(|_| tempfile::NamedTempFile::new().unwrap());
        let share = |file: &tempfile::NamedTempFile| {
            let file = file.reopen().unwrap();
            let identity = Identity::of(&file.metadata().unwrap());
            files.share(file, identity)
        };
        let one = share(&first).unwrap();
        let again = share(&first).unwrap();
        assert!(Arc::ptr_eq(&one, &again));
        let _two = share(&second).unwrap();
        assert!(share(&third).is_none());
        drop(one);
        assert!(share(&third).is_none(), "one holder remains");
        drop(again);
        let _three = share(&third).unwrap();
        let table = files.table();
        assert_eq!((table.count, table.open.len()), (2, 2));
        drop(table);
    }
}
