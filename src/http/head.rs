//! Writes the head of a response that hyper does not write: of a WebSocket handshake, or of an event stream.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;
use http::header::HeaderMap;

thread_local! {
    /// The second of the last head, and its date as text.
    static DATE: RefCell<(u64, String)> = RefCell::default();
}

/// The bytes of a head, in hyper's format.
pub fn written(status: StatusCode, fields: &HeaderMap) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write_into(status, fields, &mut out);
    out
}

/// Appends the bytes of a head.
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
