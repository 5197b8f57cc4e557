//! `[server.NAME.routes]`: what each path serves.
//!
//! One key of a route is its action (`websocket`, `events`, `publish`, `static`, ...). The action decides which other keys the route may
//! have. A route that can never match, because another one takes the same paths, is an error.

use std::collections::HashMap;

use super::access::AccessKeys;
use super::addresses;
use super::hooks::Hooks;
use super::hubs::Hubs;
use super::keys::{self, Section};
use super::pattern::Paths;
use super::reader::{Item, Table, listed};
use super::redirect;
use super::report::{Problem, Span};
use super::tokens::{CLAIM, TokenTables};
use super::{
    Accept, Action, HubId, Method, OnMessage, Origins, Page, Pattern, PresenceRoute, Publish, Route, SessionLog,
    Template,
};

/// Reads the routes of one server.
pub(super) struct Routes<'r, 'a> {
    /// The hubs that routes may name.
    pub(super) hubs: &'r Hubs<'a>,
    /// The keys that routes may name.
    pub(super) access: &'r AccessKeys<'a>,
    /// The tokens that routes may name.
    pub(super) tokens: &'r TokenTables<'a>,
    /// The hooks that routes may name.
    pub(super) hooks: &'r Hooks<'a>,
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
        let is_tree = section == Some(&keys::STATIC) || redirect::is_tree(section, &item);
        let pattern = Pattern::parse(item.key(), is_tree);
        if let Err(help) = &pattern {
            let problem = Problem::error(item.key_span(), "this is not a path that can be served");
            item.note(problem.label(help.as_str()));
        } else if item.key().split('/').any(|segment| matches!(segment, "." | "..")) {
            let problem = Problem::error(item.key_span(), "this route can never match");
            item.note(problem.label("clients resolve `.` and `..` before they send a path"));
        }
        let parameters = pattern.as_ref().map(|pattern| pattern.names().collect::<Vec<_>>()).unwrap_or_default();
        let action = self.action(item.table(section?)?, &parameters);
        action.iter().for_each(|action| note_claims_without_token(&item, action));
        if let (Ok(pattern), Some(Action::Redirect(redirect))) = (&pattern, &action) {
            redirect::note_loop(&item, pattern, redirect);
        }
        Some(Route { pattern: pattern.ok()?, action: action? })
    }

    /// The action of a route whose path has these parameters.
    fn action(&self, table: Table<'a>, parameters: &[&str]) -> Option<Action> {
        let item = table.item(table.section().action().name)?;
        match item.key() {
            "websocket" => self.websocket(&table, &item).map(Action::WebSocket),
            "events" => self.events(&table, &item).map(Action::Events),
            "poll" => self.poll(&table, &item).map(Action::Poll),
            "publish" => self.publish(&table, &item).map(Action::Publish),
            "presence" => self.presence(&table, &item).map(Action::Presence),
            "static" => self.files(&table, &item).map(Action::Static),
            "redirect" => self.redirect(&table, &item, parameters).map(Action::Redirect),
            "page" => item.choice(&PAGES).map(Action::Page),
            "metrics" => switched_on(&item).map(|()| Action::Metrics),
            "health" => switched_on(&item).map(|()| Action::Health),
            _ => switched_on(&item).map(|()| Action::Ready),
        }
    }

    fn presence(&self, table: &Table<'a>, item: &Item<'a>) -> Option<PresenceRoute> {
        let hub = self.hubs.named_by(item);
        if let Some(hub) = hub.filter(|hub| !self.hubs.has_presence(*hub)) {
            let problem = item.error("a presence route needs a hub with presence");
            self.note_lack(item, hub, problem, "presence = true");
        }
        let channel = table.required("channel", "add the channel: `channel = \"{channel}\"`").and_then(|i| name(&i));
        let keys = self.access.of_route(table);
        Some(PresenceRoute {
            origins: self.origins(table),
            keys,
            tokens: self.tokens.of_route(table),
            hub: hub?,
            channel: channel?,
        })
    }

    /// Adds a `problem` with the hub that `item` names: it lacks the entry `needed`.
    pub(super) fn note_lack(&self, item: &Item<'a>, hub: HubId, problem: Problem, needed: &str) {
        let (name, span) = self.hubs.named(hub);
        let key = needed.split(' ').next().unwrap_or_default();
        let problem = problem.label(format!("`{name}` has no `{key}`")).also(span, "the hub is here");
        item.note(problem.help(format!("add `{needed}` to the hub")).absence());
    }

    fn publish(&self, table: &Table<'a>, item: &Item<'a>) -> Option<Publish> {
        let hub = self.hubs.named_by(item);
        let batch = table.flag("batch");
        let message = table.item("message");
        let methods = table.value("methods", |item| methods(*item));
        if batch {
            if let Some(item) = message {
                let problem = Problem::error(item.key_span(), "`message` cannot be used with `batch`");
                item.note(problem.label("the messages of a batch are in its body").help("remove `message`"));
            }
            if let Some(item) = table.item("methods").filter(|_| methods.iter().any(|method| *method != Method::Post)) {
                let problem = item.error("a batch can only be published by POST");
                item.note(problem.label("expected `[\"POST\"]`").help("remove `methods`, or `batch`"));
            }
        }
        let channel = match table.item("channel") {
            None if batch => Some(None),
            _ => {
                let help = "add the channel: `channel = \"all\"`";
                table.required("channel", help).and_then(|i| name(&i)).map(Some)
            }
        };
        Some(Publish {
            message: message.and_then(|i| i.template()),
            methods,
            origins: self.origins(table),
            keys: self.access.of_route(table),
            tokens: self.tokens.of_route(table),
            hook: self.hooks.of_route(table, "publish"),
            batch,
            hub: hub?,
            channel: channel?,
        })
    }

    pub(super) fn origins(&self, table: &Table<'a>) -> Origins {
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

/// Reports a template with a claim where no token has any.
fn note_claims_without_token(item: &Item<'_>, action: &Action) {
    let mut claims = action.templates().into_iter().flat_map(Template::names).filter(|name| name.starts_with(CLAIM));
    let has_tokens = item.members().iter().any(|member| member.key() == "tokens");
    if let Some(name) = claims.next().filter(|_| !has_tokens) {
        let problem = Problem::error(item.key_span(), format!("`{{{name}}}` has no value here"));
        item.note(problem.label("this route accepts no tokens").help("add `tokens = \"NAME\"`, and `[token.NAME]`"));
    }
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

/// A template for the name of one channel: one that is published to or asked about.
pub(super) fn name(item: &Item<'_>) -> Option<Template> {
    let template = item.channel()?;
    if template.is_pattern() {
        let problem = Problem::warning(item.span(), "`*` is a plain character here");
        item.note(problem.label("this is the name of one channel, not a pattern"));
    }
    Some(template)
}

/// Warns that `key` is set, but has an effect only with `needed`.
pub(super) fn warn_idle(table: &Table<'_>, key: &str, needed: &str) {
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
