//! A feed of the lines appended to a file, also across rotation.
//!
//! The follower checks the file every `TAIL_INTERVAL`, on a blocking thread, and reads on while there is more:
//! - At the start it goes to the file's end. The rest of a line that had begun there is left out.
//! - It waits for a missing file, and reads that from its start.
//! - If the name leads to another file (rotation), the old file is read to its end, then what was rotated after it
//!   ([`rotated`]), then the new one from its start. An empty new file does not count yet, because the writer may still
//!   write to the old one.
//! - A file that no longer holds the bytes that were read, because it was truncated or rewritten, is read from its
//!   start ([`Followed`]).
//! - If another process has stopped in a file, it is continued there: under its name, or under the one that a rotation gave
//!   it ([`rotated`]). If it is not found, or was rewritten, the file that has the name now is read from its start.
//! - If its file ends in one of these ways, an incomplete last line is published as it is.
//! - Anything but a regular file is not opened; that is logged once.
//! - A file that cannot be read at the start counts as not seen: once it can be read, its content at that time is left
//!   out.

use std::collections::VecDeque;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::followed::{self, Followed};
use super::lines::Lines;
use super::mark::{FileMark, Mark};
use super::{Beginning, Outlet, Publisher, rotated};
use crate::config::limits::TAIL_INTERVAL;

pub(super) async fn run<O: Outlet>(path: PathBuf, mut publisher: Publisher<O>, beginning: Beginning) {
    let (mut beginning, mut has_begun) = (Some(beginning), false);
    let bookmark = publisher.bookmark.clone();
    let mut follower = Follower::new(publisher.name.clone(), path, bookmark.mark());
    let mut lines = Lines::new(publisher.message_max.clone());
    loop {
        let look = spawn_blocking(move || {
            let seen = follower.look();
            (follower, seen)
        });
        let seen = match look.await {
            Ok((back, seen)) => {
                follower = back;
                seen
            }
            Err(gone) => {
                log::error!("feed {} ends: {gone}", publisher.name);
                return;
            }
        };
        // Either the end of the file is known now, or that there is no file, or that it cannot be read; the last is not
        // waited for.
        let beginning = beginning.take();
        if !has_begun && follower.has_begun() {
            has_begun = true;
            let unread = if let Seen::Bytes(bytes) = &seen { bytes.len() } else { 0 };
            publisher.begin(follower.mark(unread), beginning);
        }
        match seen {
            Seen::Bytes(bytes) => {
                let mut bytes = bytes.as_slice();
                while let Some(line) = lines.next(&mut bytes) {
                    publisher.publish_from(&line, follower.mark(bytes.len())).await;
                }
            }
            Seen::End => {
                if let Some(line) = lines.finish() {
                    publisher.publish_from(&line, follower.mark(0)).await;
                }
                bookmark.set_file(follower.mark(0));
            }
            Seen::Nothing => sleep(TAIL_INTERVAL).await,
        }
    }
}

/// The result of one check of the file.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// More bytes; check again at once.
    Bytes(Vec<u8>),
    /// The current line has ended, and the next bytes begin a line; check again at once.
    End,
    /// Nothing new.
    Nothing,
}

/// A file that is followed by its name.
struct Follower {
    feed: String,
    path: PathBuf,
    open: Option<Followed>,
    /// Where another process stopped, until its file is looked for.
    left: Option<FileMark>,
    /// What was rotated away after the open file, before it could be followed.
    rotated: VecDeque<Followed>,
    /// No check has succeeded yet: a file that is found now is older than the feed.
    first: bool,
    /// The last problem that was logged, so that it is logged once.
    trouble: Option<String>,
}

impl Follower {
    fn new(feed: String, path: PathBuf, mark: Mark) -> Follower {
        let left = mark.file.clone().filter(|mark| mark.file.is_none());
        let open = mark.file.and_then(|mark| Some(Followed::resume(mark.file.clone()?, mark)));
        Follower { feed, path, open, left, rotated: VecDeque::new(), first: !mark.begun, trouble: None }
    }

    /// Whether it misses nothing from now on.
    fn has_begun(&self) -> bool {
        !self.first && self.left.is_none()
    }

    /// The mark in the open file, `unread` bytes before the end of what was read.
    fn mark(&self, unread: usize) -> Option<FileMark> {
        self.open.as_ref().map(|open| open.mark(unread))
    }

    fn look(&mut self) -> Seen {
        let seen = match &mut self.open {
            Some(open) => match open.restart_if_rewritten() {
                Ok(true) => Ok(Seen::End),
                Ok(false) => {
                    open.read().and_then(|bytes| bytes.map_or_else(|| self.at_end(), |bytes| Ok(Seen::Bytes(bytes))))
                }
                Err(error) => Err(error),
            },
            None if self.left.is_some() => self.find_left(),
            None => self.begin(),
        };
        seen.unwrap_or_else(|error| {
            self.complain(error.to_string());
            // The file stays open: if it was opened again, it would be read from its start.
            Seen::Nothing
        })
    }

    /// Opens the file in which another process stopped. If it is gone, the one that has its name now is read from its start.
    fn find_left(&mut self) -> io::Result<Seen> {
        let (current, Some(mark)) = (self.open_regular()?, self.left.clone()) else { return Ok(Seen::Nothing) };
        let is_same = current.as_ref().is_some_and(|(_, metadata)| metadata.ino() == mark.inode);
        let found = current.as_ref().map(|(file, _)| Followed::find(file.try_clone()?, &mark)).transpose()?;
        self.open = found.flatten();
        (self.first, self.left) = (false, None);
        let (feed, path) = (&self.feed, self.path.display());
        if self.open.is_some() {
            log::info!("feed {feed}: continues at byte {} of {path}", mark.at);
            return Ok(Seen::End);
        }
        self.rotated = rotated::find(&self.path, &mark, current);
        self.open = self.rotated.pop_front();
        if self.open.is_some() {
            log::info!("feed {feed}: {path} was rotated; continues in the file that had this name before");
        } else if is_same {
            log::info!("feed {feed}: {path} was truncated or rewritten; it is read from its start");
        } else {
            log::warn!(
                "feed {feed}: the file that was {path} is not found, so lines may be missing; continues with the one there is now"
            );
        }
        if self.open.is_some() { Ok(Seen::End) } else { self.begin() }
    }

    /// Opens the file, if it exists: at its end if it existed before the feed, else at its start.
    fn begin(&mut self) -> io::Result<Seen> {
        let found = self.open_regular()?;
        let first = std::mem::take(&mut self.first);
        let Some((file, metadata)) = found else {
            if first {
                log::info!("feed {}: waits for {}, which is not there yet", self.feed, self.path.display());
            }
            return Ok(Seen::Nothing);
        };
        let at = if first { metadata.len() } else { 0 };
        log::debug!("feed {}: reads {} ({} bytes) from byte {at}", self.feed, self.path.display(), metadata.len());
        self.trouble = None;
        self.open = Some(Followed::from(file, at)?);
        Ok(Seen::End)
    }

    /// The open file has no more bytes. Checks whether its name leads to another file now.
    fn at_end(&mut self) -> io::Result<Seen> {
        let Some(open) = &mut self.open else { return Ok(Seen::Nothing) };
        let old = open.metadata()?;
        let is_old = |now: &Metadata| (now.dev(), now.ino()) == (old.dev(), old.ino());
        match fs::metadata(&self.path) {
            Ok(now) if !is_old(&now) && (now.len() > 0 || !now.is_file()) => {}
            _ if !self.rotated.is_empty() => {}
            _ => return Ok(Seen::Nothing),
        }
        // The writer uses the new file, but may have written to the old one since the last read.
        if let Some(bytes) = open.read()? {
            return Ok(Seen::Bytes(bytes));
        }
        let mark = open.mark(0);
        if self.rotated.is_empty() {
            // Rotations may follow each other quickly.
            let current = self.open_regular().unwrap_or_default();
            self.rotated = rotated::find(&self.path, &mark, current);
            self.rotated.pop_front();
        }
        self.open = self.rotated.pop_front();
        if self.open.is_none()
            && let Err(error) = self.begin()
        {
            self.complain(error.to_string());
        }
        Ok(Seen::End)
    }

    /// The file, if the name leads to a regular one. It is checked before it is opened (opening a FIFO would wake its
    /// writer), and again after (it may have been replaced).
    fn open_regular(&mut self) -> io::Result<Option<(File, Metadata)>> {
        let first = &mut self.first;
        let mut regular = |metadata: &Metadata| {
            // A file that replaces it later is newer than the feed.
            *first &= metadata.is_file();
            metadata.is_file().then_some(()).ok_or_else(|| io::Error::other("it is not a regular file"))
        };
        let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        match fs::metadata(&self.path) {
            Ok(metadata) => regular(&metadata)?,
            Err(error) if absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        match followed::open(&self.path) {
            Ok(file) => {
                let metadata = file.metadata()?;
                regular(&metadata)?;
                Ok(Some((file, metadata)))
            }
            Err(error) if absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn complain(&mut self, trouble: String) {
        if self.trouble.as_ref() != Some(&trouble) {
            log::warn!("feed {}: cannot read {}: {trouble}", self.feed, self.path.display());
            self.trouble = Some(trouble);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::FileExt;
    use std::path::Path;
    use std::sync::mpsc::channel;

    use nix::sys::stat::Mode;
    use tempfile::TempDir;
    use tokio::sync::mpsc;

    use super::*;
    use crate::config::Source;
    use crate::config::limits::FEED_READ_BYTES;
    use crate::feed::testing::{Queue, feed, next};

    struct Fixture {
        directory: TempDir,
        follower: Follower,
        lines: Lines,
    }

    impl Fixture {
        fn new() -> Fixture {
            let directory = TempDir::new().unwrap();
            let follower = Follower::new("test".into(), directory.path().join("log"), Mark::default());
            Fixture { directory, follower, lines: Lines::new(64) }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("log")
        }

        fn append(&self, text: &str) {
            append(&self.path(), text);
        }

        /// All lines published until there is nothing new.
        fn published(&mut self) -> Vec<String> {
            let mut received = Vec::new();
            loop {
                match self.follower.look() {
                    Seen::Bytes(bytes) => {
                        let mut bytes = bytes.as_slice();
                        while let Some(line) = self.lines.next(&mut bytes) {
                            received.push(line);
                        }
                    }
                    Seen::End => received.extend(self.lines.finish()),
                    Seen::Nothing => return received,
                }
            }
        }
    }

    fn append(path: &Path, text: &str) {
        File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn only_complete_lines_appended_after_the_start_are_published() {
        let mut fixture = Fixture::new();
        fixture.append("old\n");
        assert!(fixture.published().is_empty());
        fixture.append("one\r\ntw");
        assert_eq!(fixture.published(), ["one"]);
        fixture.append("o\nthree\n");
        assert_eq!(fixture.published(), ["two", "three"]);
    }

    #[test]
    fn a_line_that_began_before_the_start_is_left_out() {
        let mut fixture = Fixture::new();
        fixture.append("old\nbegun");
        assert!(fixture.published().is_empty());
        fixture.append(" and");
        assert!(fixture.published().is_empty());
        fixture.append(" ended\nnew\n");
        assert_eq!(fixture.published(), ["new"]);
    }

    #[test]
    fn a_missing_file_is_waited_for_and_read_from_its_start() {
        let mut fixture = Fixture::new();
        assert!(fixture.published().is_empty());
        fixture.append("first\nsecond\n");
        assert_eq!(fixture.published(), ["first", "second"]);
    }

    #[test]
    fn rotation_loses_no_line() {
        let mut fixture = Fixture::new();
        fixture.append("old\n");
        fixture.published();
        let old = fixture.directory.path().join("log.1");
        fixture.append("a\n");
        fs::rename(fixture.path(), &old).unwrap();
        append(&old, "b\n");
        assert_eq!(fixture.published(), ["a", "b"]);
        // The new file exists, but the writer still uses the old one.
        fixture.append("");
        append(&old, "c\nunfinis");
        assert_eq!(fixture.published(), ["c"]);
        append(&old, "hed");
        fixture.append("d\n");
        assert_eq!(fixture.published(), ["unfinished", "d"]);
        append(&old, "not published\n");
        fixture.append("e\n");
        assert_eq!(fixture.published(), ["e"]);
    }

    #[test]
    fn removing_and_creating_the_file_is_a_rotation() {
        let mut fixture = Fixture::new();
        fixture.append("old\n");
        fixture.published();
        fs::remove_file(fixture.path()).unwrap();
        assert!(fixture.published().is_empty());
        fixture.append("new\n");
        assert_eq!(fixture.published(), ["new"]);
    }

    #[test]
    fn a_truncated_file_is_read_from_its_start() {
        let mut fixture = Fixture::new();
        fixture.append("old and long\n");
        fixture.published();
        fixture.append("half");
        fixture.published();
        fs::write(fixture.path(), "new\n").unwrap();
        assert_eq!(fixture.published(), ["half", "new"]);
        fixture.append("more\n");
        assert_eq!(fixture.published(), ["more"]);
    }

    #[test]
    fn a_file_rewritten_between_two_checks_is_read_from_its_start() {
        let mut fixture = Fixture::new();
        fixture.append("old line 1\n");
        assert!(fixture.published().is_empty());
        // Longer than before, of the same length, and longer than the remembered bytes.
        for text in
            ["new line three\n".to_owned(), "new line  four\n".to_owned(), format!("{}\n", "5".repeat(60)).repeat(99)]
        {
            fs::write(fixture.path(), &text).unwrap();
            assert_eq!(fixture.published(), text.lines().collect::<Vec<_>>());
        }
        fixture.append("appended\n");
        assert_eq!(fixture.published(), ["appended"]);
    }

    #[test]
    fn a_hole_left_by_a_writer_that_keeps_its_offset_is_skipped() {
        // Within a block, over several blocks, and larger than the longest line.
        for hole in [10, 5000, 10 * FEED_READ_BYTES as u64 + 17] {
            let mut fixture = Fixture::new();
            fixture.append("old\n");
            fixture.published();
            let file = File::options().write(true).open(fixture.path()).unwrap();
            file.write_all_at(b"first\n", hole).unwrap();
            assert_eq!(fixture.published(), ["first"], "after a hole of {hole}");
            // Truncated as by a rotation that copies; the writer does not notice.
            file.set_len(0).unwrap();
            file.write_all_at(b"second\nthird\n", hole + 6).unwrap();
            assert_eq!(fixture.published(), ["second", "third"], "after a hole of {hole}");
            file.set_len(hole + 100).unwrap();
            assert!(fixture.published().is_empty());
            file.write_all_at(b"fourth\n", hole + 100).unwrap();
            assert_eq!(fixture.published(), ["fourth"]);
        }
    }

    #[test]
    fn a_failed_check_counts_as_no_check() {
        let mut fixture = Fixture::new();
        // A loop of links: not even root can read that.
        std::os::unix::fs::symlink("log", fixture.path()).unwrap();
        assert!(fixture.published().is_empty());
        assert!(fixture.follower.trouble.is_some() && fixture.follower.first);
        fs::remove_file(fixture.path()).unwrap();
        fixture.append("old\n");
        assert!(fixture.published().is_empty());
        fixture.append("new\n");
        assert_eq!(fixture.published(), ["new"]);
    }

    #[test]
    fn a_fifo_is_reported_once_and_never_blocks() {
        let mut fixture = Fixture::new();
        nix::unistd::mkfifo(&fixture.path(), Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(fixture.follower.look(), Seen::Nothing);
        assert_eq!(fixture.follower.trouble.as_deref(), Some("it is not a regular file"));
        assert_eq!(fixture.follower.look(), Seen::Nothing);
        fs::remove_file(fixture.path()).unwrap();
        fixture.append("a file at last\n");
        assert_eq!(fixture.published(), ["a file at last"]);
        assert!(fixture.follower.trouble.is_none());
    }

    #[test]
    fn more_lines_than_fit_into_one_read_arrive_complete() {
        let mut fixture = Fixture::new();
        fixture.published();
        let count = FEED_READ_BYTES / 4;
        let text: String = (0..count).map(|n| format!("line {n}\n")).collect();
        fixture.append(&text);
        let received = fixture.published();
        assert_eq!(received.len(), count);
        assert_eq!(received.join("\n") + "\n", text);
    }

    // Paused time advances only while no check runs.
    #[tokio::test(start_paused = true)]
    async fn lines_are_published_as_text_within_the_limit() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("log");
        let (sender, mut received) = mpsc::channel(1);
        let mut run = Box::pin(crate::feed::run(
            feed("{n}:{line}", Source::Tail(path.clone())),
            8,
            Queue(sender),
            channel().0,
            Default::default(),
        ));
        // Once it has found no file, a file that appears is read from its start.
        tokio::select! {
            () = &mut run => unreachable!(),
            // The clock is paused: this takes no time.
            () = sleep(TAIL_INTERVAL * 2) => {}
        }
        let whole = directory.path().join("whole");
        fs::write(&whole, b"one\nt\xffo\nmuch too long\n").unwrap();
        fs::rename(&whole, &path).unwrap();
        for expected in ["0:one", "1:t\u{fffd}o", "2:much t"] {
            assert_eq!(next(&mut run, &mut received).await, expected);
        }
    }
}
