//! How a shard sends its sessions away: one turn after the other, or, where they are to come back, over a while in an order of chance, so that they
//! do not all come back in the same moment.

use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::Shard;
use super::mailbox::Farewell;
use crate::config::limits::RETURNS_PER_SECOND;
use crate::hub::Slot;
use crate::wire::Close;

/// How often some are sent away.
const STEP: Duration = Duration::from_millis(5);

impl Shard {
    /// Takes no new connections, finishes what is in flight, says goodbye to sessions.
    pub(super) fn drain(self: &Rc<Self>, farewell: Farewell) {
        self.accepting.borrow_mut().drain(..).for_each(|(_, task)| task.abort());
        // The sockets that listen are closed with their last holder.
        let deaf = self.plan.borrow().deaf();
        *self.plan.borrow_mut() = Arc::new(deaf);
        self.ending.set(true);
        self.drain.send_replace(true);
        // No other process has them: what they have asked by now is answered here.
        let aside = std::mem::take(&mut *self.aside.borrow_mut());
        aside.into_iter().for_each(|(raw, early, server)| self.serve(raw, early, server));
        self.clear_lobby();
        let mut table = self.table.borrow_mut();
        let Farewell { close, window } = farewell;
        if window.is_zero() {
            return table.drain(&close);
        }
        // A session that begins from now on is told at once.
        table.end_by(&close);
        let (places, sessions) = (table.places(), table.len());
        drop(table);
        let steps = (window.as_millis() / STEP.as_millis()).max(1) as usize;
        let pace = (RETURNS_PER_SECOND * STEP.as_millis() as usize / 1000).max(sessions.div_ceil(steps)).max(1);
        let mut order = Shuffled::new(places, RandomState::new().hash_one(places));
        let shard = self.clone();
        tokio::task::spawn_local(async move {
            while shard.send_some_away(&mut order, pace, &close) {
                shard.mailbox().bell.notify_one();
                tokio::time::sleep(STEP).await;
            }
        });
    }

    /// Says goodbye to the next `count` sessions; whether there are more.
    fn send_some_away(&self, order: &mut Shuffled, count: usize, close: &Close) -> bool {
        let mut table = self.table.borrow_mut();
        let mut left = count;
        while left > 0 {
            let Some(place) = order.next() else { return false };
            left -= usize::from(table.send_away(place as Slot, close));
        }
        true
    }
}

/// The numbers below a bound, each once, in an order of chance that needs no memory: steps of an odd width through a power of two
/// come by every number.
struct Shuffled {
    bound: usize,
    mask: usize,
    width: usize,
    at: usize,
    left: usize,
}

impl Shuffled {
    fn new(bound: usize, chance: u64) -> Shuffled {
        let size = bound.next_power_of_two();
        let (width, at) = ((chance >> 32) as usize | 1, chance as usize);
        Shuffled { bound, mask: size - 1, width, at, left: size }
    }
}

impl Iterator for Shuffled {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.left > 0 {
            self.left -= 1;
            self.at = self.at.wrapping_add(self.width) & self.mask;
            if self.at < self.bound {
                return Some(self.at);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_its_turn_once() {
        for bound in [0, 1, 2, 3, 100, 1000, 1024] {
            for chance in [0, 1, 0x1234_5678_9abc_def0, u64::MAX] {
                let mut places: Vec<usize> = Shuffled::new(bound, chance).collect();
                places.sort_unstable();
                assert_eq!(places, (0..bound).collect::<Vec<_>>(), "{bound} {chance}");
            }
        }
        let order = |chance| Shuffled::new(1000, chance).take(10).collect::<Vec<_>>();
        assert_ne!(order(0x1234_5678_9abc_def0), order(0x0fed_cba9_8765_4321));
    }
}
