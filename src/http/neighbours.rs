//! Sites that share the addresses of a server: the name in a request chooses one of them.
//!
//! The name is that of the target, if it has one, else of Host (RFC 9112 §3.2.2). Only listed names choose. Any other name stays with
//! the server that has the addresses, whose [`Hosts`](super::hosts::Hosts) decide on it; so do they of the chosen site.

use std::collections::HashMap;
use std::sync::Arc;

use http::Uri;
use http::header::{HOST, HeaderMap};

use super::hosts::{split_port, without_root_dot};
use super::{HubInUse, Site};
use crate::config::limits::HOST_BYTES_MAX;
use crate::config::{self, Server};
use crate::hook::Hook;

/// The sites that share the addresses of a server, by their names in lower case.
#[derive(Debug, Default)]
pub struct Neighbours(HashMap<Box<[u8]>, Arc<Site>>);

/// The sites of all servers, by their names. Routes refer to hubs by their index in `hubs`, and to hooks by their names.
pub fn sites(
    servers: &[Server],
    hubs: &[HubInUse],
    machine: &[String],
    hooks: &HashMap<Arc<str>, Arc<Hook>>,
) -> HashMap<String, Arc<Site>> {
    // Those that share addresses first: the site that has the addresses finds them.
    let (fronts, beside): (Vec<_>, Vec<_>) = servers.iter().partition(|server| server.shares.is_none());
    let has_tls = |name: &str| servers.iter().any(|server| server.name == name && server.tls.is_some());
    let beside = beside.into_iter().map(|server| {
        let mut site = Site::new(server, hubs, machine, hooks);
        site.hosts.is_secure = server.shares.as_deref().is_some_and(has_tls);
        Arc::new(site)
    });
    let beside: Vec<_> = beside.collect();
    let fronts = fronts.into_iter().map(|server| {
        let mut site = Site::new(server, hubs, machine, hooks);
        site.neighbours = Neighbours::of(server, &beside);
        Arc::new(site)
    });
    fronts.chain(beside.iter().cloned()).map(|site| (site.server.name.clone(), site)).collect()
}

impl Neighbours {
    /// Those of `server`, out of all `sites`.
    fn of(server: &Server, sites: &[Arc<Site>]) -> Neighbours {
        let beside = sites.iter().filter(|site| site.server.shares.as_deref() == Some(&*server.name));
        let names = beside.flat_map(|site| {
            let names = match &site.server.hosts {
                config::Hosts::Listed(names) => names.as_slice(),
                config::Hosts::Any => &[],
            };
            names.iter().map(|name| (name.clone().into_bytes().into_boxed_slice(), site.clone()))
        });
        Neighbours(names.collect())
    }

    /// The site that a request names, if it is not the one of the server itself.
    pub fn find(&self, uri: &Uri, headers: &HeaderMap) -> Option<&Arc<Site>> {
        if self.0.is_empty() {
            return None;
        }
        let host = match uri.authority() {
            Some(authority) => authority.as_str(),
            None => headers.get(HOST)?.to_str().ok()?,
        };
        let name = without_root_dot(split_port(host).0);
        let mut lower = [0; HOST_BYTES_MAX];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        self.0.get(&*lower)
    }
}
