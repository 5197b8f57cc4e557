//! The shard as the backend of its HTTP connections.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::oneshot;

use super::Shard;
use super::counters::Counters;
use super::gathering::Gathering;
use super::lane::Inquiry;
use super::poller::Poller;
use super::stream::{Raw, Stream};
use super::table::SessionKey;
use crate::config::HubId;
use crate::hook::Hook;
use crate::http::pages::Files;
use crate::http::{Backend, Sample, SampleKind, Site};
use crate::hub::presence::Attendees;
use crate::hub::{Message, Outcome, Partition, Position, Receipt};
use crate::session::{Arrival, Session, Socket};
use crate::wire::Close;

/// A handle to the shard that serves a connection.
#[derive(Clone)]
pub(super) struct Edge(pub(super) Rc<Shard>);

impl Backend for Edge {
    type Io = Stream;

    fn site(&self, server: &str) -> Option<Arc<Site>> {
        self.0.plan.borrow().sites.get(server).cloned()
    }

    async fn publish(&self, message: Message, key: Option<Box<str>>) -> Option<Outcome> {
        let shard = &self.0;
        if shard.publishing_stopped.get() {
            return None;
        }
        let (sender, reached) = oneshot::channel();
        let receipt = Receipt::new(move |outcome| {
            // The request may have been dropped meanwhile.
            let _ = sender.send(outcome);
        });
        let receipt = receipt.with_key(key);
        if !shard.relay.publish(message.with_receipt(receipt), &mut shard.table.borrow_mut()) {
            return None;
        }
        reached.await.ok()
    }

    async fn publish_all(&self, messages: Vec<(Message, Option<Box<str>>)>) -> Option<Vec<Option<Outcome>>> {
        let shard = &self.0;
        if shard.publishing_stopped.get() {
            return None;
        }
        let (gathering, outcomes) = Gathering::of(messages.len());
        let messages = messages.into_iter().zip(gathering.receipts());
        let messages = messages.map(|((message, key), receipt)| message.with_receipt(receipt.with_key(key)));
        if !shard.relay.publish_all(messages) {
            return None;
        }
        outcomes.await.ok()
    }

    fn position(&self, hub: HubId) -> Option<Position> {
        self.0.table.borrow().frontier(hub)
    }

    async fn attendees(&self, hub: HubId, channel: Arc<str>, partition: Partition) -> Option<Attendees> {
        let (sender, attendees) = oneshot::channel();
        let report = Box::new(move |attendees| {
            // The request may have been dropped meanwhile.
            let _ = sender.send(attendees);
        });
        let is_asked = self.0.relay.inquire(Inquiry { hub, channel, report }, partition);
        if is_asked { attendees.await.ok() } else { None }
    }

    fn adopt(&self, io: Stream, arrival: Arrival) {
        match io.into_raw() {
            Ok(raw) => self.0.adopt(raw, arrival, |poller, socket, key| poller.add(socket, key)),
            Err(error) => log::warn!("a session could not be adopted: {error}"),
        }
    }

    fn read_now(io: &mut Stream, buffer: &mut [u8]) -> io::Result<usize> {
        io.read_now(buffer)
    }

    fn bound_unsent(io: &Stream) {
        io.bound_unsent();
    }

    fn hands_over(&self) -> bool {
        !self.0.ending.get() && !self.0.is_packed()
    }

    fn put_aside(&self, io: Stream, early: Bytes, server: &Arc<str>) {
        match io.into_raw() {
            Ok(raw) => self.0.put_aside(raw, early, server.clone()),
            Err(error) => log::warn!("a connection could not be kept for the next process: {error}"),
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
        let plan = self.0.plan.borrow();
        for hub in &plan.hubs {
            let label = Some(("hub", hub.name.clone()));
            samples.push(gauge("pushd_hub_sessions", "Sessions open now, by hub.", label, hub.members.count()));
        }
        let help = "Bytes that the histories of all hubs take in memory, estimated.";
        samples.push(gauge("pushd_history_bytes", help, None, plan.memory.used()));
        samples.push(Sample {
            name: "pushd_history_dropped_total",
            help: "Messages that histories dropped because of memory_max.",
            kind: SampleKind::Counter,
            label: None,
            value: plan.memory.dropped(),
        });
        let certificates = plan.sites.values().filter_map(|site| site.server.tls.as_ref());
        samples.extend(certificates.flat_map(|tls| &tls.certificates).map(|one| Sample {
            name: "pushd_tls_certificate_expiry_timestamp_seconds",
            help: "When a certificate expires, in seconds since 1970.",
            kind: SampleKind::Gauge,
            label: Some(("certificate", one.certificate.display().to_string())),
            value: u64::try_from(one.expires).unwrap_or(0),
        }));
        samples.extend(of_hooks(&plan.hooks));
        // All durable hubs share the store.
        let disk = plan.hubs.iter().find_map(|hub| hub.history.as_ref()?.disk.as_ref());
        samples.extend(disk.map(|disk| Sample {
            name: "pushd_store_commits_total",
            help: "How often the store has written what was queued.",
            kind: SampleKind::Counter,
            label: None,
            value: disk.commits(),
        }));
        samples
    }

    fn is_draining(&self) -> bool {
        self.0.ending.get()
    }
}

/// The figures of hooks.
fn of_hooks(hooks: &[Arc<Hook>]) -> impl Iterator<Item = Sample> {
    type Figure = fn(&Hook) -> u64;
    let figures: [(_, _, _, Figure); 4] = [
        ("pushd_hook_questions_total", "Questions to the backend.", SampleKind::Counter, |hook| {
            hook.figures().asked.load(Ordering::Relaxed)
        }),
        ("pushd_hook_failures_total", "Questions without an answer that can be used.", SampleKind::Counter, |hook| {
            hook.figures().failed.load(Ordering::Relaxed)
        }),
        ("pushd_hook_refusals_total", "Requests that the backend refused.", SampleKind::Counter, |hook| {
            hook.figures().refused.load(Ordering::Relaxed)
        }),
        (
            "pushd_hook_open",
            "Whether the backend failed too often, and is not asked for a while.",
            SampleKind::Gauge,
            |hook| u64::from(hook.is_open()),
        ),
    ];
    figures.into_iter().flat_map(move |(name, help, kind, figure)| {
        let sample = move |hook: &Arc<Hook>| {
            let label = Some(("hook", hook.config.name.to_string()));
            Sample { name, help, kind, label, value: figure(hook) }
        };
        hooks.iter().map(sample)
    })
}

impl Shard {
    /// Makes a session of an upgraded connection. `watch` adds its socket to the poller.
    pub(super) fn adopt(
        &self,
        raw: Raw,
        arrival: Arrival,
        watch: impl FnOnce(&Poller, &Raw, SessionKey) -> io::Result<()>,
    ) {
        if self.is_packed() {
            // The sessions for the next process are already packed, and this process is about to end: the connection is dropped.
            return;
        }
        let hub = &arrival.terms.hub;
        // A poll ends soon anyway.
        if !arrival.framing.answers()
            && !arrival.framing.is_poll()
            && let Some(ping) = hub.ping
            && let Err(error) = raw.probe_after(ping, hub.pong_timeout)
        {
            log::debug!("{} will not be probed: {error}", raw.peer());
        }
        // A reload may have happened since the request was parsed.
        let rebound = self.plan.borrow().rebound(&arrival.terms);
        let is_gone = rebound.is_none();
        let terms = rebound.unwrap_or(arrival.terms);
        let mut table = self.table.borrow_mut();
        let key = table.adopt(raw, Arrival { terms, ..arrival });
        if is_gone {
            table.send_away(key.slot, &Close::ROUTE_REMOVED);
        } else if table.session(key).is_some_and(Session::is_revoked) {
            table.send_away(key.slot, &Close::TOKEN_REVOKED);
        }
        if let Some(session) = table.session(key)
            && let Err(error) = watch(&self.poller, session.socket(), key)
        {
            log::warn!("{} could not be adopted: {error}", session.socket().peer());
            table.abandon(key);
        }
        if table.session(key).is_some_and(|session| session.socket().has_ended()) {
            // The kernel does not report that again.
            table.readable(key, true);
        }
        self.relay.relay_published(&mut table);
        self.mailbox().bell.notify_one();
    }
}
