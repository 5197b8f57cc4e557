//! The entries of the keys that say who may do what.

use super::Change::AtOnce;
use super::Fallback::{Nothing, Required};
use super::Kind::{Networks, Path, Patterns, Secrets, Text};
use super::{Section, key};

/// `[key.NAME]`
pub const KEY: Section = Section {
    title: "[key.NAME]",
    keys: &[
        key(
            "secret",
            Secrets,
            Required,
            AtOnce,
            "Where the secret is that a program shows; several while it is replaced.",
        ),
        // A backend publishes on kinds of channels, not on single ones. Each message is checked against all of them.
        key("publish", Patterns(100), Nothing("all"), AtOnce, "The channels it may publish on."),
        key("addresses", Networks, Nothing("all"), AtOnce, "The addresses from which it is accepted."),
    ],
};

/// `secret`
pub const SECRET: Section = Section {
    title: "secret",
    keys: &[
        key("file", Path, Nothing("a credential"), AtOnce, "The file that contains the secret."),
        key("credential", Text, Nothing("a file"), AtOnce, "The credential of the service manager that is the secret."),
    ],
};
