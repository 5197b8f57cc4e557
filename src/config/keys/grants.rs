//! The entries of the keys that say who may do what, and of certificates.

use super::Change::{AtOnce, NewConnections};
use super::Fallback::{Nothing, Required, Value};
use super::Kind::{Duration, Networks, Path, Patterns, Secrets, Text, Word};
use super::{Section, key, words};
use crate::config::tokens::ALGORITHMS;

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

/// `[token.NAME]`
pub const TOKEN: Section = Section {
    title: "[token.NAME]",
    keys: &[
        key("algorithm", Word(&words(&ALGORITHMS)), Required, AtOnce, "The algorithm of the signature."),
        key(
            "secret",
            Secrets,
            Nothing("a public key"),
            AtOnce,
            "Where the secret of HS256, HS384 or HS512 is; several while it is replaced.",
        ),
        key(
            "public_key",
            Path,
            Nothing("a secret"),
            AtOnce,
            "The file with the public key of the other algorithms, in PEM.",
        ),
        key("jwks", Path, Nothing("one key"), AtOnce, "The file with several public keys, as a JSON Web Key Set."),
        key("issuer", Text, Nothing("any"), NewConnections, "What `iss` must be."),
        key("audience", Text, Nothing("any"), NewConnections, "What `aud` must be, or contain."),
        // A machine that is ten seconds wrong has no working clock service.
        key(
            "leeway",
            Duration { least: std::time::Duration::ZERO, most: std::time::Duration::from_secs(3600) },
            Value("\"5s\""),
            NewConnections,
            "How much the clocks may differ.",
        ),
        key("cookie", Text, Nothing("none"), NewConnections, "The cookie in which a token may come, too."),
        key(
            "channels",
            Text,
            Nothing("all of the route"),
            NewConnections,
            "The claim that lists the channels a client may subscribe to.",
        ),
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
