//! Fan-out compared with the floor: the same load on pushd and on minimal broadcasters, in alternation within one run.
//!
//!     cargo bench --bench fan_out                    three repetitions, about three minutes
//!     cargo bench --bench fan_out -- --quick         one short repetition: a check, not a measurement
//!     cargo bench --bench fan_out -- --echo          each client sends its own messages and receives them back
//!     cargo bench --bench fan_out -- --events        event streams beside WebSockets, with messages posted over HTTP
//!     cargo bench --bench fan_out -- --tls           over TLS, beside pushd without it; `{certificate}` and `{key}` in the
//!                                                    command of another server are its files
//!     cargo bench --bench fan_out -- --history       hubs with a history in memory beside those without (with --events too)
//!     cargo bench --bench fan_out -- --beside 'NAME=COMMAND {port}'   another server too: it broadcasts at /, echoes at
//!                                                    /echo, streams events at /events, and publishes at /publish
//!     PUSHD_BENCH_CONNECTIONS=10000 cargo bench --bench fan_out       with more connections too
//!
//! The floor is this executable, started as a server (see `floor`): it shows the cost of the kernel alone. So is the
//! common design with a task for each connection (see `task`). BENCHMARKS.md explains the columns, and when a figure is
//! reliable.

#[path = "fan_out/certificate.rs"]
mod certificate;
#[path = "fan_out/floor.rs"]
mod floor;
#[path = "fan_out/mode.rs"]
mod mode;
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
use pushd::ctl::bench::{Figures, Load, Target, measure};

use certificate::Certificate;
use mode::{Mode, Row};
use processors::{pin, two_processors};
use server::{Kind, Server};

/// The parameters of a run.
struct Plan {
    mode: Mode,
    /// Whether hubs with a history are measured, too.
    history: bool,
    beside: Vec<Kind>,
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
    let mode = match (has("--echo"), has("--events"), has("--tls")) {
        (true, _, _) => Mode::Echo,
        (false, true, _) => Mode::Events,
        (false, false, true) => Mode::Tls,
        (false, false, false) => Mode::Broadcast,
    };
    let connections = mode.connections();
    // Without `--bench`, `cargo test` runs this as a check.
    let mut plan = match (has("--bench"), has("--quick")) {
        (false, _) => plan(mode, &[10], 1, Duration::from_millis(100)),
        (true, true) => plan(mode, connections, 1, Duration::from_millis(300)),
        (true, false) => plan(mode, connections, 3, Duration::from_secs(2)),
    };
    plan.history = has("--history");
    for words in arguments.windows(2).filter(|words| words[0] == "--beside") {
        match Kind::beside(&words[1]) {
            Some(kind) => plan.beside.push(kind),
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

fn plan(mode: Mode, connections: &[usize], repetitions: usize, duration: Duration) -> Plan {
    let more = std::env::var("PUSHD_BENCH_CONNECTIONS").unwrap_or_default();
    let more = more.split(',').filter_map(|number| number.trim().parse().ok());
    let connections = connections.iter().copied().chain(more).collect();
    Plan { mode, history: false, beside: Vec::new(), connections, repetitions, duration, processors: two_processors() }
}

fn run(plan: &Plan) -> Result<(), String> {
    match plan.processors {
        Some((server, generator)) => {
            println!("The server on processor {server}, the generator on processor {generator}.");
        }
        None => println!("One processor for server and generator: ratios say little, times nothing."),
    }
    let certificate = Certificate::new().map_err(|error| format!("no certificate could be made: {error}"))?;
    let rows = match plan.mode {
        Mode::Tls => plan.mode.rows(&with_tls(&plan.beside, &certificate), plan.history),
        _ => plan.mode.rows(&plan.beside, plan.history),
    };
    for &connections in &plan.connections {
        for &(size, window) in plan.mode.loads() {
            let mut runs: Vec<Vec<Figures>> = vec![Vec::new(); rows.len()];
            for _ in 0..plan.repetitions {
                for (row, runs) in rows.iter().zip(&mut runs) {
                    let figures = one(plan, row, &certificate, connections, size, window);
                    runs.push(figures.map_err(|why| format!("{}: {why}", row.name))?);
                }
            }
            let title = format!("{}{connections} connections, {size} B, window {window}", plan.mode.title());
            print!("\n{}", table::of(&title, connections, &rows, &runs));
        }
    }
    Ok(())
}

/// pushd without TLS and with it, then the other servers with the files of the certificate in their commands.
fn with_tls(beside: &[Kind], certificate: &Certificate) -> Vec<Kind> {
    let beside = beside.iter().map(|kind| match kind {
        Kind::Beside(name, command) => Kind::Beside(name.clone(), certificate.named_in(command)),
        other => other.clone(),
    });
    [Kind::Pushd, Kind::Tls(certificate.key())].into_iter().chain(beside).collect()
}

/// Runs one load on a server that is started for it.
fn one(
    plan: &Plan,
    row: &Row,
    certificate: &Certificate,
    connections: usize,
    size: usize,
    window: usize,
) -> Result<Figures, String> {
    // A process and its threads inherit the CPU affinity.
    pin(plan.processors.map(|(server, _)| server))?;
    let server = Server::start(&row.kind)?;
    pin(plan.processors.map(|(_, generator)| generator))?;
    let path = plan.mode.path(row.framing);
    let mut target = Target::parse(&format!("http://{}/{path}", server.address)).map_err(said)?;
    if plan.mode == Mode::Tls && row.kind != Kind::Pushd {
        target = target.with_tls(certificate.client()).map_err(said)?;
    }
    let load = Load {
        target,
        framing: row.framing,
        publisher: plan.mode.publisher(&server.address).map_err(said)?,
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
