//! The timers of sessions, and of connections that have sent nothing yet: a timing wheel with a slot for each second.
//!
//! A session has one valid timer. Setting an earlier one makes the old one stale; this is noticed when the old one fires. To set or
//! fire a timer costs a push or a comparison, for any number of sessions.

use std::collections::VecDeque;

use crate::hub::Slot;
use crate::session::Seconds;

/// The number of slots. It exceeds the usual ping interval, so a timer is seldom visited twice.
const SLOTS: usize = 64;
/// A slot keeps a capacity of this many times its timers.
const SPARE: usize = 4;

/// The maximum duration of a timer. A timer that is due later is set again when this time has passed. So stale timers of clients
/// that have disconnected stay for at most a minute, for any configured timeout.
pub const TIMER_MAX: Seconds = 60;

/// A timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    /// The slot of the session in the table.
    pub slot: Slot,
    /// Distinguishes it from another session in that slot.
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
    /// Sets a timer. If it is due already, it fires at the next call of [`Wheel::fire`] for a new second.
    pub fn set(&mut self, timer: Timer) {
        let at = timer.due.max(self.next);
        self.slots[at as usize % SLOTS].push(timer);
    }

    /// The number of timers, including stale ones.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.slots.iter().map(Vec::len).sum()
    }

    /// Takes the timers due by `now`.
    pub fn fire(&mut self, now: Seconds, fired: &mut VecDeque<Timer>) {
        while self.next <= now {
            // After a long pause, one round visits every slot.
            self.next = self.next.max(now.saturating_sub(SLOTS as Seconds - 1));
            let slot = &mut self.slots[self.next as usize % SLOTS];
            slot.retain(|timer| {
                let due = timer.due <= now;
                if due {
                    fired.push_back(*timer);
                }
                !due
            });
            // Memory of a burst of clients is released.
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
    fn each_timer_fires_once_in_its_second() {
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
    fn timers_that_are_due_during_a_pause_fire_after_it() {
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
