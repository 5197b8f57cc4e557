//! Subscribing by a client's message: what a message asks for, what is allowed, and how it is answered.
//!
//! A request is a text with one JSON object: `{"subscribe":"news/7"}`, perhaps with `"since":"POSITION"`, or
//! `{"unsubscribe":"news/7"}`. Anything else is no request, and a message like others. Each request is answered: by `subscribed`,
//! `unsubscribed`, or `error` with the reason.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Ask, json};
use crate::config::{self, ChannelPattern};
use crate::hub::{Position, Selector, Since};

/// A longer text is no request. One with the longest name and the longest position, all escaped, has less than half of it.
const REQUEST_BYTES_MAX: usize = 4096;
/// The answer to a request for a channel that no pattern of the route covers.
const NOT_ALLOWED: &str = "this route does not allow it";

/// What clients may subscribe to by themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribable {
    patterns: Arc<[ChannelPattern]>,
    /// How many subscriptions one client may have.
    pub subscriptions_max: usize,
}

/// A request, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    subscribe: Option<String>,
    unsubscribe: Option<String>,
    since: Option<String>,
}

/// The answer to a request, or the news that a subscription has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The client receives what is published. It may continue from this position, if the hub has any.
    Subscribed(&'a str, Option<Position>),
    /// The subscription has ended. Unless the client has asked for that, there is a reason.
    Unsubscribed(&'a str, Option<&'a str>),
    /// Nothing was changed, for this reason.
    Refused(&'a str, &'a str),
}

/// An answer, as it is written.
#[derive(Default, Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribed: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unsubscribed: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

impl Subscribable {
    /// What a route allows; `None`: nothing.
    pub fn of(route: &config::WebSocket) -> Option<Subscribable> {
        let config::WebSocket { subscribe, subscriptions_max, .. } = route;
        let patterns: Arc<[ChannelPattern]> = subscribe.as_slice().into();
        (!patterns.is_empty()).then_some(Subscribable { patterns, subscriptions_max: *subscriptions_max })
    }

    /// What a text asks for, if it is a request.
    pub fn hear(&self, text: &[u8]) -> Option<Ask<'static>> {
        if text.len() > REQUEST_BYTES_MAX || text.trim_ascii_start().first() != Some(&b'{') {
            return None;
        }
        let Request { subscribe, unsubscribe, since } = serde_json::from_slice(text).ok()?;
        let (channel, begins) = match (subscribe, unsubscribe, &since) {
            (Some(channel), None, _) => (channel, true),
            (None, Some(channel), None) => (channel, false),
            _ => return None,
        };
        let refuse = |why: &str| Ask::Reply(Answer::Refused(&channel, why).json().into());
        let pattern = match ChannelPattern::parse(&channel) {
            Ok(pattern) => pattern,
            Err(mistake) => return Some(refuse(&mistake)),
        };
        if begins && !self.covers(&pattern) {
            return Some(refuse(NOT_ALLOWED));
        }
        let selector = Selector { is_pattern: pattern.is_wild(), text: channel.into() };
        let since = since.filter(|text| !text.is_empty()).map(|text| Since::parse(&text));
        Some(if begins { Ask::Subscribe(selector, since) } else { Ask::Unsubscribe(selector) })
    }

    fn covers(&self, pattern: &ChannelPattern) -> bool {
        self.patterns.iter().any(|allowed| allowed.covers(pattern))
    }

    /// Whether a subscription is allowed.
    pub fn allows(&self, selector: &Selector) -> bool {
        ChannelPattern::parse(&selector.text).is_ok_and(|pattern| self.covers(&pattern))
    }

    /// Whether the same is allowed.
    pub fn allows_the_same(&self, other: &Subscribable) -> bool {
        self.patterns == other.patterns
    }
}

impl Answer<'_> {
    /// Its text.
    pub fn json(&self) -> Vec<u8> {
        let written = match *self {
            Answer::Subscribed(channel, position) => Written {
                subscribed: Some(channel),
                id: position.map(|position| position.to_string()),
                ..Written::default()
            },
            Answer::Unsubscribed(channel, error) => {
                Written { unsubscribed: Some(channel), error, ..Written::default() }
            }
            Answer::Refused(channel, why) => Written { error: Some(why), channel: Some(channel), ..Written::default() },
        };
        json(&written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::limits::CHANNEL_BYTES_MAX;
    use crate::hub::Epoch;

    fn subscribable(patterns: &[&str]) -> Subscribable {
        let patterns = patterns.iter().map(|pattern| ChannelPattern::parse(pattern).unwrap()).collect();
        Subscribable { patterns, subscriptions_max: 100 }
    }

    #[test]
    fn a_request_is_an_object_of_exactly_these_keys() {
        let allowed = subscribable(&["news/*", "all"]);
        let hear = |text: &str| allowed.hear(text.as_bytes());
        let name = || Selector::name("news/7");
        assert_eq!(hear(r#"{"subscribe":"news/7"}"#), Some(Ask::Subscribe(name(), None)));
        assert_eq!(
            hear(" \r\n\t{ \"since\" : \"earliest\", \"subscribe\":\"n\\u0065ws/7\" }\n"),
            Some(Ask::Subscribe(name(), Some(Since::Earliest)))
        );
        assert_eq!(hear(r#"{"subscribe":"news/7","since":""}"#), Some(Ask::Subscribe(name(), None)));
        assert_eq!(hear(r#"{"subscribe":"news/7","since":"?"}"#), Some(Ask::Subscribe(name(), Some(Since::Unknown))));
        assert_eq!(hear(r#"{"unsubscribe":"news/7"}"#), Some(Ask::Unsubscribe(name())));
        assert_eq!(hear(r#"{"subscribe":"news/*"}"#), Some(Ask::Subscribe(Selector::pattern("news/*"), None)));
        for text in [
            "",
            "{}",
            "{\"subscribe\":7}",
            "{\"subscribe\":null}",
            "[{\"subscribe\":\"all\"}]",
            "\"subscribe\"",
            "{\"subscribe\":\"all\"",
            "{\"subscribe\":\"all\"} x",
            "{\"subscribe\":\"all\",\"subscribe\":\"all\"}",
            "{\"subscribe\":\"all\",\"unsubscribe\":\"all\"}",
            "{\"unsubscribe\":\"all\",\"since\":\"earliest\"}",
            "{\"subscribe\":\"all\",\"x\":1}",
            "{\"Subscribe\":\"all\"}",
            "hello",
        ] {
            assert_eq!(hear(text), None, "{text}");
        }
        assert_eq!(hear(&format!("{}{{\"subscribe\":\"all\"}}", " ".repeat(REQUEST_BYTES_MAX))), None);
    }

    #[test]
    fn what_is_not_allowed_is_refused_with_the_reason() {
        let allowed = subscribable(&["news/*", "all"]);
        let refusal = |channel: &str| match allowed.hear(format!("{{\"subscribe\":\"{channel}\"}}").as_bytes()) {
            Some(Ask::Reply(reply)) => String::from_utf8(reply.into_owned()).unwrap(),
            other => panic!("{other:?}"),
        };
        for channel in ["other", "news/7/8", "news/**", "**", "*", "news"] {
            let expected = format!("{{\"error\":\"this route does not allow it\",\"channel\":\"{channel}\"}}");
            assert_eq!(refusal(channel), expected);
        }
        for (channel, why) in [("", "empty"), ("news/7*", "whole segments"), ("a\\nb", "control"), ("**/a", "last")] {
            assert!(refusal(channel).contains(why), "{}", refusal(channel));
        }
        assert!(refusal(&"x".repeat(CHANNEL_BYTES_MAX + 1)).contains("at most 256 bytes"));
        // What is not allowed any more can still be ended.
        assert_eq!(allowed.hear(br#"{"unsubscribe":"other"}"#), Some(Ask::Unsubscribe(Selector::name("other"))));
        assert!(allowed.allows(&Selector::pattern("news/*")) && !allowed.allows(&Selector::pattern("news/**")));
    }

    #[test]
    fn an_answer_is_one_object() {
        let text = |answer: Answer<'_>| String::from_utf8(answer.json()).unwrap();
        let position = Position { epoch: Epoch(1), offset: 37 };
        assert_eq!(text(Answer::Subscribed("a\"b", None)), r#"{"subscribed":"a\"b"}"#);
        assert_eq!(
            text(Answer::Subscribed("a", Some(position))),
            format!("{{\"subscribed\":\"a\",\"id\":\"{position}\"}}")
        );
        assert_eq!(text(Answer::Unsubscribed("a", None)), r#"{"unsubscribed":"a"}"#);
        assert_eq!(text(Answer::Unsubscribed("a", Some("no"))), r#"{"unsubscribed":"a","error":"no"}"#);
        assert_eq!(text(Answer::Refused("a", "no")), r#"{"error":"no","channel":"a"}"#);
    }
}
