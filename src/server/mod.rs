//! Wiring: a valid configuration becomes bound sockets, then a running server, which can be reloaded and ended.
//!
//! [`bind`](Bound::bind) runs in the launching process. [`Bound::serve`] runs in the daemon and starts the threads.
//! Everything here runs on the control thread and may block; shards receive commands through their mailboxes.

mod bind;
mod certificates;
mod descriptors;
mod durable;
mod error;
mod estate;
mod feeds;
mod handover;
mod hooks;
mod hubs;
mod machine;
mod memory;
mod presence;
mod progress;
pub mod rehearsal;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::keys::{self, Change};
use crate::config::limits::{LINGER_ENDING, LISTENER_END};
use crate::config::{self, Action, Config, Workers};
pub use crate::http::access::install as write_access_log;
use crate::http::pages::Files;
use crate::http::{self, HubInUse};
use crate::hub::Members;
use crate::hub::history::Memory;
use crate::shard::clock::Clock;
use crate::shard::counters::Counters;
use crate::shard::gate::{Door, Gate};
use crate::shard::listener::Listener;
use crate::shard::mailbox::{Command, Farewell, Mailbox};
use crate::shard::owner::PlannedHistory;
use crate::shard::{self, Plan, PlannedHub};
use crate::wire::Close;
use bind::{AS_OURSELVES, Listeners, bound_name};
pub use bind::{BindAs, BindError};
use certificates::Watch;
use descriptors::Descriptors;
use durable::Durable;
pub use error::ServeError;
pub use estate::Inherited;
use feeds::{Feeds, Planned};
pub use handover::{Handover, TRIED};
use hooks::Hooks;
use hubs::Hubs;

/// How often to check whether all connections have ended.
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);

/// A configuration whose addresses are bound.
#[derive(Debug)]
pub struct Bound {
    config: Config,
    listeners: Listeners,
    inherited: Inherited,
}

/// State that survives a reload.
#[derive(Debug, Default)]
struct Lasting {
    /// The hubs, each with its id.
    hubs: Hubs,
    /// The number of connections of each server that ever had a limit, by its name.
    servers: HashMap<String, Members>,
    /// Counts the connections for the other limits.
    gate: Gate,
    /// The files being sent.
    files: Files,
    /// The memory of all histories.
    memory: Memory,
    /// The durable hubs.
    durable: Durable,
    /// The hooks, and the thread that asks.
    hooks: Hooks,
}

/// Why a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A stop: sessions are closed as "going away".
    Stop,
    /// A restart without handover: clients are asked to reconnect, spread over time.
    Restart,
    /// After a handover: clients that could not be handed over are asked to reconnect, and get little time.
    HandedOver,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    config: Config,
    /// The `[daemon]` section at the start, part of which only a restart can change.
    began_with: config::Daemon,
    listeners: Listeners,
    inherited: Inherited,
    lasting: Lasting,
    clock: Clock,
    mailboxes: Arc<[Mailbox]>,
    shards: Vec<JoinHandle<()>>,
    /// `None` once the server is about to end.
    feeds: Option<Feeds>,
    /// The files of certificates.
    certificates: Watch,
}

impl Bound {
    /// Binds every address of `config` that is not inherited; Unix sockets by `bind_as`.
    ///
    /// # Errors
    /// The first address that could not be bound.
    pub fn bind(config: Config, mut inherited: Inherited, bind_as: BindAs<'_>) -> Result<Bound, BindError> {
        let kept = inherited.take_listeners();
        let listeners = bind::bind(&config, &kept, &inherited, bind_as)?;
        Ok(Bound { config, listeners, inherited })
    }

    /// Whether sessions of the previous process wait to be taken up.
    pub fn takes_up(&self) -> bool {
        self.inherited.has_sessions()
    }

    /// Starts serving, first the sessions of the previous process.
    ///
    /// # Errors
    /// The store cannot be opened, a thread or a runtime could not be created, or a shard could not start. Then nothing that was
    /// inherited is consumed.
    pub fn serve(self) -> Result<Server, ServeError> {
        let Bound { config, listeners, mut inherited } = self;
        let mut lasting = Lasting::default();
        let workers = match config.daemon.workers {
            Workers::Auto => std::thread::available_parallelism().map_or(1, usize::from),
            Workers::Count(count) => count.into(),
        };
        let histories = inherited.histories(&mut lasting.hubs);
        lasting.hooks.begin(&config.hooks)?;
        lasting.durable.begin(&config, &mut lasting.hubs)?;
        let (plan, planned_feeds) = compile(&config, workers, &listeners, &mut lasting);
        let plan = Arc::new(plan);
        let mailboxes: Arc<[Mailbox]> = (0..workers).map(|_| Mailbox::default()).collect();
        let clock = Clock::at(inherited.clock());
        let shards = (0..workers).map(|index| shard::spawn(index, mailboxes.clone(), plan.clone(), clock));
        let shards = shards.collect::<io::Result<_>>()?;
        if !estate::wait_for_shards(&mailboxes) {
            return Err(io::Error::other("a shard could not start").into());
        }
        let feeds = Feeds::start(mailboxes.clone(), std::mem::take(&mut inherited.feeds))?;
        // No step after this can fail: a start that fails before leaves the sessions to the next one.
        memory::remember(histories, &plan, &mailboxes);
        lasting.durable.remember(&plan, &mailboxes, clock.now());
        memory::own(&plan, &mailboxes);
        let silent = estate::take_up(inherited.open_parcels(), &plan, &mailboxes);
        // All sessions are in place: now shards read them, and accept connections.
        mailboxes.iter().for_each(|mailbox| mailbox.send(Command::Plan(plan.clone())));
        silent.into_iter().for_each(|(index, command)| mailboxes[index].send(command));
        feeds.change(planned_feeds);
        log_addresses(&config, &listeners);
        let began_with = config.daemon.clone();
        Ok(Server {
            config,
            began_with,
            listeners,
            inherited,
            lasting,
            clock,
            mailboxes,
            shards,
            feeds: Some(feeds),
            certificates: Watch::default(),
        })
    }
}

impl Server {
    /// Applies another configuration as a whole. Connections stay, except sessions whose route is gone. Returns the
    /// keys that only a restart can change.
    ///
    /// # Errors
    /// An address could not be bound, or the store cannot be opened that a new hub needs. Then nothing has changed.
    pub fn reload(&mut self, mut config: Config) -> Result<Vec<String>, ServeError> {
        let listeners = bind::bind(&config, &self.listeners, &self.inherited, AS_OURSELVES)?;
        let fixed = self.keep_fixed(&mut config);
        self.lasting.hooks.begin(&config.hooks)?;
        self.lasting.durable.begin(&config, &mut self.lasting.hubs)?;
        let (plan, planned_feeds) = compile(&config, self.mailboxes.len(), &listeners, &mut self.lasting);
        let plan = Arc::new(plan);
        self.lasting.durable.remember(&plan, &self.mailboxes, self.clock.now());
        memory::own(&plan, &self.mailboxes);
        for mailbox in self.mailboxes.iter() {
            mailbox.send(Command::Plan(plan.clone()));
        }
        if let Some(feeds) = &self.feeds {
            feeds.change(planned_feeds);
        }
        let ended = self.listeners.iter().filter(|(listen, _)| !listeners.iter().any(|(stays, _)| stays == listen));
        bind::unlink(ended.map(|(_, listener)| listener));
        log_addresses(&config, &listeners);
        let before = std::mem::replace(&mut self.listeners, listeners);
        self.config = config;
        self.wait_for_end_of(before);
        Ok(fixed)
    }

    /// Takes what only a restart can change from the settings in force. Returns the names of the keys in which these differ.
    fn keep_fixed(&self, config: &mut Config) -> Vec<String> {
        // The process has used those of `[daemon]` already, and does not read them again.
        let mut fixed = needs_restart(&self.began_with, &config.daemon);
        let store = config.store.keep_fixed(&self.config.store);
        fixed.extend(store.iter().map(|key| format!("store.{key}")));
        fixed.extend(self.lasting.hubs.keep_fixed(&mut config.hubs));
        fixed
    }

    /// Waits until the shards have closed those listeners of `before` that are no longer configured: the next reload
    /// may need their addresses.
    fn wait_for_end_of(&self, before: Listeners) {
        let stays = |listener: &Arc<Listener>| self.listeners.iter().any(|(_, stays)| Arc::ptr_eq(stays, listener));
        let ended = before.into_iter().filter(|(_, listener)| !stays(listener));
        let ended: Vec<Weak<Listener>> = ended.map(|(_, listener)| Arc::downgrade(&listener)).collect();
        let deadline = Instant::now() + LISTENER_END;
        while ended.iter().any(|listener| listener.strong_count() > 0) && Instant::now() < deadline {
            std::thread::sleep(DRAIN_INTERVAL);
        }
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The number of connections.
    pub fn connections(&self) -> usize {
        self.mailboxes.iter().map(|mailbox| mailbox.connections.count()).sum()
    }

    /// How many turns each shard has taken. A shard that works takes at least one every second.
    pub fn turns(&self) -> Vec<u64> {
        self.mailboxes.iter().map(|mailbox| mailbox.turns.load(Ordering::Relaxed)).collect()
    }

    /// A status line for the service manager.
    pub fn status(&self) -> String {
        let sum = |figure: fn(&Counters) -> u64| self.mailboxes.iter().map(|m| figure(&m.counters)).sum::<u64>();
        let (sessions, published, delivered) =
            (sum(|c| c.sessions.value()), sum(|c| c.published.value()), sum(|c| c.delivered.value()));
        // Without the number of channels: a channel that several shards have would be counted several times.
        let connections = self.connections();
        format!("{connections} connections, {sessions} sessions; {published} publications, {delivered} deliveries")
    }

    /// Whether every shard still runs, and every thread of the store.
    pub fn all_shards_run(&self) -> bool {
        self.shards.iter().all(|shard| !shard.is_finished()) && self.lasting.durable.runs()
    }

    /// Ends gracefully: accepts no connections, finishes requests in flight, closes sessions, and cuts off connections
    /// that remain after the grace. Returns how many were cut off.
    pub fn drain(self, why: End) -> usize {
        let Server { config, listeners, mailboxes, shards, feeds, lasting, .. } = self;
        let grace = if why == End::HandedOver { LINGER_ENDING.min(config.daemon.grace) } else { config.daemon.grace };
        let deadline = Instant::now() + grace;
        if let Some(feeds) = feeds {
            feeds.stop();
        }
        let farewell = match why {
            End::Stop => Farewell { close: Close::GOING_AWAY, window: Duration::ZERO },
            End::HandedOver => Farewell { close: Close::RESTART, window: Duration::ZERO },
            End::Restart => Farewell { close: Close::RESTART, window: grace / 2 },
        };
        for mailbox in mailboxes.iter() {
            mailbox.send(Command::Drain(farewell.clone()));
        }
        // New clients are refused at once and do not wait in the kernel's queue, unless the next process has the
        // listeners.
        if why != End::HandedOver {
            bind::unlink(listeners.iter().map(|(_, listener)| listener));
        }
        drop(listeners);
        let remaining = || mailboxes.iter().map(|mailbox| mailbox.connections.count()).sum::<usize>();
        while remaining() > 0 && Instant::now() < deadline {
            std::thread::sleep(DRAIN_INTERVAL);
        }
        let cut = remaining();
        stop(&mailboxes, shards);
        lasting.durable.close();
        cut
    }
}

/// Ends the shards at once.
fn stop(mailboxes: &[Mailbox], shards: Vec<JoinHandle<()>>) {
    mailboxes.iter().for_each(|mailbox| mailbox.send(Command::Stop));
    for shard in shards {
        if shard.join().is_err() {
            log::error!("a shard ended in a panic");
        }
    }
}

/// Derives the plan of the shards and the list of feeds from a configuration.
fn compile(config: &Config, shards: usize, listeners: &Listeners, lasting: &mut Lasting) -> (Plan, Vec<Planned>) {
    let in_use: Vec<HubInUse> = lasting.hubs.number(&config.hubs);
    let sites = http::sites(&config.servers, &in_use, &machine::names(), lasting.hooks.by_name());
    let plan_feed = |feed| Planned::new(feed, &in_use, &mut lasting.durable);
    let feeds = config.feeds.iter().map(plan_feed).collect();
    // The limit is raised whatever the file says, so that there are descriptors for all connections that it allows.
    let descriptors = Descriptors::find(config, shards);
    let allowed = descriptors.connections;
    let connections_max = config.daemon.connections_max.map_or(allowed, usize::from);
    if connections_max > allowed {
        log::warn!("connections_max is {connections_max}, but the limit of open files allows only {allowed}");
    }
    lasting.files.allow(descriptors.files);
    lasting.memory.set_max(config.store.memory_bytes_max);
    let doors = config.servers.iter().filter_map(|server| {
        let connections_max = server.connections_max?.get();
        let held = lasting.servers.entry(server.name.clone()).or_default().clone();
        Some((server.name.clone(), Door { connections_max, held }))
    });
    let doors = doors.collect();
    let plan = Plan {
        sites,
        listeners: listeners.iter().map(|(_, listener)| listener.clone()).collect(),
        hubs: in_use.iter().map(|hub| planned(hub, lasting)).collect(),
        memory: lasting.memory.clone(),
        connections_max,
        is_connections_max_set: config.daemon.connections_max.is_some(),
        connections_per_address_max: config.daemon.connections_per_address_max.map(usize::from),
        doors,
        gate: lasting.gate.clone(),
        files: lasting.files.clone(),
        hooks: lasting.hooks.sorted(),
    };
    (plan, feeds)
}

/// A hub as shards know it.
fn planned(hub: &HubInUse, lasting: &mut Lasting) -> PlannedHub {
    let history = hub.hub.history.as_ref().map(|history| PlannedHistory {
        limits: history.into(),
        beginning: lasting.hubs.beginning(&hub.hub.name),
        disk: lasting.durable.disk(&hub.hub.name),
    });
    let presence_channel = hub.hub.presence_channel.clone().filter(|_| hub.hub.presence);
    PlannedHub { name: hub.hub.name.clone(), id: hub.id, members: hub.members.clone(), history, presence_channel }
}

fn log_addresses(config: &Config, listeners: &Listeners) {
    for (listen, listener) in listeners {
        log::info!("Listening on {} (server {})", bound_name(listen, listener), listener.server);
    }
    for server in &config.servers {
        for route in &server.routes {
            if let Action::WebSocket(socket) = &route.action
                && socket.draft76
            {
                log::debug!("draft-76 is served at {} of server {}", route.pattern, server.name);
            }
        }
    }
}

/// The keys of `[daemon]` that differ and that only a restart can change.
fn needs_restart(now: &config::Daemon, new: &config::Daemon) -> Vec<String> {
    let fixed = |name: &&str| keys::DAEMON.key(name).is_some_and(|key| key.change == Change::Restart);
    let changed = now.changed_keys(new).into_iter();
    changed.filter(fixed).map(|name| format!("daemon.{name}")).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::keys::Kind;

    /// A valid configuration with this value of a key of `[daemon]`.
    fn file(key: &str, value: &str) -> Config {
        let text = format!(
            "[daemon]\n{key} = {value}\n[server.s]\nlisten = \"127.0.0.1:1\"\nroutes.\"/\" = {{ health = true }}\n"
        );
        config::parse(Path::new("/x.toml"), &text).unwrap_or_else(|errors| panic!("{key}: {errors}"))
    }

    /// A hub with these keys.
    fn hub(keys: &str) -> config::Hub {
        let file = "[server.s]\nlisten = \"127.0.0.1:1\"\nroutes.\"/\" = { health = true }\n[hub.h]\n";
        let mut config = config::parse(Path::new("/x.toml"), &format!("{file}{keys}\n")).unwrap();
        config.hubs.remove(0)
    }

    #[test]
    fn the_keys_that_need_a_restart_are_those_of_the_table_of_keys() {
        for section in keys::SECTIONS {
            let fixed = section.keys.iter().filter(|key| key.change == Change::Restart).map(|key| key.name);
            let fixed: Vec<_> = fixed.collect();
            match *section {
                keys::DAEMON => {}
                keys::HUB => {
                    let [now, new] = ["", "history.messages = 1\ndurable = true\npresence = true"].map(hub);
                    let mut kept = new.clone();
                    assert_eq!(kept.keep_fixed(&now), fixed);
                    assert_eq!(kept, now);
                    kept = hub("history.messages = 2\ndurable = true\npresence = true\npresence_channel = \"x\"");
                    assert_eq!(kept.keep_fixed(&new), [""; 0]);
                    assert_ne!(kept.history, new.history, "its limits change at once");
                }
                keys::STORE => {
                    let now = config::Store::default();
                    let sync = config::Sync::Every(Duration::from_secs(1));
                    let mut new = config::Store { dir: "other".into(), sync, memory_bytes_max: 1 << 20 };
                    assert_eq!(new.keep_fixed(&now), fixed);
                    assert_eq!(new, config::Store { memory_bytes_max: 1 << 20, ..now });
                }
                _ => assert_eq!(fixed, [""; 0], "{}", section.title),
            }
        }
        for key in keys::DAEMON.keys {
            let values = match key.kind {
                Kind::Duration { .. } => ["\"1s\"", "\"2s\""],
                Kind::Mask => ["\"027\"", "\"022\""],
                Kind::Count { .. } | Kind::CountOrAuto(_) => ["1", "2"],
                _ => ["\"a\"", "\"b\""],
            };
            let [now, new] = values.map(|value| file(key.name, value));
            assert_eq!(now.daemon.changed_keys(&new.daemon), [key.name]);
            assert_eq!(
                !needs_restart(&now.daemon, &new.daemon).is_empty(),
                key.change == Change::Restart,
                "{}",
                key.name
            );
            assert_eq!(needs_restart(&now.daemon, &now.daemon), [""; 0]);
        }
    }
}
