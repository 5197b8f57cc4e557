//! The files that answers are being read from: each is open once, however many clients are sent it, and they are bounded in sum.
//!
//! Two opens are the same file while it is in the same state ([`Identity`]). Who reads says where, so nobody moves another's place.

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
    /// How many are open: also the last holder of one that is being closed counts.
    count: usize,
    open: HashMap<Identity, Weak<OpenFile>>,
}

/// One of them, closed with its last holder.
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

    /// From now on so many at once.
    pub fn allow(&self, most: usize) {
        self.table().most = most;
    }

    /// The file that is in this state: the one that is open already, else this one; `None` where too many are.
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
    /// A file that nobody shares.
    pub(in crate::http) fn alone(file: File) -> Arc<OpenFile> {
        let identity = Identity::of(&file.metadata().unwrap());
        Files::default().share(file, identity).unwrap()
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let mut table = self.files.table();
        table.count -= 1;
        // Another may have come in its place since its last holder let go.
        if table.open.get(&self.identity).is_some_and(|open| open.strong_count() == 0) {
            table.open.remove(&self.identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_open_once_and_so_many_are() {
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
        assert!(share(&third).is_none(), "one holder is left");
        drop(again);
        let _three = share(&third).unwrap();
        let table = files.table();
        assert_eq!((table.count, table.open.len()), (2, 2));
        drop(table);
    }
}
