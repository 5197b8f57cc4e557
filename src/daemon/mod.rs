//! The process: everything between the operating system and the server.
//!
//! - [`exit`]: why a start failed, and the matching exit code
//! - [`detach`]: going into the background, with a pipe that reports the outcome to the launching process
//! - [`descriptors`]: descriptors that were open when the process began
//! - [`pidfile`]: only one pushd at a time; the lock decides, not the PID
//! - [`reloads`]: the outcome of a reload, for the process that asked for it
//! - [`privileges`]: from root to another user, verified
//! - [`behalf`]: files that root opens for that user
//! - [`signals`]: signals of the operator
//! - [`log`]: the log and its destinations
//! - [`journal`]: standard error with the priorities of systemd's journal
//! - [`timeout`]: waiting for a file system that may not answer
//! - [`notify`]: the service manager: readiness, reload, watchdog, sockets it opened
//! - [`successor`]: the program that an upgrade put in the place of this one
//! - [`usage`]: errors of the command line
//!
//! The async runtime and the hub are not used here. Threads start only on request, after [`detach`].

pub mod behalf;
pub mod descriptors;
pub mod detach;
pub mod exit;
pub mod journal;
pub mod log;
pub mod notify;
pub mod pidfile;
pub mod privileges;
pub mod reloads;
pub mod signals;
pub mod successor;
pub mod timeout;
pub mod usage;

pub use exit::{Exit, Failure};
