//! An open file that is read on from a place, whatever is done to it meanwhile.
//!
//! A file that was cut short may be as long as before by the next look: its size and its times say nothing certain. So the last bytes
//! before the place are remembered, and compared with what stands there before more is read. Where they differ, the file holds
//! something else now, and is read from its start.
//!
//! A writer that goes on where it was in a file that was cut short leaves a hole, which reads as zeros. Holes are skipped, and so are zeros
//! where a line begins.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::mark::Place;
use crate::config::limits::{FEED_READ_BYTES, TAIL_REMEMBERED_BYTES};

/// A file and a place in it.
pub(super) struct Followed {
    file: Arc<File>,
    /// How far it was read.
    at: u64,
    /// `at` is in a line that began before the feed did.
    inside: bool,
    /// `at` is where a line begins.
    fresh: bool,
    /// The last bytes before `at`.
    before: Vec<u8>,
}

impl Followed {
    /// From `at` on; what is left of a line that has begun there is left out.
    pub(super) fn from(file: File, at: u64) -> io::Result<Followed> {
        let before = bytes_before(&file, at)?;
        let inside = before.last().is_some_and(|last| *last != b'\n');
        Ok(Followed { file: Arc::new(file), at, inside, fresh: !inside, before })
    }

    /// From where another process was.
    pub(super) fn at(Place { file, at, inside }: Place) -> Followed {
        // If it cannot be read the next look tells.
        let before = bytes_before(&file, at).unwrap_or_default();
        Followed { file, at, inside, fresh: !inside, before }
    }

    /// The place that is so many bytes before what was read.
    pub(super) fn place(&self, unread: usize) -> Place {
        Place { file: self.file.clone(), at: self.at.saturating_sub(unread as u64), inside: self.inside }
    }

    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// Goes to the start if the file does not hold what was read any more. Whether it did.
    pub(super) fn restarts(&mut self) -> io::Result<bool> {
        let holds =
            self.file.metadata()?.len() >= self.at && bytes_before(&self.file, self.at)?.ends_with(&self.before);
        if !holds {
            (self.at, self.inside, self.fresh) = (0, false, true);
            self.before.clear();
        }
        Ok(!holds)
    }

    /// What comes next in it; `None` at its end.
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

    /// Goes to where there is something in the file. Whether there is.
    fn skip_hole(&mut self) -> io::Result<bool> {
        let at = i64::try_from(self.at).map_err(|_| io::ErrorKind::InvalidData)?;
        match lseek(&*self.file, at, Whence::SeekData) {
            Ok(data) if data > at => {
                self.at = data as u64;
                self.before = bytes_before(&self.file, self.at)?;
                Ok(true)
            }
            // Where file systems know nothing of holes they are read as zeros.
            Ok(_) | Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(true),
            Err(Errno::ENXIO) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn remember(&mut self, bytes: &[u8]) {
        self.before.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_REMEMBERED_BYTES)..]);
        self.before.drain(..self.before.len().saturating_sub(TAIL_REMEMBERED_BYTES));
    }
}

/// The bytes before a place, so many as are remembered and are there.
fn bytes_before(file: &File, at: u64) -> io::Result<Vec<u8>> {
    let start = at.saturating_sub(TAIL_REMEMBERED_BYTES as u64);
    let mut bytes = vec![0; (at - start) as usize];
    match file.read_exact_at(&mut bytes, start) {
        // Cut short meanwhile: nothing of it is there.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Vec::new()),
        read => read.map(|()| bytes),
    }
}
