//! What a load comes to, in figures.

use serde::Serialize;

use super::histogram::Histogram;
pub use super::ledger::Faults;

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Subscribers.
    pub connections: usize,
    /// Bytes of each message.
    pub size_bytes: usize,
    /// How many messages were on their way at most; of an echo, for each connection.
    pub window: usize,
    /// How long deliveries were counted.
    pub seconds: f64,
    /// Connections opened, from the first to the last.
    pub connections_per_second: f64,
    /// From connecting to the answer that opens the session.
    pub handshake: Times,
    /// Messages that arrived.
    pub deliveries: u64,
    /// The same by time.
    pub deliveries_per_second: f64,
    /// Bytes that arrived by time, with the headers of their frames.
    pub bytes_per_second: f64,
    /// From sending a message to its arrival, over all deliveries.
    pub latency: Times,
    /// What it cost the server, where its process was named.
    pub server: Option<Cost>,
    /// What must not happen.
    pub faults: Faults,
    /// Messages of others that came by.
    pub foreign: u64,
    /// Why the first of the connections that ended too early did.
    pub first_closed: Option<String>,
    /// It was ended before its time: nothing arrived any more, or somebody stopped it.
    pub cut_short: bool,
}

/// Quantiles of a time, in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Times {
    /// Half took no longer.
    pub p50_ms: f64,
    /// Nine of ten took no longer.
    pub p90_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
    /// None took longer.
    pub max_ms: f64,
}

/// What the server's process used.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cost {
    /// Its process id.
    pub pid: u32,
    /// Processor time for each delivery, in microseconds, the kernel's part of it included.
    pub cpu_us_per_delivery: f64,
    /// Processor time for each connection opened, in microseconds.
    pub cpu_us_per_handshake: f64,
    /// How many processors it kept busy while deliveries were counted.
    pub processors: f64,
    /// How many processors others kept busy meanwhile, this program left out: what disturbs a measurement.
    pub processors_of_others: f64,
    /// Memory that each idle connection added, in bytes.
    pub resident_bytes_per_connection: f64,
}

impl Times {
    /// Of the times counted.
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
