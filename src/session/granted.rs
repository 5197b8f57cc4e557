//! What the token of a session allows, and until when.

use super::{Seconds, Session, Socket, State};
use crate::config::ChannelPattern;
use crate::hub::Selector;

/// What a token allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// When it expires: so many seconds from the arrival of the client, later by the clock of the sessions.
    pub expires: Seconds,
    /// The number of the key that signed it.
    pub key: u64,
    /// The channels that the client may subscribe to; `None`: those of the route.
    pub allowed: Option<Vec<ChannelPattern>>,
}

impl Granted {
    /// With its time by the clock of the sessions.
    pub(super) fn begin(&mut self, now: Seconds) {
        self.expires = now.saturating_add(self.expires);
    }
}

impl<S: Socket> Session<S> {
    /// What its token allows, if it showed one.
    pub fn granted(&self) -> Option<&Granted> {
        self.state.granted()
    }

    /// Whether its token is not good any more by its present terms: its key is gone, or the route has begun to ask for tokens.
    pub fn is_revoked(&self) -> bool {
        let Some(keys) = &self.state.terms.token_keys else { return false };
        self.granted().is_none_or(|granted| !keys.contains(&granted.key))
    }
}

impl State {
    pub(super) fn granted(&self) -> Option<&Granted> {
        self.cold.as_ref()?.granted.as_deref()
    }

    /// Whether its token allows a subscription.
    pub(super) fn grants(&self, selector: &Selector) -> bool {
        let allowed = self.granted().and_then(|granted| granted.allowed.as_deref());
        allowed.is_none_or(|allowed| selector.is_one_of(allowed))
    }

    /// Notes what the token of a new session allows.
    pub(super) fn begin_granted(&mut self, mut granted: Option<Box<Granted>>, now: Seconds) {
        granted.iter_mut().for_each(|granted| granted.begin(now));
        self.set_granted(granted);
    }

    pub(super) fn set_granted(&mut self, granted: Option<Box<Granted>>) {
        if granted.is_some() {
            self.cold.get_or_insert_default().granted = granted;
        }
    }
}
