//! Divides the limit of open files between connections, files that are sent, and pushd's own needs.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::limits::{DESCRIPTORS_PER_SHARD, DESCRIPTORS_RESERVED, FILES_OPEN_MAX};
use crate::config::{Action, Config};
use crate::feed::inheritance;

/// How many descriptors clients may make pushd open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// For their connections.
    pub(super) connections: usize,
    /// For the files that are sent to them.
    pub(super) files: usize,
}

impl Descriptors {
    /// Raises the limit as far as possible and divides it.
    pub(super) fn find(config: &Config, shards: usize) -> Descriptors {
        inheritance::note_limit();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
        let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_or(soft, |()| hard);
        let mut routes = config.servers.iter().flat_map(|server| &server.routes);
        let sends_files = routes.any(|route| matches!(route.action, Action::Static(_)));
        Descriptors::of(usize::try_from(raised).unwrap_or(usize::MAX), shards, sends_files)
    }

    fn of(limit: usize, shards: usize, sends_files: bool) -> Descriptors {
        let own = (DESCRIPTORS_RESERVED + shards * DESCRIPTORS_PER_SHARD).min(limit / 2);
        let left = (limit - own).max(1);
        let files = if sends_files { (left / 8).clamp(1, FILES_OPEN_MAX) } else { 0 };
        Descriptors { connections: (left - files).max(1), files }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_pushd_does_not_need() {
        for (limit, shards, sends_files, connections, files) in [
            (1 << 20, 2, false, (1 << 20) - 144, 0),
            (1 << 20, 2, true, (1 << 20) - 144 - 1024, 1024),
            (1024, 2, true, 770, 110),
            (1024, 64, true, 448, 64),
            (80, 2, false, 40, 0),
            (8, 2, true, 3, 1),
            (1, 1, true, 1, 1),
        ] {
            assert_eq!(Descriptors::of(limit, shards, sends_files), Descriptors { connections, files }, "{limit}");
        }
    }
}
