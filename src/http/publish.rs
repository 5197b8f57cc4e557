//! Publishing over HTTP: a request becomes a publication, and the answer contains the number of subscribers it was queued for.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
};
use http::request::Parts;
use http::{Method, StatusCode};
use serde::Serialize;

use super::answer::{self, Answer};
use super::arguments::Arguments;
use super::batch::check_key;
use super::content::Content;
use super::hooked::Publishing;
use super::origin;
use super::refusals::shortened;
use super::site::PublishHandler;
use super::subscription::channel;
use super::{Backend, Client, Site, authorization, hooked, publish_batch};
use crate::config::{self, AccessKey};
use crate::hub::{Kind, Message, Outcome, Selector};

/// The bytes of a form besides its message: names of fields and the like. The message itself may be three times as long, with `%XX`
/// for each byte.
const FORM_OVERHEAD: usize = 1024;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header fields that scripts of other origins may send.
const ALLOW_HEADERS: &str = "authorization, content-type, idempotency-key";
/// When a message may be published again that could not be kept, in seconds. The disk is tried every second.
const RETRY_SECONDS: &str = "5";

/// Why a message is not published for lack of room.
pub const NO_ROOM: &str = "too many publications are waiting, try again later";
/// Why a message of a hub on disk is not published.
pub const KEPT_NOWHERE: &str = "the message could not be kept on the disk, try again later";

/// The answer for a message that is published.
#[derive(Serialize)]
pub struct Published<'a> {
    channel: &'a str,
    subscribers: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

impl Published<'_> {
    /// Of a message on this channel.
    pub fn new(channel: &str, outcome: Outcome) -> Published<'_> {
        let id = outcome.position.map(|position| position.to_string());
        Published { channel, subscribers: outcome.subscribers, id }
    }
}

/// The answer for a message that is not published.
#[derive(Serialize)]
pub struct Refused<'a> {
    /// A sentence with the reason.
    pub error: &'a str,
}

/// Answers one request to a publish route.
pub async fn respond<B: Backend>(
    handler: &PublishHandler,
    request: &Parts,
    content: &mut Content,
    arguments: Arguments<'_>,
    site: &Site,
    client: &Client,
    backend: &B,
) -> Answer {
    let allow = allow(&handler.route.methods);
    let is_forgeable = request.method == Method::GET;
    let origin = match origin::check(&handler.route.origins, request, &site.hosts, client.on_loopback, is_forgeable) {
        Ok(origin) => origin,
        Err(why) => {
            site.refusals
                .origins
                .warn(|| format!("{} refused at {}: {why}", client.peer, shortened(request.uri.path())));
            return *refuse(StatusCode::FORBIDDEN, &why);
        }
    };
    let mut answer = if request.method == Method::OPTIONS {
        answer::options(&allow)
    } else if !handler.route.methods.iter().any(|method| name(*method) == request.method.as_str()) {
        answer::method_not_allowed(&allow)
    } else {
        // Before the body is read: a stranger must not occupy memory.
        let key = authorization::key(handler.keys.as_ref(), request, site, client);
        let shown = authorization::token(handler.tokens.as_ref(), request, &arguments).map(|_| ());
        match key.and_then(|key| shown.map(|()| key)) {
            Ok(key) => {
                let published = publish(handler, key, request, content, arguments, client, backend).await;
                published.unwrap_or_else(|refusal| *refusal)
            }
            Err(refusal) => *refusal,
        }
    };
    if let Some(origin) = origin {
        allow_origin(&mut answer, origin, &allow);
    }
    answer
}

async fn publish<B: Backend>(
    handler: &PublishHandler,
    access: Option<&AccessKey>,
    request: &Parts,
    content: &mut Content,
    mut arguments: Arguments<'_>,
    client: &Client,
    backend: &B,
) -> Result<Answer, Box<Answer>> {
    let Some(template) = handler.route.channel.as_ref().filter(|_| !handler.route.batch) else {
        // In memory of its own, so that it does not enlarge what a connection takes.
        return Box::pin(publish_batch::publish(handler, access, request, content, &arguments, client, backend)).await;
    };
    let limit = handler.hub.message_bytes_max;
    let content_type = request.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let media_type = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let body_max = if handler.route.message.is_some() { 3 * limit + FORM_OVERHEAD } else { limit };
    let body = content.whole(body_max).await.map_err(|unread| match unread.status() {
        (StatusCode::PAYLOAD_TOO_LARGE, _) => too_large(limit),
        (status, sentence) => refuse(status, sentence),
    })?;
    if handler.route.message.is_some() && media_type == "application/x-www-form-urlencoded" {
        arguments.add_form(&body);
    }
    let channel = channel(template, &arguments).map_err(|why| refuse(StatusCode::BAD_REQUEST, &why))?;
    authorization::check_channel(access, &channel).map_err(|why| refuse(StatusCode::FORBIDDEN, &why))?;
    authorization::check_channels(handler.tokens.as_ref(), arguments.token(), &[Selector::name(channel.clone())])
        .map_err(|why| refuse(StatusCode::FORBIDDEN, &why))?;
    let message = match &handler.route.message {
        Some(template) => {
            drop(body);
            let text = template.text(|name| arguments.value(name));
            text.map_err(|missing| refuse(StatusCode::BAD_REQUEST, &missing.to_string()))?.into()
        }
        None => body.into_bytes(),
    };
    if message.len() > limit {
        return Err(too_large(limit));
    }
    let kind = if media_type == "application/octet-stream" { Kind::Binary } else { Kind::Text };
    if kind == Kind::Text && std::str::from_utf8(&message).is_err() {
        let why = "the message is not UTF-8; Content-Type: application/octet-stream would send it as binary";
        return Err(refuse(StatusCode::BAD_REQUEST, why));
    }
    let key = key(request)?;
    let asking = Publishing { handler, head: request, arguments: &arguments, client };
    let Some((kind, message)) = hooked::publish(asking, &channel, kind, message).await? else {
        return Ok(answer::json(StatusCode::OK, &Published::new(&channel, Outcome::default())));
    };
    let message = Message::new(handler.hub_id, channel.clone(), kind, message).ordered(handler.hub.history.is_some());
    match backend.publish(message, key).await {
        Some(outcome) if outcome.is_refused => Err(unavailable(KEPT_NOWHERE)),
        Some(outcome) => Ok(answer::json(StatusCode::OK, &Published::new(&channel, outcome))),
        None => Err(unavailable(NO_ROOM)),
    }
}

/// The key of a request that may come again.
pub fn key(request: &Parts) -> Result<Option<Box<str>>, Box<Answer>> {
    let mut values = request.headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(refuse(StatusCode::BAD_REQUEST, "there is more than one Idempotency-Key"));
    }
    // A value of other bytes is no key either.
    let key = value.to_str().unwrap_or_default();
    check_key(key).map_err(|why| refuse(StatusCode::BAD_REQUEST, &why))?;
    Ok(Some(key.into()))
}

/// 503 with the time after which the same request may succeed.
pub fn unavailable(error: &str) -> Box<Answer> {
    let mut answer = refuse(StatusCode::SERVICE_UNAVAILABLE, error);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
    answer
}

fn too_large(limit: usize) -> Box<Answer> {
    refuse(StatusCode::PAYLOAD_TOO_LARGE, &message_too_large(limit))
}

/// Why a message is not published that has more than `limit` bytes.
pub fn message_too_large(limit: usize) -> String {
    format!("a message may have at most {limit} bytes")
}

/// A refusal in JSON.
pub fn refuse(status: StatusCode, error: &str) -> Box<Answer> {
    Box::new(answer::json(status, &Refused { error }))
}

fn name(method: config::Method) -> &'static str {
    match method {
        config::Method::Get => "GET",
        config::Method::Post => "POST",
        config::Method::Put => "PUT",
    }
}

fn allow(methods: &[config::Method]) -> String {
    let names: Vec<_> = methods.iter().map(|method| name(*method)).chain(["OPTIONS"]).collect();
    names.join(", ")
}

/// Allows the page of the request to read the answer. Its origin was checked before.
fn allow_origin(answer: &mut Answer, origin: &str, methods: &str) {
    let fields = answer.headers_mut();
    origin::allow(fields, origin);
    if let Ok(methods) = HeaderValue::from_str(methods) {
        fields.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    fields.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOW_HEADERS));
}
