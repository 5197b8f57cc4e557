//! `[hub.NAME]`, and who names which hub.
//!
//! A hub must be declared, even if all its table says is its name: a mistyped hub in a route would otherwise be a new,
//! silent one. A declared hub that nobody names is a warning.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::keys;
use super::limits;
use super::reader::{Item, Table};
use super::report::{Problem, Report};
use super::units::size_text;
use super::{HubId, Template};

/// `[hub.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct Hub {
    /// NAME in `[hub.NAME]`.
    pub name: String,
    /// The largest message taken, in bytes.
    pub message_bytes_max: usize,
    /// How many messages a client may send in a second.
    pub messages_per_second: u32,
    /// How many bytes a client may send in a second, as they are once they are inflated.
    pub bytes_per_second: u32,
    /// How long a message may take from its first byte to its last.
    pub message_timeout: Duration,
    /// How many bytes may wait for one subscriber that does not keep up.
    pub queue_bytes_max: usize,
    /// How many messages may wait for one subscriber that does not keep up.
    pub queue_messages_max: usize,
    /// How long a message may wait for a subscriber that does not keep up; `None`: for ever.
    pub queue_age_max: Option<Duration>,
    /// What happens when one of these is exceeded.
    pub when_slow: WhenSlow,
    /// Said to a subscriber where messages were dropped, with their number for `{dropped}`; `None`: nothing.
    pub gap_notice: Option<Template>,
    /// A ping goes to a client not heard from for this long; `None`: never.
    pub ping: Option<Duration>,
    /// A client that has not answered a ping for this long is gone.
    pub pong_timeout: Duration,
    /// How many sessions the hub holds at once; `None`: as many as there may be connections.
    pub subscribers_max: Option<NonZeroUsize>,
    /// Messages from this size on are compressed (permessage-deflate) for clients that ask for it; `None`: none are.
    pub deflate_bytes_min: Option<usize>,
}

/// `when_slow`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenSlow {
    /// Closed with 1008 and a reason.
    Disconnect,
    /// The oldest waiting messages make room.
    DropOldest,
    /// What does not fit is left out.
    DropNewest,
    /// Of each channel only the latest message waits; then as with `DropOldest`.
    Conflate,
}

/// The hubs the file declares, in its order.
pub(super) struct Hubs<'a> {
    declared: Vec<Declared<'a>>,
}

struct Declared<'a> {
    item: Item<'a>,
    used: Cell<bool>,
}

impl<'a> Hubs<'a> {
    /// Finds every `[hub.NAME]`.
    pub(super) fn declared(top: &Table<'a>) -> Hubs<'a> {
        let declared: Vec<_> =
            top.named("hub").into_iter().map(|item| Declared { item, used: Cell::new(false) }).collect();
        if let Some(first_too_many) = declared.get(usize::from(u16::MAX)) {
            let problem = Problem::error(first_too_many.item.key_span(), "too many hubs");
            first_too_many.item.note(problem.label(format!("at most {}", u16::MAX)));
        }
        Hubs { declared }
    }

    /// Reads their tables.
    pub(super) fn read(&self) -> Vec<Hub> {
        self.declared.iter().filter_map(|declared| read(declared.item)).collect()
    }

    /// The hub that `item` names.
    pub(super) fn named_by(&self, item: &Item<'a>) -> Option<HubId> {
        let name = item.text("the name of a hub")?;
        let found = self.declared.iter().position(|declared| declared.item.key() == name);
        let Some(place) = found else {
            let known = self.declared.iter().map(|declared| declared.item.key());
            let problem = item.error(format!("there is no hub `{name}`")).label("not declared").absence();
            item.note(problem.help(format!("declare it: `[hub.{name}]`; the table may be empty")).meant(name, known));
            return None;
        };
        self.declared[place].used.set(true);
        u32::try_from(place).ok().map(HubId)
    }

    /// Warns of every hub that nobody named.
    pub(super) fn note_unused(&self, report: &Report<'_>) {
        for declared in self.declared.iter().filter(|declared| !declared.used.get()) {
            let title = format!("nothing uses the hub `{}`", declared.item.key());
            let problem = Problem::warning(declared.item.key_span(), title).absence();
            report.note(problem.label("no route and no feed names it").help("remove it, or name it in a route"));
        }
    }
}

/// What holds where the file says nothing.
impl Default for Hub {
    fn default() -> Hub {
        Hub {
            name: String::new(),
            message_bytes_max: limits::MESSAGE_BYTES_MAX,
            messages_per_second: limits::MESSAGES_PER_SECOND,
            bytes_per_second: limits::BYTES_PER_SECOND,
            message_timeout: limits::MESSAGE_TIMEOUT,
            queue_bytes_max: limits::QUEUE_BYTES_MAX,
            queue_messages_max: limits::QUEUE_MESSAGES_MAX,
            queue_age_max: None,
            when_slow: WhenSlow::Disconnect,
            gap_notice: None,
            ping: Some(limits::PING),
            pong_timeout: limits::PONG_TIMEOUT,
            subscribers_max: None,
            deflate_bytes_min: None,
        }
    }
}

fn read(item: Item<'_>) -> Option<Hub> {
    item.note_bad_name();
    let table = item.table(&keys::HUB)?;
    let timeouts = SECOND..=limits::DURATION_MAX;
    let default = Hub::default();
    let message_max = table.item("message_max");
    let message_bytes_max = message_max.and_then(|i| i.size(1..=limits::MESSAGE_BYTES_CEILING));
    let message_bytes_max = message_bytes_max.unwrap_or(default.message_bytes_max);
    let queue_max = table.item("queue_max");
    let queue_bytes_max = match queue_max {
        Some(item) => item.size(1..=limits::QUEUE_BYTES_CEILING).unwrap_or(limits::QUEUE_BYTES_CEILING),
        None => default.queue_bytes_max,
    };
    if queue_bytes_max < message_bytes_max {
        note_queue_too_small(queue_max.or(message_max), queue_bytes_max, message_bytes_max);
    }
    let bytes = table.item("bytes_per_second");
    let bytes_per_second = bytes.and_then(|i| i.size(1..=limits::BYTES_PER_SECOND_CEILING));
    let bytes_per_second = bytes_per_second.map_or(default.bytes_per_second, |bytes| bytes as u32);
    if let Some(at) = bytes.or(message_max).filter(|_| (bytes_per_second as usize) < message_bytes_max) {
        note_rate_too_small(at, bytes_per_second as usize, message_bytes_max);
    }
    Some(Hub {
        name: item.key().to_owned(),
        message_bytes_max,
        messages_per_second: table
            .item("messages_per_second")
            .and_then(|i| i.count(1..=limits::MESSAGES_PER_SECOND_CEILING))
            .map_or(default.messages_per_second, |messages| messages as u32),
        bytes_per_second,
        message_timeout: table
            .item("message_timeout")
            .and_then(|i| i.duration(timeouts.clone()))
            .unwrap_or(default.message_timeout),
        queue_bytes_max,
        queue_messages_max: table
            .item("queue_messages_max")
            .and_then(|i| i.count(1..=limits::QUEUE_MESSAGES_CEILING))
            .unwrap_or(default.queue_messages_max),
        when_slow: table.item("when_slow").and_then(|i| i.choice(&WHEN_SLOW)).unwrap_or(default.when_slow),
        ping: match table.item("ping") {
            None => default.ping,
            Some(item) if item.as_flag() == Some(false) => None,
            Some(item) if item.as_flag() == Some(true) => {
                item.mismatch("a duration, such as \"25s\", or `false`");
                None
            }
            Some(item) => item.duration(timeouts.clone()),
        },
        pong_timeout: table.item("pong_timeout").and_then(|i| i.duration(timeouts)).unwrap_or(default.pong_timeout),
        subscribers_max: table.item("subscribers_max").and_then(|i| i.positive(limits::CONNECTIONS_CEILING)),
        queue_age_max: table.item("queue_age_max").and_then(|i| i.duration(SECOND..=limits::DURATION_MAX)),
        gap_notice: table.item("gap_notice").and_then(|i| gap_notice(&i)),
        deflate_bytes_min: deflate(&table),
    })
}

/// Pings and ages are counted in whole seconds.
const SECOND: Duration = Duration::from_secs(1);

fn gap_notice(item: &Item<'_>) -> Option<Template> {
    let template = item.template()?;
    item.only_holes(&template, &["dropped"], "a notice tells how many messages were dropped");
    Some(template)
}

/// From which size on messages are compressed, if they are.
fn deflate(table: &Table<'_>) -> Option<usize> {
    let on = table.item("deflate").and_then(|i| i.flag()).unwrap_or(false);
    let min = table.item("deflate_min").and_then(|i| i.size(0..=limits::MESSAGE_BYTES_CEILING));
    on.then_some(min.unwrap_or(limits::DEFLATE_BYTES_MIN))
}

const WHEN_SLOW: [(&str, WhenSlow); 4] = [
    ("disconnect", WhenSlow::Disconnect),
    ("drop_oldest", WhenSlow::DropOldest),
    ("drop_newest", WhenSlow::DropNewest),
    ("conflate", WhenSlow::Conflate),
];

/// `at` is the key that was set; the other of the two may be a default.
fn note_rate_too_small(at: Item<'_>, bytes: usize, message: usize) {
    let (bytes, message) = (size_text(bytes as u64), size_text(message as u64));
    let problem = at.error("a client could never send one message of the largest size");
    let label = format!("`bytes_per_second` is {bytes}, `message_max` is {message}");
    at.note(problem.label(label).help("raise `bytes_per_second` to some multiples of `message_max`"));
}

/// `at` is the key that was set; the other of the two may be a default.
fn note_queue_too_small(at: Option<Item<'_>>, queue: usize, message: usize) {
    let Some(at) = at else { return };
    let (queue, message) = (size_text(queue as u64), size_text(message as u64));
    let problem = at.error("the queue cannot hold one message of the largest size");
    let label = format!("`queue_max` is {queue}, `message_max` is {message}");
    at.note(problem.label(label).help("raise `queue_max` to some multiples of `message_max`"));
}
