//! Reading sessions: what they say, and what becomes of it.

use std::io;

use bytes::Bytes;

use super::{BY_THE_CLIENT, SessionKey, Table};
use crate::config::limits::{CLOSE_TIMEOUT, LOG_MESSAGE_BYTES_MAX, TURN_BYTES_MAX};
use crate::config::{Accept, OnMessage, SessionLog};
use crate::hub::{Kind, Publication, Slot};
use crate::session::codec::{Codec, Event};
use crate::session::{Phase, Seconds, Socket};
use crate::wire::{Close, Dialect, rfc6455};

/// How often one session is read in one turn before the others have theirs.
const READS_PER_TURN: usize = 4;

impl<S: Socket> Table<S> {
    /// The socket of a session has something to read. `ending`: its end was announced, so it is read until that.
    pub fn readable(&mut self, key: SessionKey, ending: bool) {
        // Whoever waits to be read on is read in that order, and not a second time in the same turn.
        if self.at(key).is_none_or(|session| session.unread) {
            return;
        }
        match self.still {
            true => self.read_later(key.slot),
            false => self.read(key.slot, ending),
        }
    }

    /// Those who were not read empty, or could not be read, when the last turn ended. Whoever was held up is read before those who
    /// were read already: else who always has more would take all the room there is, turn after turn.
    pub fn take_unread(&mut self) -> Vec<Slot> {
        if self.still {
            return Vec::new();
        }
        let mut slots = std::mem::take(&mut self.held_up);
        slots.append(&mut self.unread);
        slots
    }

    /// Reads on where a turn stopped before a session was read empty.
    pub fn read_on(&mut self, slot: Slot) {
        // The place may have a new session by now: then this is one read for nothing.
        if let Some(session) = self.sessions.get_mut(slot as usize) {
            session.unread = false;
            self.read(slot, true);
        }
    }

    /// Has a session read on in the next turn.
    pub(super) fn read_later(&mut self, slot: Slot) {
        let session = &mut self.sessions[slot as usize];
        if !std::mem::replace(&mut session.unread, true) {
            self.unread.push(slot);
        }
    }

    fn read(&mut self, slot: Slot, ending: bool) {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.read_into(slot, &mut buffer, ending);
        self.buffer = buffer;
    }

    fn read_into(&mut self, slot: Slot, buffer: &mut [u8], ending: bool) {
        for read in 0..READS_PER_TURN {
            let Some(session) = self.sessions.get_mut(slot as usize) else { return };
            match session.terms.route.on_message {
                // Whoever does not take his own echoes is not read: TCP then tells him to wait.
                OnMessage::Echo if session.is_waiting() && session.phase == Phase::Open => {
                    session.paused = true;
                    return;
                }
                OnMessage::Broadcast if !self.room && read == 0 => {
                    if !std::mem::replace(&mut session.unread, true) {
                        self.held_up.push(slot);
                    }
                    return;
                }
                OnMessage::Broadcast if !self.room || self.outgoing_bytes >= TURN_BYTES_MAX => break,
                _ => {}
            }
            if let Some(mut rest) = session.unheard.take() {
                self.hear(slot, &mut rest);
                continue;
            }
            match session.socket.try_read(buffer) {
                Ok(0) => return self.end(slot),
                Ok(n) => {
                    session.heard = self.now;
                    self.hear(slot, &mut buffer[..n]);
                    // Less than there was room for: that was all (epoll(7), edge-triggered use).
                    if n < buffer.len() && !ending {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.remove(slot, &error.to_string()),
            }
        }
        self.read_later(slot);
    }

    /// The client says nothing more. What it is being told still goes out, if it heard or said goodbye: it may have ended only its
    /// own side.
    fn end(&mut self, slot: Slot) {
        let session = &mut self.sessions[slot as usize];
        match session.phase {
            Phase::Closing | Phase::Leaving | Phase::Failed if session.has_to_say() => session.phase = Phase::Leaving,
            Phase::Open => self.remove(slot, "by the client, without goodbye"),
            Phase::Closing | Phase::Leaving | Phase::Failed => self.remove(slot, BY_THE_CLIENT),
        }
    }

    /// Takes the events out of bytes that a session sent.
    pub(super) fn hear(&mut self, slot: Slot, bytes: &mut [u8]) {
        let mut at = 0;
        loop {
            let Some(session) = self.sessions.get_mut(slot as usize) else { return };
            if session.phase == Phase::Leaving || session.phase == Phase::Failed {
                return;
            }
            let limit = session.terms.hub.message_bytes_max;
            // Taken out while its event is looked at, because both are parts of the table.
            let mut codec = std::mem::replace(&mut session.codec, Codec::new(Dialect::Rfc6455, false));
            match codec.next(&mut bytes[at..], limit) {
                Ok((used, Some(Event::Deflated(kind, compressed)))) => {
                    at += used;
                    if let Err(close) = self.hear_deflated(slot, kind, compressed, limit) {
                        return self.fail(slot, &close);
                    }
                }
                Ok((used, Some(event))) => {
                    at += used;
                    self.on_event(slot, event);
                }
                Ok((_, None)) => {
                    session.codec = codec;
                    return;
                }
                Err(close) => return self.fail(slot, &close),
            }
            if let Some(session) = self.sessions.get_mut(slot as usize) {
                session.codec = codec;
            }
            if self.is_turn_full() {
                self.flush();
            }
            if at < bytes.len() && self.hear_later(slot, &bytes[at..]) {
                return;
            }
        }
    }

    /// Keeps the rest of what was read where what it makes has nowhere to go for now: a few compressed bytes can be many megabytes. Whether it did.
    fn hear_later(&mut self, slot: Slot, rest: &[u8]) -> bool {
        let Some(session) = self.sessions.get_mut(slot as usize) else { return false };
        match session.terms.route.on_message {
            OnMessage::Echo if session.is_waiting() && session.phase == Phase::Open => session.paused = true,
            OnMessage::Broadcast if self.outgoing_bytes >= TURN_BYTES_MAX => self.read_later(slot),
            _ => return false,
        }
        self.sessions[slot as usize].unheard = Some(rest.into());
        true
    }

    fn hear_deflated(&mut self, slot: Slot, kind: Kind, compressed: &[u8], limit: usize) -> Result<(), Close> {
        // Taken out while its message is looked at, because both are parts of the table.
        let mut inflater = std::mem::take(&mut self.inflater);
        let inflated = inflater.inflate(compressed, limit).and_then(|message| {
            if kind == Kind::Text && std::str::from_utf8(message).is_err() {
                return Err(Close::NOT_UTF8);
            }
            self.on_event(slot, Event::Message(kind, message));
            Ok(())
        });
        self.inflater = inflater;
        inflated
    }

    /// A session broke the protocol: it is told why, and nothing of it is heard any more.
    fn fail(&mut self, slot: Slot, close: &Close) {
        self.counters.violations.add(1);
        log::debug!("{} broke the protocol: {}", self.sessions[slot as usize].socket.peer(), close.reason);
        if self.sessions[slot as usize].phase == Phase::Open {
            self.close(slot, close);
        }
        self.sessions[slot as usize].phase = Phase::Failed;
    }

    fn on_event(&mut self, slot: Slot, event: Event<'_>) {
        let session = &mut self.sessions[slot as usize];
        match (event, session.phase) {
            (Event::Close(code), Phase::Open) => {
                let reply = Close { code: code.unwrap_or(Close::NORMAL.code), reason: "".into() };
                let farewell = session.dialect.farewell(&reply);
                self.say(slot, |_, out| out.extend_from_slice(&farewell));
                self.sessions[slot as usize].phase = Phase::Leaving;
                self.set_timer(slot, self.now + CLOSE_TIMEOUT.as_secs() as Seconds);
            }
            (Event::Close(_), _) => {
                // Both sides have said goodbye: the socket goes at the end of the turn, or when what waits is written.
                session.phase = Phase::Leaving;
                self.dirty.push(slot);
            }
            (Event::Message(kind, payload), Phase::Open) => self.on_message(slot, kind, payload),
            (Event::Ping(payload), Phase::Open) => self.say(slot, |_, out| rfc6455::pong_into(payload, out)),
            (Event::Pong, _) => session.pinged = None,
            (Event::Message(..) | Event::Deflated(..) | Event::Ping(_), _) => {}
        }
    }

    fn on_message(&mut self, slot: Slot, kind: Kind, payload: &[u8]) {
        self.counters.received.add(1);
        let session = &self.sessions[slot as usize];
        let terms = session.terms.clone();
        let route = &terms.route;
        if self.logs(&terms, SessionLog::Messages) {
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
                self.outgoing_bytes += publication.cost();
                self.outgoing.push(publication);
            }
            OnMessage::Echo if !session.dialect.carries(kind) => self.counters.unspeakable.add(1),
            OnMessage::Echo => self.say(slot, |dialect, out| dialect.frame_into(kind, message, out)),
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
