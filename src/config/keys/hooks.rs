//! The entries of the keys of hooks.

use std::time::Duration;

use super::Change::AtOnce;
use super::Fallback::{Nothing, Value};
use super::Kind::{Count, Path, Secrets, Size, Texts, Url, Word};
use super::{Kind, Section, key, words};
use crate::config::hooks::ON_ERROR;

/// `[hook.NAME]`
pub const HOOK: Section = Section {
    title: "[hook.NAME]",
    keys: &[
        key("connect", Url, Nothing("not asked"), AtOnce, "The address that is asked whether a client may connect."),
        key("publish", Url, Nothing("not asked"), AtOnce, "The address that is asked whether a message is published."),
        // A client waits for the answer. Browsers give up after a minute.
        key(
            "timeout",
            Kind::Duration { least: Duration::from_millis(50), most: Duration::from_secs(30) },
            Value("\"1s\""),
            AtOnce,
            "How long an answer may take, with the time until the question is sent.",
        ),
        // Twice the default of `message_max`: an answer may contain a whole message.
        key(
            "answer_max",
            Size { least: 1 << 10, most: 64 << 20 },
            Value("\"128KiB\""),
            AtOnce,
            "The maximum size of an answer.",
        ),
        // A backend of some dozen processes answers so many at once.
        key(
            "requests_max",
            Count { least: 1, most: 10_000 },
            Value("100"),
            AtOnce,
            "The maximum number of questions in flight.",
        ),
        key(
            "on_error",
            Word(&words(&ON_ERROR)),
            Value("\"deny\""),
            AtOnce,
            "What applies if the backend gives no answer.",
        ),
        // Those by which backends know their users.
        key(
            "headers",
            Texts,
            Value("[\"Authorization\", \"Cookie\", \"Origin\", \"User-Agent\"]"),
            AtOnce,
            "The header fields of the client's request that are passed on.",
        ),
        key("ca", Path, Nothing("the system's"), AtOnce, "The certificates that sign that of the backend."),
        key(
            "secret",
            Secrets,
            Nothing("no signature"),
            AtOnce,
            "Where the secret is that signs questions; several while it is replaced.",
        ),
    ],
};
