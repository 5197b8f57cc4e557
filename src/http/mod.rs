//! The edge: hyper reads requests, a [`Site`] finds the handler that serves each, and a [`Backend`] does what needs the hub.
//!
//! [`connection`] drives one connection and hands its socket over when a request upgrades, and `linger` ends it; [`opening`] is the
//! handshake that needs no hyper. Each request passes the `guard`, which knows what hyper is too lenient with; its `content` is read whether
//! or not the request has a use for it. `upgrade` is the handshake, `publish` the way in over HTTP, [`pages`] the files, [`status`] what the
//! server says of itself. `hosts` decides which names the server answers to, `origin` which pages may talk to a route. Nothing here
//! knows how sessions are kept: that is behind the trait.

pub mod answer;
mod arguments;
pub mod body;
pub mod connection;
mod content;
pub mod events;
mod extension;
mod guard;
mod head;
mod hosts;
mod linger;
pub mod opening;
mod origin;
pub mod pages;
mod progress;
mod publish;
mod refusals;
pub mod routes;
pub mod site;
pub mod status;
mod subscription;
mod upgrade;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};

use crate::config::limits::{PATH_BYTES_MAX, REFUSAL_PATIENCE};
use crate::hub::Message;
use crate::session::Arrival;
use answer::Answer;
use arguments::Arguments;
use body::Body;
use content::Content;
use pages::Files;
use refusals::shown;
use routes::Match;
pub use site::{Handler, HubInUse, Site};
pub use status::{Sample, SampleKind};
use upgrade::Upgrade;

/// The page that pushd carries in itself.
const LIVE_PAGE: &str = include_str!("live.html");

/// What the edge needs of the server behind it.
pub trait Backend: Clone + 'static {
    /// A connection.
    type Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static;

    /// The site of a server as it is now; `None` where a reload removed it.
    fn site(&self, server: &str) -> Option<Arc<Site>>;

    /// Publishes; how many subscribers it was queued for, or `None` where there is no handler for it.
    fn publish(&self, message: Message) -> impl Future<Output = Option<u64>>;

    /// Takes over the connection of a client that was upgraded.
    fn adopt(&self, io: Self::Io, arrival: Arrival);

    /// Reads what the kernel has for a connection at this moment, whatever the runtime knows of it.
    ///
    /// # Errors
    /// What the system says; where there is nothing, [`std::io::ErrorKind::WouldBlock`].
    fn read_now(io: &Self::Io, buffer: &mut [u8]) -> std::io::Result<usize>;

    /// Has the kernel keep little of what is written to a connection, beyond what is on its way.
    fn bound_unsent(io: &Self::Io);

    /// Whether connections without a request in flight can be put aside for the process that comes after this one.
    fn hands_over(&self) -> bool;

    /// Keeps a connection that came in on `server` for that process, with what was read of its next request.
    fn put_aside(&self, io: Self::Io, early: Bytes, server: &Arc<str>);

    /// The files that answers are read from.
    fn files(&self) -> Files;

    /// Counts a request answered with this status.
    fn answered(&self, status: StatusCode);

    /// The figures of all shards.
    fn samples(&self) -> Vec<Sample>;

    /// Whether the server is ending, and not to go on in another process.
    fn is_draining(&self) -> bool;
}

/// Where a request came from.
#[derive(Debug, Clone)]
pub struct Client {
    /// NAME in `[server.NAME]`.
    pub server: Arc<str>,
    /// Who asks, as the log names it.
    pub peer: String,
    /// Whether it came in on a loopback address or a Unix socket.
    pub on_loopback: bool,
    /// Whether it has a place of the reserve, which is for what ends with its answer and tells how the server is.
    pub is_reserve: bool,
}

/// The answer to a request that needs no waiting: a refusal, or a page that lies in memory. `None`: [`respond`] answers it.
fn respond_at_hand<B: Backend>(request: &Request<Incoming>, client: &Client, backend: &B) -> Option<Answer> {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    let length = request.body().size_hint().exact();
    if let Err(refusal) = guard::check(method, uri, request.version(), headers, length) {
        log::debug!("{} {method} {uri} refused: {}", client.peer, refusal.why());
        return Some(refusal.answer());
    }
    if length != Some(0) || uri.authority().is_some() || uri.path().len() > PATH_BYTES_MAX || client.is_reserve {
        return None;
    }
    let site = backend.site(&client.server)?;
    if !site.hosts.answer(uri, headers) {
        return None;
    }
    let (Handler::Static(pages), found) = site.find(uri.path())? else { return None };
    let answer = pages::at_hand(pages, method, uri, headers, found.rest)?;
    log::debug!("{} {method} {} {}", client.peer, uri.path(), answer.status().as_u16());
    Some(answer)
}

/// Whether the server answers to the name it is called by.
fn check_name(head: &Parts, site: &Site) -> Result<(), Box<Answer>> {
    if site.hosts.answer(&head.uri, &head.headers) {
        return Ok(());
    }
    let why = site.hosts.refusal(&site.server.name, &head.uri, &head.headers);
    Err(Box::new(answer::text(StatusCode::MISDIRECTED_REQUEST, why)))
}

/// The handler that serves a request that passed the [`guard`], or the answer where none does.
fn find<'s>(head: &'s Parts, site: &'s Site) -> Result<(&'s Handler, Match<'s>), Box<Answer>> {
    let path = head.uri.path();
    check_name(head, site)?;
    if path.len() > PATH_BYTES_MAX {
        let sentence = format!("a path has at most {PATH_BYTES_MAX} bytes");
        return Err(Box::new(answer::text(StatusCode::URI_TOO_LONG, sentence)));
    }
    site.find(path).ok_or_else(|| Box::new(answer::text(StatusCode::NOT_FOUND, unserved(&head.method, path))))
}

/// What a request comes to.
enum Outcome {
    /// An answer, after which the connection takes the next request.
    Answer(Answer),
    /// An answer, after which the connection leaves hyper.
    Upgrade(Answer, Box<Upgrade>),
    /// A response that the session writes: the connection leaves hyper at once.
    Stream(Box<Arrival>),
}

/// Serves one request that passed the [`guard`].
async fn respond<B: Backend>(request: Request<Incoming>, client: &Client, backend: &B) -> Outcome {
    let (mut head, body) = request.into_parts();
    let Some(site) = backend.site(&client.server) else {
        let refusal = answer::text(StatusCode::SERVICE_UNAVAILABLE, "this server is no longer configured");
        return Outcome::Answer(answer::closing(refusal));
    };
    // A target that is a whole URL is the host that counts (RFC 9112, section 3.2.2); which pages may talk to a route is decided by it.
    let host = head.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(host) = host {
        head.headers.insert(HOST, host);
    }
    // A client of the reserve must not hold its place by sending nothing.
    let body_timeout = site.server.body_timeout.min(if client.is_reserve { REFUSAL_PATIENCE } else { Duration::MAX });
    let mut content = Content::new(body, &head.headers, body_timeout, &site.bodies);
    let answer = match outcome(&head, &mut content, &site, client, backend).await {
        Ok(Outcome::Answer(answer)) => answer,
        Ok(leaving) => return leaving,
        Err(refusal) => {
            site.refusals.tell(&refusal, &client.peer, head.uri.path());
            *refusal
        }
    };
    let answer = content.settle(answer).await;
    log::debug!("{} {} {} {}", client.peer, head.method, head.uri.path(), answer.status().as_u16());
    Outcome::Answer(answer)
}

/// What the route of a request makes of it, or why none does.
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
            let answer = std::mem::replace(&mut upgrade.answer, Response::new(Body::empty()));
            return Ok(Outcome::Upgrade(answer, Box::new(upgrade)));
        }
        Handler::Events(handler) => {
            let has_room = !backend.is_draining() && !client.is_reserve;
            let arrival = events::respond(handler, head, &arguments, site, client.on_loopback, has_room)?;
            if content.is_none() {
                return Ok(Outcome::Stream(Box::new(arrival)));
            }
            answer::text(StatusCode::BAD_REQUEST, "the request of an event stream has no body")
        }
        Handler::Publish(handler) => publish::respond(handler, head, content, arguments, site, client, backend).await,
        Handler::Static(pages) => {
            pages::respond(pages, &backend.files(), &head.method, &head.uri, &head.headers, rest).await
        }
        Handler::Page(_) => reading(&head.method, live_page),
        Handler::Metrics => reading(&head.method, || status::metrics(&backend.samples())),
        Handler::Health => reading(&head.method, status::health),
        Handler::Ready => reading(&head.method, || status::ready(backend.is_draining())),
    };
    Ok(Outcome::Answer(answer))
}

fn unavailable(sentence: &str) -> Box<Answer> {
    Box::new(answer::text(StatusCode::SERVICE_UNAVAILABLE, sentence))
}

fn unserved(method: &Method, path: &str) -> String {
    let path = shown(path);
    match *method {
        Method::POST | Method::PUT => format!("no route serves {path}, and none publishes there"),
        _ => format!("no route serves {path}"),
    }
}

/// What is only read: GET and HEAD (hyper leaves a HEAD's body out).
fn reading(method: &Method, answer: impl FnOnce() -> Answer) -> Answer {
    match *method {
        Method::GET | Method::HEAD => answer(),
        Method::OPTIONS => answer::options("GET, HEAD, OPTIONS"),
        _ => answer::read_only("GET, HEAD, OPTIONS"),
    }
}

fn live_page() -> Answer {
    let mut answer = Response::new(Body::from(LIVE_PAGE));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}
