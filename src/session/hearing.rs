//! What a client sends, and what comes of it.

use std::io;

use bytes::Bytes;

use super::codec::{Codec, Event};
use super::ending::BY_THE_CLIENT;
use super::outbox::Outbox;
use super::speech::{Answer, Ask};
use super::turn::{Acts, Turn, Wish};
use super::{Phase, Reading, Seconds, Session, Socket, State, work};
use crate::config::SessionLog;
use crate::config::limits::{ANSWERS_WAITING_MAX, LOG_MESSAGE_BYTES_MAX, TURN_BYTES_MAX};
use crate::hub::{Kind, Message};
use crate::wire::Close;
use crate::wire::rfc6455;

/// The answer to a request for a channel that the client's token does not allow.
const NOT_GRANTED: &str = "your token does not allow it";

impl<S: Socket> Session<S> {
    /// Its socket has something to read. `ending`: the client's end was reported, so it is read up to that. Returns whether it is to be
    /// queued.
    pub fn became_ready(&mut self, ending: bool) -> bool {
        self.state.is_ending |= ending;
        self.read_later()
    }

    /// It is to be read when it is its turn. Returns whether it is to be queued: it may be in a queue already.
    pub fn read_later(&mut self) -> bool {
        let is_queued = self.state.is_queued();
        if !is_queued {
            self.state.reading = Reading::Queued;
        }
        !is_queued
    }

    /// The same for a session that holds bytes which were not decoded yet, unless its own replies must be written first.
    pub fn read_rest_later(&mut self) -> bool {
        if self.state.unheard().is_empty() {
            return false;
        }
        match self.obstacle(true) {
            Some(obstacle) => {
                self.wait_for(obstacle);
                false
            }
            None => self.read_later(),
        }
    }

    /// It was taken from its queue, and is read now.
    pub fn begin_reading(&mut self) {
        self.state.reading = Reading::AwaitsSocket;
    }

    /// Why it cannot be read on, if so. `can_publish`: there is room for its messages.
    pub fn obstacle(&self, can_publish: bool) -> Option<Reading> {
        self.state.obstacle(self.outbox.as_deref(), can_publish)
    }

    /// It is not read before this has changed.
    pub fn wait_for(&mut self, obstacle: Reading) {
        self.state.reading = obstacle;
    }

    /// Whether the client's end was reported.
    pub fn is_ending(&self) -> bool {
        self.state.is_ending
    }

    /// Reads what the kernel has; `Ok(0)` is the client's end.
    ///
    /// # Errors
    /// What the system says; `WouldBlock` where there is nothing.
    pub fn read(&mut self, buffer: &mut [u8], acts: &mut Acts<'_>) -> io::Result<usize> {
        acts.work.spend(work::READ);
        let count = self.socket.try_read(buffer)?;
        if count > 0 {
            self.state.note_heard(acts.now);
        }
        acts.work.spend(if count == 0 { work::END } else { work::bytes(count) });
        Ok(count)
    }

    /// Takes the bytes that were read before and not decoded yet.
    pub fn take_unheard(&mut self, acts: &Acts<'_>) -> Option<Box<[u8]>> {
        let rest = self.state.replace_unheard(Box::default());
        if rest.is_empty() {
            return None;
        }
        self.state.note_heard(acts.now);
        Some(rest)
    }

    /// Keeps bytes that cannot be decoded now.
    pub fn keep_unheard(&mut self, rest: &[u8]) {
        self.state.replace_unheard(rest.into());
    }

    /// Decodes bytes that the client sent, as far as the work allows, and does what they ask for. The rest is kept. Where the bytes
    /// break the protocol or a limit, the session fails.
    pub fn hear(&mut self, bytes: &mut [u8], turn: &mut Turn<'_>) {
        if let Err(close) = self.hear_events(bytes, turn) {
            self.fail(&close, &mut turn.acts);
        }
    }

    fn hear_events(&mut self, bytes: &mut [u8], turn: &mut Turn<'_>) -> Result<(), Close> {
        let Session { socket, codec, outbox, state } = self;
        let limit = state.terms.hub.message_bytes_max;
        let mut at = 0;
        while state.is_heard() {
            if at > 0
                && at < bytes.len()
                && (turn.acts.work.is_spent() || state.must_wait(outbox.as_deref(), &turn.acts))
            {
                state.replace_unheard(bytes[at..].into());
                return Ok(());
            }
            let (used, event) = codec.next(&mut bytes[at..], limit)?;
            at += used;
            turn.acts.work.spend(work::bytes(used));
            let Some(event) = event else { return state.allowance.take(0, used) };
            turn.acts.work.spend(work::FRAME);
            state.allowance.take(1, used)?;
            state.on_event(event, socket, turn)?;
        }
        Ok(())
    }

    /// The client sends nothing more. Returns why the session ends now. `None`: something is still to be written. A client that closes, or
    /// that reads a response, may have ended only its own side. A poll is to be answered now.
    pub fn hear_end(&mut self, now: Seconds) -> Option<&'static str> {
        if self.state.phase == Phase::Open && !self.state.framing.is_response() {
            return Some("by the client, without goodbye");
        }
        if self.state.phase == Phase::Open && self.state.framing.is_poll() {
            self.state.is_ending = true;
            self.state.answer_by(now);
            return None;
        }
        if !self.has_to_say() {
            return Some(BY_THE_CLIENT);
        }
        if self.state.phase == Phase::Open {
            self.state.close_by(now);
        }
        self.state.phase = Phase::Leaving;
        None
    }

    /// Forgets what was received and not heard.
    pub(super) fn forget_received(&mut self) {
        self.codec = Codec::new(self.state.framing, false);
        self.state.replace_unheard(Box::default());
    }

    /// Whether it is logged what the route's sessions do. At level debug, everything is.
    pub fn logs(&self, what: SessionLog) -> bool {
        self.state.logs(what)
    }
}

impl State {
    /// Whether what the client sends still has a meaning.
    fn is_heard(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Closing)
    }

    pub(super) fn is_queued(&self) -> bool {
        matches!(self.reading, Reading::Queued | Reading::AwaitsLanes)
    }

    /// Why nothing more can be taken from the client, if so.
    fn obstacle(&self, outbox: Option<&Outbox>, can_publish: bool) -> Option<Reading> {
        let speech = &self.terms.speech;
        if self.phase == Phase::Open
            && let Some(outbox) = outbox
            && speech.replies()
            && (speech.echoes() || outbox.for_good() > ANSWERS_WAITING_MAX)
        {
            return Some(Reading::AwaitsOutbox);
        }
        (speech.publishes() && !can_publish).then_some(Reading::AwaitsLanes)
    }

    /// Whether the next event must wait: a few compressed bytes can become many megabytes.
    fn must_wait(&self, outbox: Option<&Outbox>, acts: &Acts<'_>) -> bool {
        let can_publish = acts.published.cost() < TURN_BYTES_MAX;
        self.obstacle(outbox, can_publish).is_some() || self.terms.speech.replies() && acts.has_replied_enough()
    }

    pub(super) fn logs(&self, what: SessionLog) -> bool {
        self.terms.log as u8 >= what as u8 || log::log_enabled!(log::Level::Debug)
    }

    fn on_event(&mut self, event: Event<'_>, socket: &impl Socket, turn: &mut Turn<'_>) -> Result<(), Close> {
        match (event, self.phase) {
            (Event::Deflated(kind, compressed), _) => return self.on_deflated(kind, compressed, socket, turn),
            (Event::Close(code), _) => self.on_close(code, &mut turn.acts),
            (Event::Message(kind, payload), Phase::Open) => self.on_message(kind, payload, socket, &mut turn.acts),
            (Event::Ping(payload), Phase::Open) => self.reply(&mut turn.acts, |out| rfc6455::pong_into(payload, out)),
            (Event::Pong, _) => self.pinged = None,
            (Event::Message(..) | Event::Ping(_) | Event::Fragment, _) => {}
        }
        Ok(())
    }

    fn on_deflated(
        &mut self,
        kind: Kind,
        compressed: &[u8],
        socket: &impl Socket,
        turn: &mut Turn<'_>,
    ) -> Result<(), Close> {
        let speech = &self.terms.speech;
        if !speech.replies() && !speech.publishes() && !self.logs(SessionLog::Messages) {
            // Nothing comes of it, so it is not inflated.
            turn.acts.tally.received += 1;
            return Ok(());
        }
        let message = turn.inflater.inflate(compressed, self.terms.hub.message_bytes_max)?;
        turn.acts.work.spend(work::inflated(message.len()));
        self.allowance.take(0, message.len().saturating_sub(compressed.len()))?;
        if kind == Kind::Text && std::str::from_utf8(message).is_err() {
            return Err(Close::NOT_UTF8);
        }
        if self.phase == Phase::Open {
            self.on_message(kind, message, socket, &mut turn.acts);
        }
        Ok(())
    }

    fn on_message(&mut self, kind: Kind, payload: &[u8], socket: &impl Socket, acts: &mut Acts<'_>) {
        acts.tally.received += 1;
        if self.logs(SessionLog::Messages) {
            acts.work.spend(work::LOG_LINE);
            log::info!("{} message received {}", socket.peer(), legible(kind, payload));
        }
        let terms = self.terms.clone();
        match terms.speech.hear(kind, payload) {
            Ask::Nothing => {}
            Ask::Publish(message) => {
                acts.work.spend(work::PUBLICATION);
                let payload = Bytes::copy_from_slice(&message);
                let message = Message::new(terms.hub_id, self.to.clone(), kind, payload);
                acts.published.push(message.ordered(terms.hub.history.is_some()));
            }
            Ask::Subscribe(selector, _) if !self.grants(&selector) => {
                let answer = Answer::Refused(&selector.text, NOT_GRANTED);
                let framing = self.framing;
                self.reply(acts, |out| terms.speech.answer_into(framing, &answer, out));
            }
            Ask::Subscribe(selector, since) => self.wish(Wish::Subscribe(selector, since), acts),
            Ask::Unsubscribe(selector) => self.wish(Wish::Unsubscribe(selector), acts),
            Ask::Reply(_) if !self.framing.carries(kind) => acts.tally.unspeakable += 1,
            Ask::Reply(message) => {
                let framing = self.framing;
                self.reply(acts, |out| framing.frame_into(kind, &message, out));
            }
        }
    }

    fn wish(&mut self, wish: Wish, acts: &mut Acts<'_>) {
        let before = self.cold.as_ref().map_or(0, |cold| cold.wished_seats.len() + cold.catch_ups.len()) as u32;
        acts.work.spend(work::SUBSCRIPTION + before.saturating_mul(work::SUBSCRIPTION_BEFORE));
        acts.wishes.push(wish);
    }

    /// Stages a frame for this session alone.
    pub(super) fn reply(&mut self, acts: &mut Acts<'_>, write: impl FnOnce(&mut Vec<u8>)) {
        let head = self.take_head();
        let number = acts.run.push_with(|out| {
            out.extend_from_slice(&head);
            write(out);
        });
        acts.run.stage(&mut self.staged, number..number + 1);
    }
}

/// A message as the log shows it: text cut to a limit, binary as its size.
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
