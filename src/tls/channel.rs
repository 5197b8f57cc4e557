//! One encrypted connection, without its socket.
//!
//! The handshake is part of reading: [`Channel::read`] goes on with it as bytes arrive, and answers. What is written is encrypted at once.
//! What the socket does not accept of it waits here, at most [`TLS_UNSENT_BYTES_MAX`]; until that is gone nothing more is accepted.

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use rustls::ServerConnection;

use crate::config::limits::{TLS_EMPTY_READS_MAX, TLS_UNSENT_BYTES_MAX};

/// The part of the slices behind the first `count` bytes, up to the end of a slice. `None`: nothing is there.
fn behind<'s>(slices: &'s [IoSlice<'_>], mut count: usize) -> Option<&'s [u8]> {
    for slice in slices {
        match slice.len() {
            length if count < length => return Some(&slice[count..]),
            length => count -= length,
        }
    }
    None
}

/// What encrypts a connection.
#[derive(Debug)]
pub struct Channel {
    connection: ServerConnection,
    /// The client has ended its side, in order or not, or the connection has failed.
    has_ended: bool,
    /// Why the connection has failed. It is returned when what came before has been read.
    failure: Option<io::Error>,
}

impl Channel {
    pub(super) fn new(mut connection: ServerConnection) -> Channel {
        connection.set_buffer_limit(Some(TLS_UNSENT_BYTES_MAX));
        Channel { connection, has_ended: false, failure: None }
    }

    /// Whether the handshake is not finished yet.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Reads what has arrived, decrypted: as much as fits, or as there is. 0 is the end.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] if nothing is there, or the handshake is not finished. Any other error ends the connection; the client
    /// was told why where that is possible.
    pub fn read(&mut self, io: &mut (impl Read + Write), buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        // The rest of a handshake may wait. Whether the client still reads, writing shows: what it has sent is read all the same.
        let _ = self.flush(io);
        let (mut filled, mut empty) = (0, 0);
        while filled < buffer.len() {
            match self.connection.reader().read(&mut buffer[filled..]) {
                Ok(0) => {
                    self.has_ended = true;
                    return Ok(filled);
                }
                // Many clients end without saying so. Whether something is missing, the protocol above knows.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    self.has_ended = true;
                    return Ok(filled);
                }
                Ok(count) => {
                    filled += count;
                    empty = 0;
                }
                // A client could keep this shard busy with records that contain nothing.
                Err(_) if empty > TLS_EMPTY_READS_MAX => return Err(ErrorKind::InvalidData.into()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => match self.receive(io) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock && filled > 0 => return Ok(filled),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(error),
                    Err(error) => {
                        // What came before it is decrypted already, and is read first.
                        filled += self.connection.reader().read(&mut buffer[filled..]).unwrap_or(0);
                        if filled == 0 {
                            return Err(error);
                        }
                        (self.has_ended, self.failure) = (true, Some(error));
                        return Ok(filled);
                    }
                    Ok(()) => empty += 1,
                },
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Takes what the socket has, and answers what must be answered.
    fn receive(&mut self, io: &mut (impl Read + Write)) -> io::Result<()> {
        let count = self.connection.read_tls(io)?;
        let processed = self.connection.process_new_packets();
        // An alert, or a part of the handshake. What is not accepted follows later.
        let _ = self.flush(io);
        processed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        if count == 0 && self.connection.is_handshaking() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Encrypts bytes and sends them. Returns how many were encrypted: they are sent, or wait here.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] if something waits already. Any other error ends the connection.
    pub fn write(&mut self, io: &mut impl Write, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if !self.flush(io)? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut count = self.connection.writer().write_vectored(slices)?;
        // Less than everything must mean that the socket accepts no more: only then it reports when it does again.
        while self.flush(io)? {
            let Some(rest) = behind(slices, count) else { break };
            count += self.connection.writer().write(rest)?;
        }
        Ok(count)
    }

    /// Sends what waits. Returns whether nothing waits any longer.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn flush(&mut self, io: &mut impl Write) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(io) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether encrypted bytes wait.
    pub fn is_blocked(&self) -> bool {
        self.connection.wants_write()
    }

    /// Whether the client has ended its side, and that may not have been returned by [`read`](Channel::read) yet.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Says that nothing more follows (RFC 8446, section 6.1). It is sent by the next [`flush`](Channel::flush).
    pub fn end(&mut self) {
        self.connection.send_close_notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_slices_is_found() {
        let slices = [IoSlice::new(b"abc"), IoSlice::new(b""), IoSlice::new(b"de")];
        let found: Vec<_> = (0..=5).map(|count| behind(&slices, count)).collect();
        let expected = [&b"abc"[..], b"bc", b"c", b"de", b"e"].map(Some);
        assert_eq!((&found[..5], found[5]), (&expected[..], None));
    }
}
