//! A TCP socket with what encrypts it.
//!
//! The channel uses the socket by calls that never wait. While the runtime watches the socket, such a call goes through the runtime, so
//! that it knows when the socket is ready again.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::{AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::peer::TcpPeer;
use crate::tls::Channel;

/// The socket and its channel.
#[derive(Debug)]
pub(super) struct Encrypted<S> {
    pub(super) socket: S,
    pub(super) peer: TcpPeer,
    pub(super) channel: Channel,
}

impl<S> Encrypted<S> {
    /// The same with the socket in another form.
    pub(super) fn with_socket<T>(self, change: impl FnOnce(S) -> io::Result<T>) -> io::Result<Encrypted<T>> {
        Ok(Encrypted { socket: change(self.socket)?, peer: self.peer, channel: self.channel })
    }
}

impl Encrypted<TcpStream> {
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.channel.read(&mut Watched(&self.socket), buffer.initialize_unfilled()) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => ready!(self.socket.poll_read_ready(cx))?,
                read => {
                    buffer.advance(read?);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            match self.channel.write(&mut Watched(&self.socket), slices) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => ready!(self.socket.poll_write_ready(cx))?,
                written => return Poll::Ready(written),
            }
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.channel.flush(&mut Watched(&self.socket))? {
            ready!(self.socket.poll_write_ready(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.channel.end();
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// A socket that the runtime watches, tried without waiting.
struct Watched<'s>(&'s TcpStream);

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Watched<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket of which the kernel is asked, whatever the runtime knows.
pub(super) struct Now<'s>(pub(super) BorrowedFd<'s>);

impl Read for Now<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(self.0, buffer, RecvFlags::DONTWAIT)?.0)
    }
}

impl Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.0, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
