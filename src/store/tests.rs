//! The store as its users see it: what is written is there after it is opened again, within the limits and in order, also out of
//! damaged files.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::sync::atomic::AtomicI64;
use std::sync::mpsc::{Receiver, Sender, channel};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::config::limits::{STORE_BATCH_MAX, STORE_OFFSETS_RESERVED};
use crate::hub::Selector;

/// Reports what becomes of a publication.
struct Told(Sender<bool>, bool);

impl Hold for Told {
    fn written(mut self: Box<Self>) {
        self.1 = true;
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        // The test may have ended.
        let _ = self.0.send(self.1);
    }
}

/// A store in a directory of its own, with a clock that only the test moves.
struct Disk {
    dir: TempDir,
    clock: Arc<AtomicI64>,
}

struct Open {
    store: Store,
    warnings: Vec<String>,
    told: (Sender<bool>, Receiver<bool>),
}

const SOME: Limits = Limits { messages: Some(100), bytes: None, age: None };

impl Disk {
    fn new() -> Disk {
        Disk { dir: tempfile::tempdir().unwrap(), clock: Arc::new(AtomicI64::new(1_000_000)) }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("store")
    }

    fn database(&self) -> std::path::PathBuf {
        self.path().join("history.db")
    }

    fn try_open(&self, sync: Sync) -> Result<Open, OpenError> {
        let clock = self.clock.clone();
        let clock: Clock = Arc::new(move || clock.load(Ordering::Relaxed));
        let (store, warnings) = Store::open_with(&self.path(), sync, clock)?;
        Ok(Open { store, warnings, told: channel() })
    }

    fn open(&self) -> Open {
        self.try_open(Sync::Every(Duration::from_millis(100))).unwrap()
    }

    fn pass(&self, seconds: i64) {
        self.clock.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Changes the database beside the store, as another program would.
    fn beside(&self, sql: &str) -> rusqlite::Connection {
        let db = rusqlite::Connection::open(self.database()).unwrap();
        db.execute_batch(sql).unwrap();
        db
    }

    fn bytes(&self) -> u64 {
        fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    }
}

impl Open {
    fn queue(&self, hub: &StoredHub, offset: u64, channel: &str, payload: &[u8], key: Option<&str>) {
        let payload = Bytes::copy_from_slice(payload);
        let (channel, key, hold) = (channel.into(), key.map(Into::into), Box::new(self.hold()));
        self.store.append(hub, Entry { offset, channel, kind: Kind::Binary, payload, key, progress: None, hold });
    }

    /// Queues a message of a feed with its mark.
    fn queue_marked(&self, hub: &StoredHub, offset: u64, feed: &str, mark: &[u8]) {
        let (progress, hold) = (Some(progress(feed, mark)), Box::new(self.hold()));
        let (channel, payload) = ("a".into(), Bytes::copy_from_slice(mark));
        self.store.append(hub, Entry { offset, channel, kind: Kind::Text, payload, key: None, progress, hold });
    }

    fn hold(&self) -> Told {
        Told(self.told.0.clone(), false)
    }

    /// The marks that a hub has when it begins.
    fn marks(&self, hub: &str) -> Vec<Progress> {
        self.store.hub(hub, Limits::default()).unwrap().marks
    }

    /// Whether the next publication was written.
    fn was_written(&self) -> bool {
        self.told.1.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    fn write(&self, hub: &StoredHub, offset: u64, channel: &str, payload: &[u8]) {
        self.queue(hub, offset, channel, payload, None);
        assert!(self.was_written());
    }

    fn fill(&self, hub: &HubState, channels: &[&str], count: u64, payload: impl Fn(u64) -> Vec<u8>) {
        for number in 0..count {
            let channel = channels[number as usize % channels.len()];
            self.queue(&hub.id, hub.next + number, channel, &payload(number), None);
        }
        (0..count).for_each(|_| assert!(self.was_written()));
    }

    fn page(&self, query: PageQuery) -> StoredPage {
        let (answer, answered) = channel();
        // Who waits for a page holds its selectors.
        let _asking = query.channels.clone();
        self.store.page(query, Box::new(move |page| drop(answer.send(page))));
        answered.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    /// Everything after `since`, in pages of a few messages.
    fn all(&self, hub: &StoredHub, channels: &[Selector], since: u64) -> StoredPage {
        let mut query = PageQuery {
            hub: hub.clone(),
            channels: channels.into(),
            since,
            until: hub.written(),
            messages: 7,
            bytes: 1 << 20,
        };
        let mut all = StoredPage::default();
        while query.since < query.until {
            let page = self.page(query.clone());
            assert!(page.next > query.since && page.next <= query.until, "{page:?}");
            all.messages.extend(page.messages);
            let known: Vec<_> = all.gone.clone();
            all.gone.extend(page.gone.into_iter().filter(|name| !known.contains(name)));
            query.since = page.next;
        }
        all
    }

    fn offsets(&self, hub: &StoredHub, channels: &[Selector], since: u64) -> Vec<u64> {
        self.all(hub, channels, since).messages.iter().map(|message| message.offset).collect()
    }
}

/// Waits for a condition, with a deadline.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5)); // Up to the deadline.
    }
}

fn name(name: &str) -> Selector {
    Selector::name(name)
}

fn payloads(number: u64) -> Vec<u8> {
    format!("payload {number} ").repeat(10).into_bytes()
}

#[test]
fn what_is_written_is_there_after_it_is_opened_again() {
    for sync in [Sync::Always, Sync::Every(Duration::from_millis(10))] {
        let disk = Disk::new();
        let open = disk.try_open(sync).unwrap();
        let hub = open.store.hub("news", SOME).unwrap();
        assert_eq!((hub.next, hub.id.written()), (1, 0));
        open.fill(&hub, &["a", "b"], 10, payloads);
        assert_eq!(hub.id.written(), 10);
        open.store.close();
        let again = disk.try_open(sync).unwrap();
        assert_eq!(again.warnings, Vec::<String>::new());
        let found = again.store.hub("news", SOME).unwrap();
        assert_eq!(found.epoch, hub.epoch);
        assert!(found.next > 10, "{found:?}");
        let page = again.all(&found.id, &[name("a")], 0);
        assert_eq!(page.messages.iter().map(|message| message.offset).collect::<Vec<_>>(), [1, 3, 5, 7, 9]);
        assert_eq!(page.messages[1].payload, payloads(2));
        assert_eq!(page.messages[1].time, 1_000_000);
        assert_eq!(again.offsets(&found.id, &[name("a"), name("b")], 4), [5, 6, 7, 8, 9, 10]);
    }
}

#[test]
fn offsets_are_never_given_twice() {
    let disk = Disk::new();
    let mut given = 0;
    for _ in 0..3 {
        let open = disk.open();
        let hub = open.store.hub("news", SOME).unwrap();
        assert!(hub.next > given);
        // Given, but never written.
        given = hub.next + 1000;
        open.store.close();
    }
}

#[test]
fn a_store_has_one_process() {
    let disk = Disk::new();
    let open = disk.open();
    let error = disk.try_open(Sync::Always).err().unwrap();
    assert_eq!(error.kind, io::ErrorKind::ResourceBusy);
    open.store.close();
    drop(disk.open());
    let _last = disk.open();
}

#[test]
fn who_looks_at_a_store_holds_up_nothing() {
    let disk = Disk::new();
    let open = disk.open();
    let hub = open.store.hub("news", SOME).unwrap();
    open.fill(&hub, &["a"], 10, payloads);
    let inspection = Inspection::open(&disk.path()).unwrap();
    let empty_log = || {
        let row = |row: &rusqlite::Row| row.get::<_, i64>(0);
        assert_eq!(disk.beside("").query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], row), Ok(0));
        Ok(())
    };
    assert_eq!(inspection.export("news", "a", |_| empty_log()).unwrap(), Some(10));
    open.store.close();
    assert!(inspection.is_in_use());
    let inspection = Inspection::open(&disk.path()).unwrap();
    assert!(!inspection.is_in_use());
    let open = disk.open();
    open.store.hub("news", SOME).unwrap();
    assert_eq!(inspection.export("news", "a", |_| Ok(())).unwrap(), Some(10));
}

#[test]
fn only_its_owner_can_read_it() {
    let disk = Disk::new();
    let open = disk.open();
    let hub = open.store.hub("news", SOME).unwrap();
    open.write(&hub.id, 1, "a", b"x");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&disk.path()), 0o700);
    let mut names = Vec::new();
    for entry in fs::read_dir(disk.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(mode(&entry.path()), 0o600, "{entry:?}");
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["history.db", "history.db-shm", "history.db-wal", "lock"]);
}

#[test]
fn a_hub_that_cannot_begin_does_not_stop_the_others() {
    let disk = Disk::new();
    let open = disk.open();
    let hub = open.store.hub("news", SOME).unwrap();
    let busy = disk.beside("BEGIN IMMEDIATE");
    assert!(open.store.hub("chat", SOME).is_err());
    drop(busy);
    assert!(open.store.accepts());
    open.write(&hub.id, 1, "a", b"goes on");
    assert_eq!(open.store.hub("chat", SOME).unwrap().next, 1);
}

#[test]
fn what_is_reserved_by_a_transaction_that_fails_is_reserved_by_the_next_one() {
    let disk = Disk::new();
    let open = disk.open();
    let hub = open.store.hub("news", SOME).unwrap().id;
    // It needs a reservation, which is undone.
    let fails = "CREATE TRIGGER fails BEFORE INSERT ON hub_names BEGIN SELECT RAISE(ABORT, 'fails'); END";
    let db = disk.beside(fails);
    let offset = 600_000;
    open.queue(&hub, offset, "a", b"x", None);
    assert!(!open.was_written());
    db.execute_batch("DROP TRIGGER fails").unwrap();
    eventually("it is written", || hub.written() == offset);
    let next = snapshot(&disk).open().store.hub("news", SOME).unwrap().next;
    assert!(next > offset + STORE_OFFSETS_RESERVED, "{next}");
}

#[test]
fn who_waits_for_a_key_does_not_wait_for_a_disk_that_fails() {
    let disk = Disk::new();
    let open = disk.open();
    let hub = open.store.hub("news", SOME).unwrap().id;
    open.queue(&hub, 1, "a", b"x", Some("k"));
    assert!(open.was_written());
    let fails = "CREATE TRIGGER fails BEFORE INSERT ON keys BEGIN SELECT RAISE(ABORT, 'fails'); END";
    let db = disk.beside(fails);
    let (done, is_done) = channel();
    open.store.complete_key(&hub, "a".into(), "k".into(), 7, Box::new(move || done.send(()).unwrap()));
    is_done.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(!open.store.accepts());
    db.execute_batch("DROP TRIGGER fails").unwrap();
    eventually("it is written", || open.store.accepts());
    assert_eq!(open.store.hub("news", SOME).unwrap().keys[0].subscribers, 7);
}

#[test]
fn a_message_that_cannot_be_written_is_refused() {
    let disk = Disk::new();
    let open = disk.open();
    let hub = open.store.hub("news", SOME).unwrap().id;
    open.write(&hub, 1, "a", b"first");
    open.queue(&hub, 1, "a", b"other", None);
    assert!(!open.was_written());
    open.write(&hub, 1, "a", b"first");
    open.queue(&StoredHub { number: 7, ..hub.clone() }, 2, "a", b"x", None);
    assert!(!open.was_written());
    open.write(&hub, 2, "a", b"second");
    assert_eq!(open.offsets(&hub, &[name("a")], 0), [1, 2]);
}

#[test]
fn a_writer_that_panics_acknowledges_nothing_and_is_noticed() {
    let disk = Disk::new();
    let time = disk.clock.clone();
    let clock: Clock = Arc::new(move || match time.load(Ordering::Relaxed) {
        0 => panic!("a fault of the writer"),
        now => now,
    });
    let (store, _) = Store::open_with(&disk.path(), Sync::Always, clock).unwrap();
    let open = Open { store, warnings: Vec::new(), told: channel() };
    let hub = open.store.hub("news", SOME).unwrap().id;
    open.write(&hub, 1, "a", b"x");
    assert!(open.store.runs());
    disk.clock.store(0, Ordering::Relaxed);
    open.queue(&hub, 2, "a", b"y", None);
    assert!(!open.was_written());
    eventually("the writer is missed", || !open.store.runs());
    assert!(!open.store.accepts() && open.store.hub("chat", SOME).is_err());
    open.queue(&hub, 3, "a", b"z", None);
    assert!(!open.was_written());
}

#[test]
fn a_newer_format_is_refused() {
    let disk = Disk::new();
    disk.open().store.close();
    let file = OpenOptions::new().write(true).open(disk.database()).unwrap();
    file.write_all_at(&2u32.to_be_bytes(), 60).unwrap();
    let error = disk.try_open(Sync::Always).err().unwrap();
    assert_eq!(error.kind, io::ErrorKind::Unsupported);
    assert!(error.message.contains("has format 2, this version knows only up to 1"), "{error}");
}

#[test]
fn keys_come_back_with_what_was_told() {
    let disk = Disk::new();
    let open = disk.open();
    let hub = open.store.hub("news", SOME).unwrap();
    open.queue(&hub.id, 1, "a", b"x", Some("k1"));
    open.queue(&hub.id, 2, "a", b"x", Some("k2"));
    assert!(open.was_written() && open.was_written());
    let (done, is_done) = channel();
    open.store.complete_key(&hub.id, "a".into(), "k2".into(), 7, Box::new(move || done.send(()).unwrap()));
    is_done.recv_timeout(Duration::from_secs(20)).unwrap();
    open.store.close();
    disk.pass(100);
    let key = |key: &str, offset, subscribers| StoredKey {
        channel: "a".into(),
        key: key.into(),
        offset,
        subscribers,
        age: Duration::from_secs(100),
    };
    assert_eq!(disk.open().store.hub("news", SOME).unwrap().keys, [key("k1", 1, 0), key("k2", 2, 7)]);
    disk.pass(201);
    assert_eq!(disk.open().store.hub("news", SOME).unwrap().keys, []);
}

#[test]
fn messages_beyond_a_limit_are_gone_and_a_gap_is_exact() {
    let disk = Disk::new();
    let open = disk.open();
    let hub = open.store.hub("news", Limits { messages: Some(3), ..Limits::default() }).unwrap();
    open.fill(&hub, &["a", "a", "b"], 12, payloads);
    let all = [name("a"), name("b")];
    assert_eq!(open.offsets(&hub.id, &all, 0), [6, 8, 9, 10, 11, 12]);
    // Of `a` 1, 2, 4, 5 and 7 are gone, of `b` 3.
    let gone = |since| open.all(&hub.id, &all, since).gone.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(gone(2), ["a", "b"]);
    assert_eq!(gone(3), ["a"]);
    assert_eq!(gone(6), ["a"]);
    assert_eq!(gone(7), Vec::<String>::new());
    let pattern = [Selector::pattern("*")];
    assert_eq!(open.offsets(&hub.id, &pattern, 8), [9, 10, 11, 12]);
    assert_eq!(open.all(&hub.id, &pattern, 6).gone, ["a".into()]);
    // Smaller limits count at once, before anything is deleted.
    open.store.set_limits(&hub.id, Limits { bytes: Some(2 * payloads(10).len() as u64), ..Limits::default() });
    eventually("the limit of bytes counts", || open.offsets(&hub.id, &all, 0) == [9, 10, 11, 12]);
    assert_eq!(gone(5), ["a", "b"]);
    assert_eq!(gone(6), ["a"]);
}

#[test]
fn old_messages_are_deleted_while_nothing_can_be_written() {
    let disk = Disk::new();
    let open = disk.open();
    let limits = Limits { age: Some(Duration::from_secs(60)), ..Limits::default() };
    let hub = open.store.hub("news", limits).unwrap();
    open.fill(&hub, &["a"], 10, payloads);
    let db = disk.beside("CREATE TRIGGER fails BEFORE INSERT ON messages BEGIN SELECT RAISE(ABORT, 'fails'); END");
    open.queue(&hub.id, 11, "a", b"x", None);
    assert!(!open.was_written());
    disk.pass(60);
    let count = || db.query_row("SELECT count(*) FROM messages", [], |row| row.get::<_, i64>(0)).unwrap();
    eventually("they are deleted", || count() == 0);
    assert!(!open.store.accepts());
    db.execute_batch("DROP TRIGGER fails").unwrap();
    eventually("it is written", || open.store.accepts());
    assert_eq!(open.offsets(&hub.id, &[name("a")], 0), [11]);
}

#[test]
fn a_transaction_deletes_a_bounded_part_of_what_is_beyond_smaller_limits() {
    let disk = Disk::new();
    let open = disk.open();
    let hub = open.store.hub("news", Limits::default()).unwrap();
    (0..2).for_each(|part| {
        let hub = HubState { next: 1 + part * 10_000, ..hub_state(&hub) };
        open.fill(&hub, &["a", "b"], 10_000, |_| vec![7]);
    });
    open.store.close();
    let db = disk.beside("");
    let count = || db.query_row("SELECT count(*) FROM messages", [], |row| row.get::<_, i64>(0)).unwrap();
    let mut state = append::State { is_stale: true, ..append::State::default() };
    let limits = Limits { messages: Some(10), ..Limits::default() };
    let limit = [Command::Limits { hub: 1, limits }];
    append::transaction(&db, || {
        state.refresh(&db)?;
        state.write(&db, &limit, 0)
    })
    .unwrap();
    let (mut left, mut is_more) = (count(), true);
    while is_more {
        state.publish_written();
        // What is left to do is not forgotten with a transaction that fails.
        let fails: rusqlite::Result<()> = append::transaction(&db, || {
            state.expire(&db, 0)?;
            Err(rusqlite::Error::InvalidQuery)
        });
        assert!(fails.is_err());
        state.forget_all();
        is_more = append::transaction(&db, || {
            state.refresh(&db)?;
            state.expire(&db, 0)
        })
        .unwrap();
        assert!(left - count() <= STORE_BATCH_MAX as i64, "{left} {}", count());
        left = count();
    }
    assert_eq!(left, 20);
    drop(db);
    assert_eq!(verify::complete(&disk.beside("")).unwrap(), verify::Findings::default());
}

#[test]
fn old_messages_are_gone_and_their_space_is_given_back() {
    let disk = Disk::new();
    let open = disk.open();
    let limits = Limits { age: Some(Duration::from_secs(60)), ..Limits::default() };
    let hub = open.store.hub("news", limits).unwrap();
    open.fill(&hub, &["a", "b", "c"], 3000, |number| format!("secret {number} ").repeat(60).into_bytes());
    eventually("the log is in the database", || disk.database().metadata().unwrap().len() > 2_000_000);
    disk.pass(59);
    open.write(&hub.id, 3001, "a", b"young");
    assert_eq!(open.offsets(&hub.id, &[name("a")], 0).len(), 1001);
    disk.pass(1);
    assert_eq!(open.offsets(&hub.id, &[name("a")], 0), [3001]);
    assert_eq!(open.all(&hub.id, &[name("a"), name("b")], 2998).gone, ["b".into()]);
    eventually("the space is given back", || disk.bytes() < 200_000);
    open.store.close();
    let bytes = fs::read(disk.database()).unwrap();
    assert!(bytes.windows(7).any(|window| window == b"\x05young".as_slice() || window.ends_with(b"young")));
    assert!(!bytes.windows(7).any(|window| window == b"secret "));
    // The channels that hold nothing know up to where.
    let open = disk.open();
    let hub = open.store.hub("news", limits).unwrap();
    assert_eq!(open.all(&hub.id, &[name("b"), name("c")], 2998).gone, ["b".into(), "c".into()]);
    assert_eq!(open.all(&hub.id, &[name("b"), name("c")], 3000).gone, Vec::<Arc<str>>::new());
}

#[test]
fn a_wrong_clock_does_not_stop_expiry() {
    let disk = Disk::new();
    let open = disk.open();
    let limits = Limits { age: Some(Duration::from_secs(60)), ..Limits::default() };
    let hub = open.store.hub("news", limits).unwrap();
    let count = || {
        let row = |row: &rusqlite::Row| row.get::<_, i64>(0);
        disk.beside("").query_row("SELECT count(*) FROM messages", [], row).unwrap()
    };
    // More than one step has. Then the clock is right again.
    disk.pass(1_000_000);
    open.fill(&hub, &["a"], 2500, payloads);
    disk.pass(-1_000_000);
    open.write(&hub.id, 2501, "b", b"right");
    disk.pass(59);
    open.write(&hub.id, 2502, "b", b"young");
    assert_eq!(count(), 2502);
    disk.pass(1);
    eventually("only the young one is left", || count() == 1);
    assert_eq!(open.offsets(&hub.id, &[name("a"), name("b")], 0), [2502]);
    // One that is imported has no time to come either.
    let hold = Box::new(Told(open.told.0.clone(), false));
    let entry = Entry {
        offset: 2503,
        channel: "a".into(),
        kind: Kind::Text,
        payload: Bytes::new(),
        key: None,
        progress: None,
        hold,
    };
    open.store.append_at(&hub.id, entry, Some(4_000_000_000));
    assert!(open.was_written());
    disk.pass(60);
    eventually("it is too old", || count() == 0);
}

#[test]
fn a_gap_of_many_channels_is_that_of_what_was_asked_for() {
    let disk = Disk::new();
    let open = disk.open();
    let limits = Limits { age: Some(Duration::from_secs(60)), ..Limits::default() };
    let hub = open.store.hub("news", limits).unwrap();
    // Too old, but not deleted yet.
    disk.beside("CREATE TRIGGER keeps BEFORE DELETE ON messages BEGIN SELECT RAISE(ABORT, 'fails'); END");
    let names: Vec<String> = (0..150).map(|number| format!("c/{number}")).collect();
    open.fill(&hub, &names.iter().map(String::as_str).collect::<Vec<_>>(), 150, payloads);
    disk.pass(60);
    let selectors: Vec<Selector> = names.iter().map(|name| Selector::name(name.as_str())).collect();
    let query = |channels: &[Selector]| PageQuery {
        hub: hub.id.clone(),
        channels: channels.into(),
        since: 0,
        until: 150,
        messages: 10,
        bytes: 1 << 20,
    };
    assert_eq!(open.page(query(&[Selector::pattern("c/*")])).gone, ["c/*".into()]);
    assert_eq!(open.page(query(&selectors)).gone.len(), 150);
    assert_eq!(open.page(query(&selectors[..100])).gone.len(), 100);
}

#[test]
fn a_pattern_of_many_channels_reads_the_hub_in_order() {
    let disk = Disk::new();
    let open = disk.open();
    let hub = open.store.hub("news", SOME).unwrap();
    let names: Vec<String> =
        (0..1500).map(|number| format!("{}/{number}", if number % 3 == 0 { "x" } else { "y" })).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    open.fill(&hub, &names, 6000, |number| number.to_le_bytes().to_vec());
    let of_x: Vec<u64> = (0..6000).filter(|number| number % 1500 % 3 == 0).map(|number| number + 1).collect();
    assert!(open.offsets(&hub.id, &[Selector::pattern("x/*")], 0) == of_x);
    assert!(open.offsets(&hub.id, &[Selector::pattern("**")], 5900) == (5901..=6000).collect::<Vec<_>>());
    assert_eq!(open.offsets(&hub.id, &[Selector::pattern("x/9")], 0), [10, 1510, 3010, 4510]);
}

fn progress(feed: &str, mark: &[u8]) -> Progress {
    Progress { feed: feed.into(), mark: mark.into() }
}

#[test]
fn a_mark_comes_back_with_the_last_message_of_its_feed() {
    let disk = Disk::new();
    let open = disk.open();
    let [news, other] = ["news", "other"].map(|hub| open.store.hub(hub, SOME).unwrap());
    assert_eq!(news.marks, []);
    // The first mark of a feed has no message.
    let (held, written) = channel::<()>();
    open.store.mark(&news.id, "idle", Some(b"begun".as_slice().into()), Some(Box::new(held)));
    assert!(written.recv().is_err(), "it is dropped");
    for n in 0..20 {
        open.queue_marked(&news.id, news.next + n, "log", format!("{n}").as_bytes());
        open.queue_marked(&other.id, other.next + n, "log", format!("other {n}").as_bytes());
    }
    (0..40).for_each(|_| assert!(open.was_written()));
    let copy = snapshot(&disk);
    assert_eq!(copy.open().marks("news"), [progress("idle", b"begun"), progress("log", b"19")]);
    open.store.mark(&news.id, "idle", None, None);
    open.store.close();
    assert_eq!(disk.open().marks("news"), [progress("log", b"19")]);
    assert_eq!(disk.open().marks("other"), [progress("log", b"other 19")]);
}

#[test]
fn a_store_of_an_earlier_version_gets_its_table_of_marks() {
    let disk = Disk::new();
    disk.open().store.close();
    let db = rusqlite::Connection::open(disk.database()).unwrap();
    db.execute_batch("DROP TABLE marks").unwrap();
    db.close().unwrap();
    let open = disk.open();
    assert_eq!((open.marks("news"), &open.warnings), (Vec::new(), &Vec::new()));
    let hub = open.store.hub("news", SOME).unwrap();
    open.queue_marked(&hub.id, hub.next, "log", b"one");
    assert!(open.was_written());
    open.store.close();
    assert_eq!(disk.open().marks("news"), [progress("log", b"one")]);
}

#[test]
fn a_mark_is_saved_out_of_a_damaged_store_if_it_is_whole() {
    let mark = |n: u64| format!("the mark {n:04} {}", "x".repeat(300)).into_bytes();
    let whole = Disk::new();
    let open = whole.open();
    let hub = open.store.hub("news", Limits::default()).unwrap();
    for n in 0..500 {
        open.queue_marked(&hub.id, hub.next + n, "log", &mark(n));
        // Many commits leave old copies of its page in the log.
        assert!(open.was_written());
    }
    let [headless, changed] = [snapshot(&whole), snapshot(&whole)];
    open.store.close();
    change(&headless.database(), 0, &[0x55; 100]);
    let open = headless.open();
    assert!(open.warnings[0].contains("were saved"), "{:?}", open.warnings);
    assert_eq!(open.marks("news"), [progress("log", &mark(499))], "the newest of all copies");
    open.store.close();
    assert_eq!(headless.open().marks("news"), [progress("log", &mark(499))]);
    // One byte of the mark, and nothing else.
    changed.open().store.close();
    let bytes = fs::read(changed.database()).unwrap();
    let last = mark(499);
    let places = (0..bytes.len() - last.len()).filter(|at| bytes[*at..].starts_with(&last));
    let places: Vec<_> = places.collect();
    assert_eq!(places.len(), 2, "the message and its mark");
    for at in places {
        change(&changed.database(), at as u64 + 20, b"y");
    }
    let open = changed.open();
    assert_eq!(open.marks("news"), [], "it is not believed");
    let hub = open.store.hub("news", Limits::default()).unwrap();
    open.queue_marked(&hub.id, hub.next, "log", b"again");
    assert!(open.was_written());
    assert_eq!(open.marks("news"), [progress("log", b"again")]);
}

/// A change of the files of a store that is not open.
type Harm = (&'static str, fn(&Path));

fn change(path: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

fn length(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}

fn cut(path: &Path, length: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

const HARMS: [Harm; 8] = [
    ("cut in the middle", |path| cut(path, length(path) / 2 + 100)),
    ("cut to nothing", |path| cut(path, 0)),
    ("the first page", |path| change(path, 0, &[0x55; 4096])),
    ("a page in the middle", |path| change(path, length(path) / 2 / 4096 * 4096, &[0x55; 4096])),
    ("a byte in the middle", |path| change(path, length(path) / 2, &[0x55])),
    ("a byte in each page", |path| (0..length(path) / 4096).for_each(|page| change(path, page * 4096 + 2000, &[0x55]))),
    ("the heads of pages", |path| {
        (3..length(path) / 4096).step_by(7).for_each(|page| change(path, page * 4096, &[0; 8]))
    }),
    ("removed", |path| fs::remove_file(path).unwrap()),
];

#[test]
fn damaged_files_give_back_what_is_whole() {
    for (what, harm) in HARMS {
        let disk = Disk::new();
        let open = disk.open();
        let hub = open.store.hub("news", Limits::default()).unwrap();
        open.fill(&hub, &["a", "b/c"], 1000, payloads);
        open.store.close();
        let bytes = length(&disk.database());
        harm(&disk.database());
        let open = disk.open();
        let found = open.store.hub("news", Limits::default()).unwrap();
        let page = open.all(&found.id, &[name("a"), name("b/c")], 0);
        println!("{what}: {} of 1000; {:?}", page.messages.len(), open.warnings);
        for message in &page.messages {
            assert_eq!(message.payload, payloads(message.offset - 1), "{what}");
            assert_eq!(&*message.channel, ["a", "b/c"][(message.offset as usize - 1) % 2], "{what}");
        }
        assert!(page.messages.is_sorted_by(|one, other| one.offset < other.offset), "{what}");
        assert!(!open.warnings.is_empty() || page.messages.len() == 1000 || what == "removed", "{what}");
        let least = match what {
            "cut in the middle" => 300,
            "cut to nothing" | "removed" => 0,
            "the first page" => 1000,
            "a page in the middle" => 950,
            "a byte in the middle" => 999,
            "a byte in each page" => 800,
            _ => 750,
        };
        assert!(page.messages.len() >= least, "{what}: only {} of 1000 in {bytes} bytes", page.messages.len());
        // Positions are not given twice; where it is not known which were given, they are of another epoch.
        assert!(found.next > 1000 || found.epoch != hub.epoch, "{what}");
        // A client that continues from a position of that epoch is told of what is missing.
        if found.epoch == hub.epoch && page.messages.len() < 1000 {
            let here: Vec<u64> = page.messages.iter().map(|message| message.offset).collect();
            let missing = (1..=1000).filter(|offset| !here.contains(offset)).max().unwrap();
            assert!(!open.all(&found.id, &[name("a"), name("b/c")], missing - 1).gone.is_empty(), "{what}");
        }
        open.write(&found.id, found.next, "a", b"goes on");
        open.store.close();
        let again = disk.open();
        assert_eq!(again.warnings, Vec::<String>::new(), "{what}");
        let found = again.store.hub("news", Limits::default()).unwrap();
        assert_eq!(again.offsets(&found.id, &[name("a"), name("b/c")], 0).len(), page.messages.len() + 1, "{what}");
    }
}

/// A copy of the files of a store in use, as a crash would leave them.
fn snapshot(disk: &Disk) -> Disk {
    let copy = Disk { dir: tempfile::tempdir().unwrap(), clock: disk.clock.clone() };
    fs::create_dir(copy.path()).unwrap();
    for name in ["history.db", "history.db-wal", "history.db-shm"] {
        fs::copy(disk.path().join(name), copy.path().join(name)).unwrap();
    }
    copy
}

#[test]
fn a_damaged_log_gives_back_what_is_whole() {
    let disk = Disk::new();
    let open = disk.open();
    let hub = open.store.hub("news", Limits::default()).unwrap();
    for number in 0..200 {
        open.write(&hub.id, hub.next + number, "a", &payloads(number));
    }
    let whole = snapshot(&disk);
    let read = |disk: &Disk| {
        let open = disk.open();
        let found = open.store.hub("news", Limits::default()).unwrap();
        let page = open.all(&found.id, &[name("a")], 0);
        page.messages.iter().for_each(|message| assert_eq!(message.payload, payloads(message.offset - 1)));
        assert!(found.next > 200, "{found:?}");
        (page.messages.len(), found.epoch == hub.epoch, open.warnings.clone())
    };
    let log = |disk: &Disk| disk.path().join("history.db-wal");
    let [flipped, short, headless] = [snapshot(&whole), snapshot(&whole), snapshot(&whole)];
    assert_eq!(read(&whole), (200, true, Vec::new()));
    // Pages behind a damaged one are whole, though SQLite would not look at them.
    change(&log(&flipped), length(&log(&flipped)) / 2, &[0x55; 10]);
    let (count, is_same, warnings) = read(&flipped);
    assert!(count >= 199 && !is_same && warnings[0].contains("in the middle of the log"), "{count} {warnings:?}");
    cut(&log(&short), length(&log(&short)) * 9 / 10);
    let (count, is_same, warnings) = read(&short);
    assert!((100..200).contains(&count) && !is_same && warnings[0].contains("missing"), "{count} {warnings:?}");
    change(&log(&headless), 0, &[0x55; 32]);
    let (count, is_same, warnings) = read(&headless);
    assert!(count == 200 && !is_same && warnings[0].contains("beginning of the log"), "{count} {warnings:?}");
}

#[test]
fn a_log_that_is_gone_is_missed_by_its_index() {
    let disk = Disk::new();
    let open = disk.open();
    let hub = open.store.hub("news", Limits::default()).unwrap();
    for number in 0..50 {
        open.write(&hub.id, hub.next + number, "a", &payloads(number));
    }
    for left in [None, Some(0), Some(1), Some(16), Some(31)] {
        let copy = snapshot(&disk);
        let [log, index] = ["history.db-wal", "history.db-shm"].map(|file| copy.path().join(file));
        match left {
            Some(bytes) => cut(&log, bytes),
            None => fs::remove_file(&log).unwrap(),
        }
        // Who only looks leaves the index, which alone knows that something is missing.
        let before = fs::read(&index).unwrap();
        assert!(Inspection::open(&copy.path()).is_err_and(|error| error.message.contains("missing")), "{left:?}");
        assert!(fs::read(&index).unwrap() == before && log.exists() == left.is_some(), "{left:?}");
        let again = copy.open();
        let found = again.store.hub("news", Limits::default()).unwrap();
        assert!(found.epoch != hub.epoch && again.warnings[0].contains("missing"), "{left:?} {:?}", again.warnings);
    }
}

#[test]
fn every_snapshot_has_what_was_acknowledged() {
    let disk = Disk::new();
    let open = disk.open();
    let hub = open.store.hub("news", Limits::default()).unwrap();
    for round in 0..20 {
        open.fill(&HubState { next: 1 + round * 50, keys: Vec::new(), ..hub_state(&hub) }, &["a", "b"], 50, payloads);
        let copy = snapshot(&disk);
        let open = copy.open();
        assert_eq!(open.warnings, Vec::<String>::new());
        let found = open.store.hub("news", Limits::default()).unwrap();
        let here = open.offsets(&found.id, &[name("a"), name("b")], 0);
        assert!(here == (1..=(round + 1) * 50).collect::<Vec<_>>(), "{} in round {round}", here.len());
    }
}

fn hub_state(hub: &HubState) -> HubState {
    HubState { id: hub.id.clone(), epoch: hub.epoch, next: hub.next, keys: Vec::new(), marks: Vec::new() }
}

#[test]
fn damage_that_shows_while_it_is_open_is_repaired() {
    let disk = Disk::new();
    let open = disk.open();
    let hub = open.store.hub("news", Limits::default()).unwrap();
    open.fill(&hub, &["a", "b"], 3000, |number| payloads(number).repeat(10));
    open.store.close();
    let open = disk.open();
    let hub = open.store.hub("news", Limits::default()).unwrap();
    let path = disk.database();
    // Leaves of the table in the second half lose their kind and their pointers.
    for page in (length(&path) / 8192..length(&path) / 4096).step_by(11) {
        change(&path, page * 4096, &[0x55; 64]);
    }
    let page = open.all(&hub.id, &[name("a"), name("b")], 0);
    assert!((2000..3000).contains(&page.messages.len()), "{}", page.messages.len());
    assert!(disk.path().join("history.db.damaged-1").exists());
    open.write(&hub.id, hub.next, "a", b"goes on");
    // Nothing is known of what is missing.
    assert_eq!(open.all(&hub.id, &[name("a")], hub.next - 2).gone, ["a".into()]);
    assert_eq!(open.all(&hub.id, &[name("a")], hub.next - 1).gone, Vec::<Arc<str>>::new());
    assert_eq!(open.offsets(&hub.id, &[name("a")], hub.next - 1), [hub.next]);
}

#[test]
fn lines_are_read_as_they_are_written() {
    let text = r#"{"channel":"news","id":"a-1f","data":"It \"works\" é","time":1790000000}"#;
    let read = Exported::read(text).unwrap();
    assert_eq!((read.position, read.kind, read.line()), (Some((10, 51)), Kind::Text, text.to_owned()));
    let bytes = r#"{"channel":"news","base64":"AP8="}"#;
    let read = Exported::read(bytes).unwrap();
    assert_eq!((&read.payload[..], read.time, read.line()), (&[0, 255][..], None, bytes.to_owned()));
    for wrong in [r#"{"channel":"news"}"#, r#"{"data":"x"}"#, r#"{"channel":"a","data":"x","base64":""}"#, "[]", "x"] {
        assert!(Exported::read(wrong).is_err(), "{wrong}");
    }
}

/// What the store should do, in the simplest way.
#[derive(Default)]
struct Model {
    messages: BTreeMap<u64, (String, Vec<u8>, i64)>,
    /// Every message that there ever was.
    ever: BTreeMap<u64, String>,
}

impl Model {
    fn limit(&mut self, limits: Limits, now: i64) {
        if let Some(age) = limits.age {
            self.messages.retain(|_, (.., time)| now - *time < age.as_secs() as i64);
        }
        for channel in ["a", "b", "c/d"] {
            loop {
                let of: Vec<_> = self.messages.iter().filter(|(_, (name, ..))| name == channel).collect();
                let bytes: usize = of.iter().map(|(_, (_, payload, _))| payload.len()).sum();
                let is_beyond = limits.messages.is_some_and(|max| of.len() as u64 > max)
                    || limits.bytes.is_some_and(|max| bytes as u64 > max);
                let Some(&(&first, _)) = of.first().filter(|_| is_beyond) else { break };
                self.messages.remove(&first);
            }
        }
    }
}

impl Model {
    /// Whether a page is the right one.
    fn compare(&self, query: &PageQuery, page: &StoredPage) -> Result<(), TestCaseError> {
        let selects = |channel: &str| query.channels.iter().any(|selector| selector.selects(channel));
        let after = self.messages.range(query.since + 1..);
        let wanted: Vec<_> = after.filter(|(_, (channel, ..))| selects(channel)).collect();
        let (mut used, mut count) = (0, 0);
        for (_, (_, payload, _)) in &wanted {
            if count == query.messages || count > 0 && used + payload.len() > query.bytes {
                break;
            }
            used += payload.len();
            count += 1;
        }
        let found: Vec<_> =
            page.messages.iter().map(|m| (m.offset, m.channel.to_string(), m.payload.to_vec())).collect();
        let wanted_here = wanted[..count].iter();
        let expected: Vec<_> =
            wanted_here.map(|(offset, (channel, payload, _))| (**offset, channel.clone(), payload.clone())).collect();
        prop_assert_eq!(&found, &expected);
        let next_wanted = wanted.get(count).map_or(query.until, |(offset, _)| **offset - 1);
        prop_assert!(page.next <= next_wanted && page.next >= found.last().map_or(query.since, |last| last.0));
        prop_assert!(count > 0 || page.next == query.until);
        let ever = self.ever.range(query.since + 1..);
        let lost = ever.filter(|(offset, channel)| selects(channel) && !self.messages.contains_key(offset));
        let lost: std::collections::BTreeSet<_> = lost.map(|(_, channel)| channel.clone()).collect();
        let gone: std::collections::BTreeSet<_> = page.gone.iter().map(ToString::to_string).collect();
        prop_assert_eq!(gone, lost);
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write { channel: usize, bytes: usize },
    Pass(i64),
    Read { selectors: usize, since: u64, messages: usize, bytes: usize },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3usize, 0..200usize).prop_map(|(channel, bytes)| Step::Write { channel, bytes }),
        1 => (0..20i64).prop_map(Step::Pass),
        3 => (0..6usize, 0..100u64, 1..9usize, 1..600usize)
            .prop_map(|(selectors, since, messages, bytes)| Step::Read { selectors, since, messages, bytes }),
        1 => Just(Step::Reopen),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let option = |range: std::ops::Range<u64>| proptest::option::of(range);
    (option(1..9), option(1..900), option(5..60)).prop_map(|(messages, bytes, age)| Limits {
        messages,
        bytes,
        age: age.map(Duration::from_secs),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn pages_are_those_of_a_simple_model(limits in limits(), steps in proptest::collection::vec(step(), 1..80)) {
        let disk = Disk::new();
        let mut open = disk.open();
        let mut hub = open.store.hub("h", limits).unwrap();
        let mut model = Model::default();
        for step in steps {
            let now = disk.clock.load(Ordering::Relaxed);
            match step {
                Step::Write { channel, bytes } => {
                    let channel = ["a", "b", "c/d"][channel];
                    open.write(&hub.id, hub.next, channel, &vec![7; bytes]);
                    model.messages.insert(hub.next, (channel.to_owned(), vec![7; bytes], now));
                    model.ever.insert(hub.next, channel.to_owned());
                    hub.next += 1;
                }
                Step::Pass(seconds) => disk.pass(seconds),
                Step::Reopen => {
                    open.store.close();
                    open = disk.open();
                    let epoch = hub.epoch;
                    hub = open.store.hub("h", limits).unwrap();
                    prop_assert_eq!(hub.epoch, epoch);
                }
                Step::Read { selectors, since, messages, bytes } => {
                    let selectors: Vec<Selector> = match selectors {
                        0 => vec![name("a")],
                        1 => vec![name("b"), name("a"), name("none")],
                        2 => vec![Selector::pattern("**")],
                        3 => vec![Selector::pattern("c/*"), name("a")],
                        4 => vec![Selector::pattern("*")],
                        _ => vec![name("c/d")],
                    };
                    let until = hub.id.written();
                    // One of the last offsets.
                    let (since, channels) = (until.saturating_sub(since), selectors.into());
                    let query = PageQuery { hub: hub.id.clone(), channels, since, until, messages, bytes };
                    model.limit(limits, disk.clock.load(Ordering::Relaxed));
                    model.compare(&query, &open.page(query.clone()))?;
                }
            }
        }
    }
}
