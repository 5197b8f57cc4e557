//! A load, from its first connection to its results.
//!
//! Steps: open all connections; wait a moment; measure the server's memory; send messages in a closed loop, first to
//! warm up, then counted; stop sending; wait for the messages in flight. Messages that have not arrived by then are
//! lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::figures::{Cost, Figures, Times};
use super::framing::Framing;
use super::generator::Generator;
use super::ledger::Tally;
use super::process;
use super::target::{self, Target};
use crate::config::limits::{BENCH_PATIENCE, BENCH_REST, BENCH_WARM_UP};
use crate::ctl::fault::Fault;
use crate::daemon::exit::Exit;

/// The parameters of a load.
#[derive(Debug, Clone)]
pub struct Load {
    /// The route of the subscribers.
    pub target: Target,
    /// The kind of their sessions. On an event stream messages cannot be sent, so they are posted.
    pub framing: Framing,
    /// How messages are sent.
    pub publisher: Publisher,
    /// The number of subscribers.
    pub connections: usize,
    /// Bytes of each message.
    pub size: usize,
    /// The largest number of messages in flight; with echo, for each connection.
    pub window: usize,
    /// The time during which deliveries are counted.
    pub duration: Duration,
    /// The server's process, if known.
    pub pid: Option<u32>,
    /// Poll without sleeping while deliveries are counted, so that no send of the server includes the time to wake this
    /// program.
    pub spin: bool,
    /// Ends the load early once it is true.
    pub stop: Arc<AtomicBool>,
}

/// How messages are sent.
#[derive(Debug, Clone)]
pub enum Publisher {
    /// The first subscriber sends them, and the route broadcasts them.
    Subscriber,
    /// They are posted to this publish route.
    Post(Box<Target>),
    /// Each subscriber sends its own messages and receives them back.
    Echo,
}

/// The progress of a load.
#[derive(Debug, Clone, Copy)]
pub enum Progress {
    /// Connections are being opened.
    Opening {
        /// The number of open connections.
        opened: usize,
        /// The number of connections to open.
        all: usize,
    },
    /// Messages are being sent.
    Delivering {
        /// Deliveries a second, since the last report.
        per_second: f64,
        /// The remaining time.
        left: Duration,
    },
}

/// The processor time used so far, in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Spent {
    at: u64,
    server: u64,
    own: u64,
    all: u64,
}

/// Runs the load. `watch` is called with its progress several times a second.
///
/// # Errors
/// A connection could not be opened, or the publisher lost its connection. Faults of other subscribers are part of the
/// figures.
pub fn measure(load: &Load, watch: &mut dyn FnMut(Progress)) -> Result<Figures, Fault> {
    target::raise_descriptor_limit(load.connections)?;
    let resident = load.pid.map(resident).transpose()?;
    let mut generator = Generator::new(load, watch)?;
    let before = spent(load, &generator);
    generator.open_all()?;
    let opened = generator.now();
    generator.rest(BENCH_REST)?;
    let rested = spent(load, &generator);
    let grown = load.pid.map(resident_now).transpose()?.zip(resident).map(|(now, then)| now - then);

    generator.begin_publishing();
    let warm_up = BENCH_WARM_UP.min(load.duration / 5);
    let alive = generator.deliver(warm_up)?;
    if generator.ledger.tally.deliveries == 0 && !load.stop.load(Ordering::Relaxed) {
        return Err(silence(load, &generator));
    }
    generator.ledger.begin_measuring();
    let begun = spent(load, &generator);
    let whole = alive && generator.deliver(load.duration)?;
    let ended = spent(load, &generator);
    let measured = generator.ledger.tally.clone();
    generator.finish()?;

    let connections = load.connections as f64;
    let seconds = (ended.at - begun.at) as f64 / 1e9;
    let cost = load.pid.zip(grown).map(|(pid, grown)| Cost {
        pid,
        cpu_us_per_delivery: (ended.server - begun.server) as f64 / 1e3 / (measured.deliveries.max(1) as f64),
        cpu_us_per_handshake: (rested.server - before.server) as f64 / 1e3 / connections,
        processors: (ended.server - begun.server) as f64 / 1e9 / seconds,
        processors_of_others: others(begun, ended) / seconds,
        resident_bytes_per_connection: grown / connections,
    });
    let opening = (opened - before.at).max(1) as f64 / 1e9;
    let end = (&generator.ledger.tally, generator.first_closed.take());
    Ok(figures(load, &measured, end, seconds, &generator.handshakes_in(opening), cost, !whole))
}

/// The rate of opening, and the time of each handshake.
pub struct Handshakes {
    /// Connections opened each second.
    pub per_second: f64,
    /// The time of each handshake.
    pub times: Times,
}

fn figures(
    load: &Load,
    measured: &Tally,
    (end, first_closed): (&Tally, Option<String>),
    seconds: f64,
    handshakes: &Handshakes,
    server: Option<Cost>,
    cut_short: bool,
) -> Figures {
    Figures {
        connections: load.connections,
        size_bytes: load.size,
        window: load.window,
        seconds,
        connections_per_second: handshakes.per_second,
        handshake: handshakes.times,
        deliveries: measured.deliveries,
        deliveries_per_second: measured.deliveries as f64 / seconds,
        bytes_per_second: measured.bytes as f64 / seconds,
        latency: Times::of(&measured.latency),
        server,
        faults: end.faults,
        foreign: end.foreign,
        first_closed,
        cut_short,
    }
}

fn resident(pid: u32) -> Result<f64, Fault> {
    let found = process::resident(pid).filter(|_| process::cpu(pid).is_some());
    let unknown =
        || Fault::new(Exit::Usage, format!("there is no process {pid} on this machine, or it cannot be read"));
    found.map(|bytes| bytes as f64).ok_or_else(unknown)
}

fn resident_now(pid: u32) -> Result<f64, Fault> {
    resident(pid).map_err(|_| Fault::failed(format!("process {pid} has ended")))
}

fn spent(load: &Load, generator: &Generator<'_>) -> Spent {
    let of = |pid| process::cpu(pid).unwrap_or(0);
    Spent {
        at: generator.now(),
        server: load.pid.map_or(0, of),
        own: of(std::process::id()),
        all: process::busy().unwrap_or(0),
    }
}

/// Processor seconds used by neither the server nor this program.
fn others(begun: Spent, ended: Spent) -> f64 {
    let ours = (ended.server - begun.server) + (ended.own - begun.own);
    (ended.all - begun.all).saturating_sub(ours) as f64 / 1e9
}

/// No message ever arrived. Most likely the route does something else than expected.
fn silence(load: &Load, generator: &Generator<'_>) -> Fault {
    let url = &load.target.url;
    let limit = BENCH_PATIENCE.as_secs();
    let foreign = generator.ledger.tally.foreign;
    let closed = generator.first_closed.as_ref().map(|why| format!("; connections were closed ({why})"));
    let hint = match &load.publisher {
        Publisher::Subscriber => {
            "does it broadcast what clients send? Messages can be posted with --publish URL, and --echo is for an echo"
                .to_owned()
        }
        Publisher::Post(to) => format!("does {} publish to the channel of this route?", to.url),
        Publisher::Echo => "does it echo?".to_owned(),
    };
    let others = if foreign > 0 { format!(" (but {foreign} of other publishers)") } else { String::new() };
    let closed = closed.unwrap_or_default();
    Fault::failed(format!("no message came back from {url} within {limit} s{others}{closed}: {hint}"))
}
