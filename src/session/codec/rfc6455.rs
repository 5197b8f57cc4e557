//! Decodes RFC 6455: frames are unmasked, fragments joined, and text is checked as it arrives.
//!
//! tungstenite parses the header. Messages are assembled here, because tungstenite's own assembly costs a read buffer and several
//! hundred bytes for each idle connection; this decoder costs one pointer.

use std::io::Cursor;

use smallvec::SmallVec;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::{Event, Seconds};
use crate::hub::Kind;
use crate::wire::Close;
use crate::wire::deflate::compressed_bytes_max;
use crate::wire::rfc6455::{CONTROL_BYTES_MAX, unmask};

const NOT_MASKED: Close = Close::protocol("a client's frames must be masked");
const RESERVED_BITS: Close = Close::protocol("a reserved bit is set, and no extension was agreed on");
const BAD_OPCODE: Close = Close::protocol("an opcode that RFC 6455 does not define");
const BAD_CONTROL: Close = Close::protocol("a control frame must be whole and at most 125 bytes long");
const NOTHING_TO_CONTINUE: Close = Close::protocol("a continuation frame without a message before it");
const UNFINISHED: Close = Close::protocol("a new message before the last one was finished");
const BAD_LENGTH: Close = Close::protocol("a frame's length is not in its shortest form");
const BAD_CLOSE: Close = Close::protocol("a close frame with an invalid code");

/// The maximum memory that is allocated ahead of the bytes received, so that a header alone cannot allocate much.
const GROWTH_BYTES_MAX: usize = 256 << 10;

/// The decoder of one session. While nothing is unfinished it holds a null pointer.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
    /// Compressed messages were negotiated (RFC 7692). The first reserved bit marks such a message.
    inflates: bool,
}

/// Something unfinished.
#[derive(Debug, Default)]
struct Partial {
    /// Bytes of an incomplete header.
    header: SmallVec<[u8; 14]>,
    /// The frame whose payload is arriving.
    frame: Option<Frame>,
    /// The payload of a control frame that is arriving.
    control: SmallVec<[u8; CONTROL_BYTES_MAX]>,
    /// The message so far.
    message: Vec<u8>,
    /// Text or binary. `None` between messages.
    kind: Option<Kind>,
    /// The message is compressed.
    deflated: bool,
    /// How many bytes of a text are known to be UTF-8.
    checked: usize,
    /// When its first byte was received.
    begun: Option<Seconds>,
    /// What the last event was made of. It is released at the next call.
    delivered: Delivered,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Delivered {
    #[default]
    Nothing,
    Control,
    Message,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: OpCode,
    last: bool,
    /// It begins a compressed message.
    deflated: bool,
    mask: [u8; 4],
    length: usize,
    /// How many bytes of the payload were taken.
    taken: usize,
}

impl Decoder {
    /// A decoder. `inflates`: it accepts compressed messages.
    pub fn new(inflates: bool) -> Decoder {
        Decoder { partial: None, inflates }
    }

    /// See [`super::Codec::next`].
    pub fn next<'a>(&'a mut self, input: &'a mut [u8], limit: usize) -> Result<(usize, Option<Event<'a>>), Close> {
        self.forget_delivered();
        let mut used = 0;
        let (frame, fresh) = match self.partial.as_ref().and_then(|partial| partial.frame) {
            Some(frame) => (frame, false),
            None => match self.header(&mut used, input, limit)? {
                Some(frame) => (frame, true),
                None => return Ok((used, None)),
            },
        };
        let left = frame.length - frame.taken;
        if fresh && input.len() - used >= frame.length && frame.stands_alone() {
            let payload = &mut input[used..used + frame.length];
            unmask(frame.mask, 0, payload);
            // The frame is complete in `input`. Only an earlier fragment may be held.
            if let Some(partial) = &mut self.partial {
                partial.frame = None;
            }
            let event = event(frame, payload)?;
            return Ok((used + frame.length, Some(event)));
        }
        let take = left.min(input.len() - used);
        let piece = &mut input[used..used + take];
        unmask(frame.mask, frame.taken, piece);
        used += take;
        let partial = self.partial.get_or_insert_default();
        partial.take(frame, piece)?;
        if take < left {
            return Ok((used, None));
        }
        partial.frame = None;
        if matches!(frame.opcode, OpCode::Control(_)) {
            partial.delivered = Delivered::Control;
            // A new borrow, because the event borrows from it.
            let partial = self.partial.as_ref().expect("a control frame was just taken");
            return Ok((used, Some(event(frame, &partial.control)?)));
        }
        if frame.last {
            partial.delivered = Delivered::Message;
            return Ok((used, Some(self.message()?)));
        }
        Ok((used, Some(Event::Fragment)))
    }

    /// Whether compressed messages were negotiated.
    pub fn inflates(&self) -> bool {
        self.inflates
    }

    /// See [`super::Codec::unfinished`].
    pub fn unfinished(&self, out: &mut Vec<u8>) {
        let Some(partial) = self.partial.as_ref().filter(|partial| partial.delivered != Delivered::Message) else {
            return;
        };
        let is_data = |frame: &Frame| matches!(frame.opcode, OpCode::Data(_));
        let begins = |frame: &Frame| is_data(frame) && frame.opcode != OpCode::Data(Data::Continue);
        let arriving = partial.frame.filter(is_data).map_or(0, |frame| frame.taken);
        let (whole, piece) = partial.message.split_at(partial.message.len() - arriving);
        if let Some(kind) = partial.kind
            && !partial.frame.is_some_and(|frame| begins(&frame))
        {
            // All fragments so far are written as one.
            let header = FrameHeader { is_final: false, rsv1: partial.deflated, opcode: kind.into(), ..UNMASKED };
            append(header, whole.len(), whole, out);
        }
        if let Some(frame) = partial.frame {
            let (is_final, rsv1, mask) = (frame.last, frame.deflated, Some(frame.mask));
            let header = FrameHeader { is_final, rsv1, opcode: frame.opcode, mask, ..UNMASKED };
            append(header, frame.length, if is_data(&frame) { piece } else { &partial.control }, out);
        }
        out.extend_from_slice(&partial.header);
    }

    /// See [`super::Codec::begun`].
    pub fn begun(&mut self, now: Seconds) -> Option<Seconds> {
        let unfinished = self.partial.as_mut().filter(|partial| partial.delivered != Delivered::Message)?;
        Some(*unfinished.begun.get_or_insert(now))
    }

    /// Bytes that are held for something unfinished.
    pub fn held_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| size_of::<Partial>() + partial.message.capacity())
    }

    fn forget_delivered(&mut self) {
        let Some(partial) = &mut self.partial else { return };
        let delivered = std::mem::take(&mut partial.delivered);
        if delivered == Delivered::Control {
            partial.control.clear();
        }
        if delivered == Delivered::Message || partial.is_empty() {
            self.partial = None;
        }
    }

    /// Parses and checks the header at `used`. `None`: it is incomplete, and its bytes are kept.
    fn header(&mut self, used: &mut usize, input: &[u8], limit: usize) -> Result<Option<Frame>, Close> {
        let fresh = &input[*used..];
        if fresh.is_empty() {
            return Ok(None);
        }
        let held = self.partial.as_ref().map_or(0, |partial| partial.header.len());
        let (parsed, end) = if held == 0 {
            parse(fresh)?
        } else {
            let mut joined = self.partial.as_ref().map(|partial| partial.header.clone()).unwrap_or_default();
            joined.extend_from_slice(&fresh[..fresh.len().min(14 - held)]);
            parse(&joined)?
        };
        let Some((header, length)) = parsed else {
            self.partial.get_or_insert_default().header.extend_from_slice(fresh);
            *used = input.len();
            return Ok(None);
        };
        // A length must have its shortest form, and its highest bit must not be set (RFC 6455 §5.2).
        if header.len(length) != end || i64::try_from(length).is_err() {
            return Err(BAD_LENGTH);
        }
        *used += end - held;
        let held = self.partial.as_ref().map(|p| (p.kind.is_some(), p.deflated, p.message.len()));
        let (begun, deflated, so_far) = held.unwrap_or_default();
        let frame = check(&header, self.inflates, length, begun)?;
        // Compressed bytes may be longer than the message. Its length is checked when it is inflated.
        let most = if frame.deflated || deflated { compressed_bytes_max(limit) } else { limit };
        if length > most.saturating_sub(so_far) as u64 && matches!(frame.opcode, OpCode::Data(_)) {
            return Err(Close::too_big(limit));
        }
        if let Some(partial) = &mut self.partial {
            partial.header.clear();
            partial.frame = Some(frame);
        }
        Ok(Some(frame))
    }

    fn message(&self) -> Result<Event<'_>, Close> {
        let partial = self.partial.as_ref().expect("a message was just finished");
        let kind = partial.kind.unwrap_or(Kind::Binary);
        if partial.deflated {
            return Ok(Event::Deflated(kind, &partial.message));
        }
        if kind == Kind::Text && partial.checked < partial.message.len() {
            return Err(Close::NOT_UTF8);
        }
        Ok(Event::Message(kind, &partial.message))
    }
}

impl Frame {
    /// Whether it is a complete event: a control frame, or a message in one frame.
    fn stands_alone(self) -> bool {
        match self.opcode {
            OpCode::Control(_) => true,
            OpCode::Data(data) => self.last && data != Data::Continue,
        }
    }
}

impl Partial {
    fn is_empty(&self) -> bool {
        self.kind.is_none() && self.frame.is_none() && self.header.is_empty()
    }

    /// Takes an unmasked piece of a frame's payload.
    fn take(&mut self, frame: Frame, piece: &[u8]) -> Result<(), Close> {
        self.frame = Some(Frame { taken: frame.taken + piece.len(), ..frame });
        let kind = match frame.opcode {
            OpCode::Control(_) => {
                self.control.extend_from_slice(piece);
                return Ok(());
            }
            OpCode::Data(Data::Text) => Kind::Text,
            OpCode::Data(Data::Binary) => Kind::Binary,
            OpCode::Data(_) => self.kind.unwrap_or(Kind::Binary),
        };
        if self.kind.replace(kind).is_none() {
            self.deflated = frame.deflated;
        }
        if self.message.capacity() - self.message.len() < piece.len() {
            // Grow towards the announced length, but never far ahead of the bytes received.
            let announced = frame.length - frame.taken;
            let ahead = GROWTH_BYTES_MAX.max(self.message.len());
            self.message.reserve_exact(piece.len().max(announced.min(ahead)));
        }
        self.message.extend_from_slice(piece);
        if kind == Kind::Text && !self.deflated { self.check_text() } else { Ok(()) }
    }

    /// Checks the text received so far. An incomplete character at the end is checked later.
    fn check_text(&mut self) -> Result<(), Close> {
        match std::str::from_utf8(&self.message[self.checked..]) {
            Ok(_) => self.checked = self.message.len(),
            Err(error) if error.error_len().is_some() => return Err(Close::NOT_UTF8),
            Err(error) => self.checked += error.valid_up_to(),
        }
        Ok(())
    }
}

/// The header of a client's frame with a mask of zeros.
const UNMASKED: FrameHeader = FrameHeader {
    is_final: true,
    rsv1: false,
    rsv2: false,
    rsv3: false,
    opcode: OpCode::Data(Data::Continue),
    mask: Some([0; 4]),
};

/// Appends a frame with a payload of `length` bytes, of which only `payload` was received.
fn append(header: FrameHeader, length: usize, payload: &[u8], out: &mut Vec<u8>) {
    // Writing to a Vec does not fail.
    let _ = header.format(length as u64, out);
    let start = out.len();
    out.extend_from_slice(payload);
    unmask(header.mask.unwrap_or_default(), 0, &mut out[start..]);
}

type Parsed = (Option<(FrameHeader, u64)>, usize);

/// The header at the start of `bytes`, and where it ends.
fn parse(bytes: &[u8]) -> Result<Parsed, Close> {
    let mut cursor = Cursor::new(bytes);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| BAD_OPCODE)?;
    Ok((parsed, cursor.position() as usize))
}

fn check(header: &FrameHeader, inflates: bool, length: u64, begun: bool) -> Result<Frame, Close> {
    let begins = matches!(header.opcode, OpCode::Data(Data::Text | Data::Binary));
    if (header.rsv1 && !(inflates && begins)) || header.rsv2 || header.rsv3 {
        return Err(RESERVED_BITS);
    }
    let Some(mask) = header.mask else { return Err(NOT_MASKED) };
    match header.opcode {
        OpCode::Control(_) if !header.is_final || length > CONTROL_BYTES_MAX as u64 => return Err(BAD_CONTROL),
        OpCode::Control(_) => {}
        OpCode::Data(Data::Continue) if !begun => return Err(NOTHING_TO_CONTINUE),
        OpCode::Data(Data::Text | Data::Binary) if begun => return Err(UNFINISHED),
        OpCode::Data(_) => {}
    }
    Ok(Frame {
        opcode: header.opcode,
        last: header.is_final,
        deflated: header.rsv1,
        mask,
        length: length as usize,
        taken: 0,
    })
}

/// The event of a frame with its whole payload.
fn event(frame: Frame, payload: &[u8]) -> Result<Event<'_>, Close> {
    match frame.opcode {
        OpCode::Data(Data::Text) if frame.deflated => Ok(Event::Deflated(Kind::Text, payload)),
        OpCode::Data(_) if frame.deflated => Ok(Event::Deflated(Kind::Binary, payload)),
        OpCode::Data(Data::Text) if std::str::from_utf8(payload).is_err() => Err(Close::NOT_UTF8),
        OpCode::Data(Data::Text) => Ok(Event::Message(Kind::Text, payload)),
        OpCode::Data(_) => Ok(Event::Message(Kind::Binary, payload)),
        OpCode::Control(Control::Ping) => Ok(Event::Ping(payload)),
        OpCode::Control(Control::Pong) => Ok(Event::Pong),
        OpCode::Control(_) => match *payload {
            [] => Ok(Event::Close(None)),
            [a, b, ref reason @ ..] if Close::may_be_sent(u16::from_be_bytes([a, b])) => {
                if std::str::from_utf8(reason).is_err() {
                    return Err(Close::NOT_UTF8);
                }
                Ok(Event::Close(Some(u16::from_be_bytes([a, b]))))
            }
            _ => Err(BAD_CLOSE),
        },
    }
}
