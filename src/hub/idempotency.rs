//! The keys of messages that were published: a message that comes again with the same key on the same channel is answered as the
//! first time, and not published again.
//!
//! A publisher that heard no answer does not know whether its message was published. With a key it may simply ask again. Keys are
//! remembered for some minutes, at the owner that orders the channel, up to a limit.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::position::Position;
use super::publication::Message;
use super::receipt::{Outcome, Report};
use crate::config::limits::{EXPIRED_PER_TURN_MAX, IDEMPOTENCY_AGE, IDEMPOTENCY_KEYS_MAX};

/// Seconds of the clock of the sessions.
type Seconds = u32;

/// The keys that an owner knows.
#[derive(Debug, Default)]
pub struct Keys {
    /// By the name of the channel and the key, which a zero byte separates: a name has no control characters.
    known: HashMap<Arc<str>, Arc<Known>>,
    order: VecDeque<(Seconds, Arc<str>)>,
}

/// A key of which the outcome is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// The channel of its message.
    pub channel: Box<str>,
    /// The key.
    pub key: Box<str>,
    /// What its publisher was told.
    pub outcome: Outcome,
    /// When it came.
    pub at: Seconds,
}

/// A key, and what became of its message.
#[derive(Debug)]
struct Known {
    at: Seconds,
    state: Mutex<State>,
}

enum State {
    /// It is being published. These publishers wait for the outcome.
    Pending(Vec<Report>),
    /// It was published, or refused.
    Done(Outcome),
}

impl Keys {
    /// Returns the message if it is to be published. A message whose key is known is answered as the first one with the key. If that one
    /// was refused, because it could not be written after it was numbered, it may be written by now: `is_written` says so.
    pub fn admit(
        &mut self,
        mut message: Message,
        now: Seconds,
        is_written: impl Fn(Position) -> bool,
    ) -> Option<Message> {
        let Some(key) = message.receipt.as_ref().and_then(|receipt| receipt.key()) else { return Some(message) };
        self.expire(now);
        let key = joined(&message.channel, key);
        if let Some(known) = self.known.get(&key)
            && !is_too_old(known.at, now)
            && !known.may_come_again(is_written)
        {
            if let Some(report) = message.receipt.take().and_then(|receipt| receipt.into_report()) {
                known.answer(report);
            }
            return None;
        }
        let known = Arc::new(Known { at: now, state: Mutex::new(State::Pending(Vec::new())) });
        self.insert(key, known.clone());
        if let Some(receipt) = &mut message.receipt {
            receipt.intercept(move |outcome, report| {
                known.complete(outcome);
                report(outcome);
            });
        }
        Some(message)
    }

    /// The keys whose outcome is known. The oldest comes first.
    pub fn known(&self) -> impl Iterator<Item = KnownKey> {
        self.order.iter().filter_map(|(at, key)| {
            let known = self.known.get(key).filter(|known| known.at == *at)?;
            let State::Done(outcome) = *known.state() else { return None };
            let (channel, key) = key.split_once('\0')?;
            Some(KnownKey { channel: channel.into(), key: key.into(), outcome, at: *at })
        })
    }

    /// Remembers a key of another process, or of a disk. The oldest comes first.
    pub fn restore(&mut self, KnownKey { channel, key, outcome, at }: KnownKey) {
        let key = joined(&channel, &key);
        if !self.known.contains_key(&key) {
            self.insert(key, Arc::new(Known { at, state: Mutex::new(State::Done(outcome)) }));
        }
    }

    fn insert(&mut self, key: Arc<str>, known: Arc<Known>) {
        if self.known.len() >= IDEMPOTENCY_KEYS_MAX {
            self.forget_oldest();
        }
        self.order.push_back((known.at, key.clone()));
        self.known.insert(key, known);
    }

    /// Whether no key is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty() && self.order.is_empty()
    }

    /// Forgets keys that are too old, some at a time.
    pub fn expire(&mut self, now: Seconds) {
        for _ in 0..EXPIRED_PER_TURN_MAX {
            if !self.order.front().is_some_and(|(at, _)| is_too_old(*at, now)) {
                return;
            }
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((at, key)) = self.order.pop_front() else { return };
        // It may have been refused and published again since.
        if self.known.get(&key).is_some_and(|known| known.at == at) {
            self.known.remove(&key);
        }
    }
}

impl Known {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its message was refused before it was numbered. Then it may be published again.
    fn may_come_again(&self, is_written: impl Fn(Position) -> bool) -> bool {
        let State::Done(outcome) = &mut *self.state() else { return false };
        if outcome.is_refused && outcome.position.is_some_and(is_written) {
            outcome.is_refused = false;
        }
        outcome.is_refused && outcome.position.is_none()
    }

    /// Answers a publisher, at once or when the outcome is known.
    fn answer(&self, report: Report) {
        let outcome = match &mut *self.state() {
            State::Pending(waiting) => return waiting.push(report),
            State::Done(outcome) => *outcome,
        };
        report(outcome);
    }

    fn complete(&self, outcome: Outcome) {
        let before = std::mem::replace(&mut *self.state(), State::Done(outcome));
        if let State::Pending(waiting) = before {
            waiting.into_iter().for_each(|report| report(outcome));
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            State::Pending(waiting) => f.debug_tuple("Pending").field(&waiting.len()).finish(),
            State::Done(outcome) => f.debug_tuple("Done").field(outcome).finish(),
        }
    }
}

fn is_too_old(at: Seconds, now: Seconds) -> bool {
    u64::from(now.saturating_sub(at)) > IDEMPOTENCY_AGE.as_secs()
}

fn joined(channel: &str, key: &str) -> Arc<str> {
    format!("{channel}\0{key}").into()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::config::HubId;
    use crate::hub::{Kind, Receipt};

    fn message(name: &str, key: &str) -> (Message, Receiver<Outcome>) {
        let (sender, outcomes) = channel();
        let receipt = Receipt::new(move |outcome| _ = sender.send(outcome)).with_key(Some(key.into()));
        let message = Message::new(HubId(0), name.into(), Kind::Text, "x".into());
        (message.with_receipt(receipt), outcomes)
    }

    fn never(_: Position) -> bool {
        false
    }

    fn reach(message: &Message, subscribers: u64) {
        message.receipt.as_ref().unwrap().add(subscribers);
    }

    #[test]
    fn a_message_that_comes_again_is_answered_as_the_first_time() {
        let mut keys = Keys::default();
        let (first, outcome) = message("a", "k");
        let first = keys.admit(first, 0, never).expect("the first one is published");
        let (again, waiting) = message("a", "k");
        assert!(keys.admit(again, 1, never).is_none());
        assert!(waiting.try_recv().is_err(), "the outcome is not known yet");
        reach(&first, 3);
        drop(first);
        let expected = outcome.try_recv().unwrap();
        assert_eq!(expected.subscribers, 3);
        assert_eq!(waiting.try_recv(), Ok(expected));
        let (later, outcome) = message("a", "k");
        assert!(keys.admit(later, 300, never).is_none());
        assert_eq!(outcome.try_recv(), Ok(expected));
        assert_eq!(
            keys.known().collect::<Vec<_>>(),
            [KnownKey { channel: "a".into(), key: "k".into(), outcome: expected, at: 0 }]
        );
        for (name, key) in [("b", "k"), ("a", "l")] {
            assert!(keys.admit(message(name, key).0, 300, never).is_some(), "another channel, another key");
        }
        assert!(keys.admit(message("a", "k").0, 301, never).is_some(), "it is too old");
    }

    #[test]
    fn a_refused_message_may_come_again() {
        let mut keys = Keys::default();
        let (first, outcome) = message("a", "k");
        let first = keys.admit(first, 0, never).unwrap();
        first.receipt.as_ref().unwrap().refuse();
        drop(first);
        assert!(outcome.try_recv().unwrap().is_refused);
        assert!(keys.admit(message("a", "k").0, 0, never).is_some());
    }

    #[test]
    fn a_message_that_is_written_late_is_not_published_again() {
        let mut keys = Keys::default();
        let mut first = keys.admit(message("a", "k").0, 0, never).unwrap();
        let receipt = first.receipt.as_mut().unwrap();
        let position = Position { epoch: crate::hub::Epoch(1), offset: 7 };
        receipt.set_position(position);
        receipt.refuse();
        drop(first);
        let (again, outcome) = message("a", "k");
        assert!(keys.admit(again, 1, never).is_none());
        assert!(outcome.try_recv().unwrap().is_refused);
        for _ in 0..2 {
            let (again, outcome) = message("a", "k");
            assert!(keys.admit(again, 1, |asked| asked == position).is_none());
            assert_eq!(outcome.try_recv(), Ok(Outcome { subscribers: 0, position: Some(position), is_refused: false }));
        }
    }

    #[test]
    fn a_limited_number_of_keys_is_remembered() {
        let mut keys = Keys::default();
        for n in 0..IDEMPOTENCY_KEYS_MAX + 10 {
            drop(keys.admit(message("a", &n.to_string()).0, 0, never).unwrap());
        }
        assert_eq!((keys.known.len(), keys.order.len()), (IDEMPOTENCY_KEYS_MAX, IDEMPOTENCY_KEYS_MAX));
        assert!(keys.admit(message("a", "0").0, 0, never).is_some(), "the oldest are forgotten");
    }
}
