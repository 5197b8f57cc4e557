//! Files that are sent in place of a file that was not found, or with an error.
//!
//! An application in one page chooses its view by the path, so all its paths are answered with that page. Only browsers that open
//! a page get it. A script, an image or a program that asks for a path without a file gets the 404: a page in place of a script
//! would only be a more confusing error.

use std::path::PathBuf;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName};
use http::{Method, Response, StatusCode};

use super::coding::Accepted;
use super::condition::Conditions;
use super::request::{Asked, Request};
use super::route::{Ask, Pages};
use super::{Body, CACHE_CONTROL, Files, cached, look_up, path};

/// The fields of an error that its page keeps.
const OF_THE_ERROR: [HeaderName; 4] =
    [header::ALLOW, header::RETRY_AFTER, header::WWW_AUTHENTICATE, header::CONTENT_RANGE];
/// The fields of a file that do not apply when it is sent with an error: no later request is for this file.
const OF_THE_FILE: [HeaderName; 3] = [header::ETAG, header::LAST_MODIFIED, header::ACCEPT_RANGES];

/// The answer with the fallback of the route, if a browser opens a page by a path without a file.
pub(super) async fn fallback(pages: &Arc<Pages>, files: &Files, ask: &Ask<'_>) -> Option<Response<Body>> {
    let file = pages.route.fallback.as_deref()?;
    if !opens_a_page(ask.headers) || path::below(ask.rest).is_err() {
        return None;
    }
    page(pages, files, ask, file, Conditions::of(ask.headers)).await
}

/// The answer with the page of the route for the status of `error`, if it has one.
pub(super) async fn error_page(
    pages: &Arc<Pages>,
    files: &Files,
    ask: &Ask<'_>,
    error: &Response<Body>,
) -> Option<Response<Body>> {
    let file = pages.error_page(error.status().as_u16())?;
    let page = page(pages, files, ask, file, Conditions::default()).await?;
    Some(with_status(page, error))
}

/// Whether a browser sent a request to open a page: it names HTML among what it accepts. What scripts and programs send by
/// default, `*/*`, does not.
fn opens_a_page(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let mut kinds = lines.flat_map(|line| line.split(',')).map(|range| range.split(';').next().unwrap_or_default());
    kinds.any(|kind| kind.trim().eq_ignore_ascii_case("text/html"))
}

/// The answer with a file that the route names; `None` if there is no such file.
async fn page(
    pages: &Arc<Pages>,
    files: &Files,
    ask: &Ask<'_>,
    file: &str,
    conditions: Conditions,
) -> Option<Response<Body>> {
    let asked = Asked { head: *ask.method == Method::HEAD, conditions, accepted: Accepted::of(ask.headers) };
    let answer = match cached(pages, &[file.as_bytes()], &asked) {
        Some(answer) => answer,
        None => {
            let mut request = Request::of(ask, asked, PathBuf::from(file));
            // A file is found only without the slash of the path that the client sent.
            request.shown.clear();
            look_up(pages, files, request).await
        }
    };
    let is_there = answer.headers().contains_key(header::ETAG)
        || matches!(answer.status(), StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE);
    if !is_there {
        pages.warn_missing(file);
    }
    is_there.then_some(answer)
}

/// The page as the body of an `error`.
fn with_status(mut page: Response<Body>, error: &Response<Body>) -> Response<Body> {
    *page.status_mut() = error.status();
    let fields = page.headers_mut();
    for name in OF_THE_FILE {
        fields.remove(name);
    }
    for name in OF_THE_ERROR {
        if let Some(value) = error.headers().get(&name) {
            fields.insert(name, value.clone());
        }
    }
    fields.insert(header::CACHE_CONTROL, CACHE_CONTROL);
    page
}
