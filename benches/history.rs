//! The figures of history: durable publications, how soon a client has what it missed, what it costs those who are live, and memory.
//!
//!     cargo bench --bench history                      all parts, about six minutes
//!     cargo bench --bench history -- durable resume    these parts: durable, resume, outage, memory, idle
//!     cargo bench --bench history -- --quick           all parts, short: a check, not a measurement
//!     cargo bench --bench history -- durable --redis 'benches/peers/redis {port} {sync}'     beside Redis Streams
//!
//! What a delivery costs on a hub with a history, and event streams beside those of other servers: `fan_out -- --history`. The
//! directory of the store is below `target`, on a real disk. BENCHMARKS.md has the results.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "history/disk.rs"]
mod disk;
#[path = "history/durable.rs"]
mod durable;
#[path = "history/floor.rs"]
mod floor;
#[path = "history/idle.rs"]
mod idle;
#[path = "history/live.rs"]
mod live;
#[path = "history/memory.rs"]
mod memory;
#[path = "history/outage.rs"]
mod outage;
#[path = "fan_out/processors.rs"]
mod processors;
#[path = "history/publishers.rs"]
mod publishers;
#[path = "history/resume.rs"]
mod resume;
// The other benchmark uses more of this module.
#[allow(dead_code)]
#[path = "fan_out/server.rs"]
mod server;
#[path = "history/subject.rs"]
mod subject;

use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub enum Scale {
    /// That it works: with `cargo test`.
    Check,
    /// That it works with real numbers, for a moment.
    Quick,
    /// The figures.
    Whole,
}

impl Scale {
    /// One of three values.
    pub fn pick<T>(self, check: T, quick: T, whole: T) -> T {
        match self {
            Scale::Check => check,
            Scale::Quick => quick,
            Scale::Whole => whole,
        }
    }
}

const PARTS: [&str; 5] = ["durable", "resume", "outage", "memory", "idle"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [serve, sync] = &arguments[..]
        && serve == "--serve"
    {
        return floor::main(sync == "always");
    }
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let scale = match (has("--bench"), has("--quick")) {
        (false, _) => Scale::Check,
        (true, true) => Scale::Quick,
        (true, false) => Scale::Whole,
    };
    let redis = arguments.windows(2).find(|words| words[0] == "--redis").map(|words| words[1].as_str());
    if redis.is_some_and(|command| !command.contains("{port}") || !command.contains("{sync}")) {
        eprintln!("history: --redis takes a command with {{port}} and {{sync}}");
        return ExitCode::FAILURE;
    }
    let named = PARTS.iter().any(|part| has(part));
    let wanted = |part: &str| !named || has(part);
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    if wanted("durable") {
        durable::run(scale, redis);
    }
    if wanted("resume") {
        resume::run(scale);
    }
    if wanted("outage") {
        outage::run(scale);
    }
    if wanted("memory") {
        memory::run(scale);
    }
    if wanted("idle") {
        idle::run(scale);
    }
    ExitCode::SUCCESS
}

/// A quantile of times, in milliseconds. NaN without times. The times need not be sorted.
pub fn quantile(times: &mut [std::time::Duration], part: f64) -> f64 {
    times.sort_unstable();
    match times.len() {
        0 => f64::NAN,
        count => times[((count - 1) as f64 * part).round() as usize].as_secs_f64() * 1e3,
    }
}

/// The median of figures.
pub fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => figures[count / 2],
        count => f64::midpoint(figures[count / 2 - 1], figures[count / 2]),
    }
}
