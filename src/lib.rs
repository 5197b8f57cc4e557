//! pushd: a push server. Each top-level module has one task; the map is in `ARCHITECTURE.md`.
//!
//! - [`config`]: pure data, made from one TOML file
//! - [`grant`]: what a client shows, and what it may do
//! - [`hub`]: which session subscribes to which channel; no I/O
//! - [`store`]: the history of durable hubs on disk
//! - [`tls`]: TLS by rustls, without sockets
//! - [`wire`]: frames of RFC 6455 and draft-76 as bytes
//! - [`session`]: one client after the upgrade: decoder, bounded outbox
//! - [`shard`]: the data plane: one thread with one runtime and one table of sessions
//! - [`feed`]: sources that publish by themselves
//! - [`http`]: HTTP by hyper: handshake, publishing, pages, status
//! - [`server`]: wiring: bind, serve, reload, drain
//! - [`daemon`]: the process: detach, pidfile, log, signals
//! - [`cli`]: the command line of `pushd`
//! - [`ctl`]: `pushctl`, the command line of operators and users
//!
//! Layers: a module imports only modules to its left (checked by `tests/tidy.rs`):
//! `config ◄ hub ◄ wire ◄ session ◄ http ◄ shard ◄ server ◄ main` · `config ◄ feed ◄ server` · `config ◄ hub ◄ store ◄ shard` · `config ◄ grant, hook, tls ◄ http` · `daemon`, `cli` `◄ main` only.
//! Exception: `ctl`, which only `pushctl` imports, uses `config`, `hub`, `store`, and the parts of `daemon` that find a process and
//! describe a failure.

pub mod cli;
pub mod config;
pub mod ctl;
pub mod daemon;
pub mod feed;
pub mod grant;
pub mod hook;
pub mod http;
pub mod hub;
pub mod server;
pub mod session;
pub mod shard;
pub mod store;
pub mod tls;
pub mod wire;
