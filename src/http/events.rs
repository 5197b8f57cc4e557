//! Event streams (WHATWG HTML, section 9.2): a GET becomes a session that receives events.
//!
//! The response lasts as long as the session. The session writes the head as its first frame, so the socket is taken out of hyper
//! before anything is answered. In HTTP/1.1 each event is a chunk: some clients, such as Python's `requests`, read a response without
//! chunks only in pieces of a fixed size. HTTP/1.0, which nginx uses for its backends by default, has no chunks: the response ends
//! with its connection.
//!
//! Browsers reconnect by themselves after the end of a stream, but never after a status other than 200. So if a limit is reached,
//! the answer is a 200 with `retry` that ends at once. Browsers do not back off either. So `retry` is random for each client, and
//! becomes longer with the number of sessions of the hub.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};

use super::accept::accepts;
use super::answer::{self, Answer};
use super::arguments::Arguments;
use super::body::Body;
use super::reader::Reader;
use super::site::EventsHandler;
use super::{Site, authorization, head, resuming, subscription};
use crate::config::limits::{HEADER_FIELDS_MAX, RETRY_MAX, RETRY_MIN, RETRY_SESSIONS};
use crate::session::Arrival;
use crate::wire::{Framing, event_stream};

/// The media type of event streams.
pub const EVENT_STREAM: &str = "text/event-stream";
/// Keeps nginx from collecting an answer before it sends it on.
pub const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const FIELDS: head::Fixed = [
    (CONTENT_TYPE, EVENT_STREAM),
    // Proxies must neither cache a stream nor compress it, because compression could delay events.
    (CACHE_CONTROL, "no-store, no-transform"),
    (X_ACCEL_BUFFERING, "no"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

/// Makes a session of a request, or answers it at once: with an error, with the header fields only, or, if a limit is reached, with
/// the time to reconnect.
pub fn respond(
    EventsHandler { route, terms, tokens, .. }: &EventsHandler,
    request: &Parts,
    arguments: &Arguments<'_>,
    site: &Site,
    on_loopback: bool,
    has_room: bool,
) -> Result<Arrival, Box<Answer>> {
    let reader = Reader::check(&route.subscription.origins, request, &site.hosts, on_loopback)?;
    reader.check_method(&request.method)?;
    if !accepts(&request.headers, EVENT_STREAM) {
        let why = "this path answers with text/event-stream, which the request does not accept";
        return Err(reader.allowed(answer::text(StatusCode::NOT_ACCEPTABLE, why)));
    }
    let tokens = tokens.as_ref();
    let token = authorization::token(tokens, request, arguments).map_err(|refusal| reader.allowed(*refusal))?;
    let channels = subscription::channels(&route.subscription.channels, arguments)
        .map_err(|why| reader.allowed(answer::text(StatusCode::BAD_REQUEST, why)))?;
    authorization::check_channels(tokens, token, &channels)
        .map_err(|why| reader.allowed(answer::text(StatusCode::FORBIDDEN, why)))?;
    let identity = subscription::identity(route.identity.as_ref(), terms, arguments)
        .map_err(|why| reader.allowed(answer::text(StatusCode::BAD_REQUEST, why)))?;
    if request.method == Method::HEAD {
        return Err(reader.allowed(stream(Body::empty())));
    }
    let membership = if has_room { subscription::join(terms).ok() } else { None };
    let Some(membership) = membership else {
        return Err(reader.allowed(later(terms.members.count())));
    };
    let framing = match request.version {
        Version::HTTP_10 => Framing::BareEventStream,
        _ => Framing::EventStream,
    };
    let beginning = beginning(framing, reader, terms.members.count());
    Ok(Arrival {
        framing,
        inflates: false,
        terms: terms.clone(),
        membership,
        to: channels[0].text.clone(),
        channels,
        since: resuming::since(&request.headers, arguments),
        poll: None,
        identity,
        granted: authorization::granted(tokens, token),
        head: beginning.into(),
        greeting: None,
        early: Bytes::new(),
    })
}

/// A stream that ends at once, with the time to reconnect.
pub fn later(sessions: usize) -> Answer {
    answer::closing(stream(Body::from(retry(sessions))))
}

/// What the request of a refused connection is.
pub enum Refused {
    /// The request of an event stream, and its answer: the time to reconnect.
    Stream(Vec<u8>),
    /// Another request.
    Other,
    /// It is not complete, or cannot be read.
    Unknown,
}

/// Looks at the head of a request whose connection is refused. Pages of every origin may read the answer, because it contains no data.
pub fn refusal(head: &[u8], connections: usize) -> Refused {
    let mut fields = [httparse::EMPTY_HEADER; HEADER_FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    if !request.parse(head).is_ok_and(|parsed| parsed.is_complete()) {
        return Refused::Unknown;
    }
    let values = |name: &'static str| {
        let fields = request.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        fields.filter_map(|field| std::str::from_utf8(field.value).ok())
    };
    let wants_events = values("accept").any(|accept| accept.to_ascii_lowercase().contains(EVENT_STREAM));
    if request.method != Some("GET") || !wants_events {
        return Refused::Other;
    }
    Refused::Stream(beginning(Framing::BareEventStream, Reader::of_origin(values("origin").next()), connections))
}

/// The first bytes of a stream: its head, and the time to reconnect. The second is sent at once, because some proxies forward the head only
/// with the first bytes of the body.
fn beginning(framing: Framing, reader: Reader<'_>, sessions: usize) -> Vec<u8> {
    let mut bytes = head::of_session(FIELDS, reader, framing == Framing::EventStream);
    framing.block_into(|out| out.extend_from_slice(&retry(sessions)), &mut bytes);
    bytes
}

/// The time to reconnect, as the field of a stream.
fn retry(sessions: usize) -> Vec<u8> {
    let mut out = Vec::new();
    event_stream::retry_into(retry_milliseconds(sessions, RandomState::new().hash_one(0)), &mut out);
    out
}

/// The time that a client waits before it reconnects: random between a minimum and its double. The minimum grows with the number of
/// sessions.
fn retry_milliseconds(sessions: usize, random: u64) -> u32 {
    let (min, max) = (RETRY_MIN.as_millis() as u64, RETRY_MAX.as_millis() as u64);
    let grown = min + (max - min) * (sessions.min(RETRY_SESSIONS) as u64) / RETRY_SESSIONS as u64;
    (grown + random % grown) as u32
}

fn stream(body: Body) -> Answer {
    let mut answer = Response::new(body);
    head::add(FIELDS, answer.headers_mut());
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_a_large_hub_reconnect_later_and_at_random_times() {
        for (sessions, least, most) in [(0, 2_000, 4_000), (50_000, 8_500, 17_000), (1_000_000, 15_000, 30_000)] {
            let drawn: Vec<u32> =
                (0..10_000).map(|n| retry_milliseconds(sessions, RandomState::new().hash_one(n))).collect();
            let (first, last) = (*drawn.iter().min().unwrap(), *drawn.iter().max().unwrap());
            assert!(first >= least && first < least * 21 / 20, "{first} for {sessions}");
            assert!(last < most && last > most * 19 / 20, "{last} for {sessions}");
        }
    }
}
