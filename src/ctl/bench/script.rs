//! The messages of a load. The content of a message is computed from the load's number, the stream and the message's
//! number, so each delivery can be compared byte for byte.
//!
//! A payload is text: a marker of fixed length, then the alphabet up to the configured size. The first letter depends
//! on the number.

/// The length of a marker: `pushbench RUN STREAM NUMBER `, with hexadecimal numbers.
pub const MARKER_BYTES: usize = 10 + 8 + 1 + 6 + 1 + 12 + 1;
/// The offsets of the stream and the number in it.
const STREAM_AT: usize = 10 + 8 + 1;
const NUMBER_AT: usize = STREAM_AT + 6 + 1;
const LETTERS: usize = 26;

/// The messages of one load. It caches those in flight, framed as a server sends them.
#[derive(Debug)]
pub struct Script {
    run: u32,
    size: usize,
    /// The alphabet repeated, long enough for a payload from any first letter.
    letters: Vec<u8>,
    header: Vec<u8>,
    frames: Vec<u8>,
    /// The message whose frame is in each slot of `frames`.
    slots: Vec<Option<(u32, u64)>>,
}

impl Script {
    /// Messages of `size` bytes, at least [`MARKER_BYTES`], of which about `window` are in flight at once.
    pub fn new(run: u32, size: usize, window: usize) -> Script {
        let size = size.max(MARKER_BYTES);
        let letters = (b'a'..=b'z').cycle().take(size - MARKER_BYTES + LETTERS).collect();
        let mut header = Vec::new();
        header_into(false, size, &mut header);
        // A power of two, because a slot is looked up with every delivery.
        let slots = window.next_power_of_two();
        let frames = vec![0; slots * (header.len() + size)];
        Script { run, size, letters, header, frames, slots: vec![None; slots] }
    }

    /// The message, framed as a server sends it.
    pub fn frame(&mut self, stream: u32, number: u64) -> &[u8] {
        let slot = number as usize & (self.slots.len() - 1);
        let length = self.header.len() + self.size;
        let range = slot * length..(slot + 1) * length;
        if self.slots[slot] != Some((stream, number)) {
            self.slots[slot] = Some((stream, number));
            let mut frame = self.header.clone();
            self.payload_into(stream, number, &mut frame);
            self.frames[range.clone()].copy_from_slice(&frame);
        }
        &self.frames[range]
    }

    /// Appends the payload of a message.
    pub fn payload_into(&self, stream: u32, number: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("pushbench {:08x} {stream:06x} {number:012x} ", self.run).as_bytes());
        let begin = (number % LETTERS as u64) as usize;
        out.extend_from_slice(&self.letters[begin..begin + self.size - MARKER_BYTES]);
    }

    /// Appends a message as a client sends it: masked, with another mask each time.
    pub fn client_frame_into(&self, stream: u32, number: u64, out: &mut Vec<u8>) {
        let mask = (number as u32 ^ self.run).wrapping_mul(0x9e37_79b1).to_be_bytes();
        header_into(true, self.size, out);
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

/// Appends the header of an unfragmented text frame, without the mask.
fn header_into(masked: bool, length: usize, out: &mut Vec<u8>) {
    let bit = if masked { 0x80 } else { 0 };
    out.push(0x81);
    match length {
        0..126 => out.push(bit | length as u8),
        126..65536 => {
            out.push(bit | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(bit | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// A frame from a server.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its first byte.
    pub first: u8,
    /// Its payload.
    pub payload: &'a [u8],
    /// Its length, header and payload.
    pub length: usize,
}

/// The frame at the start of `bytes`; `None` if it is incomplete. Fails if it is masked or too long.
pub fn parse(bytes: &[u8], longest: usize) -> Result<Option<Frame<'_>>, ()> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let (start, length) = match (second, rest) {
        (126, [a, b, ..]) => (4, u64::from(u16::from_be_bytes([*a, *b]))),
        (127, [a, b, c, d, e, f, g, h, ..]) => (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])),
        (126 | 127, _) => return Ok(None),
        (0..126, _) => (2, u64::from(*second)),
        // A server does not mask.
        _ => return Err(()),
    };
    if length > longest as u64 {
        return Err(());
    }
    let end = start + length as usize;
    Ok(bytes.get(start..end).map(|payload| Frame { first: *first, payload, length: end }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_framed_message_is_recognised() {
        for size in [1, MARKER_BYTES, 64, 125, 126, 1024, 70_000] {
            let mut script = Script::new(7, size, 4);
            for number in [0, 1, 25, 26, 5] {
                let bytes = script.frame(3, number).to_vec();
                let frame = parse(&bytes, 100_000).unwrap().unwrap();
                assert_eq!(
                    (frame.first, frame.length, frame.payload.len()),
                    (0x81, bytes.len(), size.max(MARKER_BYTES))
                );
                assert_eq!(script.recognise(frame.payload), Some((3, number, true)));
                assert_eq!(parse(&bytes[..bytes.len() - 1], 100_000), Ok(None));
            }
        }
    }

    #[test]
    fn a_masked_frame_is_the_same_message() {
        let mut script = Script::new(1, 200, 2);
        let mut sent = Vec::new();
        script.client_frame_into(0, 9, &mut sent);
        assert_eq!(sent[..4], [0x81, 0x80 | 126, 0, 200]);
        let mask: [u8; 4] = sent[4..8].try_into().unwrap();
        let plain: Vec<u8> = sent[8..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        assert_eq!(plain, script.frame(0, 9)[4..]);
    }

    #[test]
    fn a_changed_message_is_detected_and_text_around_it_is_allowed() {
        let script = Script::new(1, 64, 2);
        let mut payload = Vec::new();
        script.payload_into(0, 5, &mut payload);
        let wrapped = [b"msg:", &payload[..], b"!"].concat();
        assert_eq!(script.recognise(&wrapped), Some((0, 5, true)));
        *payload.last_mut().unwrap() ^= 1;
        assert_eq!(script.recognise(&payload), Some((0, 5, false)));
        assert_eq!(script.recognise(&payload[..40]), Some((0, 5, false)));
        assert_eq!(script.recognise(b"tick:5"), None);
        assert_eq!(Script::new(2, 64, 2).recognise(&payload), None);
        payload[NUMBER_AT] = b'?';
        assert_eq!(script.recognise(&payload), None);
    }

    #[test]
    fn frames_that_no_server_sends_are_rejected() {
        assert_eq!(parse(&[0x81, 0x85, 0, 0, 0, 0], 100), Err(()));
        assert_eq!(parse(&[0x82, 126, 1, 0], 100), Err(()));
        assert_eq!(parse(&[0x82, 127, 0, 0, 0], 100), Ok(None));
    }
}
