//! The channels and the identity of a request, and the count of sessions of their hub.

use std::sync::Arc;

use smallvec::SmallVec;

use super::arguments::Arguments;
use crate::config::Template;
use crate::config::limits::{CHANNEL_BYTES_MAX, IDENTITY_BYTES_MAX};
use crate::hub::{Membership, Selector};
use crate::session::Terms;

/// The channels that a client subscribes to. If two templates result in the same channel, the client is subscribed to it once.
///
/// # Errors
/// A sentence that names the missing or invalid argument.
pub fn channels(templates: &[Template], arguments: &Arguments<'_>) -> Result<SmallVec<[Selector; 1]>, String> {
    let mut channels = SmallVec::new();
    for template in templates {
        let name = channel(template, arguments)?;
        let channel = if template.is_pattern() { Selector::pattern(name) } else { Selector::name(name) };
        if !channels.contains(&channel) {
            channels.push(channel);
        }
    }
    Ok(channels)
}

/// The name of a channel, filled from the request.
///
/// # Errors
/// A sentence that names the missing or invalid argument.
pub fn channel(template: &Template, arguments: &Arguments<'_>) -> Result<Arc<str>, String> {
    named(&template.channel(|name| arguments.value(name)).map_err(|missing| missing.to_string())?)
}

/// A channel of this name.
///
/// # Errors
/// A sentence that says why no channel has such a name.
pub fn named(name: &str) -> Result<Arc<str>, String> {
    match name.len() {
        0 => Err("the channel's name is empty".to_owned()),
        _ if name.contains(char::is_control) => Err("a channel's name has no control characters".to_owned()),
        1..=CHANNEL_BYTES_MAX => Ok(name.into()),
        _ => Err(format!("a channel's name may have at most {CHANNEL_BYTES_MAX} bytes")),
    }
}

/// The name of a client for presence, filled from the request. `None`: it has none, or the hub has no presence.
///
/// # Errors
/// A sentence that names the missing or invalid argument.
pub fn identity(
    template: Option<&Template>,
    terms: &Terms,
    arguments: &Arguments<'_>,
) -> Result<Option<Arc<str>>, String> {
    let filled = |template: &Template| template.text(|name| arguments.value(name));
    let identity = match template.filter(|_| terms.hub.presence) {
        Some(template) => filled(template).map_err(|missing| missing.to_string())?,
        // The subject of a token is who the client is.
        None => match arguments.token().filter(|_| terms.hub.presence).and_then(|token| token.text("sub")) {
            Some(subject) => subject,
            None => return Ok(None),
        },
    };
    match identity.len() {
        0 => Ok(None),
        _ if identity.contains(char::is_control) => Err("an identity has no control characters".to_owned()),
        1..=IDENTITY_BYTES_MAX => Ok(Some(identity.into())),
        _ => Err(format!("an identity may have at most {IDENTITY_BYTES_MAX} bytes")),
    }
}

/// Counts a session of the hub.
///
/// # Errors
/// The hub is full.
pub fn join(terms: &Terms) -> Result<Membership, String> {
    let max = terms.hub.subscribers_max.map_or(usize::MAX, usize::from);
    let full = || format!("hub {} is full ({max} sessions), try again later", terms.hub.name);
    terms.members.join(max).ok_or_else(full)
}
