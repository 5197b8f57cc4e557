//! The store after a power cut: what was acknowledged is there, whatever the disk had written by then.
//!
//! Each seed runs a store on a simulated disk, which cuts the power at any of its writes: while the store is opened, writes, moves its
//! log or is closed. With `sync = "always"` nothing that was acknowledged may be missing, and nothing may be called damaged. With
//! another interval the last publications may be missing; then either all before them are there, or damage is reported. Never is a
//! position given again. `PUSHD_SEED=N` runs one seed.

#![allow(unsafe_code, reason = "SQLite knows a disk only as a VFS, which is an interface of C")]

#[path = "power_cut/disk.rs"]
mod disk;
#[path = "simulation/random.rs"]
#[allow(dead_code, reason = "the simulation needs more of it")]
mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use pushd::config::Sync;
use pushd::hub::{Kind, Selector};
use pushd::store::{Entry, Hold, Limits, PageQuery, Store, StoredHub};
use random::Random;

const CHANNELS: [&str; 3] = ["a", "b", "c"];
const SEEDS: u64 = 100;

/// What is known of the publications so far.
#[derive(Debug, Default, Clone)]
struct Known {
    /// The numbering.
    epoch: u64,
    /// The last offset that was given.
    given: u64,
    /// The offsets of those that were acknowledged.
    acknowledged: BTreeSet<u64>,
}

struct Acknowledge(u64, Arc<Mutex<Known>>, mpsc::Sender<()>);

impl Hold for Acknowledge {
    fn written(self: Box<Self>) {
        self.1.lock().unwrap().acknowledged.insert(self.0);
        // The test may have ended.
        let _ = self.2.send(());
    }
}

fn payload(offset: u64) -> Vec<u8> {
    format!("message {offset} ").repeat(1 + offset as usize * 7 % 300).into_bytes()
}

fn channel_of(offset: u64) -> &'static str {
    CHANNELS[offset as usize % CHANNELS.len()]
}

/// The messages of a hub, by their offset.
fn stored(store: &Store, hub: &StoredHub) -> BTreeMap<u64, Vec<u8>> {
    let channels: Arc<[Selector]> = CHANNELS.iter().map(|name| Selector::name(*name)).collect();
    let (mut messages, mut since, until) = (BTreeMap::new(), 0, hub.written());
    while since < until {
        let (answer, answered) = mpsc::channel();
        let (hub, held) = (hub.clone(), channels.clone());
        let query = PageQuery { hub, channels: held, since, until, messages: 500, bytes: 1 << 20 };
        store.page(query, Box::new(move |page| answer.send(page).unwrap()));
        let page = answered.recv_timeout(Duration::from_secs(20)).unwrap();
        since = page.next;
        for message in page.messages {
            assert_eq!(&*message.channel, channel_of(message.offset));
            assert!(messages.insert(message.offset, message.payload.to_vec()).is_none());
        }
    }
    messages
}

/// Opens a store, publishes and closes it, again and again, until the power is cut.
fn run(directory: &Path, sync: Sync, random: &mut Random, known: &Arc<Mutex<Known>>) {
    while !disk::is_cut() {
        let (store, warnings) = Store::open(directory, sync).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        let hub = store.hub("news", Limits::default()).unwrap();
        let ((told, tells), mut waiting) = (mpsc::channel(), 0);
        for offset in hub.next..hub.next + random.below(300) as u64 {
            (known.lock().unwrap().epoch, known.lock().unwrap().given) = (hub.epoch, offset);
            let hold = Box::new(Acknowledge(offset, known.clone(), told.clone()));
            let (channel, payload) = (channel_of(offset).into(), payload(offset).into());
            store
                .append(&hub.id, Entry { offset, channel, kind: Kind::Text, payload, key: None, progress: None, hold });
            waiting += 1;
            while waiting > random.below(60) {
                tells.recv().unwrap();
                waiting -= 1;
            }
        }
        store.close();
    }
}

/// Returns how many publications were acknowledged.
fn check(seed: u64) -> usize {
    let mut random = Random::new(seed);
    let sync = if random.once_in(2) { Sync::Always } else { Sync::Every(Duration::from_millis(1)) };
    let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Store::open(before.path(), sync).unwrap().0.close();
    let (known, at_cut) = (Arc::<Mutex<Known>>::default(), Arc::<Mutex<Known>>::default());
    let witness = {
        let (known, at_cut) = (known.clone(), at_cut.clone());
        move || at_cut.lock().unwrap().clone_from(&known.lock().unwrap())
    };
    disk::watch(before.path(), random.below(1000), Random::new(!seed), witness);
    run(before.path(), sync, &mut random, &known);
    for (name, bytes) in disk::after_cut() {
        std::fs::write(after.path().join(name), bytes).unwrap();
    }
    let (store, warnings) = Store::open(after.path(), sync).unwrap();
    let hub = store.hub("news", Limits::default()).unwrap();
    let messages = stored(&store, &hub.id);
    for (offset, text) in &messages {
        assert_eq!(*text, payload(*offset), "offset {offset}");
    }
    let Known { epoch, given, acknowledged } = at_cut.lock().unwrap().clone();
    let missing: Vec<_> = acknowledged.iter().filter(|offset| !messages.contains_key(offset)).collect();
    if sync == Sync::Always {
        assert_eq!(warnings, Vec::<String>::new());
        assert!(missing.is_empty(), "{missing:?} were acknowledged");
    }
    if warnings.is_empty() {
        let end = messages.keys().max().copied().unwrap_or(0);
        assert!(missing.iter().all(|offset| **offset > end), "{missing:?} are missing, all before {end}");
        assert!(given == 0 || hub.epoch == epoch, "another epoch without any damage");
    }
    if hub.epoch == epoch {
        assert!(hub.next > given, "{} comes again", hub.next);
    }
    acknowledged.len()
}

#[test]
fn what_was_acknowledged_is_there_after_a_power_cut() {
    if let Ok(seed) = std::env::var("PUSHD_SEED") {
        check(seed.parse().unwrap());
        return;
    }
    let mut acknowledged = 0;
    for seed in 0..SEEDS {
        let checked = std::panic::catch_unwind(|| check(seed));
        acknowledged += checked.unwrap_or_else(|_| panic!("PUSHD_SEED={seed} fails"));
    }
    assert!(acknowledged > 1000, "hardly anything was acknowledged: {acknowledged}");
}
