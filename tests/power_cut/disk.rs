//! A simulated disk below SQLite.
//!
//! It is a VFS of SQLite (<https://www.sqlite.org/vfs.html>) that passes every call on to the usual one, and notes what is written to
//! files of watched directories. What was written since the last sync of a file is not on the disk yet. When the power is cut, after a
//! chosen number of writes, each sector of that is on the disk or not, whatever the order. The program runs on and does not notice: a
//! copy of the files as they are on the disk is what counts.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rusqlite::ffi::{self, SQLITE_OK, sqlite3_file, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs};

use crate::random::Random;

const SECTOR: usize = 512;

/// The files of one directory, as they are on the disk.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What is known at the moment of the cut beside the files.
type Witness = Box<dyn FnOnce() + Send>;

static DISK: Mutex<Option<Disk>> = Mutex::new(None);

fn disk() -> MutexGuard<'static, Option<Disk>> {
    DISK.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Disk {
    directory: PathBuf,
    files: BTreeMap<PathBuf, Content>,
    random: Random,
    /// How many writes and syncs there are until the power is cut.
    left: usize,
    witness: Option<Witness>,
    after: Option<Files>,
}

#[derive(Default)]
struct Content {
    synced: Vec<u8>,
    unsynced: Vec<Change>,
}

enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

/// Watches the files in a directory, all of which are on the disk now. After so many writes and syncs the power is cut; at this moment
/// `witness` is called.
pub fn watch(directory: &Path, left: usize, random: Random, witness: impl FnOnce() + Send + 'static) {
    register();
    let files = std::fs::read_dir(directory).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let synced = std::fs::read(&path).unwrap();
        (path, Content { synced, unsynced: Vec::new() })
    });
    let files = files.collect();
    let witness: Option<Witness> = Some(Box::new(witness));
    *disk() = Some(Disk { directory: directory.to_owned(), files, random, left, witness, after: None });
}

/// Whether the power was cut.
pub fn is_cut() -> bool {
    disk().as_ref().is_some_and(|disk| disk.after.is_some())
}

/// The files after the cut, by their names in the directory.
pub fn after_cut() -> Files {
    disk().take().and_then(|disk| disk.after).expect("the power was cut")
}

impl Disk {
    fn of(&mut self, path: &Path) -> Option<&mut Content> {
        // The index is no file of the disk: it is in memory, and made again.
        let is_watched = path.parent() == Some(&*self.directory) && !path.as_os_str().as_bytes().ends_with(b"-shm");
        is_watched.then(|| self.files.entry(path.to_owned()).or_default())
    }

    /// Counts a write or sync that is about to be done.
    fn count(&mut self) {
        if self.after.is_some() {
            return;
        }
        if self.left > 0 {
            self.left -= 1;
            return;
        }
        // First who was told that something is on the disk, then the disk.
        if let Some(witness) = self.witness.take() {
            witness();
        }
        let random = &mut self.random;
        // How much of what was not synced is on the disk, in quarters.
        let share = random.below(5);
        let files = self.files.iter().filter_map(|(path, content)| {
            let name = PathBuf::from(path.file_name()?);
            Some((name, content.after(|| random.below(4) < share)))
        });
        self.after = Some(files.collect());
    }
}

impl Content {
    fn after(&self, mut is_kept: impl FnMut() -> bool) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        for change in &self.unsynced {
            match change {
                Change::Write(at, written) => {
                    let (mut at, mut written) = (*at, &written[..]);
                    while !written.is_empty() {
                        let (in_sector, rest) = written.split_at(written.len().min(SECTOR - at % SECTOR));
                        if is_kept() {
                            write(&mut bytes, at, in_sector);
                        }
                        (at, written) = (at + in_sector.len(), rest);
                    }
                }
                Change::Truncate(length) => {
                    if is_kept() {
                        bytes.truncate(*length);
                    }
                }
            }
        }
        bytes
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Write(at, written) => write(&mut self.synced, at, &written),
                Change::Truncate(length) => self.synced.truncate(length),
            }
        }
    }
}

fn write(bytes: &mut Vec<u8>, at: usize, written: &[u8]) {
    if bytes.len() < at + written.len() {
        bytes.resize(at + written.len(), 0);
    }
    bytes[at..at + written.len()].copy_from_slice(written);
}

/// A file of this VFS. The file of the usual one follows it in memory.
#[repr(C, align(16))]
struct File {
    base: sqlite3_file,
    /// `None`: a temporary file.
    path: Option<Box<PathBuf>>,
}

/// Makes this VFS the one that is used, once.
fn register() {
    static REGISTERED: OnceLock<()> = OnceLock::new();
    REGISTERED.get_or_init(|| {
        // SAFETY: the usual VFS exists as long as the process. The new one is a copy of it that is never freed: its other calls get
        // this copy in place of the original, and use only `pAppData` of it, which is copied.
        unsafe {
            let usual = ffi::sqlite3_vfs_find(std::ptr::null());
            let mut vfs = *usual;
            vfs.zName = c"simulated disk".as_ptr();
            vfs.szOsFile += size_of::<File>() as c_int;
            vfs.xOpen = Some(open);
            vfs.xDelete = Some(delete);
            USUAL.set(Usual(usual)).ok();
            assert_eq!(ffi::sqlite3_vfs_register(Box::leak(Box::new(vfs)), 1), SQLITE_OK);
        }
    });
}

struct Usual(*mut sqlite3_vfs);

// SAFETY: a VFS may be used by all threads.
unsafe impl Send for Usual {}
// SAFETY: as above.
unsafe impl Sync for Usual {}

static USUAL: OnceLock<Usual> = OnceLock::new();

fn usual() -> *mut sqlite3_vfs {
    USUAL.get().unwrap().0
}

/// # Safety
/// `name` is null or a string.
unsafe fn path_of(name: *const c_char) -> Option<PathBuf> {
    // SAFETY: the caller says so.
    (!name.is_null()).then(|| PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes())))
}

unsafe extern "C" fn open(
    _vfs: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let file = file.cast::<File>();
    // SAFETY: SQLite gives `szOsFile` bytes for the file, which is this one and the usual one behind it.
    unsafe {
        let opened = (*usual()).xOpen.unwrap()(usual(), name, file.add(1).cast(), flags, out_flags);
        let path = path_of(name);
        if opened == SQLITE_OK
            && let Some(path) = &path
            && let Some(disk) = &mut *disk()
        {
            disk.of(path);
        }
        let methods = if opened == SQLITE_OK { &raw const METHODS } else { std::ptr::null() };
        file.write(File { base: sqlite3_file { pMethods: methods }, path: path.map(Box::new) });
        opened
    }
}

unsafe extern "C" fn delete(_vfs: *mut sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    // SAFETY: the arguments are those of SQLite.
    let path = unsafe { path_of(name) };
    if let (Some(path), Some(disk)) = (path, &mut *disk()) {
        disk.count();
        disk.files.remove(&path);
    }
    // SAFETY: as above.
    unsafe { (*usual()).xDelete.unwrap()(usual(), name, sync) }
}

/// Passes a call on to the usual file.
macro_rules! pass_on {
    ($method:ident, $file:expr $(, $argument:expr)*) => {{
        // SAFETY: the usual file lies behind this one, and the arguments are those of SQLite.
        unsafe {
            let usual: *mut sqlite3_file = $file.cast::<File>().add(1).cast();
            (*(*usual).pMethods).$method.unwrap()(usual $(, $argument)*)
        }
    }};
}

/// Notes a change of a watched file, which is about to be made.
///
/// # Safety
/// `file` is one of this VFS.
unsafe fn note(file: *mut sqlite3_file, change: impl FnOnce(&mut Content)) {
    // SAFETY: the caller says so.
    let path = unsafe { &(*file.cast::<File>()).path };
    if let (Some(path), Some(disk)) = (path, &mut *disk())
        && disk.of(path).is_some()
    {
        disk.count();
        if let Some(content) = disk.of(path) {
            change(content);
        }
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let closed = pass_on!(xClose, file);
    // SAFETY: it is not used any more.
    unsafe { std::ptr::drop_in_place(&raw mut (*file.cast::<File>()).path) };
    closed
}

unsafe extern "C" fn write_at(file: *mut sqlite3_file, bytes: *const c_void, count: c_int, at: sqlite3_int64) -> c_int {
    // SAFETY: the file is of this VFS, and SQLite gives `count` bytes.
    unsafe {
        let written = std::slice::from_raw_parts(bytes.cast::<u8>(), count as usize).to_vec();
        note(file, |content| content.unsynced.push(Change::Write(at as usize, written)));
    }
    pass_on!(xWrite, file, bytes, count, at)
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, length: sqlite3_int64) -> c_int {
    // SAFETY: the file is of this VFS.
    unsafe { note(file, |content| content.unsynced.push(Change::Truncate(length as usize))) };
    pass_on!(xTruncate, file, length)
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: the file is of this VFS.
    unsafe { note(file, Content::sync) };
    pass_on!(xSync, file, flags)
}

unsafe extern "C" fn read(file: *mut sqlite3_file, bytes: *mut c_void, count: c_int, at: sqlite3_int64) -> c_int {
    pass_on!(xRead, file, bytes, count, at)
}

unsafe extern "C" fn size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    pass_on!(xFileSize, file, size)
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass_on!(xLock, file, level)
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass_on!(xUnlock, file, level)
}

unsafe extern "C" fn is_reserved(file: *mut sqlite3_file, result: *mut c_int) -> c_int {
    pass_on!(xCheckReservedLock, file, result)
}

unsafe extern "C" fn control(file: *mut sqlite3_file, operation: c_int, argument: *mut c_void) -> c_int {
    pass_on!(xFileControl, file, operation, argument)
}

unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    pass_on!(xSectorSize, file)
}

unsafe extern "C" fn characteristics(file: *mut sqlite3_file) -> c_int {
    pass_on!(xDeviceCharacteristics, file)
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    mapped: *mut *mut c_void,
) -> c_int {
    pass_on!(xShmMap, file, region, size, extend, mapped)
}

unsafe extern "C" fn shm_lock(file: *mut sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    pass_on!(xShmLock, file, offset, count, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    pass_on!(xShmBarrier, file);
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, delete: c_int) -> c_int {
    pass_on!(xShmUnmap, file, delete)
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    // Version 2 has no memory maps of files.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write_at),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(is_reserved),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};
