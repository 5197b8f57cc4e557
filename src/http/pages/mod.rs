//! Static pages: the files below a directory, as they are now.
//!
//! A response is found in these steps, each in a module of its own:
//! 1. the method: GET and HEAD; OPTIONS lists them, any other is 405;
//! 2. `path`: the rest of the path after the route's is decoded into names; hidden names and `..` are 404;
//! 3. `open`: it is resolved below the root, by the kernel or by `beneath`; only regular files and directories exist;
//! 4. a directory: a redirect that adds the slash, else the first existing index file, else its `listing`, else 404;
//! 5. `condition`: 304 and 412; `range`: 206 and 416;
//! 6. the file: a small one as a whole, a larger one as a stream from its single open file (`files`).
//!
//! Steps 3 to 6 access the disk. They run as one task on the runtime's blocking threads, and the shard's own thread
//! does not wait for it. Recently sent files are kept in the `cache` with their header (`description`). Such a file can
//! be sent by the shard's own thread ([`at_hand`]) while it has not changed: then step 3 is a single `stat`.
//!
//! Listings have no entity tag, so conditions do not apply to them.

use std::fs::{File, Metadata};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode, Uri};

use super::body::{Body, FileStream, plain_text};
use crate::config;
use crate::config::limits::{FILE_CHUNK_BYTES, FILE_WHOLE_BYTES_MAX};

mod beneath;
mod cache;
mod condition;
mod description;
mod files;
mod listing;
mod open;
mod path;
mod range;

use cache::{Identity, Kept};
use condition::{Conditions, Verdict};
use description::{Description, is_undated};
pub use files::Files;
pub(super) use files::OpenFile;
use open::{Found, Root};
use range::Piece;

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
    // Names in the cache are plain. A path with `..` or hidden names is never among them, so it need not be checked
    // here.
    let (description, bytes) = if rest.contains('%') {
        let below = path::below(rest).ok()?;
        cache::find(&site.root, &[below.as_os_str().as_bytes(), slash.as_bytes(), index.as_bytes()])?
    } else {
        cache::find(&site.root, &[rest.as_bytes(), index.as_bytes()])?
    };
    let asked = Asked { head, conditions: Conditions::of(headers) };
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
        asked: Asked { head, conditions: Conditions::of(headers) },
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
                cache::keep(&site.root, kept);
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
        let root = Root::open(&site.root)?;
        let slash = self.shown.ends_with('/');
        match root.look(&self.path)? {
            // `file.html/` is not `file.html`: relative links in it would be resolved wrongly.
            Found::File(..) if slash => Err(Refusal::ABSENT),
            Found::File(file, metadata) => self.file(files, file, &metadata, &self.path),
            Found::Directory if !slash => Ok((self.redirect(), None)),
            Found::Directory => self.directory(&root, site, files),
        }
    }

    fn directory(&self, root: &Root, site: &config::Static, files: &Files) -> Result<Answered, Refusal> {
        for name in &site.index {
            let path = self.path.join(name);
            match root.look(&path) {
                Ok(Found::File(file, metadata)) => return self.file(files, file, &metadata, &path),
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

    /// The file at `path` below the root, or the requested part of it.
    fn file(&self, files: &Files, file: File, metadata: &Metadata, path: &Path) -> Result<Answered, Refusal> {
        let now = SystemTime::now();
        let description = Arc::new(Description::of(metadata, path, now));
        let length = description.length;
        let mut kept = None;
        let answer = self.asked.answer(&description, |part| {
            let identity = Identity::of(metadata);
            // A date in the future will become valid one day, so a description without a date must not be cached.
            let lasts = identity.is_settled(now) && (description.validators.modified.is_some() || is_undated(metadata));
            let keep = part == (0..length) && length <= FILE_WHOLE_BYTES_MAX && lasts && open::is_local(&file);
            // Files that are not cached need memory for each client, so they are read in small pieces.
            if !keep && part.end - part.start > FILE_CHUNK_BYTES as u64 {
                let file = files.share(file, identity).ok_or(Refusal::BUSY)?;
                return Ok(Body::File(FileStream::new(file, part.start, part.end - part.start)));
            }
            let bytes = read(&file, &part).map_err(|error| unreadable(&error, path))?;
            if keep {
                let (below, description) = (path.to_owned(), description.clone());
                kept = Some(Kept { below, identity, description, bytes: bytes.clone() });
            }
            Ok(bytes.into())
        })?;
        Ok((answer, kept))
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

/// Reads this part of a file.
fn read(file: &File, part: &Range<u64>) -> std::io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(part.end - part.start).unwrap_or(0)];
    file.read_exact_at(&mut bytes, part.start)?;
    Ok(bytes.into())
}

fn unreadable(error: &std::io::Error, path: &Path) -> Refusal {
    log::warn!("cannot read {}: {error}", path.display());
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the file could not be read")
}

#[cfg(test)]
mod tests;
