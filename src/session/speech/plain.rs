//! The plain speech: a client receives messages as they were published, and what it sends is published, answered or ignored as the
//! route says.

use std::borrow::Cow;
use std::hash::Hasher;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde::Serialize;

use super::{Ask, Said, Spoken, Subscribable, json};
use crate::config::{self, Accept, OnMessage, Template};
use crate::hub::{Kind, Position};
use crate::wire::{Framing, Transport, event_stream};

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
    /// Whether a WebSocket receives messages in envelopes of JSON, with their channel and their position.
    pub envelope: bool,
    /// What a client may subscribe to by a message.
    pub subscribe: Option<Subscribable>,
}

/// A message in its envelope.
#[derive(Serialize)]
pub(super) struct Envelope<'m> {
    channel: &'m str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(flatten)]
    content: Content<'m>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Content<'m> {
    Data(Cow<'m, str>),
    Base64(String),
}

/// Messages of a channel are gone.
#[derive(Serialize)]
struct Gap<'m> {
    channel: &'m str,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<bool>,
}

impl From<&config::WebSocket> for Plain {
    fn from(route: &config::WebSocket) -> Plain {
        let config::WebSocket { on_message, accept, message, envelope, .. } = route;
        Plain {
            on_message: *on_message,
            accept: *accept,
            message: message.clone(),
            event: None,
            envelope: *envelope,
            subscribe: Subscribable::of(route),
        }
    }
}

impl Plain {
    /// What a client only receives.
    pub fn receiving(event: Option<Template>) -> Plain {
        Plain {
            on_message: OnMessage::Ignore,
            accept: Accept::Both,
            message: None,
            event,
            envelope: false,
            subscribe: None,
        }
    }

    pub(super) fn hear<'m>(&self, kind: Kind, payload: &'m [u8]) -> Ask<'m> {
        if let Some(subscribable) = self.subscribe.as_ref().filter(|_| kind == Kind::Text)
            && let Some(ask) = subscribable.hear(payload)
        {
            return ask;
        }
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
        self.echoes() || self.subscribe.is_some()
    }

    pub(super) fn echoes(&self) -> bool {
        self.on_message == OnMessage::Echo
    }

    pub(super) fn publishes(&self) -> bool {
        self.on_message == OnMessage::Broadcast
    }

    pub(super) fn distinguish(&self, framing: Framing, hasher: &mut impl Hasher) {
        if self.wraps(framing) {
            hasher.write(b"envelope");
        }
        if let Some(event) = self.event.as_ref().filter(|_| framing.is_events()) {
            hasher.write(format!("{event:?}").as_bytes());
        }
    }

    /// Whether messages are put into envelopes in this framing.
    fn wraps(&self, framing: Framing) -> bool {
        self.envelope && framing.transport() == Transport::WebSocket
    }

    pub(super) fn has_positions(&self, framing: Framing) -> bool {
        self.envelope || framing.transport() != Transport::WebSocket
    }

    /// The kind that a message has in a framing.
    pub(super) fn kind_of(&self, framing: Framing, kind: Kind) -> Kind {
        if self.wraps(framing) { Kind::Text } else { kind }
    }

    pub(super) fn say<'m>(&self, framing: Framing, said: Said<'m>) -> Spoken<'m> {
        let Said { channel, kind, payload, position } = said;
        if self.wraps(framing) {
            let payload = Cow::Owned(json(&Envelope::from(said)));
            return Spoken { name: None, id: None, kind: Kind::Text, payload };
        }
        let name = self.event.as_ref().filter(|_| framing.is_events()).map(|event| {
            let name = String::from_utf8_lossy(&event.bytes("channel", channel.as_bytes())).into_owned();
            // No channel's name has control characters. Where one had, it could end the line.
            Cow::Owned(name.replace(char::is_control, " "))
        });
        Spoken { name, id: position, kind, payload: Cow::Borrowed(payload) }
    }

    pub(super) fn gap_into(&self, framing: Framing, channel: &str, before: Option<Position>, out: &mut Vec<u8>) {
        if framing.is_events() {
            let gap = json(&Gap { channel, gap: None });
            framing.event_into(Some("gap"), before, &gap, out);
        } else if self.wraps(framing) {
            let gap = json(&Gap { channel, gap: Some(true) });
            framing.frame_into(Kind::Text, &gap, out);
        }
    }

    pub(super) fn position_into(&self, framing: Framing, position: Position, out: &mut Vec<u8>) {
        if framing.is_events() {
            framing.block_into(|out| event_stream::id_into(position, out), out);
        } else if self.wraps(framing) {
            framing.frame_into(Kind::Text, format!("{{\"id\":\"{position}\"}}").as_bytes(), out);
        }
    }
}

impl<'m> From<Said<'m>> for Envelope<'m> {
    /// Binary messages are in base64.
    fn from(Said { channel, kind, payload, position }: Said<'m>) -> Envelope<'m> {
        let content = match kind {
            Kind::Text => Content::Data(String::from_utf8_lossy(payload)),
            Kind::Binary => Content::Base64(BASE64.encode(payload)),
        };
        Envelope { channel, id: position.map(|position| position.to_string()), content }
    }
}
