//! `redirect = "https"`: a plain server that sends every request to the same address with https.

use http::header::{HOST, HeaderValue, LOCATION};
use http::request::Parts;
use http::{Response, StatusCode};

use super::answer::{self, Answer};
use super::body::Body;
use super::hosts::split_port;

/// The answer to every request: 308 keeps the method and the body (RFC 9110, section 15.4.9). `port` is that of https.
pub fn redirect(request: &Parts, port: u16) -> Answer {
    let host = request.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = split_port(host).0;
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let location = HeaderValue::from_str(&format!("https://{name}{port}{target}"));
    match location {
        Ok(location) if !name.is_empty() && target.starts_with('/') => {
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
            answer.headers_mut().insert(LOCATION, location);
            answer
        }
        _ => answer::text(StatusCode::BAD_REQUEST, "use https"),
    }
}
