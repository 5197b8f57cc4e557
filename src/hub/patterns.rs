//! The patterns of one shard that have subscribers: which of them match the name of a channel.
//!
//! The patterns of a hub are a tree of segments. A name takes one step for each of its segments and each branch that has matched so
//! far, and patterns that differ from it in their first segments cost nothing. A hub without patterns has no tree.

use std::collections::HashMap;
use std::str::Split;

use smallvec::SmallVec;

use crate::config::HubId;

/// The patterns that match, by number.
pub(super) type Numbers = SmallVec<[u32; 4]>;

/// All patterns, each with a number.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    hubs: HashMap<HubId, Node>,
    count: usize,
}

/// The patterns that begin with the same segments.
#[derive(Debug, Default)]
struct Node {
    /// By the next segment.
    plain: HashMap<Box<str>, Node>,
    /// Those whose next segment is `*`.
    one: Option<Box<Node>>,
    /// The pattern that ends here.
    here: Option<u32>,
    /// The pattern that ends with `**`.
    rest: Option<u32>,
}

impl Patterns {
    /// How many patterns there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// The number of a pattern.
    pub fn find(&self, hub: HubId, pattern: &str) -> Option<u32> {
        self.hubs.get(&hub)?.find(pattern.split('/'))
    }

    /// Adds a pattern that is not there yet.
    pub fn insert(&mut self, hub: HubId, pattern: &str, number: u32) {
        *self.hubs.entry(hub).or_default().end(pattern.split('/')) = Some(number);
        self.count += 1;
    }

    /// Removes a pattern that is there.
    pub fn remove(&mut self, hub: HubId, pattern: &str) {
        let Some(root) = self.hubs.get_mut(&hub) else { return };
        root.remove(pattern.split('/'));
        if root.is_empty() {
            self.hubs.remove(&hub);
        }
        self.count -= 1;
    }

    /// The patterns that match `name`, and how many steps it took to find them.
    pub fn matching(&self, hub: HubId, name: &str) -> (Numbers, usize) {
        let (mut found, mut steps) = (Numbers::new(), 0);
        if let Some(root) = self.hubs.get(&hub) {
            root.matching(name.split('/'), &mut found, &mut steps);
        }
        (found, steps)
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.one.is_none() && self.here.is_none() && self.rest.is_none()
    }

    /// Where the number of a pattern stands. It is made where it is not there.
    fn end(&mut self, mut segments: Split<'_, char>) -> &mut Option<u32> {
        match segments.next() {
            None => &mut self.here,
            Some("**") => &mut self.rest,
            Some("*") => self.one.get_or_insert_default().end(segments),
            Some(segment) => self.plain.entry(segment.into()).or_default().end(segments),
        }
    }

    fn find(&self, mut segments: Split<'_, char>) -> Option<u32> {
        match segments.next() {
            None => self.here,
            Some("**") => self.rest,
            Some("*") => self.one.as_ref()?.find(segments),
            Some(segment) => self.plain.get(segment)?.find(segments),
        }
    }

    fn remove(&mut self, mut segments: Split<'_, char>) {
        match segments.next() {
            None => self.here = None,
            Some("**") => self.rest = None,
            Some("*") => {
                let Some(node) = &mut self.one else { return };
                node.remove(segments);
                self.one.take_if(|node| node.is_empty());
            }
            Some(segment) => {
                let Some(node) = self.plain.get_mut(segment) else { return };
                node.remove(segments);
                if node.is_empty() {
                    self.plain.remove(segment);
                }
            }
        }
    }

    fn matching(&self, mut segments: Split<'_, char>, found: &mut Numbers, steps: &mut usize) {
        *steps += 1;
        let Some(segment) = segments.next() else {
            found.extend(self.here);
            return;
        };
        found.extend(self.rest);
        if let Some(node) = &self.one {
            node.matching(segments.clone(), found, steps);
        }
        if !self.plain.is_empty()
            && let Some(node) = self.plain.get(segment)
        {
            node.matching(segments, found, steps);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::hub::Selector;

    const HUB: HubId = HubId(0);

    fn segment() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "", "*"])
    }

    fn pattern() -> impl Strategy<Value = String> {
        (prop::collection::vec(segment(), 0..4), any::<bool>()).prop_map(|(mut segments, rest)| {
            if rest || segments.is_empty() {
                segments.push("**");
            }
            segments.join("/")
        })
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_each_pattern_says(
            steps in prop::collection::vec((pattern(), any::<bool>()), 0..40),
            names in prop::collection::vec(prop::collection::vec(segment(), 1..5), 1..20),
        ) {
            let (mut patterns, mut model) = (Patterns::default(), BTreeMap::new());
            for (number, (pattern, is_added)) in steps.iter().enumerate() {
                match (is_added, model.contains_key(pattern)) {
                    (true, false) => {
                        patterns.insert(HUB, pattern, number as u32);
                        model.insert(pattern.clone(), number as u32);
                    }
                    (false, true) => {
                        patterns.remove(HUB, pattern);
                        model.remove(pattern);
                    }
                    _ => {}
                }
                prop_assert_eq!(patterns.find(HUB, pattern), model.get(pattern).copied());
            }
            prop_assert_eq!(patterns.len(), model.len());
            for name in names.iter().map(|segments| segments.join("/")) {
                let (mut found, _) = patterns.matching(HUB, &name);
                found.sort_unstable();
                let selecting = model.iter().filter(|(pattern, _)| Selector::pattern(pattern.as_str()).selects(&name));
                let mut expected: Vec<u32> = selecting.map(|(_, number)| *number).collect();
                expected.sort_unstable();
                prop_assert_eq!(&found[..], expected, "{}", name);
                prop_assert!(patterns.matching(HubId(1), &name).0.is_empty());
            }
            model.keys().for_each(|pattern| patterns.remove(HUB, pattern));
            prop_assert!(patterns.hubs.is_empty() && patterns.len() == 0);
        }
    }

    #[test]
    fn patterns_that_match_nothing_cost_no_steps() {
        let mut patterns = Patterns::default();
        for number in 0..1000 {
            patterns.insert(HUB, &format!("user/{number}/*"), number);
        }
        let (found, steps) = patterns.matching(HUB, "news/7/x");
        assert_eq!((found.len(), steps), (0, 1));
        let (found, steps) = patterns.matching(HUB, "user/7/x");
        assert_eq!((&found[..], steps), (&[7][..], 4));
    }
}
