//! A feed of the lines appended to a file, followed over rotation.
//!
//! The follower looks every `TAIL_INTERVAL`, on a blocking thread, and reads on while there is more:
//! - at the start it goes to the file's end; a line that had begun there is not a line that was appended, and is left out;
//! - a file that is not there is waited for, and read from its start once it is;
//! - another file under the same name (renamed and created anew): the old one is read to its end, then the new one from its start. An
//!   empty new file is no reason to leave the old one, which its writer may not have let go of yet;
//! - a file shorter than what was read of it was truncated: it is read from its start;
//! - a line that had begun when its file ended this way is published as it is;
//! - what is not a regular file is not opened at all, and said once.
//!
//! A file truncated and, between two looks, written beyond where it was cannot be told from one that grew.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use nix::fcntl::OFlag;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::lines::Lines;
use super::mark::{Mark, Place};
use super::{Beginning, Outlet, Publisher};
use crate::config::limits::{FEED_READ_BYTES, TAIL_INTERVAL};

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
        // Where the file ends, or that there is none, is known now.
        beginning.take();
        bookmark.begin();
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
    open: Option<Open>,
    /// Nothing was looked at yet: a file found now is older than the feed.
    first: bool,
    /// What was said about why the file cannot be read, so that it is said once.
    trouble: Option<String>,
}

struct Open {
    file: Arc<File>,
    /// How far it was read.
    at: u64,
    /// `at` is in a line that began before the feed did.
    inside: bool,
}

impl Follower {
    fn new(feed: String, path: PathBuf, mark: Mark) -> Follower {
        let open = mark.place.map(|Place { file, at, inside }| Open { file, at, inside });
        Follower { feed, path, open, first: !mark.begun, trouble: None }
    }

    /// The place in the open file that is so many bytes before what was read.
    fn place(&self, unread: usize) -> Option<Place> {
        let Open { file, at, inside } = self.open.as_ref()?;
        Some(Place { file: file.clone(), at: at.saturating_sub(unread as u64), inside: *inside })
    }

    fn look(&mut self) -> Seen {
        let first = std::mem::take(&mut self.first);
        let seen = match &mut self.open {
            Some(open) => open.read().and_then(|bytes| match bytes {
                Some(bytes) => Ok(Seen::Bytes(bytes)),
                None => self.at_end(),
            }),
            None => self.begin(first),
        };
        seen.unwrap_or_else(|error| {
            self.complain(error.to_string());
            // A file once open stays open: opened again it would be read from its start.
            Seen::Nothing
        })
    }

    /// Opens the file, if it is there: at its end if it was there `first`, else at its start.
    fn begin(&mut self, first: bool) -> io::Result<Seen> {
        let Some((mut file, metadata)) = self.open_regular()? else {
            if first {
                log::info!("feed {}: waits for {}, which is not there yet", self.feed, self.path.display());
            }
            return Ok(Seen::Nothing);
        };
        let at = if first { file.seek(SeekFrom::End(0))? } else { 0 };
        let mut last = [b'\n'];
        if at > 0 {
            file.read_exact_at(&mut last, at - 1)?;
        }
        log::debug!("feed {}: reads {} ({} bytes) from byte {at}", self.feed, self.path.display(), metadata.len());
        self.trouble = None;
        self.open = Some(Open { file: Arc::new(file), at, inside: last != [b'\n'] });
        Ok(Seen::End)
    }

    /// The open file has no more: was it truncated, or is there another under its name?
    fn at_end(&mut self) -> io::Result<Seen> {
        let Some(open) = &mut self.open else { return Ok(Seen::Nothing) };
        let old = open.file.metadata()?;
        if old.len() < open.at {
            open.at = 0;
            open.inside = false;
            return Ok(Seen::End);
        }
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
        let regular = |metadata: &Metadata| {
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

impl Open {
    /// What comes next in it; `None` at its end.
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let mut bytes = Vec::new();
            // Where the file itself stands is another process's business, too, which may have had it before.
            (&*self.file).seek(SeekFrom::Start(self.at))?;
            let read = (&*self.file).take(FEED_READ_BYTES as u64).read_to_end(&mut bytes)?;
            if read == 0 {
                return Ok(None);
            }
            self.at += read as u64;
            if !std::mem::take(&mut self.inside) {
                return Ok(Some(bytes));
            }
            match bytes.iter().position(|&byte| byte == b'\n') {
                Some(newline) => return Ok(Some(bytes.split_off(newline + 1))),
                None => self.inside = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;
    use std::sync::mpsc::channel;

    use nix::sys::stat::Mode;
    use tempfile::TempDir;
    use tokio::sync::mpsc;

    use super::*;
    use crate::config::Source;
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
