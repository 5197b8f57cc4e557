//! The process: everything between the operating system and the server.
//!
//! - [`exit`]: why a start failed, and the exit code that says so
//! - [`detach`]: into the background, with a pipe through which the launching process learns how it went
//! - [`descriptors`]: what was open when the process began
//! - [`pidfile`]: one pushd at a time; the lock decides, not the number
//! - [`reloads`]: what came of a reload, for the one who asked for it
//! - [`privileges`]: from root to a user, verified
//! - [`behalf`]: files that root opens for that user
//! - [`signals`]: what the operator asks for while it runs
//! - [`log`]: where events are written
//! - [`journal`]: standard error, where it is systemd's journal that reads it
//! - [`patience`]: waiting for a file system that may not answer
//! - [`notify`]: the service manager: readiness, reload, watchdog, sockets it opened
//! - [`successor`]: the program that an upgrade put in the place of this one
//! - [`usage`]: a command line that was not understood
//!
//! No async runtime and nothing of the hub is known here. Threads start only when told to: after [`detach`].

pub mod behalf;
pub mod descriptors;
pub mod detach;
pub mod exit;
pub mod journal;
pub mod log;
pub mod notify;
pub mod patience;
pub mod pidfile;
pub mod privileges;
pub mod reloads;
pub mod signals;
pub mod successor;
pub mod usage;

pub use exit::{Exit, Failure};
