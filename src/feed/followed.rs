//! An open file that is read from an offset on, even if it is truncated or rewritten meanwhile.
//!
//! A truncated file may be as long as before at the next read, so its size and times prove nothing. So the last bytes
//! before the offset are remembered, and compared with the file before more is read. If they differ, the file was
//! rewritten, and is read from its start.
//!
//! A writer that continues at its old offset in a truncated file leaves a hole, which reads as zeros. Holes are
//! skipped, and so are zeros at the start of a line.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Whence, lseek};

use super::mark::FileMark;
use crate::config::limits::{FEED_READ_BYTES, TAIL_REMEMBERED_BYTES};

/// A file and the offset up to which it was read.
pub(super) struct Followed {
    file: Arc<File>,
    inode: u64,
    /// The offset of the next byte to read.
    at: u64,
    /// `at` is inside a line that began before the feed did.
    inside: bool,
    /// `at` is the start of a line.
    fresh: bool,
    /// The last bytes before `at`: those of the last read, and those that are remembered before it.
    before: Vec<u8>,
}

/// Opens a file to be read. A FIFO does not make it wait.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    File::options().read(true).custom_flags(flags.bits()).open(path)
}

impl Followed {
    /// Starts at offset `at`. The rest of a line that began before it is left out.
    pub(super) fn from(file: File, at: u64) -> io::Result<Followed> {
        let before = bytes_before(&file, at)?;
        let inside = before.last().is_some_and(|last| *last != b'\n');
        let inode = file.metadata()?.ino();
        Ok(Followed { file: Arc::new(file), inode, at, inside, fresh: !inside, before })
    }

    /// Continues in `file` where another process stopped.
    pub(super) fn resume(file: Arc<File>, mark: FileMark) -> Followed {
        let FileMark { at, inside, mut before, .. } = mark;
        // A read error is reported by the next read.
        if before.is_empty() {
            before = bytes_before(&file, at).unwrap_or_default();
        }
        let inode = file.metadata().map_or(mark.inode, |metadata| metadata.ino());
        Followed { file, inode, at, inside, fresh: !inside, before }
    }

    /// Continues in the file that a process had open which is gone, if this is that file, and it was not rewritten since.
    pub(super) fn find(file: File, mark: &FileMark) -> io::Result<Option<Followed>> {
        let is_it = file.metadata()?.ino() == mark.inode && holds(&file, mark.at, &mark.before)?;
        Ok(is_it.then(|| Followed::resume(Arc::new(file), mark.clone())))
    }

    /// The mark `unread` bytes before `at`.
    pub(super) fn mark(&self, unread: usize) -> FileMark {
        let Followed { file, inode, at, inside, .. } = self;
        let (at, before) = (at.saturating_sub(unread as u64), self.remembered(unread).to_vec());
        FileMark { file: Some(file.clone()), inode: *inode, at, inside: *inside, before }
    }

    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// Goes back to the start if the file no longer holds the bytes that were read. Returns whether it did.
    pub(super) fn restart_if_rewritten(&mut self) -> io::Result<bool> {
        let holds = holds(&self.file, self.at, self.remembered(0))?;
        if !holds {
            (self.at, self.inside, self.fresh) = (0, false, true);
            self.before.clear();
        }
        Ok(!holds)
    }

    /// Reads the next bytes; `None` at the end of the file.
    pub(super) fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if self.fresh && !self.skip_hole()? {
                return Ok(None);
            }
            let mut bytes = vec![0; FEED_READ_BYTES];
            let read = match self.file.read_at(&mut bytes, self.at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            bytes.truncate(read);
            if read == 0 {
                return Ok(None);
            }
            self.at += read as u64;
            self.remember(&bytes);
            if std::mem::take(&mut self.fresh) {
                let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
                bytes.drain(..zeros);
                self.fresh = bytes.is_empty();
            }
            if std::mem::take(&mut self.inside) {
                match bytes.iter().position(|&byte| byte == b'\n') {
                    Some(newline) => bytes.drain(..=newline),
                    None => {
                        self.inside = true;
                        continue;
                    }
                };
            }
            self.fresh |= self.before.last() == Some(&b'\n');
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }

    /// Advances to the next data in the file. Returns whether there is any.
    fn skip_hole(&mut self) -> io::Result<bool> {
        let at = i64::try_from(self.at).map_err(|_| io::ErrorKind::InvalidData)?;
        match lseek(&*self.file, at, Whence::SeekData) {
            Ok(data) if data > at => {
                self.at = data as u64;
                self.before = bytes_before(&self.file, self.at)?;
                Ok(true)
            }
            // File systems without support for holes return them as zeros.
            Ok(_) | Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(true),
            Err(Errno::ENXIO) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn remember(&mut self, bytes: &[u8]) {
        self.before.drain(..self.before.len().saturating_sub(TAIL_REMEMBERED_BYTES));
        self.before.extend_from_slice(bytes);
    }

    /// What is remembered of the bytes before the offset `unread` bytes before `at`.
    fn remembered(&self, unread: usize) -> &[u8] {
        let known = &self.before[..self.before.len().saturating_sub(unread)];
        &known[known.len().saturating_sub(TAIL_REMEMBERED_BYTES)..]
    }
}

/// Whether a file still holds these bytes before an offset.
fn holds(file: &File, at: u64, before: &[u8]) -> io::Result<bool> {
    Ok(file.metadata()?.len() >= at && bytes_before(file, at)?.ends_with(before))
}

/// The bytes before an offset, at most as many as are remembered.
fn bytes_before(file: &File, at: u64) -> io::Result<Vec<u8>> {
    let start = at.saturating_sub(TAIL_REMEMBERED_BYTES as u64);
    let mut bytes = vec![0; (at - start) as usize];
    match file.read_exact_at(&mut bytes, start) {
        // The file was truncated meanwhile: these bytes no longer exist.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Vec::new()),
        read => read.map(|()| bytes),
    }
}
