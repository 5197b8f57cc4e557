//! The memory of many channels that keep a few messages each, beside what pushd counts.

use std::fmt::Write as _;
use std::time::Instant;

use crate::Scale;
use crate::common::events::Events;
use crate::subject::Subject;

/// Messages of each channel, and bytes of each message.
const MESSAGES: usize = 10;
const SIZE: usize = 100;
/// Messages in a batch.
const BATCH: usize = 10_000;
/// How much a message may take in addition to twice its payload.
const EXTRA_BYTES: u64 = 200;
/// How many channels are read at the end.
const SAMPLES: usize = 100;
const ROUTES: &str = r#"
"/batch" = { publish = "news", batch = true }
"/other" = { publish = "other", batch = true }
"/events/{channel}" = { events = "news", channels = ["{channel}"] }
"#;
const HUBS: &str = "[hub.news]\nhistory = { messages = 10 }\n[hub.other]\n";

/// Prints the table.
pub fn run(scale: Scale) {
    let channels = scale.pick(100, 100_000, 1_000_000);
    let subject = Subject::start(ROUTES, HUBS, "100ms", "64GiB");
    // Some memory is taken once.
    let payload = "x".repeat(SIZE);
    subject.publish_batch("/other", lines(0, BATCH.min(channels), &payload).as_bytes());
    let before = subject.resident();
    let began = Instant::now();
    for _ in 0..MESSAGES {
        for first in (0..channels).step_by(BATCH) {
            subject.publish_batch("/batch", lines(first, BATCH.min(channels - first), &payload).as_bytes());
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let grown = subject.resident().saturating_sub(before);
    let (counted, dropped) = (subject.metric("pushd_history_bytes"), subject.metric("pushd_history_dropped_total"));
    assert_eq!(dropped, 0, "nothing is dropped to keep to memory_max");
    for number in (0..channels).step_by((channels / SAMPLES).max(1)) {
        let mut stream = Events::open(subject.address(), &format!("/events/{}?since=earliest", name(number)));
        (0..MESSAGES).for_each(|_| stream.expect(&payload));
    }
    let messages = (channels * MESSAGES) as u64;
    let bound = messages * (2 * SIZE as u64 + EXTRA_BYTES);
    let of = |bytes: u64| format!("{} | {:.0}", bytes >> 20, bytes as f64 / messages as f64);
    println!("\n{channels} channels with {MESSAGES} messages of {SIZE} B each, published in {seconds:.1} s\n");
    println!("| what | MiB | bytes/message |\n|---|---:|---:|");
    println!("| payloads | {} |", of(messages * SIZE as u64));
    println!("| resident memory, growth | {} |", of(grown));
    println!("| `pushd_history_bytes` | {} |", of(counted));
    println!("| bound: twice the payloads, and {EXTRA_BYTES} bytes for each message | {} |", of(bound));
}

fn lines(first: usize, count: usize, payload: &str) -> String {
    let mut lines = String::with_capacity(count * (payload.len() + 40));
    for number in first..first + count {
        let written = writeln!(lines, "{{\"channel\":\"{}\",\"data\":\"{payload}\"}}", name(number));
        written.unwrap();
    }
    lines
}

fn name(number: usize) -> String {
    format!("c{number:07}")
}
