//! `pushctl store`, from outside: what is exported can be imported, and a damaged store is reported.

mod common;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use pushd::config::Sync;
use pushd::hub::Kind;
use pushd::store::{Entry, Hold, Limits, Store};

const CONFIG: &str = "
[server.main]
listen = \"127.0.0.1:0\"
[server.main.routes]
\"/publish/{channel}\" = { publish = \"news\", channel = \"{channel}\" }
[hub.news]
history = { messages = 3 }
durable = true
";

/// Runs `pushctl store ARGS` with the configuration in `dir`. Returns exit code, standard output and standard error.
fn store(dir: &Path, args: &[&str], input: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushctl"));
    command.args(["store", "-c", "pushd.toml"]).args(args).current_dir(dir);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that does not want its input closes it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("pushd.toml"), CONFIG).unwrap();
    dir
}

const LINES: &str = "\
{\"channel\":\"a\",\"data\":\"one\",\"time\":1690000000}
{\"channel\":\"b\",\"base64\":\"AP8=\",\"time\":1690000001}

{\"channel\":\"a\",\"data\":\"two é\",\"id\":\"1-7\"}
";

#[test]
fn what_is_imported_is_exported() {
    let dir = directory();
    assert_eq!(store(dir.path(), &["import"], LINES).1, "3 messages were imported\n");
    let (code, out, err) = store(dir.path(), &["export", "a"], "");
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&lines[0]["data"], &lines[0]["time"], &lines[1]["data"]),
        (&"one".into(), &1_690_000_000.into(), &"two é".into())
    );
    assert!(lines.len() == 2 && lines[1]["id"].as_str().unwrap().ends_with("-3"), "{out}");
    assert!(store(dir.path(), &["export", "b"], "").1.contains(r#""base64":"AP8=""#));
    // Again into another store.
    let other = directory();
    store(other.path(), &["import"], &out);
    let again = store(other.path(), &["export", "--hub", "news", "a"], "").1;
    let times =
        |text: &str| text.lines().map(|line| line.rsplit_once("data").unwrap().1.to_owned()).collect::<Vec<_>>();
    assert_eq!(times(&again), times(&out));
    let stats = store(dir.path(), &["stats"], "").1;
    assert!(stats.contains("hub news: 2 channels, 3 messages, 11 bytes, from 2023-07-22T"), "{stats}");
}

#[test]
fn mistakes_are_named() {
    let dir = directory();
    let (code, _, err) = store(dir.path(), &["stats"], "");
    assert!(code == 1 && err.contains("there is no store in store"), "{code} {err}");
    let (code, _, err) = store(dir.path(), &["import"], "{\"channel\":\"a\",\"data\":\"x\"}\n{\"channel\":\"a\"}\n");
    assert_eq!(code, 1);
    assert!(
        err.contains("line 2: one of `data` and `base64` is needed; the 1 messages before it are imported"),
        "{err}"
    );
    assert!(store(dir.path(), &["export", "none"], "").2.contains("no channel `none` in hub news"));
    let (code, _, err) = store(dir.path(), &["--hub", "chat", "export", "a"], "");
    assert!(code == 1 && err.contains("no durable hub chat; it has: news"), "{err}");
}

#[test]
fn a_store_in_use_is_read_but_not_written() {
    let dir = directory();
    store(dir.path(), &["import"], LINES);
    let (open, _) = Store::open(&dir.path().join("store"), Sync::Every(Duration::from_millis(100))).unwrap();
    open.hub("news", Limits::default()).unwrap();
    assert_eq!(store(dir.path(), &["export", "a"], "").1.lines().count(), 2);
    assert!(store(dir.path(), &["stats"], "").1.contains("in use by pushd"));
    assert_eq!(store(dir.path(), &["check"], "").0, 0);
    let (code, _, err) = store(dir.path(), &["import"], LINES);
    assert!(code == 69 && err.contains("is in use by another process: stop it first (pushctl stop)"), "{code} {err}");
}

#[test]
fn damage_is_reported_and_changes_nothing() {
    let dir = directory();
    store(dir.path(), &["import"], LINES);
    assert_eq!(store(dir.path(), &["check"], "").1, "store: the store is whole\n");
    let path = dir.path().join("store/history.db");
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(3).position(|window| window == b"two").unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"T", at as u64).unwrap();
    let (code, _, err) = store(dir.path(), &["check"], "");
    assert!(code == 1 && err.contains("the message with offset 3 of hub number 1 is damaged"), "{code} {err}");
    assert!(err.contains("pushd repairs it when it starts"), "{err}");
}

struct Wait(mpsc::Sender<()>);

impl Hold for Wait {
    fn written(self: Box<Self>) {
        self.0.send(()).unwrap();
    }
}

/// The files of a store, but for the index, which is made again.
fn files(store: &Path) -> Vec<(String, Vec<u8>)> {
    let names = ["history.db", "history.db-wal", "lock"];
    let read = |name: &str| fs::read(store.join(name)).map(|bytes| (name.to_owned(), bytes));
    names.iter().filter_map(|name| read(name).ok()).collect()
}

#[test]
fn a_store_that_is_looked_at_after_a_crash_stays_as_it_is() {
    let used = tempfile::tempdir().unwrap();
    let (open, _) = Store::open(used.path(), Sync::Every(Duration::from_millis(100))).unwrap();
    let limits = Limits { messages: Some(30), ..Limits::default() };
    let hub = open.hub("news", limits).unwrap().id;
    for offset in 1..50 {
        let (written, is_written) = mpsc::channel();
        let (channel, payload) = ("a".into(), vec![b'x'; 1000].into());
        let entry = Entry {
            offset,
            channel,
            kind: Kind::Text,
            payload,
            key: None,
            progress: None,
            hold: Box::new(Wait(written)),
        };
        open.append(&hub, entry);
        is_written.recv().unwrap();
    }
    let dir = directory();
    let copy = dir.path().join("store");
    fs::create_dir(&copy).unwrap();
    for (name, bytes) in files(used.path()) {
        fs::write(copy.join(name), bytes).unwrap();
    }
    // As in a copy that has no lock.
    fs::remove_file(copy.join("lock")).unwrap();
    let before = files(&copy);
    assert!(before.len() == 2 && before[1].1.len() > 100_000, "{}", before.len());
    let stats = store(dir.path(), &["stats"], "");
    assert!(stats.0 == 0 && stats.1.contains("hub news: 1 channels, 30 messages"), "{stats:?}");
    assert!(files(&copy) == before);
    // SQLite reads it up to the damage, and calls that the whole.
    let log = OpenOptions::new().write(true).open(copy.join("history.db-wal")).unwrap();
    log.write_all_at(b"damage", before[1].1.len() as u64 / 2).unwrap();
    let before = files(&copy);
    for args in [&["stats"][..], &["check"], &["export", "a"]] {
        let (code, _, err) = store(dir.path(), args, "");
        assert!(code == 1 && err.contains("a page in the middle of the log is damaged"), "{code} {err}");
        assert!(err.contains("pushd repairs it when it starts"), "{err}");
    }
    assert!(files(&copy) == before);
    let (_, warnings) = Store::open(&copy, Sync::Always).unwrap();
    assert!(warnings[0].contains("clients that resume are told of a gap"), "{warnings:?}");
}

#[test]
fn root_looks_at_a_store_and_leaves_nothing_of_its_own() {
    if !nix::unistd::Uid::effective().is_root() {
        return eprintln!("skipped: only root can give files away");
    }
    let dir = directory();
    store(dir.path(), &["import"], LINES);
    let files = || fs::read_dir(dir.path().join("store")).unwrap().map(|entry| entry.unwrap().path());
    fs::remove_file(dir.path().join("store/lock")).unwrap();
    files().for_each(|path| chown(path, Some(65534), Some(65534)).unwrap());
    for args in [&["stats"][..], &["check"], &["export", "a"]] {
        assert_eq!(store(dir.path(), args, "").0, 0);
    }
    let owners: Vec<_> = files().map(|path| (path.metadata().unwrap().uid(), path)).collect();
    assert!(!owners.is_empty() && owners.iter().all(|(owner, _)| *owner == 65534), "{owners:?}");
}
