//! Counts that all shards share: how many sessions a hub has, or how many connections count towards a limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A shared count.
#[derive(Debug, Clone, Default)]
pub struct Members(Arc<AtomicUsize>);

/// One unit of the count. It is released when this is dropped.
#[derive(Debug)]
pub struct Membership(Members);

impl Members {
    /// Adds one, if the count is below `max`.
    pub fn join(&self, max: usize) -> Option<Membership> {
        let taken = self.0.fetch_add(1, Ordering::Relaxed);
        // It is counted from here on. Dropping it corrects the count if the limit was reached.
        let membership = Membership(self.clone());
        (taken < max).then_some(membership)
    }

    /// Adds one without a limit: for a session or connection of another process, which was counted there.
    pub fn enter(&self) -> Membership {
        self.0.fetch_add(1, Ordering::Relaxed);
        Membership(self.clone())
    }

    /// The count.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl PartialEq for Members {
    fn eq(&self, other: &Members) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_membership_lowers_the_count() {
        let members = Members::default();
        let first = members.join(2).unwrap();
        let _second = members.join(2).unwrap();
        assert!(members.join(2).is_none());
        assert_eq!(members.count(), 2);
        drop(members.enter());
        drop(first);
        assert!(members.join(2).is_some());
    }
}
