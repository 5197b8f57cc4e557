//! Redirects: a path that has moved.
//!
//! The parts of the path are percent-encoded where they fill the target, and the query is kept. The target has a fixed host, or is a
//! path that never begins with two slashes, which a browser would take for a host. So no link leads anywhere but there.

use std::borrow::Cow;

use http::header::{CACHE_CONTROL, HeaderValue, LOCATION};
use http::{StatusCode, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode, utf8_percent_encode};

use super::answer::{self, Answer};
use super::arguments::Arguments;
use crate::config::{self, NOT_IN_URL, Pattern, REST};

/// What is encoded in a value: all but the unreserved characters (RFC 3986 §2.3).
const NOT_IN_VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A route that redirects.
#[derive(Debug)]
pub struct Redirect {
    route: config::Redirect,
    /// Whether it takes all paths below its own.
    is_tree: bool,
}

impl Redirect {
    /// The route for the paths of `pattern`.
    pub fn new(route: &config::Redirect, pattern: &Pattern) -> Redirect {
        Redirect { route: route.clone(), is_tree: pattern.is_tree() }
    }

    /// The answer to a request for `uri`, whose path has these parameters and this rest below the route's.
    pub fn respond(&self, uri: &Uri, arguments: &Arguments<'_>, rest: &str) -> Answer {
        let status = StatusCode::from_u16(self.route.status).unwrap_or(StatusCode::FOUND);
        let Some(location) = self.location(uri, arguments, rest) else {
            return answer::text(StatusCode::BAD_REQUEST, "this path cannot be redirected");
        };
        let mut answer = answer::text(status, format!("moved to {}", location.to_str().unwrap_or_default()));
        let fields = answer.headers_mut();
        fields.insert(LOCATION, location);
        // Caches may keep a permanent one.
        if matches!(status, StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT) {
            fields.remove(CACHE_CONTROL);
        }
        answer
    }

    fn location(&self, uri: &Uri, arguments: &Arguments<'_>, rest: &str) -> Option<HeaderValue> {
        let value = |name: &str| {
            if name == REST && self.is_tree {
                // It is encoded already. What a client may leave as it is, but no URL may contain, is encoded here.
                let rest = rest.trim_start_matches('/').as_bytes();
                return Some(percent_encode(rest, NOT_IN_URL).into());
            }
            let value = arguments.value(name)?;
            Some(Cow::from(utf8_percent_encode(&value, NOT_IN_VALUE).to_string()))
        };
        let mut target = self.route.target.text(value).ok()?;
        if target.starts_with('/') {
            target = format!("/{}", target.trim_start_matches('/'));
        }
        if let Some(query) = uri.query() {
            let query = percent_encode(query.as_bytes(), NOT_IN_URL);
            let fragment = target.find('#').map(|at| target.split_off(at)).unwrap_or_default();
            let sign = if target.contains('?') { '&' } else { '?' };
            target = format!("{target}{sign}{query}{fragment}");
        }
        HeaderValue::from_str(&target).ok()
    }
}
