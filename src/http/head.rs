//! Writes the head of a response that hyper does not write: of a WebSocket handshake, of an event stream, or of a poll.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};

use super::reader::Reader;

thread_local! {
    /// The second of the last head, and its date as text.
    static DATE: RefCell<(u64, String)> = RefCell::default();
}

/// Fields with fixed values.
pub type Fixed = [(HeaderName, &'static str); 4];

/// Adds fields with fixed values.
pub fn add(fixed: Fixed, fields: &mut HeaderMap) {
    fields.extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
}

/// The head of a response that a session writes, and that is the last one of its connection.
pub fn of_session(fixed: Fixed, reader: Reader<'_>, is_chunked: bool) -> Vec<u8> {
    let mut fields = HeaderMap::with_capacity(8);
    add(fixed, &mut fields);
    fields.insert(CONNECTION, HeaderValue::from_static("close"));
    reader.allow(&mut fields);
    if is_chunked {
        fields.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let mut out = Vec::with_capacity(256);
    write_into(StatusCode::OK, &fields, &mut out);
    out
}

/// Appends the bytes of a head, in hyper's format.
pub fn write_into(status: StatusCode, fields: &HeaderMap, out: &mut Vec<u8>) {
    let reason = status.canonical_reason().unwrap_or_default();
    for part in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let field = |out: &mut Vec<u8>, name: &str, value: &[u8]| {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    };
    for (name, value) in fields {
        field(out, name.as_str(), value.as_bytes());
    }
    DATE.with_borrow_mut(|(second, date)| {
        let now = SystemTime::now();
        let present = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if *second != present {
            (*second, *date) = (present, httpdate::fmt_http_date(now));
        }
        field(out, "date", date.as_bytes());
    });
    out.extend_from_slice(b"\r\n");
}
