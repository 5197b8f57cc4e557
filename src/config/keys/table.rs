//! The table itself: the entry of each key has its type and bounds, its default, when a change takes effect, and its meaning.
//!
//! A bound or a default that is a choice has its reason above the entry.

use std::time;

use super::Change::{AtOnce, NewConnections, Restart};
use super::Fallback::{Nothing, Required, Value};
use super::Kind::{
    Addresses, Count, CountOrAuto, Duration, DurationOrOff, Flag, Hosts, Hub, LogTarget, Mask, Named, On, Origins,
    Path, Program, Routes, RunPath, Size, Table, TableOrOff, Template, Templates, Text, Texts, Word, Words,
};
use super::{Kind, Section, UNBOUNDED, key, words};
use crate::config::hubs::WHEN_SLOW;
use crate::config::limits::MESSAGE_BYTES_CEILING;
use crate::config::process::{FORMATS, LEVELS};
use crate::config::routes::{ACCEPT, METHODS, ON_MESSAGE, PAGES, SESSION_LOG};

const SECOND: time::Duration = time::Duration::from_secs(1);
/// The longest duration that can be set. Every sum with a clock stays far below its end.
const LONGEST: time::Duration = time::Duration::from_secs(7 * 86_400);
/// A timeout that is counted in whole seconds.
const SECONDS: Kind = Duration { least: SECOND, most: LONGEST };
/// A timeout of HTTP. A shorter one cuts off an honest client on the same machine.
const TIMEOUT: Kind = Duration { least: time::Duration::from_millis(10), most: LONGEST };
/// A number of connections. Linux gives one process at most this many descriptors (`fs.nr_open` can be raised so far).
const CONNECTIONS: Kind = Count { least: 1, most: 1 << 26 };

/// The channels of a route.
const CHANNELS: Kind = Templates(32);

/// The file itself.
pub const TOP: Section = Section {
    title: "the file",
    keys: &[
        key("daemon", Table(&DAEMON), Nothing("its defaults"), AtOnce, "The process."),
        key("log", Table(&LOG), Nothing("its defaults"), AtOnce, "The log."),
        key("server", Named(&SERVER), Required, AtOnce, "Addresses, each set with one table of routes."),
        key("hub", Named(&HUB), Nothing("none"), AtOnce, "Who hears what: routes and feeds name their hub."),
        key("feed", Named(&FEED), Nothing("none"), AtOnce, "What publishes by itself."),
    ],
};

/// `[daemon]`
pub const DAEMON: Section = Section {
    title: "[daemon]",
    keys: &[
        key("pidfile", RunPath, Value("\"pushd.pid\""), Restart, "Where the process ID is written once pushd serves."),
        key("rundir", Path, Nothing("where pushd was started"), Restart, "Where pidfile and log begin."),
        key("user", Text, Nothing("stay who started pushd"), Restart, "Whom to become once the sockets are bound."),
        key("group", Text, Nothing("the user's own"), Restart, "The group to become."),
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
        key("workers", CountOrAuto(1024), Value("\"auto\""), Restart, "How many threads serve."),
        key(
            "connections_max",
            CONNECTIONS,
            Nothing("what the limit of open files allows"),
            NewConnections,
            "How many connections are held at once.",
        ),
        key(
            "connections_per_address_max",
            CONNECTIONS,
            Nothing("all"),
            NewConnections,
            "How many of them may come from one address.",
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
        key("level", Word(&words(&LEVELS)), Value("\"info\""), AtOnce, "The least severe level written."),
        key("format", Word(&words(&FORMATS)), Value("\"text\""), AtOnce, "How a line looks."),
        key(
            "rotate",
            TableOrOff(&ROTATE),
            Value("{ size = \"1MB\", keep = 10 }"),
            AtOnce,
            "When pushd itself rotates its log file.",
        ),
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
            "A log that has reached this size is set aside.",
        ),
        // Each rotation renames all of them.
        key("keep", Count { least: 0, most: 1000 }, Value("10"), AtOnce, "How many old logs are kept."),
    ],
};

/// `[server.NAME]`
pub const SERVER: Section = Section {
    title: "[server.NAME]",
    keys: &[
        key("listen", Addresses, Required, AtOnce, "One address to listen on, or a list."),
        key("hosts", Hosts, Nothing("its own"), AtOnce, "More names that it answers to; any other gets 421."),
        key("origins", Origins, Value("\"same\""), NewConnections, "Which web pages may connect and publish."),
        // A slow phone needs two seconds; an attacker would take for ever.
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
        // As in nginx.
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
            Nothing("as many as the process"),
            NewConnections,
            "How many connections it holds at once.",
        ),
        key("routes", Routes, Required, AtOnce, "What each path serves."),
    ],
};

/// A WebSocket route.
pub const WEBSOCKET: Section = Section {
    title: "a websocket route",
    keys: &[
        key("websocket", Hub, Required, AtOnce, "The hub of the route's sessions."),
        key("channels", CHANNELS, Value("[\"all\"]"), NewConnections, "The channels a client receives."),
        key(
            "on_message",
            Word(&words(&ON_MESSAGE)),
            Value("\"ignore\""),
            AtOnce,
            "What becomes of a client's message.",
        ),
        key("to", Template, Nothing("the first of its channels"), NewConnections, "The channel of a broadcast."),
        key("accept", Word(&words(&ACCEPT)), Value("\"both\""), AtOnce, "Which messages are taken."),
        key("greeting", Template, Nothing("none"), NewConnections, "Sent to each client as it arrives."),
        key("message", Template, Nothing("the message as it came"), AtOnce, "What a client's message becomes."),
        key("draft76", Flag, Value("false"), NewConnections, "Lets in clients of draft-76, too."),
        key("subprotocols", Texts, Nothing("none"), NewConnections, "The subprotocols spoken, best first."),
        key("origins", Origins, Nothing("the server's"), NewConnections, "Which web pages may connect."),
        key("log", Word(&words(&SESSION_LOG)), Value("\"off\""), AtOnce, "What the log says of the route's clients."),
    ],
};

/// A route that answers with an event stream.
pub const EVENTS: Section = Section {
    title: "an events route",
    keys: &[
        key("events", Hub, Required, AtOnce, "The hub of the route's streams."),
        key("channels", CHANNELS, Value("[\"all\"]"), NewConnections, "The channels a client receives."),
        key("event", Template, Nothing("message"), NewConnections, "The type of its events; {channel} is the channel."),
        key("origins", Origins, Nothing("the server's"), NewConnections, "Which web pages may connect."),
        key("log", Word(&words(&SESSION_LOG)), Value("\"off\""), AtOnce, "What the log says of the route's clients."),
    ],
};

/// A publish route.
pub const PUBLISH: Section = Section {
    title: "a publish route",
    keys: &[
        key("publish", Hub, Required, AtOnce, "The hub published to."),
        key("channel", Template, Required, AtOnce, "The channel published to."),
        key("message", Template, Nothing("the request's body"), AtOnce, "The message, made of arguments."),
        key("methods", Words(&words(&METHODS)), Value("[\"POST\"]"), AtOnce, "The request methods taken."),
        key("origins", Origins, Nothing("the server's"), AtOnce, "Which web pages may publish."),
    ],
};

/// A route that serves files.
pub const STATIC: Section = Section {
    title: "a static route",
    keys: &[
        key("static", Path, Required, AtOnce, "The directory whose files are served, and all below it."),
        key("listing", Flag, Value("false"), AtOnce, "Whether a directory without an index is listed."),
        key("index", Texts, Value("[\"index.html\"]"), AtOnce, "The files served for a directory, the first there."),
    ],
};

/// A route that serves a built-in page.
pub const PAGE: Section = Section {
    title: "a page route",
    keys: &[key("page", Word(&words(&PAGES)), Required, AtOnce, "A page that shows what arrives, and can send.")],
};

/// A route that serves counters.
pub const METRICS: Section = Section {
    title: "a metrics route",
    keys: &[key("metrics", On, Required, AtOnce, "Counters in the text format of Prometheus.")],
};

/// A route that says whether the process lives.
pub const HEALTH: Section = Section {
    title: "a health route",
    keys: &[key("health", On, Required, AtOnce, "Answers 200 while the process makes progress.")],
};

/// A route that says whether clients are welcome.
pub const READY: Section = Section {
    title: "a ready route",
    keys: &[key("ready", On, Required, AtOnce, "Answers 200 while new clients are welcome, else 503.")],
};

/// `[hub.NAME]`
pub const HUB: Section = Section {
    title: "[hub.NAME]",
    keys: &[
        // Notifications are small: a megabyte of JSON is a mistake, which is better reported than sent to all. At most 64 MiB: one such
        // message times `queue_max` is already the memory of a machine.
        key(
            "message_max",
            Size { least: 1, most: MESSAGE_BYTES_CEILING },
            Value("\"64KiB\""),
            AtOnce,
            "The largest message taken.",
        ),
        // As for the body of a request, with time for a message of 64 KiB on the slowest networks.
        key(
            "message_timeout",
            SECONDS,
            Value("\"60s\""),
            AtOnce,
            "How long a message may take to arrive, in whole seconds.",
        ),
        // More than a program sends on purpose, and less than a flood of the smallest frames brings over a fast network.
        key(
            "messages_per_second",
            Count { least: 1, most: 100_000_000 },
            Value("1000000"),
            AtOnce,
            "How many messages a client may send in a second.",
        ),
        // More than two links of a gigabit bring.
        key(
            "bytes_per_second",
            Size { least: 1, most: 1 << 30 },
            Value("\"256MiB\""),
            AtOnce,
            "How many bytes a client may send in a second.",
        ),
        // About a second of a busy channel, sixteen of the largest default messages. At most 1 GiB: one subscriber that holds a gigabyte
        // is already an outage.
        key(
            "queue_max",
            Size { least: 1, most: 1 << 30 },
            Value("\"1MiB\""),
            AtOnce,
            "How many bytes may wait for one slow client.",
        ),
        // So that a million tiny messages do not pass below the limit in bytes.
        key(
            "queue_messages_max",
            Count { least: 1, most: 1 << 24 },
            Value("16384"),
            AtOnce,
            "How many messages may wait for one slow client.",
        ),
        key("queue_age_max", SECONDS, Nothing("for ever"), AtOnce, "How long a message may wait, in whole seconds."),
        key(
            "when_slow",
            Word(&words(&WHEN_SLOW)),
            Value("\"disconnect\""),
            AtOnce,
            "What happens when more would have to wait.",
        ),
        key("gap_notice", Template, Nothing("none"), AtOnce, "Said in the place of messages that were dropped."),
        // Below the 30 s after which the least patient home routers forget a connection.
        key(
            "ping",
            DurationOrOff { least: SECOND, most: LONGEST },
            Value("\"25s\""),
            AtOnce,
            "A ping goes to a client silent for so long.",
        ),
        // A phone that leaves a tunnel needs some of it.
        key("pong_timeout", SECONDS, Value("\"20s\""), AtOnce, "A client silent for so long after a ping is gone."),
        key(
            "subscribers_max",
            CONNECTIONS,
            Nothing("as many as there may be connections"),
            NewConnections,
            "How many clients the hub holds at once.",
        ),
        key("deflate", Flag, Value("false"), NewConnections, "Whether messages are compressed for those who ask."),
        // In a smaller message the saving is less than the header of a TCP segment.
        key(
            "deflate_min",
            Size { least: 0, most: MESSAGE_BYTES_CEILING },
            Value("\"256B\""),
            AtOnce,
            "Smaller messages are not compressed.",
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
            Nothing("no tick"),
            AtOnce,
            "Publishes at this pace.",
        ),
        key("tail", Path, Nothing("no file"), AtOnce, "Publishes each line appended to a file."),
        key("command", Program, Nothing("no command"), AtOnce, "Publishes each line that a program writes."),
        key("message", Template, Value("\"{line}\""), AtOnce, "What is published: {line}, and {n} counts from 0."),
    ],
};
