//! A breaker: after some failures in a row it is open, and asks nothing. After a while it lets one question pass. An answer closes it.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::config::limits::{HOOK_FAILURES_MAX, HOOK_OPEN};

/// The breaker of one address.
#[derive(Debug, Default)]
pub struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The failures since the last answer.
    failures: u32,
    /// If it is open: when the next question may pass.
    open_until: Option<Instant>,
}

/// What a report has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// It is open now.
    Opened,
    /// It is closed again.
    Closed,
}

impl Breaker {
    /// Whether a question may be asked `now`. Its outcome is [reported](Breaker::report). While the breaker is open, one question passes
    /// each time that [`HOOK_OPEN`] is over.
    pub fn admits(&self, now: Instant) -> bool {
        let mut state = self.state();
        match state.open_until {
            Some(until) if now < until => false,
            Some(_) => {
                state.open_until = Some(now + HOOK_OPEN);
                true
            }
            None => true,
        }
    }

    /// Notes whether a question was answered.
    pub fn report(&self, now: Instant, is_answered: bool) -> Change {
        let mut state = self.state();
        if is_answered {
            state.failures = 0;
            return if state.open_until.take().is_some() { Change::Closed } else { Change::None };
        }
        state.failures = state.failures.saturating_add(1);
        if state.open_until.is_none() && state.failures >= HOOK_FAILURES_MAX {
            state.open_until = Some(now + HOOK_OPEN);
            return Change::Opened;
        }
        Change::None
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.state().open_until.is_some()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_question_pass_after_a_while() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for _ in 1..HOOK_FAILURES_MAX {
            assert!(breaker.admits(now));
            assert_eq!(breaker.report(now, false), Change::None);
        }
        assert_eq!(breaker.report(now, true), Change::None);
        for _ in 1..HOOK_FAILURES_MAX {
            assert_eq!(breaker.report(now, false), Change::None);
        }
        assert_eq!(breaker.report(now, false), Change::Opened);
        assert!(breaker.is_open() && !breaker.admits(now + HOOK_OPEN - Duration::from_millis(1)));
        let later = now + HOOK_OPEN;
        assert!(breaker.admits(later) && !breaker.admits(later), "one question passes");
        assert_eq!(breaker.report(later, false), Change::None);
        let later = later + HOOK_OPEN;
        assert!(breaker.admits(later));
        assert_eq!(breaker.report(later, true), Change::Closed);
        assert!(!breaker.is_open() && breaker.admits(later) && breaker.admits(later));
    }
}
