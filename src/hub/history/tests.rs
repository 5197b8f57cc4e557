//! Histories against what is published, as a simple list keeps it.

use proptest::prelude::*;

use super::*;
use crate::config::HubId;
use crate::hub::{Kind, Selector, Since};

const ALL: PageLimits = PageLimits { messages: usize::MAX, bytes: usize::MAX };

fn limits(messages: usize) -> HistoryLimits {
    HistoryLimits { messages, bytes: usize::MAX, age: None }
}

fn history(limits: HistoryLimits) -> History {
    History::new(Position { epoch: Epoch(7), offset: 0 }, limits, false, Memory::default())
}

fn publish(history: &mut History, channel: &str, text: &str, now: Seconds) -> Position {
    let payload = text.to_owned().into_bytes().into();
    history.append(&Message::new(HubId(0), channel.into(), Kind::Text, payload), now)
}

fn page(history: &mut History, selectors: &[Selector], since: Since, limits: PageLimits, now: Seconds) -> Page {
    match history.page(selectors, since, limits, now) {
        Found::Here { page, .. } => page,
        Found::InStore { .. } => panic!("this hub has no store"),
    }
}

fn texts(page: &Page) -> Vec<String> {
    page.messages.iter().map(|kept| String::from_utf8(kept.payload.to_vec()).unwrap()).collect()
}

#[test]
fn several_channels_and_patterns_continue_from_one_position() {
    let mut history = history(limits(100));
    let positions: Vec<Position> =
        (0..12).map(|n| publish(&mut history, ["a/1", "b", "a/2"][n % 3], &n.to_string(), 0)).collect();
    let two = [Selector::name("a/1"), Selector::name("b")];
    let after = Since::After(positions[3]);
    let first = page(&mut history, &two, after, PageLimits { messages: 2, bytes: 100 }, 0);
    assert_eq!((texts(&first), first.is_end, first.position), (vec!["4".into(), "6".into()], false, positions[6]));
    let rest = page(&mut history, &two, Since::After(first.position), ALL, 0);
    assert_eq!(
        (texts(&rest), rest.is_end, rest.position),
        (vec!["7".into(), "9".into(), "10".into()], true, positions[11])
    );
    let pattern = page(&mut history, &[Selector::pattern("a/*")], after, ALL, 0);
    assert_eq!(texts(&pattern), ["5", "6", "8", "9", "11"]);
    let both = page(&mut history, &[Selector::pattern("a/*"), Selector::name("a/1")], after, ALL, 0);
    assert_eq!(texts(&both), texts(&pattern), "each message comes once");
    assert_eq!(texts(&page(&mut history, &two, Since::Earliest, ALL, 0)).len(), 8);
}

#[test]
fn a_gap_is_told_to_those_who_have_missed_something() {
    let mut history = history(limits(2));
    let positions: Vec<Position> = (0..5).map(|n| publish(&mut history, "a", &n.to_string(), 0)).collect();
    publish(&mut history, "b", "x", 0);
    let both = [Selector::name("a"), Selector::name("b"), Selector::name("c")];
    let gone = |history: &mut History, since: Since| page(history, &both, since, ALL, 0).gone;
    assert_eq!(gone(&mut history, Since::After(positions[1])), ["a".into()]);
    assert_eq!(gone(&mut history, Since::After(positions[2])), [""; 0].map(Arc::from));
    assert_eq!(gone(&mut history, Since::Earliest), [""; 0].map(Arc::from));
    for unknown in [
        Since::Unknown,
        Since::After(Position { epoch: Epoch(8), ..positions[4] }),
        Since::After(Position { offset: 7, ..positions[4] }),
    ] {
        let page = page(&mut history, &both, unknown, ALL, 0);
        assert_eq!((page.gone.len(), texts(&page)), (3, vec!["3".into(), "4".into(), "x".into()]));
    }
    let pattern = page(&mut history, &[Selector::pattern("*")], Since::After(positions[0]), ALL, 0);
    assert_eq!(pattern.gone, ["a".into()]);
}

#[test]
fn a_channel_that_holds_nothing_costs_nothing_and_its_gap_is_known() {
    let mut history = history(HistoryLimits { age: Some(10), ..limits(5) });
    let before = publish(&mut history, "b", "x", 0);
    publish(&mut history, "a", "y", 0);
    assert_ne!(history.memory.used(), 0);
    history.expire(10, 100);
    assert_eq!(history.size().0, 2);
    history.expire(11, 100);
    assert_eq!((history.size(), history.memory.used()), ((0, 0, 0), 0));
    let mut gone =
        |channel: &str| page(&mut history, &[Selector::name(channel)], Since::After(before), ALL, 11).gone.len();
    assert_eq!((gone("a"), gone("b"), gone("c")), (1, 0, 0));
    publish(&mut history, "a", "z", 11);
    let again = page(&mut history, &[Selector::name("a")], Since::After(before), ALL, 11);
    assert_eq!((again.gone.len(), texts(&again)), (1, vec!["z".into()]));
}

#[test]
fn the_channels_read_longest_ago_lose_their_oldest_messages_when_memory_is_short() {
    let memory = Memory::new(20_000);
    let mut history = History::new(Position { epoch: Epoch(7), offset: 0 }, limits(1000), false, memory.clone());
    for n in 0..10 {
        publish(&mut history, "old", &n.to_string(), 0);
    }
    publish(&mut history, "read", "r", 0);
    page(&mut history, &[Selector::name("old")], Since::Earliest, ALL, 0);
    while memory.dropped() == 0 {
        publish(&mut history, "new", "n", 0);
    }
    assert!(page(&mut history, &[Selector::name("read")], Since::Earliest, ALL, 0).messages.is_empty());
    assert_eq!(page(&mut history, &[Selector::name("old")], Since::Earliest, ALL, 0).messages.len(), 10);
    for _ in 0..1000 {
        publish(&mut history, "new", "n", 0);
        assert!(memory.used() <= 20_000);
    }
    drop(history);
    assert_eq!(memory.used(), 0);
    let dropped = memory.dropped();
    assert_eq!(memory.report(5), Some(dropped));
    memory.note_drop();
    assert_eq!((memory.report(64), memory.report(65), memory.report(200)), (None, Some(1), None));
}

#[test]
fn channels_that_are_not_selected_are_no_gap_of_a_pattern_however_many_they_are() {
    let mut history = history(limits(1));
    publish(&mut history, "n/1", "0", 0);
    let position = publish(&mut history, "n/1", "1", 0);
    publish(&mut history, "n/2", "2", 0);
    for n in 0..20_000 {
        publish(&mut history, &format!("o/{}", n % 10_000), "x", 0);
    }
    let pattern = [Selector::pattern("n/*")];
    let since = Since::After(position);
    let nothing_missed = page(&mut history, &pattern, since, ALL, 0);
    assert_eq!((texts(&nothing_missed), nothing_missed.gone.len()), (vec!["2".into()], 0));
    publish(&mut history, "n/2", "3", 0);
    assert_eq!(page(&mut history, &pattern, since, ALL, 0).gone, ["n/2".into()]);
    assert_eq!(page(&mut history, &pattern, Since::Earliest, ALL, 0).gone_before, ["n/1", "n/2"].map(Arc::from));
}

#[test]
fn what_a_store_has_is_read_from_there() {
    let memory = Memory::default();
    let mut history = History::new(Position { epoch: Epoch(7), offset: 100 }, limits(3), true, memory);
    let positions: Vec<Position> = (0..10).map(|n| publish(&mut history, "a", &n.to_string(), 0)).collect();
    let names = [Selector::name("a")];
    let at = |offset| Since::After(Position { offset, ..positions[0] });
    let in_store = |since, until, gone| Found::InStore { since, until, gone, gone_before: Vec::new(), looked_at: 0 };
    assert_eq!(history.page(&names, at(99), ALL, 0), in_store(99, 100, Vec::new()));
    assert_eq!(history.page(&names, Since::Unknown, ALL, 0), in_store(0, 100, vec!["a".into()]));
    assert_eq!(page(&mut history, &names, at(100), ALL, 0).gone.len(), 1, "seven were dropped");
    // Only what is written may be forgotten here.
    history.release_written(108, 0);
    assert_eq!(history.page(&names, at(107), ALL, 0), in_store(107, 108, Vec::new()));
    let rest = page(&mut history, &names, at(108), ALL, 0);
    assert_eq!((texts(&rest), rest.gone.len()), (vec!["8".into(), "9".into()], 0));
}

#[test]
fn a_history_continues_in_another_process() {
    let mut before = history(HistoryLimits { age: Some(100), ..limits(2) });
    let positions: Vec<Position> =
        (0..30).map(|n| publish(&mut before, &format!("c{}", n % 7), &n.to_string(), n as u32)).collect();
    before.expire(108, 100);
    let mut after = history(HistoryLimits { age: Some(100), ..limits(2) });
    for (kept, at) in before.messages() {
        after.restore(kept, at);
    }
    let (drops, forgotten) = before.drops();
    drops.for_each(|(channel, offset)| after.restore_drop(channel.clone(), offset));
    after.restore_forgotten(forgotten);
    for selector in (0..7).map(|n| Selector::name(format!("c{n}"))).chain([Selector::pattern("*")]) {
        for position in &positions {
            let [before, after] = [&mut before, &mut after]
                .map(|history| page(history, std::slice::from_ref(&selector), Since::After(*position), ALL, 108));
            assert_eq!(before, after, "{selector:?} {position:?}");
        }
    }
}

#[test]
fn what_smaller_limits_of_the_next_process_drop_is_a_gap() {
    let mut before = history(limits(2));
    let positions: Vec<Position> = (0..3).map(|n| publish(&mut before, "a", &n.to_string(), 0)).collect();
    let mut after = history(limits(1));
    before.messages().for_each(|(kept, at)| after.restore(kept, at));
    before.drops().0.for_each(|(channel, offset)| after.restore_drop(channel.clone(), offset));
    let page = page(&mut after, &[Selector::name("a")], Since::After(positions[0]), ALL, 0);
    assert_eq!((page.gone, positions[0].offset), (vec!["a".into()], 1));
}

#[test]
fn the_channels_of_a_pattern_that_have_lost_messages_before_the_oldest_ones_are_named() {
    let mut history = history(limits(1));
    ["b", "a/1", "a/1", "b"].iter().for_each(|channel| _ = publish(&mut history, channel, "x", 0));
    let selectors = [Selector::pattern("a/*"), Selector::name("b")];
    for (since, gone) in [(Since::Earliest, vec![]), (Since::Unknown, vec!["a/*".into(), "b".into()])] {
        let page = page(&mut history, &selectors, since, ALL, 0);
        assert_eq!((page.gone, page.gone_before), (gone, vec!["a/1".into()]));
    }
}

proptest! {
    /// Every reader, in pages of any size, receives exactly what each channel keeps, in order; and is told of what it does not.
    #[test]
    fn pages_are_what_is_kept(
        published in prop::collection::vec((0..5usize, 0..60usize), 1..200),
        messages in 1..8usize,
        bytes in 50..200usize,
        (page_messages, page_bytes) in (1..5usize, 1..100usize),
        since in 0..250u64,
        selected in prop::collection::vec(0..5usize, 1..4),
        is_pattern in any::<bool>(),
    ) {
        let names = ["a/1", "a/2", "b", "c/d/e", "c"];
        let mut history = history(HistoryLimits { messages, bytes, age: None });
        let mut model: Vec<Vec<(u64, usize)>> = vec![Vec::new(); names.len()];
        let mut dropped = vec![0; names.len()];
        for &(channel, length) in &published {
            let position = publish(&mut history, names[channel], &"x".repeat(length), 0);
            model[channel].push((position.offset, length));
            while model[channel].len() > messages || model[channel].iter().map(|(_, length)| length).sum::<usize>() > bytes {
                dropped[channel] = model[channel].remove(0).0;
            }
        }
        let selectors: Vec<Selector> = match is_pattern {
            true => vec![Selector::pattern(["*", "a/*", "**", "c/**", "b"][selected[0]])],
            false => selected.iter().map(|&channel| Selector::name(names[channel])).collect(),
        };
        let is_selected = |channel: &usize| selectors.iter().any(|selector| selector.selects(names[*channel]));
        let since = since % (published.len() as u64 + 1);
        let mut expected: Vec<u64> = (0..names.len())
            .filter(is_selected)
            .flat_map(|channel| model[channel].iter().map(|(offset, _)| *offset).filter(|offset| *offset > since))
            .collect();
        expected.sort_unstable();
        let mut gone: Vec<&str> =
            (0..names.len()).filter(is_selected).filter(|&channel| dropped[channel] > since).map(|channel| names[channel]).collect();
        let limits = PageLimits { messages: page_messages, bytes: page_bytes };
        let (mut position, mut received) = (Position { epoch: Epoch(7), offset: since }, Vec::new());
        for turn in 0.. {
            let page = page(&mut history, &selectors, Since::After(position), limits, 0);
            if turn == 0 {
                let mut told: Vec<&str> = page.gone.iter().map(|name| &**name).collect();
                told.sort_unstable();
                gone.sort_unstable();
                gone.dedup();
                prop_assert_eq!(&told, &gone);
            }
            prop_assert!(page.messages.len() <= page_messages);
            prop_assert!(page.messages.len() == 1 || page.bytes() <= page_bytes);
            received.extend(page.messages.iter().map(|kept| kept.offset));
            position = page.position;
            if page.is_end {
                break;
            }
            prop_assert!(!page.messages.is_empty(), "it makes progress");
        }
        prop_assert_eq!(received, expected);
        prop_assert_eq!(position, history.position());
    }
}
