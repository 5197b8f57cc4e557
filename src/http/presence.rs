//! Who is on a channel: a GET is answered with the members of the channel, as JSON.

use std::sync::Arc;

use http::StatusCode;
use http::request::Parts;
use serde::Serialize;

use super::answer::{self, Answer};
use super::arguments::Arguments;
use super::reader::Reader;
use super::site::PresenceHandler;
use super::{Backend, Client, Site, authorization, subscription};
use crate::hub::presence::Attendees;
use crate::hub::{Partition, Selector};

#[derive(Serialize)]
struct Present<'a> {
    channel: &'a str,
    members: Vec<Member<'a>>,
    connections: u64,
    #[serde(skip_serializing_if = "is_zero")]
    more: usize,
}

#[derive(Serialize)]
struct Member<'a> {
    id: &'a str,
    connections: u32,
}

fn is_zero(more: &usize) -> bool {
    *more == 0
}

/// Answers one request to a presence route.
///
/// # Errors
/// The answer with the reason of a refusal.
pub async fn respond<B: Backend>(
    PresenceHandler { route, keys, tokens, hub_id, hub }: &PresenceHandler,
    request: &Parts,
    arguments: &Arguments<'_>,
    site: &Site,
    client: &Client,
    backend: &B,
) -> Result<Answer, Box<Answer>> {
    let reader = Reader::check(&route.origins, request, &site.hosts, client.on_loopback)?;
    reader.check_method(&request.method)?;
    authorization::key(keys.as_ref(), request, site, client).map_err(|refusal| reader.allowed(*refusal))?;
    let tokens = tokens.as_ref();
    let token = authorization::token(tokens, request, arguments).map_err(|refusal| reader.allowed(*refusal))?;
    let refused = |status, why: String| reader.allowed(answer::text(status, why));
    let channel: Arc<str> =
        subscription::channel(&route.channel, arguments).map_err(|why| refused(StatusCode::BAD_REQUEST, why))?;
    authorization::check_channels(tokens, token, &[Selector::name(channel.clone())])
        .map_err(|why| refused(StatusCode::FORBIDDEN, why))?;
    if !hub.presence {
        // Only a restart adds presence to a hub.
        let why = format!("hub {} has no presence until the server is restarted, try again later", hub.name);
        return Err(refused(StatusCode::SERVICE_UNAVAILABLE, why));
    }
    let partition = Partition::of(*hub_id, &channel, hub.history.is_some());
    let Some(Attendees { members, more, connections }) = backend.attendees(*hub_id, channel.clone(), partition).await
    else {
        let why = "too many requests are waiting, try again later";
        return Err(refused(StatusCode::SERVICE_UNAVAILABLE, why.to_owned()));
    };
    let members = members.iter().map(|(id, connections)| Member { id, connections: *connections }).collect();
    Ok(*reader.allowed(answer::json(StatusCode::OK, &Present { channel: &channel, members, connections, more })))
}
