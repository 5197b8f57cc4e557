//! The table itself: each key with what it takes, what counts without it, when a change of it is felt, and what it means.

use super::Change::{AtOnce, NewConnections, Restart};
use super::Fallback::{Nothing, Required, Value};
use super::Kind::{
    Addresses, Count, CountOrAuto, Duration, DurationOrOff, Flag, Hosts, Mask, Named, On, Origins, Path, Program,
    Routes, Size, Table, TableOrOff, Text, Texts, Word, Words,
};
use super::{Kind, Section, key};
use crate::config::limits;

/// How many connections something may have.
const CONNECTIONS: Kind = Count { least: 1, most: limits::CONNECTIONS_CEILING };

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
        key("pidfile", Text, Value("\"pushd.pid\""), Restart, "Where the process ID is written once pushd serves."),
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
        key("grace", Duration, Value("\"10s\""), AtOnce, "How long a graceful end may take."),
        key("workers", CountOrAuto(limits::WORKERS_CEILING), Value("\"auto\""), Restart, "How many threads serve."),
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
            Text,
            Nothing("\"pushd.log\" as a daemon, \"stderr\" in the foreground"),
            AtOnce,
            "A file, or \"stderr\", \"stdout\" or \"syslog\".",
        ),
        key(
            "level",
            Word(&["off", "error", "warn", "info", "debug", "trace"]),
            Value("\"info\""),
            AtOnce,
            "The least severe level written.",
        ),
        key("format", Word(&["text", "json"]), Value("\"text\""), AtOnce, "How a line looks."),
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
        key("size", Size, Value("\"1MB\""), AtOnce, "A log that has reached this size is set aside."),
        key(
            "keep",
            Count { least: 0, most: limits::LOG_KEEP_CEILING as usize },
            Value("10"),
            AtOnce,
            "How many old logs are kept.",
        ),
    ],
};

/// `[server.NAME]`
pub const SERVER: Section = Section {
    title: "[server.NAME]",
    keys: &[
        key("listen", Addresses, Required, AtOnce, "One address to listen on, or a list."),
        key("hosts", Hosts, Nothing("its own"), AtOnce, "More names that it answers to; any other gets 421."),
        key("origins", Origins, Value("\"same\""), NewConnections, "Which web pages may connect and publish."),
        key(
            "header_timeout",
            Duration,
            Value("\"10s\""),
            NewConnections,
            "How long a client may take to send the header of a request.",
        ),
        key(
            "body_timeout",
            Duration,
            Value("\"10s\""),
            AtOnce,
            "How long a client may take to send the body of a request.",
        ),
        key(
            "keep_alive",
            Duration,
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
        key("websocket", Text, Required, AtOnce, "The hub of the route's sessions."),
        key("channels", Texts, Value("[\"all\"]"), NewConnections, "The channels a client hears, at most 32."),
        key(
            "on_message",
            Word(&["broadcast", "echo", "ignore"]),
            Value("\"ignore\""),
            AtOnce,
            "What becomes of a client's message.",
        ),
        key("to", Text, Nothing("the first of its channels"), NewConnections, "The channel of a broadcast."),
        key("accept", Word(&["both", "text", "binary"]), Value("\"both\""), AtOnce, "Which messages are taken."),
        key("greeting", Text, Nothing("none"), NewConnections, "Sent to each client as it arrives."),
        key("message", Text, Nothing("the message as it came"), AtOnce, "What a client's message becomes."),
        key("draft76", Flag, Value("false"), NewConnections, "Lets in clients of draft-76, too."),
        key("subprotocols", Texts, Nothing("none"), NewConnections, "The subprotocols spoken, best first."),
        key("origins", Origins, Nothing("the server's"), NewConnections, "Which web pages may connect."),
        key(
            "log",
            Word(&["off", "connections", "messages"]),
            Value("\"off\""),
            AtOnce,
            "What the log says of the route's clients.",
        ),
    ],
};

/// A route that answers with an event stream.
pub const EVENTS: Section = Section {
    title: "an events route",
    keys: &[
        key("events", Text, Required, AtOnce, "The hub of the route's streams."),
        key("channels", Texts, Value("[\"all\"]"), NewConnections, "The channels a client receives, at most 32."),
        key("event", Text, Nothing("message"), NewConnections, "The type of its events; {channel} is the channel."),
        key("origins", Origins, Nothing("the server's"), NewConnections, "Which web pages may connect."),
        key(
            "log",
            Word(&["off", "connections", "messages"]),
            Value("\"off\""),
            AtOnce,
            "What the log says of the route's clients.",
        ),
    ],
};

/// A publish route.
pub const PUBLISH: Section = Section {
    title: "a publish route",
    keys: &[
        key("publish", Text, Required, AtOnce, "The hub published to."),
        key("channel", Text, Required, AtOnce, "The channel published to."),
        key("message", Text, Nothing("the request's body"), AtOnce, "The message, made of arguments."),
        key("methods", Words(&["GET", "POST", "PUT"]), Value("[\"POST\"]"), AtOnce, "The request methods taken."),
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
    keys: &[key("page", Word(&["live"]), Required, AtOnce, "A page that shows what arrives, and can send.")],
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
        key("message_max", Size, Value("\"64KiB\""), AtOnce, "The largest message taken, at most 64MiB."),
        key(
            "message_timeout",
            Duration,
            Value("\"60s\""),
            AtOnce,
            "How long a message may take to arrive, in whole seconds.",
        ),
        key(
            "messages_per_second",
            Count { least: 1, most: limits::MESSAGES_PER_SECOND_CEILING },
            Value("1000000"),
            AtOnce,
            "How many messages a client may send in a second.",
        ),
        key(
            "bytes_per_second",
            Size,
            Value("\"256MiB\""),
            AtOnce,
            "How many bytes a client may send in a second, at most 1GiB.",
        ),
        key("queue_max", Size, Value("\"1MiB\""), AtOnce, "How many bytes may wait for one slow client."),
        key(
            "queue_messages_max",
            Count { least: 1, most: limits::QUEUE_MESSAGES_CEILING },
            Value("16384"),
            AtOnce,
            "How many messages may wait for one slow client.",
        ),
        key("queue_age_max", Duration, Nothing("for ever"), AtOnce, "How long a message may wait, in whole seconds."),
        key(
            "when_slow",
            Word(&["disconnect", "drop_oldest", "drop_newest", "conflate"]),
            Value("\"disconnect\""),
            AtOnce,
            "What happens when more would have to wait.",
        ),
        key("gap_notice", Text, Nothing("none"), AtOnce, "Said in the place of messages that were dropped."),
        key("ping", DurationOrOff, Value("\"25s\""), AtOnce, "A ping goes to a client silent for so long."),
        key("pong_timeout", Duration, Value("\"20s\""), AtOnce, "A client silent for so long after a ping is gone."),
        key(
            "subscribers_max",
            CONNECTIONS,
            Nothing("as many as there may be connections"),
            NewConnections,
            "How many clients the hub holds at once.",
        ),
        key("deflate", Flag, Value("false"), NewConnections, "Whether messages are compressed for those who ask."),
        key("deflate_min", Size, Value("\"256B\""), AtOnce, "Smaller messages are not compressed."),
    ],
};

/// `[feed.NAME]`
pub const FEED: Section = Section {
    title: "[feed.NAME]",
    keys: &[
        key("hub", Text, Required, AtOnce, "The hub published to."),
        key("channel", Text, Required, AtOnce, "The channel published to."),
        key("every", Duration, Nothing("no tick"), AtOnce, "Publishes at this pace."),
        key("tail", Path, Nothing("no file"), AtOnce, "Publishes each line appended to a file."),
        key("command", Program, Nothing("no command"), AtOnce, "Publishes each line that a program writes."),
        key("message", Text, Value("\"{line}\""), AtOnce, "What is published: {line}, and {n} counts from 0."),
    ],
};
