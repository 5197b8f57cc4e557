//! pushd: a push server. One module a room; the map is in `ARCHITECTURE.md`.
//!
//! - [`config`]: pure data, made from one TOML file
//! - [`hub`]: who hears what; pure core
//! - [`wire`]: bytes of RFC 6455 and draft-76
//! - [`session`]: one client after the upgrade: codec in, bounded outbox out
//! - [`shard`]: one thread, one runtime, one table of sessions: the data plane
//! - [`feed`]: things that publish by themselves
//! - [`http`]: hyper at the edge: routes to upgrade, publish, pages, status
//! - [`server`]: wiring: bind, serve, reload, drain
//! - [`daemon`]: the process: detach, pidfile, log, signals
//! - [`cli`]: the command line of `pushd`
//! - [`ctl`]: `pushctl`, the command line of operators and users
//!
//! Layers, left imported by right and never the other way (kept by `tests/tidy.rs`):
//! `config ◄ hub ◄ wire ◄ session ◄ http ◄ shard ◄ server ◄ main` · `config ◄ feed ◄ server` · `daemon`, `cli` `◄ main` only
//! (but that `ctl`, which nothing imports but `pushctl`, uses `config` and of `daemon` what finds a process and names a failure).

pub mod cli;
pub mod config;
pub mod ctl;
pub mod daemon;
pub mod feed;
pub mod http;
pub mod hub;
pub mod server;
pub mod session;
pub mod shard;
pub mod wire;
