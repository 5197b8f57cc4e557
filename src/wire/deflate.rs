//! permessage-deflate (RFC 7692): whole messages compressed, nothing remembered from one to the next.
//!
//! Without context takeover in either direction a compressed publication is the same bytes for everyone who agreed to the extension, so it is
//! compressed once, and a session keeps no window of 32 KiB. A message that would not get smaller goes as it is.

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tungstenite::protocol::frame::FrameHeader;

use super::{Close, Framing};
use crate::config::limits::DEFLATE_BYTES_MAX;
use crate::hub::Kind;

/// What a sync flush ends with: left out on the wire, put back by the receiver (§7.2.1, §7.2.2).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// What deflating may add beside the nine bits: the ends of blocks, the tail.
const ROOM_BYTES: usize = 64;
/// How much an inflated message grows at a time, in bytes.
const GROWTH_BYTES: usize = 16 << 10;

const BROKEN: Close = Close::protocol("a compressed message that cannot be inflated");

/// How long `bytes` bytes may be once they are compressed: noise gets longer, by nine bits for a byte at most.
pub fn compressed_bytes_max(bytes: usize) -> usize {
    bytes + bytes / 8 + ROOM_BYTES
}

/// Compresses, one message at a time. Its 256 KiB exist once in a shard, from the first use on.
#[derive(Debug, Default)]
pub struct Deflater(Option<Box<Compress>>);

impl Deflater {
    /// A frame for clients that agreed to the extension; messages shorter than `min` bytes are not compressed.
    pub fn frame(&mut self, kind: Kind, payload: &[u8], min: usize) -> Bytes {
        let plain = || Framing::Rfc6455.frame(kind, payload);
        if payload.len() < min || payload.len() > DEFLATE_BYTES_MAX {
            return plain();
        }
        // The fastest level: a shard that compresses delivers nothing meanwhile.
        let deflate = self.0.get_or_insert_with(|| Box::new(Compress::new(Compression::fast(), false)));
        deflate.reset();
        // Room for the worst. A compressor that once ran out of room must not be used again: in zlib-rs 0.6.8 a reset leaves a part of
        // its buffer taken, until it panics.
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

/// Inflates, one message at a time; its memory exists once in a shard, from the first use on.
#[derive(Debug, Default)]
pub struct Inflater {
    inflate: Option<Box<Decompress>>,
    message: Vec<u8>,
}

impl Inflater {
    /// The message that `compressed` holds, of at most `limit` bytes.
    ///
    /// # Errors
    /// How the session is to be closed: the message is too big, or none at all.
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
                // It grew by no more than its capacity did, so this is soon enough.
                if self.message.len() > limit {
                    return Err(Close::too_big(limit));
                }
                let full = self.message.len() == self.message.capacity();
                match status {
                    // A block may say it is the last one; what follows begins anew (§7.2.3.4).
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
    fn what_is_deflated_inflates_again() {
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
    fn noise_goes_as_it_is() {
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
    fn noise_wears_nothing_out() {
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
    fn a_bomb_stops_at_the_limit() {
        let mut bomb = Vec::with_capacity(64 << 10);
        let mut deflate = Compress::new(Compression::fast(), false);
        deflate.compress_vec(&vec![0; 4 << 20], &mut bomb, FlushCompress::Sync).unwrap();
        assert_eq!(deflate.total_in(), 4 << 20);
        let mut inflater = Inflater::default();
        assert_eq!(inflater.inflate(bomb.strip_suffix(&TAIL).unwrap(), 64 << 10).unwrap_err().code, 1009);
        assert!(inflater.message.capacity() < 1 << 20, "{}", inflater.message.capacity());
    }

    #[test]
    fn what_is_no_deflate_is_a_protocol_error() {
        let mut inflater = Inflater::default();
        assert_eq!(inflater.inflate(&[0xff; 20], 1000).unwrap_err().code, 1002);
    }

    #[test]
    fn the_examples_of_the_standard() {
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
