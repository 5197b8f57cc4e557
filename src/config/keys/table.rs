//! The entries of all keys but those of routes: type and bounds, default, when a change takes effect, meaning.
//!
//! A bound or a default that is a choice has its reason above the entry.

use std::time;

use super::Change::{AtOnce, NewConnections, Restart};
use super::Fallback::{Nothing, Required, Value};
use super::Kind::{
    Addresses, Certificates, Count, CountOrAuto, Duration, DurationOrAlways, DurationOrOff, Fields, Flag, Hosts, Hub,
    LogTarget, Mask, Named, Origins, Path, Program, Routes, RunPath, Size, Table, TableOrOff, Template, Text, Word,
};
use super::{HOOK, KEY, Kind, Section, TOKEN, UNBOUNDED, key, words};
use crate::config::hubs::WHEN_SLOW;
use crate::config::limits::MESSAGE_BYTES_CEILING;
use crate::config::process::{FORMATS, LEVELS};
use crate::config::servers::REDIRECT;

const SECOND: time::Duration = time::Duration::from_secs(1);
/// The longest duration that can be set. Every sum with a clock stays far below its end.
const LONGEST: time::Duration = time::Duration::from_secs(7 * 86_400);
/// A timeout that is counted in whole seconds.
const SECONDS: Kind = Duration { least: SECOND, most: LONGEST };
/// A timeout of HTTP. A shorter one cuts off an honest client on the same machine.
const TIMEOUT: Kind = Duration { least: time::Duration::from_millis(10), most: LONGEST };
/// A number of connections. Linux gives one process at most this many descriptors (`fs.nr_open` can be raised so far).
const CONNECTIONS: Kind = Count { least: 1, most: 1 << 26 };

/// The file itself.
pub const TOP: Section = Section {
    title: "the file",
    keys: &[
        key("daemon", Table(&DAEMON), Nothing("its defaults"), AtOnce, "The process."),
        key("log", Table(&LOG), Nothing("its defaults"), AtOnce, "The log."),
        key("store", Table(&STORE), Nothing("its defaults"), AtOnce, "Where history is kept."),
        key("server", Named(&SERVER), Required, AtOnce, "Addresses to listen on, with one table of routes."),
        key(
            "hub",
            Named(&HUB),
            Nothing("none"),
            AtOnce,
            "Channels with common limits, which routes and feeds refer to.",
        ),
        key(
            "feed",
            Named(&FEED),
            Nothing("none"),
            AtOnce,
            "Messages that pushd publishes itself: a timer, a file or a command.",
        ),
        key("key", Named(&KEY), Nothing("none"), AtOnce, "Secrets that programs show to publish."),
        key("token", Named(&TOKEN), Nothing("none"), AtOnce, "Tokens that a backend signs for its users."),
        key("hook", Named(&HOOK), Nothing("none"), AtOnce, "Addresses of the backend that decide."),
    ],
};

/// `[daemon]`
pub const DAEMON: Section = Section {
    title: "[daemon]",
    keys: &[
        key(
            "pidfile",
            RunPath,
            Value("\"pushd.pid\""),
            Restart,
            "The file for the process ID, written once pushd serves.",
        ),
        key("rundir", Path, Nothing("where pushd was started"), Restart, "The directory for pidfile and log."),
        key(
            "user",
            Text,
            Nothing("the user that starts pushd"),
            Restart,
            "The user to switch to once the sockets are bound.",
        ),
        key("group", Text, Nothing("the user's own"), Restart, "The group to switch to."),
        key(
            "umask",
            Mask,
            Nothing("\"077\" as a daemon, inherited in the foreground"),
            Restart,
            "The file mode creation mask, in octal.",
        ),
        // Below systemd's 90 s and Kubernetes' 30 s, with room to spare. `docker stop` waits no longer than 10 s.
        key(
            "grace",
            Duration { least: time::Duration::ZERO, most: LONGEST },
            Value("\"10s\""),
            AtOnce,
            "How long a graceful end may take.",
        ),
        key("workers", CountOrAuto(1024), Value("\"auto\""), Restart, "The number of threads that serve."),
        key(
            "connections_max",
            CONNECTIONS,
            Nothing("what the limit of open files allows"),
            NewConnections,
            "The maximum number of connections.",
        ),
        key(
            "connections_per_address_max",
            CONNECTIONS,
            Nothing("no limit"),
            NewConnections,
            "The maximum number of connections from one address.",
        ),
    ],
};

/// `[log]`
pub const LOG: Section = Section {
    title: "[log]",
    keys: &[
        key(
            "file",
            LogTarget,
            Nothing("\"pushd.log\" as a daemon, \"stderr\" in the foreground"),
            AtOnce,
            "A file, or \"stderr\", \"stdout\" or \"syslog\".",
        ),
        key("level", Word(&words(&LEVELS)), Value("\"info\""), AtOnce, "The least severe level that is written."),
        key("format", Word(&words(&FORMATS)), Value("\"text\""), AtOnce, "The format of a line."),
        key(
            "rotate",
            TableOrOff(&ROTATE),
            Value("{ size = \"1MB\", keep = 10 }"),
            AtOnce,
            "When pushd rotates its log file.",
        ),
        key("access", LogTarget, Nothing("no access log"), AtOnce, "A file for a line on each request, or \"log\"."),
    ],
};

/// `rotate` in `[log]`
pub const ROTATE: Section = Section {
    title: "rotate",
    keys: &[
        // The size at which twistd rotates.
        key(
            "size",
            Size { least: 1, most: UNBOUNDED },
            Value("\"1MB\""),
            AtOnce,
            "A log of at least this size is rotated.",
        ),
        // At most 1000, because each rotation renames all of them.
        key("keep", Count { least: 0, most: 1000 }, Value("10"), AtOnce, "The number of old logs that are kept."),
    ],
};

/// `[store]`
pub const STORE: Section = Section {
    title: "[store]",
    keys: &[
        key("dir", RunPath, Value("\"store\""), Restart, "The directory of durable history."),
        // Below 10 ms a disk that takes as long for each sync would do nothing else. More than 10 s of acknowledged messages are more
        // than an operator expects to lose.
        key(
            "sync",
            DurationOrAlways { least: time::Duration::from_millis(10), most: time::Duration::from_secs(10) },
            Value("\"always\""),
            Restart,
            "Whether a publication is on the disk before it is acknowledged, or how much later.",
        ),
        // Enough for a hundred messages of 1 KiB on each of 2,000 channels, and small beside the memory of any server. In less than
        // 64 KiB not even one message of the largest default size would fit.
        key(
            "memory_max",
            Size { least: 64 << 10, most: UNBOUNDED },
            Value("\"256MiB\""),
            AtOnce,
            "How much memory the history of all hubs may take.",
        ),
    ],
};

/// `[server.NAME]`
pub const SERVER: Section = Section {
    title: "[server.NAME]",
    keys: &[
        key("listen", Addresses, Required, AtOnce, "One address to listen on, or a list."),
        key(
            "hosts",
            Hosts,
            Nothing("only its own names"),
            AtOnce,
            "More host names; requests for other names get 421.",
        ),
        key("origins", Origins, Value("\"same\""), NewConnections, "Which web pages may connect and publish."),
        key("headers", Fields, Nothing("none"), AtOnce, "Further header fields of answers."),
        // A slow phone needs two seconds. An attacker would keep the connection for ever.
        key(
            "header_timeout",
            TIMEOUT,
            Value("\"10s\""),
            NewConnections,
            "How long a client may take to send the header of a request.",
        ),
        key(
            "body_timeout",
            TIMEOUT,
            Value("\"10s\""),
            AtOnce,
            "How long a client may take to send the body of a request.",
        ),
        // The default of nginx.
        key(
            "keep_alive",
            TIMEOUT,
            Value("\"75s\""),
            NewConnections,
            "How long a connection may wait for its next request.",
        ),
        key(
            "connections_max",
            CONNECTIONS,
            Nothing("that of the process"),
            NewConnections,
            "The maximum number of connections to this server.",
        ),
        key(
            "tls",
            Certificates,
            Nothing("plain HTTP"),
            NewConnections,
            "The certificate for https, or a list of several.",
        ),
        key(
            "redirect",
            Word(&words(&REDIRECT)),
            Nothing("none"),
            AtOnce,
            "Sends every request to the same address with https; then there are no routes.",
        ),
        key("routes", Routes, Nothing("only with redirect"), AtOnce, "What each path serves."),
    ],
};

/// `[hub.NAME]`
pub const HUB: Section = Section {
    title: "[hub.NAME]",
    keys: &[
        // Notifications are small. A megabyte of JSON is a mistake, and it is better to report it than to send it to all clients.
        key(
            "message_max",
            Size { least: 1, most: MESSAGE_BYTES_CEILING },
            Value("\"64KiB\""),
            AtOnce,
            "The size of the largest message accepted.",
        ),
        // Enough for a message of 64 KiB on the slowest networks.
        key(
            "message_timeout",
            SECONDS,
            Value("\"60s\""),
            AtOnce,
            "How long a client may take to send a message, in whole seconds.",
        ),
        // More than a program sends on purpose, and less than a flood of the smallest frames over a fast network.
        key(
            "messages_per_second",
            Count { least: 1, most: 100_000_000 },
            Value("1000000"),
            AtOnce,
            "How many messages a client may send each second.",
        ),
        // More than two gigabit links transport.
        key(
            "bytes_per_second",
            Size { least: 1, most: 1 << 30 },
            Value("\"256MiB\""),
            AtOnce,
            "How many bytes a client may send each second.",
        ),
        // About a second of a busy channel: sixteen messages of the largest default size. At most 1 GiB, because a single subscriber that
        // takes a gigabyte is an outage already.
        key(
            "queue_max",
            Size { least: 1, most: 1 << 30 },
            Value("\"1MiB\""),
            AtOnce,
            "How many bytes may be queued for one slow client.",
        ),
        // A million tiny messages would be below the limit in bytes.
        key(
            "queue_messages_max",
            Count { least: 1, most: 1 << 24 },
            Value("16384"),
            AtOnce,
            "How many messages may be queued for one slow client.",
        ),
        key(
            "queue_age_max",
            SECONDS,
            Nothing("no limit"),
            AtOnce,
            "How long a message may be queued, in whole seconds.",
        ),
        key(
            "when_slow",
            Word(&words(&WHEN_SLOW)),
            Value("\"disconnect\""),
            AtOnce,
            "What happens when a limit of the queue is exceeded.",
        ),
        key("gap_notice", Template, Nothing("none"), AtOnce, "Sent in the place of dropped messages."),
        // Some home routers forget a silent connection after 30 s.
        key(
            "ping",
            DurationOrOff { least: SECOND, most: LONGEST },
            Value("\"25s\""),
            AtOnce,
            "A ping is sent to a client that has been silent for this long.",
        ),
        // A phone that leaves a tunnel needs some of this time.
        key(
            "pong_timeout",
            SECONDS,
            Value("\"20s\""),
            AtOnce,
            "A client that does not answer a ping for this long is disconnected.",
        ),
        key(
            "subscribers_max",
            CONNECTIONS,
            Nothing("that of connections"),
            NewConnections,
            "The maximum number of clients of the hub.",
        ),
        key(
            "deflate",
            Flag,
            Value("false"),
            NewConnections,
            "Whether messages are compressed for clients that ask for it.",
        ),
        // A smaller message saves less than the header of a TCP segment.
        key(
            "deflate_min",
            Size { least: 0, most: MESSAGE_BYTES_CEILING },
            Value("\"256B\""),
            AtOnce,
            "Smaller messages are not compressed.",
        ),
        // Only a restart turns it on or off: the positions of a hub are given by one shard, and all shards must agree on it.
        key("history", TableOrOff(&HISTORY), Value("false"), Restart, "How much is kept of each channel."),
        key("durable", Flag, Value("false"), Restart, "Whether the history is kept on disk."),
        key("presence", Flag, Value("false"), Restart, "Whether it can be asked who is subscribed."),
        key("presence_channel", Template, Nothing("none"), AtOnce, "Where it is told who joins and leaves a channel."),
    ],
};

/// `history` in `[hub.NAME]`
pub const HISTORY: Section = Section {
    title: "history",
    keys: &[
        // As many as a machine holds. The memory has its own limit.
        key(
            "messages",
            Count { least: 1, most: 1_000_000_000 },
            Nothing("no limit"),
            AtOnce,
            "How many messages are kept of each channel.",
        ),
        key(
            "bytes",
            Size { least: 1, most: UNBOUNDED },
            Nothing("no limit"),
            AtOnce,
            "How many bytes are kept of each channel.",
        ),
        // Ten years. A shorter time than a second cannot be told from none: ages are checked in seconds.
        key(
            "age",
            Duration { least: SECOND, most: time::Duration::from_secs(3650 * 86_400) },
            Nothing("no limit"),
            AtOnce,
            "How long a message is kept, in whole seconds.",
        ),
    ],
};

/// `[feed.NAME]`
pub const FEED: Section = Section {
    title: "[feed.NAME]",
    keys: &[
        key("hub", Hub, Required, AtOnce, "The hub published to."),
        key("channel", Text, Required, AtOnce, "The channel published to."),
        key(
            "every",
            Duration { least: time::Duration::from_millis(10), most: LONGEST },
            Nothing("no timer"),
            AtOnce,
            "Publishes a message at this interval.",
        ),
        key("tail", Path, Nothing("no file"), AtOnce, "Publishes each line that is appended to this file."),
        key("command", Program, Nothing("no command"), AtOnce, "Publishes each line that this program writes."),
        key("message", Template, Value("\"{line}\""), AtOnce, "The message: {line} is the line, {n} counts from 0."),
    ],
};
