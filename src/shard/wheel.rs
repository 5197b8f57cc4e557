//! The timers of a shard's sessions: a wheel of seconds.
//!
//! A session has one timer that counts; setting an earlier one makes the old one stale, which is noticed when it fires. Setting and firing cost
//! a push and a compare, whatever the number of sessions.

use std::collections::VecDeque;

use crate::hub::Slot;
use crate::session::Seconds;

/// Slots of the wheel, one a second: above the usual ping interval, so that a timer is seldom looked at twice.
const SLOTS: usize = 64;
/// A slot keeps room for so many times what it holds.
const SPARE: usize = 4;

/// How long a timer lasts at most. One that is due later is set anew, so clients that come and go leave no more behind than the timers
/// of a minute, however long they may be silent.
pub const TIMER_MAX: Seconds = 60;

/// A timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    /// The session's place in the table.
    pub slot: Slot,
    /// Tells it apart from another session in that place.
    pub generation: u32,
    /// When it is due.
    pub due: Seconds,
}

/// The wheel.
#[derive(Debug)]
pub struct Wheel {
    slots: Vec<Vec<Timer>>,
    /// The second that fires next.
    next: Seconds,
}

impl Default for Wheel {
    fn default() -> Wheel {
        Wheel { slots: vec![Vec::new(); SLOTS], next: 0 }
    }
}

impl Wheel {
    /// Sets a timer; one that is due already fires at the next call of [`Wheel::fire`] for a new second.
    pub fn set(&mut self, timer: Timer) {
        let at = timer.due.max(self.next);
        self.slots[at as usize % SLOTS].push(timer);
    }

    /// How many timers it holds, stale ones among them.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.slots.iter().map(Vec::len).sum()
    }

    /// Takes the timers due by `now`.
    pub fn fire(&mut self, now: Seconds, fired: &mut VecDeque<Timer>) {
        while self.next <= now {
            // After a long pause one turn of the wheel has seen every slot.
            self.next = self.next.max(now.saturating_sub(SLOTS as Seconds - 1));
            let slot = &mut self.slots[self.next as usize % SLOTS];
            slot.retain(|timer| {
                let due = timer.due <= now;
                if due {
                    fired.push_back(*timer);
                }
                !due
            });
            // A storm of clients who come and go is not remembered.
            if slot.capacity() > SPARE * (slot.len() + 1) {
                slot.shrink_to(SPARE * slot.len());
            }
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timer_fires_once_and_in_its_second() {
        let mut wheel = Wheel::default();
        let dues: Vec<Seconds> = (0..500).map(|i| (i * 7919) % 300).collect();
        for (slot, &due) in dues.iter().enumerate() {
            wheel.set(Timer { slot: slot as Slot, generation: 0, due });
        }
        let mut seen = 0;
        for now in 0..300 {
            let mut fired = VecDeque::new();
            wheel.fire(now, &mut fired);
            assert!(fired.iter().all(|timer| timer.due == now));
            seen += fired.len();
        }
        assert_eq!(seen, 500);
    }

    #[test]
    fn a_pause_loses_nothing() {
        let mut wheel = Wheel::default();
        for due in [3, 70, 500, 1001] {
            wheel.set(Timer { slot: due, generation: 0, due });
        }
        let mut fired = VecDeque::new();
        wheel.fire(1000, &mut fired);
        assert_eq!(fired.len(), 3);
        wheel.set(Timer { slot: 0, generation: 0, due: 5 });
        wheel.fire(1001, &mut fired);
        assert_eq!(fired.len(), 5);
    }
}
