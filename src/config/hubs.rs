//! `[hub.NAME]`, and the references of routes and feeds to hubs.
//!
//! A hub must be declared, even if its table is empty. Otherwise a mistyped name in a route would create a new hub without a message.
//! A hub that no route and no feed names is a warning.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::LazyLock;
use std::time::Duration;

use toml::de::DeValue;

use super::keys;
use super::reader::{Item, Table};
use super::report::{Problem, Report, Span};
use super::routes;
use super::units::size_text;
use super::{HubId, Template};

/// `[hub.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct Hub {
    /// NAME in `[hub.NAME]`.
    pub name: String,
    /// The largest message accepted, in bytes.
    pub message_bytes_max: usize,
    /// How many messages a client may send each second.
    pub messages_per_second: u32,
    /// How many bytes a client may send each second, counted after decompression.
    pub bytes_per_second: u32,
    /// How long a message may take from its first byte to its last.
    pub message_timeout: Duration,
    /// How many bytes may be queued for one slow subscriber.
    pub queue_bytes_max: usize,
    /// How many messages may be queued for one slow subscriber.
    pub queue_messages_max: usize,
    /// How long a message may be queued for a slow subscriber; `None`: without limit.
    pub queue_age_max: Option<Duration>,
    /// What happens when one of these is exceeded.
    pub when_slow: WhenSlow,
    /// Sent to a subscriber in the place of dropped messages, with their number for `{dropped}`; `None`: nothing is sent.
    pub gap_notice: Option<Template>,
    /// A ping is sent to a client that has sent nothing for this long; `None`: never.
    pub ping: Option<Duration>,
    /// A client that has not answered a ping for this long is disconnected.
    pub pong_timeout: Duration,
    /// The maximum number of sessions; `None`: that of connections.
    pub subscribers_max: Option<NonZeroUsize>,
    /// Messages of at least this size are compressed (permessage-deflate) for clients that ask for it; `None`: no messages are.
    pub deflate_bytes_min: Option<usize>,
    /// How much is kept of each channel; `None`: nothing, and publications have no positions.
    pub history: Option<History>,
    /// Whether the history is kept on disk. Never without `history`.
    pub durable: bool,
    /// Whether the hub knows who is subscribed to its channels.
    pub presence: bool,
    /// The channel of the same hub on which it tells who joins and leaves a channel, filled with the name of that as `channel`
    /// by [`Template::text`], unchanged; `None`: it does not. Never without `presence`, unless a reload has set both.
    pub presence_channel: Option<Template>,
}

/// `history`: the limits of what is kept of each channel. At least one is set. What exceeds any of them is gone, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The number of messages.
    pub messages: Option<NonZeroUsize>,
    /// The size of the payloads together, in bytes.
    pub bytes: Option<usize>,
    /// How long a message is kept.
    pub age: Option<Duration>,
}

/// `when_slow`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenSlow {
    /// Closed with 1008 and a reason.
    Disconnect,
    /// The oldest queued messages are dropped.
    DropOldest,
    /// New messages that do not fit are dropped.
    DropNewest,
    /// Only the latest message of each channel is queued. Where that is not enough, as with `DropOldest`.
    Conflate,
}

/// The hubs that the file declares, in its order.
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

    /// The hub whose name is the value of `item`.
    pub(super) fn named_by(&self, item: &Item<'a>) -> Option<HubId> {
        let name = item.text("the name of a hub")?;
        let found = self.declared.iter().position(|declared| declared.item.key() == name);
        let Some(place) = found else {
            let known = self.declared.iter().map(|declared| declared.item.key());
            let problem = item.error(format!("there is no hub `{name}`")).label("not declared").absence();
            item.note(
                problem.help(format!("declare it with `[hub.{name}]`; the table may be empty")).meant(name, known),
            );
            return None;
        };
        self.declared[place].used.set(true);
        u32::try_from(place).ok().map(HubId)
    }

    /// Whether the hub has a history.
    pub(super) fn has_history(&self, hub: HubId) -> bool {
        self.is_on(hub, "history")
    }

    /// Whether the hub has presence.
    pub(super) fn has_presence(&self, hub: HubId) -> bool {
        self.is_on(hub, "presence")
    }

    /// The name of the hub, and its location.
    pub(super) fn named(&self, hub: HubId) -> (&'a str, Span) {
        let item = self.declared[hub.0 as usize].item;
        (item.key(), item.key_span())
    }

    /// Whether `key` is set in the table of the hub, which is not read yet, and not to `false`.
    fn is_on(&self, hub: HubId, key: &str) -> bool {
        let value = self.declared[hub.0 as usize].item.value.get_ref();
        let set = value.as_table().and_then(|entries| entries.get(key));
        set.is_some_and(|value| !matches!(value.get_ref(), DeValue::Boolean(false)))
    }

    /// Warns of every hub that has no reference.
    pub(super) fn note_unused(&self, report: &Report<'_>) {
        for declared in self.declared.iter().filter(|declared| !declared.used.get()) {
            let title = format!("the hub `{}` is not used", declared.item.key());
            let problem = Problem::warning(declared.item.key_span(), title).absence();
            report.note(
                problem.label("no route and no feed names it").help("remove it, or name it in a route or a feed"),
            );
        }
    }
}

impl Hub {
    /// Takes over from `now`, the settings in force, what only a restart can change. Returns the keys in which that differs.
    pub fn keep_fixed(&mut self, now: &Hub) -> Vec<&'static str> {
        let mut kept = Vec::new();
        // Its limits change at once.
        if self.history.is_some() != now.history.is_some() {
            self.history.clone_from(&now.history);
            kept.push("history");
        }
        for (key, new, now) in
            [("durable", &mut self.durable, now.durable), ("presence", &mut self.presence, now.presence)]
        {
            if std::mem::replace(new, now) != now {
                kept.push(key);
            }
        }
        kept
    }
}

impl Default for Hub {
    fn default() -> Hub {
        static DEFAULT: LazyLock<Hub> = LazyLock::new(|| {
            let report = Report::new(&[], Vec::new());
            hub("", &Table::absent(&report, &keys::HUB))
        });
        DEFAULT.clone()
    }
}

fn read(item: Item<'_>) -> Option<Hub> {
    item.note_bad_name();
    Some(hub(item.key(), &item.table(&keys::HUB)?))
}

fn hub(name: &str, table: &Table<'_>) -> Hub {
    let hub = Hub {
        name: name.to_owned(),
        message_bytes_max: table.size("message_max"),
        message_timeout: table.duration("message_timeout"),
        messages_per_second: table.count("messages_per_second") as u32,
        bytes_per_second: table.size("bytes_per_second") as u32,
        queue_bytes_max: table.size("queue_max"),
        queue_messages_max: table.count("queue_messages_max"),
        queue_age_max: table.item("queue_age_max").and_then(|i| i.duration()),
        when_slow: table.choice("when_slow", &WHEN_SLOW),
        gap_notice: table.item("gap_notice").and_then(|i| gap_notice(&i)),
        ping: table.duration_or_off("ping"),
        pong_timeout: table.duration("pong_timeout"),
        subscribers_max: table.item("subscribers_max").and_then(|i| i.positive()),
        deflate_bytes_min: table.flag("deflate").then_some(table.size("deflate_min")),
        history: history(table),
        durable: table.flag("durable"),
        presence: table.flag("presence"),
        presence_channel: table.item("presence_channel").and_then(|i| presence_channel(&i)),
    };
    let message = hub.message_bytes_max;
    note_too_small(table, "queue_max", hub.queue_bytes_max, message, "the queue is smaller than the largest message");
    let rate = hub.bytes_per_second as usize;
    note_too_small(
        table,
        "bytes_per_second",
        rate,
        message,
        "the rate is smaller than the largest message, so no client could send one",
    );
    note_needs(table, &hub);
    hub
}

/// Reads `history`.
fn history(table: &Table<'_>) -> Option<History> {
    let item = table.item("history").filter(|item| item.as_flag() != Some(false))?;
    if !item.is_table() {
        item.mismatch("`{ messages = 100 }` or `false`");
        return None;
    }
    let limits = table.table("history");
    if keys::HISTORY.names().all(|key| limits.item(key).is_none()) {
        let problem = Problem::error(item.key_span(), "`history` needs a limit");
        let problem = problem.label("none of `messages`, `bytes` and `age` is set");
        item.note(problem.help("for example `history = { messages = 100 }`; `false` keeps nothing").absence());
    }
    Some(History {
        messages: limits.item("messages").and_then(|i| i.positive()),
        bytes: limits.item("bytes").and_then(|i| i.size()),
        age: limits.item("age").and_then(|i| i.duration()),
    })
}

fn presence_channel(item: &Item<'_>) -> Option<Template> {
    let template = routes::name(item)?;
    item.only_holes(&template, &["channel"], "only the channel that a client joins or leaves can be used here");
    Some(template)
}

fn gap_notice(item: &Item<'_>) -> Option<Template> {
    let template = item.template()?;
    item.only_holes(&template, &["dropped"], "a notice has only the number of dropped messages");
    Some(template)
}

/// Reports keys that are set, but need another one. Warns of a history in which the largest message has no room.
fn note_needs(table: &Table<'_>, hub: &Hub) {
    if let Some(item) = table.item("durable").filter(|_| hub.durable && !is_on(table, "history")) {
        let problem = Problem::error(item.key_span(), "`durable` needs `history`").label("there is nothing to keep");
        item.note(problem.help("add `history = { messages = 100 }`").absence());
    }
    if let Some(item) = table.item("presence_channel").filter(|_| !is_on(table, "presence")) {
        let problem = Problem::error(item.key_span(), "`presence_channel` needs `presence = true`");
        item.note(problem.label("nothing would be published there").help("add `presence = true`").absence());
    }
    let bytes = hub.history.as_ref().and_then(|history| history.bytes);
    let Some((item, bytes)) = table.item("history").zip(bytes.filter(|bytes| *bytes < hub.message_bytes_max)) else {
        return;
    };
    let (bytes, message_max) = (size_text(bytes as u64), size_text(hub.message_bytes_max as u64));
    let problem = Problem::warning(item.key_span(), "the history is smaller than the largest message");
    let problem = problem.label(format!("`bytes` is {bytes}, `message_max` is {message_max}"));
    item.note(problem.help("a message that is larger than `bytes` is not kept: raise `bytes`, or lower `message_max`"));
}

/// Whether `key` is set, and not to `false`. A value with a mistake counts as set: it is reported itself.
fn is_on(table: &Table<'_>, key: &str) -> bool {
    table.item(key).is_some_and(|item| item.as_flag() != Some(false))
}

/// Reports that `bytes`, the value of `key`, is below `message_max`, at the location of the one that is set.
fn note_too_small(table: &Table<'_>, key: &str, bytes: usize, message_max: usize, title: &str) {
    let [own, message] = [key, "message_max"].map(|key| table.item(key));
    // A value with a mistake of its own was replaced by the default, which says nothing about the other one.
    let wrong = [own, message].into_iter().flatten().any(|item| item.report.is_wrong(&item.span()));
    let Some(at) = own.or(message).filter(|_| bytes < message_max && !wrong) else { return };
    let (bytes, message_max) = (size_text(bytes as u64), size_text(message_max as u64));
    let problem = at.error(title).label(format!("`{key}` is {bytes}, `message_max` is {message_max}"));
    at.note(problem.help(format!("raise `{key}` to several times `message_max`")));
}

pub(super) const WHEN_SLOW: [(&str, WhenSlow); 4] = [
    ("disconnect", WhenSlow::Disconnect),
    ("drop_oldest", WhenSlow::DropOldest),
    ("drop_newest", WhenSlow::DropNewest),
    ("conflate", WhenSlow::Conflate),
];
