//! What a session needs of its socket. A simulation takes the place of the kernel here.

use std::io::{self, IoSlice};

/// The socket of a session. No call waits.
pub trait Socket {
    /// Reads what is there; `WouldBlock` if nothing is.
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes what the kernel accepts; `WouldBlock` if it accepts nothing.
    fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Writes what it holds of accepted bytes, such as encrypted ones. Returns whether it holds nothing any longer.
    fn flush(&mut self) -> io::Result<bool> {
        Ok(true)
    }
    /// Whether it holds such bytes. Then it accepts no others.
    fn is_blocked(&self) -> bool {
        false
    }
    /// Whether it knows that the client has ended, although the kernel may not report that.
    fn has_ended(&self) -> bool {
        false
    }
    /// Says that nothing more follows before it is closed, where the protocol below can.
    fn finish(&mut self) {}
    /// Ends the direction towards the client.
    fn shutdown_write(&mut self);
    /// The address of the client, as the log shows it.
    fn peer(&self) -> String;
}
