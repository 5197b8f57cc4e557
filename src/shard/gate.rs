//! Who is let in: the limits of connections, what is counted for them, and what is said where they are met.
//!
//! There are three limits: of the process, of a server, of an address. A connection beyond one of the first two still gets a place
//! of the [reserve](CONNECTIONS_RESERVED) where it came from this machine: a full server says that it lives, how it is, and takes
//! publications. Everything else is told that there is no room (`refusal`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::Plan;
use super::addresses::{AddressPlace, Addresses};
use super::listener::Accepted;
use crate::config::limits::{CONNECTIONS_RESERVED, REFUSALS_AT_ONCE, REFUSALS_LOGGED_EVERY};
use crate::hub::{Members, Membership};

/// What is counted, for as long as the process lives.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    /// How many each address holds.
    pub addresses: Addresses,
    reserve: Members,
    refusing: Members,
    said: Arc<Mutex<HashMap<Limit, Said>>>,
}

/// A server that may hold only so many connections.
#[derive(Debug, Clone)]
pub struct Door {
    /// How many.
    pub connections_max: usize,
    /// How many it holds.
    pub held: Members,
}

/// A connection's places in what is bounded beside its shard; each is given back when this is dropped.
#[derive(Debug, Default)]
pub struct Counted {
    /// In its address.
    pub address: Option<AddressPlace>,
    /// In its server.
    pub server: Option<Membership>,
    /// In the reserve.
    pub reserve: Option<Membership>,
}

impl Counted {
    /// Boxed, where there is anything.
    pub fn boxed(self) -> Option<Box<Counted>> {
        let any = self.address.is_some() || self.server.is_some() || self.reserve.is_some();
        any.then(|| Box::new(self))
    }
}

/// A limit that was met.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Limit {
    /// That of the process.
    Process,
    /// That of this server.
    Server(String),
    /// That of an address.
    Address,
}

/// When a limit was last told, and how many met it since.
#[derive(Debug)]
struct Said {
    at: Instant,
    since: u64,
}

impl Gate {
    /// Places for a connection that comes in on `server` where the process holds `held` others.
    ///
    /// # Errors
    /// The limit that leaves none.
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
            self.tell(plan, &limit, None);
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
                self.tell(plan, &Limit::Address, Some(address));
                return Err(Limit::Address);
            }
        }
        Ok(counted)
    }

    /// Places for a connection that had them in another process, however few there are now.
    pub fn readmit(&self, plan: &Plan, server: &str, address: Option<IpAddr>) -> Counted {
        Counted {
            address: address.and_then(|address| self.addresses.join(address, usize::MAX)),
            server: plan.doors.get(server).map(|door| door.held.enter()),
            reserve: None,
        }
    }

    /// A place among those that are told at length why there is none for them.
    pub fn refuse(&self) -> Option<Membership> {
        self.refusing.join(REFUSALS_AT_ONCE)
    }

    /// Says in the log that a limit is met, now and then.
    fn tell(&self, plan: &Plan, limit: &Limit, address: Option<IpAddr>) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let before = match said.get_mut(limit) {
            Some(said) if now.duration_since(said.at) < REFUSALS_LOGGED_EVERY => {
                said.since += 1;
                return;
            }
            Some(said) => said.since,
            None => 0,
        };
        // One for each server there ever was.
        said.insert(limit.clone(), Said { at: now, since: 0 });
        drop(said);
        let more = if before > 0 { format!(" ({before} others since the last such line)") } else { String::new() };
        log::warn!("{}: one more is refused{more}", sentence(plan, limit, address));
    }
}

/// Which limit is met, and what would raise it.
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
