//! The outcomes of several messages that are published together, for one publisher that waits for all of them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::hub::{Outcome, Receipt};

/// Collects what became of each of several messages. When the last receipt has reported, or is gone, the outcomes are sent: so the
/// publisher is woken once, whatever the number of messages and of shards that deliver them.
pub struct Gathering {
    outcomes: Mutex<Vec<Option<Outcome>>>,
    sender: Option<oneshot::Sender<Vec<Option<Outcome>>>>,
}

impl Gathering {
    /// Of so many messages, and the way to their outcomes. `None` for a message whose receipt never reported.
    pub fn of(messages: usize) -> (Arc<Gathering>, oneshot::Receiver<Vec<Option<Outcome>>>) {
        let (sender, receiver) = oneshot::channel();
        (Arc::new(Gathering { outcomes: Mutex::new(vec![None; messages]), sender: Some(sender) }), receiver)
    }

    /// The receipts of the messages, in their order.
    pub fn receipts(self: Arc<Gathering>) -> impl Iterator<Item = Receipt> {
        let count = self.outcomes().len();
        (0..count).map(move |number| {
            let gathering = self.clone();
            Receipt::new(move |outcome| gathering.outcomes()[number] = Some(outcome))
        })
    }

    fn outcomes(&self) -> std::sync::MutexGuard<'_, Vec<Option<Outcome>>> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        let outcomes = std::mem::take(self.outcomes.get_mut().unwrap_or_else(PoisonError::into_inner));
        if let Some(sender) = self.sender.take() {
            // The request may have been dropped meanwhile.
            let _ = sender.send(outcomes);
        }
    }
}

impl fmt::Debug for Gathering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gathering").field("outcomes", &self.outcomes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_outcomes_are_sent_when_the_last_is_known() {
        let (gathering, mut outcomes) = Gathering::of(3);
        let mut receipts: Vec<_> = gathering.receipts().collect();
        assert_eq!(receipts.len(), 3);
        receipts[2].add(2);
        receipts[0].add(1);
        drop(receipts.remove(0));
        drop(receipts.remove(1));
        assert!(outcomes.try_recv().is_err(), "one is not known yet");
        // It is dropped with what it was to report.
        drop(receipts.remove(0).into_report());
        let reached = |outcome: &Option<Outcome>| outcome.map(|outcome| outcome.subscribers);
        let outcomes: Vec<_> = outcomes.try_recv().unwrap().iter().map(reached).collect();
        assert_eq!(outcomes, [Some(1), None, Some(2)]);
    }

    #[test]
    fn of_no_messages_there_is_nothing_to_wait_for() {
        let (gathering, mut outcomes) = Gathering::of(0);
        assert_eq!(gathering.receipts().count(), 0);
        assert_eq!(outcomes.try_recv(), Ok(vec![]));
    }
}
