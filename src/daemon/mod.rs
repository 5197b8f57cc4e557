//! The process: everything between the operating system and the server.
//!
//! - [`exit`]: why a start failed, and the exit code that says so
//! - [`detach`]: into the background, with a pipe through which the launching process learns how it went
//! - [`pidfile`]: one pushd at a time; the lock decides, not the number
//! - [`reloads`]: what came of a reload, for the one who asked for it
//! - [`privileges`]: from root to a user, verified
//! - [`signals`]: what the operator asks for while it runs
//! - [`log`]: where events are written
//! - [`journal`]: standard error, where it is systemd's journal that reads it
//! - [`notify`]: the service manager: readiness, reload, watchdog, sockets it opened
//!
//! No async runtime and nothing of the hub is known here. Nothing here but the log starts a thread, and the log only
//! when told to: after [`detach`].

pub mod detach;
pub mod exit;
pub mod journal;
pub mod log;
pub mod notify;
pub mod pidfile;
pub mod privileges;
pub mod reloads;
pub mod signals;

pub use exit::{Exit, Failure};
