//! How many sessions a hub holds, over all shards, and the place each takes while it lasts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The count of one hub.
#[derive(Debug, Clone, Default)]
pub struct Members(Arc<AtomicUsize>);

/// One session's place in the count, given back when it is dropped.
#[derive(Debug)]
pub struct Membership(Members);

impl Members {
    /// Takes a place, if fewer than `max` are taken.
    pub fn join(&self, max: usize) -> Option<Membership> {
        let taken = self.0.fetch_add(1, Ordering::Relaxed);
        // From here the place is held, and given back where it was one too many.
        let place = Membership(self.clone());
        (taken < max).then_some(place)
    }

    /// Takes a place, however many are taken: for one who had it before.
    pub fn enter(&self) -> Membership {
        self.0.fetch_add(1, Ordering::Relaxed);
        Membership(self.clone())
    }

    /// How many places are taken.
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
    fn a_place_is_given_back() {
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
