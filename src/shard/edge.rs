//! The shard as the HTTP edge sees it.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::oneshot;

use super::Shard;
use super::counters::Counters;
use super::stream::Stream;
use crate::http::pages::Files;
use crate::http::{Backend, Sample, SampleKind, Site};
use crate::hub::{Publication, Receipt};
use crate::session::{Arrival, Socket};
use crate::wire::Dialect;

/// A handle to the shard that a connection is served by.
#[derive(Clone)]
pub(super) struct Edge(pub(super) Rc<Shard>);

impl Backend for Edge {
    type Io = Stream;

    fn site(&self, server: &str) -> Option<Arc<Site>> {
        self.0.plan.borrow().sites.get(server).cloned()
    }

    async fn publish(&self, publication: Publication) -> Option<u64> {
        let shard = &self.0;
        if shard.hushed.get() {
            return None;
        }
        let (sender, reached) = oneshot::channel();
        let receipt = Receipt::new(move |count| {
            // The request may be gone by the time it could be answered.
            let _ = sender.send(count);
        });
        let publication = Arc::new(publication.with_receipt(receipt));
        if !shard.relay.publish(publication, &mut shard.table.borrow_mut()) {
            return None;
        }
        reached.await.ok()
    }

    fn adopt(&self, io: Stream, arrival: Arrival) {
        let shard = &self.0;
        if !shard.is_awake() {
            // Too late for this process, and not known to the next one.
            return;
        }
        let raw = match io.into_raw() {
            Ok(raw) => raw,
            Err(error) => return log::warn!("a session could not be adopted: {error}"),
        };
        if arrival.dialect == Dialect::Hixie76
            && let Some(ping) = arrival.terms.hub.ping
            && let Err(error) = raw.probe_after(ping)
        {
            log::debug!("{} will not be probed: {error}", raw.peer());
        }
        let mut table = shard.table.borrow_mut();
        let key = table.adopt(raw, arrival);
        if let Some(session) = table.session(key)
            && let Err(error) = shard.poller.add(&session.socket, key)
        {
            log::warn!("{} could not be adopted: {error}", session.socket.peer());
            table.abandon(key);
        }
        shard.relay.route_outgoing(&mut table);
        shard.mailbox().bell.notify_one();
    }

    fn read_now(io: &Stream, buffer: &mut [u8]) -> std::io::Result<usize> {
        io.read_now(buffer)
    }

    fn bound_unsent(io: &Stream) {
        io.bound_unsent();
    }

    fn hands_over(&self) -> bool {
        !self.0.ending.get() && self.0.is_awake()
    }

    fn put_aside(&self, io: Stream, early: Bytes, server: &Arc<str>) {
        let shard = &self.0;
        match io.into_raw() {
            Ok(raw) => {
                shard.aside.borrow_mut().push((raw, early, server.clone()));
                shard.mailbox().aside.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => log::warn!("a connection could not be put aside: {error}"),
        }
    }

    fn files(&self) -> Files {
        self.0.plan.borrow().files.clone()
    }

    fn answered(&self, status: StatusCode) {
        let counters = self.0.counters();
        counters.requests.add(1);
        counters.requests_refused.add(u64::from(status.as_u16() >= 400));
    }

    fn samples(&self) -> Vec<Sample> {
        let gauge = |name, help, label, value: usize| Sample {
            name,
            help,
            kind: SampleKind::Gauge,
            label,
            value: value as u64,
        };
        let mut samples = Counters::samples(self.0.relay.mailboxes().iter().map(|mailbox| &*mailbox.counters));
        for (index, mailbox) in self.0.relay.mailboxes().iter().enumerate() {
            let label = Some(("shard", index.to_string()));
            let help = "Connections open now, upgraded or not.";
            samples.push(gauge("pushd_connections", help, label, mailbox.connections.count()));
        }
        for (hub, members) in &self.0.plan.borrow().hubs {
            let label = Some(("hub", hub.clone()));
            samples.push(gauge("pushd_hub_sessions", "WebSocket sessions open now, by hub.", label, members.count()));
        }
        samples
    }

    fn is_draining(&self) -> bool {
        self.0.ending.get()
    }
}
