//! The counters of a shard. Only its own thread writes them; any thread that serves `/metrics` reads them.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::http::{Sample, SampleKind};
use crate::session::Tally;

/// A figure with one writer: adding is a load and a store, without a locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds. Only the thread of the shard may call it.
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    /// Subtracts. Only the thread of the shard may call it.
    pub fn subtract(&self, less: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(less), Ordering::Relaxed);
    }

    /// Sets. Only the thread of the shard may call it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The figure.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($kind:ident $field:ident $name:literal $help:literal,)*) => {
        /// The figures of one shard.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(#[doc = $help] pub $field: Counter,)*
        }

        impl Counters {
            /// The sums of the figures of several shards.
            pub fn samples<'a>(all: impl Iterator<Item = &'a Counters> + Clone) -> Vec<Sample> {
                vec![$(Sample {
                    name: $name,
                    help: $help,
                    kind: SampleKind::$kind,
                    label: None,
                    value: all.clone().map(|counters| counters.$field.value()).sum(),
                },)*]
            }
        }
    };
}

impl Counters {
    /// Adds the counts of sessions.
    pub fn add(&self, tally: &Tally) {
        let Tally { received, unspeakable, dropped, slow, violations, silent } = *tally;
        self.received.add(received);
        self.unspeakable.add(unspeakable);
        self.dropped.add(dropped);
        self.slow.add(slow);
        self.violations.add(violations);
        self.silent.add(silent);
    }
}

counters! {
    Counter accepted "pushd_connections_accepted_total" "Connections accepted.",
    Counter refused "pushd_connections_refused_total" "Connections refused because the limit was reached.",
    Counter requests "pushd_http_requests_total" "HTTP requests answered.",
    Counter requests_refused "pushd_http_requests_refused_total" "HTTP requests answered with a status of 400 or more.",
    Gauge sessions "pushd_sessions" "Sessions open now: WebSockets, event streams, and polls that wait.",
    Counter sessions_opened "pushd_sessions_opened_total" "Sessions opened.",
    Gauge channels "pushd_channels" "Channels with subscribers, counted once for each shard that has some. Patterns are not counted.",
    Counter received "pushd_messages_received_total" "Messages received from clients.",
    Counter published "pushd_publications_total" "Publications, from clients, HTTP and feeds.",
    Counter unkept "pushd_publications_unkept_total" "Messages refused because the disk of their durable hub did not accept them.",
    Counter delivered "pushd_deliveries_total" "Messages queued for subscribers.",
    Counter caught_up "pushd_history_messages_total" "Messages of the history sent to clients that had missed them.",
    Counter dropped "pushd_messages_dropped_total" "Messages dropped because a subscriber was slow.",
    Counter unspeakable "pushd_messages_unspeakable_total" "Binary messages not sent to subscribers by draft-76 or event stream, which carry text only.",
    Counter slow "pushd_slow_disconnects_total" "Sessions closed because they were slow.",
    Counter violations "pushd_protocol_errors_total" "Sessions closed because they broke the protocol or a limit.",
    Counter silent "pushd_ping_timeouts_total" "Sessions closed because a ping was not answered.",
}
