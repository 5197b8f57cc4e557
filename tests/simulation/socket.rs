//! A socket made of two queues, as strict as the kernel: it accepts only as many bytes as fit and at most `IOV_MAX` slices in one
//! write, and reports readiness once for each change (edge-triggered).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;

use pushd::session::Socket;

/// The maximum number of slices in one write (`IOV_MAX`).
const SLICES_MAX: usize = 1024;

/// Both directions of one connection.
#[derive(Default)]
pub struct Pipe {
    /// Bytes that the client has sent and that have not arrived yet.
    pub flying: VecDeque<u8>,
    /// Bytes that have arrived, for the server to read.
    arrived: VecDeque<u8>,
    /// The client ends its side after the bytes on their way.
    pub end_flying: bool,
    ended: bool,
    reset: bool,
    /// The maximum number of bytes that wait for the client.
    pub capacity: usize,
    /// Bytes that the server has written, for the client to read.
    pub waiting: Vec<u8>,
    /// A write did not fit completely: the socket becomes writable again when the client reads.
    full: bool,
    /// Whether a write ever did not fit.
    pub was_full: bool,
    /// Read calls. Some of them are interrupted, as by a signal.
    reads: usize,
    pub readable: bool,
    pub writable: bool,
    /// The server has ended its side.
    pub shut: bool,
    /// The server has closed it.
    pub dropped: bool,
    /// Write calls.
    pub writes: usize,
}

impl Pipe {
    /// A connection that accepts at most `capacity` unread bytes.
    pub fn new(capacity: usize) -> Rc<RefCell<Pipe>> {
        Rc::new(RefCell::new(Pipe { capacity, ..Pipe::default() }))
    }

    /// `count` more bytes arrive, and the end after the last.
    pub fn arrive(&mut self, count: usize) {
        let count = count.min(self.flying.len());
        self.arrived.extend(self.flying.drain(..count));
        let ends = self.end_flying && self.flying.is_empty() && !self.ended;
        self.ended |= ends;
        self.readable |= count > 0 || ends;
    }

    /// Whether nothing is on its way.
    pub fn has_landed(&self) -> bool {
        self.flying.is_empty() && self.end_flying == self.ended
    }

    /// The client resets the connection.
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

    /// Whether the client's side has ended or was reset.
    pub fn is_ending(&self) -> bool {
        self.ended || self.reset
    }
}

/// The server's end.
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
        assert!(!pipe.shut, "a write after the end");
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
