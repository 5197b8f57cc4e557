//! Logs refusals that a setting could change, at a limited rate.
//!
//! If a page is refused because of its origin, its developer sees at most the status: browsers do not show the body. So the log
//! contains what was refused and which setting would allow it, at level warn. Clients can cause any number of refusals. So each
//! kind is logged at most once in [`REFUSAL_LOG_INTERVAL`], with the number of refusals that were left out since. Those are logged
//! at level debug.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;

use super::answer::Answer;
use crate::config::limits::{REFUSAL_CHARS_MAX, REFUSAL_LOG_INTERVAL};

/// The logs of refusals of one server.
#[derive(Debug)]
pub struct Refusals {
    /// Because of an origin: 403.
    pub origins: LimitedWarnings,
    /// Because of a name of the server: 421.
    pub hosts: LimitedWarnings,
    /// Because of a key: 401.
    pub keys: LimitedWarnings,
}

impl Default for Refusals {
    fn default() -> Refusals {
        let warnings = || LimitedWarnings::new(REFUSAL_LOG_INTERVAL);
        Refusals { origins: warnings(), hosts: warnings(), keys: warnings() }
    }
}

impl Refusals {
    /// Logs an answer that refuses a request of `peer` for `path`.
    pub fn log(&self, refusal: &Answer, peer: &str, path: &str) {
        let what = || format!("{peer} refused at {}: {}", shortened(path), refusal.body().sentence());
        match refusal.status() {
            StatusCode::FORBIDDEN => self.origins.warn(what),
            StatusCode::MISDIRECTED_REQUEST => self.hosts.warn(what),
            status if status.as_u16() >= 400 => log::debug!("{}", what()),
            _ => {}
        }
    }
}

/// Warnings of one kind, at a limited rate. Threads share it.
#[derive(Debug)]
pub struct LimitedWarnings {
    interval: Duration,
    /// When the last warning was logged, and how many were left out since.
    logged: Mutex<(Option<Instant>, u64)>,
}

impl LimitedWarnings {
    /// At most one warning in each `interval`.
    pub fn new(interval: Duration) -> LimitedWarnings {
        LimitedWarnings { interval, logged: Mutex::default() }
    }

    /// Logs a warning, or a debug line if the last warning was too recent.
    pub fn warn(&self, what: impl FnOnce() -> String) {
        match self.is_due(Instant::now()) {
            Some(0) => log::warn!("{}", what()),
            Some(left_out) => log::warn!("{} ({left_out} more since the last such line)", what()),
            None => log::debug!("{}", what()),
        }
    }

    /// If a warning may be logged `now`: how many were left out since the last one.
    fn is_due(&self, now: Instant) -> Option<u64> {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.0.is_some_and(|last| now.saturating_duration_since(last) < self.interval) {
            logged.1 += 1;
            return None;
        }
        let (_, left_out) = std::mem::replace(&mut *logged, (Some(now), 0));
        Some(left_out)
    }
}

/// Text of a client, shortened for the log.
pub fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(REFUSAL_CHARS_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_that_are_left_out_are_counted() {
        let (warnings, now) = (LimitedWarnings::new(Duration::from_secs(5)), Instant::now());
        let due: Vec<_> = [0, 1, 4, 5, 6, 20].iter().map(|s| warnings.is_due(now + Duration::from_secs(*s))).collect();
        assert_eq!(due, [Some(0), None, None, Some(2), None, Some(1)]);
    }

    #[test]
    fn text_of_a_client_is_shortened() {
        assert_eq!(shortened("äöü"), "äöü");
        assert_eq!(shortened(&"ä".repeat(300)).chars().count(), REFUSAL_CHARS_MAX + 1);
    }
}
