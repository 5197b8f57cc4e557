//! Servers that share their addresses: the name in `Host` chooses one of them.
//!
//! The first of them in the file has the addresses, and answers to every name that the others do not list. The others have the same
//! `listen`, and `hosts` with names of their own. If the lists of addresses could differ, a server would be reached on an address
//! that its own list does not have.

use std::collections::HashMap;

use super::reader::{Item, Table};
use super::report::{Problem, Span};
use super::routes::warn_idle;
use super::{Hosts, Listen};

/// The addresses of the servers so far.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// Which server has an address, and where it is listed.
    taken: HashMap<Listen, (usize, Span)>,
    servers: Vec<Taker>,
}

/// A server that has addresses, or shares those of another one.
#[derive(Debug)]
struct Taker {
    name: String,
    listen: Vec<Listen>,
    /// The names in `hosts` of the server, and of those that share its addresses.
    names: Vec<String>,
}

impl Addresses {
    /// Takes an address for the next server. `Err`: it is listed already, by which server and where.
    pub(super) fn take(&mut self, address: &Listen, span: Span) -> Result<(), (usize, Span)> {
        let next = self.servers.len();
        match self.taken.get(address) {
            Some(taken) => Err(taken.clone()),
            None => {
                self.taken.insert(address.clone(), (next, span));
                Ok(())
            }
        }
    }

    /// Ends the next server, of which the addresses in `again` are listed already. Returns the name of the server whose addresses it
    /// shares. Reports if it cannot share them.
    pub(super) fn end(
        &mut self,
        table: &Table<'_>,
        name: &str,
        listen: &[Listen],
        hosts: &Hosts,
        again: Vec<(Item<'_>, (usize, Span))>,
    ) -> Option<String> {
        let next = self.servers.len();
        let own = match hosts {
            Hosts::Listed(names) => names.clone(),
            Hosts::Any => Vec::new(),
        };
        let owner = again.first().map(|(_, (owner, _))| *owner).filter(|owner| *owner != next);
        let is_same = |taker: &Taker| {
            taker.listen.len() == listen.len() && listen.iter().all(|address| taker.listen.contains(address))
        };
        let can_share = owner.is_some_and(|owner| is_same(&self.servers[owner])) && !own.is_empty();
        let shared = owner.filter(|_| can_share);
        if shared.is_none() {
            for (item, (owner, first)) in again {
                let problem = item.error("this address is listed twice").label("the second time");
                let problem = problem.also(first, "the first time is here");
                item.note(match owner == next {
                    true => problem,
                    false => problem.help(
                        "two servers can share their addresses if both have the same `listen`, and `hosts` of the second \
                         one lists names of its own",
                    ),
                });
            }
        }
        let taker = Taker { name: name.to_owned(), listen: listen.to_vec(), names: own.clone() };
        self.servers.push(taker);
        let first = &mut self.servers[shared?];
        for key in ["header_timeout", "keep_alive", "connections_max"] {
            warn_idle(table, key, &format!("an address of its own; that of `{}` applies", first.name));
        }
        if let Some(item) = table.item("hosts") {
            for known in own.iter().filter(|known| first.names.contains(known)) {
                let problem = item.error(format!("`{known}` is the name of another server of the same addresses"));
                item.note(problem.label("only one can answer to it"));
            }
        }
        first.names.extend(own);
        Some(first.name.clone())
    }
}

/// The location of an address that overlaps `address`, which is at `span`: one of all interfaces, and one of a single one.
pub(super) fn overlap(
    ports: &mut HashMap<(bool, u16), [Option<Span>; 2]>,
    address: &Listen,
    span: Span,
) -> Option<Span> {
    let Listen::Tcp(tcp) = address else { return None };
    let [all, one] = ports.entry((tcp.is_ipv4(), tcp.port())).or_default();
    let (mine, other) = if tcp.ip().is_unspecified() { (all, one) } else { (one, all) };
    mine.get_or_insert(span);
    other.clone()
}

/// Reports that the address of `item` overlaps the one at `other`.
pub(super) fn note_overlap(item: &Item<'_>, other: Span) {
    let problem: Problem =
        item.error("this address overlaps another one").label("the kernel allows only one of the two");
    item.note(problem.also(other, "the other one is here"));
}
