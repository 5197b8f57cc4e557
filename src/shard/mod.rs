//! One thread, one runtime, one table: the data plane.
//!
//! Each shard is a thread with a runtime of its own that serves connections from their first byte to their last. Connections that
//! have said nothing yet wait in the `lobby`; HTTP is spoken in tasks ([`crate::http`]); after its upgrade a socket leaves the runtime for
//! the shard's epoll set ([`poller`]) and its session for the [`table`]. The loop in `Shard::run` takes what is ready in turns. Between shards go only
//! messages ([`mailbox`]), by the rules of the [`relay`]. At its end a shard drains, or has its sessions written down for another
//! process ([`handover`], [`parcel`]).

pub mod addresses;
pub mod counters;
mod draining;
mod edge;
pub mod gate;
pub mod handover;
pub mod lane;
pub mod listener;
mod lobby;
pub mod mailbox;
pub mod parcel;
pub mod peer;
pub mod poller;
mod refusal;
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
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::config::limits::{BLOCKED_FILE, BLOCKING_THREADS_MAX, COMMANDS_PER_TURN};
use crate::http::pages::Files;
use crate::http::{self, Site};
use crate::hub::Members;
use crate::session::{Seconds, Terms};
use counters::Counters;
use gate::{Door, Gate};
use listener::Listener;
use lobby::Lobby;
use mailbox::{Command, Mailbox};
use poller::{Events, Poller};
use relay::Relay;
use stream::{Raw, Stream};
use table::{Rebind, SessionKey, Table};

/// How long a shard rests while publications wait for room in another shard.
const ROOM_PAUSE: Duration = Duration::from_millis(1);

/// What the configuration asks of the shards, compiled.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The routes of each server, by its name.
    pub sites: HashMap<String, Arc<Site>>,
    /// The addresses, each accepted by one shard.
    pub listeners: Vec<Arc<Listener>>,
    /// The members of each hub, by its name, for the metrics.
    pub hubs: Vec<(String, Members)>,
    /// How many connections are held at once.
    pub connections_max: usize,
    /// Whether the file says so, and not the limit of open files.
    pub is_connections_max_set: bool,
    /// How many of them may come from one address; `None`: all.
    pub connections_per_address_max: Option<usize>,
    /// The servers that may hold only so many.
    pub doors: HashMap<String, Door>,
    /// What counts them; the same in every plan.
    pub gate: Gate,
    /// The files being sent; the same in every plan.
    pub files: Files,
}

impl Plan {
    /// The same without its addresses.
    fn deaf(&self) -> Plan {
        Plan { listeners: Vec::new(), ..self.clone() }
    }

    /// The terms that the route of `terms` has now; `None`: it is gone.
    fn rebound(&self, terms: &Terms) -> Option<Arc<Terms>> {
        self.sites.get(&terms.server)?.terms(&terms.path).filter(|now| now.hub_id == terms.hub_id).cloned()
    }
}

/// Finds the terms of sessions by a plan. Each route is looked up once, however many sessions it has.
fn rebinding(plan: Arc<Plan>) -> Rebind {
    // The old terms are held, so that no others come to lie where they lay.
    let mut known: HashMap<*const Terms, (Arc<Terms>, Option<Arc<Terms>>)> = HashMap::new();
    Box::new(move |terms| {
        let found = known.entry(Arc::as_ptr(terms)).or_insert_with(|| (terms.clone(), plan.rebound(terms)));
        found.1.clone()
    })
}

/// One shard, as its own thread sees it.
pub(crate) struct Shard {
    index: usize,
    relay: Relay,
    plan: RefCell<Arc<Plan>>,
    table: RefCell<Table<Raw>>,
    poller: Poller,
    lobby: RefCell<Lobby>,
    /// Requests in flight are finished, and no more are taken.
    drain: watch::Sender<bool>,
    /// The server ends, with its sessions or without.
    ending: Cell<bool>,
    /// Nothing is published from here any more: sessions are about to be written down.
    hushed: Cell<bool>,
    /// Connections without a request in flight that wait for the next process, each with what was read of it, and its server.
    aside: RefCell<Vec<(Raw, Bytes, Arc<str>)>>,
    /// Those that are written down; from then on nobody touches any session.
    packed: RefCell<Option<Vec<SessionKey>>>,
    /// The tasks that accept here, by listener.
    accepting: RefCell<Vec<(Arc<Listener>, tokio::task::JoinHandle<()>)>>,
    began: Instant,
    /// What the sessions' clock said when it began.
    clock: Seconds,
    stopped: Cell<bool>,
}

/// Starts shard number `index` on a thread of its own. It takes sessions up, but neither accepts nor reads before it is given a plan
/// by [`Command::Plan`]. `clock` is what the sessions' clock says now.
///
/// # Errors
/// The thread or its runtime could not be made.
pub fn spawn(index: usize, mailboxes: Arc<[Mailbox]>, plan: Arc<Plan>, clock: Seconds) -> io::Result<JoinHandle<()>> {
    // The first runtime of a process panics where it finds no descriptors for its signals: an error now is better.
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
        // A file system that hangs has its thread, but not the end of the process.
        runtime.shutdown_timeout(BLOCKED_FILE);
    })
}

/// Closes the mailbox of a shard when it ends, however it does.
struct Closing(Arc<[Mailbox]>, usize);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0[self.1].close();
    }
}

impl Shard {
    fn new(index: usize, mailboxes: Arc<[Mailbox]>, plan: Arc<Plan>, clock: Seconds) -> io::Result<Shard> {
        let mut table = Table::new(mailboxes[index].counters.clone());
        table.tick(clock);
        table.pause_reading(true);
        Ok(Shard {
            index,
            table: RefCell::new(table),
            relay: Relay::new(index, mailboxes),
            plan: RefCell::new(Arc::new(plan.deaf())),
            poller: Poller::new()?,
            lobby: RefCell::default(),
            drain: watch::Sender::new(false),
            ending: Cell::new(false),
            hushed: Cell::new(false),
            aside: RefCell::default(),
            packed: RefCell::default(),
            accepting: RefCell::default(),
            began: Instant::now(),
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

    /// The loop: wait for anything, take a turn.
    async fn run(self: Rc<Self>) {
        let mut events = Events::default();
        let mut second = tokio::time::interval(Duration::from_secs(1));
        while !self.stopped.get() {
            let (awake, has_work, held_up) = (self.is_awake(), self.has_work(), self.is_held_up());
            tokio::select! {
                ready = self.poller.wait(), if awake => if let Err(error) = ready { log::error!("epoll: {error}") },
                () = self.mailbox().bell.notified() => {}
                _ = second.tick() => {}
                () = tokio::task::yield_now(), if has_work => {}
                () = tokio::time::sleep(ROOM_PAUSE), if held_up && !has_work => {}
            }
            for _ in 0..COMMANDS_PER_TURN {
                let Some(command) = self.mailbox().command() else { break };
                self.obey(command);
            }
            if self.is_awake() {
                self.turn(&mut events);
            }
        }
    }

    /// Whether the next turn has something to do without waiting for it.
    fn has_work(&self) -> bool {
        let waits = || self.table.borrow().has_work() || self.relay.has_publications() || self.has_openings();
        self.mailbox().has_commands() || self.is_awake() && waits()
    }

    /// Whether something waits for room in another shard, which does not tell when there is some.
    fn is_held_up(&self) -> bool {
        self.is_awake() && (self.table.borrow().is_held_up() || self.mailbox().requests().waiting() > 0)
    }

    /// One turn, with the sockets that are ready.
    fn turn(self: &Rc<Self>, events: &mut Events) {
        self.mailbox().turns.fetch_add(1, Ordering::Relaxed);
        self.table.borrow_mut().set_time(self.now());
        let ready = self.poller.take(events);
        let silent = ready.clone().filter(|ready| ready.key.is_silent());
        self.hear_some(silent.map(|ready| ready.key.slot));
        self.expire();
        let sessions = ready.filter(|ready| !ready.key.is_silent());
        self.relay.turn(&mut self.table.borrow_mut(), self.now(), sessions);
    }

    /// What the sessions' clock says.
    fn now(&self) -> Seconds {
        self.clock + self.began.elapsed().as_secs() as Seconds
    }

    fn obey(self: &Rc<Self>, command: Command) {
        match command {
            Command::Serve(raw, early, server) => self.serve(raw, early, server),
            Command::Plan(plan) => {
                self.table.borrow_mut().rebind(rebinding(Arc::new(plan.deaf())));
                *self.plan.borrow_mut() = plan;
                self.table.borrow_mut().pause_reading(false);
                self.accept_as_planned();
            }
            Command::Drain(farewell) => self.drain(farewell),
            Command::TakeUp(sessions) => self.take_up(sessions),
            Command::HandOver(step, done) => {
                // Whoever asked may have lost patience.
                let _ = done.send(self.hand_over(step));
            }
            Command::Stop => self.stopped.set(true),
        }
    }

    /// Starts accepting on the listeners that fell to this shard, and stops where they are gone.
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
            // A listener stays with its shard for life: its number may change in a reload, the shard that accepts does not.
            if !here && listener.is_free_for(number % self.relay.mailboxes().len() == self.index) {
                let task = tokio::task::spawn_local(listener::accept(listener.clone(), self.clone()));
                accepting.push((listener.clone(), task));
            }
        }
    }

    /// Serves a connection that has said something in a task of its own until it ends or upgrades.
    fn speak_http(self: &Rc<Self>, stream: Stream, early: Bytes, server: Arc<str>) {
        let (peer, on_loopback, is_reserve) = (stream.who().to_string(), stream.is_on_loopback(), stream.is_reserve());
        let client = http::Client { server, peer, on_loopback, is_reserve };
        let (edge, drain) = (edge::Edge(self.clone()), self.drain.subscribe());
        let served = async move {
            // There are bytes to parse already, and hyper drops its answer to what it cannot parse where that cannot be written at once.
            if stream.writable().await.is_ok() {
                http::connection::serve(stream, early, client, edge, drain).await;
            }
        };
        let shard = self.clone();
        tokio::task::spawn_local(async move {
            // What a panic left half done is shared by all: a shard that only looks alive is worse than none.
            if AssertUnwindSafe(served).catch_unwind().await.is_err() {
                shard.stopped.set(true);
                shard.mailbox().bell.notify_one();
            }
        });
    }
}
