//! permessage-deflate (RFC 7692) without context takeover: each message is compressed on its own.
//!
//! There is no context takeover in either direction. So a publication has the same compressed bytes for all clients that agreed to
//! the extension: it is compressed once, and a session needs no window of 32 KiB. A message that would not get smaller is sent
//! uncompressed.

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tungstenite::protocol::frame::FrameHeader;

use super::{Close, Framing};
use crate::config::limits::DEFLATE_BYTES_MAX;
use crate::hub::Kind;

/// The end of a sync flush. The sender removes it and the receiver appends it again (§7.2.1, §7.2.2).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// The bytes that compression may add beside the ninth bit of each byte: the ends of blocks, and the tail.
const OVERHEAD_BYTES: usize = 64;
/// The step in which the buffer of an inflated message grows.
const GROWTH_BYTES: usize = 16 << 10;

const BROKEN: Close = Close::protocol("a compressed message that cannot be inflated");

/// The maximum length of `bytes` bytes after compression. Random bytes get longer: at most nine bits for each byte.
pub fn compressed_bytes_max(bytes: usize) -> usize {
    bytes + bytes / 8 + OVERHEAD_BYTES
}

/// Compresses messages. Its 256 KiB are allocated once in a shard, at the first use.
#[derive(Debug, Default)]
pub struct Deflater(Option<Box<Compress>>);

impl Deflater {
    /// A frame for clients that agreed to the extension; messages shorter than `min` bytes are not compressed.
    pub fn frame(&mut self, kind: Kind, payload: &[u8], min: usize) -> Bytes {
        let plain = || Framing::Rfc6455.frame(kind, payload);
        if payload.len() < min || payload.len() > DEFLATE_BYTES_MAX {
            return plain();
        }
        // The fastest level, because a shard delivers nothing while it compresses.
        let deflate = self.0.get_or_insert_with(|| Box::new(Compress::new(Compression::fast(), false)));
        deflate.reset();
        // Enough capacity for the longest result. A compressor whose output buffer was once too small must not be used again: in
        // zlib-rs 0.6.8 its internal buffer stays partly occupied after a reset, and it finally panics.
        let mut small = Vec::with_capacity(compressed_bytes_max(payload.len()));
        let done = deflate.compress_vec(payload, &mut small, FlushCompress::Sync);
        if done.is_err() || small.len() == small.capacity() || deflate.total_in() as usize != payload.len() {
            self.0 = None;
            return plain();
        }
        match small.strip_suffix(&TAIL) {
            Some(body) if body.len() < payload.len() => {
                let header = FrameHeader { opcode: kind.into(), rsv1: true, ..FrameHeader::default() };
                let mut out = Vec::with_capacity(body.len() + super::rfc6455::HEADER_BYTES_MAX);
                // Writing to a Vec does not fail.
                let _ = header.format(body.len() as u64, &mut out);
                out.extend_from_slice(body);
                out.into()
            }
            _ => plain(),
        }
    }
}

/// Inflates messages. Its memory is allocated once in a shard, at the first use.
#[derive(Debug, Default)]
pub struct Inflater {
    inflate: Option<Box<Decompress>>,
    message: Vec<u8>,
}

impl Inflater {
    /// Inflates a message, to at most `limit` bytes.
    ///
    /// # Errors
    /// How the session must be closed: the message is too big, or the bytes are not valid.
    pub fn inflate(&mut self, compressed: &[u8], limit: usize) -> Result<&[u8], Close> {
        let inflate = self.inflate.get_or_insert_with(|| Box::new(Decompress::new(false)));
        inflate.reset(false);
        self.message.clear();
        self.message.shrink_to(4 * GROWTH_BYTES);
        for piece in [compressed, &TAIL] {
            let mut rest = piece;
            loop {
                if self.message.len() == self.message.capacity() {
                    self.message.reserve(GROWTH_BYTES);
                }
                let (taken, made) = (inflate.total_in(), self.message.len());
                let status = inflate.decompress_vec(rest, &mut self.message, FlushDecompress::Sync);
                let status = status.map_err(|_| BROKEN)?;
                let taken = (inflate.total_in() - taken) as usize;
                rest = &rest[taken..];
                // The message grows by at most its spare capacity before this check.
                if self.message.len() > limit {
                    return Err(Close::too_big(limit));
                }
                let full = self.message.len() == self.message.capacity();
                match status {
                    // A block may be marked as the last one; another stream may follow (§7.2.3.4).
                    Status::StreamEnd => inflate.reset(false),
                    _ if rest.is_empty() && !full => break,
                    _ if taken == 0 && made == self.message.len() && !full => return Err(BROKEN),
                    _ => {}
                }
            }
        }
        Ok(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(frame: &[u8]) -> &[u8] {
        match frame[1] {
            126 => &frame[4..],
            127 => &frame[10..],
            _ => &frame[2..],
        }
    }

    #[test]
    fn a_deflated_message_inflates_to_the_same_bytes() {
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
        for length in [0, 1, 300, 5000, 70_000, 1 << 20] {
            let text: Vec<u8> = (0..length).map(|i: usize| b'a' + (i * i / 7 % 5) as u8).collect();
            let frame = deflater.frame(Kind::Text, &text, 100);
            if frame[0] & 0x40 != 0 {
                assert!(frame.len() < text.len() && length >= 100);
                assert_eq!(inflater.inflate(body(&frame), length).unwrap(), text);
            } else {
                assert_eq!(body(&frame), text);
                assert!(!(300..=DEFLATE_BYTES_MAX).contains(&length), "{length} bytes of five letters get smaller");
            }
        }
    }

    #[test]
    fn random_bytes_are_sent_uncompressed() {
        let mut state = 1u64;
        let noise: Vec<u8> = (0..1000)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 56) as u8
            })
            .collect();
        let frame = Deflater::default().frame(Kind::Binary, &noise, 0);
        assert_eq!((frame[0], body(&frame)), (0x82, &noise[..]));
    }

    #[test]
    fn a_deflater_still_works_after_many_random_messages() {
        let mut state = 1u64;
        let mut deflater = Deflater::default();
        for _ in 0..200 {
            let noise: Vec<u8> = (0..10_000)
                .map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    (state >> 56) as u8
                })
                .collect();
            assert_eq!(deflater.frame(Kind::Binary, &noise, 0)[0], 0x82);
        }
        assert_eq!(deflater.frame(Kind::Binary, &[0; 100_000], 0)[0], 0xc2);
    }

    #[test]
    fn a_decompression_bomb_stops_at_the_limit() {
        let mut bomb = Vec::with_capacity(64 << 10);
        let mut deflate = Compress::new(Compression::fast(), false);
        deflate.compress_vec(&vec![0; 4 << 20], &mut bomb, FlushCompress::Sync).unwrap();
        assert_eq!(deflate.total_in(), 4 << 20);
        let mut inflater = Inflater::default();
        assert_eq!(inflater.inflate(bomb.strip_suffix(&TAIL).unwrap(), 64 << 10).unwrap_err().code, 1009);
        assert!(inflater.message.capacity() < 1 << 20, "{}", inflater.message.capacity());
    }

    #[test]
    fn invalid_compressed_bytes_are_a_protocol_error() {
        let mut inflater = Inflater::default();
        assert_eq!(inflater.inflate(&[0xff; 20], 1000).unwrap_err().code, 1002);
    }

    #[test]
    fn the_examples_of_rfc_7692_inflate() {
        // RFC 7692 §7.2.3.1, §7.2.3.3 and §7.2.3.4: "Hello" in a fixed, a stored and a final block.
        let mut inflater = Inflater::default();
        let fixed = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
        let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        for example in [&fixed[..], &stored, &last] {
            assert_eq!(inflater.inflate(example, 10).unwrap(), b"Hello");
        }
    }
}
