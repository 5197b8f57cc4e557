//! What a request must show before a route serves it: a key.

use http::StatusCode;
use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::request::Parts;

use super::answer::Answer;
use super::publish::refuse;
use super::refusals::shortened;
use super::{Client, Site};
use crate::config::AccessKey;
use crate::grant::Keyring;
use crate::grant::keyring::{Refused, may_publish};

/// The key that the request shows. `None`: the route needs none.
///
/// # Errors
/// 401 (RFC 6750, section 3), or 400 for a request that shows several.
pub fn key<'k>(
    ring: Option<&'k Keyring>,
    request: &Parts,
    site: &Site,
    client: &Client,
) -> Result<Option<&'k AccessKey>, Box<Answer>> {
    let Some(ring) = ring else { return Ok(None) };
    let refused = match ring.find(&request.headers, client.address) {
        Ok(key) => return Ok(Some(key)),
        Err(refused) => refused,
    };
    let (status, error, challenge) = match refused {
        Refused::Missing => {
            (StatusCode::UNAUTHORIZED, "a key is needed: Authorization: Bearer KEY", "Bearer realm=\"pushd\"")
        }
        Refused::Unknown => {
            let challenge = "Bearer realm=\"pushd\", error=\"invalid_token\"";
            (StatusCode::UNAUTHORIZED, "this key is not accepted here", challenge)
        }
        Refused::Several => {
            let challenge = "Bearer realm=\"pushd\", error=\"invalid_request\"";
            (StatusCode::BAD_REQUEST, "there is more than one Authorization", challenge)
        }
    };
    let what = || format!("{} refused at {}: {error}", client.peer, shortened(request.uri.path()));
    site.refusals.keys.warn(what);
    let mut answer = refuse(status, error);
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    Err(answer)
}

/// Checks that the key may publish on `channel`.
///
/// # Errors
/// A sentence that names the channel.
pub fn check_channel(key: Option<&AccessKey>, channel: &str) -> Result<(), String> {
    match key {
        Some(key) if !may_publish(key, channel) => Err(format!("this key may not publish on {channel:?}")),
        _ => Ok(()),
    }
}
