//! What a shard's hubs remember in memory, written for another process: a memory file with a header that says which hubs there
//! are, and then one item for each message, each channel that has dropped some, and each known key.
//!
//! Hubs on disk are not in it: the other process reads their store.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::config::limits::{CHANNEL_BYTES_MAX, RECORD_BYTES_MAX};
use crate::hub::history::Kept;
use crate::hub::{Epoch, History, Keys, Kind, KnownKey, Outcome, Position};
use crate::session::Seconds;
use crate::wire::fields::{Damaged, Fields};
use crate::wire::tagged::{self, Field, tagged};

/// The file begins with this and the number of its format. The header and the items follow, each after its length.
const MAGIC: [u8; 12] = *b"pushd memory";
const FORMAT: u32 = 1;
const LENGTH_BYTES: usize = 4;
/// What an item takes beside the payload of its message, at most.
const ITEM_BYTES_MAX: usize = RECORD_BYTES_MAX;

/// What the file is about.
#[derive(Debug, Default)]
struct Header {
    hubs: Vec<HubRecord>,
}

tagged!(Header { 1 hubs });

/// A hub that remembers something.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct HubRecord {
    /// Its NAME.
    pub name: String,
    /// The numbering.
    pub epoch: u64,
    /// The offset of its last publication.
    pub last: u64,
    /// Up to where channels that are not known may have dropped messages.
    pub forgotten: u64,
    /// Whether it has keys, but no history.
    pub has_only_keys: bool,
}

tagged!(HubRecord { 1 name, 2 epoch, 3 last, 4 forgotten, 5 has_only_keys });

/// A message.
#[derive(Debug, Default)]
struct MessageRecord {
    channel: Arc<str>,
    offset: u64,
    at: Seconds,
    is_binary: bool,
    payload: Bytes,
}

tagged!(MessageRecord { 1 channel, 2 offset, 3 at, 4 is_binary, 5 payload });

/// A channel that has dropped messages.
#[derive(Debug, Default)]
struct DropRecord {
    channel: Arc<str>,
    offset: u64,
}

tagged!(DropRecord { 1 channel, 2 offset });

/// A key, and the outcome of its message.
#[derive(Debug, Default)]
struct KeyRecord {
    channel: String,
    key: String,
    subscribers: u64,
    /// 0: it has no position.
    offset: u64,
    at: Seconds,
    epoch: u64,
}

tagged!(KeyRecord { 1 channel, 2 key, 3 subscribers, 4 offset, 5 at, 6 epoch });

impl HubRecord {
    /// The position of its last publication.
    pub fn position(&self) -> Position {
        Position { epoch: Epoch(self.epoch), offset: self.last }
    }
}

/// Writes what hubs remember: the NAME of each, its history, and its keys.
///
/// # Errors
/// There is no memory for them.
pub fn write<'h>(hubs: impl Iterator<Item = (&'h str, Option<&'h History>, Option<&'h Keys>)>) -> io::Result<OwnedFd> {
    let remembered: Vec<_> = hubs.collect();
    let hubs = remembered.iter().map(|(name, history, _)| {
        let name = (*name).to_owned();
        let Some(history) = history else { return HubRecord { name, has_only_keys: true, ..HubRecord::default() } };
        let Position { epoch: Epoch(epoch), offset: last } = history.position();
        HubRecord { name, epoch, last, forgotten: history.drops().1, has_only_keys: false }
    });
    let header = Header { hubs: hubs.collect() };
    let file = File::from(memfd_create("pushd-histories", MFdFlags::MFD_CLOEXEC)?);
    let mut out = Writer { file: BufWriter::with_capacity(1 << 18, file), item: Vec::new() };
    out.file.write_all(&MAGIC)?;
    out.file.write_all(&FORMAT.to_le_bytes())?;
    out.item(|item| header.write(item))?;
    for (number, (_, history, keys)) in remembered.iter().enumerate() {
        for (Kept { offset, channel, kind, payload }, at) in history.iter().flat_map(|history| history.messages()) {
            let is_binary = kind == Kind::Binary;
            out.of_hub(number, 2, &MessageRecord { channel, offset, at, is_binary, payload })?;
        }
        for (channel, offset) in history.iter().flat_map(|history| history.drops().0) {
            out.of_hub(number, 3, &DropRecord { channel: channel.clone(), offset })?;
        }
        for KnownKey { channel, key, outcome, at } in keys.iter().flat_map(|keys| keys.known()) {
            let position = outcome.position;
            let record = KeyRecord {
                channel: channel.into(),
                key: key.into(),
                subscribers: outcome.subscribers,
                offset: position.map_or(0, |position| position.offset),
                at,
                epoch: position.map_or(0, |position| position.epoch.0),
            };
            out.of_hub(number, 4, &record)?;
        }
    }
    Ok(out.file.into_inner().map_err(|error| error.into_error())?.into())
}

struct Writer {
    file: BufWriter<File>,
    item: Vec<u8>,
}

impl Writer {
    fn item(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.item.clear();
        write(&mut self.item);
        self.file.write_all(&(self.item.len() as u32).to_le_bytes())?;
        self.file.write_all(&self.item)
    }

    /// Writes an item of the hub with this number in the header.
    fn of_hub(&mut self, hub: usize, tag: u64, record: &impl Field) -> io::Result<()> {
        self.item(|item| {
            tagged::put(1, &(hub as u64), item);
            tagged::put(tag, record, item);
        })
    }
}

/// Histories that another process has written.
#[derive(Debug)]
pub struct Written {
    file: BufReader<File>,
    bytes_left: u64,
    hubs: Vec<HubRecord>,
}

impl Written {
    /// Reads which hubs there are.
    ///
    /// # Errors
    /// It cannot be read, or is of another version.
    pub fn open(file: &OwnedFd) -> io::Result<Written> {
        let mut file = File::from(file.try_clone()?);
        file.seek(SeekFrom::Start(0))?;
        let bytes_left = file.metadata()?.len();
        let mut written = Written { file: BufReader::with_capacity(1 << 18, file), bytes_left, hubs: Vec::new() };
        let mut begin = [0; MAGIC.len() + 4];
        written.file.read_exact(&mut begin)?;
        written.bytes_left = written.bytes_left.saturating_sub(begin.len() as u64);
        if begin[..MAGIC.len()] != MAGIC || begin[MAGIC.len()..] != FORMAT.to_le_bytes() {
            return Err(io::Error::other("it is written in a format of another version"));
        }
        let header = written.next()?;
        let header = Header::read(&header).map_err(|Damaged(why)| io::Error::other(why))?;
        written.hubs = header.hubs;
        Ok(written)
    }

    /// The hubs.
    pub fn hubs(&self) -> &[HubRecord] {
        &self.hubs
    }

    /// Reads everything: the history and the keys of each hub, in the order of [`Written::hubs`]. A history that is `None` is skipped.
    ///
    /// # Errors
    /// The file is damaged. What was read before is kept.
    pub fn read_into(mut self, hubs: &mut [(Option<History>, Vec<KnownKey>)]) -> io::Result<()> {
        for (hub, (history, _)) in self.hubs.iter().zip(hubs.iter_mut()) {
            if let Some(history) = history {
                history.restore_forgotten(hub.forgotten);
            }
        }
        while self.bytes_left > 0 {
            let item = self.next()?;
            restore(&item, hubs).map_err(|Damaged(why)| io::Error::other(why))?;
        }
        Ok(())
    }

    fn next(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; LENGTH_BYTES];
        self.file.read_exact(&mut length)?;
        self.bytes_left = self.bytes_left.saturating_sub(LENGTH_BYTES as u64);
        let length = u32::from_le_bytes(length) as usize;
        if length as u64 > self.bytes_left || length > ITEM_BYTES_MAX {
            return Err(io::Error::other("an item is longer than the rest of the file"));
        }
        let mut item = vec![0; length];
        self.file.read_exact(&mut item)?;
        self.bytes_left -= length as u64;
        Ok(item)
    }
}

/// Restores one item. One of an unknown kind is skipped.
fn restore(item: &[u8], hubs: &mut [(Option<History>, Vec<KnownKey>)]) -> Result<(), Damaged> {
    let (mut fields, mut hub) = (Fields(item), 0);
    while let Some((tag, value)) = fields.tagged()? {
        if tag == 1 {
            hub = u64::read(value)? as usize;
            continue;
        }
        let Some((history, keys)) = hubs.get_mut(hub) else { continue };
        match (tag, history) {
            (2, Some(history)) => {
                let MessageRecord { channel, offset, at, is_binary, payload } = Field::read(value)?;
                if channel.len() > CHANNEL_BYTES_MAX || offset == 0 || offset > history.position().offset {
                    return Err(Damaged("a message of a history has no place in it"));
                }
                let kind = if is_binary { Kind::Binary } else { Kind::Text };
                history.restore(Kept { offset, channel, kind, payload }, at);
            }
            (3, Some(history)) => {
                let DropRecord { channel, offset } = Field::read(value)?;
                history.restore_drop(channel, offset);
            }
            (4, _) => {
                let KeyRecord { channel, key, subscribers, offset, at, epoch } = Field::read(value)?;
                let position = (offset > 0).then_some(Position { epoch: Epoch(epoch), offset });
                let outcome = Outcome { subscribers, position, is_refused: false };
                keys.push(KnownKey { channel: channel.into(), key: key.into(), outcome, at });
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::HubId;
    use crate::hub::history::{Found, HistoryLimits, Memory, PageLimits};
    use crate::hub::{Message, Receipt, Selector, Since};

    const ALL: PageLimits = PageLimits { messages: usize::MAX, bytes: usize::MAX };

    fn empty(position: Position) -> History {
        let limits = HistoryLimits { messages: 3, bytes: usize::MAX, age: None };
        History::new(position, limits, false, Memory::default())
    }

    fn some() -> (History, Keys) {
        let (mut history, mut keys) = (empty(Position { epoch: Epoch(5), offset: 0 }), Keys::default());
        for n in 0..20u8 {
            let message = Message::new(HubId(0), format!("c{}", n % 3).into(), Kind::Binary, vec![n; n.into()].into());
            let receipt = Receipt::new(|_| ()).with_key(Some(format!("k{n}").into()));
            let mut message = keys.admit(message.with_receipt(receipt), 7, |_| false).unwrap();
            let position = history.append(&message, 7);
            message.receipt.as_mut().unwrap().set_position(position);
        }
        (history, keys)
    }

    fn read(file: &OwnedFd) -> io::Result<Vec<(Option<History>, Vec<KnownKey>)>> {
        let written = Written::open(file)?;
        let history = |hub: &HubRecord| (!hub.has_only_keys).then(|| empty(hub.position()));
        let mut hubs: Vec<_> = written.hubs().iter().map(|hub| (history(hub), Vec::new())).collect();
        written.read_into(&mut hubs)?;
        Ok(hubs)
    }

    #[test]
    fn histories_are_read_as_they_were_written() {
        let (mut history, keys) = some();
        let other = empty(Position { epoch: Epoch(9), offset: 77 });
        let all = [("news", Some(&history), Some(&keys)), ("other", Some(&other), None), ("keys", None, Some(&keys))];
        let file = write(all.into_iter()).unwrap();
        let known: Vec<_> = keys.known().collect();
        // A start that fails leaves it to the next one.
        for _ in 0..2 {
            let mut hubs = read(&file).unwrap();
            let mut again = hubs[0].0.take().unwrap();
            assert_eq!(again.position(), history.position());
            assert_eq!(known.len(), 20);
            assert_eq!((&hubs[0].1, &hubs[1].1, &hubs[2].1), (&known, &Vec::new(), &known));
            assert!(hubs[2].0.is_none());
            for since in [Since::Earliest, Since::After(Position { epoch: Epoch(5), offset: 3 })] {
                let selectors = [Selector::pattern("*")];
                let [before, after] = [&mut history, &mut again].map(|one| one.page(&selectors, since, ALL, 7));
                assert!(matches!(&before, Found::Here { page, .. } if page.messages.len() == 9));
                assert_eq!(before, after);
            }
            assert_eq!(hubs[1].0.as_ref().unwrap().position(), other.position());
        }
    }

    proptest! {
        #[test]
        fn a_damaged_file_is_an_error_or_a_history(at: prop::sample::Index, bits: u8, cut: prop::sample::Index) {
            let (history, keys) = some();
            let whole = write([("news", Some(&history), Some(&keys))].into_iter()).unwrap();
            let mut bytes = Vec::new();
            let mut whole = File::from(whole);
            whole.seek(SeekFrom::Start(0)).unwrap();
            whole.read_to_end(&mut bytes).unwrap();
            let index = at.index(bytes.len());
            bytes[index] ^= bits;
            for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
                let mut file = File::from(memfd_create("left", MFdFlags::MFD_CLOEXEC).unwrap());
                file.write_all(bytes).unwrap();
                std::hint::black_box(read(&file.into()).is_ok());
            }
        }
    }
}
