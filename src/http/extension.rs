//! Negotiates permessage-deflate (RFC 7692 §7.1): which offer of a client is accepted, and what is answered.
//!
//! Context takeover is disabled in both directions. A client that requests a window smaller than 32 KiB receives uncompressed
//! messages: this is allowed for every message, and so one compression serves all other clients.

use http::header::{HeaderMap, SEC_WEBSOCKET_EXTENSIONS};

/// The window of the shared compression, in bits.
const WINDOW_BITS: u8 = 15;

/// A negotiated extension.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Deflate {
    /// The value of `Sec-WebSocket-Extensions`.
    pub(super) answer: String,
    /// Whether messages to the client may be compressed.
    pub(super) compresses: bool,
}

/// Accepts the first offer that is acceptable.
pub(super) fn agree(headers: &HeaderMap) -> Option<Deflate> {
    let values = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).find_map(accept)
}

/// The answer to one offer. `None`: a parameter is unknown or invalid.
fn accept(offer: &str) -> Option<Deflate> {
    let mut parts = offer.split(';').map(str::trim);
    if parts.next()? != "permessage-deflate" {
        return None;
    }
    let mut seen = Vec::new();
    let mut server_bits = None;
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
            None => (part, None),
        };
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        match (name, value) {
            ("server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits", None) => {}
            ("client_max_window_bits", Some(value)) => {
                bits(value)?;
            }
            ("server_max_window_bits", Some(value)) => server_bits = Some(bits(value)?),
            _ => return None,
        }
    }
    let mut answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover".to_owned();
    if let Some(bits) = server_bits {
        answer.push_str(&format!("; server_max_window_bits={bits}"));
    }
    Some(Deflate { answer, compresses: server_bits.is_none_or(|bits| bits == WINDOW_BITS) })
}

/// The bits of a window: 8 to 15, without a leading zero.
fn bits(value: &str) -> Option<u8> {
    let bits = value.parse().ok().filter(|bits| (8..=WINDOW_BITS).contains(bits))?;
    (!value.starts_with(['0', '+'])).then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(offers: &str) -> Option<(String, bool)> {
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, offers.parse().unwrap());
        agree(&headers).map(|deflate| {
            let parameters = deflate.answer.split_once("client_no_context_takeover").unwrap().1;
            (parameters.to_owned(), deflate.compresses)
        })
    }

    #[test]
    fn offers_of_clients_get_the_right_answers() {
        for (offers, agreed) in [
            ("permessage-deflate", Some(("", true))),
            ("permessage-deflate; client_max_window_bits", Some(("", true))),
            ("permessage-deflate; server_max_window_bits=\"15\"", Some(("; server_max_window_bits=15", true))),
            ("permessage-deflate; server_max_window_bits=9", Some(("; server_max_window_bits=9", false))),
            ("x-webkit-deflate-frame, permessage-deflate;server_no_context_takeover", Some(("", true))),
            ("permessage-deflate; server_max_window_bits=16, permessage-deflate", Some(("", true))),
            ("permessage-deflate; server_max_window_bits=08", None),
            ("permessage-deflate; server_max_window_bits", None),
            ("permessage-deflate; server_no_context_takeover=1", None),
            ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
            ("permessage-deflate; surprise", None),
            ("permessage-bzip2", None),
        ] {
            assert_eq!(answer(offers), agreed.map(|(a, b)| (a.to_owned(), b)), "{offers}");
        }
    }
}
