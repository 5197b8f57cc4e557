//! The files of a store, of which any bytes are replaced or cut off. Nothing panics, the store starts, every message that it gives back
//! is one that was written, on its channel, once and in order, and numbering goes on above all of them.

#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, mpsc};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use pushd::config::Sync;
use pushd::hub::{Kind, Selector};
use pushd::store::{Entry, Hold, Limits, PageQuery, Store, StoredHub};
use tempfile::TempDir;

const CHANNELS: [&str; 2] = ["odd", "even"];
const PUBLISHED: u64 = 60;
/// A change is a byte that says what, four that say where, and the new byte.
const CHANGE_BYTES: usize = 6;

struct Told(mpsc::Sender<()>);

impl Hold for Told {
    fn written(self: Box<Self>) {
        let _ = self.0.send(());
    }
}

fn text(offset: u64) -> Vec<u8> {
    format!("message {offset} ").repeat(1 + offset as usize * 5 % 60).into_bytes()
}

fn channel(offset: u64) -> &'static str {
    CHANNELS[offset as usize % CHANNELS.len()]
}

/// The files of a store that was killed: a part of the messages is in the database, the rest in the log.
static FILES: LazyLock<BTreeMap<PathBuf, Vec<u8>>> = LazyLock::new(|| {
    let directory = TempDir::new().unwrap();
    let publish = |count: u64| {
        let (store, _) = Store::open(directory.path(), Sync::Always).unwrap();
        let hub = store.hub("news", Limits::default()).unwrap();
        let (told, tells) = mpsc::channel();
        for offset in hub.next..hub.next + count {
            let (payload, hold) = (text(offset).into(), Box::new(Told(told.clone())));
            let entry = Entry { offset, channel: channel(offset).into(), kind: Kind::Text, payload, key: None, progress: None, hold };
            store.append(&hub.id, entry);
            tells.recv().unwrap();
        }
        store
    };
    publish(PUBLISHED / 2).close();
    let store = publish(PUBLISHED / 2);
    let files = fs::read_dir(directory.path()).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().into(), fs::read(path).unwrap())
    });
    let files = files.collect();
    store.close();
    files
});

fn stored(store: &Store, hub: &StoredHub) -> Vec<(u64, String, Vec<u8>)> {
    let channels: Arc<[Selector]> = CHANNELS.map(Selector::name).into();
    let (mut messages, mut since, until) = (Vec::new(), 0, hub.written());
    while since < until {
        let (answer, answered) = mpsc::channel();
        let (hub, held) = (hub.clone(), channels.clone());
        let query = PageQuery { hub, channels: held, since, until, messages: 50, bytes: 1 << 20 };
        store.page(query, Box::new(move |page| answer.send(page).unwrap()));
        let page = answered.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(page.next > since, "a page goes on");
        since = page.next;
        messages.extend(page.messages.into_iter().map(|m| (m.offset, m.channel.to_string(), m.payload.to_vec())));
    }
    messages
}

fuzz_target!(|changes: &[u8]| {
    let mut files = FILES.clone();
    for change in changes.chunks_exact(CHANGE_BYTES).take(64) {
        let number = usize::from(change[0] & 0x7f) % files.len();
        let at = u32::from_le_bytes([change[1], change[2], change[3], change[4]]) as usize;
        let Some(bytes) = files.values_mut().nth(number).filter(|bytes| !bytes.is_empty()) else { continue };
        let at = at % bytes.len();
        match change[0] & 0x80 {
            0 => bytes[at] = change[5],
            _ => bytes.truncate(at),
        }
    }
    // Syncing takes no time in memory.
    let directory = TempDir::new_in("/dev/shm").unwrap();
    for (name, bytes) in &files {
        fs::write(directory.path().join(name), bytes).unwrap();
    }
    // A newer format is refused: its number is no damage.
    let Ok((store, _)) = Store::open(directory.path(), Sync::Every(Duration::from_secs(1))) else { return };
    let hub = store.hub("news", Limits::default()).unwrap();
    let mut last = 0;
    for (offset, name, payload) in stored(&store, &hub.id) {
        assert!(offset > last && offset < hub.next, "{offset} after {last}, before {}", hub.next);
        assert_eq!((name.as_str(), payload), (channel(offset), text(offset)), "offset {offset}");
        last = offset;
    }
    store.close();
});
