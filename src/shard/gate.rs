//! The limits of connections: their counts, and the log lines when a limit is reached.
//!
//! There are three limits: of the process, of a server, and of an address. If one of the first two is reached, a connection from
//! this machine is still admitted to the [reserve](CONNECTIONS_RESERVED): so a full server still answers health checks, metrics,
//! and publishing. All other connections are refused (`refusal`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::Plan;
use super::addresses::{Addresses, CountedAddress};
use super::listener::Accepted;
use crate::config::limits::{CONNECTIONS_RESERVED, REFUSALS_AT_ONCE, REFUSALS_LOGGED_EVERY};
use crate::hub::{Members, Membership};

/// The gate that each connection passes: it holds the counts. All shards share it, and reloads keep it.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    /// The connections of each address.
    pub addresses: Addresses,
    reserve: Members,
    refusing: Members,
    logged: Arc<Mutex<HashMap<Limit, Logged>>>,
}

/// The door of a server that has a `connections_max`: the limit, and the count.
#[derive(Debug, Clone)]
pub struct Door {
    /// The limit.
    pub connections_max: usize,
    /// The count.
    pub held: Members,
}

/// The limited counts that a connection is part of. They are lowered when this is dropped.
#[derive(Debug, Default)]
pub struct Counted {
    /// That of its address.
    pub address: Option<CountedAddress>,
    /// That of its server.
    pub server: Option<Membership>,
    /// That of the reserve.
    pub reserve: Option<Membership>,
}

impl Counted {
    /// Boxed. `None`: it is part of no limited count.
    pub fn boxed(self) -> Option<Box<Counted>> {
        let any = self.address.is_some() || self.server.is_some() || self.reserve.is_some();
        any.then(|| Box::new(self))
    }
}

/// A limit that was reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Of the process.
    Process,
    /// Of this server.
    Server(String),
    /// Of an address.
    Address,
}

/// When a limit was last logged, and how many connections reached it since.
#[derive(Debug)]
struct Logged {
    at: Instant,
    since: u64,
}

impl Gate {
    /// Counts a new connection to `server`. The process has `held` others.
    ///
    /// # Errors
    /// The limit that refuses the connection.
    pub(super) fn admit(&self, plan: &Plan, held: usize, server: &str, accepted: &Accepted) -> Result<Counted, Limit> {
        let mut counted = Counted::default();
        let door = plan.doors.get(server);
        let full = if held >= plan.connections_max {
            Some(Limit::Process)
        } else {
            counted.server = door.and_then(|door| door.held.join(door.connections_max));
            (door.is_some() && counted.server.is_none()).then(|| Limit::Server(server.to_owned()))
        };
        if let Some(limit) = full {
            self.log_refusal(plan, &limit, None);
            counted.reserve = self.reserve.join(if accepted.is_local() { CONNECTIONS_RESERVED } else { 0 });
            if counted.reserve.is_none() {
                return Err(limit);
            }
        }
        if let Some(max) = plan.connections_per_address_max
            && let Some(address) = accepted.address()
        {
            counted.address = self.addresses.join(address, max);
            if counted.address.is_none() {
                self.log_refusal(plan, &Limit::Address, Some(address));
                return Err(Limit::Address);
            }
        }
        Ok(counted)
    }

    /// Counts a connection that another process has admitted, even if a limit is exceeded now.
    pub fn readmit(&self, plan: &Plan, server: &str, address: Option<IpAddr>) -> Counted {
        Counted {
            address: address.and_then(|address| self.addresses.join(address, usize::MAX)),
            server: plan.doors.get(server).map(|door| door.held.enter()),
            reserve: None,
        }
    }

    /// Counts a connection that is refused with a complete answer. `None`: too many are at the moment.
    pub fn count_refusal(&self) -> Option<Membership> {
        self.refusing.join(REFUSALS_AT_ONCE)
    }

    /// Logs that a limit is reached, at most once in [`REFUSALS_LOGGED_EVERY`].
    fn log_refusal(&self, plan: &Plan, limit: &Limit, address: Option<IpAddr>) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let before = match logged.get_mut(limit) {
            Some(logged) if now.duration_since(logged.at) < REFUSALS_LOGGED_EVERY => {
                logged.since += 1;
                return;
            }
            Some(logged) => logged.since,
            None => 0,
        };
        // The map has at most one entry for each server that was ever configured.
        logged.insert(limit.clone(), Logged { at: now, since: 0 });
        drop(logged);
        let more = if before > 0 { format!(" ({before} others since the last such line)") } else { String::new() };
        log::warn!("{}: one more is refused{more}", sentence(plan, limit, address));
    }
}

/// A sentence that names the limit, and the key that raises it.
fn sentence(plan: &Plan, limit: &Limit, address: Option<IpAddr>) -> String {
    match limit {
        Limit::Process if plan.is_connections_max_set => {
            format!("pushd holds {} connections, its `connections_max` in [daemon]", plan.connections_max)
        }
        Limit::Process => format!(
            "pushd holds {} connections, all that the limit of open files allows (LimitNOFILE=, ulimit -n)",
            plan.connections_max
        ),
        Limit::Server(name) => {
            let max = plan.doors.get(name).map_or(0, |door| door.connections_max);
            format!("server {name} holds {max} connections, its `connections_max` in [server.{name}]")
        }
        Limit::Address => {
            let address = address.map_or(Cow::Borrowed("an address"), |address| address.to_string().into());
            let max = plan.connections_per_address_max.unwrap_or_default();
            format!("{address} holds {max} connections, the `connections_per_address_max` in [daemon]")
        }
    }
}
