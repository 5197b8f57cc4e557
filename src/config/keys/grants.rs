//! The entries of the keys that say who may do what, and of certificates.

use super::Change::AtOnce;
use super::Fallback::{Nothing, Required};
use super::Kind::{Networks, Path, Patterns, Secrets, Text};
use super::{Section, key};

/// `tls`
pub const TLS: Section = Section {
    title: "tls",
    keys: &[
        key("certificate", Path, Required, AtOnce, "The file of the certificate, with the chain behind it."),
        key("key", Path, Required, AtOnce, "The file of its private key."),
        key("ocsp", Path, Nothing("none"), AtOnce, "The file of an OCSP response that is sent with the certificate."),
        key(
            "client_ca",
            Path,
            Nothing("clients need none"),
            AtOnce,
            "Who must have signed the certificate of a client.",
        ),
    ],
};

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
