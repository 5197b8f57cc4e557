//! The ways a session ends.

use super::turn::Acts;
use super::{Phase, Seconds, Session, Socket, State};
use crate::config::limits::CLOSE_TIMEOUT;
use crate::hub::Position;
use crate::wire::Close;

/// Why a session ended that was closed in order, by either side.
pub const BY_THE_CLIENT: &str = "by the client";

impl<S: Socket> Session<S> {
    /// Closes an open session: the client is told why, and may answer.
    pub fn close(&mut self, close: &Close, acts: &mut Acts<'_>) {
        if self.state.phase == Phase::Open {
            let framing = self.state.framing;
            self.state.reply(acts, |out| framing.farewell_into(close, out));
            self.state.dismiss(close, acts.now);
        }
    }

    /// Ends an open session because of the server: the client is told why. A poll is answered, because its client loses nothing and
    /// polls again. `position` is that up to which everything was staged for it.
    pub fn send_away(&mut self, close: &Close, position: Option<Position>, acts: &mut Acts<'_>) {
        match self.state.framing.is_poll() {
            true => self.answer_now(position, acts),
            false => self.close(close, acts),
        }
    }

    /// The session broke the protocol or a limit: the client is told why, and nothing of it is heard any more.
    pub fn fail(&mut self, close: &Close, acts: &mut Acts<'_>) {
        acts.tally.violations += 1;
        let level = if matches!(close.code, 1008 | 1013) { log::Level::Info } else { log::Level::Debug };
        log::log!(level, "{} disconnected: {}", self.socket.peer(), close.reason);
        self.close(close, acts);
        self.state.phase = Phase::HalfClosed;
        self.forget_received();
    }

    /// The client is too slow: what waits for it is dropped, and it is told why as soon as it reads again.
    pub fn disconnect(&mut self, close: &Close, acts: &mut Acts<'_>) {
        log::info!("{} disconnected: {}", self.socket.peer(), close.reason);
        acts.tally.slow += 1;
        acts.tally.dropped += self.clear_outbox(close);
        self.state.dismiss(close, acts.now);
    }

    /// The line that the log has for the end of the session.
    pub fn epitaph(&self, why: &str) -> String {
        let peer = self.socket.peer();
        match self.state.cold.as_ref().and_then(|cold| cold.dismissed) {
            Some(code) if why == BY_THE_CLIENT => format!("{peer} connection closed: by the server, {code}"),
            Some(code) => format!("{peer} connection closed: {why}, {code}"),
            None => format!("{peer} connection closed: {why}"),
        }
    }
}

impl State {
    /// Waits for the client's answer to a close frame, or for its end where it does not answer.
    fn dismiss(&mut self, close: &Close, now: Seconds) {
        self.phase = if self.framing.is_response() { Phase::HalfClosed } else { Phase::Closing };
        self.cold.get_or_insert_default().dismissed = Some(close.code);
        self.close_by(now);
    }

    /// The session ends at the latest when the client has had its time to close.
    pub(super) fn close_by(&mut self, now: Seconds) {
        self.deadline = now + CLOSE_TIMEOUT.as_secs() as Seconds;
    }

    /// The client closes, or answers our close.
    pub(super) fn on_close(&mut self, code: Option<u16>, acts: &mut Acts<'_>) {
        if self.phase == Phase::Open {
            let answer = Close { code: code.unwrap_or(Close::NORMAL.code), reason: "".into() };
            let framing = self.framing;
            self.reply(acts, |out| framing.farewell_into(&answer, out));
            self.close_by(acts.now);
        }
        self.phase = Phase::Leaving;
    }
}
