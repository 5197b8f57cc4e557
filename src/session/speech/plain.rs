//! The plain speech: a client receives messages as they were published, and what it sends is published, answered or ignored as the
//! route says.

use std::borrow::Cow;
use std::hash::Hasher;

use super::{Ask, Spoken};
use crate::config::{self, Accept, OnMessage, Template};
use crate::hub::{Kind, Message};
use crate::wire::Framing;

/// What a route says of plain messages.
#[derive(Debug, Clone, PartialEq)]
pub struct Plain {
    /// What is done with a client's message.
    pub on_message: OnMessage,
    /// The kinds of message that are taken from clients; others are ignored.
    pub accept: Accept,
    /// What a client's message becomes, if not itself: a template with `{message}`.
    pub message: Option<Template>,
    /// The type of events on an event stream, if not `message`: a template with `{channel}`.
    pub event: Option<Template>,
}

impl From<&config::WebSocket> for Plain {
    fn from(route: &config::WebSocket) -> Plain {
        let config::WebSocket { on_message, accept, message, .. } = route;
        Plain { on_message: *on_message, accept: *accept, message: message.clone(), event: None }
    }
}

impl Plain {
    /// What a client only receives.
    pub fn receiving(event: Option<Template>) -> Plain {
        Plain { on_message: OnMessage::Ignore, accept: Accept::Both, message: None, event }
    }

    pub(super) fn hear<'m>(&self, kind: Kind, payload: &'m [u8]) -> Ask<'m> {
        match (self.accept, kind) {
            (Accept::Text, Kind::Binary) | (Accept::Binary, Kind::Text) => return Ask::Nothing,
            _ => {}
        }
        let message = || match &self.message {
            Some(template) => Cow::Owned(template.bytes("message", payload)),
            None => Cow::Borrowed(payload),
        };
        match self.on_message {
            OnMessage::Ignore => Ask::Nothing,
            OnMessage::Broadcast => Ask::Publish(message()),
            OnMessage::Echo => Ask::Reply(message()),
        }
    }

    pub(super) fn replies(&self) -> bool {
        self.on_message == OnMessage::Echo
    }

    pub(super) fn publishes(&self) -> bool {
        self.on_message == OnMessage::Broadcast
    }

    pub(super) fn distinguish(&self, framing: Framing, hasher: &mut impl Hasher) {
        if let Some(event) = self.event.as_ref().filter(|_| framing.is_events()) {
            hasher.write(format!("{event:?}").as_bytes());
        }
    }

    pub(super) fn say<'m>(&self, message: &'m Message) -> Spoken<'m> {
        let name = self.event.as_ref().map(|event| {
            let name = String::from_utf8_lossy(&event.bytes("channel", message.channel.as_bytes())).into_owned();
            // No channel's name has control characters. Where one had, it could end the line.
            Cow::Owned(name.replace(char::is_control, " "))
        });
        Spoken { name, payload: Cow::Borrowed(&message.payload) }
    }
}
