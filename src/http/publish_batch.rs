//! Publishing the messages of a batch: all of them in one step, answered by one result on each line.
//!
//! A small body is parsed at once. A larger one is parsed on a blocking thread of the runtime, so that the clients of this shard do not
//! wait for it.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;

use super::answer::{self, Answer};
use super::arguments::Arguments;
use super::batch::{self, Data, Entry, Unreadable};
use super::content::Content;
use super::hooked::{Asked, Publishing};
use super::publish::{KEPT_NOWHERE, NO_ROOM, Published, Refused, key, message_too_large, refuse, unavailable};
use super::site::PublishHandler;
use super::subscription;
use super::{Backend, Client, authorization, hooked};
use crate::config::limits::{BATCH_BYTES_AT_ONCE, BATCH_BYTES_MAX, BATCH_LINES_MAX};
use crate::config::{AccessKey, ChannelPattern, HubId};
use crate::hub::{Kind, Message, Outcome, Selector};

/// What an entry needs besides itself to become a message.
struct Destination {
    hub_id: HubId,
    /// Whether all channels of the hub have one order.
    has_history: bool,
    message_bytes_max: usize,
    /// The channel of entries without one, or why there is none.
    default: Result<Arc<str>, String>,
    /// The key of the request. Each entry without a key of its own gets one that is made from it.
    key: Option<Box<str>>,
    /// The key that was shown, which may limit the channels.
    access: Option<AccessKey>,
    /// The channels that the token allows; `None`: no limit.
    allowed: Option<Vec<ChannelPattern>>,
    /// Whether an entry may name no other channel than the route's: its tokens say who may publish there, and nowhere else.
    is_fixed: bool,
}

/// The results of a batch so far: the channel of a message that is published, or why it is not published.
type Results = Vec<Result<Arc<str>, String>>;
/// Messages with their keys.
type Keyed = Vec<(Message, Option<Box<str>>)>;

/// Publishes the messages in the body of a request.
///
/// # Errors
/// The answer, if nothing was published.
pub async fn publish<B: Backend>(
    handler: &PublishHandler,
    access: Option<&AccessKey>,
    request: &Parts,
    content: &mut Content,
    arguments: &Arguments<'_>,
    client: &Client,
    backend: &B,
) -> Result<Answer, Box<Answer>> {
    let body = content.whole(BATCH_BYTES_MAX).await.map_err(|unread| match unread.status() {
        (StatusCode::PAYLOAD_TOO_LARGE, _) => too_large(&format!("{BATCH_BYTES_MAX} bytes")),
        (status, sentence) => refuse(status, sentence),
    })?;
    let destination = Destination::new(handler, access, arguments, key(request)?);
    let is_small = body.len() <= BATCH_BYTES_AT_ONCE;
    // The body is dropped when it is parsed.
    let prepare = move || destination.prepare(&body);
    let (mut results, messages) = if is_small {
        prepare()?
    } else {
        // It ends early only if the runtime ends.
        let prepared = tokio::task::spawn_blocking(prepare).await;
        prepared.map_err(|_| unavailable("the server is ending, try again later"))??
    };
    let (messages, skipped) = asked(
        hooked::publish_all(Publishing { handler, head: request, arguments, client }, messages).await?,
        &mut results,
    );
    let outcomes = backend.publish_all(messages).await.ok_or_else(|| unavailable(NO_ROOM))?;
    if !outcomes.is_empty() && outcomes.iter().all(|outcome| is_refused(outcome.as_ref())) {
        return Err(unavailable(KEPT_NOWHERE));
    }
    Ok(answer::with_type(StatusCode::OK, "application/x-ndjson", lines(results, outcomes, &skipped)))
}

/// Takes what a hook says of the messages. Those that are refused leave `results`. Returns those that are published, and the numbers of
/// those that only seem to be, counted among those that are not refused.
fn asked(said: Vec<Asked<(Message, Option<Box<str>>)>>, results: &mut Results) -> (Keyed, Vec<usize>) {
    let (mut messages, mut skipped, mut number) = (Vec::with_capacity(said.len()), Vec::new(), 0);
    for (said, result) in said.into_iter().zip(results.iter_mut().filter(|result| result.is_ok())) {
        match said {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => skipped.push(number),
            Err(why) => {
                *result = Err(why);
                continue;
            }
        }
        number += 1;
    }
    (messages, skipped)
}

impl Destination {
    fn new(
        handler: &PublishHandler,
        access: Option<&AccessKey>,
        arguments: &Arguments<'_>,
        key: Option<Box<str>>,
    ) -> Destination {
        let missing = || Err("the message names no channel, and the route has no default".to_owned());
        let template = handler.route.channel.as_ref();
        Destination {
            hub_id: handler.hub_id,
            has_history: handler.hub.history.is_some(),
            message_bytes_max: handler.hub.message_bytes_max,
            default: template.map_or_else(missing, |template| subscription::channel(template, arguments)),
            key,
            access: access.cloned(),
            allowed: authorization::allowed(handler.tokens.as_ref(), arguments.token()),
            is_fixed: handler.tokens.is_some() && template.is_some(),
        }
    }

    fn prepare(&self, body: &[u8]) -> Result<(Results, Keyed), Box<Answer>> {
        let entries = batch::parse(body).map_err(|why| match why {
            Unreadable::TooMany => too_large(&format!("{BATCH_LINES_MAX} messages")),
            Unreadable::Syntax(why) => refuse(StatusCode::BAD_REQUEST, &why),
        })?;
        let mut messages = Vec::with_capacity(entries.len());
        let mut last: Option<Arc<str>> = None;
        let results = entries.into_iter().enumerate().map(|(number, entry)| {
            let (message, key) = self.message(entry?, last.take(), number)?;
            let channel = message.channel.clone();
            messages.push((message, key));
            last = Some(channel.clone());
            Ok(channel)
        });
        let results = results.collect();
        Ok((results, messages))
    }

    /// The message of an entry. `last` is the channel of the entry before, which often is the same.
    fn message(
        &self,
        entry: Entry<'_>,
        last: Option<Arc<str>>,
        number: usize,
    ) -> Result<(Message, Option<Box<str>>), String> {
        let channel = match &entry.channel {
            None => self.default.clone()?,
            Some(name) => match last.filter(|last| **last == **name) {
                Some(last) => last,
                None => subscription::named(name)?,
            },
        };
        if self.is_fixed && self.default.as_ref() != Ok(&channel) {
            return Err("the messages of this route go to its own channel".to_owned());
        }
        authorization::check_channel(self.access.as_ref(), &channel)?;
        authorization::check_allowed(self.allowed.as_deref(), &[Selector::name(channel.clone())])?;
        let (kind, payload) = match entry.data {
            Data::Text(text) => (Kind::Text, Bytes::copy_from_slice(text.as_bytes())),
            Data::Binary(bytes) => (Kind::Binary, bytes.into()),
        };
        if payload.len() > self.message_bytes_max {
            return Err(message_too_large(self.message_bytes_max));
        }
        let message = Message::new(self.hub_id, channel, kind, payload).ordered(self.has_history);
        let own = entry.key.map(|key| key.into());
        // A key has no control characters, so no entry can have this key itself.
        let derived = || self.key.as_ref().map(|key| format!("{key}\u{1}{number}").into());
        Ok((message, own.or_else(derived)))
    }
}

/// The answer: a line for each entry, in their order.
fn lines(results: Results, mut outcomes: Vec<Option<Outcome>>, skipped: &[usize]) -> String {
    let mut text = Vec::new();
    for number in skipped {
        outcomes.insert(*number, Some(Outcome::default()));
    }
    let mut outcomes = outcomes.into_iter();
    for result in results {
        // This does not fail: all values have string keys, and the bytes are in memory.
        let _ = match result {
            Err(error) => serde_json::to_writer(&mut text, &Refused { error: &error }),
            Ok(channel) => match outcomes.next().flatten() {
                Some(outcome) if !outcome.is_refused => {
                    serde_json::to_writer(&mut text, &Published::new(&channel, outcome))
                }
                _ => serde_json::to_writer(&mut text, &Refused { error: KEPT_NOWHERE }),
            },
        };
        text.push(b'\n');
    }
    String::from_utf8(text).unwrap_or_default()
}

/// Whether a message was not published. Without an outcome, the process ended before it was.
fn is_refused(outcome: Option<&Outcome>) -> bool {
    outcome.is_none_or(|outcome| outcome.is_refused)
}

fn too_large(most: &str) -> Box<Answer> {
    refuse(StatusCode::PAYLOAD_TOO_LARGE, &format!("a batch may have at most {most}"))
}
