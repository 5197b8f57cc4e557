//! Polls: a GET with a position becomes a session that ends with its answer, which is JSON: the messages after the position, at once
//! or when there are some, or none after a while.
//!
//! A poll is a session like others: it has its place among the subscribers of its channels, and its part in the limits. Clients of
//! polls are programs, not an `EventSource`, so a limit that is reached is a 503 with `Retry-After`. A GET without a position is
//! answered with the present one, without a session.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};

use super::accept::accepts;
use super::answer::{self, Answer};
use super::arguments::Arguments;
use super::body::Body;
use super::events::X_ACCEL_BUFFERING;
use super::reader::Reader;
use super::refusals::shortened;
use super::site::PollHandler;
use super::{Site, authorization, head, resuming, subscription};
use crate::config;
use crate::config::limits::{POLL_MESSAGES_DEFAULT, POLL_MESSAGES_MAX, POLL_WAIT_DEFAULT, POLL_WAIT_MAX};
use crate::hub::{Position, Since};
use crate::session::Arrival;
use crate::session::poll::Polling;
use crate::session::speech::answer as said;
use crate::wire::Framing;

/// The media type of the answers.
const JSON: &str = "application/json";
/// The arguments beside those of [`resuming`].
const WAIT: &str = "wait";
const LIMIT: &str = "limit";
const FIELDS: head::Fixed =
    [(CONTENT_TYPE, JSON), (CACHE_CONTROL, "no-store"), (X_ACCEL_BUFFERING, "no"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];

/// Makes a session of a request, or answers it at once: with an error, with the header fields only, or, if it has no position, with
/// the present one, which `position` tells.
pub fn respond(
    PollHandler { route, terms, tokens, .. }: &PollHandler,
    request: &Parts,
    arguments: &Arguments<'_>,
    site: &Site,
    on_loopback: bool,
    has_room: bool,
    position: impl FnOnce() -> Option<Position>,
) -> Result<Arrival, Box<Answer>> {
    let reader = Reader::check(&route.subscription.origins, request, &site.hosts, on_loopback)?;
    reader.check_method(&request.method)?;
    let refused = |status, why: String| reader.allowed(answer::text(status, why));
    if !accepts(&request.headers, JSON) {
        let why = "this path answers with application/json, which the request does not accept";
        return Err(refused(StatusCode::NOT_ACCEPTABLE, why.to_owned()));
    }
    let bad = |why| refused(StatusCode::BAD_REQUEST, why);
    let tokens = tokens.as_ref();
    let token = authorization::token(tokens, request, arguments).map_err(|refusal| reader.allowed(*refusal))?;
    let channels = subscription::channels(&route.subscription.channels, arguments).map_err(bad)?;
    authorization::check_channels(tokens, token, &channels).map_err(|why| refused(StatusCode::FORBIDDEN, why))?;
    let identity = subscription::identity(route.identity.as_ref(), terms, arguments).map_err(bad)?;
    let polling = polling(arguments).map_err(bad)?;
    if terms.hub.history.is_none() {
        // Only a restart adds a history to a hub.
        let why = format!("hub {} has no history until the server is restarted, try again later", terms.hub.name);
        return Err(refused(StatusCode::SERVICE_UNAVAILABLE, why));
    }
    if request.method == Method::HEAD {
        return Err(reader.allowed(answered(Body::empty())));
    }
    let full = |why| refused(StatusCode::SERVICE_UNAVAILABLE, why);
    if !has_room {
        return Err(full("the server has no room for another client, or is ending, try again later".to_owned()));
    }
    let Some(since) = resuming::since(&request.headers, arguments) else {
        let position = position().ok_or_else(|| full("the server is starting, try again later".to_owned()))?;
        return Err(reader.allowed(answered(Body::from(said::nothing(Since::After(position))))));
    };
    let granted = authorization::granted(tokens, token);
    let wait =
        granted.as_ref().map_or(polling.wait, |granted| polling.wait.min(Duration::from_secs(granted.expires.into())));
    let polling = Polling { wait, ..polling };
    let membership = subscription::join(terms).map_err(full)?;
    let framing = match request.version {
        Version::HTTP_10 => Framing::BarePoll,
        _ => Framing::Poll,
    };
    Ok(Arrival {
        framing,
        inflates: false,
        terms: terms.clone(),
        membership,
        to: channels[0].text.clone(),
        channels,
        since: Some(since),
        poll: Some(polling),
        identity,
        granted,
        head: head::of_session(FIELDS, reader, framing == Framing::Poll).into(),
        greeting: None,
        early: Bytes::new(),
    })
}

/// What a client asks for: `wait` is a duration, `limit` a number of messages. More than the maximum is the maximum.
fn polling(arguments: &Arguments<'_>) -> Result<Polling, String> {
    let wait = match arguments.value(WAIT) {
        None => POLL_WAIT_DEFAULT,
        Some(text) => config::duration(&text).map_err(|why| format!("wait = {}: {why}", shortened(&text)))?,
    };
    let messages_max = match arguments.value(LIMIT) {
        None => POLL_MESSAGES_DEFAULT,
        Some(text) => match text.parse() {
            Ok(0) | Err(_) => {
                let text = shortened(&text);
                return Err(format!("limit = {text}: write a whole number of messages from 1 to {POLL_MESSAGES_MAX}"));
            }
            Ok(count) => count,
        },
    };
    Ok(Polling { wait: wait.min(POLL_WAIT_MAX), messages_max: POLL_MESSAGES_MAX.min(messages_max) })
}

fn answered(body: Body) -> Answer {
    let mut answer = Response::new(body);
    head::add(FIELDS, answer.headers_mut());
    answer
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(query: &str) -> Result<(Duration, usize), String> {
        let polling = polling(&Arguments::new(Vec::new(), Some(query)))?;
        Ok((polling.wait, polling.messages_max))
    }

    #[test]
    fn arguments_have_defaults_and_maximums() {
        let seconds = Duration::from_secs;
        assert_eq!(read(""), Ok((seconds(25), 100)));
        assert_eq!(read("wait=0s&limit=1"), Ok((seconds(0), 1)));
        assert_eq!(read("wait=1500ms&limit=1000"), Ok((Duration::from_millis(1500), 1000)));
        assert_eq!(read("wait=7d&limit=4294967296"), Ok((seconds(60), 1000)));
        for wrong in ["wait=25", "wait=", "wait=-1s", "wait=now"] {
            assert!(read(wrong).unwrap_err().starts_with("wait = "), "{wrong}");
        }
        assert!(read("wait=25").unwrap_err().contains("`25s`"));
        for wrong in ["limit=0", "limit=", "limit=-1", "limit=1.5", "limit=many"] {
            assert!(read(wrong).unwrap_err().contains("from 1 to 1000"), "{wrong}");
        }
    }
}
