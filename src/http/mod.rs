//! HTTP: hyper reads requests, a [`Site`] finds the handler of each request, and a [`Backend`] does everything that needs the hub.
//!
//! - [`connection`] serves one connection, and passes its socket to the backend when a request upgrades; `linger` ends it.
//!   [`opening`] answers the usual handshake without hyper.
//! - `guard` checks each request where hyper is too lenient. `content` reads the content of each request, used or not.
//! - `neighbours` finds the site that a request names, `hosts` decides which names the server answers to, `origin` which pages may use a
//!   route, `reader` which may read an answer. `secure` sends every request to https.
//! - `authorization` asks for a key where a route needs one.
//! - `hooked` asks the backend where a route has a hook.
//! - `upgrade` is the WebSocket handshake, [`events`] the event streams, `poll` the polls, `publish` publishing, [`batch`] and
//!   `publish_batch` publishing several messages, `presence` who is on a channel, [`pages`] the files, `redirect` what has moved, [`status`] metrics and health.
//! - [`access`] writes a line for each request.
//!
//! This module does not know how sessions are stored: that is the task of the backend.

mod accept;
pub mod access;
pub mod answer;
mod arguments;
mod authorization;
pub mod batch;
pub mod body;
pub mod connection;
mod content;
pub mod events;
mod extension;
mod fields;
mod guard;
mod head;
mod hooked;
mod hosts;
mod linger;
mod neighbours;
pub mod opening;
mod origin;
pub mod pages;
mod poll;
mod presence;
mod progress;
mod publish;
mod publish_batch;
mod reader;
mod redirect;
mod refusals;
mod resuming;
pub mod routes;
mod secure;
pub mod site;
pub mod status;
mod subscription;
mod upgrade;

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};

use crate::config::limits::{PATH_BYTES_MAX, REFUSAL_PATIENCE};
use crate::config::{HubId, Subscription};
use crate::hub::presence::Attendees;
use crate::hub::{Message, Outcome as Published, Partition, Position};
use crate::session::Arrival;
use answer::Answer;
use arguments::Arguments;
use body::Body;
use content::Content;
pub use neighbours::{Neighbours, sites};
use pages::Files;
use reader::Reader;
use refusals::shortened;
use routes::Match;
pub use site::{Handler, HubInUse, Site};
pub use status::{Sample, SampleKind};
use upgrade::Upgrade;

/// The built-in page.
const LIVE_PAGE: &str = include_str!("live.html");
/// The routes that it uses beside `/ws` and `/publish/{channel}`, as it lists them: a WebSocket with envelopes, and an event stream.
const LIVE_PAGE_ROUTES: &str = "/live /events";

/// The server behind HTTP.
pub trait Backend: Clone + 'static {
    /// A connection.
    type Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static;

    /// The present site of a server. `None`: a reload removed it.
    fn site(&self, server: &str) -> Option<Arc<Site>>;

    /// Publishes. A message whose `key` is known on its channel was published before, and is answered as then. Returns what became of
    /// the message. `None`: there was no room for it.
    fn publish(&self, message: Message, key: Option<Box<str>>) -> impl Future<Output = Option<Published>>;

    /// Publishes several messages with their keys in one step. Returns what became of each; `None` for one that was still on its way when
    /// its shard ended. `None` for all: there was no room, and none of them is published.
    fn publish_all(
        &self,
        messages: Vec<(Message, Option<Box<str>>)>,
    ) -> impl Future<Output = Option<Vec<Option<Published>>>>;

    /// The position up to which everything of a hub has passed here. `None`: the hub has no history.
    fn position(&self, hub: HubId) -> Option<Position>;

    /// Asks who is on a channel, of which `partition` names the owner. `None`: there was no room for the question.
    fn attendees(&self, hub: HubId, channel: Arc<str>, partition: Partition)
    -> impl Future<Output = Option<Attendees>>;

    /// Makes a session of an upgraded connection.
    fn adopt(&self, io: Self::Io, arrival: Arrival);

    /// Reads what the kernel has received, even if the runtime was not notified of it yet.
    ///
    /// # Errors
    /// The error of the system call; [`std::io::ErrorKind::WouldBlock`] if there is nothing.
    fn read_now(io: &mut Self::Io, buffer: &mut [u8]) -> std::io::Result<usize>;

    /// Limits the bytes of a connection that the kernel buffers and has not sent yet.
    fn bound_unsent(io: &Self::Io);

    /// Whether another process will continue: connections without a request in flight can be put aside for it.
    fn hands_over(&self) -> bool;

    /// Puts a connection to `server` aside for that process, with the bytes that were read of its next request.
    fn put_aside(&self, io: Self::Io, early: Bytes, server: &Arc<str>);

    /// The files that answers are read from.
    fn files(&self) -> Files;

    /// Counts a request answered with this status.
    fn answered(&self, status: StatusCode);

    /// The figures of all shards.
    fn samples(&self) -> Vec<Sample>;

    /// Whether the server ends and no other process continues.
    fn is_draining(&self) -> bool;
}

/// The connection of a request.
#[derive(Debug, Clone)]
pub struct Client {
    /// NAME in `[server.NAME]`.
    pub server: Arc<str>,
    /// The peer, as the log names it.
    pub peer: String,
    /// The address of the peer; `None`: it has none, or none is known.
    pub address: Option<IpAddr>,
    /// Whether it came in on a loopback address or a Unix socket.
    pub on_loopback: bool,
    /// Whether it is part of the reserve. The reserve serves short requests only, such as metrics and publishing.
    pub is_reserve: bool,
}

/// The answer to a request that can be answered at once: a refusal, or a file in memory. `None`: [`respond`] answers it.
fn respond_at_once<B: Backend>(request: &Request<Incoming>, client: &Client, backend: &B) -> Option<Answer> {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    let length = request.body().size_hint().exact();
    if let Err(refusal) = guard::check(method, uri, request.version(), headers, length) {
        log::debug!("{} {method} {} refused: {}", client.peer, uri.path(), refusal.why());
        let answer = refusal.answer();
        access::note(&client.peer, access::Asked { method, uri, version: request.version(), headers }, &answer);
        return Some(answer);
    }
    if length != Some(0) || uri.authority().is_some() || uri.path().len() > PATH_BYTES_MAX || client.is_reserve {
        return None;
    }
    let front = backend.site(&client.server)?;
    let site = front.neighbours.find(uri, headers).unwrap_or(&front);
    if !site.hosts.allow(uri, headers) {
        return None;
    }
    let (Handler::Static(pages), found) = site.find(uri.path())? else { return None };
    let mut answer = pages::at_hand(&pages.ask(method, uri, headers, found.rest).from(&site.hosts, client))?;
    site.headers.add(answer.headers_mut());
    log::debug!("{} {method} {} {}", client.peer, uri.path(), answer.status().as_u16());
    access::note(&client.peer, access::Asked { method, uri, version: request.version(), headers }, &answer);
    Some(answer)
}

/// Checks that the request has a name that the server answers to.
fn check_name(head: &Parts, site: &Site) -> Result<(), Box<Answer>> {
    if site.hosts.allow(&head.uri, &head.headers) {
        return Ok(());
    }
    let why = site.hosts.refusal(&site.server.name, &head.uri, &head.headers);
    Err(Box::new(answer::text(StatusCode::MISDIRECTED_REQUEST, why)))
}

/// The handler of a request that passed the [`guard`], or the answer if there is none.
fn find<'s>(head: &'s Parts, site: &'s Site) -> Result<(&'s Handler, Match<'s>), Box<Answer>> {
    let path = head.uri.path();
    check_name(head, site)?;
    if path.len() > PATH_BYTES_MAX {
        let sentence = format!("a path has at most {PATH_BYTES_MAX} bytes");
        return Err(Box::new(answer::text(StatusCode::URI_TOO_LONG, sentence)));
    }
    site.find(path).ok_or_else(|| Box::new(answer::text(StatusCode::NOT_FOUND, unserved(&head.method, path))))
}

/// The result of a request.
enum Outcome {
    /// An answer, after which the connection serves the next request.
    Answer(Answer),
    /// An answer, after which the connection leaves hyper.
    Upgrade(Answer, Box<Upgrade>),
    /// A response that the session writes: the connection leaves hyper at once.
    Stream(Box<Arrival>),
}

/// Serves one request that passed the [`guard`].
async fn respond<B: Backend>(request: Request<Incoming>, client: &Client, backend: &B) -> Outcome {
    let (mut head, body) = request.into_parts();
    let Some(front) = backend.site(&client.server) else {
        let refusal = answer::text(StatusCode::SERVICE_UNAVAILABLE, "this server is no longer configured");
        return Outcome::Answer(answer::closing(refusal));
    };
    let site = front.neighbours.find(&head.uri, &head.headers).unwrap_or(&front);
    // The host of a URL in the target replaces Host (RFC 9112, section 3.2.2). The check of the origin uses it.
    let host = head.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(host) = host {
        head.headers.insert(HOST, host);
    }
    // A client of the reserve must not occupy it by sending nothing.
    let body_timeout = site.server.body_timeout.min(if client.is_reserve { REFUSAL_PATIENCE } else { Duration::MAX });
    let mut content = Content::new(body, &head.headers, body_timeout, &site.bodies);
    let answer = match outcome(&head, &mut content, site, client, backend).await {
        Ok(Outcome::Answer(answer)) => answer,
        Ok(leaving) => {
            let status =
                if matches!(leaving, Outcome::Stream(_)) { StatusCode::OK } else { StatusCode::SWITCHING_PROTOCOLS };
            access::note_session(&client.peer, access::Asked::of(&head), status);
            return leaving;
        }
        Err(refusal) => {
            site.refusals.log(&refusal, &client.peer, head.uri.path());
            *refusal
        }
    };
    let mut answer = content.settle(answer).await;
    site.headers.add(answer.headers_mut());
    log::debug!("{} {} {} {}", client.peer, head.method, head.uri.path(), answer.status().as_u16());
    access::note(&client.peer, access::Asked::of(&head), &answer);
    Outcome::Answer(answer)
}

/// Serves a request by its route, or returns the reason for a refusal.
async fn outcome<B: Backend>(
    head: &Parts,
    content: &mut Content,
    site: &Site,
    client: &Client,
    backend: &B,
) -> Result<Outcome, Box<Answer>> {
    if head.uri.path() == "*" {
        check_name(head, site)?;
        return Ok(Outcome::Answer(answer::options(guard::ALLOW)));
    }
    if let Some(port) = site.server.redirects {
        check_name(head, site)?;
        return Ok(Outcome::Answer(secure::redirect(head, port)));
    }
    let (handler, found) = find(head, site)?;
    let rest = found.rest;
    let arguments = Arguments::new(found.parameters, head.uri.query());
    let answer = match handler {
        Handler::WebSocket(_) if backend.is_draining() => {
            return Err(unavailable("the server is ending, try again later"));
        }
        Handler::WebSocket(_) | Handler::Static(_) if client.is_reserve => {
            return Err(unavailable("the server holds as many connections as it may, try later"));
        }
        Handler::WebSocket(handler) => {
            let agreed = upgrade::agree(head, &arguments, handler, site, client.on_loopback)?;
            let mut upgrade = agreed.with_content(content).await?;
            let hook = handler.hook.as_ref();
            if let Err(refused) = hooked::connect(hook, head, &arguments, &mut upgrade.arrival, client).await {
                return Ok(Outcome::Answer(refused.answer()));
            }
            let answer = std::mem::replace(&mut upgrade.answer, Response::new(Body::empty()));
            return Ok(Outcome::Upgrade(answer, Box::new(upgrade)));
        }
        Handler::Events(handler) => {
            expect_no_content(content, &handler.route.subscription, head, site, client)?;
            let has_room = !backend.is_draining() && !client.is_reserve;
            let arrival = events::respond(handler, head, &arguments, site, client.on_loopback, has_room)?;
            let (hook, subscription) = (handler.hook.as_ref(), &handler.route.subscription);
            return hooked::stream(hook, subscription, head, &arguments, arrival, site, client).await;
        }
        Handler::Poll(handler) => {
            expect_no_content(content, &handler.route.subscription, head, site, client)?;
            let has_room = !backend.is_draining() && !client.is_reserve;
            let position = || backend.position(handler.terms.hub_id);
            let arrival = poll::respond(handler, head, &arguments, site, client.on_loopback, has_room, position)?;
            let (hook, subscription) = (handler.hook.as_ref(), &handler.route.subscription);
            return hooked::stream(hook, subscription, head, &arguments, arrival, site, client).await;
        }
        Handler::Publish(handler) => publish::respond(handler, head, content, arguments, site, client, backend).await,
        Handler::Presence(handler) => presence::respond(handler, head, &arguments, site, client, backend).await?,
        Handler::Static(pages) => {
            let ask = pages.ask(&head.method, &head.uri, &head.headers, rest).from(&site.hosts, client);
            pages::respond(pages, &backend.files(), &ask).await
        }
        Handler::Redirect(redirect) => redirect.respond(&head.uri, &arguments, rest),
        Handler::Page(_) => reading(&head.method, || live_page(site)),
        Handler::Metrics => reading(&head.method, || status::metrics(&backend.samples())),
        Handler::Health => reading(&head.method, status::health),
        Handler::Ready => reading(&head.method, || status::ready(backend.is_draining())),
    };
    Ok(Outcome::Answer(answer))
}

/// Refuses a request with content where a session begins, which takes the connection.
fn expect_no_content(
    content: &Content,
    subscription: &Subscription,
    head: &Parts,
    site: &Site,
    client: &Client,
) -> Result<(), Box<Answer>> {
    if content.is_none() {
        return Ok(());
    }
    let reader = Reader::check(&subscription.origins, head, &site.hosts, client.on_loopback)?;
    reader.check_method(&head.method)?;
    Err(reader.allowed(answer::text(StatusCode::BAD_REQUEST, "a request for an event stream or a poll has no body")))
}

fn unavailable(sentence: &str) -> Box<Answer> {
    Box::new(answer::text(StatusCode::SERVICE_UNAVAILABLE, sentence))
}

fn unserved(method: &Method, path: &str) -> String {
    let path = shortened(path);
    match *method {
        Method::POST | Method::PUT => format!("no route serves {path}, and none publishes there"),
        _ => format!("no route serves {path}"),
    }
}

/// Answers GET and HEAD (hyper omits the body of a HEAD).
fn reading(method: &Method, answer: impl FnOnce() -> Answer) -> Answer {
    match *method {
        Method::GET | Method::HEAD => answer(),
        Method::OPTIONS => answer::options("GET, HEAD, OPTIONS"),
        _ => answer::read_only("GET, HEAD, OPTIONS"),
    }
}

/// The built-in page, with the routes that it uses where the server has them.
fn live_page(site: &Site) -> Answer {
    let has_route = |path: &&str| match site.find(path) {
        Some((Handler::WebSocket(handler), _)) => handler.route.envelope,
        Some((Handler::Events(_), _)) => true,
        _ => false,
    };
    let routes = LIVE_PAGE_ROUTES.split(' ').filter(has_route).collect::<Vec<_>>().join(" ");
    let page =
        LIVE_PAGE.replacen(&format!("data-routes=\"{LIVE_PAGE_ROUTES}\""), &format!("data-routes=\"{routes}\""), 1);
    let mut answer = Response::new(Body::from(page));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}
