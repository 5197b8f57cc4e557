//! A server's table of routes, ready to answer: what the configuration says, with its hubs looked up.

use std::collections::HashMap;
use std::sync::Arc;

use super::content::Bodies;
use super::hosts::Hosts;
use super::refusals::Refusals;
use super::routes::{Match, Routes};
use crate::config::{self, Action, HubId};
use crate::hub::Members;
use crate::session::Terms;
use crate::session::speech::{Plain, Speech};

/// A hub as the running server knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct HubInUse {
    /// Its number, the same for as long as the process lives, whatever a reload does to the order of the file.
    pub id: HubId,
    /// What the configuration says of it.
    pub hub: config::Hub,
    /// Who is on it.
    pub members: Members,
}

/// The routes of one server.
#[derive(Debug)]
pub struct Site {
    /// What the configuration says of the server.
    pub server: config::Server,
    /// The names it answers to.
    pub hosts: Hosts,
    /// What the log is told of refused clients.
    pub refusals: Refusals,
    /// What the bodies hold that are being read.
    pub bodies: Bodies,
    routes: Routes,
    /// What each route does, by its number.
    handlers: Vec<Handler>,
    /// The terms of the routes that have sessions, by their path as the file writes it.
    terms: HashMap<String, Arc<Terms>>,
}

/// What serves a request.
#[derive(Debug)]
pub enum Handler {
    /// Upgrades to a session.
    WebSocket(Box<WebSocketHandler>),
    /// Answers with a stream of events.
    Events(Box<EventsHandler>),
    /// Publishes.
    Publish(Box<PublishHandler>),
    /// Files.
    Static(config::Static),
    /// The page pushd carries in itself.
    Page(config::Page),
    /// Counters.
    Metrics,
    /// Whether the process lives.
    Health,
    /// Whether new clients are welcome.
    Ready,
}

/// A route that upgrades.
#[derive(Debug)]
pub struct WebSocketHandler {
    /// What the handshake goes by.
    pub route: config::WebSocket,
    /// What its sessions may do.
    pub terms: Arc<Terms>,
}

/// A route that answers with event streams.
#[derive(Debug)]
pub struct EventsHandler {
    /// What the request goes by.
    pub route: config::Events,
    /// What its sessions may do.
    pub terms: Arc<Terms>,
}

/// A route that publishes, with its hub.
#[derive(Debug)]
pub struct PublishHandler {
    /// The route.
    pub route: config::Publish,
    /// The hub's number for as long as the process lives.
    pub hub_id: HubId,
    /// The hub.
    pub hub: config::Hub,
}

impl Handler {
    /// The terms of its sessions, where it has some.
    fn terms(&self) -> Option<&Arc<Terms>> {
        match self {
            Handler::WebSocket(handler) => Some(&handler.terms),
            Handler::Events(handler) => Some(&handler.terms),
            _ => None,
        }
    }
}

impl Site {
    /// The site of `server`, whose routes name hubs by their place in `hubs`, on a machine with the names `machine`.
    pub fn new(server: &config::Server, hubs: &[HubInUse], machine: &[String]) -> Site {
        let terms = |route: &config::Route, subscription: &config::Subscription, speech| {
            let hub = &hubs[subscription.hub.0 as usize];
            Arc::new(Terms {
                server: server.name.clone(),
                path: route.pattern.text().to_owned(),
                log: subscription.log,
                speech,
                hub_id: hub.id,
                hub: hub.hub.clone(),
                members: hub.members.clone(),
            })
        };
        let handler = |route: &config::Route| match &route.action {
            Action::WebSocket(socket) => {
                let speech = Speech::Plain(Plain::from(socket));
                let terms = terms(route, &socket.subscription, speech);
                Handler::WebSocket(Box::new(WebSocketHandler { route: socket.clone(), terms }))
            }
            Action::Events(events) => {
                let speech = Speech::Plain(Plain::receiving(events.event.clone()));
                let terms = terms(route, &events.subscription, speech);
                Handler::Events(Box::new(EventsHandler { route: events.clone(), terms }))
            }
            Action::Publish(publish) => {
                let hub = &hubs[publish.hub.0 as usize];
                Handler::Publish(Box::new(PublishHandler {
                    route: publish.clone(),
                    hub_id: hub.id,
                    hub: hub.hub.clone(),
                }))
            }
            Action::Static(pages) => Handler::Static(pages.clone()),
            Action::Page(page) => Handler::Page(*page),
            Action::Metrics => Handler::Metrics,
            Action::Health => Handler::Health,
            Action::Ready => Handler::Ready,
        };
        let handlers: Vec<Handler> = server.routes.iter().map(handler).collect();
        let terms = handlers.iter().filter_map(Handler::terms).map(|terms| (terms.path.clone(), terms.clone()));
        Site {
            hosts: Hosts::new(server, machine),
            refusals: Refusals::default(),
            bodies: Bodies::default(),
            routes: Routes::new(server.routes.iter().map(|route| route.pattern.clone())),
            terms: terms.collect(),
            handlers,
            server: server.clone(),
        }
    }

    /// The handler that serves `path` (percent-encoded), and what the path gave its pattern.
    pub fn find<'s>(&'s self, path: &'s str) -> Option<(&'s Handler, Match<'s>)> {
        self.routes.find(path).map(|(route, found)| (&self.handlers[route], found))
    }

    /// Whether a route serves event streams.
    pub fn has_events(&self) -> bool {
        self.handlers.iter().any(|handler| matches!(handler, Handler::Events(_)))
    }

    /// The terms of the sessions of the route at `path`, as the file writes it.
    pub fn terms(&self, path: &str) -> Option<&Arc<Terms>> {
        self.terms.get(path)
    }
}
