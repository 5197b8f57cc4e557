//! A feed of the lines appended to a file, followed over rotation.
//!
//! The follower looks every `TAIL_INTERVAL`, on a blocking thread, and reads on while there is more:
//! - at the start it goes to the file's end; a line that had begun there is not a line that was appended, and is left out;
//! - a file that is not there is waited for, and read from its start once it is;
//! - another file under the same name (renamed and created anew): the old one is read to its end, then the new one from its start. An
//!   empty new file is no reason to leave the old one, which its writer may not have let go of yet;
//! - a file that does not hold any more what was read of it, truncated or written anew, is read from its start ([`Followed`]);
//! - a line that had begun when its file ended this way is published as it is;
//! - what is not a regular file is not opened at all, and said once;
//! - a file that cannot be read at the start was not looked at: once it can be, what stands in it by then is left out.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use nix::fcntl::OFlag;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::followed::Followed;
use super::lines::Lines;
use super::mark::{Mark, Place};
use super::{Beginning, Outlet, Publisher};
use crate::config::limits::TAIL_INTERVAL;

pub(super) async fn run<O: Outlet>(path: PathBuf, mut publisher: Publisher<O>, beginning: Beginning) {
    let mut beginning = Some(beginning);
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
        // Where the file ends, or that there is none, is known now; or that it cannot be known, which is not waited for.
        beginning.take();
        if !follower.first {
            bookmark.begin();
        }
        match seen {
            Seen::Bytes(bytes) => {
                let mut bytes = bytes.as_slice();
                while let Some(line) = lines.next(&mut bytes) {
                    publisher.publish(&line).await;
                    bookmark.place(follower.place(bytes.len()));
                }
            }
            Seen::End => {
                if let Some(line) = lines.finish() {
                    publisher.publish(&line).await;
                }
                bookmark.place(follower.place(0));
            }
            Seen::Nothing => sleep(TAIL_INTERVAL).await,
        }
    }
}

/// What one look at the file gave.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// More of it; look again at once.
    Bytes(Vec<u8>),
    /// What was read so far has ended, and what comes next begins a line; look again at once.
    End,
    /// Nothing new.
    Nothing,
}

/// A file being followed by its name.
struct Follower {
    feed: String,
    path: PathBuf,
    open: Option<Followed>,
    /// Nothing was looked at yet: a file found now is older than the feed.
    first: bool,
    /// What was said about why the file cannot be read, so that it is said once.
    trouble: Option<String>,
}

impl Follower {
    fn new(feed: String, path: PathBuf, mark: Mark) -> Follower {
        let open = mark.place.map(Followed::at);
        Follower { feed, path, open, first: !mark.begun, trouble: None }
    }

    /// The place in the open file that is so many bytes before what was read.
    fn place(&self, unread: usize) -> Option<Place> {
        self.open.as_ref().map(|open| open.place(unread))
    }

    fn look(&mut self) -> Seen {
        let seen = match &mut self.open {
            Some(open) => match open.restarts() {
                Ok(true) => Ok(Seen::End),
                Ok(false) => {
                    open.read().and_then(|bytes| bytes.map_or_else(|| self.at_end(), |bytes| Ok(Seen::Bytes(bytes))))
                }
                Err(error) => Err(error),
            },
            None => self.begin(),
        };
        seen.unwrap_or_else(|error| {
            self.complain(error.to_string());
            // A file once open stays open: opened again it would be read from its start.
            Seen::Nothing
        })
    }

    /// Opens the file, if it is there: at its end if it was there `first`, else at its start.
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

    /// The open file has no more: is there another under its name?
    fn at_end(&mut self) -> io::Result<Seen> {
        let Some(open) = &mut self.open else { return Ok(Seen::Nothing) };
        let old = open.metadata()?;
        let is_old = |now: &Metadata| (now.dev(), now.ino()) == (old.dev(), old.ino());
        match fs::metadata(&self.path) {
            Ok(now) if !is_old(&now) && (now.len() > 0 || !now.is_file()) => {}
            _ => return Ok(Seen::Nothing),
        }
        // The writer has moved on, but may have written between our last read and that.
        if let Some(bytes) = open.read()? {
            return Ok(Seen::Bytes(bytes));
        }
        self.open = None;
        Ok(Seen::End)
    }

    /// The file, if there is a regular one under the name. Looked at before it is opened (a FIFO's writer must not be
    /// woken), and again after (it may be another by then).
    fn open_regular(&mut self) -> io::Result<Option<(File, Metadata)>> {
        let first = &mut self.first;
        let mut regular = |metadata: &Metadata| {
            // Whatever takes its place comes later than the feed.
            *first &= metadata.is_file();
            metadata.is_file().then_some(()).ok_or_else(|| io::Error::other("it is not a regular file"))
        };
        let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        match fs::metadata(&self.path) {
            Ok(metadata) => regular(&metadata)?,
            Err(error) if absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        match File::options().read(true).custom_flags(flags.bits()).open(&self.path) {
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
    use crate::feed::testing::{Ear, feed, next};

    struct Ground {
        directory: TempDir,
        follower: Follower,
        lines: Lines,
    }

    impl Ground {
        fn new() -> Ground {
            let directory = TempDir::new().unwrap();
            let follower = Follower::new("test".into(), directory.path().join("log"), Mark::default());
            Ground { directory, follower, lines: Lines::new(64) }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("log")
        }

        fn append(&self, text: &str) {
            append(&self.path(), text);
        }

        /// Everything published until there is nothing new.
        fn heard(&mut self) -> Vec<String> {
            let mut heard = Vec::new();
            loop {
                match self.follower.look() {
                    Seen::Bytes(bytes) => {
                        let mut bytes = bytes.as_slice();
                        while let Some(line) = self.lines.next(&mut bytes) {
                            heard.push(line);
                        }
                    }
                    Seen::End => heard.extend(self.lines.finish()),
                    Seen::Nothing => return heard,
                }
            }
        }
    }

    fn append(path: &Path, text: &str) {
        File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn only_whole_lines_appended_after_the_start() {
        let mut ground = Ground::new();
        ground.append("old\n");
        assert!(ground.heard().is_empty());
        ground.append("one\r\ntw");
        assert_eq!(ground.heard(), ["one"]);
        ground.append("o\nthree\n");
        assert_eq!(ground.heard(), ["two", "three"]);
    }

    #[test]
    fn a_line_begun_before_the_start_is_left_out() {
        let mut ground = Ground::new();
        ground.append("old\nbegun");
        assert!(ground.heard().is_empty());
        ground.append(" and");
        assert!(ground.heard().is_empty());
        ground.append(" ended\nnew\n");
        assert_eq!(ground.heard(), ["new"]);
    }

    #[test]
    fn an_absent_file_is_waited_for_and_read_from_its_start() {
        let mut ground = Ground::new();
        assert!(ground.heard().is_empty());
        ground.append("first\nsecond\n");
        assert_eq!(ground.heard(), ["first", "second"]);
    }

    #[test]
    fn rotation_loses_nothing() {
        let mut ground = Ground::new();
        ground.append("old\n");
        ground.heard();
        let old = ground.directory.path().join("log.1");
        ground.append("a\n");
        fs::rename(ground.path(), &old).unwrap();
        append(&old, "b\n");
        assert_eq!(ground.heard(), ["a", "b"]);
        // Created, but the writer still has the old one.
        ground.append("");
        append(&old, "c\nunfinis");
        assert_eq!(ground.heard(), ["c"]);
        append(&old, "hed");
        ground.append("d\n");
        assert_eq!(ground.heard(), ["unfinished", "d"]);
        append(&old, "nobody hears\n");
        ground.append("e\n");
        assert_eq!(ground.heard(), ["e"]);
    }

    #[test]
    fn removal_and_return_is_a_rotation() {
        let mut ground = Ground::new();
        ground.append("old\n");
        ground.heard();
        fs::remove_file(ground.path()).unwrap();
        assert!(ground.heard().is_empty());
        ground.append("new\n");
        assert_eq!(ground.heard(), ["new"]);
    }

    #[test]
    fn a_truncated_file_starts_over() {
        let mut ground = Ground::new();
        ground.append("old and long\n");
        ground.heard();
        ground.append("half");
        ground.heard();
        fs::write(ground.path(), "new\n").unwrap();
        assert_eq!(ground.heard(), ["half", "new"]);
        ground.append("more\n");
        assert_eq!(ground.heard(), ["more"]);
    }

    #[test]
    fn a_file_written_anew_between_two_looks_is_read_from_its_start() {
        let mut ground = Ground::new();
        ground.append("old line 1\n");
        assert!(ground.heard().is_empty());
        // Longer than before, as long, and longer than what is remembered.
        for text in
            ["new line three\n".to_owned(), "new line  four\n".to_owned(), format!("{}\n", "5".repeat(60)).repeat(99)]
        {
            fs::write(ground.path(), &text).unwrap();
            assert_eq!(ground.heard(), text.lines().collect::<Vec<_>>());
        }
        ground.append("appended\n");
        assert_eq!(ground.heard(), ["appended"]);
    }

    #[test]
    fn the_hole_of_a_writer_that_goes_on_where_it_was_is_skipped() {
        // Within a block, over a few, and larger than any line may be.
        for hole in [10, 5000, 10 * FEED_READ_BYTES as u64 + 17] {
            let mut ground = Ground::new();
            ground.append("old\n");
            ground.heard();
            let file = File::options().write(true).open(ground.path()).unwrap();
            file.write_all_at(b"first\n", hole).unwrap();
            assert_eq!(ground.heard(), ["first"], "after a hole of {hole}");
            // Cut short as a rotation by copy does it; the writer does not notice.
            file.set_len(0).unwrap();
            file.write_all_at(b"second\nthird\n", hole + 6).unwrap();
            assert_eq!(ground.heard(), ["second", "third"], "after a hole of {hole}");
            file.set_len(hole + 100).unwrap();
            assert!(ground.heard().is_empty());
            file.write_all_at(b"fourth\n", hole + 100).unwrap();
            assert_eq!(ground.heard(), ["fourth"]);
        }
    }

    #[test]
    fn a_look_that_failed_was_none() {
        let mut ground = Ground::new();
        // A loop of links: nobody may read that, root neither.
        std::os::unix::fs::symlink("log", ground.path()).unwrap();
        assert!(ground.heard().is_empty());
        assert!(ground.follower.trouble.is_some() && ground.follower.first);
        fs::remove_file(ground.path()).unwrap();
        ground.append("old\n");
        assert!(ground.heard().is_empty());
        ground.append("new\n");
        assert_eq!(ground.heard(), ["new"]);
    }

    #[test]
    fn a_fifo_is_refused_once_and_never_hangs() {
        let mut ground = Ground::new();
        nix::unistd::mkfifo(&ground.path(), Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(ground.follower.look(), Seen::Nothing);
        assert_eq!(ground.follower.trouble.as_deref(), Some("it is not a regular file"));
        assert_eq!(ground.follower.look(), Seen::Nothing);
        fs::remove_file(ground.path()).unwrap();
        ground.append("a file at last\n");
        assert_eq!(ground.heard(), ["a file at last"]);
        assert!(ground.follower.trouble.is_none());
    }

    #[test]
    fn more_than_one_read_arrives_whole() {
        let mut ground = Ground::new();
        ground.heard();
        let count = FEED_READ_BYTES / 4;
        let text: String = (0..count).map(|n| format!("line {n}\n")).collect();
        ground.append(&text);
        let heard = ground.heard();
        assert_eq!(heard.len(), count);
        assert_eq!(heard.join("\n") + "\n", text);
    }

    // Paused time moves only while no look is under way.
    #[tokio::test(start_paused = true)]
    async fn lines_are_published_as_text_within_the_limit() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("log");
        let (ear, mut heard) = mpsc::channel(1);
        let mut run = Box::pin(crate::feed::run(
            feed("{n}:{line}", Source::Tail(path.clone())),
            8,
            Ear(ear),
            channel().0,
            Default::default(),
        ));
        // Once it has looked and found nothing, whatever appears is read from its start.
        tokio::select! {
            () = &mut run => unreachable!(),
            // The clock is paused: this takes no time.
            () = sleep(TAIL_INTERVAL * 2) => {}
        }
        let whole = directory.path().join("whole");
        fs::write(&whole, b"one\nt\xffo\nmuch too long\n").unwrap();
        fs::rename(&whole, &path).unwrap();
        for expected in ["0:one", "1:t\u{fffd}o", "2:much t"] {
            assert_eq!(next(&mut run, &mut heard).await, expected);
        }
    }
}
