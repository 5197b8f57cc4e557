//! RFC 6455: the frames of a server, and the removal of a client's mask.

use smallvec::SmallVec;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::Close;
use super::close::REASON_BYTES_MAX;
use crate::hub::Kind;

/// The maximum length of a server's frame header. Server frames are not masked.
pub const HEADER_BYTES_MAX: usize = 10;
/// The length of the mask that the header of a client's frame has in addition.
pub const MASK_BYTES: usize = 4;
/// A whole ping without payload.
pub const PING: [u8; 2] = [0x89, 0];
/// The maximum length of a control frame's payload (§5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

impl From<Kind> for OpCode {
    fn from(kind: Kind) -> OpCode {
        OpCode::Data(match kind {
            Kind::Text => Data::Text,
            Kind::Binary => Data::Binary,
        })
    }
}

/// Appends one whole, final, unmasked frame to `out`.
pub fn frame_into(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    // Writing to a Vec does not fail.
    let _ = header.format(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

/// Appends the answer to a ping: the same payload, at most 125 bytes.
pub fn pong_into(payload: &[u8], out: &mut Vec<u8>) {
    frame_into(OpCode::Control(Control::Pong), payload, out);
}

/// Appends a close frame. A reason that is too long is truncated.
pub fn close_into(close: &Close, out: &mut Vec<u8>) {
    let mut payload = SmallVec::<[u8; CONTROL_BYTES_MAX]>::from_slice(&close.code.to_be_bytes());
    let mut end = close.reason.len().min(REASON_BYTES_MAX);
    while !close.reason.is_char_boundary(end) {
        end -= 1;
    }
    payload.extend_from_slice(&close.reason.as_bytes()[..end]);
    frame_into(OpCode::Control(Control::Close), &payload, out);
}

/// Removes a mask in place. `phase` is the number of payload bytes before `bytes` in the same frame.
pub fn unmask(mask: [u8; 4], phase: usize, bytes: &mut [u8]) {
    let mut mask = mask;
    mask.rotate_left(phase % 4);
    let wide = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    // Eight bytes at a time; the compiler vectorizes this loop.
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (i, byte) in rest.iter_mut().enumerate() {
        *byte ^= mask[i % 4];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_written_in_the_shortest_form() {
        for (length, header) in [
            (0, vec![0x82, 0]),
            (125, vec![0x82, 125]),
            (126, vec![0x82, 126, 0, 126]),
            (65535, vec![0x82, 126, 0xff, 0xff]),
            (65536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            frame_into(Kind::Binary.into(), &vec![7; length], &mut out);
            assert_eq!(out[..header.len()], header, "length {length}");
            assert_eq!(out.len(), header.len() + length);
        }
    }

    #[test]
    fn a_payload_can_be_unmasked_in_two_parts() {
        let mask = [1, 2, 3, 4];
        let plain: Vec<u8> = (0..100).collect();
        let masked: Vec<u8> = plain.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]).collect();
        for split in 0..masked.len() {
            let mut bytes = masked.clone();
            let (first, second) = bytes.split_at_mut(split);
            unmask(mask, 0, first);
            unmask(mask, split, second);
            assert_eq!(bytes, plain, "split at {split}");
        }
    }

    #[test]
    fn a_long_reason_is_truncated_at_a_character() {
        let mut frame = Vec::new();
        close_into(&Close { code: 1008, reason: "ä".repeat(100).into() }, &mut frame);
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }
}
