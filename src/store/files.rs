//! The directory of the store: its lock, its files and their rights, and what a damaged one is called.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::log_file::open;

const DATABASE: &str = "history.db";
const LOCK: &str = "lock";
/// How long the store waits before it tries a second time to lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The files of a store.
#[derive(Debug, Clone)]
pub(super) struct Files {
    directory: PathBuf,
}

/// The store is this process's until it is dropped.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "held for its drop")] Flock<File>);

impl Files {
    /// Those in `directory`, which exists.
    pub fn of(directory: &Path) -> io::Result<Files> {
        // SQLite follows no link to the database, in no part of its path. A link to the directory is the operator's.
        Ok(Files { directory: directory.canonicalize()? })
    }

    /// Creates the directory, if there is none.
    pub fn create(directory: &Path) -> io::Result<Files> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        Files::of(directory)
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.directory.join(DATABASE)
    }

    /// Its log, in which the newest pages are.
    pub fn log(&self) -> PathBuf {
        self.directory.join(format!("{DATABASE}-wal"))
    }

    /// The index of its log, which all connections share.
    pub fn index(&self) -> PathBuf {
        self.directory.join(format!("{DATABASE}-shm"))
    }

    /// A database that is being made of what is left of a damaged one.
    pub fn unfinished(&self) -> PathBuf {
        self.directory.join(format!("{DATABASE}.new"))
    }

    /// The same when it is complete.
    fn finished(&self) -> PathBuf {
        self.directory.join(format!("{DATABASE}.whole"))
    }

    /// Locks the store. `None`: another process has locked it.
    pub fn lock(&self) -> io::Result<Option<Lock>> {
        let file = private().write(true).create(true).truncate(false).open(self.directory.join(LOCK))?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        if let Err((file, Errno::EWOULDBLOCK)) = lock {
            // Who asks whether it is locked has it for a moment.
            std::thread::sleep(LOCK_PAUSE);
            lock = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        }
        match lock {
            Ok(lock) => Ok(Some(Lock(lock))),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }

    /// Whether a process has locked the store. Changes nothing: a lock that root creates could not be opened by pushd.
    pub fn is_locked(&self) -> io::Result<bool> {
        let Some(file) = open(&self.directory.join(LOCK))? else { return Ok(false) };
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => Ok(false),
            Err((_, Errno::EWOULDBLOCK)) => Ok(true),
            Err((_, errno)) => Err(errno.into()),
        }
    }

    /// Creates an empty file for a database. SQLite gives the files beside it the same rights.
    pub fn create_empty(path: &Path) -> io::Result<()> {
        private().write(true).create_new(true).open(path).map(drop)
    }

    /// Puts the files of a damaged database aside. Returns the new name of the database.
    fn put_aside(&self) -> io::Result<String> {
        let names = |number| {
            let name = format!("{DATABASE}.damaged-{number}");
            (self.directory.join(&name), self.directory.join(format!("{name}-wal")), name)
        };
        let taken = |number: &u32| names(*number).0.exists() || names(*number).1.exists();
        let number = (1..).find(|number| !taken(number)).unwrap_or(u32::MAX);
        let (database, log, name) = names(number);
        // The log first: without it the database is still recognised as one that was damaged.
        for (from, to) in [(self.log(), log), (self.database(), database)] {
            match fs::rename(from, to) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        remove(&self.index())?;
        self.sync()?;
        Ok(name)
    }

    /// Makes the new database the one that is used, where there was none.
    pub fn begin(&self) -> io::Result<()> {
        fs::rename(self.unfinished(), self.database())?;
        self.sync()
    }

    /// Makes the new database the one that is used, and puts the damaged one aside. Returns the name of the latter.
    pub fn replace(&self) -> io::Result<String> {
        fs::rename(self.unfinished(), self.finished())?;
        self.sync()?;
        self.put_in_place()
    }

    fn put_in_place(&self) -> io::Result<String> {
        let aside = self.put_aside()?;
        fs::rename(self.finished(), self.database())?;
        self.sync()?;
        Ok(aside)
    }

    /// Completes the replacement of a damaged database that a process has begun, and removes what is unfinished. Returns the name
    /// of a database that was put aside.
    pub fn clean(&self) -> io::Result<Option<String>> {
        let aside = if self.finished().exists() { Some(self.put_in_place()?) } else { None };
        for ending in ["", "-wal", "-shm", "-journal"] {
            let mut name = self.unfinished().into_os_string();
            name.push(ending);
            remove(Path::new(&name))?;
        }
        Ok(aside)
    }

    /// Has the names of the files written to the disk.
    pub fn sync(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits());
    options
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
