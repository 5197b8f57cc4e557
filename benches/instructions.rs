//! How many instructions a delivery takes: a figure that does not depend on how fast the machine is, and that must not grow.
//!
//!     cargo bench --bench instructions      fails where a figure is above its bound; without valgrind it counts nothing
//!
//! The program runs itself under callgrind, twice for each case: with a few turns of a shard and with many. The difference, divided by
//! the deliveries between them, contains neither the start nor the end of the program. The sockets accept every byte and there is no
//! kernel (`tests/common/sinks.rs`), so all that is counted is this crate's own work and the C library's.

#[path = "../tests/common/sinks.rs"]
mod sinks;

use std::process::{Command, ExitCode};

use bytes::Bytes;
use pushd::config::OnMessage;
use sinks::{Framing, Sinks};

/// Turns of the shorter run. They also grow what is kept for later turns.
const TURNS_FEW: u64 = 10;

/// A figure may be so many times what it was. That leaves room for another compiler or C library, and fails for one more allocation in
/// each delivery: it takes 135 instructions.
const BOUND: f64 = 1.25;
/// With this the C library fills memory without `rep stosb`, which it uses on some processors only: callgrind counts each repetition.
const TUNABLES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-ERMS");

/// One load.
struct Case {
    name: &'static str,
    subscribers: usize,
    framing: Framing,
    /// Messages that are published in one turn.
    window: usize,
    payload_bytes: usize,
    /// Turns of the longer run beyond those of the shorter.
    turns: u64,
    /// Instructions of a delivery when this was last measured: rustc 1.95, x86-64, glibc 2.36.
    measured: f64,
}

/// What must not grow.
const CASES: [Case; 4] = [
    Case {
        name: "one publication to 1,000 subscribers",
        subscribers: 1000,
        framing: Framing::Rfc6455,
        window: 1,
        payload_bytes: 100,
        turns: 1000,
        measured: 396.2,
    },
    Case {
        name: "64 publications to 1,000 subscribers",
        subscribers: 1000,
        framing: Framing::Rfc6455,
        window: 64,
        payload_bytes: 100,
        turns: 1000,
        measured: 7.9,
    },
    Case {
        name: "one publication to 1,000 subscribers, compressed",
        subscribers: 1000,
        framing: Framing::Deflate,
        window: 1,
        payload_bytes: 1000,
        turns: 1000,
        measured: 417.1,
    },
    // The cost of a publication itself, which the other cases divide by their subscribers.
    Case {
        name: "one publication to one subscriber",
        subscribers: 1,
        framing: Framing::Rfc6455,
        window: 1,
        payload_bytes: 100,
        turns: 10_000,
        measured: 2461.0,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, case, turns] = &arguments[..]
        && command == "deliver"
    {
        let number = |text: &str| text.parse().expect("a number");
        CASES[number(case) as usize].deliver(number(turns));
        return ExitCode::SUCCESS;
    }
    if let Err(error) = Command::new("valgrind").arg("--version").output() {
        // `cargo bench` goes on with the others. The step of .ci/run requires valgrind.
        println!("SKIPPED: no instructions were counted: valgrind: {error}");
        return ExitCode::SUCCESS;
    }
    println!("{:<50} {:>8} {:>8} {:>8}", "instructions per delivery", "now", "bound", "before");
    let mut too_many = Vec::new();
    for (index, case) in CASES.iter().enumerate() {
        let (now, bound) = (case.count(index), BOUND * case.measured);
        let Case { name, measured, .. } = case;
        println!("{name:<50} {now:>8.1} {bound:>8.1} {measured:>8.1}");
        if now > bound {
            too_many
                .push(format!("{name}: {now:.1} instructions per delivery, bound {bound:.1}, before {measured:.1}"));
        }
    }
    too_many.iter().for_each(|line| eprintln!("FAILED: {line}"));
    if too_many.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Case {
    /// The instructions of one delivery.
    fn count(&self, index: usize) -> f64 {
        let [few, many] = [TURNS_FEW, TURNS_FEW + self.turns].map(|turns| instructions(index, turns));
        let deliveries = self.turns * (self.subscribers * self.window) as u64;
        (many - few) as f64 / deliveries as f64
    }

    /// What is counted: so many turns of a shard.
    fn deliver(&self, turns: u64) {
        let mut sinks = Sinks::new(self.subscribers, &[self.framing], &["all"], OnMessage::Ignore);
        let payload: Bytes = text(self.payload_bytes).into();
        (0..turns).for_each(|_| sinks.turn(self.window, &payload));
        let writes: u64 = sinks.take_written().iter().map(|(writes, _)| *writes as u64).sum();
        assert_eq!(writes, turns * self.subscribers as u64, "one write for each subscriber and turn");
    }
}

/// Text that is neither random nor all the same.
fn text(length: usize) -> Vec<u8> {
    let words = "{\"user\":17,\"event\":\"moved\",\"at\":[48.2082,16.3738],\"text\":\"hello\"},";
    words.bytes().cycle().take(length).collect()
}

/// Runs this program under callgrind; how many instructions it took.
fn instructions(case: usize, turns: u64) -> u64 {
    let program = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
    let output = command.env(TUNABLES.0, TUNABLES.1).args(["deliver", &case.to_string(), &turns.to_string()]).output();
    let output = output.unwrap_or_else(|error| panic!("valgrind: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    let collected = said.lines().find_map(|line| line.split_once(" Collected : ")?.1.trim().parse().ok());
    collected.unwrap_or_else(|| panic!("callgrind printed no count: {said}"))
}
