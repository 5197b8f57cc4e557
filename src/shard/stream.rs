//! A connection's socket: TCP or Unix, in the runtime while it speaks HTTP, in the shard's own epoll set after its upgrade.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::RecvFlags;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::gate::Counted;
use crate::config::limits::{KEEP_ALIVE_MAX, SEND_UNSENT_BYTES_MAX};
use crate::hub::Membership;
use crate::session::Socket;

/// A connection's place among those of its shard, its server and its address, given back wherever it ends.
#[derive(Debug)]
pub struct Place {
    /// In its shard.
    pub shard: Membership,
    /// Among others that are bounded; boxed, because it seldom is.
    pub counted: Option<Box<Counted>>,
}

/// A socket outside the runtime: accepted and not yet served, or upgraded. Never blocks.
#[derive(Debug)]
pub struct Raw {
    socket: RawSocket,
    place: Place,
}

/// What kind of socket.
#[derive(Debug)]
enum RawSocket {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixStream),
}

/// A socket that the runtime watches.
#[derive(Debug)]
pub struct Stream {
    socket: StreamSocket,
    place: Place,
}

#[derive(Debug)]
enum StreamSocket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Raw {
    /// The socket of a session that another process served.
    ///
    /// # Errors
    /// It is no socket that could be one.
    pub fn returning(descriptor: OwnedFd, place: Place) -> io::Result<Raw> {
        let socket = socket2::Socket::from(descriptor);
        if socket.r#type()? != socket2::Type::STREAM || socket.is_listener()? {
            return Err(io::Error::other("it is not a connection"));
        }
        socket.set_nonblocking(true)?;
        let socket = match socket.domain()? {
            socket2::Domain::UNIX => RawSocket::Unix(OwnedFd::from(socket).into()),
            _ => RawSocket::Tcp(socket.into()),
        };
        Ok(Raw { socket, place })
    }

    /// Puts it under the runtime's watch.
    pub fn into_stream(self) -> io::Result<Stream> {
        let socket = match self.socket {
            RawSocket::Tcp(socket) => StreamSocket::Tcp(TcpStream::from_std(socket)?),
            RawSocket::Unix(socket) => StreamSocket::Unix(UnixStream::from_std(socket)?),
        };
        Ok(Stream { socket, place: self.place })
    }
}

impl Stream {
    /// A TCP socket that was given its place.
    pub fn tcp(socket: TcpStream, place: Place) -> Stream {
        Stream { socket: StreamSocket::Tcp(socket), place }
    }

    /// A Unix socket that was given its place.
    pub fn unix(socket: UnixStream, place: Place) -> Stream {
        Stream { socket: StreamSocket::Unix(socket), place }
    }

    /// Who is at the other end, as the log names it.
    pub fn peer(&self) -> String {
        match &self.socket {
            StreamSocket::Tcp(socket) => name(socket.peer_addr()),
            StreamSocket::Unix(_) => "unix".to_owned(),
        }
    }

    /// Whether it came in on a loopback address or a Unix socket.
    pub fn is_on_loopback(&self) -> bool {
        match &self.socket {
            StreamSocket::Tcp(socket) => is_loopback(socket),
            StreamSocket::Unix(_) => true,
        }
    }

    /// Whether it has a place of the reserve.
    pub fn is_reserve(&self) -> bool {
        self.place.counted.as_ref().is_some_and(|counted| counted.reserve.is_some())
    }

    /// Reads what the kernel has at this moment, whatever the runtime knows of it.
    ///
    /// # Errors
    /// What the system says; where there is nothing, [`io::ErrorKind::WouldBlock`].
    pub fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let socket = match &self.socket {
            StreamSocket::Tcp(socket) => socket.as_fd(),
            StreamSocket::Unix(socket) => socket.as_fd(),
        };
        Ok(rustix::net::recv(socket, buffer, RecvFlags::DONTWAIT)?.0)
    }

    /// Has the kernel keep little of what is written, beyond what is on its way (tcp(7), `TCP_NOTSENT_LOWAT`).
    pub fn bound_unsent(&self) {
        if let StreamSocket::Tcp(socket) = &self.socket
            && let Err(error) = SockRef::from(socket).set_tcp_notsent_lowat(SEND_UNSENT_BYTES_MAX)
        {
            log::debug!("{} may hold more of an answer than it should: {error}", self.peer());
        }
    }

    /// Takes it out of the runtime's watch.
    pub fn into_raw(self) -> io::Result<Raw> {
        let socket = match self.socket {
            StreamSocket::Tcp(socket) => RawSocket::Tcp(socket.into_std()?),
            StreamSocket::Unix(socket) => RawSocket::Unix(socket.into_std()?),
        };
        Ok(Raw { socket, place: self.place })
    }
}

impl Raw {
    /// Has the kernel find out whether the other end is still there, for a dialect that has no pings (tcp(7), `SO_KEEPALIVE`).
    ///
    /// # Errors
    /// What the system says.
    pub fn probe_after(&self, idle: Duration) -> io::Result<()> {
        match &self.socket {
            RawSocket::Tcp(socket) => {
                let idle = idle.min(KEEP_ALIVE_MAX);
                let probes = TcpKeepalive::new().with_time(idle).with_interval(idle);
                SockRef::from(socket).set_tcp_keepalive(&probes)
            }
            // The kernel tells when a process is gone.
            RawSocket::Unix(_) => Ok(()),
        }
    }
}

/// Whether a socket came in on a loopback address.
pub(super) fn is_loopback(socket: &TcpStream) -> bool {
    socket.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback())
}

fn name(address: io::Result<SocketAddr>) -> String {
    address.map_or_else(|_| "(gone)".to_owned(), |address| address.to_string())
}

impl AsFd for Raw {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            RawSocket::Tcp(socket) => socket.as_fd(),
            RawSocket::Unix(socket) => socket.as_fd(),
        }
    }
}

impl Socket for Raw {
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.socket {
            RawSocket::Tcp(socket) => socket.read(buffer),
            RawSocket::Unix(socket) => socket.read(buffer),
        }
    }

    fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // One slice is the usual case, and `send` is cheaper than `writev`.
        match (&mut self.socket, slices) {
            (RawSocket::Tcp(socket), [slice]) => socket.write(slice),
            (RawSocket::Tcp(socket), slices) => socket.write_vectored(slices),
            (RawSocket::Unix(socket), slices) => socket.write_vectored(slices),
        }
    }

    fn shutdown_write(&mut self) {
        // A socket that is gone already needs no goodbye.
        let _ = match &self.socket {
            RawSocket::Tcp(socket) => socket.shutdown(Shutdown::Write),
            RawSocket::Unix(socket) => socket.shutdown(Shutdown::Write),
        };
    }

    fn peer(&self) -> String {
        match &self.socket {
            RawSocket::Tcp(socket) => name(socket.peer_addr()),
            RawSocket::Unix(_) => "unix".to_owned(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            StreamSocket::Tcp(socket) => Pin::new(socket).poll_read(cx, buffer),
            StreamSocket::Unix(socket) => Pin::new(socket).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().socket {
            StreamSocket::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            StreamSocket::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().socket {
            StreamSocket::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            StreamSocket::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            StreamSocket::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            StreamSocket::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Members;

    #[test]
    fn a_silent_peer_is_probed_by_the_kernel() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let place = Place { shard: Members::default().join(1).unwrap(), counted: None };
        let raw = Raw { socket: RawSocket::Tcp(listener.accept().unwrap().0), place };
        assert!(!SockRef::from(&raw).keepalive().unwrap());
        // The longest ping there can be is longer than the kernel counts.
        for (ping, idle) in [(25, 25), (604_800, 32_767)] {
            raw.probe_after(Duration::from_secs(ping)).unwrap();
            assert!(SockRef::from(&raw).keepalive().unwrap());
            assert_eq!(SockRef::from(&raw).tcp_keepalive_time().unwrap(), Duration::from_secs(idle));
        }
        drop(peer);
    }
}
