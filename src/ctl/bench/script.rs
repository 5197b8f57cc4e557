//! The messages of a load. The content of a message is computed from the load's number, the stream and the message's
//! number, so each delivery can be compared byte for byte.
//!
//! A payload is text: a marker of fixed length, then the alphabet up to the configured size. The first letter depends
//! on the number.

use super::framing::{self, Framing};

/// The length of a marker: `pushbench RUN STREAM NUMBER `, with hexadecimal numbers.
pub const MARKER_BYTES: usize = 10 + 8 + 1 + 6 + 1 + 12 + 1;
/// The offsets of the stream and the number in it.
const STREAM_AT: usize = 10 + 8 + 1;
const NUMBER_AT: usize = STREAM_AT + 6 + 1;
const LETTERS: usize = 26;

/// The messages of one load. It caches those in flight, framed as a server sends them.
#[derive(Debug)]
pub struct Script {
    /// How they are framed.
    pub framing: Framing,
    run: u32,
    size: usize,
    /// The alphabet repeated, long enough for a payload from any first letter.
    letters: Vec<u8>,
    /// What a server sends before and after a message.
    header: Vec<u8>,
    trailer: &'static [u8],
    frames: Vec<u8>,
    /// The message whose frame is in each slot of `frames`.
    slots: Vec<Option<(u32, u64)>>,
}

impl Script {
    /// Messages of `size` bytes, at least [`MARKER_BYTES`], of which about `window` are in flight at once.
    pub fn new(framing: Framing, run: u32, size: usize, window: usize) -> Script {
        let size = size.max(MARKER_BYTES);
        let letters = (b'a'..=b'z').cycle().take(size - MARKER_BYTES + LETTERS).collect();
        let (header, trailer) = framing.around(size);
        // A power of two, because a slot is looked up with every delivery.
        let slots = window.next_power_of_two();
        let frames = vec![0; slots * (header.len() + size + trailer.len())];
        Script { framing, run, size, letters, header, trailer, frames, slots: vec![None; slots] }
    }

    /// The message, framed as a server sends it.
    pub fn frame(&mut self, stream: u32, number: u64) -> &[u8] {
        let slot = number as usize & (self.slots.len() - 1);
        let length = self.header.len() + self.size + self.trailer.len();
        let range = slot * length..(slot + 1) * length;
        if self.slots[slot] != Some((stream, number)) {
            self.slots[slot] = Some((stream, number));
            let mut frame = self.header.clone();
            self.payload_into(stream, number, &mut frame);
            frame.extend_from_slice(self.trailer);
            self.frames[range.clone()].copy_from_slice(&frame);
        }
        &self.frames[range]
    }

    /// The payload of a message.
    pub fn payload(&mut self, stream: u32, number: u64) -> &[u8] {
        let start = self.header.len();
        let end = start + self.size;
        &self.frame(stream, number)[start..end]
    }

    /// Appends the payload of a message.
    pub fn payload_into(&self, stream: u32, number: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("pushbench {:08x} {stream:06x} {number:012x} ", self.run).as_bytes());
        let begin = (number % LETTERS as u64) as usize;
        out.extend_from_slice(&self.letters[begin..begin + self.size - MARKER_BYTES]);
    }

    /// Appends a message as the client of a WebSocket sends it: masked, with another mask each time.
    pub fn client_frame_into(&self, stream: u32, number: u64, out: &mut Vec<u8>) {
        let mask = (number as u32 ^ self.run).wrapping_mul(0x9e37_79b1).to_be_bytes();
        framing::header_into(true, self.size, out);
        out.extend_from_slice(&mask);
        let start = out.len();
        self.payload_into(stream, number, out);
        out[start..].iter_mut().enumerate().for_each(|(i, byte)| *byte ^= mask[i % 4]);
    }

    /// Finds a message of this load anywhere in `payload`. Returns its stream, its number, and whether it is unchanged.
    /// `None` if there is none.
    pub fn recognise(&self, payload: &[u8]) -> Option<(u32, u64, bool)> {
        let start = format!("pushbench {:08x} ", self.run);
        let at = payload.windows(start.len()).position(|window| window == start.as_bytes())?;
        let marker = payload.get(at..at + MARKER_BYTES)?;
        let hex = |from: usize, length: usize| {
            let digits = std::str::from_utf8(&marker[from..from + length]).ok()?;
            u64::from_str_radix(digits, 16).ok()
        };
        let (stream, number) = (hex(STREAM_AT, 6)? as u32, hex(NUMBER_AT, 12)?);
        let mut expected = Vec::with_capacity(self.size);
        self.payload_into(stream, number, &mut expected);
        Some((stream, number, payload[at..].starts_with(&expected)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::framing::Part;
    use super::*;

    #[test]
    fn a_framed_message_is_recognised() {
        for framing in [Framing::WebSocket, Framing::EventStream] {
            for size in [1, MARKER_BYTES, 64, 125, 126, 1024, 70_000] {
                let mut script = Script::new(framing, 7, size, 4);
                for number in [0, 1, 25, 26, 5] {
                    let bytes = script.frame(3, number).to_vec();
                    let Some((Part::Message(payload), length)) = framing.parse(&bytes, 100_000).unwrap() else {
                        panic!("no message: {bytes:?}");
                    };
                    assert_eq!((length, payload.len()), (bytes.len(), size.max(MARKER_BYTES)));
                    assert_eq!(script.recognise(&payload), Some((3, number, true)));
                    assert_eq!(script.payload(3, number), &payload[..]);
                    assert_eq!(framing.parse(&bytes[..bytes.len() - 1], 100_000), Ok(None));
                }
            }
        }
    }

    #[test]
    fn frames_are_those_of_the_standards() {
        let mut script = Script::new(Framing::EventStream, 7, 64, 4);
        let payload = script.payload(0, 9).to_vec();
        assert_eq!(script.frame(0, 9), [b"data: ", &payload[..], b"\n\n"].concat());
        assert_eq!(Script::new(Framing::WebSocket, 7, 64, 4).frame(0, 9), [b"\x81\x40", &payload[..]].concat());
    }

    #[test]
    fn a_masked_frame_is_the_same_message() {
        let mut script = Script::new(Framing::WebSocket, 1, 200, 2);
        let mut sent = Vec::new();
        script.client_frame_into(0, 9, &mut sent);
        assert_eq!(sent[..4], [0x81, 0x80 | 126, 0, 200]);
        let mask: [u8; 4] = sent[4..8].try_into().unwrap();
        let plain: Vec<u8> = sent[8..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        assert_eq!(plain, script.frame(0, 9)[4..]);
    }

    #[test]
    fn a_changed_message_is_detected_and_text_around_it_is_allowed() {
        let script = Script::new(Framing::WebSocket, 1, 64, 2);
        let mut payload = Vec::new();
        script.payload_into(0, 5, &mut payload);
        let wrapped = [b"msg:", &payload[..], b"!"].concat();
        assert_eq!(script.recognise(&wrapped), Some((0, 5, true)));
        *payload.last_mut().unwrap() ^= 1;
        assert_eq!(script.recognise(&payload), Some((0, 5, false)));
        assert_eq!(script.recognise(&payload[..40]), Some((0, 5, false)));
        assert_eq!(script.recognise(b"tick:5"), None);
        assert_eq!(Script::new(Framing::WebSocket, 2, 64, 2).recognise(&payload), None);
        payload[NUMBER_AT] = b'?';
        assert_eq!(script.recognise(&payload), None);
    }
}
