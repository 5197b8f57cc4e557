//! Close codes (RFC 6455 §7.4), each with a reason that is sent to the client.

use std::borrow::Cow;

/// A close code and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// The code.
    pub code: u16,
    /// The reason, at most 123 bytes of UTF-8.
    pub reason: Cow<'static, str>,
}

/// The longest reason that fits a close frame, in bytes.
pub const REASON_BYTES_MAX: usize = 123;

impl Close {
    /// The client sent a close frame; this is the answer.
    pub const NORMAL: Close = Close::fixed(1000, "");
    /// The server shuts down.
    pub const GOING_AWAY: Close = Close::fixed(1001, "the server is going away");
    /// The server restarts (1012 of the IANA registry). Clients reconnect, each after a random delay.
    pub const RESTART: Close = Close::fixed(1012, "the server restarts, come back");
    /// The route of the session is no longer configured.
    pub const ROUTE_REMOVED: Close = Close::fixed(1001, "this route is no longer served");
    /// Text that is not UTF-8.
    pub const NOT_UTF8: Close = Close::fixed(1007, "a text message must be UTF-8");
    /// The client reads more slowly than messages arrive, and its hub disconnects slow clients.
    pub const TOO_SLOW: Close = Close::fixed(1008, "too slow: more messages were waiting than the queue holds");
    /// A message was not finished in time.
    pub const MESSAGE_LATE: Close = Close::fixed(1008, "a message was not finished in time (message_timeout)");
    /// The client sent more messages in a second than its hub allows.
    pub const TOO_MANY: Close = Close::fixed(1008, "too many messages (messages_per_second)");
    /// The client sent more bytes in a second than its hub allows.
    pub const TOO_MUCH: Close = Close::fixed(1008, "too many bytes (bytes_per_second)");
    /// The unfinished messages of all clients together are too large (1013 of the IANA registry).
    pub const TOO_MUCH_UNFINISHED: Close = Close::fixed(1013, "too much is unfinished at once, try again later");
    /// The token of the client has expired.
    pub const TOKEN_EXPIRED: Close = Close::fixed(1008, "token expired");
    /// The key that signed the token of the client is no longer accepted.
    pub const TOKEN_REVOKED: Close = Close::fixed(1008, "token revoked");
    /// A ping was not answered in time.
    pub const NO_PONG: Close = Close::fixed(1008, "no answer to a ping");

    const fn fixed(code: u16, reason: &'static str) -> Close {
        assert!(reason.len() <= REASON_BYTES_MAX);
        Close { code, reason: Cow::Borrowed(reason) }
    }

    /// A violation of the protocol.
    pub const fn protocol(reason: &'static str) -> Close {
        Close::fixed(1002, reason)
    }

    /// A message is larger than the hub allows.
    pub fn too_big(limit: usize) -> Close {
        Close { code: 1009, reason: format!("a message may have at most {limit} bytes").into() }
    }

    /// Whether a client may send this code (RFC 6455 §7.4.1 and §7.4.2, and 1012 to 1014 of the IANA registry).
    pub fn may_be_sent(code: u16) -> bool {
        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}
