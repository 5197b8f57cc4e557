//! The entries of the keys of routes. A kind of route is a [`Section`] here, and its place in [`ROUTES`](super::ROUTES).

use super::Change::{AtOnce, NewConnections};
use super::Fallback::{Nothing, Required, Value};
use super::Kind::{
    CacheRules, Count, ErrorPages, Fields, Flag, Hook, Hub, Keys, On, Origins, Path, Patterns, Secrets, Template,
    Templates, Text, Texts, Tokens, Word, Words,
};
use super::{Key, Section, key, words};
use crate::config::routes::{ACCEPT, METHODS, ON_MESSAGE, PAGES, SESSION_LOG};

// The keys of every route that clients subscribe by.
const CHANNELS: Key =
    key("channels", Templates(32), Value("[\"all\"]"), NewConnections, "The channels a client receives.");
const ORIGINS: Key = key("origins", Origins, Nothing("the server's"), NewConnections, "Which web pages may connect.");
const LOG: Key =
    key("log", Word(&words(&SESSION_LOG)), Value("\"off\""), AtOnce, "What is logged about the route's clients.");
const IDENTITY: Key =
    key("identity", Template, Nothing("none"), NewConnections, "The name of the client, for presence.");

// The key of all routes that know who a client is.
const TOKENS: Key = key(
    "tokens",
    Tokens,
    Nothing("no token is needed"),
    NewConnections,
    "The tokens that are accepted; one must be shown.",
);
// The key of the routes on which the backend decides.
const HOOK: Key = key("hook", Hook, Nothing("none"), AtOnce, "The hook that is asked, and decides.");

// The key of the routes that programs use.
const KEYS: Key =
    key("keys", Keys, Nothing("no key is needed"), AtOnce, "The keys that are accepted; one must be shown.");

/// A WebSocket route.
pub const WEBSOCKET: Section = Section {
    title: "a websocket route",
    keys: &[
        key("websocket", Hub, Required, AtOnce, "The hub of the route's sessions."),
        CHANNELS,
        key(
            "on_message",
            Word(&words(&ON_MESSAGE)),
            Value("\"ignore\""),
            AtOnce,
            "What happens to a client's message.",
        ),
        key("to", Template, Nothing("the first of its channels"), NewConnections, "The channel of a broadcast."),
        key("accept", Word(&words(&ACCEPT)), Value("\"both\""), AtOnce, "Which messages are accepted."),
        key("greeting", Template, Nothing("none"), NewConnections, "Sent to each client when it connects."),
        key(
            "message",
            Template,
            Nothing("the message unchanged"),
            AtOnce,
            "Wraps a client's message before it is sent on.",
        ),
        key("draft76", Flag, Value("false"), NewConnections, "Whether clients of draft-76 are accepted, too."),
        key(
            "subprotocols",
            Texts,
            Nothing("none"),
            NewConnections,
            "The subprotocols offered, the preferred one first.",
        ),
        key("envelope", Flag, Value("false"), AtOnce, "Sends each message as JSON with its channel and position."),
        // As many as a page with a list of things needs. Each request is checked against all of them.
        key(
            "subscribe",
            Patterns(32),
            Nothing("none"),
            AtOnce,
            "The channels that clients may subscribe to by a request.",
        ),
        // A page shows fewer things. Each subscription takes memory, and an empty channel of a hub costs as much as a full one.
        key(
            "subscriptions_max",
            Count { least: 1, most: 10_000 },
            Value("100"),
            AtOnce,
            "The maximum number of subscriptions by requests of one client.",
        ),
        IDENTITY,
        TOKENS,
        HOOK,
        ORIGINS,
        LOG,
    ],
};

/// A route that answers with an event stream.
pub const EVENTS: Section = Section {
    title: "an events route",
    keys: &[
        key("events", Hub, Required, AtOnce, "The hub of the route's streams."),
        CHANNELS,
        key("event", Template, Nothing("message"), AtOnce, "The type of the events; {channel} is the channel."),
        IDENTITY,
        TOKENS,
        HOOK,
        ORIGINS,
        LOG,
    ],
};

/// A route for long polls.
pub const POLL: Section = Section {
    title: "a poll route",
    keys: &[
        key("poll", Hub, Required, AtOnce, "The hub whose messages are asked for. It needs a history."),
        CHANNELS,
        IDENTITY,
        TOKENS,
        HOOK,
        ORIGINS,
        LOG,
    ],
};

/// A publish route.
pub const PUBLISH: Section = Section {
    title: "a publish route",
    keys: &[
        key("publish", Hub, Required, AtOnce, "The hub published to."),
        key("channel", Template, Nothing("only with batch"), AtOnce, "The channel published to."),
        key("message", Template, Nothing("the request's body"), AtOnce, "The message, made from arguments."),
        key("methods", Words(&words(&METHODS)), Value("[\"POST\"]"), AtOnce, "The request methods accepted."),
        key("batch", Flag, Value("false"), AtOnce, "Whether a request has several messages, each with its channel."),
        KEYS,
        TOKENS,
        HOOK,
        key("origins", Origins, Nothing("the server's"), AtOnce, "Which web pages may publish."),
    ],
};

/// A route that says who is subscribed.
pub const PRESENCE: Section = Section {
    title: "a presence route",
    keys: &[
        key("presence", Hub, Required, AtOnce, "The hub that is asked. It needs presence."),
        key("channel", Template, Required, AtOnce, "The channel that is asked about."),
        KEYS,
        TOKENS,
        key("origins", Origins, Nothing("the server's"), AtOnce, "Which web pages may ask."),
    ],
};

/// A route that serves files.
pub const STATIC: Section = Section {
    title: "a static route",
    keys: &[
        key("static", Path, Required, AtOnce, "The directory that is served, with all below it."),
        key("listing", Flag, Value("false"), AtOnce, "Whether a directory without an index is listed."),
        key(
            "index",
            Texts,
            Value("[\"index.html\"]"),
            AtOnce,
            "The files served for a directory: the first that exists.",
        ),
        // On, because files are public and have no secret whose size could tell it, and each is compressed once.
        key(
            "compress",
            Flag,
            Value("true"),
            AtOnce,
            "Whether text is compressed if no compressed file lies beside it.",
        ),
        key("headers", Fields, Nothing("none"), AtOnce, "Further header fields of the answers."),
        // Revalidation is the default because pages change without a new name.
        key("cache", CacheRules, Nothing("caches ask each time"), AtOnce, "How long caches may keep which files."),
        key("fallback", Text, Nothing("404"), AtOnce, "The file that browsers get for a path without a file."),
        key("errors", ErrorPages, Nothing("a line of text"), AtOnce, "The files sent with answers of a status."),
        key("origins", Origins, Nothing("no other origin"), AtOnce, "Which web pages may read the files by scripts."),
        key("basic_auth", Secrets, Nothing("everybody"), AtOnce, "The users with their passwords, as of htpasswd."),
        key("realm", Text, Value("\"restricted\""), AtOnce, "What browsers show when they ask for the password."),
    ],
};

/// A route that redirects.
pub const REDIRECT: Section = Section {
    title: "a redirect route",
    keys: &[
        key("redirect", Template, Required, AtOnce, "Where to: a URL or a path; {rest} is the path below the route's."),
        // A permanent one stays in browsers, where a mistake cannot be corrected.
        key(
            "status",
            Count { least: 301, most: 308 },
            Value("302"),
            AtOnce,
            "301 or 308: permanently; 302 or 307: for now.",
        ),
    ],
};

/// A route that serves a built-in page.
pub const PAGE: Section = Section {
    title: "a page route",
    keys: &[key(
        "page",
        Word(&words(&PAGES)),
        Required,
        AtOnce,
        "A built-in page that shows messages and can send one.",
    )],
};

/// A route that serves counters.
pub const METRICS: Section = Section {
    title: "a metrics route",
    keys: &[key("metrics", On, Required, AtOnce, "Counters in the text format of Prometheus.")],
};

/// A route that says whether the process is alive.
pub const HEALTH: Section = Section {
    title: "a health route",
    keys: &[key("health", On, Required, AtOnce, "Answers 200 while the process makes progress.")],
};

/// A route that says whether new clients are accepted.
pub const READY: Section = Section {
    title: "a ready route",
    keys: &[key("ready", On, Required, AtOnce, "Answers 200 while new clients are accepted, else 503.")],
};
