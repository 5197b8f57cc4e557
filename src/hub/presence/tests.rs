//! Tests of presence: examples, and every sequence of events against a model without queues.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const HUB: HubId = HubId(0);

fn on(channel: &str, id: Option<&str>) -> Attendance {
    Attendance::new(HUB, channel.into(), id.map(Arc::from), false)
}

/// All changes by `now`, as text.
fn changes(presence: &mut Presence, now: Seconds) -> Vec<String> {
    let mut left = usize::MAX;
    let mut changes = Vec::new();
    while let Some(Change { member, is_join }) = presence.next_change(now, &mut left) {
        changes.push(format!("{}{} {}", if is_join { '+' } else { '-' }, member.id, member.channel));
    }
    assert!(!presence.has_changes(now));
    changes
}

fn is_empty(presence: &Presence) -> bool {
    presence.channels.is_empty() && presence.joined.is_empty() && presence.leaving.is_empty()
}

#[test]
fn a_member_joins_with_its_first_session_and_leaves_some_seconds_after_the_last() {
    let mut presence = Presence::default();
    presence.came(on("a", Some("ann")));
    presence.came(on("a", Some("ann")));
    presence.came(on("a", None));
    assert_eq!(changes(&mut presence, 10), ["+ann a"]);
    let expected = Attendees { members: vec![("ann".into(), 2)], more: 0, connections: 3 };
    assert_eq!(presence.attendees(HUB, "a", 10), expected);
    presence.went(on("a", Some("ann")), 11);
    presence.went(on("a", Some("ann")), 12);
    presence.went(on("a", None), 12);
    assert!(changes(&mut presence, 12 + LEAVE_DELAY - 1).is_empty());
    let expected = Attendees { members: vec![("ann".into(), 0)], more: 0, connections: 0 };
    assert_eq!(presence.attendees(HUB, "a", 10), expected, "it is still a member");
    assert_eq!(changes(&mut presence, 12 + LEAVE_DELAY), ["-ann a"]);
    assert!(is_empty(&presence));
    assert_eq!(presence.attendees(HUB, "a", 10), Attendees::default());
}

#[test]
fn a_return_within_the_delay_is_no_leave_and_no_join() {
    let mut presence = Presence::default();
    presence.came(on("a", Some("ann")));
    assert_eq!(changes(&mut presence, 0), ["+ann a"]);
    for now in 1..100 {
        presence.went(on("a", Some("ann")), now);
        assert!(changes(&mut presence, now).is_empty());
        presence.came(on("a", Some("ann")));
        assert!(changes(&mut presence, now).is_empty());
        assert!(presence.leaving.len() <= 1, "each member is in the queue once");
    }
    presence.went(on("a", Some("ann")), 100);
    assert!(changes(&mut presence, 100 + LEAVE_DELAY - 1).is_empty());
    assert_eq!(changes(&mut presence, 100 + LEAVE_DELAY), ["-ann a"]);
    assert!(is_empty(&presence));
}

#[test]
fn a_short_visit_is_told_too() {
    let mut presence = Presence::default();
    presence.came(on("a", Some("ann")));
    presence.went(on("a", Some("ann")), 5);
    assert_eq!(changes(&mut presence, 5), ["+ann a"]);
    assert_eq!(changes(&mut presence, 5 + LEAVE_DELAY), ["-ann a"]);
    assert!(is_empty(&presence));
}

#[test]
fn an_answer_is_sorted_and_bounded() {
    let mut presence = Presence::default();
    for id in ["c", "a", "d", "b"] {
        presence.came(on("a", Some(id)));
    }
    let Attendees { members, more, connections } = presence.attendees(HUB, "a", 3);
    assert_eq!(members, [("a".into(), 1), ("b".into(), 1), ("c".into(), 1)]);
    assert_eq!((more, connections), (1, 4));
}

#[test]
fn a_budget_is_kept() {
    let mut presence = Presence::default();
    (0..10).for_each(|n| presence.came(on("a", Some(&n.to_string()))));
    let mut left = 4;
    let told = std::iter::from_fn(|| presence.next_change(0, &mut left)).count();
    assert_eq!((told, left), (4, 0));
    assert!(presence.has_changes(0));
    assert_eq!(changes(&mut presence, 0).len(), 6);
}

#[test]
fn memory_shrinks_with_the_channels() {
    let mut presence = Presence::default();
    (0..10_000).for_each(|n| presence.came(on(&n.to_string(), None)));
    (1..10_000).for_each(|n| presence.went(on(&n.to_string(), None), 0));
    assert!(presence.channels[&HUB].capacity() <= 4 * CAPACITY_KEPT);
}

/// What happens to the sessions of a few clients on a few channels.
#[derive(Debug, Clone)]
enum Event {
    Came(usize, usize),
    Went(usize, usize),
    Wait(Seconds),
    /// Another process continues, in which these sessions come again.
    HandOver(u16, Seconds),
    /// The hand-over failed.
    Resume(Seconds),
}

const CHANNELS: [&str; 2] = ["a", "b"];
const IDS: [Option<&str>; 4] = [None, Some("x"), Some("y"), Some("z")];

fn event() -> impl Strategy<Value = Event> {
    let pair = || (0..CHANNELS.len(), 0..IDS.len());
    prop_oneof![
        6 => pair().prop_map(|(channel, id)| Event::Came(channel, id)),
        6 => pair().prop_map(|(channel, id)| Event::Went(channel, id)),
        4 => (0..6u32).prop_map(Event::Wait),
        1 => (any::<u16>(), 0..6u32).prop_map(|(comes, held)| Event::HandOver(comes, held)),
        1 => (0..6u32).prop_map(Event::Resume),
    ]
}

/// The same, second by second and without queues.
#[derive(Default)]
struct Model {
    sessions: [[u32; IDS.len()]; CHANNELS.len()],
    /// When the last session of a member has ended.
    absent_since: [[Option<Seconds>; IDS.len()]; CHANNELS.len()],
    told: BTreeSet<(usize, usize)>,
}

impl Model {
    fn changes(&mut self, now: Seconds) -> Vec<String> {
        let (mut joins, mut leaves) = (Vec::new(), Vec::new());
        for (channel, id) in (0..CHANNELS.len()).flat_map(|channel| (1..IDS.len()).map(move |id| (channel, id))) {
            let is_gone = self.sessions[channel][id] == 0
                && self.absent_since[channel][id].is_none_or(|since| since + LEAVE_DELAY <= now);
            let name = format!("{} {}", IDS[id].unwrap(), CHANNELS[channel]);
            if is_gone && self.told.remove(&(channel, id)) {
                leaves.push(format!("-{name}"));
            } else if !is_gone && self.told.insert((channel, id)) {
                joins.push(format!("+{name}"));
            }
        }
        joins.sort();
        leaves.sort();
        joins.append(&mut leaves);
        joins
    }

    fn settle(&mut self, now: Seconds) {
        for (channel, id) in self.told.iter().copied() {
            if self.sessions[channel][id] == 0 {
                self.absent_since[channel][id] = Some(now);
            }
        }
    }
}

fn sorted(mut changes: Vec<String>) -> Vec<String> {
    changes.sort();
    changes
}

/// The presence of another process, in which `sessions` were taken up.
fn inherited(before: &Presence, sessions: &[[u32; IDS.len()]; CHANNELS.len()]) -> Presence {
    let mut presence = Presence::default();
    presence.hold();
    before.told().for_each(|member| presence.expect(member));
    for (channel, of_ids) in sessions.iter().enumerate() {
        for (id, count) in of_ids.iter().enumerate() {
            (0..*count).for_each(|_| presence.came(on(CHANNELS[channel], IDS[id])));
        }
    }
    presence
}

proptest! {
    #[test]
    fn presence_is_that_of_the_model(events in prop::collection::vec(event(), 0..60)) {
        let (mut presence, mut model, mut now) = (Presence::default(), Model::default(), 0);
        for event in events {
            match event {
                Event::Came(channel, id) => {
                    presence.came(on(CHANNELS[channel], IDS[id]));
                    model.sessions[channel][id] += 1;
                }
                Event::Went(channel, id) if model.sessions[channel][id] > 0 => {
                    presence.went(on(CHANNELS[channel], IDS[id]), now);
                    model.sessions[channel][id] -= 1;
                    if model.sessions[channel][id] == 0 {
                        model.absent_since[channel][id] = Some(now);
                    }
                }
                Event::Went(..) => continue,
                Event::Wait(seconds) => now += seconds,
                Event::HandOver(comes, held) => {
                    presence.hold();
                    for (place, count) in model.sessions.iter_mut().flatten().enumerate() {
                        *count = (*count).min(u32::from(comes >> (2 * place)) & 3);
                    }
                    presence = inherited(&presence, &model.sessions);
                    now += held;
                    prop_assert!(presence.next_change(now, &mut 1).is_none());
                    presence.settle(now);
                    model.settle(now);
                }
                Event::Resume(held) => {
                    presence.hold();
                    now += held;
                    prop_assert!(!presence.has_changes(now));
                    presence.settle(now);
                    model.settle(now);
                }
            }
            prop_assert_eq!(sorted(changes(&mut presence, now)), sorted(model.changes(now)));
            for (channel, name) in CHANNELS.iter().enumerate() {
                let attendees = presence.attendees(HUB, name, 10);
                let expected: u32 = model.sessions[channel].iter().sum();
                prop_assert_eq!(attendees.connections, u64::from(expected));
                let ids: Vec<_> = attendees.members.iter().map(|(id, count)| (&**id, *count)).collect();
                let told = model.told.iter().filter(|(told, _)| *told == channel);
                let expected: Vec<_> = told.map(|(_, id)| (IDS[*id].unwrap(), model.sessions[channel][*id])).collect();
                prop_assert_eq!(ids, expected);
            }
        }
        for (channel, of_ids) in model.sessions.iter().enumerate() {
            for (id, count) in of_ids.iter().enumerate() {
                (0..*count).for_each(|_| presence.went(on(CHANNELS[channel], IDS[id]), now));
            }
        }
        changes(&mut presence, now + LEAVE_DELAY);
        prop_assert!(is_empty(&presence), "{:?}", presence);
    }
}
