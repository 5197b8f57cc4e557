//! Answers that are not pages: a status, a sentence that says why, and the fields every answer has.

use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use serde::Serialize;

use super::body::Body;

/// An answer as it goes to hyper.
pub type Answer = Response<Body>;

/// Seconds after which a client that was refused for load may try again.
const RETRY_AFTER_SECONDS: &str = "1";

/// An answer of text.
pub fn text(status: StatusCode, sentence: impl Into<String>) -> Answer {
    with_type(status, "text/plain; charset=utf-8", sentence.into() + "\n")
}

/// An answer of JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    // What is answered has string keys and no failing serializers.
    let text = serde_json::to_string(value).unwrap_or_default();
    with_type(status, "application/json", text + "\n")
}

/// An answer with a body of some type; not to be cached.
pub fn with_type(status: StatusCode, content_type: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    }
    answer
}

/// 405 for a method that is not among `allow`.
pub fn method_not_allowed(allow: &str) -> Answer {
    refused_method(format!("method not allowed here; allowed: {allow}"), allow)
}

/// 405 for a method that is not among `allow`, where nothing is published.
pub fn read_only(allow: &str) -> Answer {
    refused_method(format!("method not allowed here; allowed: {allow}; no route publishes here"), allow)
}

fn refused_method(sentence: String, allow: &str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, sentence);
    allowing(&mut answer, allow);
    answer
}

/// 204 that names the methods allowed.
pub fn options(allow: &str) -> Answer {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    allowing(&mut answer, allow);
    answer
}

/// The answer as the last one of its connection.
pub fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn allowing(answer: &mut Answer, allow: &str) {
    if let Ok(value) = HeaderValue::from_str(allow) {
        answer.headers_mut().insert(ALLOW, value);
    }
}
