//! The chunked transfer coding of HTTP/1.1 (RFC 9112, section 7.1): a response without a length is sent in chunks, each with its length.
//!
//! Some clients wait until they have received as many bytes as they asked for, unless the response has chunks. They read a chunk as
//! soon as it is there.

/// What follows the last chunk.
pub const END: &[u8] = b"0\r\n\r\n";

/// Appends what `write` appends as one chunk. It must append something, because a chunk without bytes is the end.
pub fn chunk_into(write: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    let start = out.len();
    write(out);
    let length = out.len() - start;
    let digits = length.checked_ilog2().map_or(1, |bits| bits / 4 + 1);
    let hexadecimal = (0..digits).rev().map(|digit| b"0123456789abcdef"[length >> (4 * digit) & 0xf]);
    out.splice(start..start, hexadecimal.chain(*b"\r\n"));
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_begins_with_its_length() {
        let mut out = b"before".to_vec();
        chunk_into(|out| out.extend_from_slice(b"data: x\n\n"), &mut out);
        chunk_into(|out| out.extend_from_slice(&[b'y'; 300]), &mut out);
        out.extend_from_slice(END);
        let expected = [b"before9\r\ndata: x\n\n\r\n12c\r\n", &[b'y'; 300][..], b"\r\n0\r\n\r\n"].concat();
        assert_eq!(out, expected);
    }
}
