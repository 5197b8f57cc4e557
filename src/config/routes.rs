//! `[server.NAME.routes]`: what each path serves.
//!
//! One key of a route is its action (`websocket`, `events`, `publish`, `static`, ...). The action decides which other keys the route may
//! have. A route that can never match, because another one takes the same paths, is an error.

use std::collections::HashMap;

use super::addresses;
use super::hubs::Hubs;
use super::keys::{self, Kind, Section};
use super::pattern::Paths;
use super::reader::{Item, Table, listed};
use super::report::{Problem, Span};
use super::{
    Accept, Action, Events, Method, OnMessage, Origins, Page, Pattern, Publish, Route, SessionLog, Static,
    Subscription, Template, WebSocket,
};

/// Reads the routes of one server.
pub(super) struct Routes<'r, 'a> {
    /// The hubs that routes may name.
    pub(super) hubs: &'r Hubs<'a>,
    /// The origins of the server, for routes without a list of their own.
    pub(super) origins: Origins,
    /// The routes so far, each with the location of its path.
    pub(super) read: Vec<(Span, Route)>,
    /// The paths that they take, and the first location of each.
    pub(super) taken: HashMap<Paths, Span>,
}

impl<'a> Routes<'_, 'a> {
    /// Reads them all.
    pub(super) fn read(mut self, item: Item<'a>) -> Vec<(Span, Route)> {
        let items = item.members();
        if items.is_empty() && item.is_table() {
            let problem = Problem::error(item.key_span(), "this server has no routes").label("it would serve nothing");
            item.note(problem.help("for example `\"/ws\" = { websocket = \"push\" }`").absence());
        }
        for item in items {
            if let Some(route) = self.route(item) {
                self.note_hidden(&item, &route.pattern);
                self.taken.entry(route.pattern.paths()).or_insert_with(|| item.key_span());
                self.read.push((item.key_span(), route));
            }
        }
        self.read
    }

    fn route(&self, item: Item<'a>) -> Option<Route> {
        let section = kind(&item);
        let pattern = Pattern::parse(item.key(), section == Some(&keys::STATIC));
        if let Err(help) = &pattern {
            let problem = Problem::error(item.key_span(), "this is not a path that can be served");
            item.note(problem.label(help.as_str()));
        } else if item.key().split('/').any(|segment| matches!(segment, "." | "..")) {
            let problem = Problem::error(item.key_span(), "this route can never match");
            item.note(problem.label("clients resolve `.` and `..` before they send a path"));
        }
        let action = self.action(item.table(section?)?);
        Some(Route { pattern: pattern.ok()?, action: action? })
    }

    fn action(&self, table: Table<'a>) -> Option<Action> {
        let item = table.item(table.section().action().name)?;
        match item.key() {
            "websocket" => self.websocket(&table, &item).map(Action::WebSocket),
            "events" => self.events(&table, &item).map(Action::Events),
            "publish" => self.publish(&table, &item).map(Action::Publish),
            "static" => self.files(&table, &item).map(Action::Static),
            "page" => item.choice(&PAGES).map(Action::Page),
            "metrics" => switched_on(&item).map(|()| Action::Metrics),
            "health" => switched_on(&item).map(|()| Action::Health),
            _ => switched_on(&item).map(|()| Action::Ready),
        }
    }

    fn websocket(&self, table: &Table<'a>, item: &Item<'a>) -> Option<WebSocket> {
        let subscription = self.subscription(table, item);
        let on_message = table.choice("on_message", &ON_MESSAGE);
        let message = table.item("message").and_then(|item| {
            let template = item.template()?;
            item.only_holes(&template, &["message"], "only the client's message can be used here");
            Some(template)
        });
        if on_message != OnMessage::Broadcast {
            warn_idle(table, "to", "`on_message = \"broadcast\"`");
        }
        if on_message == OnMessage::Ignore {
            warn_idle(table, "message", "`on_message = \"broadcast\"` or `\"echo\"`");
        }
        Some(WebSocket {
            on_message,
            to: table.item("to").and_then(|i| i.channel()),
            accept: table.choice("accept", &ACCEPT),
            greeting: table.item("greeting").and_then(|i| i.template()),
            message,
            draft76: table.flag("draft76"),
            subprotocols: table.item("subprotocols").map(subprotocols).unwrap_or_default(),
            subscription: subscription?,
        })
    }

    fn events(&self, table: &Table<'a>, item: &Item<'a>) -> Option<Events> {
        let subscription = self.subscription(table, item);
        let event = table.item("event").and_then(|item| event(&item));
        Some(Events { subscription: subscription?, event })
    }

    /// The keys that websocket and events routes have in common. The value of `item` is the name of the hub.
    fn subscription(&self, table: &Table<'a>, item: &Item<'a>) -> Option<Subscription> {
        let hub = self.hubs.named_by(item);
        let channels = table.value("channels", |item| channels(*item));
        let origins = self.origins(table);
        let log = table.choice("log", &SESSION_LOG);
        Some(Subscription { hub: hub?, channels, origins, log })
    }

    fn publish(&self, table: &Table<'a>, item: &Item<'a>) -> Option<Publish> {
        let hub = self.hubs.named_by(item);
        let channel = table.required("channel", "add the channel: `channel = \"all\"`").and_then(|i| i.channel());
        Some(Publish {
            message: table.item("message").and_then(|i| i.template()),
            methods: table.value("methods", |item| methods(*item)),
            origins: self.origins(table),
            hub: hub?,
            channel: channel?,
        })
    }

    fn files(&self, table: &Table<'a>, item: &Item<'a>) -> Option<Static> {
        let (listing, index) = (table.flag("listing"), table.value("index", |item| index(*item)));
        Some(Static { listing, index, root: item.directory()? })
    }

    fn origins(&self, table: &Table<'a>) -> Origins {
        table.item("origins").and_then(addresses::origins).unwrap_or_else(|| self.origins.clone())
    }

    fn note_hidden(&self, item: &Item<'a>, pattern: &Pattern) {
        if let Some(first) = self.taken.get(&pattern.paths()) {
            let problem = Problem::error(item.key_span(), "this route can never match")
                .label("it takes the same paths as another");
            item.note(problem.also(first.clone(), "the other one is here"));
        }
    }
}

/// The kind of a route. Reports if it has no action, or several.
fn kind(item: &Item<'_>) -> Option<&'static Section> {
    if !item.is_table() {
        item.mismatch("a table, such as `{ websocket = \"push\" }`");
        return None;
    }
    let members = item.members();
    let action = |item: &Item<'_>| keys::ROUTES.iter().find(|section| section.action().name == item.key()).copied();
    let mut actions = members.iter().filter_map(|item| action(item).map(|section| (item, section)));
    match (actions.next(), actions.next()) {
        (Some((_, section)), None) => Some(section),
        (Some((first, _)), Some((second, _))) => {
            let problem = Problem::error(second.key_span(), "a route has one action").label("a second action");
            second.note(
                problem.also(first.key_span(), "the first one is here").help("add a second route with another path"),
            );
            None
        }
        (None, _) => {
            let known = || keys::ROUTES.iter().map(|section| section.action().name);
            let mut problem = Problem::error(item.key_span(), "this route has no action").label("nothing to serve");
            problem = problem.help(format!("add one of {}", listed(known(), "or")));
            for member in &members {
                problem = problem.meant(member.key(), known());
            }
            item.note(problem);
            None
        }
    }
}

fn channels(item: Item<'_>) -> Option<Vec<Template>> {
    let Some(Kind::Templates(most)) = item.kind() else { unreachable!("`{}` is not a list of templates", item.key()) };
    let items = item.strings()?;
    if items.len() > most {
        item.note(item.error("too many channels for one route").label(format!("at most {most}")));
    }
    let mut channels: Vec<Template> = Vec::new();
    for item in items.into_iter().take(most) {
        let Some(channel) = item.channel() else { continue };
        if channels.contains(&channel) {
            item.note(item.error("this channel is listed twice").label("a client is subscribed once"));
        }
        channels.push(channel);
    }
    Some(channels)
}

fn methods(item: Item<'_>) -> Option<Vec<Method>> {
    let mut methods = Vec::new();
    for method in item.strings()?.iter().filter_map(|item| item.choice(&METHODS)) {
        if !methods.contains(&method) {
            methods.push(method);
        }
    }
    Some(methods)
}

fn index(item: Item<'_>) -> Option<Vec<String>> {
    let items = item.strings()?;
    for item in items.iter().filter(|item| item.as_text().is_some_and(|name| name.is_empty() || name.contains('/'))) {
        item.note(item.error("this is not a file name").label("an index is a file in the directory itself"));
    }
    Some(items.iter().filter_map(Item::as_text).map(str::to_owned).collect())
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

fn switched_on(item: &Item<'_>) -> Option<()> {
    if item.as_flag() == Some(true) {
        return Some(());
    }
    item.note(
        item.error(format!("`{}` takes `true`", item.key()))
            .label("expected `true`")
            .help("to switch it off, remove the route"),
    );
    None
}

/// Warns that `key` is set, but has an effect only with `needed`.
fn warn_idle(table: &Table<'_>, key: &str, needed: &str) {
    if let Some(item) = table.item(key) {
        let problem = Problem::warning(item.key_span(), format!("`{key}` has no effect here"));
        item.note(problem.label(format!("it needs {needed}")));
    }
}

// The words of the keys.
pub(super) const PAGES: [(&str, Page); 1] = [("live", Page::Live)];
pub(super) const ON_MESSAGE: [(&str, OnMessage); 3] =
    [("broadcast", OnMessage::Broadcast), ("echo", OnMessage::Echo), ("ignore", OnMessage::Ignore)];
pub(super) const ACCEPT: [(&str, Accept); 3] =
    [("both", Accept::Both), ("text", Accept::Text), ("binary", Accept::Binary)];
pub(super) const SESSION_LOG: [(&str, SessionLog); 3] =
    [("off", SessionLog::Off), ("connections", SessionLog::Connections), ("messages", SessionLog::Messages)];
pub(super) const METHODS: [(&str, Method); 3] = [("GET", Method::Get), ("POST", Method::Post), ("PUT", Method::Put)];
