//! A request that only reads, possibly from a page of another origin (Fetch, CORS): a GET route whose answer `origins` guards.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_MAX_AGE, HeaderMap, HeaderValue,
};
use http::request::Parts;
use http::{Method, StatusCode};

use super::answer::{self, Answer};
use super::hosts::Hosts;
use super::origin;
use crate::config::Origins;

const ALLOW: &str = "GET, HEAD, OPTIONS";
/// The header fields that scripts of other origins may send.
const ALLOW_HEADERS: &str = "last-event-id, authorization, cache-control, content-type";
/// How long a browser may cache the answer to a preflight request.
const PREFLIGHT_SECONDS: &str = "600";

/// The client of a request that only reads.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'r> {
    origin: Option<&'r str>,
    is_any: bool,
}

impl<'r> Reader<'r> {
    /// The client of a request whose origin may read the answer.
    ///
    /// # Errors
    /// 403 with the reason.
    pub fn check(
        origins: &Origins,
        request: &'r Parts,
        hosts: &Hosts,
        on_loopback: bool,
    ) -> Result<Reader<'r>, Box<Answer>> {
        // A GET without an origin may come from an image on a foreign page. It has no effect, and the page cannot read the answer.
        let origin = origin::check(origins, request, hosts, on_loopback, false)
            .map_err(|why| Box::new(answer::text(StatusCode::FORBIDDEN, why)))?;
        Ok(Reader { origin, is_any: *origins == Origins::Any })
    }

    /// A client of which nothing is known but its origin.
    pub fn of_origin(origin: Option<&'r str>) -> Reader<'r> {
        Reader { origin, is_any: false }
    }

    /// Checks that the method is GET or HEAD.
    ///
    /// # Errors
    /// The answer to OPTIONS, or 405.
    pub fn check_method(self, method: &Method) -> Result<(), Box<Answer>> {
        match *method {
            Method::GET | Method::HEAD => Ok(()),
            Method::OPTIONS => Err(self.allowed(preflight())),
            _ => Err(self.allowed(answer::read_only(ALLOW))),
        }
    }

    /// Allows the page of the request to read an answer with these header fields. Cookies are allowed only if `origins` is not "any".
    pub fn allow(self, fields: &mut HeaderMap) {
        let is_allowed = self.origin.is_some_and(|origin| origin::allow(fields, origin));
        if is_allowed && !self.is_any {
            fields.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    /// An answer that the page of the request may read.
    pub fn allowed(self, mut answer: Answer) -> Box<Answer> {
        self.allow(answer.headers_mut());
        Box::new(answer)
    }
}

fn preflight() -> Answer {
    let mut answer = answer::options(ALLOW);
    let fields = answer.headers_mut();
    fields.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(ALLOW));
    fields.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOW_HEADERS));
    fields.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_SECONDS));
    answer
}
