//! How much a client may send: a token bucket of messages, and one of bytes.

use super::Seconds;
use crate::config::Hub;
use crate::config::limits::ALLOWANCE_SECONDS;
use crate::wire::Close;
use crate::wire::rfc6455::{HEADER_BYTES_MAX, MASK_BYTES};

/// How many messages and bytes a client may still send. It grows each second, up to a maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    messages: u32,
    bytes: u32,
}

impl Allowance {
    /// The allowance of a new client: that of one second.
    pub fn new(hub: &Hub) -> Allowance {
        // The header is added, so that one message of the largest size passes where no more than that is allowed.
        let bytes = hub.bytes_per_second.saturating_add((HEADER_BYTES_MAX + MASK_BYTES) as u32);
        Allowance { messages: hub.messages_per_second, bytes }
    }

    /// Adds what so many seconds allow.
    pub fn grow(&mut self, seconds: Seconds, hub: &Hub) {
        let grown = |left: u32, rate: u32| {
            let most = rate.saturating_mul(ALLOWANCE_SECONDS);
            left.saturating_add(rate.saturating_mul(seconds)).min(most)
        };
        if seconds > 0 {
            self.messages = grown(self.messages, hub.messages_per_second);
            self.bytes = grown(self.bytes, hub.bytes_per_second);
        }
    }

    /// Takes so many messages, or other frames, of so many bytes together.
    ///
    /// # Errors
    /// The client has sent too much: how the session is to be closed.
    pub fn take(&mut self, messages: u32, bytes: usize) -> Result<(), Close> {
        self.messages = self.messages.checked_sub(messages).ok_or(Close::TOO_MANY)?;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.bytes = self.bytes.checked_sub(bytes).ok_or(Close::TOO_MUCH)?;
        Ok(())
    }
}
