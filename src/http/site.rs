//! The compiled routes of a server: their configuration, with references to hubs.

use std::collections::HashMap;
use std::sync::Arc;

use super::content::Bodies;
use super::fields::Fields;
use super::hosts::Hosts;
use super::neighbours::Neighbours;
use super::pages::Pages;
use super::redirect::Redirect;
use super::refusals::Refusals;
use super::routes::{Match, Routes};
use crate::config::{self, Action, CLAIM, HubId, Template};
use crate::grant::{Keyring, Verifier};
use crate::hook::Hook;
use crate::hub::Members;
use crate::session::Terms;
use crate::session::speech::{Plain, Speech};
use crate::tls::Acceptor;
use crate::wire::Transport;

/// A hub of the running server.
#[derive(Debug, Clone, PartialEq)]
pub struct HubInUse {
    /// Its number. It stays the same while the process runs, even if a reload changes the order of the file.
    pub id: HubId,
    /// Its configuration.
    pub hub: config::Hub,
    /// The number of its sessions.
    pub members: Members,
}

/// The routes of one server.
#[derive(Debug)]
pub struct Site {
    /// The configuration of the server.
    pub server: config::Server,
    /// The names it answers to.
    pub hosts: Hosts,
    /// Further header fields of its answers.
    pub headers: Fields,
    /// The sites that share its addresses.
    pub neighbours: Neighbours,
    /// What encrypts its connections; `None`: nothing.
    pub tls: Option<Acceptor>,
    /// The logs of refused clients.
    pub refusals: Refusals,
    /// The bytes of bodies that are being read.
    pub bodies: Bodies,
    routes: Routes,
    /// The handler of each route, by its number.
    handlers: Vec<Handler>,
    /// The terms of the routes that have sessions, by their path in the configuration file.
    terms: HashMap<String, Arc<Terms>>,
}

/// The handler of a route.
#[derive(Debug)]
pub enum Handler {
    /// Upgrades to a session.
    WebSocket(Box<WebSocketHandler>),
    /// Answers with a stream of events.
    Events(Box<EventsHandler>),
    /// Answers with what was published since a position.
    Poll(Box<PollHandler>),
    /// Publishes.
    Publish(Box<PublishHandler>),
    /// Answers who is on a channel.
    Presence(Box<PresenceHandler>),
    /// Serves files.
    Static(Arc<Pages>),
    /// Redirects.
    Redirect(Box<Redirect>),
    /// Serves the built-in page.
    Page(config::Page),
    /// Serves metrics.
    Metrics,
    /// Answers while the process runs.
    Health,
    /// Answers whether new clients are accepted.
    Ready,
}

/// The tokens of a route.
#[derive(Debug)]
pub struct Tokens {
    /// Checks them.
    pub verifier: Verifier,
    /// The claims that its templates need.
    pub claims: Vec<String>,
}

impl Tokens {
    /// Those of a route with this action.
    fn of(action: &Action) -> Option<Tokens> {
        let needed = action.templates().into_iter().flat_map(Template::needs);
        let claims = needed.filter_map(|name| name.strip_prefix(CLAIM)).map(str::to_owned).collect();
        Some(Tokens { verifier: Verifier::new(action.tokens()?), claims })
    }
}

/// A route that upgrades.
#[derive(Debug)]
pub struct WebSocketHandler {
    /// The configuration of the route.
    pub route: config::WebSocket,
    /// The terms of its sessions.
    pub terms: Arc<Terms>,
    /// The tokens that it accepts; `None`: no token is needed.
    pub tokens: Option<Tokens>,
    /// The hook that is asked whether a client may connect.
    pub hook: Option<Arc<Hook>>,
}

/// A route that answers with event streams.
#[derive(Debug)]
pub struct EventsHandler {
    /// The configuration of the route.
    pub route: config::Events,
    /// The terms of its sessions.
    pub terms: Arc<Terms>,
    /// The tokens that it accepts; `None`: no token is needed.
    pub tokens: Option<Tokens>,
    /// The hook that is asked whether a client may connect.
    pub hook: Option<Arc<Hook>>,
}

/// A route that answers polls.
#[derive(Debug)]
pub struct PollHandler {
    /// The configuration of the route.
    pub route: config::Poll,
    /// The terms of its sessions.
    pub terms: Arc<Terms>,
    /// The tokens that it accepts; `None`: no token is needed.
    pub tokens: Option<Tokens>,
    /// The hook that is asked whether a client may connect.
    pub hook: Option<Arc<Hook>>,
}

/// A route that publishes, with its hub.
#[derive(Debug)]
pub struct PublishHandler {
    /// The configuration of the route.
    pub route: config::Publish,
    /// The keys that it accepts; `None`: no key is needed.
    pub keys: Option<Keyring>,
    /// The tokens that it accepts; `None`: no token is needed.
    pub tokens: Option<Tokens>,
    /// The number of the hub.
    pub hub_id: HubId,
    /// The configuration of the hub.
    pub hub: config::Hub,
    /// The hook that is asked whether a message is published.
    pub hook: Option<Arc<Hook>>,
}

/// A route that answers who is on a channel, with its hub.
#[derive(Debug)]
pub struct PresenceHandler {
    /// The configuration of the route.
    pub route: config::PresenceRoute,
    /// The keys that it accepts; `None`: no key is needed.
    pub keys: Option<Keyring>,
    /// The tokens that it accepts; `None`: no token is needed.
    pub tokens: Option<Tokens>,
    /// The number of the hub.
    pub hub_id: HubId,
    /// The configuration of the hub.
    pub hub: config::Hub,
}

impl Handler {
    /// Whether a client must wait for the answer of a hook before its session begins.
    pub fn waits(&self) -> bool {
        match self {
            Handler::WebSocket(handler) => handler.hook.is_some(),
            Handler::Events(handler) => handler.hook.is_some(),
            Handler::Poll(handler) => handler.hook.is_some(),
            _ => false,
        }
    }

    /// The terms of its sessions, if it has sessions.
    fn terms(&self) -> Option<&Arc<Terms>> {
        match self {
            Handler::WebSocket(handler) => Some(&handler.terms),
            Handler::Events(handler) => Some(&handler.terms),
            Handler::Poll(handler) => Some(&handler.terms),
            _ => None,
        }
    }
}

/// The terms of the sessions of a route.
fn terms(
    server: &config::Server,
    route: &config::Route,
    subscription: &config::Subscription,
    hub: &HubInUse,
    transport: Transport,
    speech: Speech,
) -> Arc<Terms> {
    Arc::new(Terms {
        server: server.name.clone(),
        path: route.pattern.text().to_owned(),
        transport,
        log: subscription.log,
        speech,
        hub_id: hub.id,
        hub: hub.hub.clone(),
        members: hub.members.clone(),
        token_keys: subscription.tokens.as_ref().map(|tokens| Verifier::new(tokens).key_numbers()),
    })
}

impl Site {
    /// The site of `server`, on a machine with the names `machine`. Its routes refer to hubs by their index in `hubs`,
    /// and to hooks by their names.
    pub fn new(
        server: &config::Server,
        hubs: &[HubInUse],
        machine: &[String],
        hooks: &HashMap<Arc<str>, Arc<Hook>>,
    ) -> Site {
        let hook = |name: &Option<Arc<str>>| name.as_ref().map(|name| hooks[name].clone());
        let terms = |route: &config::Route, subscription: &config::Subscription, transport, speech| {
            terms(server, route, subscription, &hubs[subscription.hub.0 as usize], transport, speech)
        };
        let handler = |route: &config::Route| match &route.action {
            Action::WebSocket(socket) => {
                let speech = Speech::Plain(Plain::from(socket));
                let terms = terms(route, &socket.subscription, Transport::WebSocket, speech);
                let (tokens, hook) = (Tokens::of(&route.action), hook(&socket.subscription.hook));
                Handler::WebSocket(Box::new(WebSocketHandler { route: socket.clone(), terms, tokens, hook }))
            }
            Action::Events(events) => {
                let speech = Speech::Plain(Plain::receiving(events.event.clone()));
                let terms = terms(route, &events.subscription, Transport::EventStream, speech);
                let (tokens, hook) = (Tokens::of(&route.action), hook(&events.subscription.hook));
                Handler::Events(Box::new(EventsHandler { route: events.clone(), terms, tokens, hook }))
            }
            Action::Poll(poll) => {
                let speech = Speech::Plain(Plain::receiving(None));
                let terms = terms(route, &poll.subscription, Transport::Poll, speech);
                let (tokens, hook) = (Tokens::of(&route.action), hook(&poll.subscription.hook));
                Handler::Poll(Box::new(PollHandler { route: poll.clone(), terms, tokens, hook }))
            }
            Action::Publish(publish) => {
                let hub = &hubs[publish.hub.0 as usize];
                Handler::Publish(Box::new(PublishHandler {
                    route: publish.clone(),
                    keys: publish.keys.as_deref().map(Keyring::new),
                    tokens: Tokens::of(&route.action),
                    hub_id: hub.id,
                    hub: hub.hub.clone(),
                    hook: hook(&publish.hook),
                }))
            }
            Action::Presence(presence) => {
                let HubInUse { id, hub, .. } = &hubs[presence.hub.0 as usize];
                let tokens = Tokens::of(&route.action);
                let (route, hub) = (presence.clone(), hub.clone());
                let keys = route.keys.as_deref().map(Keyring::new);
                Handler::Presence(Box::new(PresenceHandler { route, keys, tokens, hub_id: *id, hub }))
            }
            Action::Static(pages) => Handler::Static(Pages::new(pages)),
            Action::Redirect(redirect) => Handler::Redirect(Box::new(Redirect::new(redirect, &route.pattern))),
            Action::Page(page) => Handler::Page(*page),
            Action::Metrics => Handler::Metrics,
            Action::Health => Handler::Health,
            Action::Ready => Handler::Ready,
        };
        let handlers: Vec<Handler> = server.routes.iter().map(handler).collect();
        let terms = handlers.iter().filter_map(Handler::terms).map(|terms| (terms.path.clone(), terms.clone()));
        Site {
            hosts: Hosts::new(server, machine),
            headers: Fields::new(&server.headers),
            neighbours: Neighbours::default(),
            tls: server.tls.as_ref().and_then(Acceptor::new),
            refusals: Refusals::default(),
            bodies: Bodies::default(),
            routes: Routes::new(server.routes.iter().map(|route| route.pattern.clone())),
            terms: terms.collect(),
            handlers,
            server: server.clone(),
        }
    }

    /// The handler of `path` (percent-encoded), and its match.
    pub fn find<'s>(&'s self, path: &'s str) -> Option<(&'s Handler, Match<'s>)> {
        self.routes.find(path).map(|(route, found)| (&self.handlers[route], found))
    }

    /// Whether a route serves event streams.
    pub fn has_events(&self) -> bool {
        self.handlers.iter().any(|handler| matches!(handler, Handler::Events(_)))
    }

    /// The terms of the sessions of the route with this path in the configuration file.
    pub fn terms(&self, path: &str) -> Option<&Arc<Terms>> {
        self.terms.get(path)
    }
}
