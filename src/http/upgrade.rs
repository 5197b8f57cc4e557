//! The opening handshake of WebSocket (RFC 6455 §4.2, draft-76 §5). It is strict, and each refusal has a reason.

use bytes::Bytes;
use http::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use tungstenite::handshake::derive_accept_key;

use super::Site;
use super::answer::{self, Answer};
use super::arguments::Arguments;
use super::body::Body;
use super::content::{Content, Unread};
use super::extension;
use super::origin;
use super::site::WebSocketHandler;
use super::{authorization, resuming, subscription};
use crate::config;
use crate::hub::Selector;
use crate::session::Arrival;
use crate::wire::{Framing, hixie76};

const KEY1: HeaderName = HeaderName::from_static("sec-websocket-key1");
const KEY2: HeaderName = HeaderName::from_static("sec-websocket-key2");

/// An accepted handshake: the answer, and the arrival that becomes a session once the answer is written.
#[derive(Debug)]
pub struct Upgrade {
    /// The 101.
    pub answer: Answer,
    /// The client.
    pub arrival: Arrival,
    /// The two keys of a draft-76 client. Eight more bytes follow as the third key, and the answer to all three.
    pub keys76: Option<(String, String)>,
    /// The third key, if the client sent it as the body of the request, with a Content-Length.
    pub key3: Bytes,
}

/// Accepts an upgrade, or refuses it with a status and a sentence with the reason.
pub fn agree(
    request: &Parts,
    arguments: &Arguments<'_>,
    WebSocketHandler { route, terms, tokens, .. }: &WebSocketHandler,
    site: &Site,
    on_loopback: bool,
) -> Result<Upgrade, Box<Answer>> {
    let headers = &request.headers;
    let mut framing = check_handshake(request, route)?;
    origin::check(&route.subscription.origins, request, &site.hosts, on_loopback, false)
        .map_err(|why| Box::new(answer::text(StatusCode::FORBIDDEN, why)))?;
    let tokens = tokens.as_ref();
    let token = authorization::token(tokens, request, arguments)?;
    let channels = subscription::channels(&route.subscription.channels, arguments).map_err(bad_request)?;
    let check = |channels: &[Selector]| {
        let forbidden = |why| Box::new(answer::text(StatusCode::FORBIDDEN, why));
        authorization::check_channels(tokens, token, channels).map_err(forbidden)
    };
    check(&channels)?;
    let to = match &route.to {
        Some(template) => {
            let to = subscription::channel(template, arguments).map_err(bad_request)?;
            check(&[Selector::name(to.clone())])?;
            to
        }
        None => channels[0].text.clone(),
    };
    let greeting = route.greeting.as_ref().map(|template| template.text(|name| arguments.value(name)));
    let greeting = greeting.transpose().map_err(|missing| bad_request(missing.to_string()))?;
    let identity = subscription::identity(route.identity.as_ref(), terms, arguments).map_err(bad_request)?;
    let membership =
        subscription::join(terms).map_err(|why| Box::new(answer::text(StatusCode::SERVICE_UNAVAILABLE, why)))?;
    let deflate = terms.hub.deflate_bytes_min.and_then(|_| extension::agree(headers));
    let deflate = deflate.filter(|_| framing == Framing::Rfc6455);
    if deflate.as_ref().is_some_and(|deflate| deflate.compresses) {
        framing = Framing::Deflate;
    }
    let inflates = deflate.is_some();
    let arrival = Arrival {
        framing,
        inflates,
        terms: terms.clone(),
        membership,
        channels,
        since: route.envelope.then(|| resuming::since(headers, arguments)).flatten(),
        poll: None,
        identity,
        granted: authorization::granted(tokens, token),
        to,
        head: Bytes::new(),
        greeting,
        early: Bytes::new(),
    };
    if framing == Framing::Hixie76 {
        let key = |name| Some(headers.get(name)?.to_str().ok()?.to_owned());
        let keys76 = key(KEY1).zip(key(KEY2));
        return Ok(Upgrade { answer: accept76(request), arrival, keys76, key3: Bytes::new() });
    }
    let mut answer = accept(headers, route);
    if let Some(value) = deflate.and_then(|deflate| HeaderValue::from_str(&deflate.answer).ok()) {
        answer.headers_mut().insert(SEC_WEBSOCKET_EXTENSIONS, value);
    }
    Ok(Upgrade { answer, arrival, keys76: None, key3: Bytes::new() })
}

impl Upgrade {
    /// Reads the content of the handshake. A handshake of RFC 6455 must have none: bytes after it are frames (RFC 9110 §7.8).
    /// Browsers sent the eight bytes of draft-76 without a Content-Length, after a request without a body. Libraries sent them as a
    /// body with a Content-Length, because of proxies. Clients send these bytes without waiting for an answer.
    ///
    /// # Errors
    /// The handshake has other content.
    pub async fn with_content(mut self, content: &mut Content) -> Result<Upgrade, Box<Answer>> {
        if content.is_none() {
            return Ok(self);
        }
        if self.keys76.is_none() {
            content.give_up();
            return Err(bad_request("a WebSocket handshake has no body"));
        }
        let why = match content.whole(hixie76::KEY3_BYTES).await {
            Ok(key3) if key3.len() == hixie76::KEY3_BYTES => {
                self.key3 = key3.into_bytes();
                return Ok(self);
            }
            Err(Unread::Late) => Unread::Late.status(),
            _ => (StatusCode::BAD_REQUEST, "a draft-76 request has a body of 8 bytes, or none"),
        };
        // The next bytes may be the rest of the eight.
        content.give_up();
        Err(Box::new(answer::text(why.0, why.1)))
    }
}

fn bad_request(sentence: impl Into<String>) -> Box<Answer> {
    Box::new(answer::text(StatusCode::BAD_REQUEST, sentence))
}

/// Checks the handshake of a client, and returns its framing.
fn check_handshake(request: &Parts, route: &config::WebSocket) -> Result<Framing, Box<Answer>> {
    let headers = &request.headers;
    if request.method != Method::GET {
        return Err(Box::new(answer::read_only("GET")));
    }
    if !has_token(headers, &UPGRADE, "websocket") || !has_token(headers, &CONNECTION, "upgrade") {
        let mut refusal = answer::text(StatusCode::UPGRADE_REQUIRED, "this path speaks WebSocket: open it with one");
        refusal.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        refusal.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        return Err(Box::new(refusal));
    }
    if request.version < Version::HTTP_11 {
        return Err(bad_request("a WebSocket opens with HTTP/1.1"));
    }
    if headers.contains_key(KEY1) && headers.contains_key(KEY2) && !headers.contains_key(SEC_WEBSOCKET_VERSION) {
        if route.draft76 {
            for name in [&KEY1, &KEY2] {
                let key = single(headers, name).ok_or_else(|| bad_request("a key is given twice, or is not text"))?;
                hixie76::number(key).map_err(bad_request)?;
            }
            return Ok(Framing::Hixie76);
        }
        return Err(bad_request("draft-76 is not enabled here: draft76 = true on the route would allow it"));
    }
    match single(headers, &SEC_WEBSOCKET_VERSION) {
        Some("13") => {}
        _ => {
            let sentence = "only WebSocket version 13 (RFC 6455) is supported here";
            let mut refusal = answer::text(StatusCode::UPGRADE_REQUIRED, sentence);
            refusal.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            refusal.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
            refusal.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
            return Err(Box::new(refusal));
        }
    }
    match single(headers, &SEC_WEBSOCKET_KEY) {
        Some(key) if is_key(key) => Ok(Framing::Rfc6455),
        _ => Err(bad_request("Sec-WebSocket-Key must be 16 bytes in base64")),
    }
}

/// The value of a field that must occur exactly once.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value.trim())
}

/// Whether a comma-separated field contains `token`, in upper or lower case.
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// Whether `key` is the base64 of 16 bytes: 22 digits, the last of which has four unused bits, and two pads.
fn is_key(key: &str) -> bool {
    let Some(digits) = key.strip_suffix("==") else { return false };
    digits.len() == 22
        && digits.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
        && digits.ends_with(['A', 'Q', 'g', 'w'])
}

fn accept(headers: &HeaderMap, route: &config::WebSocket) -> Answer {
    let mut answer = switching();
    let fields = answer.headers_mut();
    fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let key = headers.get(SEC_WEBSOCKET_KEY).map_or(&b""[..], |key| key.as_bytes().trim_ascii());
    if let Ok(value) = HeaderValue::from_str(&derive_accept_key(key)) {
        fields.insert(SEC_WEBSOCKET_ACCEPT, value);
    }
    let chosen = route.subprotocols.iter().find(|name| {
        let offers = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
        offers.flat_map(|value| value.split(',')).any(|offer| offer.trim() == name.as_str())
    });
    if let Some(value) = chosen.and_then(|name| HeaderValue::from_str(name).ok()) {
        fields.insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
    answer
}

/// The head of the answer of draft-76. Its 16 bytes follow once the last eight bytes of the client have arrived.
fn accept76(request: &Parts) -> Answer {
    let mut answer = switching();
    let headers = &request.headers;
    let fields = answer.headers_mut();
    // Clients of the draft compare this value exactly, including upper and lower case.
    fields.insert(UPGRADE, HeaderValue::from_static("WebSocket"));
    let origin = headers.get(ORIGIN).cloned().unwrap_or(HeaderValue::from_static("null"));
    fields.insert(HeaderName::from_static("sec-websocket-origin"), origin);
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
    if let Ok(location) = HeaderValue::from_str(&format!("ws://{host}{path}")) {
        fields.insert(HeaderName::from_static("sec-websocket-location"), location);
    }
    if let Some(protocol) = headers.get(SEC_WEBSOCKET_PROTOCOL) {
        fields.insert(SEC_WEBSOCKET_PROTOCOL, protocol.clone());
    }
    answer
}

fn switching() -> Answer {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sixteen_bytes_in_base64() {
        assert!(is_key("dGhlIHNhbXBsZSBub25jZQ=="));
        for bad in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZR==",
            "AAAA",
            "dGhlIHNhbXBsZSBub25jZ===",
            "dGhlIHNhbXBs ZSBub25jZQ==",
        ] {
            assert!(!is_key(bad), "{bad}");
        }
    }
}
