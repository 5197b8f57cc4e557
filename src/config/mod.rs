//! The configuration: pure data, made from one TOML file and its drop-ins.
//!
//! [`load`] is the only door: a [`Config`] in hand is valid, so nobody behind the door checks again.
//!
//! ```text
//! sources  merge                             files -> one table of keys that know their places
//! file                                       the table -> Config
//!   process  hubs  servers, routes  feeds    one room a kind of table
//!   meeting                                  which routes and feeds of a hub can hear each other
//!     reader, values                         one typed look at a TOML value; notes a mistake and goes on
//!       units  addresses  template  pattern  the small languages inside strings
//! report -> error                            what is wrong, drawn for the operator
//! keys  limits                               every key; every bound
//! settings  differences                      what counts for each key, and where it is said; what a change does
//! ```

use std::path::PathBuf;

mod addresses;
mod differences;
pub mod error;
mod feeds;
mod file;
mod hubs;
pub mod keys;
pub mod limits;
mod meeting;
mod merge;
pub mod pattern;
mod process;
mod reader;
mod report;
mod routes;
mod servers;
mod settings;
mod sources;
mod syntax;
pub mod template;
pub(crate) mod text;
mod text_file;
mod unclosed;
mod units;
mod values;

pub use addresses::{Hosts, Listen, Origins};
pub use differences::{Difference, differences};
pub use error::{Diagnostic, Errors, Severity};
pub use feeds::{Feed, Source};
pub use file::{load, load_again, load_daemon, load_settings, parse};
pub use hubs::{Hub, WhenSlow};
pub use pattern::Pattern;
pub use process::{Daemon, Log, LogFormat, LogTarget, Rotate, Workers};
pub use servers::Server;
pub use settings::{Provenance, Setting, Settings};
pub use sources::DROP_INS;
pub use template::Template;
pub(crate) use units::{duration, duration_text, size};

/// The commented default configuration, as shipped in `config/pushd.toml`.
pub const DEFAULT: &str = include_str!("../../config/pushd.toml");

/// Everything a file and its drop-ins say, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[daemon]`: the process.
    pub daemon: Daemon,
    /// `[log]`: where events are written.
    pub log: Log,
    /// `[server.NAME]`, in the order of the file.
    pub servers: Vec<Server>,
    /// `[hub.NAME]`, in the order of the file; a [`HubId`] is a place in it.
    pub hubs: Vec<Hub>,
    /// `[feed.NAME]`, in the order of the file.
    pub feeds: Vec<Feed>,
    /// The files it was read from: the one that was named, then its drop-ins.
    pub files: Vec<PathBuf>,
    /// What is allowed but deserves a second look.
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

/// A place in [`Config::hubs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HubId(pub u32);

/// What a route does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// `websocket = "HUB"`
    WebSocket(WebSocket),
    /// `events = "HUB"`
    Events(Events),
    /// `publish = "HUB"`
    Publish(Publish),
    /// `static = "DIRECTORY"`
    Static(Static),
    /// `page = "live"`: the page that pushd carries in itself.
    Page(Page),
    /// `metrics = true`: counters in the text format of Prometheus.
    Metrics,
    /// `health = true`: 200 while the process makes progress.
    Health,
    /// `ready = true`: 200 while new clients are welcome, 503 once draining.
    Ready,
}

/// A route that upgrades to a WebSocket session.
#[derive(Debug, Clone, PartialEq)]
pub struct WebSocket {
    /// The hub its sessions belong to.
    pub hub: HubId,
    /// The channels a session is subscribed to; never empty (`["all"]` unless said).
    pub channels: Vec<Template>,
    /// What becomes of a client's message.
    pub on_message: OnMessage,
    /// The channel a broadcast goes to; `None`: the first of `channels`.
    pub to: Option<Template>,
    /// Which messages are taken; the others are ignored.
    pub accept: Accept,
    /// Sent to each client as it arrives.
    pub greeting: Option<Template>,
    /// Wraps a client's message before it goes on: `msg:{message}`.
    pub message: Option<Template>,
    /// Whether draft-76 clients are let in too.
    pub draft76: bool,
    /// The subprotocols spoken, best first.
    pub subprotocols: Vec<String>,
    /// Who may connect from a browser.
    pub origins: Origins,
    /// What is logged at level info about its sessions.
    pub log: SessionLog,
}

/// What a route that clients subscribe by has in common with others of its kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    /// The hub subscribed to.
    pub hub: HubId,
    /// The channels a client is subscribed to; never empty (`["all"]` is the default).
    pub channels: Vec<Template>,
    /// Which web pages may connect.
    pub origins: Origins,
    /// What is logged at level info about its clients.
    pub log: SessionLog,
}

/// A route that answers with an event stream (`text/event-stream`).
#[derive(Debug, Clone, PartialEq)]
pub struct Events {
    /// Its hub and channels.
    pub subscription: Subscription,
    /// The type of its events, of which the only hole is `channel`; `None`: browsers take it as `message`. Its text holds no CR, LF
    /// or NUL; a channel that fills the hole may.
    pub event: Option<Template>,
}

/// `on_message`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMessage {
    /// Published to the session's channel, sender included.
    Broadcast,
    /// Sent back to the sender alone.
    Echo,
    /// Received (and logged), not sent on.
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

/// `log` of a websocket or events route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionLog {
    /// Nothing (but at level debug, everything).
    Off,
    /// Who comes and goes.
    Connections,
    /// Who comes and goes, and what they say.
    Messages,
}

/// A route that publishes what it is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Publish {
    /// The hub published to.
    pub hub: HubId,
    /// The channel published to.
    pub channel: Template,
    /// The message; `None`: the request's body.
    pub message: Option<Template>,
    /// The request methods taken; never empty (POST unless said).
    pub methods: Vec<Method>,
    /// Which pages may publish.
    pub origins: Origins,
}

/// A request method a publish route can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET
    Get,
    /// POST
    Post,
    /// PUT
    Put,
}

/// A route that serves files.
#[derive(Debug, Clone, PartialEq)]
pub struct Static {
    /// The directory, absolute or relative to the process at load time (already joined to the file's own).
    pub root: PathBuf,
    /// Whether a directory without an index is listed.
    pub listing: bool,
    /// File names served for a directory, the first that exists.
    pub index: Vec<String>,
}

/// A route that serves the built-in page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// Live messages, and a box to send one.
    Live,
}
