//! A request for a file as a blocking thread answers it: the file at the path, or what a directory is answered with.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;

use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode};

use super::cache::Kept;
use super::coding::Accepted;
use super::condition::{Conditions, Verdict};
use super::description::{self, Description};
use super::files::Files;
use super::open::{Found, Root};
use super::range::{self, Piece};
use super::route::{Ask, Pages};
use super::sending::Place;
use super::{Body, CACHE_CONTROL, NOSNIFF, Refusal, listing};
use crate::http::body::plain_text;

/// A response, and the file that was read for it if it is to be cached.
pub(super) type Answered = (Response<Body>, Option<Kept>);

/// The part of a request that does not depend on the file's path.
#[derive(Clone)]
pub(super) struct Asked {
    /// HEAD: only the header is sent.
    pub(super) head: bool,
    pub(super) conditions: Conditions,
    pub(super) accepted: Accepted,
}

/// A request that can be sent to another thread.
pub(super) struct Request {
    pub(super) asked: Asked,
    /// The path below the root.
    pub(super) path: PathBuf,
    /// The path as the client sent it, percent-encoded, with the slash at its end if there is one.
    pub(super) shown: String,
    pub(super) query: Option<String>,
    pub(super) arrived: Instant,
}

impl Request {
    /// A request for the file or the directory at `path` below the root.
    pub(super) fn of(ask: &Ask<'_>, asked: Asked, path: PathBuf) -> Request {
        let (shown, query) = (ask.uri.path().to_owned(), ask.uri.query().map(str::to_owned));
        Request { asked, path, shown, query, arrived: Instant::now() }
    }

    pub(super) fn answer(&self, pages: &Pages, files: &Files) -> Result<Answered, Refusal> {
        let place = Place { root: Root::open(&pages.route.root)?, pages, files };
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
        let Place { root, pages, .. } = place;
        let site = &pages.route;
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
    /// What a request asks for. `None`: its method reads no file.
    pub(super) fn of(ask: &Ask<'_>) -> Option<Asked> {
        let head = match *ask.method {
            Method::GET => false,
            Method::HEAD => true,
            _ => return None,
        };
        Some(Asked { head, conditions: Conditions::of(ask.headers), accepted: Accepted::of(ask.headers) })
    }

    /// The response for a file. The bytes are read by `read` if they are sent.
    pub(super) fn answer(
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
