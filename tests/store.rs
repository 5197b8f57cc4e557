//! The promises of the store that need a process that dies, and a disk that is full: what was acknowledged is there, once and in
//! order. The process is this test itself, started again.
//! Power cuts are in `power_cut`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use pushd::config::Sync;
use pushd::hub::{Kind, Selector};
use pushd::store::{Entry, Hold, Limits, PageQuery, Store, StoredMessage};

/// The directory of the store: this process is the one that is killed.
const DIRECTORY: &str = "PUSHD_TEST_STORE";
const CHANNELS: [&str; 3] = ["a", "b", "c"];

/// Prints the offset of a publication when the store has it.
struct Acknowledge(u64, mpsc::Sender<u64>);

impl Hold for Acknowledge {
    fn written(self: Box<Self>) {
        // Closed when the process ends.
        let _ = self.1.send(self.0);
    }
}

/// What becomes of a publication.
struct Told(mpsc::Sender<bool>, bool);

impl Hold for Told {
    fn written(mut self: Box<Self>) {
        self.1 = true;
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.send(self.1);
    }
}

fn payload(offset: u64) -> Vec<u8> {
    format!("message {offset} ").repeat(1 + offset as usize % 40).into_bytes()
}

fn channel_of(offset: u64) -> &'static str {
    CHANNELS[offset as usize % CHANNELS.len()]
}

fn entry(offset: u64, payload: Vec<u8>, hold: Box<dyn Hold>) -> Entry {
    Entry {
        offset,
        channel: channel_of(offset).into(),
        kind: Kind::Text,
        payload: payload.into(),
        key: None,
        progress: None,
        hold,
    }
}

fn all(store: &Store, hub: &pushd::store::StoredHub) -> Vec<StoredMessage> {
    let channels: Arc<[Selector]> = CHANNELS.iter().map(|name| Selector::name(*name)).collect();
    let (mut messages, mut since, until) = (Vec::new(), 0, hub.written());
    while since < until {
        let (answer, answered) = mpsc::channel();
        let (hub, channels) = (hub.clone(), channels.clone());
        let query = PageQuery { hub, channels, since, until, messages: 500, bytes: 1 << 20 };
        store.page(query, Box::new(move |page| answer.send(page).unwrap()));
        let page = answered.recv_timeout(Duration::from_secs(20)).unwrap();
        (since, messages) = (page.next, [messages, page.messages].concat());
    }
    messages
}

/// Not a test by itself: writes until it is killed.
#[test]
fn writes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let sync = if std::env::var_os("PUSHD_TEST_ALWAYS").is_some() {
        Sync::Always
    } else {
        Sync::Every(Duration::from_millis(100))
    };
    let (store, warnings) = Store::open(Path::new(&directory), sync).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    let hub = store.hub("news", Limits::default()).unwrap();
    let (acknowledge, acknowledged) = mpsc::channel();
    let mut out = std::io::stdout().lock();
    let (mut offset, mut outstanding) = (hub.next, 0);
    writeln!(out, "\nepoch {}", hub.epoch).unwrap();
    loop {
        for _ in 0..50 {
            store.append(&hub.id, entry(offset, payload(offset), Box::new(Acknowledge(offset, acknowledge.clone()))));
            offset += 1;
        }
        outstanding += 50;
        // The next ones are queued while these are being written.
        while outstanding > 100 {
            writeln!(out, "ack {}", acknowledged.recv().unwrap()).unwrap();
            outstanding -= 1;
        }
        out.flush().unwrap();
        while !store.accepts() {
            std::thread::yield_now();
        }
    }
}

fn writer(directory: &Path, is_always: bool) -> (Child, BufReader<ChildStdout>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "writes_until_it_is_killed", "--nocapture"]).env(DIRECTORY, directory);
    if is_always {
        command.env("PUSHD_TEST_ALWAYS", "1");
    }
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

#[test]
fn what_was_acknowledged_outlives_kill_9_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("store");
    let mut acknowledged: Vec<u64> = Vec::new();
    let mut epochs = Vec::new();
    for round in 0..10 {
        let (mut child, mut out) = writer(&directory, round % 2 == 0);
        // It is killed at another place in each round: after so many acknowledgements, wherever the writer is by then.
        let least = acknowledged.len() + 100 + 137 * round;
        let mut line = String::new();
        while acknowledged.len() < least {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "the writer ended by itself in round {round}");
            match line.trim().split_once(' ') {
                Some(("ack", offset)) => acknowledged.push(offset.parse().unwrap()),
                Some(("epoch", epoch)) => epochs.push(epoch.to_owned()),
                _ => {}
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had acknowledged before it was killed, but this process had not read.
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        let complete = rest.rsplit_once('\n').map_or("", |(complete, _)| complete);
        acknowledged.extend(complete.lines().filter_map(|line| line.strip_prefix("ack ")?.parse::<u64>().ok()));
        let (store, warnings) = Store::open(&directory, Sync::Always).unwrap();
        assert_eq!(warnings, Vec::<String>::new(), "in round {round}");
        let hub = store.hub("news", Limits::default()).unwrap();
        assert!(hub.next > *acknowledged.last().unwrap());
        let messages = all(&store, &hub.id);
        assert!(messages.is_sorted_by(|one, other| one.offset < other.offset), "twice or out of order");
        let mut found = messages.iter();
        for offset in &acknowledged {
            let message = found.find(|message| message.offset == *offset);
            let message = message.unwrap_or_else(|| panic!("offset {offset} is lost in round {round}"));
            assert!(message.payload == payload(*offset) && &*message.channel == channel_of(*offset));
        }
        store.close();
    }
    assert!(acknowledged.is_sorted_by(|one, other| one < other), "an offset was given twice");
    epochs.dedup();
    assert_eq!(epochs.len(), 1, "the epoch lasts");
}

/// Not a test by itself: fills a file system of 4 MiB, as root of a user namespace of its own.
#[test]
fn fills_its_disk() {
    let Some(directory) = std::env::var_os("PUSHD_TEST_SMALL_DISK") else { return };
    let directory = Path::new(&directory);
    let (store, _) = Store::open(directory, Sync::Always).unwrap();
    let hub = store.hub("news", Limits { messages: Some(3000), ..Limits::default() }).unwrap();
    let (told, telling) = mpsc::channel();
    let mut written = Vec::new();
    let mut offset = hub.next;
    let mut write = |written: &mut Vec<u64>| {
        let hold = Told(told.clone(), false);
        store.append(&hub.id, entry(offset, vec![b'x'; 1000], Box::new(hold)));
        let is_written = telling.recv_timeout(Duration::from_secs(20)).unwrap();
        written.extend(is_written.then_some(offset));
        offset += 1;
        is_written
    };
    // Another file takes the room away.
    std::fs::write(directory.join("../filler"), vec![0; 2 << 20]).unwrap();
    while write(&mut written) {
        assert!(written.len() < 10_000, "the disk is never full");
    }
    assert!(!store.accepts() && written.len() > 100, "{} were written", written.len());
    // What was written can be read meanwhile, and what comes is refused at once.
    assert!(all(&store, &hub.id).len() >= written.len());
    assert!(!write(&mut written));
    std::fs::remove_file(directory.join("../filler")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !store.accepts() {
        assert!(Instant::now() < deadline, "it does not recover");
        std::thread::sleep(Duration::from_millis(10)); // Up to the deadline.
    }
    assert!(write(&mut written));
    store.close();
    let (store, warnings) = Store::open(directory, Sync::Always).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    let hub = store.hub("news", Limits::default()).unwrap();
    let found: Vec<u64> = all(&store, &hub.id).iter().map(|message| message.offset).collect();
    assert!(
        written.iter().all(|offset| found.binary_search(offset).is_ok()),
        "something that was acknowledged is lost"
    );
    println!("the disk was full after {} messages", written.len() - 1);
}

#[test]
fn a_full_disk_refuses_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=4M tmpfs \"$1\" && exec env PUSHD_TEST_SMALL_DISK=\"$1/store\" \"$2\" --exact fills_its_disk --nocapture";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command.arg(dir.path()).arg(std::env::current_exe().unwrap());
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if err.contains("unshare") || err.contains("mount:") {
        println!("skipped: no namespaces here: {err}");
        return;
    }
    assert!(output.status.success() && out.contains("the disk was full after"), "{out}{err}");
}
