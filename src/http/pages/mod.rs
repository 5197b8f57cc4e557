//! Static pages: the files below a directory, as they are now.
//!
//! An answer is found in this order, each step a room of its own:
//! 1. the method: GET and HEAD; OPTIONS tells so, anything else is 405;
//! 2. `path`: what follows the route's path, decoded into names; what hides or climbs is 404;
//! 3. `open`: resolved below the root, by the kernel or by `beneath`; only regular files and directories are there;
//! 4. a directory: a redirect that adds the slash, else the first index file there is, else its `listing`, else 404;
//! 5. `condition`: 304 and 412; `range`: 206 and 416;
//! 6. the file: small ones whole, larger ones streamed.
//!
//! Steps 3 to 6 touch the disk and run as one piece of work on the runtime's blocking threads; the shard's own
//! thread waits for none of it. What was sent lately is kept in the `cache`, and is sent again by the shard itself while the
//! file has not changed: then step 3 is only a look, and nothing waits.
//!
//! Listings carry no entity tag, so conditions do not apply to them.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode, Uri};

use super::body::{Body, FileStream, plain_text};
use crate::config;
use crate::config::limits::FILE_WHOLE_BYTES_MAX;

mod beneath;
mod cache;
mod condition;
mod listing;
mod open;
mod path;
mod range;

use cache::Identity;
use condition::{Conditions, Validators, Verdict};
use open::{Found, Root};
use range::Piece;

/// The methods a static route answers.
const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
/// Kept by whom it pleases, but asked about each time: pages change without a new name.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("no-cache");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// Why a request is not answered with what it asks for.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    status: StatusCode,
    why: &'static str,
}

impl Refusal {
    /// What is not there, or is not for the public: the answer does not tell which.
    const ABSENT: Refusal = Refusal::new(StatusCode::NOT_FOUND, "no such file below this path");

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

/// What is asked, in a form that can go to another thread.
struct Request {
    /// HEAD: the answer's header only.
    head: bool,
    /// Where below the root.
    path: PathBuf,
    /// The path as the client wrote it, percent-encoded, and whether a slash ends it.
    shown: String,
    query: Option<String>,
    conditions: Conditions,
}

/// Answers a request to a static route; `rest` is what follows the route's own path in `uri`, still encoded, without a leading slash.
pub async fn respond(
    site: &config::Static,
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
            let mut answer = plain_text(StatusCode::METHOD_NOT_ALLOWED, "files are read with GET or HEAD");
            answer.headers_mut().insert(header::ALLOW, ALLOW);
            return answer;
        }
    };
    let path = match path::below(rest) {
        Ok(path) => path,
        Err(refusal) => return with_length(head, refusal.answer()),
    };
    let request = Request {
        head,
        path,
        shown: uri.path().to_owned(),
        query: uri.query().map(str::to_owned),
        conditions: Conditions::of(headers),
    };
    if let Some(answer) = request.answer_from_cache(site) {
        return with_length(head, answer.unwrap_or_else(Refusal::answer));
    }
    let (root, site) = (site.root.clone(), site.clone());
    let work = tokio::task::spawn_blocking(move || request.answer(&site));
    let answer = match work.await {
        Ok(Ok((answer, kept))) => {
            if let Some((path, identity, bytes)) = kept {
                cache::keep(root, path, identity, bytes);
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

/// An answer, and the file that was read for it if it is worth keeping.
type Answered = (Response<Body>, Option<(PathBuf, Identity, Bytes)>);

/// Where a file's bytes come from.
enum Content {
    /// Open, to be read.
    File(File),
    /// Read before.
    Kept(Bytes),
}

/// The answer with its `Content-Length` said, and for HEAD without the body it describes.
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
    /// The answer, where that needs no disk; `None`: it does, or something is unusual.
    fn answer_from_cache(&self, site: &config::Static) -> Option<Result<Response<Body>, Refusal>> {
        let mut path = site.root.join(&self.path);
        if self.shown.ends_with('/') {
            path.push(site.index.first()?);
        }
        let (metadata, bytes) = cache::find(&site.root, &path)?;
        Some(self.file(Content::Kept(bytes), &metadata, &path).map(|(answer, _)| answer))
    }

    fn answer(&self, site: &config::Static) -> Result<Answered, Refusal> {
        let root = Root::open(&site.root)?;
        let slash = self.shown.ends_with('/');
        match root.look(&self.path)? {
            // `file.html/` is not `file.html`: relative links in it would miss.
            Found::File(..) if slash => Err(Refusal::ABSENT),
            Found::File(file, metadata) => self.file(Content::File(file), &metadata, &site.root.join(&self.path)),
            Found::Directory if !slash => Ok((self.redirect(), None)),
            Found::Directory => self.directory(&root, site),
        }
    }

    fn directory(&self, root: &Root, site: &config::Static) -> Result<Answered, Refusal> {
        for name in &site.index {
            let path = self.path.join(name);
            match root.look(&path) {
                Ok(Found::File(file, metadata)) => {
                    return self.file(Content::File(file), &metadata, &site.root.join(&path));
                }
                Ok(Found::Directory) => {}
                Err(refusal) if refusal.status == StatusCode::NOT_FOUND => {}
                Err(refusal) => return Err(refusal),
            }
        }
        if !site.listing {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "this directory has no index page"));
        }
        let page = listing::page(root, &self.path, &self.shown)?;
        let mut answer = Response::new(Body::from(page));
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(header::CONTENT_SECURITY_POLICY, listing::POLICY);
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        headers.insert(header::CACHE_CONTROL, CACHE_CONTROL);
        Ok((answer, None))
    }

    /// To the same path with a slash. Relative, so that it holds behind a proxy that serves this below another path or name;
    /// with `./`, so that neither `//host` nor `a:b` is read as something else.
    fn redirect(&self) -> Response<Body> {
        let last = self.shown.rsplit('/').next().unwrap_or_default();
        let query = self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let mut answer = plain_text(StatusCode::MOVED_PERMANENTLY, "this is a directory: its path ends with a slash");
        if let Ok(location) = HeaderValue::from_bytes(format!("./{last}/{query}").as_bytes()) {
            answer.headers_mut().insert(header::LOCATION, location);
        }
        answer
    }

    /// The file at `path`, or what the conditions leave of it.
    fn file(&self, content: Content, metadata: &Metadata, path: &Path) -> Result<Answered, Refusal> {
        let length = metadata.len();
        let validators = Validators::of(metadata, SystemTime::now());
        let piece = match self.conditions.judge(&validators) {
            Verdict::NotModified => return Ok((described(StatusCode::NOT_MODIFIED, Body::empty(), &validators), None)),
            Verdict::Failed => {
                return Err(Refusal::new(StatusCode::PRECONDITION_FAILED, "the file is not as the request expects it"));
            }
            // A range is defined for GET alone.
            Verdict::Send(Some(field)) if !self.head => range::piece(field, length),
            Verdict::Send(_) => Piece::Whole,
        };
        let (status, part) = match piece {
            Piece::Whole => (StatusCode::OK, 0..length),
            Piece::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
            Piece::Outside => {
                let mut answer =
                    plain_text(StatusCode::RANGE_NOT_SATISFIABLE, "the range begins behind the file's end");
                set(answer.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{length}"));
                return Ok((answer, None));
            }
        };
        let size = part.end - part.start;
        let (body, kept) = match content {
            _ if self.head => (Body::empty(), None),
            Content::Kept(bytes) => (Body::from(bytes.slice(part.start as usize..part.end as usize)), None),
            Content::File(file) if part == (0..length) && length <= FILE_WHOLE_BYTES_MAX => {
                let bytes = read_whole(file, length).map_err(|error| unreadable(&error, path))?;
                let kept = Some(Identity::of(metadata)).filter(|identity| identity.is_settled(SystemTime::now()));
                (Body::from(bytes.clone()), kept.map(|identity| (path.to_owned(), identity, bytes)))
            }
            Content::File(file) => {
                let stream = FileStream::open(file, part.start, size).map_err(|error| unreadable(&error, path))?;
                (Body::File(stream), None)
            }
        };
        let mut answer = described(status, body, &validators);
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_LENGTH, size.into());
        headers.insert(header::CONTENT_TYPE, content_type(path));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if status == StatusCode::PARTIAL_CONTENT {
            set(headers, header::CONTENT_RANGE, &format!("bytes {}-{}/{length}", part.start, part.end - 1));
        }
        Ok((answer, kept))
    }
}

/// An answer with the fields that a 304 shares with the 200 it stands for.
fn described(status: StatusCode, body: Body, validators: &Validators) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    set(headers, header::ETAG, &validators.etag);
    if let Some(modified) = validators.modified {
        let time = UNIX_EPOCH + std::time::Duration::from_secs(modified);
        set(headers, header::LAST_MODIFIED, &httpdate::fmt_http_date(time));
    }
    headers.insert(header::CACHE_CONTROL, CACHE_CONTROL);
    answer
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// All `length` bytes of a file.
fn read_whole(mut file: File, length: u64) -> std::io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    let read = file.by_ref().take(length).read_to_end(&mut bytes)?;
    if read as u64 == length { Ok(bytes.into()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

fn unreadable(error: &std::io::Error, path: &Path) -> Refusal {
    log::warn!("cannot read {}: {error}", path.display());
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the file could not be read")
}

impl Validators {
    /// What identifies a file at the moment `now`. Its tag is of modification time, to the nanosecond, and size; its date is rounded
    /// down, and left out where it lies in the future, before 1970 or after 9999, which no header may say.
    fn of(metadata: &Metadata, now: SystemTime) -> Validators {
        use std::os::unix::fs::MetadataExt;
        const YEAR_10000: u64 = 253_402_300_800;
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let nanoseconds = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        let modified = u64::try_from(metadata.mtime()).ok().filter(|&at| at <= now && at < YEAR_10000);
        Validators { etag: format!("\"{nanoseconds:x}-{:x}\"", metadata.len()), modified }
    }
}

/// The media type a file's name tells; text is UTF-8.
fn content_type(path: &Path) -> HeaderValue {
    let name = path.file_name().map_or(Path::new(""), |name: &OsStr| Path::new(name));
    let kind = mime_guess::from_path(name).first_raw().unwrap_or("application/octet-stream");
    if kind.starts_with("text/") || kind == "application/javascript" {
        return HeaderValue::from_str(&format!("{kind}; charset=utf-8"))
            .unwrap_or(HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    HeaderValue::from_static(kind)
}

#[cfg(test)]
mod tests;
