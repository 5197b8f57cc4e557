//! The edge: hyper reads requests, a [`Site`] finds the room that serves each, and a [`Backend`] does what needs the hub.
//!
//! [`connection`] drives one connection and hands its socket over when a request upgrades; `upgrade` is the handshake, `publish` the
//! way in over HTTP, [`pages`] the files, [`status`] what the server says of itself. `origin` decides which pages may
//! talk to a route. Nothing here knows how sessions are kept: that is behind the trait.

pub mod answer;
mod arguments;
pub mod body;
pub mod connection;
mod extension;
mod origin;
pub mod pages;
mod progress;
mod publish;
pub mod site;
pub mod status;
mod upgrade;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use crate::hub::Publication;
use crate::session::Arrival;
use answer::Answer;
use arguments::Arguments;
use body::Body;
use pages::Files;
pub use site::{HubInUse, Room, Site};
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

    /// Publishes; how many subscribers it was queued for, or `None` where there is no room for it.
    fn publish(&self, publication: Publication) -> impl Future<Output = Option<u64>>;

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
pub struct Origin {
    /// NAME in `[server.NAME]`.
    pub server: Arc<str>,
    /// Who asks, as the log names it.
    pub peer: String,
    /// Whether it came in on a loopback address or a Unix socket.
    pub on_loopback: bool,
    /// Whether it has a place of the reserve, which is for what ends with its answer and tells how the server is.
    pub is_reserve: bool,
}

/// The answer to a request that needs no waiting: a page that lies in memory. `None`: [`respond`] answers it.
fn respond_at_hand<B: Backend>(request: &Request<Incoming>, from: &Origin, backend: &B) -> Option<Answer> {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    let site = backend.site(&from.server)?;
    let (Room::Static(pages), found) = site.find(uri.path())? else { return None };
    if from.is_reserve {
        return None;
    }
    let mut hosts = headers.get_all(HOST).iter();
    if hosts.next().is_none() || hosts.next().is_some() {
        return None;
    }
    let answer = pages::at_hand(pages, method, uri, headers, found.rest)?;
    log::debug!("{} {method} {} {}", from.peer, uri.path(), answer.status().as_u16());
    Some(answer)
}

/// Answers one request; an upgrade agreed on comes back beside its answer.
async fn respond<B: Backend>(request: Request<Incoming>, from: &Origin, backend: &B) -> (Answer, Option<Upgrade>) {
    let (head, body) = request.into_parts();
    let Some(site) = backend.site(&from.server) else {
        return (answer::text(StatusCode::SERVICE_UNAVAILABLE, "this server is no longer configured"), None);
    };
    // RFC 9112 §3.2; and which pages may talk to a route is decided by it.
    let hosts = head.headers.get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && head.version >= Version::HTTP_11) {
        return (answer::text(StatusCode::BAD_REQUEST, "a request names exactly one Host"), None);
    }
    let path = head.uri.path();
    let Some((room, found)) = site.find(path) else {
        return (answer::text(StatusCode::NOT_FOUND, format!("no route serves {path}")), None);
    };
    if from.is_reserve && matches!(room, Room::WebSocket(_) | Room::Static(_)) {
        let why = "the server holds as many connections as it may, try later";
        return (answer::text(StatusCode::SERVICE_UNAVAILABLE, why), None);
    }
    if backend.is_draining() && matches!(room, Room::WebSocket(_)) {
        return (answer::text(StatusCode::SERVICE_UNAVAILABLE, "the server is ending, try again later"), None);
    }
    let rest = found.rest;
    let arguments = Arguments::new(found.parameters, head.uri.query());
    let answer = match room {
        Room::WebSocket(terms) => match upgrade::agree(&head, &arguments, terms, from.on_loopback) {
            Ok(mut upgrade) => {
                if upgrade.keys76.is_some() {
                    match upgrade::key3(body, site.server.header_timeout).await {
                        Ok(key3) => upgrade.key3 = key3,
                        Err(refusal) => return (*refusal, None),
                    }
                }
                let answer = std::mem::replace(&mut upgrade.answer, Response::new(Body::empty()));
                return (answer, Some(upgrade));
            }
            Err(refusal) => {
                // A page is told the status at most: browsers keep the sentence to themselves.
                log::debug!("{} refused at {path}: {}", from.peer, refusal.body().sentence());
                *refusal
            }
        },
        Room::Publish(room) => {
            publish::respond(room, &head, body, arguments, site.server.body_timeout, from.on_loopback, backend).await
        }
        Room::Static(pages) => {
            pages::respond(pages, &backend.files(), &head.method, &head.uri, &head.headers, rest).await
        }
        Room::Page(_) => reading(&head.method, live_page),
        Room::Metrics => reading(&head.method, || status::metrics(&backend.samples())),
        Room::Health => reading(&head.method, status::health),
        Room::Ready => reading(&head.method, || status::ready(backend.is_draining())),
    };
    log::debug!("{} {} {path} {}", from.peer, head.method, answer.status().as_u16());
    (answer, None)
}

/// What is only read: GET and HEAD (hyper leaves a HEAD's body out).
fn reading(method: &Method, answer: impl FnOnce() -> Answer) -> Answer {
    match *method {
        Method::GET | Method::HEAD => answer(),
        Method::OPTIONS => answer::options("GET, HEAD, OPTIONS"),
        _ => answer::method_not_allowed("GET, HEAD, OPTIONS"),
    }
}

fn live_page() -> Answer {
    let mut answer = Response::new(Body::from(LIVE_PAGE));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}
