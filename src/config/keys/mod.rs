//! Every key that the file may hold, in one table.
//!
//! The entry of a key is the only source of its name, type, bounds and default. The parser reads a value by its entry, and
//! `impl Default` of a table reads an empty one. `pushctl config show`, `pushctl diff` and a reload use the entries, too. The schema
//! for editors is generated from them; tests compare the default file and the manual page with them.

use std::time::Duration;

use super::units::{duration_text, size_text};

mod grants;
mod hooks;
mod routes;
mod table;

pub use grants::{KEY, SECRET, TLS, TOKEN};
pub use hooks::HOOK;
pub use routes::{EVENTS, HEALTH, METRICS, PAGE, POLL, PRESENCE, PUBLISH, READY, REDIRECT, STATIC, WEBSOCKET};
pub use table::{DAEMON, FEED, HISTORY, HUB, LOG, ROTATE, SERVER, STORE, TOP};

/// The keys of one kind of table.
#[derive(Debug, PartialEq, Eq)]
pub struct Section {
    /// The name of this kind of table, as in `[hub.NAME]`.
    pub title: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

/// One key.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name in the file.
    pub name: &'static str,
    /// The type of its value, with its bounds.
    pub kind: Kind,
    /// Its default.
    pub fallback: Fallback,
    /// When a change takes effect.
    pub change: Change,
    /// Whether its value is hidden wherever values are printed. No key is secret yet.
    pub secret: bool,
    /// Its meaning, in a sentence.
    pub about: &'static str,
}

/// The type of a key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `"10s"`
    Duration {
        /// The shortest that is allowed.
        least: Duration,
        /// The longest that is allowed.
        most: Duration,
    },
    /// `"10s"` or `false`
    DurationOrOff {
        /// The shortest that is allowed.
        least: Duration,
        /// The longest that is allowed.
        most: Duration,
    },
    /// `"100ms"` or `"always"`
    DurationOrAlways {
        /// The shortest that is allowed.
        least: Duration,
        /// The longest that is allowed.
        most: Duration,
    },
    /// `"64KiB"` or a number of bytes
    Size {
        /// The smallest that is allowed, in bytes.
        least: usize,
        /// The largest that is allowed, in bytes.
        most: usize,
    },
    /// A whole number.
    Count {
        /// The smallest that is allowed.
        least: usize,
        /// The largest that is allowed.
        most: usize,
    },
    /// A whole number from 1 to this one, or `"auto"`.
    CountOrAuto(usize),
    /// `true` or `false`
    Flag,
    /// `true`; nothing else is allowed.
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
    /// The name of a hub.
    Hub,
    /// A template: text with holes such as `{name}`.
    Template,
    /// A list of templates, at most this many, or one alone.
    Templates(usize),
    /// A list of patterns of channels, at most this many, or one alone.
    Patterns(usize),
    /// A certificate with its key; several in a list.
    Certificates,
    /// Where a secret is: a file or a credential; several in a list.
    Secrets,
    /// The name of a table of tokens.
    Tokens,
    /// The names of keys in a list, or one alone.
    Keys,
    /// The name of a hook.
    Hook,
    /// An `http` or `https` address.
    Url,
    /// Networks, as `10.0.0.0/8`, in a list, or one alone.
    Networks,
    /// A path; a relative one begins in the directory of the file.
    Path,
    /// A path; a relative one begins in the run directory.
    RunPath,
    /// Where the log goes: a path that begins in the run directory, or one of a few words.
    LogTarget,
    /// A program and its arguments.
    Program,
    /// Addresses to listen on, or one alone.
    Addresses,
    /// `"same"`, `"any"` or a list.
    Origins,
    /// `"any"` or a list.
    Hosts,
    /// Header fields: a table of their values by their names.
    Fields,
    /// A table of the time that caches may keep files, by patterns of the files.
    CacheRules,
    /// A table of files by statuses.
    ErrorPages,
    /// A table.
    Table(&'static Section),
    /// A table or `false`.
    TableOrOff(&'static Section),
    /// Tables of one kind, each with a name that the operator chooses.
    Named(&'static Section),
    /// Tables, each under a path; the action key of each decides its kind.
    Routes,
}

/// What applies where a key is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// The key must be set.
    Required,
    /// This value, in TOML.
    Value(&'static str),
    /// No value. What that means, in a few words.
    Nothing(&'static str),
}

/// When a changed key takes effect in a running pushd that reloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// At once, for all connections.
    AtOnce,
    /// For connections and sessions that begin later. Open ones keep the old value.
    NewConnections,
    /// At the next start.
    Restart,
}

/// The upper bound of a size that has none.
pub const UNBOUNDED: usize = isize::MAX as usize;

impl Kind {
    /// The bounds of its values, in words: `10ms to 7d`. `None`: its values have no order.
    pub fn bounds(self) -> Option<String> {
        let (least, most) = match self {
            Kind::Duration { least, most }
            | Kind::DurationOrOff { least, most }
            | Kind::DurationOrAlways { least, most } => (duration_text(least), duration_text(most)),
            Kind::Size { least, most: UNBOUNDED } => return Some(format!("{} or more", size_text(least as u64))),
            Kind::Size { least, most } => (size_text(least as u64), size_text(most as u64)),
            Kind::Count { least, most } => (least.to_string(), most.to_string()),
            Kind::CountOrAuto(most) => (1.to_string(), most.to_string()),
            _ => return None,
        };
        Some(format!("{least} to {most}"))
    }
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

    /// The key that decides what a route does. In other tables: the first key.
    pub fn action(&self) -> &'static Key {
        &self.keys[0]
    }
}

/// The kinds of routes. The first key of each decides what the route does.
pub const ROUTES: [&Section; 11] =
    [&WEBSOCKET, &EVENTS, &POLL, &PUBLISH, &PRESENCE, &STATIC, &REDIRECT, &PAGE, &METRICS, &HEALTH, &READY];

/// Every kind of table.
pub const SECTIONS: [&Section; 25] = [
    &TOP, &DAEMON, &LOG, &ROTATE, &STORE, &SERVER, &WEBSOCKET, &EVENTS, &POLL, &PUBLISH, &PRESENCE, &STATIC, &REDIRECT,
    &PAGE, &METRICS, &HEALTH, &READY, &HUB, &HISTORY, &FEED, &KEY, &HOOK, &SECRET, &TLS, &TOKEN,
];

/// The words of a list that pairs each word with its value.
const fn words<T: Copy, const N: usize>(pairs: &[(&'static str, T); N]) -> [&'static str; N] {
    let mut words = [""; N];
    let mut at = 0;
    while at < N {
        words[at] = pairs[at].0;
        at += 1;
    }
    words
}

const fn key(name: &'static str, kind: Kind, fallback: Fallback, change: Change, about: &'static str) -> Key {
    Key { name, kind, fallback, change, secret: false, about }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_of_a_table_is_made_of_the_defaults_of_its_keys() {
        let mut compared = 0;
        for key in SECTIONS.iter().flat_map(|section| section.keys) {
            let (Kind::TableOrOff(below), Fallback::Value(text)) = (key.kind, key.fallback) else { continue };
            if text == "false" {
                continue;
            }
            let entries = below.keys.iter().map(|key| match key.fallback {
                Fallback::Value(value) => format!("{} = {value}", key.name),
                _ => panic!("{} has no default", key.name),
            });
            assert_eq!(text, format!("{{ {} }}", entries.collect::<Vec<_>>().join(", ")), "{}", key.name);
            compared += 1;
        }
        assert_eq!(compared, 1);
    }
}
