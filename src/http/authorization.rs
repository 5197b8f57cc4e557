//! What a request must show before a route serves it: a key, or a token.

use std::time::SystemTime;

use http::StatusCode;
use http::header::{COOKIE, HeaderValue, WWW_AUTHENTICATE};
use http::request::Parts;

use super::answer::Answer;
use super::arguments::Arguments;
use super::publish::refuse;
use super::refusals::shortened;
use super::site::Tokens;
use super::{Client, Site};
use crate::config::{AccessKey, ChannelPattern};
use crate::grant::keyring::{Refused, may_publish};
use crate::grant::token::Token;
use crate::grant::{Keyring, bearer};
use crate::hub::Selector;
use crate::session::Granted;

/// The query argument in which a token may come: scripts cannot set header fields of WebSockets and event streams.
const TOKEN: &str = "token";

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

/// Checks the token of the request, which fills the claims of `arguments` from then on. It comes in Authorization, else as the argument
/// `token`, else in the cookie that the configuration names. `None`: the route needs none.
///
/// # Errors
/// 401 (RFC 6750, section 3), or 403 for a token that lacks a claim that the route needs.
pub fn token<'a>(
    tokens: Option<&Tokens>,
    request: &Parts,
    arguments: &'a Arguments<'_>,
) -> Result<Option<&'a Token>, Box<Answer>> {
    let Some(Tokens { verifier, claims }) = tokens else { return Ok(None) };
    let several = |_| challenged(StatusCode::BAD_REQUEST, "there is more than one Authorization", "invalid_request");
    let shown = match bearer::shown(&request.headers).map_err(several)? {
        Some(bytes) => Some(std::str::from_utf8(bytes).unwrap_or_default()),
        None => {
            let argument = arguments.of_query(TOKEN).filter(|token| !token.is_empty());
            argument.or_else(|| cookie(verifier.tokens.cookie.as_deref()?, request))
        }
    };
    let Some(shown) = shown else {
        let why = "a token is needed: Authorization: Bearer TOKEN, or ?token=TOKEN";
        let mut refusal = refuse(StatusCode::UNAUTHORIZED, why);
        refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"pushd\""));
        return Err(refusal);
    };
    let token = verifier.verify(shown).map_err(|bad| challenged(StatusCode::UNAUTHORIZED, bad.0, "invalid_token"))?;
    let token = arguments.set_token(token);
    match claims.iter().find(|claim| token.text(claim).is_none()) {
        None => Ok(Some(token)),
        Some(claim) => {
            let why = format!("the token has no claim {claim:?} that is a text or a whole number");
            Err(refuse(StatusCode::FORBIDDEN, &why))
        }
    }
}

/// A refusal with the reason in its challenge, too.
fn challenged(status: StatusCode, why: &'static str, error: &str) -> Box<Answer> {
    let mut refusal = refuse(status, why);
    let challenge = format!("Bearer realm=\"pushd\", error=\"{error}\", error_description=\"{why}\"");
    if let Ok(challenge) = HeaderValue::from_str(&challenge) {
        refusal.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    refusal
}

/// The value of a cookie (RFC 6265, section 4.2.1).
fn cookie<'r>(wanted: &str, request: &'r Parts) -> Option<&'r str> {
    let cookies = request.headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, value)| *name == wanted && !value.is_empty()).map(|(_, value)| value)
}

/// The channels that the token allows; `None`: those of the route.
pub fn allowed(tokens: Option<&Tokens>, token: Option<&Token>) -> Option<Vec<ChannelPattern>> {
    let claim = tokens?.verifier.tokens.channels.as_deref()?;
    Some(token?.channels(claim))
}

/// Checks that the token allows these channels, and every channel of a pattern.
///
/// # Errors
/// A sentence that names the first that it does not.
pub fn check_channels(tokens: Option<&Tokens>, token: Option<&Token>, channels: &[Selector]) -> Result<(), String> {
    check_allowed(allowed(tokens, token).as_deref(), channels)
}

/// The same, with the channels that the token allows.
///
/// # Errors
/// A sentence that names the first that it does not.
pub fn check_allowed(allowed: Option<&[ChannelPattern]>, channels: &[Selector]) -> Result<(), String> {
    let Some(allowed) = allowed else { return Ok(()) };
    match channels.iter().find(|channel| !channel.is_one_of(allowed)) {
        None => Ok(()),
        Some(channel) => Err(format!("this token does not allow {:?}", &*channel.text)),
    }
}

/// What the session of a client with this token may do, and for how long.
pub fn granted(tokens: Option<&Tokens>, token: Option<&Token>) -> Option<Box<Granted>> {
    let token = token?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // A session that begins when the token has expired already lasts as long as the token is accepted.
    let ends = if token.expires > now { token.expires } else { token.expires.saturating_add(token.leeway) };
    // One more second, because the present one is not complete.
    let expires = ends.saturating_sub(now).saturating_add(1).min(u64::from(u32::MAX / 2)) as u32;
    Some(Box::new(Granted { expires, key: token.key, allowed: allowed(tokens, Some(token)) }))
}
