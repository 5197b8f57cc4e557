//! The answer to a poll: one body of JSON, in an HTTP response without a length, because its head is sent before the body is known.
//!
//! While a client waits, spaces are sent instead of pings: they may stand before a JSON value (RFC 8259, section 2).

use super::chunked;

/// White space before the body. Parsers of JSON ignore it; it keeps proxies and routers from closing an idle connection.
pub const KEEP_ALIVE: &[u8] = b" ";
/// The same as a chunk.
pub const KEEP_ALIVE_CHUNK: &[u8] = b"1\r\n \r\n";

/// Appends the whole body, and the end of the response if it has chunks.
pub fn body_into(has_chunks: bool, write: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    if has_chunks {
        chunked::chunk_into(write, out);
        out.extend_from_slice(chunked::END);
    } else {
        write(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_in_chunks_is_complete() {
        let body = |has_chunks| {
            let mut out = b"head".to_vec();
            body_into(has_chunks, |out| out.extend_from_slice(b"{}"), &mut out);
            out
        };
        assert_eq!(body(true), b"head2\r\n{}\r\n0\r\n\r\n");
        assert_eq!(body(false), b"head{}");
    }
}
