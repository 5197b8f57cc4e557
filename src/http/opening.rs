//! Answers the first request of a connection without hyper, if it is a plain WebSocket handshake, the request of an event stream, or
//! a poll, and arrived in one read.
//!
//! Most connections begin with such a request, and after a restart of a proxy or a server all clients connect at the same time.
//! hyper's buffers, a task and a registration with the runtime would be created for each of them only to be dropped at once. So the
//! bytes are parsed here, with hyper's own parser and types, and checked by the same functions as every such request. Other
//! requests, and those that would be refused, are not answered here: hyper parses the same bytes, and serves or refuses them.

use std::mem::{self, MaybeUninit};

use bytes::BytesMut;
use http::header::{
    ACCEPT, CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{Request, StatusCode, Uri, Version};

use super::resuming::LAST_EVENT_ID;
use super::{Arguments, Backend, Handler, access, events, find, guard, head, poll, upgrade};
use crate::config::limits::{HEADER_BYTES_MAX, HEADER_FIELDS_MAX};
use crate::session::Arrival;
use crate::wire::Framing;

/// The header fields of a request with a body or with an expectation.
const OF_A_BODY: [HeaderName; 3] = [CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT];

/// The buffers of a handshake, kept for the next one.
#[derive(Debug, Default)]
pub struct Opening {
    head: BytesMut,
    fields: HeaderMap,
    answer: Vec<u8>,
    /// The line of the access log for the last request that was accepted.
    begun: Option<access::Begun>,
}

impl Opening {
    /// Parses and accepts the request in `bytes`. Returns the arrival, and the answer that is written first; it may be empty.
    /// `None`: hyper must read the bytes.
    pub fn agree<B: Backend>(
        &mut self,
        bytes: &[u8],
        server: &str,
        on_loopback: bool,
        backend: &B,
    ) -> Option<(Arrival, &[u8])> {
        let front = backend.site(server)?;
        let mut head = self.head(bytes)?;
        let site = front.neighbours.find(&head.uri, &head.headers).unwrap_or(&front);
        self.answer.clear();
        let is_good = guard::check(&head.method, &head.uri, head.version, &head.headers, Some(0)).is_ok();
        let found = is_good.then(|| find(&head, site).ok()).flatten();
        let arrival = found.filter(|_| !backend.is_draining()).and_then(|(handler, found)| {
            let arguments = Arguments::new(found.parameters, head.uri.query());
            match handler {
                // The backend is asked, which takes time.
                handler if handler.waits() => None,
                Handler::WebSocket(handler) => {
                    let agreed = upgrade::agree(&head, &arguments, handler, site, on_loopback).ok()?;
                    if agreed.arrival.framing == Framing::Hixie76 {
                        return None;
                    }
                    head::write_into(StatusCode::SWITCHING_PROTOCOLS, agreed.answer.headers(), &mut self.answer);
                    Some(agreed.arrival)
                }
                Handler::Events(handler) => events::respond(handler, &head, &arguments, site, on_loopback, true).ok(),
                // Without a position it has no session, and hyper answers.
                Handler::Poll(handler) => {
                    poll::respond(handler, &head, &arguments, site, on_loopback, true, || None).ok()
                }
                _ => None,
            }
        });
        let status = if self.answer.is_empty() { StatusCode::OK } else { StatusCode::SWITCHING_PROTOCOLS };
        self.begun = arrival.as_ref().and_then(|_| access::Begun::of(access::Asked::of(&head), status));
        head.headers.clear();
        self.fields = mem::take(&mut head.headers);
        Some((arrival?, &self.answer))
    }

    /// Writes the line of the access log for the request that was accepted last, if the log is on.
    pub fn note(&mut self, peer: impl FnOnce() -> String) {
        if let Some(begun) = self.begun.take() {
            begun.note(&peer());
        }
    }

    /// Parses `bytes`, if they are exactly the head of a plain request.
    fn head(&mut self, bytes: &[u8]) -> Option<Parts> {
        let mut fields = [const { MaybeUninit::uninit() }; HEADER_FIELDS_MAX];
        let mut request = httparse::Request::new(&mut []);
        let parsed = httparse::ParserConfig::default()
            .parse_request_with_uninit_headers(&mut request, bytes, &mut fields)
            .ok()?;
        let is_whole = parsed == httparse::Status::Complete(bytes.len()) && bytes.len() < HEADER_BYTES_MAX;
        let target = request.path?;
        let version = if request.version? == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
        if !is_whole || request.method != Some("GET") || !target.starts_with('/') {
            return None;
        }
        self.head.extend_from_slice(bytes);
        let shared = self.head.split().freeze();
        // The part of the copy that has the same position as `part` has in `bytes`.
        let part = |part: &[u8]| {
            let start = part.as_ptr().addr() - bytes.as_ptr().addr();
            shared.slice(start..start + part.len())
        };
        let (mut head, ()) = Request::new(()).into_parts();
        head.version = version;
        head.uri = Uri::from_maybe_shared(part(target.as_bytes())).ok()?;
        head.headers = mem::take(&mut self.fields);
        for field in &*request.headers {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            let value = HeaderValue::from_maybe_shared(part(field.value)).ok()?;
            head.headers.try_append(name, value).ok()?;
        }
        let fields = &head.headers;
        // hyper's answer to a handshake would have `Connection: close`, too. That to a stream always has.
        let is_handshake = || version == Version::HTTP_11 && !upgrade::has_token(fields, &CONNECTION, "close");
        let is_plain = match fields.contains_key(UPGRADE) {
            true => is_handshake(),
            false => {
                fields.get(ACCEPT).is_some_and(|accept| accept == events::EVENT_STREAM)
                    || target.contains("since=")
                    || fields.contains_key(LAST_EVENT_ID)
            }
        };
        let is_plain = is_plain && !OF_A_BODY.iter().any(|name| fields.contains_key(name));
        is_plain.then_some(head)
    }
}
