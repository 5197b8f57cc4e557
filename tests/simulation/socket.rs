//! A socket made of two queues, as strict as the kernel's: it takes what there is room for, at most `IOV_MAX` slices at once, and
//! tells of readiness once for each change (edge-triggered), not once for each question.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;

use pushd::session::Socket;

/// What the kernel takes in one write (`IOV_MAX`).
const SLICES_MAX: usize = 1024;

/// Both directions of one connection.
#[derive(Default)]
pub struct Pipe {
    /// Sent by the client and not arrived yet.
    pub flying: VecDeque<u8>,
    /// Arrived, for the server to read.
    arrived: VecDeque<u8>,
    /// The client's end follows what is flying.
    pub end_flying: bool,
    ended: bool,
    reset: bool,
    /// How many bytes wait for the client at most.
    pub capacity: usize,
    /// Taken from the server, for the client to read.
    pub waiting: Vec<u8>,
    /// A write found no room: the next room is an edge.
    full: bool,
    /// That ever happened.
    pub was_full: bool,
    /// Every so often a read is interrupted by a signal.
    reads: usize,
    pub readable: bool,
    pub writable: bool,
    /// The server has said that nothing more comes.
    pub shut: bool,
    /// The server has let go of it.
    pub dropped: bool,
    /// Write calls.
    pub writes: usize,
}

impl Pipe {
    /// A connection whose client leaves at most `capacity` bytes unread.
    pub fn new(capacity: usize) -> Rc<RefCell<Pipe>> {
        Rc::new(RefCell::new(Pipe { capacity, ..Pipe::default() }))
    }

    /// `count` bytes more arrive, and the end behind the last.
    pub fn arrive(&mut self, count: usize) {
        let count = count.min(self.flying.len());
        self.arrived.extend(self.flying.drain(..count));
        let ends = self.end_flying && self.flying.is_empty() && !self.ended;
        self.ended |= ends;
        self.readable |= count > 0 || ends;
    }

    /// Nothing is on its way any longer.
    pub fn has_landed(&self) -> bool {
        self.flying.is_empty() && self.end_flying == self.ended
    }

    /// The client is gone without a word.
    pub fn reset(&mut self) {
        (self.reset, self.readable, self.writable) = (true, true, true);
        self.flying.clear();
        self.waiting.clear();
    }

    /// The client reads up to `count` bytes.
    pub fn take(&mut self, count: usize, into: &mut Vec<u8>) {
        let count = count.min(self.waiting.len());
        into.extend(self.waiting.drain(..count));
        if self.full && self.waiting.len() < self.capacity {
            (self.full, self.writable) = (false, true);
        }
    }

    /// The client's side has ended, one way or the other: it will be read until that.
    pub fn is_ending(&self) -> bool {
        self.ended || self.reset
    }
}

/// The server's side.
pub struct FakeSocket(pub Rc<RefCell<Pipe>>);

impl Socket for FakeSocket {
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut pipe = self.0.borrow_mut();
        pipe.reads += 1;
        if pipe.reset {
            return Err(ErrorKind::ConnectionReset.into());
        }
        if pipe.reads.is_multiple_of(97) {
            return Err(ErrorKind::Interrupted.into());
        }
        if pipe.arrived.is_empty() {
            return if pipe.ended { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        let count = pipe.arrived.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(pipe.arrived.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }

    fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut pipe = self.0.borrow_mut();
        pipe.writes += 1;
        if pipe.reset {
            return Err(ErrorKind::BrokenPipe.into());
        }
        assert!(!pipe.shut, "a write behind the end");
        let mut written = 0;
        for slice in slices.iter().take(SLICES_MAX) {
            let count = slice.len().min(pipe.capacity - pipe.waiting.len());
            pipe.waiting.extend_from_slice(&slice[..count]);
            written += count;
            if count < slice.len() {
                (pipe.full, pipe.was_full) = (true, true);
                break;
            }
        }
        if written == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(written) }
    }

    fn shutdown_write(&mut self) {
        self.0.borrow_mut().shut = true;
    }

    fn peer(&self) -> String {
        "simulated".to_owned()
    }
}

impl Drop for FakeSocket {
    fn drop(&mut self) {
        self.0.borrow_mut().dropped = true;
    }
}
