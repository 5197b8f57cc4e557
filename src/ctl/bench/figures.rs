//! The results of a load, as numbers.

use serde::Serialize;

use super::histogram::Histogram;
pub use super::ledger::Faults;

/// The results.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Subscribers.
    pub connections: usize,
    /// Bytes of each message.
    pub size_bytes: usize,
    /// The largest number of messages in flight; with --echo, for each connection.
    pub window: usize,
    /// The time during which deliveries were counted.
    pub seconds: f64,
    /// Connections opened each second, from the first to the last.
    pub connections_per_second: f64,
    /// The time from connecting to the response that opens the session.
    pub handshake: Times,
    /// Messages received.
    pub deliveries: u64,
    /// Messages received each second.
    pub deliveries_per_second: f64,
    /// Bytes received each second, including frame headers.
    pub bytes_per_second: f64,
    /// The time from sending a message to its arrival, over all deliveries.
    pub latency: Times,
    /// The cost on the server, if its process was named.
    pub server: Option<Cost>,
    /// Errors that must not happen.
    pub faults: Faults,
    /// Messages of other publishers.
    pub foreign: u64,
    /// The reason why the first prematurely closed connection was closed.
    pub first_closed: Option<String>,
    /// Measuring ended early: no more messages arrived, or it was interrupted.
    pub cut_short: bool,
}

/// Quantiles of a time, in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Times {
    /// The median.
    pub p50_ms: f64,
    /// The 90th percentile.
    pub p90_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// The maximum.
    pub max_ms: f64,
}

/// The resources used by the server's process.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cost {
    /// Its process id.
    pub pid: u32,
    /// Processor time for each delivery, in microseconds, including the kernel's part.
    pub cpu_us_per_delivery: f64,
    /// Processor time for each connection opened, in microseconds.
    pub cpu_us_per_handshake: f64,
    /// The average number of processors it used while deliveries were counted.
    pub processors: f64,
    /// The average number of processors that other programs used meanwhile, except this one: they disturb the
    /// measurement.
    pub processors_of_others: f64,
    /// Memory that each idle connection added, in bytes.
    pub resident_bytes_per_connection: f64,
}

impl Times {
    /// The quantiles of a histogram.
    pub fn of(histogram: &Histogram) -> Times {
        let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6;
        Times {
            p50_ms: ms(histogram.quantile(0.50)),
            p90_ms: ms(histogram.quantile(0.90)),
            p99_ms: ms(histogram.quantile(0.99)),
            max_ms: ms(histogram.longest()),
        }
    }
}
