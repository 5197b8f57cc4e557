//! What clients send as the position from which they continue. Nothing panics, no two texts are the same position, and whatever is sent,
//! the pages of a history have all that is kept after it, once and in order, or name the channels with a gap.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use pushd::config::HubId;
use pushd::config::limits::POSITION_BYTES_MAX;
use pushd::hub::history::{Found, HistoryLimits, Memory, PageLimits};
use pushd::hub::{Epoch, History, Kind, Message, Position, Selector, Since};

/// The epoch of the history. As text it is `a`.
const EPOCH: Epoch = Epoch(10);
/// How many messages are published on each of two channels, and how many of them are kept.
const PUBLISHED: u64 = 12;
const KEPT: usize = 5;
const CHANNELS: [&str; 2] = ["odd", "even"];

/// Messages with the offsets 1 to 24, of which those from 15 on are kept.
fn history() -> History {
    let limits = HistoryLimits { messages: KEPT, bytes: usize::MAX, age: None };
    let before = Position { epoch: EPOCH, offset: 0 };
    let mut history = History::new(before, limits, false, Memory::new(1 << 20));
    for n in 0..PUBLISHED {
        for channel in CHANNELS {
            history.append(&Message::new(HubId(0), channel.into(), Kind::Text, n.to_string().into()), 0);
        }
    }
    history
}

fn check_text(text: &str) -> Since {
    let since = Since::parse(text);
    match since {
        Since::Earliest => assert_eq!(text, "earliest"),
        Since::Unknown => assert_eq!(Position::parse(text).filter(|_| text.len() <= POSITION_BYTES_MAX), None),
        Since::After(position) => {
            assert_eq!(position.to_string(), text, "two texts are the same position");
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte)));
            assert!(text.len() <= POSITION_BYTES_MAX);
        }
    }
    since
}

// The first line is the position. The lengths of the other lines are those of the pages, in messages.
fuzz_target!(|input: &str| {
    let mut lines = input.split('\n');
    let since = check_text(lines.next().unwrap_or_default());
    let mut history = history();
    let last = history.position();
    let all = CHANNELS.len() as u64 * PUBLISHED;
    assert_eq!(last.offset, all);
    let kept = CHANNELS.len() * KEPT;
    let first_kept = all - kept as u64 + 1;

    let selectors: Arc<[Selector]> = CHANNELS.map(Selector::name).into();
    let (mut received, mut gone, mut next) = (Vec::new(), Vec::new(), since);
    for page in 0.. {
        assert!(page <= kept, "each page has a message, or is the last one");
        let messages = lines.next().map_or(1, |line| line.len().max(1));
        let Found::Here { page: found, .. } = history.page(&selectors, next, PageLimits { messages, bytes: usize::MAX }, 0) else {
            panic!("there is no store");
        };
        assert!(found.messages.len() <= messages);
        assert!(page == 0 || found.gone.is_empty(), "a gap is told first");
        gone.extend(found.gone.iter().map(|name| name.to_string()));
        received.extend(found.messages.iter().map(|message| message.offset));
        assert_eq!(check_text(&found.position.to_string()), Since::After(found.position));
        next = Since::After(found.position);
        if found.is_end {
            assert_eq!(found.position, last);
            break;
        }
    }
    let known = match since {
        Since::After(position) if position.epoch == EPOCH && position.offset <= all => Some(position.offset),
        _ => None,
    };
    let expected: Vec<u64> = (known.unwrap_or(0).max(first_kept - 1) + 1..=all).collect();
    assert_eq!(received, expected);
    // The last message that is lost of a channel: odd offsets are of the first one.
    let lost = [first_kept - 2, first_kept - 1];
    let missed = |channel: usize| match (since, known) {
        (Since::Earliest, _) => false,
        (_, None) => true,
        (_, Some(offset)) => offset < lost[channel],
    };
    let expected: Vec<&str> = (0..2).filter(|channel| missed(*channel)).map(|channel| CHANNELS[channel]).collect();
    gone.sort_by_key(|name| CHANNELS.iter().position(|channel| channel == name));
    assert_eq!(gone, expected);
});
