//! Static pages: the files below a directory, as they are now.
//!
//! A response is found in these steps, each in a module of its own:
//! 1. `auth`: the password, if the route asks for one: 401;
//! 2. the method: GET and HEAD; OPTIONS lists them, any other is 405;
//! 3. `path`: the rest of the path after the route's is decoded into names; hidden names and `..` are 404;
//! 4. `open`: it is resolved below the root, by the kernel or by `beneath`; only regular files and directories exist;
//! 5. a directory: a redirect that adds the slash, else the first existing index file, else its `listing`, else 404;
//! 6. `coding`: the content coding that the request prefers: a compressed file beside it (`siblings`), one that is made of it
//!    (`compressed`), or the file as it is;
//! 7. `condition`: 304 and 412; `range`: 206 and 416;
//! 8. `sending`: a small file as a whole, a larger one as a stream from its single open file (`files`);
//! 9. `substitute`: the fallback of the route in place of a 404, or its page for the status of an error;
//! 10. `route`: the header fields that all answers of the route have, with those for pages of other origins (`cors`).
//!
//! Steps 4 to 8 access the disk. They run as one task on the runtime's blocking threads, and the shard's own thread
//! does not wait for it. Recently sent files are kept in the `cache` with their header (`description`). Such a file can
//! be sent by the shard's own thread ([`at_hand`]) while it has not changed: then step 4 is a single `stat`.
//!
//! Listings have no entity tag, so conditions do not apply to them.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode};

use super::body::{Body, plain_text};

mod auth;
mod beneath;
mod cache;
mod coding;
mod compressed;
mod condition;
mod cors;
mod description;
mod files;
mod listing;
mod open;
mod path;
mod range;
mod request;
mod route;
mod sending;
mod siblings;
mod substitute;

use auth::Known;
pub use files::Files;
pub(super) use files::OpenFile;
use request::{Asked, Request};
pub use route::{Ask, Pages};

/// The methods that a static route accepts.
const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
/// Caches may keep a page, but must revalidate it each time, because pages change without a new name.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("no-cache");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// Why a request is refused.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    status: StatusCode,
    why: &'static str,
}

impl Refusal {
    /// The file does not exist, or is not public. The response does not reveal which.
    const ABSENT: Refusal = Refusal::new(StatusCode::NOT_FOUND, "no such file below this path");

    /// Too many files are being sent.
    const BUSY: Refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many files are being sent, try later");

    const fn new(status: StatusCode, why: &'static str) -> Refusal {
        Refusal { status, why }
    }

    fn answer(self) -> Response<Body> {
        let mut answer = plain_text(self.status, self.why);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        answer
    }
}

/// The response for a file that is cached and unchanged on the disk; `None` if [`respond`] has to look it up.
pub fn at_hand(ask: &Ask<'_>) -> Option<Response<Body>> {
    let Known::Yes(user) = auth::known(ask) else { return None };
    let mut answer = from_cache(ask, Asked::of(ask)?)?;
    if ask.pages.error_page(answer.status().as_u16()).is_some() {
        return None;
    }
    ask.pages.finish(ask, user, &mut answer);
    Some(with_length(ask, answer))
}

/// Answers a request to a static route. Larger files are shared through `files`.
pub async fn respond(pages: &Arc<Pages>, files: &Files, ask: &Ask<'_>) -> Response<Body> {
    let (user, mut answer) = match auth::check(pages, ask).await {
        Ok(user) => (user, route_answer(pages, files, ask).await),
        Err(refusal) => (None, refusal),
    };
    if answer.status() == StatusCode::NOT_FOUND && pages.route.fallback.is_some() {
        answer = substitute::fallback(pages, files, ask).await.unwrap_or(answer);
        route::vary(answer.headers_mut(), "Accept");
    }
    if answer.status().is_client_error() || answer.status().is_server_error() {
        answer = substitute::error_page(pages, files, ask, &answer).await.unwrap_or(answer);
    }
    pages.finish(ask, user, &mut answer);
    with_length(ask, answer)
}

/// The answer without what the route adds to it.
async fn route_answer(pages: &Arc<Pages>, files: &Files, ask: &Ask<'_>) -> Response<Body> {
    let Some(asked) = Asked::of(ask) else { return without_file(ask) };
    let path = match path::below(ask.rest) {
        Ok(path) => path,
        Err(refusal) => return refusal.answer(),
    };
    if let Some(answer) = from_cache(ask, asked.clone()) {
        return answer;
    }
    look_up(pages, files, Request::of(ask, asked, path)).await
}

/// The answer to a method that reads no file.
fn without_file(ask: &Ask<'_>) -> Response<Body> {
    let is_options = *ask.method == Method::OPTIONS;
    let mut answer = if is_options {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        cors::preflight(ask, &mut answer);
        answer
    } else {
        plain_text(StatusCode::METHOD_NOT_ALLOWED, "files are read with GET or HEAD; no route publishes here")
    };
    answer.headers_mut().insert(header::ALLOW, ALLOW);
    answer
}

/// The answer from the cache of this thread.
fn from_cache(ask: &Ask<'_>, asked: Asked) -> Option<Response<Body>> {
    let Ask { uri, rest, pages, .. } = ask;
    let site = &pages.route;
    let (slash, index) = if uri.path().ends_with('/') { ("/", site.index.first()?.as_str()) } else { ("", "") };
    // Names in the cache are plain. A path with `..` or hidden names is never among them, so it need not be checked
    // here.
    if rest.contains('%') {
        let below = path::below(rest).ok()?;
        cached(pages, &[below.as_os_str().as_bytes(), slash.as_bytes(), index.as_bytes()], &asked)
    } else {
        cached(pages, &[rest.as_bytes(), index.as_bytes()], &asked)
    }
}

/// The answer with the file at `below` (given in pieces), if it is in the cache of this thread.
fn cached(pages: &Pages, below: &[&[u8]], asked: &Asked) -> Option<Response<Body>> {
    let (description, bytes) = cache::find(&pages.route.root, pages.flavour, below, asked.accepted)?;
    let answer = asked.answer(&description, |part| Ok(bytes.slice(part.start as usize..part.end as usize).into()));
    Some(answer.unwrap_or_else(Refusal::answer))
}

/// The answer to a request that is looked up on the disk, on a blocking thread.
async fn look_up(pages: &Arc<Pages>, files: &Files, request: Request) -> Response<Body> {
    let work = tokio::task::spawn_blocking({
        let (pages, files) = (pages.clone(), files.clone());
        move || request.answer(&pages, &files)
    });
    match work.await {
        Ok(Ok((answer, kept))) => {
            if let Some(kept) = kept {
                cache::keep(&pages.route.root, pages.flavour, kept);
            }
            answer
        }
        Ok(Err(refusal)) => refusal.answer(),
        Err(gone) => {
            log::error!("a static page was not served: {gone}");
            plain_text(StatusCode::INTERNAL_SERVER_ERROR, "the server failed to read this file")
        }
    }
}

/// Sets `Content-Length`, and removes the body from the response to HEAD.
fn with_length(ask: &Ask<'_>, mut answer: Response<Body>) -> Response<Body> {
    let has_none = matches!(answer.status(), StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT);
    if !has_none && !answer.headers().contains_key(header::CONTENT_LENGTH) {
        let length = http_body::Body::size_hint(answer.body()).exact().unwrap_or(0);
        answer.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    if *ask.method == Method::HEAD {
        *answer.body_mut() = Body::empty();
    }
    answer
}

#[cfg(test)]
mod tests;
