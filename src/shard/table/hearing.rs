//! What sessions say, and what becomes of it.

use bytes::Bytes;

use super::Table;
use super::work::{self, Work};
use crate::config::limits::{CLOSE_TIMEOUT, LOG_MESSAGE_BYTES_MAX, TURN_BYTES_MAX};
use crate::config::{Accept, OnMessage, SessionLog};
use crate::hub::{Kind, Publication, Slot};
use crate::session::codec::{Codec, Event};
use crate::session::{Phase, Seconds, Socket};
use crate::wire::{Close, Framing, rfc6455};

impl<S: Socket> Table<S> {
    /// Takes the events out of bytes that a session sent, as many as its slice of work allows; the rest is kept.
    pub(super) fn hear(&mut self, slot: Slot, bytes: &mut [u8], slice: &mut Work) {
        // While its decoder is at work the sum is that of the others.
        let before = self.sessions[slot as usize].codec.held_bytes();
        self.unfinished_bytes -= before;
        let heard = self.hear_events(slot, bytes, slice);
        self.unfinished_bytes += self.sessions[slot as usize].codec.held_bytes();
        match heard {
            Ok(()) => self.note_unfinished(slot, before),
            Err(close) => self.fail(slot, &close),
        }
    }

    fn hear_events(&mut self, slot: Slot, bytes: &mut [u8], slice: &mut Work) -> Result<(), Close> {
        let mut at = 0;
        loop {
            let session = &mut self.sessions[slot as usize];
            if session.phase == Phase::Leaving || session.phase == Phase::Failed {
                return Ok(());
            }
            if at > 0 && at < bytes.len() && (slice.is_spent() || self.has_nowhere_to_go(slot)) {
                self.keep_unheard(slot, &bytes[at..]);
                return Ok(());
            }
            let session = &mut self.sessions[slot as usize];
            let limit = session.terms.hub.message_bytes_max;
            // Taken out while its event is looked at, because both are parts of the table.
            let mut codec = std::mem::replace(&mut session.codec, Codec::new(Framing::Rfc6455, false));
            let (used, event) = codec.next(&mut bytes[at..], limit)?;
            at += used;
            slice.spend(work::bytes(used));
            let Some(event) = event else {
                session.codec = codec;
                return session.allowance.take(0, used);
            };
            slice.spend(work::FRAME);
            session.allowance.take(1, used)?;
            match event {
                Event::Deflated(kind, compressed) => self.hear_deflated(slot, kind, compressed, limit, slice)?,
                event => self.on_event(slot, event, slice),
            }
            self.sessions[slot as usize].codec = codec;
        }
    }

    /// Whether what a session says next has nowhere to go for now: a few compressed bytes can be many megabytes.
    fn has_nowhere_to_go(&self, slot: Slot) -> bool {
        let session = &self.sessions[slot as usize];
        match session.terms.route.on_message {
            OnMessage::Echo => session.is_waiting() && session.phase == Phase::Open || self.has_replied_enough(),
            OnMessage::Broadcast => self.outgoing_bytes >= TURN_BYTES_MAX,
            OnMessage::Ignore => false,
        }
    }

    fn hear_deflated(
        &mut self,
        slot: Slot,
        kind: Kind,
        compressed: &[u8],
        limit: usize,
        slice: &mut Work,
    ) -> Result<(), Close> {
        let session = &self.sessions[slot as usize];
        if session.terms.route.on_message == OnMessage::Ignore && !self.logs(&session.terms, SessionLog::Messages) {
            // Nothing comes of it, so it is not inflated.
            self.counters.received.add(1);
            return Ok(());
        }
        // Taken out while its message is looked at, because both are parts of the table.
        let mut inflater = std::mem::take(&mut self.inflater);
        let inflated = inflater.inflate(compressed, limit).and_then(|message| {
            slice.spend(work::inflated(message.len()));
            self.sessions[slot as usize].allowance.take(0, message.len().saturating_sub(compressed.len()))?;
            if kind == Kind::Text && std::str::from_utf8(message).is_err() {
                return Err(Close::NOT_UTF8);
            }
            self.on_event(slot, Event::Message(kind, message), slice);
            Ok(())
        });
        self.inflater = inflater;
        inflated
    }

    /// A session broke the protocol or a limit: it is told why, and nothing of it is heard any more.
    pub(super) fn fail(&mut self, slot: Slot, close: &Close) {
        self.counters.violations.add(1);
        let level = if matches!(close.code, 1008 | 1013) { log::Level::Info } else { log::Level::Debug };
        log::log!(level, "{} disconnected: {}", self.sessions[slot as usize].socket.peer(), close.reason);
        if self.sessions[slot as usize].phase == Phase::Open {
            self.close(slot, close);
        }
        let session = &mut self.sessions[slot as usize];
        session.phase = Phase::Failed;
        self.unfinished_bytes -= session.codec.held_bytes();
        self.unheard_bytes -= session.unheard.take().map_or(0, |rest| rest.len());
        session.codec = Codec::new(session.framing, false);
    }

    fn on_event(&mut self, slot: Slot, event: Event<'_>, slice: &mut Work) {
        let session = &mut self.sessions[slot as usize];
        match (event, session.phase) {
            (Event::Close(code), Phase::Open) => {
                let reply = Close { code: code.unwrap_or(Close::NORMAL.code), reason: "".into() };
                let farewell = session.framing.farewell(&reply);
                self.say(slot, |_, out| out.extend_from_slice(&farewell));
                self.sessions[slot as usize].phase = Phase::Leaving;
                self.set_timer(slot, self.now + CLOSE_TIMEOUT.as_secs() as Seconds);
            }
            (Event::Close(_), _) => {
                // Both sides have said goodbye: the socket goes at the end of the turn, or when what waits is written.
                session.phase = Phase::Leaving;
                self.answered.push(slot);
            }
            (Event::Message(kind, payload), Phase::Open) => self.on_message(slot, kind, payload, slice),
            (Event::Ping(payload), Phase::Open) => self.say(slot, |_, out| rfc6455::pong_into(payload, out)),
            (Event::Pong, _) => session.pinged = None,
            (Event::Message(..) | Event::Deflated(..) | Event::Ping(_) | Event::Fragment, _) => {}
        }
    }

    fn on_message(&mut self, slot: Slot, kind: Kind, payload: &[u8], slice: &mut Work) {
        self.counters.received.add(1);
        let session = &self.sessions[slot as usize];
        let terms = session.terms.clone();
        let route = &terms.route;
        if self.logs(&terms, SessionLog::Messages) {
            slice.spend(work::LOG_LINE);
            log::info!("{} message received {}", session.socket.peer(), legible(kind, payload));
        }
        match (route.accept, kind) {
            (Accept::Text, Kind::Binary) | (Accept::Binary, Kind::Text) => return,
            _ => {}
        }
        let wrapped;
        let message = match &route.message {
            Some(template) => {
                wrapped = template.bytes("message", payload);
                &wrapped[..]
            }
            None => payload,
        };
        match route.on_message {
            OnMessage::Ignore => {}
            OnMessage::Broadcast => {
                let bytes = Bytes::copy_from_slice(message);
                let publication = Publication::new(terms.hub_id, session.to.clone(), kind, bytes);
                slice.spend(work::PUBLICATION);
                self.outgoing_bytes += publication.cost();
                self.outgoing.push(publication);
            }
            OnMessage::Echo if !session.framing.carries(kind) => self.counters.unspeakable.add(1),
            OnMessage::Echo => self.say(slot, |framing, out| framing.frame_into(kind, message, out)),
        }
    }
}

/// A message as the log shows it: text cut to a bound, binary as its size.
fn legible(kind: Kind, payload: &[u8]) -> String {
    match kind {
        Kind::Binary => format!("({} bytes)", payload.len()),
        Kind::Text if payload.len() > LOG_MESSAGE_BYTES_MAX => {
            let cut = String::from_utf8_lossy(&payload[..LOG_MESSAGE_BYTES_MAX]);
            format!("{}… ({} bytes)", cut.trim_end_matches('\u{fffd}'), payload.len())
        }
        Kind::Text => String::from_utf8_lossy(payload).into_owned(),
    }
}
