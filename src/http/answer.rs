//! Answers that are not files: a status, a sentence with the reason, and the header fields that all of them have.

use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use serde::Serialize;

use super::body::Body;

/// An answer to a request.
pub type Answer = Response<Body>;

/// The seconds after which a client may try again that was refused because of load.
const RETRY_AFTER_SECONDS: &str = "1";

/// An answer of text.
pub fn text(status: StatusCode, sentence: impl Into<String>) -> Answer {
    with_type(status, "text/plain; charset=utf-8", sentence.into() + "\n")
}

/// An answer of JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    // This does not fail: all values have string keys, and serializers that do not fail.
    let text = serde_json::to_string(value).unwrap_or_default();
    with_type(status, "application/json", text + "\n")
}

/// An answer with a body of this type. It is not cached.
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

/// 405 for a method that is not among `allow`, on a path that does not publish.
pub fn read_only(allow: &str) -> Answer {
    refused_method(format!("method not allowed here; allowed: {allow}; no route publishes here"), allow)
}

fn refused_method(sentence: String, allow: &str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, sentence);
    allowing(&mut answer, allow);
    answer
}

/// 204, with the allowed methods.
pub fn options(allow: &str) -> Answer {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    allowing(&mut answer, allow);
    answer
}

/// The answer as the last one of its connection: the connection is closed after it.
pub fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn allowing(answer: &mut Answer, allow: &str) {
    if let Ok(value) = HeaderValue::from_str(allow) {
        answer.headers_mut().insert(ALLOW, value);
    }
}
