//! The log of SQLite (`-wal`): whether something is missing in it.
//!
//! SQLite reads the log up to the first page that is not whole, and takes everything behind it for what a crash has left. That is
//! right after a crash. But where a page in the middle is damaged or the file was cut, publications that were acknowledged are lost,
//! and SQLite does not say so. Here it is found out: behind the last whole page there must be none of a later transaction, and the
//! shared index must not know of more pages than there are. A power cut may leave the last transaction with holes, because a disk
//! writes in any order; nothing in it was acknowledged.
//!
//! The format: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>, and `walformat.html` for the index.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::schema::PAGE;

/// The bytes before the first page.
pub(super) const HEADER: usize = 32;
/// A page with its header.
pub(super) const FRAME: usize = 24 + PAGE;
const MAGIC: u32 = 0x377f_0682;

/// What is wrong with a log. `None`: nothing that shows.
pub(super) fn damage(log: &Path, index: &Path) -> io::Result<Option<String>> {
    let index = Index::read(index)?;
    let unmoved = index.pages.saturating_sub(index.moved);
    let missing = |pages: u64| (pages > 0).then(|| format!("{pages} pages of the log are missing or damaged"));
    let Some(file) = open(log)? else { return Ok(missing(unmoved)) };
    let length = file.metadata()?.len();
    let mut header = [0; HEADER];
    if length >= HEADER as u64 {
        file.read_exact_at(&mut header, 0)?;
    }
    let mut sums = Sums { is_big_endian: word(&header, 0) == MAGIC | 1, sums: (0, 0) };
    sums.add(&header[..24]);
    if word(&header, 0) & !1 != MAGIC || sums.sums != (word(&header, 24), word(&header, 28)) {
        // A crash while the first page is written leaves no page behind the header.
        let is_first = length <= (HEADER + FRAME) as u64;
        return Ok(if is_first { missing(unmoved) } else { Some("the beginning of the log is damaged".to_owned()) });
    }
    let mut frame = vec![0; FRAME];
    let (mut whole, mut is_over) = (0u64, false);
    // Pages behind the last whole one, and those of them that are of a later transaction.
    let (mut has_ended, mut behind) = (false, 0u64);
    let mut at = HEADER as u64;
    while at + FRAME as u64 <= length {
        file.read_exact_at(&mut frame, at)?;
        at += FRAME as u64;
        let is_of_this_log = frame[8..16] == header[16..24];
        if !is_over {
            sums.add(&frame[..8]);
            sums.add(&frame[24..]);
            is_over = !is_of_this_log || sums.sums != (word(&frame, 16), word(&frame, 20));
            whole += u64::from(!is_over);
        } else if is_of_this_log && has_ended {
            behind += 1;
        }
        // The last page of a transaction has the size of the database in its header.
        has_ended |= is_over && is_of_this_log && word(&frame, 4) != 0;
    }
    if behind > 0 {
        return Ok(Some(format!(
            "a page in the middle of the log is damaged, with {behind} pages of others behind it"
        )));
    }
    let known = if index.salts == header[16..24] { index.pages } else { 0 };
    Ok(missing(known.saturating_sub(whole)))
}

/// What the shared index knows of the log. Where there is none: nothing.
#[derive(Default)]
struct Index {
    /// How many pages are committed.
    pages: u64,
    /// How many of them are in the database, too.
    moved: u64,
    /// Which log it is about.
    salts: [u8; 8],
}

impl Index {
    fn read(path: &Path) -> io::Result<Index> {
        let mut bytes = [0; 100];
        match open(path)? {
            Some(file) if file.metadata()?.len() >= bytes.len() as u64 => file.read_exact_at(&mut bytes, 0)?,
            _ => return Ok(Index::default()),
        }
        let number =
            |at: usize| u64::from(u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
        let mut salts = [0; 8];
        salts.copy_from_slice(&bytes[32..40]);
        Ok(Index { pages: number(16), moved: number(96), salts })
    }
}

/// A file, if it exists.
pub(super) fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The checksum of a log, which goes on from page to page.
struct Sums {
    is_big_endian: bool,
    sums: (u32, u32),
}

impl Sums {
    fn add(&mut self, bytes: &[u8]) {
        let read = |word: &[u8]| {
            let word = [word[0], word[1], word[2], word[3]];
            if self.is_big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
        };
        let (mut first, mut second) = self.sums;
        for pair in bytes.chunks_exact(8) {
            first = first.wrapping_add(read(&pair[..4])).wrapping_add(second);
            second = second.wrapping_add(read(&pair[4..])).wrapping_add(first);
        }
        self.sums = (first, second);
    }
}
