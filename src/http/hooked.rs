//! Routes with a hook: the backend is asked, and only the request that asks waits for its answer.
//!
//! A session is asked about once everything else has been checked, and holds its place in the limits meanwhile. So a client that is
//! refused anyway costs the backend nothing.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use bytes::Bytes;
use futures_util::StreamExt;
use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderMap};
use http::request::Parts;
use serde_json::Value;

use super::answer::{self, Answer};
use super::arguments::Arguments;
use super::publish::{message_too_large, refuse, unavailable};
use super::reader::Reader;
use super::site::PublishHandler;
use super::{Client, Outcome, Site, events};
use crate::config;
use crate::config::limits::{HOOK_BATCH_AT_ONCE, HOOK_BATCH_MESSAGES_MAX, HOOK_FIELDS_BYTES_MAX};
use crate::hook::question::{About, Data, Question};
use crate::hook::{Hook, Verdict, answer as said};
use crate::hub::{Kind, Message, Selector};
use crate::session::Arrival;
use crate::session::granted::Granted;
use crate::wire::Transport;

/// Why a client is refused if the backend gives no answer.
const UNANSWERED: &str = "the backend of this site gives no answer, try again later";

/// Why a session does not begin.
pub enum Refused {
    /// The backend says so.
    Denied(String),
    /// It says nothing.
    Unanswered,
}

impl Refused {
    /// The answer to a handshake or a poll.
    pub fn answer(self) -> Answer {
        match self {
            Refused::Denied(reason) => answer::text(StatusCode::FORBIDDEN, reason),
            Refused::Unanswered => answer::text(StatusCode::SERVICE_UNAVAILABLE, UNANSWERED),
        }
    }
}

/// Asks the hook of a route, if it has one, about a client that arrives, and adds what the backend says to its session.
pub async fn connect(
    hook: Option<&Arc<Hook>>,
    head: &Parts,
    arguments: &Arguments<'_>,
    arrival: &mut Arrival,
    client: &Client,
) -> Result<(), Refused> {
    let Some(hook) = hook else { return Ok(()) };
    let values = arguments.all().map(|(name, value)| (name.to_owned(), Value::from(value)));
    let question = Question {
        fields: passed_on(hook, head, false),
        about: About {
            transport: match arrival.framing.transport() {
                Transport::WebSocket => "websocket",
                Transport::EventStream => "sse",
                Transport::Poll => "poll",
            },
            user: arrival.identity.as_deref().map_or_else(|| user(arguments), str::to_owned),
            channels: arrival.channels.iter().map(|channel| channel.text.to_string()).collect(),
            ..about(head, client)
        },
        data: Data::Arguments(values.collect()),
    };
    // In memory of its own, so that it does not enlarge what a connection takes.
    match Box::pin(hook.connect(question)).await {
        Verdict::Allowed(connected) => admit(arrival, connected),
        Verdict::Refused(refusal) => {
            log::debug!(
                "{} refused by the hook {}: {} {}",
                client.peer,
                hook.config.name,
                refusal.code,
                refusal.reason
            );
            Err(Refused::Denied(refusal.reason))
        }
        Verdict::Unanswered => Err(Refused::Unanswered),
    }
}

/// The same for an event stream or a poll, whose answer the pages of its origins may read.
pub async fn stream(
    hook: Option<&Arc<Hook>>,
    subscription: &config::Subscription,
    head: &Parts,
    arguments: &Arguments<'_>,
    mut arrival: Arrival,
    site: &Site,
    client: &Client,
) -> Result<Outcome, Box<Answer>> {
    let Err(refused) = connect(hook, head, arguments, &mut arrival, client).await else {
        return Ok(Outcome::Stream(Box::new(arrival)));
    };
    let reader = Reader::check(&subscription.origins, head, &site.hosts, client.on_loopback)?;
    let answer = match refused {
        // Browsers never connect again after a status other than 200.
        Refused::Unanswered if !arrival.framing.is_poll() => events::later(arrival.terms.members.count()),
        refused => refused.answer(),
    };
    Ok(Outcome::Answer(*reader.allowed(answer)))
}

/// Adds what the backend says.
fn admit(arrival: &mut Arrival, connected: said::Connected) -> Result<(), Refused> {
    if let Some(expires) = connected.expires {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let left = expires.saturating_sub(now).min(u64::from(u32::MAX / 2)) as u32;
        if left == 0 {
            return Err(Refused::Denied("the time of this session is over".to_owned()));
        }
        if let Some(poll) = &mut arrival.poll {
            poll.wait = poll.wait.min(Duration::from_secs(left.into()));
        }
        match &mut arrival.granted {
            // The token may expire sooner.
            Some(granted) => granted.expires = granted.expires.min(left),
            none => *none = Some(Box::new(Granted { expires: left, key: 0, allowed: None })),
        }
    }
    if let Some(user) = connected.user.filter(|_| arrival.terms.hub.presence) {
        arrival.identity = Some(user.into());
    }
    for name in connected.channels {
        let channel = Selector::name(Arc::<str>::from(name));
        if !arrival.channels.contains(&channel) {
            arrival.channels.push(channel);
        }
    }
    if arrival.framing.transport() == Transport::WebSocket && connected.greeting.is_some() {
        arrival.greeting = connected.greeting;
    }
    Ok(())
}

/// A request to a publish route.
#[derive(Clone, Copy)]
pub struct Publishing<'r> {
    /// The route.
    pub handler: &'r PublishHandler,
    /// The request.
    pub head: &'r Parts,
    /// Its arguments.
    pub arguments: &'r Arguments<'r>,
    /// Its connection.
    pub client: &'r Client,
}

/// Asks the hook of a publish route, if it has one, about a message. Returns what is published; `None`: nothing, and the publisher is
/// told that it is.
///
/// # Errors
/// The answer to the publisher.
pub async fn publish(
    request: Publishing<'_>,
    channel: &str,
    kind: Kind,
    message: Bytes,
) -> Result<Option<(Kind, Bytes)>, Box<Answer>> {
    let Some(hook) = &request.handler.hook else { return Ok(Some((kind, message))) };
    let asked = ask(hook, request, channel, kind, message);
    Box::pin(asked).await.map_err(|(status, why)| match status {
        StatusCode::SERVICE_UNAVAILABLE => unavailable(&why),
        status => refuse(status, &why),
    })
}

/// What becomes of a message of a batch: it is published, it seems to be published, or it is refused.
pub type Asked<T> = Result<Option<T>, String>;

/// Asks the hook of a publish route, if it has one, about the messages of a batch. Returns what becomes of each.
///
/// # Errors
/// The answer to the publisher if they are too many.
pub async fn publish_all<K>(
    request: Publishing<'_>,
    messages: Vec<(Message, K)>,
) -> Result<Vec<Asked<(Message, K)>>, Box<Answer>> {
    let Some(hook) = &request.handler.hook else {
        return Ok(messages.into_iter().map(|message| Ok(Some(message))).collect());
    };
    if messages.len() > HOOK_BATCH_MESSAGES_MAX {
        let why = format!("a batch on a route with a hook may have at most {HOOK_BATCH_MESSAGES_MAX} messages");
        return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, &why));
    }
    let asked = futures_util::stream::iter(messages).map(|(mut message, key)| async move {
        let payload = message.payload.clone();
        match ask(hook, request, &message.channel, message.kind, payload).await {
            Ok(Some((kind, payload))) => {
                (message.kind, message.payload) = (kind, payload);
                Ok(Some((message, key)))
            }
            Ok(None) => Ok(None),
            Err((_, why)) => Err(why),
        }
    });
    Ok(Box::pin(asked.buffered(HOOK_BATCH_AT_ONCE).collect()).await)
}

async fn ask(
    hook: &Arc<Hook>,
    request: Publishing<'_>,
    channel: &str,
    kind: Kind,
    message: Bytes,
) -> Result<Option<(Kind, Bytes)>, (StatusCode, String)> {
    let Publishing { handler, head, arguments, client } = request;
    let (encoding, data) = match kind {
        Kind::Text => ("json", Data::Text(message.clone())),
        Kind::Binary => ("binary", Data::Binary(message.clone())),
    };
    let question = Question {
        fields: passed_on(hook, head, handler.keys.is_some()),
        about: About {
            user: user(arguments),
            encoding,
            channel: Some(channel.to_owned()),
            transport: "http",
            ..about(head, client)
        },
        data,
    };
    let answered = match hook.publish(question).await {
        Verdict::Allowed(answered) => answered,
        Verdict::Refused(refusal) => return Err((StatusCode::FORBIDDEN, refusal.reason)),
        Verdict::Unanswered => return Err((StatusCode::SERVICE_UNAVAILABLE, UNANSWERED.to_owned())),
    };
    let (kind, message) = match answered {
        said::Message::Unchanged => (kind, message),
        said::Message::Text(text) => (Kind::Text, text),
        said::Message::Binary(bytes) => (Kind::Binary, bytes),
        said::Message::Nothing => return Ok(None),
    };
    let limit = handler.hub.message_bytes_max;
    if message.len() > limit {
        return Err((
            StatusCode::BAD_GATEWAY,
            format!("the backend's message is too large: {}", message_too_large(limit)),
        ));
    }
    Ok(Some((kind, message)))
}

/// The user that a token names.
fn user(arguments: &Arguments<'_>) -> String {
    arguments.token().and_then(|token| token.text("sub")).unwrap_or_default()
}

fn about(head: &Parts, client: &Client) -> About {
    About {
        client: drawn(),
        protocol: "json",
        encoding: "json",
        server: client.server.to_string(),
        path: head.uri.path().to_owned(),
        address: client.address.map(|address| address.to_string()),
        ..About::default()
    }
}

/// A name that no other client has: a UUID of version 4 (RFC 9562).
fn drawn() -> String {
    let mut bytes = [0; 16];
    // This does not fail: the system has random bytes once it has started.
    let _ = rand::fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The fields of a request that the hook passes on. `has_key`: `Authorization` shows a key of ours, which is not the backend's.
fn passed_on(hook: &Hook, head: &Parts, has_key: bool) -> HeaderMap {
    let mut fields = HeaderMap::new();
    let mut left = HOOK_FIELDS_BYTES_MAX;
    for name in hook.config.headers.iter().filter(|name| !has_key || **name != AUTHORIZATION) {
        for value in head.headers.get_all(name) {
            match left.checked_sub(value.len()) {
                Some(rest) => left = rest,
                None => return fields,
            }
            fields.append(name.clone(), value.clone());
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_client_is_a_uuid() {
        let (one, other) = (drawn(), drawn());
        assert_ne!(one, other);
        let lengths: Vec<_> = one.split('-').map(str::len).collect();
        assert_eq!((lengths, &one[14..15]), (vec![8, 4, 4, 4, 12], "4"));
    }
}
