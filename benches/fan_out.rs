//! Fan-out compared with the floor: the same load on pushd and on minimal broadcasters, in alternation within one run.
//!
//!     cargo bench --bench fan_out                    three repetitions, about three minutes
//!     cargo bench --bench fan_out -- --quick         one short repetition: a check, not a measurement
//!     cargo bench --bench fan_out -- --echo          each client sends its own messages and receives them back
//!     cargo bench --bench fan_out -- --beside 'NAME=COMMAND {port}'   another server too, which broadcasts at / and echoes at /echo
//!     PUSHD_BENCH_CONNECTIONS=10000 cargo bench --bench fan_out       with more connections too
//!
//! The floor is this executable, started as a server (see `floor`): it shows the cost of the kernel alone. So is the
//! common design with a task for each connection (see `task`). BENCHMARKS.md explains the columns, and when a figure is
//! reliable.

#[path = "fan_out/floor.rs"]
mod floor;
#[path = "fan_out/processors.rs"]
mod processors;
#[path = "fan_out/server.rs"]
mod server;
#[path = "fan_out/table.rs"]
mod table;
#[path = "fan_out/task.rs"]
mod task;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use pushd::ctl::Fault;
use pushd::ctl::bench::{Figures, Framing, Load, Publisher, Target, measure};

use processors::{pin, two_processors};
use server::{Kind, Server};

/// The numbers of connections; PUSHD_BENCH_CONNECTIONS adds more.
const CONNECTIONS: [usize; 2] = [100, 1000];
/// Bytes of a message, and the largest number of messages in flight.
const LOADS: [(usize, usize); 3] = [(64, 1), (64, 64), (1024, 64)];

/// The same for echo; in flight for each connection.
const ECHOES: [(usize, usize); 1] = [(64, 1)];

/// The parameters of a run.
struct Plan {
    kinds: Vec<Kind>,
    echo: bool,
    connections: Vec<usize>,
    repetitions: usize,
    duration: Duration,
    /// The processors of the server and of the generator, if there are two.
    processors: Option<(usize, usize)>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [serve, kind] = &arguments[..]
        && serve == "--serve"
    {
        return if kind == "task" { task::main() } else { floor::main(kind == "coalesce") };
    }
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    // Without `--bench`, `cargo test` runs this as a check.
    let mut plan = match (has("--bench"), has("--quick")) {
        (false, _) => plan(&[10], 1, Duration::from_millis(100)),
        (true, true) => plan(&CONNECTIONS, 1, Duration::from_millis(300)),
        (true, false) => plan(&CONNECTIONS, 3, Duration::from_secs(2)),
    };
    plan.echo = has("--echo");
    for words in arguments.windows(2).filter(|words| words[0] == "--beside") {
        match Kind::beside(&words[1]) {
            Some(kind) => plan.kinds.push(kind),
            None => {
                eprintln!("fan_out: --beside takes NAME=COMMAND, with {{port}} in the command, not {:?}", words[1]);
                return ExitCode::FAILURE;
            }
        }
    }
    match run(&plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("fan_out: {why}");
            ExitCode::FAILURE
        }
    }
}

fn plan(connections: &[usize], repetitions: usize, duration: Duration) -> Plan {
    let more = std::env::var("PUSHD_BENCH_CONNECTIONS").unwrap_or_default();
    let more = more.split(',').filter_map(|number| number.trim().parse().ok());
    let connections = connections.iter().copied().chain(more).collect();
    let (kinds, echo) = (Kind::OWN.to_vec(), false);
    Plan { kinds, echo, connections, repetitions, duration, processors: two_processors() }
}

fn run(plan: &Plan) -> Result<(), String> {
    match plan.processors {
        Some((server, generator)) => {
            println!("The server on processor {server}, the generator on processor {generator}.");
        }
        None => println!("One processor for server and generator: ratios say little, times nothing."),
    }
    for &connections in &plan.connections {
        for &(size, window) in if plan.echo { &ECHOES[..] } else { &LOADS[..] } {
            let mut runs: Vec<Vec<Figures>> = vec![Vec::new(); plan.kinds.len()];
            for _ in 0..plan.repetitions {
                for (kind, runs) in plan.kinds.iter().zip(&mut runs) {
                    let figures = one(plan, kind, connections, size, window);
                    runs.push(figures.map_err(|why| format!("{}: {why}", kind.name()))?);
                }
            }
            let echo = if plan.echo { "echo, " } else { "" };
            let title = format!("{echo}{connections} connections, {size} B, window {window}");
            print!("\n{}", table::of(&title, connections, &plan.kinds, &runs));
        }
    }
    Ok(())
}

/// Runs one load on a server that is started for it.
fn one(plan: &Plan, kind: &Kind, connections: usize, size: usize, window: usize) -> Result<Figures, String> {
    // A process and its threads inherit the CPU affinity.
    pin(plan.processors.map(|(server, _)| server))?;
    let server = Server::start(kind)?;
    pin(plan.processors.map(|(_, generator)| generator))?;
    let (path, publisher) = if plan.echo { ("echo", Publisher::Echo) } else { ("", Publisher::Subscriber) };
    let load = Load {
        target: Target::parse(&format!("ws://{}/{path}", server.address)).map_err(said)?,
        framing: Framing::WebSocket,
        publisher,
        connections,
        size,
        window,
        duration: plan.duration,
        pid: Some(server.pid()),
        spin: plan.processors.is_some(),
        stop: Arc::default(),
    };
    let figures = measure(&load, &mut |_| {}).map_err(said)?;
    match figures.faults.is_none() && !figures.cut_short {
        true => Ok(figures),
        false => Err(format!("not every delivery arrived once, in order and unchanged: {:?}", figures.faults)),
    }
}

fn said(fault: Fault) -> String {
    fault.message
}
