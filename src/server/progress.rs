//! The progress of feeds, as it is written for another process: handed over with the open file, or kept on the disk with the messages of
//! a durable hub.
//!
//! Both may be there. The disk has what was written; what is handed over has what was published, which is the same unless the disk
//! failed. Then the feed publishes again what was not written.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::config::{Feed, Source};
use crate::feed::mark::{FileMark, Mark};
use crate::hub::{Progress, Receipt};
use crate::shard::disk::Disk;
use crate::wire::tagged::{Field, tagged};

/// A feed that has ended here, and that another process may continue.
#[derive(Debug)]
pub struct StoppedFeed {
    /// NAME in `[feed.NAME]`.
    pub name: String,
    /// Identifies its source: the feed is continued only if its source is still the same.
    pub source_key: Vec<u8>,
    /// Its progress.
    pub mark: Mark,
}

/// A feed without its file.
#[derive(Debug, Default, PartialEq)]
pub(super) struct FeedState {
    name: String,
    source_key: Vec<u8>,
    count: u64,
    begun: bool,
    at: u64,
    inside: bool,
    inode: u64,
    before: Vec<u8>,
}

tagged!(FeedState { 1 name, 2 source_key, 3 count, 4 begun, 5 at, 6 inside, 7 inode, 8 before });

impl FeedState {
    pub(super) fn of(name: &str, source_key: &[u8], mark: &Mark) -> FeedState {
        let (name, source_key) = (name.to_owned(), source_key.to_vec());
        let state = FeedState { name, source_key, count: mark.count, begun: mark.begun, ..FeedState::default() };
        match &mark.file {
            Some(FileMark { inode, at, inside, before, .. }) => {
                FeedState { at: *at, inside: *inside, inode: *inode, before: before.clone(), ..state }
            }
            None => state,
        }
    }

    /// Adds the file that was handed over with it, if any.
    pub(super) fn with(self, file: Option<OwnedFd>) -> StoppedFeed {
        let FeedState { name, source_key, count, begun, at, inside, inode, before } = self;
        let is_known = file.is_some() || inode > 0;
        let file = file.map(|file| Arc::new(File::from(file)));
        let file = is_known.then_some(FileMark { file, inode, at, inside, before });
        StoppedFeed { name, source_key, mark: Mark { count, begun, file } }
    }
}

/// Where the progress of a feed is kept: on the disk of its hub.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) disk: Disk,
    name: String,
    source_key: Vec<u8>,
    /// No message of the feed is on its way to the disk when it begins.
    is_new: bool,
}

impl Keeper {
    pub(super) fn new(disk: Disk, feed: &Feed, is_new: bool) -> Keeper {
        Keeper { disk, name: feed.name.clone(), source_key: source_key(&feed.source), is_new }
    }

    /// Keeps where a feed begins, before it has a message. `hold` is dropped when that is done. If it goes on after a reload, the mark
    /// must not be on the disk before the messages that are on their way, and comes with them.
    pub(super) fn begin(&self, mark: &Mark, hold: Option<Box<dyn Send>>) {
        if self.is_new {
            self.disk.keep_mark(&self.name, Some(self.written(mark)), hold);
        }
    }

    /// What a message carries, so that the mark is on the disk with it.
    pub(super) fn receipt(&self, mark: &Mark) -> Receipt {
        Receipt::new(|_| ()).with_progress(Progress { feed: self.name.as_str().into(), mark: self.written(mark) })
    }

    fn written(&self, mark: &Mark) -> Box<[u8]> {
        let mut out = Vec::new();
        FeedState::of(&self.name, &self.source_key, mark).write(&mut out);
        out.into()
    }
}

/// A feed's source as bytes that can be compared.
pub(super) fn source_key(source: &Source) -> Vec<u8> {
    match source {
        Source::Every(_) => b"every".to_vec(),
        Source::Tail(path) => [b"tail ", path.as_os_str().as_encoded_bytes()].concat(),
        Source::Command(words) => format!("command {}", words.join("\0")).into_bytes(),
    }
}

/// From where a feed goes on: as it was handed over, as its disk says (`kept`), or nothing is known.
pub(super) fn continued(feed: &Feed, handed_over: &mut Vec<StoppedFeed>, kept: Option<&[u8]>) -> Option<Mark> {
    let key = source_key(&feed.source);
    let is_it = |stopped: &StoppedFeed| stopped.name == feed.name && stopped.source_key == key;
    let handed_over = handed_over.iter().position(is_it).map(|at| handed_over.swap_remove(at).mark);
    let kept = kept.and_then(|bytes| FeedState::read(bytes).ok()).map(|state| state.with(None)).filter(is_it);
    match (handed_over, kept.map(|stopped| stopped.mark)) {
        (Some(Mark { count, file, .. }), Some(mut kept)) if count != kept.count => {
            // The same file is open already, whatever its name is.
            if let (Some(FileMark { file, inode, .. }), Some(kept)) = (file, &mut kept.file)
                && inode == kept.inode
            {
                kept.file = file;
            }
            Some(kept)
        }
        (handed_over, kept) => handed_over.or(kept),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HubId, Template};

    fn tail(path: &str) -> Feed {
        let (name, channel, message) = ("f".to_owned(), "all".to_owned(), Template::parse("{line}").unwrap());
        Feed { name, hub: HubId(0), channel, message, source: Source::Tail(path.into()) }
    }

    fn mark(count: u64, at: u64, file: Option<&Arc<File>>) -> Mark {
        let file = FileMark { file: file.cloned(), inode: 7, at, inside: true, before: b"before".to_vec() };
        Mark { count, begun: true, file: Some(file) }
    }

    fn written(mark: &Mark) -> Vec<u8> {
        let mut out = Vec::new();
        FeedState::of("f", b"tail /log", mark).write(&mut out);
        out
    }

    #[test]
    fn what_was_handed_over_counts_unless_the_disk_has_less_or_more() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let handed_over = || {
            vec![StoppedFeed { name: "f".into(), source_key: b"tail /log".to_vec(), mark: mark(5, 50, Some(&file)) }]
        };
        let continued = |handed_over: &mut Vec<StoppedFeed>, kept: Option<&Mark>| {
            let mark = continued(&tail("/log"), handed_over, kept.map(written).as_deref())?;
            let at = mark.file.unwrap();
            Some((mark.count, at.at, at.inside, at.before, at.file.is_some()))
        };
        let before = b"before".to_vec();
        let is = |count, at, is_open| Some((count, at, true, before.clone(), is_open));
        assert_eq!(continued(&mut Vec::new(), None), None);
        assert_eq!(continued(&mut handed_over(), None), is(5, 50, true));
        assert_eq!(continued(&mut handed_over(), Some(&mark(5, 40, None))), is(5, 50, true));
        assert_eq!(continued(&mut handed_over(), Some(&mark(3, 30, None))), is(3, 30, true), "not all was written");
        assert_eq!(continued(&mut handed_over(), Some(&mark(8, 80, None))), is(8, 80, true), "an old parcel");
        assert_eq!(continued(&mut Vec::new(), Some(&mark(3, 30, None))), is(3, 30, false));
    }

    #[test]
    fn a_damaged_mark_or_one_of_another_file_is_not_used() {
        let whole = written(&mark(3, 30, None));
        let count = |feed: &Feed, kept: &[u8]| continued(feed, &mut Vec::new(), Some(kept)).map(|mark| mark.count);
        assert_eq!(count(&tail("/log"), &whole), Some(3));
        assert_eq!(count(&tail("/other"), &whole), None);
        // Damage is found by the checksum of the row. Here it must only do no harm.
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            let _ = count(&tail("/log"), &damaged);
            let _ = count(&tail("/log"), &whole[..at]);
        }
    }
}
