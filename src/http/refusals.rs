//! Refusals that an operator can lift, told in the log, but seldom.
//!
//! A page that was refused by its origin is told the status at most: browsers keep the sentence to themselves. So the log says what
//! was refused and what would allow it, at level warn. Clients can be refused as often as they like; so each kind is told at most
//! once in [`REFUSAL_LOG_INTERVAL`], with how many were left out since. Those are there at level debug.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;

use super::answer::Answer;
use crate::config::limits::{REFUSAL_CHARS_MAX, REFUSAL_LOG_INTERVAL};

/// What one server tells of whom it refused.
#[derive(Debug)]
pub struct Refusals {
    /// By their origin: 403.
    pub origins: Seldom,
    /// By the name they called the server: 421.
    pub hosts: Seldom,
}

impl Default for Refusals {
    fn default() -> Refusals {
        let seldom = || Seldom::new(REFUSAL_LOG_INTERVAL);
        Refusals { origins: seldom(), hosts: seldom() }
    }
}

impl Refusals {
    /// Tells of an answer that refuses `peer` something at `path`.
    pub fn tell(&self, refusal: &Answer, peer: &str, path: &str) {
        let what = || format!("{peer} refused at {}: {}", shown(path), refusal.body().sentence());
        match refusal.status() {
            StatusCode::FORBIDDEN => self.origins.warn(what),
            StatusCode::MISDIRECTED_REQUEST => self.hosts.warn(what),
            status if status.as_u16() >= 400 => log::debug!("{}", what()),
            _ => {}
        }
    }
}

/// Something that is worth a line, but not one each time. Shared by threads.
#[derive(Debug)]
pub struct Seldom {
    interval: Duration,
    /// When it was told last, and how often it was left out since.
    told: Mutex<(Option<Instant>, u64)>,
}

impl Seldom {
    /// Told at most once in each `interval`.
    pub fn new(interval: Duration) -> Seldom {
        Seldom { interval, told: Mutex::default() }
    }

    /// Warns of it, if it is time.
    pub fn warn(&self, what: impl FnOnce() -> String) {
        match self.is_due(Instant::now()) {
            Some(0) => log::warn!("{}", what()),
            Some(left_out) => log::warn!("{} ({left_out} more since the last such line)", what()),
            None => log::debug!("{}", what()),
        }
    }

    /// Whether it is to be told `now`: how often it was left out since the last time.
    fn is_due(&self, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.0.is_some_and(|last| now.saturating_duration_since(last) < self.interval) {
            told.1 += 1;
            return None;
        }
        let (_, left_out) = std::mem::replace(&mut *told, (Some(now), 0));
        Some(left_out)
    }
}

/// What a client sent, as far as it is worth showing.
pub fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(REFUSAL_CHARS_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted() {
        let (seldom, now) = (Seldom::new(Duration::from_secs(5)), Instant::now());
        let due: Vec<_> = [0, 1, 4, 5, 6, 20].iter().map(|s| seldom.is_due(now + Duration::from_secs(*s))).collect();
        assert_eq!(due, [Some(0), None, None, Some(2), None, Some(1)]);
    }

    #[test]
    fn what_a_client_sent_is_cut() {
        assert_eq!(shown("äöü"), "äöü");
        assert_eq!(shown(&"ä".repeat(300)).chars().count(), REFUSAL_CHARS_MAX + 1);
    }
}
