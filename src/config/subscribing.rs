//! The routes that clients subscribe by: `websocket`, `events` and `poll`.

use super::keys::Kind;
use super::reader::{Item, Table};
use super::report::Problem;
use super::routes::{ACCEPT, ON_MESSAGE, Routes, SESSION_LOG, name, warn_idle};
use super::{ChannelPattern, Events, OnMessage, Poll, Subscription, Template, WebSocket};

impl<'a> Routes<'_, 'a> {
    pub(super) fn websocket(&self, table: &Table<'a>, item: &Item<'a>) -> Option<WebSocket> {
        let subscription = self.subscription(table, item);
        let on_message = table.choice("on_message", &ON_MESSAGE);
        let message = table.item("message").and_then(|item| {
            let template = item.template()?;
            item.only_holes(&template, &["message"], "only the client's message can be used here");
            Some(template)
        });
        let to = table.item("to");
        if on_message != OnMessage::Broadcast {
            warn_idle(table, "to", "`on_message = \"broadcast\"`");
        }
        if on_message == OnMessage::Ignore {
            warn_idle(table, "message", "`on_message = \"broadcast\"` or `\"echo\"`");
        }
        let first = subscription.as_ref().and_then(|subscription| subscription.channels.first());
        if on_message == OnMessage::Broadcast && to.is_none() && first.is_some_and(Template::is_pattern) {
            note_no_channel(table);
        }
        if on_message == OnMessage::Broadcast {
            self.hooks.note_unasked(table);
        }
        let envelope = table.flag("envelope");
        Some(WebSocket {
            on_message,
            to: to.and_then(|i| name(&i)),
            accept: table.choice("accept", &ACCEPT),
            greeting: table.item("greeting").and_then(|i| i.template()),
            message,
            draft76: table.flag("draft76"),
            subprotocols: table.item("subprotocols").map(subprotocols).unwrap_or_default(),
            envelope,
            subscribe: table.item("subscribe").map(|item| subscribe(item, envelope)).unwrap_or_default(),
            subscriptions_max: table.count("subscriptions_max"),
            identity: self.identity(table, subscription.as_ref()),
            subscription: subscription?,
        })
    }

    pub(super) fn events(&self, table: &Table<'a>, item: &Item<'a>) -> Option<Events> {
        let subscription = self.subscription(table, item);
        let event = table.item("event").and_then(|item| event(&item));
        let identity = self.identity(table, subscription.as_ref());
        Some(Events { subscription: subscription?, event, identity })
    }

    pub(super) fn poll(&self, table: &Table<'a>, item: &Item<'a>) -> Option<Poll> {
        let subscription = self.subscription(table, item);
        let hub = subscription.as_ref().map(|subscription| subscription.hub);
        if let Some(hub) = hub.filter(|hub| !self.hubs.has_history(*hub)) {
            let problem = item.error("a poll route needs a hub with a history");
            self.note_lack(item, hub, problem, "history = { messages = 100 }");
        }
        let identity = self.identity(table, subscription.as_ref());
        Some(Poll { subscription: subscription?, identity })
    }

    /// The keys that all of them have. The value of `item` is the name of the hub.
    fn subscription(&self, table: &Table<'a>, item: &Item<'a>) -> Option<Subscription> {
        let hub = self.hubs.named_by(item);
        let channels = table.value("channels", |item| channels(*item));
        let origins = self.origins(table);
        let log = table.choice("log", &SESSION_LOG);
        let tokens = self.tokens.of_route(table);
        let hook = self.hooks.of_route(table, "connect");
        Some(Subscription { hub: hub?, channels, origins, log, tokens, hook })
    }

    fn identity(&self, table: &Table<'a>, subscription: Option<&Subscription>) -> Option<Template> {
        if subscription.is_some_and(|subscription| !self.hubs.has_presence(subscription.hub)) {
            warn_idle(table, "identity", "`presence = true` in the hub");
        }
        table.item("identity")?.template()
    }
}

/// Reports that a broadcast has no channel, because the first of the channels is a pattern.
fn note_no_channel(table: &Table<'_>) {
    let Some(item) = table.item("channels") else { return };
    let problem = item.error("a broadcast needs a channel").label("the first of these is a pattern");
    item.note(problem.help("add the channel that clients publish to: `to = \"all\"`"));
}

fn channels(item: Item<'_>) -> Option<Vec<Template>> {
    let mut channels: Vec<Template> = Vec::new();
    for item in few(item)? {
        let Some(channel) = item.channel() else { continue };
        if let Some(mistake) = channel.pattern_mistake() {
            note_pattern(&item, &mistake);
        }
        if channels.contains(&channel) {
            item.note(item.error("this channel is listed twice").label("a client is subscribed once"));
        }
        channels.push(channel);
    }
    Some(channels)
}

/// The strings of a list, at most as many as the entry of its key allows.
fn few(item: Item<'_>) -> Option<Vec<Item<'_>>> {
    let Some(Kind::Templates(most) | Kind::Patterns(most)) = item.kind() else {
        unreachable!("`{}` is not a list of channels", item.key())
    };
    let mut items = item.strings()?;
    if items.len() > most {
        item.note(item.error("too many channels").label(format!("at most {most}")));
        items.truncate(most);
    }
    Some(items)
}

fn note_pattern(item: &Item<'_>, mistake: &str) {
    let problem = item.error("this pattern of channels cannot be read").label(mistake);
    item.note(problem.help("for example `news/*` for one more segment, or `news/**` for one or more"));
}

fn subscribe(item: Item<'_>, envelope: bool) -> Vec<ChannelPattern> {
    if !envelope {
        let problem = Problem::error(item.key_span(), "`subscribe` needs `envelope = true`");
        let problem = problem.label("without an envelope no message says which channel it is of");
        item.note(problem.help("add `envelope = true`"));
    }
    item.channel_patterns()
}

impl Item<'_> {
    /// A list of channels and patterns of channels.
    pub(super) fn channel_patterns(self) -> Vec<ChannelPattern> {
        let mut patterns: Vec<ChannelPattern> = Vec::new();
        for item in few(self).unwrap_or_default() {
            let Some(text) = item.text("a channel or a pattern of channels") else { continue };
            if text.contains(['{', '}']) {
                let problem = item.error(format!("placeholders cannot be used in `{}`", item.key()));
                item.note(problem.label("expected a name, or a pattern with `*`"));
                continue;
            }
            match ChannelPattern::parse(text) {
                Ok(pattern) if patterns.contains(&pattern) => {
                    item.note(item.error("this channel is listed twice").label("once is enough"));
                }
                Ok(pattern) => patterns.push(pattern),
                Err(mistake) => note_pattern(&item, &mistake),
            }
        }
        patterns
    }
}

/// The type of a route's events. A line break would end the field in the event stream.
fn event(item: &Item<'_>) -> Option<Template> {
    let text = item.text("the type of an event")?;
    if text.contains(['\r', '\n']) {
        let problem = item.error("`event` contains a line break").label("the type of an event is a single line");
        item.note(problem.help("remove the line break"));
    }
    let template = item.template()?;
    item.only_holes(&template, &["channel"], "only the channel of the message can be used here");
    Some(template)
}

fn subprotocols(item: Item<'_>) -> Vec<String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let items = item.strings().unwrap_or_default();
    for item in items.iter().filter(|i| i.as_text().is_some_and(|name| name.is_empty() || !name.bytes().all(token))) {
        item.note(
            item.error("this is not the name of a subprotocol")
                .label("expected letters, digits and any of !#$%&'*+-.^_`|~"),
        );
    }
    items.iter().filter_map(Item::as_text).map(str::to_owned).collect()
}
