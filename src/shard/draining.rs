//! How a shard sends its sessions away: all at once, or one after the other in an order of chance, so that those who come back do not
//! all come back in the same moment.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::Shard;
use super::mailbox::Farewell;
use super::table::SessionKey;
use crate::config::limits::RETURNS_PER_SECOND;
use crate::wire::Close;

/// How often some are sent away.
const STEP: Duration = Duration::from_millis(20);

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
        aside.into_iter().for_each(|(raw, early, server)| self.serve_again(raw, early, server));
        let mut table = self.table.borrow_mut();
        let Farewell { close, window } = farewell;
        if window.is_zero() {
            return table.drain(&close);
        }
        let chance = RandomState::new();
        let mut keys: Vec<(u64, SessionKey)> = table.keys().map(|key| (order(&chance, key), key)).collect();
        keys.sort_unstable_by_key(|(order, _)| *order);
        // Whoever arrives from now on is told at once.
        table.end_by(&close);
        let steps = (window.as_millis() / STEP.as_millis()).max(1) as usize;
        let pace = (RETURNS_PER_SECOND * STEP.as_millis() as usize / 1000).max(keys.len().div_ceil(steps));
        let shard = self.clone();
        tokio::task::spawn_local(async move {
            for some in keys.chunks(pace.max(1)) {
                shard.send_away(some.iter().map(|(_, key)| *key), &close);
                shard.mailbox().bell.notify_one();
                tokio::time::sleep(STEP).await;
            }
        });
    }

    fn send_away(&self, keys: impl Iterator<Item = SessionKey>, close: &Close) {
        let mut table = self.table.borrow_mut();
        keys.for_each(|key| table.send_away(key, close));
    }
}

/// A session's place in an order of chance.
fn order(chance: &RandomState, key: SessionKey) -> u64 {
    let mut hasher = chance.build_hasher();
    hasher.write_u32(key.slot);
    hasher.finish()
}
