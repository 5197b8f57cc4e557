//! Where a session is present: its identity, and the channels with presence that it is on.
//!
//! A session notes the channels of which it was reported that it has come. So when it ends, it goes from exactly these, whatever
//! became of its subscriptions.

use std::sync::Arc;

use super::{Session, State};

/// The presence of a session.
#[derive(Debug, Default)]
pub(super) struct Present {
    /// Its name.
    identity: Option<Arc<str>>,
    /// The channels that it is on, sorted.
    channels: Vec<Arc<str>>,
}

impl Present {
    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.identity.is_none() && self.channels.is_empty()
    }
}

impl<S> Session<S> {
    /// Its name for presence, if it has one.
    pub fn identity(&self) -> Option<&Arc<str>> {
        self.state.cold.as_ref()?.present.identity.as_ref()
    }

    /// It comes to a channel with presence. Returns whether it was not on it.
    pub fn come_to(&mut self, channel: &Arc<str>) -> bool {
        let channels = &mut self.state.cold.get_or_insert_default().present.channels;
        let place = channels.binary_search(channel);
        if let Err(place) = place {
            channels.insert(place, channel.clone());
        }
        place.is_err()
    }

    /// It goes from a channel. Returns whether it was on it.
    pub fn go_from(&mut self, channel: &Arc<str>) -> bool {
        let Some(cold) = &mut self.state.cold else { return false };
        let place = cold.present.channels.binary_search(channel);
        if let Ok(place) = place {
            cold.present.channels.remove(place);
        }
        self.state.shrink_cold();
        place.is_ok()
    }

    /// It goes from all channels with presence. Returns them.
    pub fn go_from_all(&mut self) -> Vec<Arc<str>> {
        let Some(cold) = &mut self.state.cold else { return Vec::new() };
        let channels = std::mem::take(&mut cold.present.channels);
        self.state.shrink_cold();
        channels
    }
}

impl State {
    /// Sets its name for presence.
    pub(super) fn set_identity(&mut self, identity: Option<Arc<str>>) {
        if identity.is_some() {
            self.cold.get_or_insert_default().present.identity = identity;
        }
    }
}
