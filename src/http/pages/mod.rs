//! Static pages: the files below a directory, as they are now.
//!
//! A response is found in these steps, each in a module of its own:
//! 1. the method: GET and HEAD; OPTIONS lists them, any other is 405;
//! 2. `path`: the rest of the path after the route's is decoded into names; hidden names and `..` are 404;
//! 3. `open`: it is resolved below the root, by the kernel or by `beneath`; only regular files and directories exist;
//! 4. a directory: a redirect that adds the slash, else the first existing index file, else its `listing`, else 404;
//! 5. `coding`: the content coding that the request prefers: a compressed file beside it (`siblings`), one that is made of it
//!    (`compressed`), or the file as it is;
//! 6. `condition`: 304 and 412; `range`: 206 and 416;
//! 7. `sending`: a small file as a whole, a larger one as a stream from its single open file (`files`).
//!
//! Steps 3 to 7 access the disk. They run as one task on the runtime's blocking threads, and the shard's own thread
//! does not wait for it. Recently sent files are kept in the `cache` with their header (`description`). Such a file can
//! be sent by the shard's own thread ([`at_hand`]) while it has not changed: then step 3 is a single `stat`.
//!
//! Listings have no entity tag, so conditions do not apply to them.

use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Instant;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode, Uri};

use super::body::{Body, plain_text};
use crate::config;

mod beneath;
mod cache;
mod coding;
mod compressed;
mod condition;
mod description;
mod files;
mod listing;
mod open;
mod path;
mod range;
mod sending;
mod siblings;

use cache::Kept;
use coding::Accepted;
use condition::{Conditions, Verdict};
use description::Description;
pub use files::Files;
pub(super) use files::OpenFile;
use open::{Found, Root};
use range::Piece;
use sending::Place;

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

/// The part of a request that does not depend on the file's path.
struct Asked {
    /// HEAD: only the header is sent.
    head: bool,
    conditions: Conditions,
    accepted: Accepted,
}

/// A request that can be sent to another thread.
struct Request {
    asked: Asked,
    /// The path below the root.
    path: PathBuf,
    /// The path as the client sent it, percent-encoded, with the slash at its end if there is one.
    shown: String,
    query: Option<String>,
    arrived: Instant,
}

/// The response for a file that is cached and unchanged on the disk; `None` if [`respond`] has to look it up. `rest` is
/// the rest of the path in `uri` after the route's own path, still encoded, without a leading slash.
pub fn at_hand(
    site: &config::Static,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    rest: &str,
) -> Option<Response<Body>> {
    let head = match *method {
        Method::GET => false,
        Method::HEAD => true,
        _ => return None,
    };
    let (slash, index) = if uri.path().ends_with('/') { ("/", site.index.first()?.as_str()) } else { ("", "") };
    let accepted = Accepted::of(headers);
    // Names in the cache are plain. A path with `..` or hidden names is never among them, so it need not be checked
    // here.
    let (description, bytes) = if rest.contains('%') {
        let below = path::below(rest).ok()?;
        let below = [below.as_os_str().as_bytes(), slash.as_bytes(), index.as_bytes()];
        cache::find(&site.root, &below, accepted, site.compress)?
    } else {
        cache::find(&site.root, &[rest.as_bytes(), index.as_bytes()], accepted, site.compress)?
    };
    let asked = Asked { head, conditions: Conditions::of(headers), accepted };
    let answer = asked.answer(&description, |part| Ok(bytes.slice(part.start as usize..part.end as usize).into()));
    Some(with_length(head, answer.unwrap_or_else(Refusal::answer)))
}

/// Answers a request to a static route. `rest` is the rest of the path in `uri` after the route's own path, still
/// encoded, without a leading slash. Larger files are shared through `files`.
pub async fn respond(
    site: &config::Static,
    files: &Files,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    rest: &str,
) -> Response<Body> {
    let head = match *method {
        Method::GET => false,
        Method::HEAD => true,
        Method::OPTIONS => {
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::NO_CONTENT;
            answer.headers_mut().insert(header::ALLOW, ALLOW);
            return answer;
        }
        _ => {
            let mut answer =
                plain_text(StatusCode::METHOD_NOT_ALLOWED, "files are read with GET or HEAD; no route publishes here");
            answer.headers_mut().insert(header::ALLOW, ALLOW);
            return answer;
        }
    };
    let path = match path::below(rest) {
        Ok(path) => path,
        Err(refusal) => return with_length(head, refusal.answer()),
    };
    if let Some(answer) = at_hand(site, method, uri, headers, rest) {
        return answer;
    }
    let request = Request {
        asked: Asked { head, conditions: Conditions::of(headers), accepted: Accepted::of(headers) },
        path,
        shown: uri.path().to_owned(),
        query: uri.query().map(str::to_owned),
        arrived: Instant::now(),
    };
    let work = tokio::task::spawn_blocking({
        let (site, files) = (site.clone(), files.clone());
        move || request.answer(&site, &files)
    });
    let answer = match work.await {
        Ok(Ok((answer, kept))) => {
            if let Some(kept) = kept {
                cache::keep(&site.root, site.compress, kept);
            }
            answer
        }
        Ok(Err(refusal)) => refusal.answer(),
        Err(gone) => {
            log::error!("a static page was not served: {gone}");
            plain_text(StatusCode::INTERNAL_SERVER_ERROR, "the server failed to read this file")
        }
    };
    with_length(head, answer)
}

/// A response, and the file that was read for it if it is to be cached.
type Answered = (Response<Body>, Option<Kept>);

/// Sets `Content-Length`, and removes the body from the response to HEAD.
fn with_length(head: bool, mut answer: Response<Body>) -> Response<Body> {
    if answer.status() != StatusCode::NOT_MODIFIED && !answer.headers().contains_key(header::CONTENT_LENGTH) {
        let length = http_body::Body::size_hint(answer.body()).exact().unwrap_or(0);
        answer.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    if head {
        *answer.body_mut() = Body::empty();
    }
    answer
}

impl Request {
    fn answer(&self, site: &config::Static, files: &Files) -> Result<Answered, Refusal> {
        let place = Place { root: Root::open(&site.root)?, site, files };
        let slash = self.shown.ends_with('/');
        match place.root.look(&self.path)? {
            // `file.html/` is not `file.html`: relative links in it would be resolved wrongly.
            Found::File(..) if slash => Err(Refusal::ABSENT),
            Found::File(file, metadata) => self.file(&place, file, &metadata, &self.path),
            Found::Directory if !slash => Ok((self.redirect(), None)),
            Found::Directory => self.directory(&place),
        }
    }

    fn directory(&self, place: &Place<'_>) -> Result<Answered, Refusal> {
        let Place { root, site, .. } = place;
        for name in &site.index {
            let path = self.path.join(name);
            match root.look(&path) {
                Ok(Found::File(file, metadata)) => return self.file(place, file, &metadata, &path),
                Ok(Found::Directory) => {}
                Err(refusal) if refusal.status == StatusCode::NOT_FOUND => {}
                Err(refusal) => return Err(refusal),
            }
        }
        if !site.listing {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "this directory has no index page"));
        }
        let directory = listing::ListedDirectory::new(&site.root, &self.path, &self.shown);
        let page = listing::page(root, directory, self.arrived)?;
        let mut answer = Response::new(Body::from(page));
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(header::CONTENT_SECURITY_POLICY, listing::POLICY);
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        headers.insert(header::CACHE_CONTROL, CACHE_CONTROL);
        Ok((answer, None))
    }

    /// Redirects to the same path with a slash. The location is relative, so that it is right behind a proxy with
    /// another path or host. It begins with `./`, so that neither `//host` nor `a:b` is parsed as something else.
    fn redirect(&self) -> Response<Body> {
        let last = self.shown.rsplit('/').next().unwrap_or_default();
        let query = self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let mut answer = plain_text(StatusCode::MOVED_PERMANENTLY, "this is a directory: its path ends with a slash");
        if let Ok(location) = HeaderValue::from_bytes(format!("./{last}/{query}").as_bytes()) {
            answer.headers_mut().insert(header::LOCATION, location);
        }
        answer
    }
}

impl Asked {
    /// The response for a file. The bytes are read by `read` if they are sent.
    fn answer(
        &self,
        file: &Description,
        read: impl FnOnce(Range<u64>) -> Result<Body, Refusal>,
    ) -> Result<Response<Body>, Refusal> {
        let piece = match self.conditions.judge(&file.validators) {
            Verdict::NotModified => return Ok(file.not_modified()),
            Verdict::Failed => {
                return Err(Refusal::new(StatusCode::PRECONDITION_FAILED, "the file is not as the request expects it"));
            }
            _ if self.head => return Ok(file.whole(Body::empty())),
            // A range is defined for GET only.
            Verdict::Send(Some(field)) => range::piece(field, file.length),
            Verdict::Send(None) => Piece::Whole,
        };
        match piece {
            Piece::Whole => Ok(file.whole(read(0..file.length)?)),
            Piece::Part(part) => Ok(file.part(read(part.clone())?, &part)),
            Piece::Outside => {
                let why = "the range begins after the end of the file";
                let mut answer = plain_text(StatusCode::RANGE_NOT_SATISFIABLE, why);
                let bounds = format!("bytes */{}", file.length);
                description::set(answer.headers_mut(), header::CONTENT_RANGE, &bounds);
                Ok(answer)
            }
        }
    }
}

#[cfg(test)]
mod tests;
