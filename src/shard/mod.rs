//! The data plane: each shard is one thread with one runtime and one table of sessions.
//!
//! A shard serves a connection from its first byte to its last. A connection that has sent nothing yet waits in the `lobby`. HTTP
//! is served in tasks ([`crate::http`]). After its upgrade a socket moves from the runtime to the epoll set of the shard
//! ([`poller`]), and its session is in the [`table`]. The loop in `Shard::run` takes turns; each turn does what is ready. Shards
//! exchange only messages ([`mailbox`]), by the rules of the [`relay`]. At its end a shard drains, or its sessions are packed for
//! another process ([`handover`], [`parcel`]).

pub mod addresses;
pub mod clock;
pub mod counters;
pub mod disk;
mod draining;
mod edge;
mod encrypted;
pub mod gate;
mod gathering;
pub mod handover;
pub mod histories;
pub mod lane;
pub mod listener;
mod lobby;
pub mod mailbox;
pub mod owner;
pub mod parcel;
pub mod peer;
pub mod poller;
mod refusal;
pub mod register;
pub mod relay;
pub mod socket_file;
pub mod stream;
pub mod table;
#[cfg(test)]
mod testing;
pub mod wheel;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::config::limits::{BLOCKED_FILE, BLOCKING_THREADS_MAX, COMMANDS_PER_TURN};
use crate::config::{HubId, Template};
use crate::hook::Hook;
use crate::http::pages::Files;
use crate::http::{self, Site};
use crate::hub::Members;
use crate::hub::history::Memory;
use crate::session::{Seconds, Terms};
use clock::Clock;
use counters::Counters;
use gate::{Door, Gate};
use listener::Listener;
use lobby::Lobby;
use mailbox::{Command, Mailbox};
use owner::PlannedHistory;
use poller::{Events, Poller};
use register::Teller;
use relay::Relay;
use stream::{Raw, Stream};
use table::{Rebind, SessionKey, Table};

/// The interval at which a shard tries again while the lanes of another shard are full.
const FULL_LANE_PAUSE: Duration = Duration::from_millis(1);

/// The configuration of the shards, compiled.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The routes of each server, by its name.
    pub sites: HashMap<String, Arc<Site>>,
    /// The listeners. One shard accepts on each.
    pub listeners: Vec<Arc<Listener>>,
    /// The hubs.
    pub hubs: Vec<PlannedHub>,
    /// The memory of all histories. All plans share it.
    pub memory: Memory,
    /// The maximum number of connections.
    pub connections_max: usize,
    /// Whether this number is configured. Otherwise it follows from the limit of open files.
    pub is_connections_max_set: bool,
    /// The maximum number of connections of one address. `None`: there is no limit.
    pub connections_per_address_max: Option<usize>,
    /// The servers with a limit of connections, by name.
    pub doors: HashMap<String, Door>,
    /// The counts of connections. All plans share it.
    pub gate: Gate,
    /// The files that are being sent. All plans share it.
    pub files: Files,
    /// The hooks, for their figures.
    pub hooks: Vec<Arc<Hook>>,
}

/// A hub, as shards know it.
#[derive(Debug, Clone)]
pub struct PlannedHub {
    /// NAME in `[hub.NAME]`.
    pub name: String,
    /// Its number.
    pub id: HubId,
    /// The number of its sessions.
    pub members: Members,
    /// What it remembers.
    pub history: Option<PlannedHistory>,
    /// Where it publishes who joins and leaves.
    pub presence_channel: Option<Template>,
}

impl Plan {
    /// The same plan without its listeners.
    fn without_listeners(&self) -> Plan {
        Plan { listeners: Vec::new(), ..self.clone() }
    }

    /// The hub of this NAME.
    pub fn hub(&self, name: &str) -> Option<&PlannedHub> {
        self.hubs.iter().find(|hub| hub.name == name)
    }

    /// The hubs with history.
    fn histories(&self) -> impl Iterator<Item = (HubId, &PlannedHistory)> {
        self.hubs.iter().filter_map(|hub| Some((hub.id, hub.history.as_ref()?)))
    }

    /// The present terms of the route of `terms`. `None`: it is no longer configured, or is of another kind.
    fn rebound(&self, terms: &Terms) -> Option<Arc<Terms>> {
        let is_same = |now: &&Arc<Terms>| (now.hub_id, now.transport) == (terms.hub_id, terms.transport);
        self.sites.get(&terms.server)?.terms(&terms.path).filter(is_same).cloned()
    }
}

/// Finds the terms of sessions in a plan. Each route is looked up once for all its sessions.
fn rebinding(plan: Arc<Plan>) -> Rebind {
    // The key is the address of the old terms. The entry holds them, so that the address is not reused.
    let mut known: HashMap<*const Terms, (Arc<Terms>, Option<Arc<Terms>>)> = HashMap::new();
    Box::new(move |terms| {
        let found = known.entry(Arc::as_ptr(terms)).or_insert_with(|| (terms.clone(), plan.rebound(terms)));
        found.1.clone()
    })
}

/// One shard, for its own thread.
pub(crate) struct Shard {
    index: usize,
    relay: Relay,
    plan: RefCell<Arc<Plan>>,
    table: RefCell<Table<Raw>>,
    poller: Poller,
    lobby: RefCell<Lobby>,
    /// Whether requests in flight are finished and no more are accepted.
    drain: watch::Sender<bool>,
    /// Whether the server ends and no other process continues.
    ending: Cell<bool>,
    /// Whether publishing has stopped, because the sessions are about to be packed.
    publishing_stopped: Cell<bool>,
    /// Connections without a request in flight that are kept for the next process, each with the bytes that were read of it, and
    /// its server.
    idle_connections: RefCell<Vec<(Raw, Bytes, Arc<str>)>>,
    /// The packed sessions. While this is set, no session may be touched.
    packed: RefCell<Option<Vec<SessionKey>>>,
    /// The tasks that accept here, by listener.
    accepting: RefCell<Vec<(Arc<Listener>, tokio::task::JoinHandle<()>)>>,
    clock: Clock,
    stopped: Cell<bool>,
}

/// Starts shard number `index` on a thread of its own. It takes up sessions, but neither accepts nor reads before it gets a plan by
/// [`Command::Plan`].
///
/// # Errors
/// The thread or its runtime could not be made.
pub fn spawn(index: usize, mailboxes: Arc<[Mailbox]>, plan: Arc<Plan>, clock: Clock) -> io::Result<JoinHandle<()>> {
    // The first runtime of a process panics if it gets no descriptors for its signals. This check returns an error instead.
    if index == 0 {
        drop((UnixStream::pair()?, UnixStream::pair()?, UnixStream::pair()?, UnixStream::pair()?));
    }
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_io().enable_time().max_blocking_threads(BLOCKING_THREADS_MAX).build()?;
    std::thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
        let _closing = Closing(mailboxes.clone(), index);
        let local = LocalSet::new();
        let served = local.block_on(&runtime, async {
            let shard = Rc::new(Shard::new(index, mailboxes, plan, clock)?);
            shard.run().await;
            Ok::<_, io::Error>(())
        });
        if let Err(error) = served {
            log::error!("shard {index} could not start: {error}");
        }
        drop(local);
        // A file system that hangs may block a thread, but not the end of the process.
        runtime.shutdown_timeout(BLOCKED_FILE);
    })
}

/// Closes the mailbox of a shard when its thread ends, also by a panic.
struct Closing(Arc<[Mailbox]>, usize);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0[self.1].close();
    }
}

impl Shard {
    fn new(index: usize, mailboxes: Arc<[Mailbox]>, plan: Arc<Plan>, clock: Clock) -> io::Result<Shard> {
        let mut table = Table::new(mailboxes[index].counters.clone());
        table.tick(clock.now());
        table.pause_reading(true);
        let relay = Relay::new(index, mailboxes);
        relay.register().hold();
        Ok(Shard {
            index,
            table: RefCell::new(table),
            relay,
            plan: RefCell::new(Arc::new(plan.without_listeners())),
            poller: Poller::new()?,
            lobby: RefCell::default(),
            drain: watch::Sender::new(false),
            ending: Cell::new(false),
            publishing_stopped: Cell::new(false),
            idle_connections: RefCell::default(),
            packed: RefCell::default(),
            accepting: RefCell::default(),
            clock,
            stopped: Cell::new(false),
        })
    }

    fn mailbox(&self) -> &Mailbox {
        self.relay.mailbox()
    }

    fn counters(&self) -> &Counters {
        &self.mailbox().counters
    }

    fn plan(&self) -> Arc<Plan> {
        self.plan.borrow().clone()
    }

    /// The loop: wait for an event, take a turn.
    async fn run(self: Rc<Self>) {
        let mut events = Events::default();
        let mut second = tokio::time::interval(Duration::from_secs(1));
        while !self.stopped.get() {
            let (packed, has_work, held_up) = (self.is_packed(), self.has_work(), self.is_held_up());
            tokio::select! {
                ready = self.poller.wait(), if !packed => if let Err(error) = ready { log::error!("epoll: {error}") },
                () = self.mailbox().bell.notified() => {}
                _ = second.tick() => {}
                () = tokio::task::yield_now(), if has_work => {}
                () = tokio::time::sleep(FULL_LANE_PAUSE), if held_up && !has_work => {}
            }
            for _ in 0..COMMANDS_PER_TURN {
                let Some(command) = self.mailbox().command() else { break };
                self.execute(command);
            }
            if !self.is_packed() {
                self.turn(&mut events);
            }
        }
    }

    /// Whether the next turn has something to do already.
    fn has_work(&self) -> bool {
        let waits = || self.table.borrow().has_work() || self.relay.has_work() || self.has_ready_connections();
        self.mailbox().has_commands() || !self.is_packed() && waits()
    }

    /// Whether something waits because the lanes of another shard are full. That shard does not notify when they are not full any
    /// longer.
    fn is_held_up(&self) -> bool {
        !self.is_packed() && (self.table.borrow().is_held_up() || self.mailbox().requests().waiting() > 0)
    }

    /// One turn, with the sockets that are ready.
    fn turn(self: &Rc<Self>, events: &mut Events) {
        self.mailbox().turns.fetch_add(1, Ordering::Relaxed);
        self.table.borrow_mut().set_time(self.now());
        let ready = self.poller.take(events);
        let silent = ready.clone().filter(|ready| ready.key.is_silent());
        self.read_lobby(silent.map(|ready| ready.key.slot));
        self.expire();
        let sessions = ready.filter(|ready| !ready.key.is_silent());
        self.relay.turn(&mut self.table.borrow_mut(), self.now(), sessions);
    }

    /// The time of the clock of the sessions.
    fn now(&self) -> Seconds {
        self.clock.now()
    }

    fn execute(self: &Rc<Self>, command: Command) {
        match command {
            Command::Serve(raw, early, server) => self.serve(raw, early, server),
            Command::Own(plan) => self.relay.own(plan.histories(), &plan.memory),
            Command::Plan(plan) => {
                self.plan_histories(&plan);
                self.plan_presence(&plan);
                self.table.borrow_mut().rebind(rebinding(Arc::new(plan.without_listeners())));
                *self.plan.borrow_mut() = plan;
                self.table.borrow_mut().pause_reading(false);
                self.accept_as_planned();
            }
            Command::Drain(farewell) => self.drain(farewell),
            Command::Expect(members) => self.relay.register().expect(members),
            Command::TakeUp(sessions) => self.take_up(sessions),
            Command::Inherit(hub, remembered) => {
                let (remembered, keys) = *remembered;
                self.relay.owner().inherit(hub, remembered, keys);
            }
            Command::HandOver(step, done) => {
                // The server may have stopped waiting for the answer.
                let _ = done.send(self.hand_over(step));
            }
            Command::Stop => self.stopped.set(true),
        }
    }

    /// Goes by the hubs with history of a plan.
    fn plan_histories(&self, plan: &Plan) {
        self.table.borrow_mut().set_frontiers(plan.histories().map(|(hub, history)| (hub, history.beginning)));
        self.relay.owner().forget_others(&plan.histories().map(|(hub, _)| hub).collect());
    }

    /// Goes by the hubs with presence of a plan. The first one comes when all sessions of the previous process are taken up.
    fn plan_presence(&self, plan: &Plan) {
        let tellers = plan.hubs.iter().filter_map(|hub| {
            let template = hub.presence_channel.clone()?;
            Some((hub.id, Teller { template, has_history: hub.history.is_some() }))
        });
        self.relay.register().set_tellers(tellers, self.now());
    }

    /// Starts to accept on the listeners of this shard, and stops on those that are no longer configured.
    fn accept_as_planned(self: &Rc<Self>) {
        let plan = self.plan();
        let mut accepting = self.accepting.borrow_mut();
        accepting.retain(|(listener, task)| {
            let stays = plan.listeners.iter().any(|planned| Arc::ptr_eq(planned, listener));
            if !stays {
                task.abort();
            }
            stays
        });
        for (number, listener) in plan.listeners.iter().enumerate() {
            let here = accepting.iter().any(|(accepted, _)| Arc::ptr_eq(accepted, listener));
            // The number of a listener may change in a reload. The shard that claimed it keeps it.
            if !here && number % self.relay.mailboxes().len() == self.index && listener.claim() {
                let task = tokio::task::spawn_local(listener::accept(listener.clone(), self.clone()));
                accepting.push((listener.clone(), task));
            }
        }
    }

    /// Serves HTTP on a connection, in a task of its own, until the connection ends or upgrades.
    fn serve_http(self: &Rc<Self>, stream: Stream, early: Bytes, server: Arc<str>) {
        let (remote, on_loopback, is_reserve) = (stream.remote(), stream.is_on_loopback(), stream.is_reserve());
        let client = http::Client { server, peer: remote.to_string(), address: remote.ip(), on_loopback, is_reserve };
        let (edge, drain) = (edge::Edge(self.clone()), self.drain.subscribe());
        let served = async move {
            // `early` is parsed at once. If it is invalid, hyper drops its answer unless the socket is known to be writable.
            if stream.writable().await.is_ok() {
                http::connection::serve(stream, early, client, edge, drain).await;
            }
        };
        let shard = self.clone();
        tokio::task::spawn_local(async move {
            // After a panic the state that all connections share may be inconsistent: the shard stops.
            if AssertUnwindSafe(served).catch_unwind().await.is_err() {
                shard.stopped.set(true);
                shard.mailbox().bell.notify_one();
            }
        });
    }
}
