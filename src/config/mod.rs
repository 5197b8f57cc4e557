//! The configuration: pure data, read from one TOML file and its drop-ins.
//!
//! A [`Config`] comes from [`load`] or one of the functions beside it, and is valid. The rest of the program does not check it again.
//!
//! ```text
//! sources  merge                             the files -> one table; each key keeps its location
//! file                                       the table -> Config
//!   servers  sharing, routes, subscribing, redirect
//!            static_route: caching, fields, glob, passwords
//!   process  store  hubs  feeds  access  hooks      one module for each kind of table
//!   hub_warnings                             warnings about routes and feeds of one hub
//!     reader, values                         read one value, report a mistake, continue
//!   tls  tokens                              certificates, and what tokens are checked with
//!       secret                                read a file that the table names
//!       units  network  addresses  template  pattern  channel_pattern    the formats inside strings
//! report -> error                            the messages to the operator
//! keys  limits                               the entry of each key; bounds that no key sets
//! settings  differences                      the value of each key and where it is set; the effect of a change
//! ```

use std::path::PathBuf;
use std::sync::Arc;

mod access;
mod addresses;
mod caching;
mod channel_pattern;
mod differences;
pub mod error;
mod feeds;
mod fields;
mod file;
mod glob;
mod hooks;
mod hub_warnings;
mod hubs;
pub mod keys;
pub mod limits;
mod merge;
mod network;
mod passwords;
pub mod pattern;
mod process;
mod reader;
mod redirect;
mod report;
mod routes;
mod secret;
mod servers;
mod settings;
mod sharing;
mod sources;
mod static_route;
mod store;
mod subscribing;
mod syntax;
pub mod template;
pub(crate) mod text;
mod text_file;
mod tls;
mod tokens;
mod unclosed;
mod units;
mod values;

pub use access::AccessKey;
pub use addresses::{Hosts, Listen, Origins};
pub use caching::Caching;
pub use channel_pattern::ChannelPattern;
pub use differences::{Difference, differences};
pub use error::{Diagnostic, Errors, Severity};
pub use feeds::{Feed, Source};
pub use file::{load, load_again, load_daemon, load_for_another, load_settings, parse};
pub use glob::Glob;
pub use hooks::{Hook, OnError};
pub use hubs::{History, Hub, WhenSlow};
pub use network::Network;
pub use passwords::{PasswordHash, Passwords};
pub use pattern::Pattern;
pub use process::{AccessTarget, Daemon, Log, LogFormat, LogTarget, Rotate, Workers};
pub use redirect::{NOT_IN_URL, REST, Redirect};
pub use secret::Secret;
pub use servers::Server;
pub use settings::{Provenance, Setting, Settings};
pub use sources::DROP_INS;
pub use static_route::Static;
pub use store::{Store, Sync};
pub use template::Template;
pub(crate) use text::path as key_name;
pub use tls::{Certificate, Tls, Unusable};
pub use tokens::{CLAIM, TokenKeys, Tokens, public_key};
pub(crate) use units::{duration, duration_text, size};

/// The commented default configuration, as shipped in `config/pushd.toml`.
pub const DEFAULT: &str = include_str!("../../config/pushd.toml");

/// The checked content of a file and its drop-ins.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[daemon]`: the process.
    pub daemon: Daemon,
    /// `[log]`: where events are written.
    pub log: Log,
    /// `[store]`: where durable history is kept, and how much memory all history takes.
    pub store: Store,
    /// `[server.NAME]`, in the order of the file.
    pub servers: Vec<Server>,
    /// `[hub.NAME]`, in the order of the file; a [`HubId`] is an index into it.
    pub hubs: Vec<Hub>,
    /// `[feed.NAME]`, in the order of the file.
    pub feeds: Vec<Feed>,
    /// `[hook.NAME]`, in the order of the file.
    pub hooks: Vec<Hook>,
    /// The files it was read from: the one that was named, then its drop-ins.
    pub files: Vec<PathBuf>,
    /// What is allowed, but may be a mistake.
    pub warnings: Vec<Diagnostic>,
}

/// One line of `[server.NAME.routes]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The path it answers.
    pub pattern: Pattern,
    /// What it does.
    pub action: Action,
}

/// An index into [`Config::hubs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HubId(pub u32);

/// What a route does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// `websocket = "HUB"`
    WebSocket(WebSocket),
    /// `events = "HUB"`
    Events(Events),
    /// `poll = "HUB"`
    Poll(Poll),
    /// `publish = "HUB"`
    Publish(Publish),
    /// `presence = "HUB"`
    Presence(PresenceRoute),
    /// `static = "DIRECTORY"`
    Static(Static),
    /// `redirect = "TARGET"`
    Redirect(Redirect),
    /// `page = "live"`: the page that is built into pushd.
    Page(Page),
    /// `metrics = true`: counters in the text format of Prometheus.
    Metrics,
    /// `health = true`: 200 while the process makes progress.
    Health,
    /// `ready = true`: 200 while new clients are accepted, 503 once draining.
    Ready,
}

impl Action {
    /// The subscription of its clients, if it has one.
    pub fn subscription(&self) -> Option<&Subscription> {
        match self {
            Action::WebSocket(socket) => Some(&socket.subscription),
            Action::Events(events) => Some(&events.subscription),
            Action::Poll(poll) => Some(&poll.subscription),
            _ => None,
        }
    }

    /// The tokens that it accepts; `None`: no token is needed.
    pub fn tokens(&self) -> Option<&Tokens> {
        match self {
            Action::Publish(publish) => publish.tokens.as_ref(),
            Action::Presence(presence) => presence.tokens.as_ref(),
            other => other.subscription()?.tokens.as_ref(),
        }
    }

    /// The templates that requests fill.
    pub fn templates(&self) -> Vec<&Template> {
        let own: [Option<&Template>; 3] = match self {
            Action::WebSocket(socket) => [&socket.to, &socket.greeting, &socket.identity].map(Option::as_ref),
            Action::Events(events) => [events.identity.as_ref(), None, None],
            Action::Poll(poll) => [poll.identity.as_ref(), None, None],
            Action::Publish(publish) => [publish.channel.as_ref(), publish.message.as_ref(), None],
            Action::Presence(presence) => [Some(&presence.channel), None, None],
            _ => [None; 3],
        };
        let channels = self.subscription().map(|subscription| &subscription.channels);
        own.into_iter().flatten().chain(channels.into_iter().flatten()).collect()
    }

    /// The web pages that may use it, if it checks them.
    pub fn origins(&self) -> Option<&Origins> {
        match self {
            Action::Publish(publish) => Some(&publish.origins),
            Action::Presence(presence) => Some(&presence.origins),
            Action::Static(pages) => pages.origins.as_ref(),
            other => other.subscription().map(|subscription| &subscription.origins),
        }
    }
}

/// A route that upgrades to a WebSocket session.
#[derive(Debug, Clone, PartialEq)]
pub struct WebSocket {
    /// Its hub and channels.
    pub subscription: Subscription,
    /// What happens to a client's message.
    pub on_message: OnMessage,
    /// The channel a broadcast goes to; `None`: the first of `channels`.
    pub to: Option<Template>,
    /// Which messages are accepted. Others are ignored.
    pub accept: Accept,
    /// Sent to each client when it connects.
    pub greeting: Option<Template>,
    /// Wraps a client's message before it is sent on: `msg:{message}`.
    pub message: Option<Template>,
    /// Whether draft-76 clients are accepted, too.
    pub draft76: bool,
    /// The subprotocols offered, the preferred one first.
    pub subprotocols: Vec<String>,
    /// Whether each message is sent as JSON with its channel and position: `{"channel":"news","id":"…","data":"…"}`.
    pub envelope: bool,
    /// The channels that clients may subscribe to by a request. Empty: requests are refused. Never set without `envelope`.
    pub subscribe: Vec<ChannelPattern>,
    /// The maximum number of channels and patterns that one client is subscribed to by such requests.
    pub subscriptions_max: usize,
    /// The name of the client for presence; `None`: its clients have none.
    pub identity: Option<Template>,
}

/// What websocket, events and poll routes have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    /// The hub subscribed to.
    pub hub: HubId,
    /// The channels a client is subscribed to; never empty. Those that [are patterns](Template::is_pattern) stand for all channels that
    /// match: their [`channel`](Template::channel) is the text of a [`ChannelPattern`].
    pub channels: Vec<Template>,
    /// Which web pages may connect.
    pub origins: Origins,
    /// What is logged at level info about its clients.
    pub log: SessionLog,
    /// The tokens that are accepted; `None`: no token is needed.
    pub tokens: Option<Tokens>,
    /// The name of the hook that is asked whether a client may connect; `None`: every client may.
    pub hook: Option<Arc<str>>,
}

/// A route that answers with an event stream (`text/event-stream`).
#[derive(Debug, Clone, PartialEq)]
pub struct Events {
    /// Its hub and channels.
    pub subscription: Subscription,
    /// The type of its events; the only hole in it is `channel`. `None`: browsers use `message`. The template contains no CR, LF or
    /// NUL, but the name of a channel that fills the hole may.
    pub event: Option<Template>,
    /// The name of the client for presence; `None`: its clients have none.
    pub identity: Option<Template>,
}

/// A route that answers with the messages since a position, or waits for the next one.
#[derive(Debug, Clone, PartialEq)]
pub struct Poll {
    /// Its hub, which has a history, and its channels.
    pub subscription: Subscription,
    /// The name of the client for presence; `None`: its clients have none.
    pub identity: Option<Template>,
}

/// A route that answers who is subscribed to a channel.
#[derive(Debug, Clone, PartialEq)]
pub struct PresenceRoute {
    /// The hub, which has presence.
    pub hub: HubId,
    /// The channel.
    pub channel: Template,
    /// The keys that are accepted; `None`: no key is needed.
    pub keys: Option<Vec<AccessKey>>,
    /// The tokens that are accepted; `None`: no token is needed.
    pub tokens: Option<Tokens>,
    /// Which web pages may ask.
    pub origins: Origins,
}

/// `on_message`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMessage {
    /// Published to the session's channel, also to the sender.
    Broadcast,
    /// Sent back to the sender alone.
    Echo,
    /// Received (and logged), but not sent on.
    Ignore,
}

/// `accept`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// Text and binary messages.
    Both,
    /// Text only; binary is ignored.
    Text,
    /// Binary only; text is ignored.
    Binary,
}

/// `log` of a websocket, events or poll route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionLog {
    /// Nothing (but at level debug, everything).
    Off,
    /// Clients that connect and disconnect.
    Connections,
    /// Clients that connect and disconnect, and their messages.
    Messages,
}

/// A route that publishes the messages of requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Publish {
    /// The hub published to.
    pub hub: HubId,
    /// The channel published to; `None` only with `batch`: each message of a batch names its channel.
    pub channel: Option<Template>,
    /// The message; `None`: the request's body.
    pub message: Option<Template>,
    /// The request methods accepted; never empty.
    pub methods: Vec<Method>,
    /// Which web pages may publish.
    pub origins: Origins,
    /// The keys that are accepted; `None`: no key is needed.
    pub keys: Option<Vec<AccessKey>>,
    /// The tokens that are accepted; `None`: no token is needed.
    pub tokens: Option<Tokens>,
    /// The name of the hook that is asked about each message; `None`: all are published.
    pub hook: Option<Arc<str>>,
    /// Whether a request contains several messages, each with its channel. Then the only method is POST, and `message` is `None`.
    pub batch: bool,
}

/// A request method that a publish route can accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET
    Get,
    /// POST
    Post,
    /// PUT
    Put,
}

/// A route that serves the built-in page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// Shows messages as they arrive, and can send one.
    Live,
}
