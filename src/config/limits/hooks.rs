//! Bounds of hooks, the questions to the backend of a site.

use std::time::Duration;

/// How many failures in a row open the breaker of a hook: one or two may be a restart of the backend.
pub const HOOK_FAILURES_MAX: u32 = 5;
/// How long an open breaker asks nothing. Then it lets one question pass, to see whether the backend answers again.
pub const HOOK_OPEN: Duration = Duration::from_secs(5);
/// How many questions of one hook wait until one of those in flight is answered. They wait no longer than the timeout of the hook.
pub const HOOK_WAITING_MAX: usize = 1000;
/// How many connections of one hook wait for the next question.
pub const HOOK_IDLE_CONNECTIONS_MAX: usize = 16;
/// How long a connection waits for the next question. Backends close theirs after a minute or so.
pub const HOOK_IDLE: Duration = Duration::from_secs(20);
/// How many threads resolve the names of backends.
pub const HOOK_RESOLVERS_MAX: usize = 4;
/// The most messages of a batch that a hook is asked about.
pub const HOOK_BATCH_MESSAGES_MAX: usize = 1000;
/// How many messages of one batch are asked about at the same time, so that a batch leaves room for others.
pub const HOOK_BATCH_AT_ONCE: usize = 8;
/// How many channels a backend may add to those of a client.
pub const HOOK_CHANNELS_MAX: usize = 100;
/// How much of a backend's message is shown to a client, in characters.
pub const HOOK_REASON_CHARS_MAX: usize = 200;
/// How much of a header field of a client is passed on, in bytes, all together.
pub const HOOK_FIELDS_BYTES_MAX: usize = 16 << 10;
/// How many header fields a hook passes on.
pub const HOOK_FIELDS_MAX: usize = 32;
/// The interval between two lines of the log about failures of one hook. All of them are counted.
pub const HOOK_LOG_INTERVAL: Duration = Duration::from_secs(10);
