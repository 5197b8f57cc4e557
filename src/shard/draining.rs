//! How a shard closes its sessions when the server ends: over the next turns; or, if the clients are expected to reconnect, in
//! random order over a longer time, so that they do not all reconnect at the same moment.

use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::Shard;
use super::mailbox::Farewell;
use crate::config::limits::RETURNS_PER_SECOND;
use crate::hub::Slot;
use crate::wire::Close;

/// The interval at which some sessions are closed.
const STEP: Duration = Duration::from_millis(5);

impl Shard {
    /// Stops accepting, finishes the requests in flight, and closes the sessions.
    pub(super) fn drain(self: &Rc<Self>, farewell: Farewell) {
        self.accepting.borrow_mut().drain(..).for_each(|(_, task)| task.abort());
        // A listener is closed when its last reference is dropped.
        let plan = self.plan.borrow().without_listeners();
        *self.plan.borrow_mut() = Arc::new(plan);
        self.ending.set(true);
        self.drain.send_replace(true);
        // No other process takes these connections up: requests that they have sent by now are answered here.
        let idle = std::mem::take(&mut *self.idle_connections.borrow_mut());
        idle.into_iter().for_each(|(raw, early, server)| self.serve(raw, early, server));
        self.clear_lobby();
        let mut table = self.table.borrow_mut();
        let Farewell { close, window } = farewell;
        if window.is_zero() {
            return table.drain(&close);
        }
        // A session that begins from now on is closed at once.
        table.end_by(&close);
        let (places, sessions) = (table.places(), table.len());
        drop(table);
        let steps = (window.as_millis() / STEP.as_millis()).max(1) as usize;
        let pace = (RETURNS_PER_SECOND * STEP.as_millis() as usize / 1000).max(sessions.div_ceil(steps)).max(1);
        let mut order = Shuffled::new(places, RandomState::new().hash_one(places));
        let shard = self.clone();
        tokio::task::spawn_local(async move {
            while shard.close_some(&mut order, pace, &close) {
                shard.mailbox().bell.notify_one();
                tokio::time::sleep(STEP).await;
            }
        });
    }

    /// Closes the next `count` sessions. Returns whether there may be more.
    fn close_some(&self, order: &mut Shuffled, count: usize, close: &Close) -> bool {
        let mut table = self.table.borrow_mut();
        let mut left = count;
        while left > 0 {
            let Some(slot) = order.next() else { return false };
            left -= usize::from(table.send_away(slot as Slot, close));
        }
        true
    }
}

/// The numbers below a bound, each once, in a random order that needs no memory: steps of an odd width, modulo a power of two,
/// reach every number.
struct Shuffled {
    bound: usize,
    mask: usize,
    width: usize,
    at: usize,
    left: usize,
}

impl Shuffled {
    fn new(bound: usize, random: u64) -> Shuffled {
        let size = bound.next_power_of_two();
        let (width, at) = ((random >> 32) as usize | 1, random as usize);
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
    fn each_number_below_the_bound_comes_once() {
        for bound in [0, 1, 2, 3, 100, 1000, 1024] {
            for random in [0, 1, 0x1234_5678_9abc_def0, u64::MAX] {
                let mut places: Vec<usize> = Shuffled::new(bound, random).collect();
                places.sort_unstable();
                assert_eq!(places, (0..bound).collect::<Vec<_>>(), "{bound} {random}");
            }
        }
        let order = |random| Shuffled::new(1000, random).take(10).collect::<Vec<_>>();
        assert_ne!(order(0x1234_5678_9abc_def0), order(0x0fed_cba9_8765_4321));
    }
}
