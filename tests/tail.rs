//! A tail of a durable hub goes on where its history ends: every line is in it once and in order, whatever pushd and the file went
//! through meanwhile.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::thread::spawn;
use std::time::Instant;

use common::http::ask;
use common::polls::{poll, position, texts};
use common::service::Service;
use common::{DEADLINE, Pushd, Start, until_true};
use nix::sys::signal::Signal;

/// The messages begin with the number that the feed gives them.
const CONFIG: &str = r#"
[daemon]
workers = 2
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/poll" = { poll = "news", channels = ["log"] }
"/publish" = { publish = "news", channel = "other" }
[hub.news]
history = { messages = 1000000 }
durable = true
[feed.log]
hub = "news"
channel = "log"
tail = "log"
message = "{n} {line}"
"#;

/// Runs pushd with a disk of its own for the store, of 4 MiB.
const SMALL_DISK: &str = "mkdir store && exec unshare -m sh -c \
    'mount -t tmpfs -o size=4m,mode=700 none store && exec \"$0\" \"$@\"' \"$0\" \"$@\"";

/// A way to end pushd, and to begin the next one later.
type Ending = (&'static str, fn(&mut Service));

const ENDINGS: [Ending; 3] = [
    ("kill -9", Service::kill),
    ("a stop", |service| {
        service.signal(Signal::SIGTERM);
        assert_eq!(service.wait(), 0, "{}", service.log());
    }),
    ("a restart", Service::hand_over),
];

fn append(directory: &Path, name: &str, text: &str) {
    let mut file = File::options().append(true).create(true).open(directory.join(name)).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// The whole history of the feed.
fn history(address: SocketAddr) -> Vec<String> {
    let (mut all, mut since) = (Vec::new(), "earliest".to_owned());
    loop {
        let answer = poll(address, &format!("/poll?since={since}&wait=0s&limit=1000"));
        all.extend(texts(&answer).into_iter().map(str::to_owned));
        if texts(&answer).is_empty() {
            return all;
        }
        since = position(&answer);
    }
}

/// Waits until the history of the feed has so many lines, and checks that they are these, each with its number.
fn expect<L: AsRef<str>>(address: SocketAddr, lines: &[L]) {
    let (began, mut all) = (Instant::now(), history(address));
    while all.len() < lines.len() && began.elapsed() < DEADLINE {
        all = history(address);
    }
    let expected: Vec<String> = lines.iter().enumerate().map(|(n, line)| format!("{n} {}", line.as_ref())).collect();
    if all != expected {
        let at = all.iter().zip(&expected).position(|(one, other)| one != other).unwrap_or(expected.len());
        panic!("{} of {} lines; at {at}: {:?}", all.len(), expected.len(), &all[at..(at + 3).min(all.len())]);
    }
    // What is in the history may not be on the disk yet. It is when a later message is acknowledged.
    assert_eq!(ask(address, "POST", "/publish", &[], b"x").status, 200);
}

fn start_again(service: &mut Service) -> SocketAddr {
    // The next process has another address.
    service.clear_log();
    service.start();
    service.address()
}

#[test]
fn lines_appended_while_it_was_away_are_published_once() {
    for (how, end) in ENDINGS {
        let mut service = Service::new(CONFIG, 512);
        append(service.path(), "log", "old\nbegun before");
        service.start();
        append(service.path(), "log", " the start\none\ntwo\nthr");
        expect(service.address(), &["one", "two"]);
        end(&mut service);
        append(service.path(), "log", "ee\nfour\nfi");
        let address = start_again(&mut service);
        println!("{how}: {}", service.log());
        expect(address, &["one", "two", "three", "four"]);
        // Twice, and without a message in between.
        end(&mut service);
        start_again(&mut service);
        end(&mut service);
        append(service.path(), "log", "ve\n");
        let address = start_again(&mut service);
        append(service.path(), "log", "six\n");
        expect(address, &["one", "two", "three", "four", "five", "six"]);
    }
}

#[test]
fn a_feed_that_has_published_nothing_misses_nothing_either() {
    for (how, end) in ENDINGS {
        let mut service = Service::new(CONFIG, 512);
        append(service.path(), "log", "old\nbegun before");
        service.start();
        end(&mut service);
        println!("{how}");
        append(service.path(), "log", " the start\none\n");
        expect(start_again(&mut service), &["one"]);

        let mut service = Service::new(CONFIG, 512);
        service.start();
        end(&mut service);
        append(service.path(), "log", "the file is new\n");
        expect(start_again(&mut service), &["the file is new"]);
    }
}

#[test]
fn a_file_that_was_rotated_meanwhile_is_finished_first() {
    for (how, end) in ENDINGS {
        let mut service = Service::started(CONFIG);
        let rotate = |service: &Service, from: &str, to: &str| {
            fs::rename(service.path().join(from), service.path().join(to)).unwrap();
        };
        append(service.path(), "log", "one\n");
        expect(service.address(), &["one"]);
        end(&mut service);
        append(service.path(), "log", "two\nunfinished");
        rotate(&service, "log", "log.1");
        append(service.path(), "log", "three\n");
        println!("{how}");
        expect(start_again(&mut service), &["one", "two", "unfinished", "three"]);
        end(&mut service);
        // Three times; what was rotated before is not read again.
        for (n, line) in ["four\n", "five\n", "six\n"].iter().enumerate() {
            append(service.path(), "log", line);
            (1..n + 2).rev().for_each(|n| rotate(&service, &format!("log.{n}"), &format!("log.{}", n + 1)));
            rotate(&service, "log", "log.1");
        }
        let address = start_again(&mut service);
        append(service.path(), "log", "seven\n");
        expect(address, &["one", "two", "unfinished", "three", "four", "five", "six", "seven"]);
    }
}

#[test]
fn a_file_that_was_rewritten_or_lost_meanwhile_is_read_from_its_start() {
    let mut service = Service::started(CONFIG);
    let path = service.path().join("log");
    append(service.path(), "log", "one\ntwo\n");
    expect(service.address(), &["one", "two"]);
    service.kill();
    // Of the same length.
    fs::write(&path, "1\n2\n3\n4\n").unwrap();
    let mut lines = vec!["one", "two", "1", "2", "3", "4"];
    expect(start_again(&mut service), &lines);
    assert!(service.log().contains("was truncated or rewritten"), "{}", service.log());
    service.kill();
    File::create(&path).unwrap();
    let address = start_again(&mut service);
    append(service.path(), "log", "5\n");
    lines.push("5");
    expect(address, &lines);
    service.kill();
    // As a rotation that compresses it. The new file is made first, so that it is another one.
    fs::write(service.path().join("new"), "6\n7\n").unwrap();
    fs::rename(service.path().join("new"), &path).unwrap();
    lines.extend(["6", "7"]);
    expect(start_again(&mut service), &lines);
    assert!(service.log().contains("lines may be missing"), "{}", service.log());
    service.kill();
    fs::remove_file(&path).unwrap();
    let address = start_again(&mut service);
    append(service.path(), "log", "8\n");
    lines.push("8");
    expect(address, &lines);
}

#[test]
fn every_line_is_there_once_though_pushd_is_killed_while_they_are_written() {
    const LINES: usize = 3000;
    let mut service = Service::new(CONFIG, 512);
    append(service.path(), "log", "");
    service.start();
    let mut rotations = 0;
    for round in 0..8 {
        let directory = service.path().to_owned();
        let writer = spawn(move || {
            for n in 0..LINES {
                // A line comes in pieces. Files are rotated every now and then, by a number or by a date.
                append(&directory, "log", &format!("{round} "));
                append(&directory, "log", &format!("{n}\n"));
                if n % 700 == 699 {
                    rotations += 1;
                    let old = directory.join(format!("log-2026{rotations:04}"));
                    fs::rename(directory.join("log"), old).unwrap();
                }
            }
            rotations
        });
        let address = service.address();
        let enough = round * LINES + LINES / 10 * round;
        until_true("some lines", || writer.is_finished() || history(address).len() > enough);
        ENDINGS[if round % 4 == 3 { 2 } else { 0 }].1(&mut service);
        if round % 2 == 0 {
            start_again(&mut service);
            rotations = writer.join().unwrap();
        } else {
            rotations = writer.join().unwrap();
            start_again(&mut service);
        }
        let lines: Vec<String> =
            (0..=round).flat_map(|round| (0..LINES).map(move |n| format!("{round} {n}"))).collect();
        expect(service.address(), &lines);
    }
}

#[test]
fn a_full_disk_loses_no_line() {
    if !nix::unistd::Uid::effective().is_root() {
        return eprintln!("skipped: only root can mount a small disk");
    }
    let pushd = Start::new(CONFIG).after(SMALL_DISK).run();
    let address = pushd.address();
    let mut lines: Vec<String> = (0..3).map(|n| n.to_string()).collect();
    append(pushd.path(), "log", "0\n1\n2\n");
    expect(address, &lines);
    for round in 0..3 {
        let filler = fill(&pushd);
        // Many at once, so that some are on their way when the disk is found to be full.
        let many: Vec<String> = (0..2000).map(|n| format!("{round} {n} {}", "x".repeat(50))).collect();
        append(pushd.path(), "log", &(many.join("\n") + "\n"));
        lines.extend(many);
        until_true("a refusal", || ask(address, "POST", "/publish", &[], b"x").status == 503);
        append(pushd.path(), "log", &format!("last of {round}\n"));
        lines.push(format!("last of {round}"));
        assert!(history(address).len() < lines.len());
        fs::remove_file(filler).unwrap();
        expect(address, &lines);
    }
}

/// Fills the disk of the store. Returns the file that does. From outside, the disk is seen through the process.
fn fill(pushd: &Pushd) -> String {
    let path = format!("/proc/{}/root{}/store/filler", pushd.pid(), pushd.path().display());
    let mut file = File::create(&path).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    path
}

#[test]
fn a_reload_that_changes_a_feed_misses_no_line() {
    let service = Service::started(CONFIG);
    let address = service.address();
    append(service.path(), "log", "one\n");
    expect(address, &["one"]);
    append(service.path(), "log", "tw");
    service.reload(&CONFIG.replace("{n} {line}", "{n} {line}!"));
    append(service.path(), "log", "o\n");
    expect(address, &["one", "two!"]);
}

#[test]
fn a_feed_that_is_new_begins_at_the_end() {
    let mut service = Service::started(CONFIG);
    append(service.path(), "log", "one\n");
    expect(service.address(), &["one"]);
    service.kill();
    service.configure(CONFIG.split("[feed.log]").next().unwrap());
    start_again(&mut service);
    append(service.path(), "log", "of nobody\n");
    service.kill();
    service.configure(CONFIG);
    let address = start_again(&mut service);
    assert!(service.log().contains("begins at the end of its file"), "{}", service.log());
    append(service.path(), "log", "two\n");
    until_true("the next line", || history(address).len() > 1);
    assert_eq!(history(address), ["0 one", "0 two"]);
}
