//! The ids of hubs.
//!
//! A configuration identifies its hubs by their index in the file, and a reload may change that order. The running
//! server gives each hub an id, which stays as long as the hub is configured or has sessions. An id is never given to
//! another hub: a session that outlives its hub must not receive the publications of a new one.

use std::collections::{HashMap, HashSet};

use crate::config::{self, HubId};
use crate::http::HubInUse;
use crate::hub::{Epoch, Members, Position};

/// The hubs that are configured or have sessions.
#[derive(Debug, Default)]
pub struct Hubs {
    known: HashMap<String, Known>,
    /// From which positions hubs continue that have not begun yet.
    continued: HashMap<String, Position>,
    /// The id of the next new hub.
    next: u32,
}

/// A hub, with its settings in force.
#[derive(Debug)]
struct Known {
    id: HubId,
    members: Members,
    hub: config::Hub,
    /// The position before the first publication, once the hub has history. A hub that is not configured any more has forgotten its
    /// history.
    beginning: Option<Position>,
}

impl Hubs {
    /// Takes what only a restart can change from the settings in force. Returns the names of the keys in which these differ.
    pub fn keep_fixed(&self, configured: &mut [config::Hub]) -> Vec<String> {
        let mut kept = Vec::new();
        for hub in configured {
            let keys = self.known.get(&hub.name).map(|now| hub.keep_fixed(&now.hub)).unwrap_or_default();
            kept.extend(keys.iter().map(|key| config::key_name(&["hub", &hub.name, key])));
        }
        kept
    }

    /// The hubs of a configuration, in its order, each with its id. Hubs that are neither configured nor in use are
    /// dropped.
    pub fn number(&mut self, configured: &[config::Hub]) -> Vec<HubInUse> {
        let names: HashSet<&str> = configured.iter().map(|hub| hub.name.as_str()).collect();
        self.known.retain(|name, known| {
            let is_configured = names.contains(name.as_str());
            known.beginning = known.beginning.filter(|_| is_configured);
            is_configured || known.members.count() > 0
        });
        let numbered = configured.iter().map(|hub| {
            let known = self.known.entry(hub.name.clone()).or_insert_with(|| {
                let id = HubId(self.next);
                self.next += 1;
                Known { id, members: Members::default(), hub: hub.clone(), beginning: None }
            });
            known.hub.clone_from(hub);
            HubInUse { id: known.id, hub: hub.clone(), members: known.members.clone() }
        });
        numbered.collect()
    }
}

impl Hubs {
    /// The position before the first publication of a hub with history: one to continue from, or that of a new numbering.
    pub fn beginning(&mut self, hub: &str) -> Position {
        let continued = &mut self.continued;
        let mut begin = || continued.remove(hub).unwrap_or_else(|| Position { epoch: Epoch::random(), offset: 0 });
        match self.known.get_mut(hub) {
            Some(known) => *known.beginning.get_or_insert_with(begin),
            None => begin(),
        }
    }

    /// Positions of a hub have been given up to this one, by the previous process or as its store says.
    pub fn continue_from(&mut self, name: String, position: Position) {
        self.continued.insert(name, position);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn hubs(names: &[&str]) -> Vec<config::Hub> {
        let file = "[server.s]\nlisten = \"127.0.0.1:1\"\nroutes.\"/\" = { health = true }\n".to_owned();
        let file = names.iter().fold(file, |file, name| file + &format!("[hub.{name}]\n"));
        config::parse(Path::new("/x.toml"), &file).unwrap().hubs
    }

    #[test]
    fn no_two_hubs_ever_share_an_id() {
        let mut known = Hubs::default();
        let first = known.number(&hubs(&["first", "kept"]));
        let session = first[0].members.enter();
        let mut configured = hubs(&["other", "kept"]);
        for round in 0..70_000 {
            configured[0].name = format!("h{round}");
            let now = known.number(&configured);
            assert_eq!(now[1].id, first[1].id, "the order of the file does not matter");
            assert_ne!(now[0].id, first[0].id, "round {round}");
            assert!(known.known.len() <= 3, "unused hubs are dropped");
        }
        let again = known.number(&hubs(&["first"]));
        assert_eq!(again[0].id, first[0].id, "a hub with sessions keeps its id");
        drop(session);
    }
}
