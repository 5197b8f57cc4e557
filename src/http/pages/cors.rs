//! Pages of other origins whose scripts read files (Fetch, CORS).
//!
//! Files are public, so a request is answered whatever its origin. The fields here only let a browser pass the answer to a script.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    HeaderMap, HeaderValue,
};

use super::route::{Ask, vary};
use super::{ALLOW, Body};
use crate::config::Origins;

/// The fields that scripts may send: conditions and ranges, and what clients add to any request.
const ALLOW_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, cache-control, content-type, if-match, if-modified-since, if-none-match, if-range, if-unmodified-since, range",
);
/// The fields of an answer that scripts may read, beside those that they always may.
const EXPOSE_HEADERS: HeaderValue = HeaderValue::from_static("accept-ranges, content-encoding, content-range, etag");
/// How long a browser may cache the answer to a preflight request, in seconds.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("600");

/// Lets scripts of the page at `origin` read an answer with these fields. `origin` was found among `origins`.
pub(super) fn allow(origins: &Origins, origin: Option<&str>, fields: &mut HeaderMap) {
    if *origins == Origins::Any {
        // The same for all, so caches need only one copy. Cookies are not sent with it.
        fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        fields.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSE_HEADERS);
        return;
    }
    vary(fields, "Origin");
    let Some(Ok(origin)) = origin.map(HeaderValue::from_str) else { return };
    fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    fields.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    fields.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSE_HEADERS);
}

/// Answers a preflight request: OPTIONS that asks for a method.
pub(super) fn preflight(ask: &Ask<'_>, answer: &mut http::Response<Body>) {
    if ask.pages.route.origins.is_none() || !ask.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        return;
    }
    let fields = answer.headers_mut();
    fields.insert(ACCESS_CONTROL_ALLOW_METHODS, ALLOW);
    fields.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOW_HEADERS);
    fields.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
}
