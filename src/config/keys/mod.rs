//! Every key the file may hold, in one table.
//!
//! The parser takes its known keys from `table`; the default file, the manual page and the schema for editors are proven
//! against it: a key cannot be read without being listed, nor listed without being documented. What is said here of a key
//! is also what `pushctl config show` prints where the file says nothing, and what `pushctl diff` and a reload go by.

mod table;

pub use table::{
    DAEMON, EVENTS, FEED, HEALTH, HUB, LOG, METRICS, PAGE, PUBLISH, READY, ROTATE, SERVER, STATIC, TOP, WEBSOCKET,
};

/// The keys of one kind of table.
#[derive(Debug, PartialEq, Eq)]
pub struct Section {
    /// How a table of this kind is called, as in `[hub.NAME]`.
    pub title: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

/// One key.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// How it is written.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What counts where it is not set.
    pub fallback: Fallback,
    /// When a change of it is felt.
    pub change: Change,
    /// Whether its value must not be shown. No key has one yet; it is hidden wherever values are printed.
    pub secret: bool,
    /// What it means, in a sentence.
    pub about: &'static str,
}

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `"10s"`
    Duration,
    /// `"10s"` or `false`
    DurationOrOff,
    /// `"64KiB"` or a number of bytes
    Size,
    /// A whole number.
    Count {
        /// The least it may be.
        least: usize,
        /// The most it may be.
        most: usize,
    },
    /// A whole number from 1, at most so large, or `"auto"`.
    CountOrAuto(usize),
    /// `true` or `false`
    Flag,
    /// `true`, which is all it takes.
    On,
    /// A file mode creation mask: `"027"`
    Mask,
    /// One of a few words.
    Word(&'static [&'static str]),
    /// Some of a few words, or one alone.
    Words(&'static [&'static str]),
    /// A string.
    Text,
    /// A list of strings, or one alone.
    Texts,
    /// A path that begins in the directory of the file.
    Path,
    /// A program and its arguments.
    Program,
    /// Addresses to listen on, or one alone.
    Addresses,
    /// `"same"`, `"any"` or a list.
    Origins,
    /// `"any"` or a list.
    Hosts,
    /// A table.
    Table(&'static Section),
    /// A table or `false`.
    TableOrOff(&'static Section),
    /// Tables of one kind, each with a name of the operator's choice.
    Named(&'static Section),
    /// Tables, each under a path, of the kind that its action says.
    Routes,
}

/// What counts where a key is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// It must be set.
    Required,
    /// This value, as TOML writes it.
    Value(&'static str),
    /// No value at all: what that means, in a few words.
    Nothing(&'static str),
}

/// When a change of a key is felt, by a running pushd that reloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// At once, by everybody.
    AtOnce,
    /// By connections and sessions that begin later; those that are open go on as they began.
    NewConnections,
    /// At the next start.
    Restart,
}

impl Section {
    /// The key of that name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The names of its keys.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + Clone + use<> {
        self.keys.iter().map(|key| key.name)
    }

    /// The key that says what a route does; of other tables, the first.
    pub fn action(&self) -> &'static Key {
        &self.keys[0]
    }
}

/// The kinds of routes; the first key of each says what the route does.
pub const ROUTES: [&Section; 8] = [&WEBSOCKET, &EVENTS, &PUBLISH, &STATIC, &PAGE, &METRICS, &HEALTH, &READY];

/// Every kind of table.
pub const SECTIONS: [&Section; 15] = [
    &TOP, &DAEMON, &LOG, &ROTATE, &SERVER, &WEBSOCKET, &EVENTS, &PUBLISH, &STATIC, &PAGE, &METRICS, &HEALTH, &READY,
    &HUB, &FEED,
];

const fn key(name: &'static str, kind: Kind, fallback: Fallback, change: Change, about: &'static str) -> Key {
    Key { name, kind, fallback, change, secret: false, about }
}
