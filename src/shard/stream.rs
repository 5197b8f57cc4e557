//! The socket of a connection: TCP, with or without TLS, or Unix. The runtime watches it while HTTP is served, the epoll set of the
//! shard before the first request and after an upgrade.

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

use super::encrypted::{Encrypted, Now};
use super::gate::Counted;
use super::peer::{Peer, TcpPeer};
use crate::config::limits::{KEEP_ALIVE_MAX, SEND_UNSENT_BYTES_MAX};
use crate::hub::Membership;
use crate::session::Socket;
use crate::tls::Channel;

/// The counts that a connection is part of. They are lowered when the connection ends.
#[derive(Debug)]
pub struct Admission {
    /// That of its shard.
    pub shard: Membership,
    /// Those that are limited. Boxed, because few connections are part of one.
    pub counted: Option<Box<Counted>>,
}

impl Admission {
    fn is_reserve(&self) -> bool {
        self.counted.as_ref().is_some_and(|counted| counted.reserve.is_some())
    }
}

/// A socket that the runtime does not watch: accepted and not served yet, or upgraded. It does not block.
#[derive(Debug)]
pub struct Raw {
    socket: RawSocket,
    admission: Admission,
}

/// The socket.
#[derive(Debug)]
enum RawSocket {
    /// TCP.
    Tcp(std::net::TcpStream, TcpPeer),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixStream),
    /// TCP with TLS.
    Tls(Box<Encrypted<std::net::TcpStream>>),
}

/// A socket that the runtime watches.
#[derive(Debug)]
pub struct Stream {
    socket: StreamSocket,
    admission: Admission,
}

#[derive(Debug)]
enum StreamSocket {
    Tcp(TcpStream, TcpPeer),
    Unix(UnixStream),
    Tls(Box<Encrypted<TcpStream>>),
}

impl Raw {
    /// The socket of a session that another process served.
    ///
    /// # Errors
    /// The descriptor is not a connection.
    pub fn returning(descriptor: OwnedFd, admission: Admission) -> io::Result<Raw> {
        let socket = socket2::Socket::from(descriptor);
        if socket.r#type()? != socket2::Type::STREAM || socket.is_listener()? {
            return Err(io::Error::other("it is not a connection"));
        }
        socket.set_nonblocking(true)?;
        let socket = match socket.domain()? {
            socket2::Domain::UNIX => RawSocket::Unix(OwnedFd::from(socket).into()),
            _ => {
                let peer =
                    socket.peer_addr().and_then(|peer| peer.as_socket().ok_or_else(|| io::ErrorKind::Other.into()));
                RawSocket::Tcp(socket.into(), peer.into())
            }
        };
        Ok(Raw { socket, admission })
    }

    /// A TCP socket that does not block.
    pub fn tcp(socket: std::net::TcpStream, peer: TcpPeer, admission: Admission) -> Raw {
        Raw { socket: RawSocket::Tcp(socket, peer), admission }
    }

    /// A TCP socket that does not block, encrypted by `channel`.
    pub fn tls(socket: std::net::TcpStream, peer: TcpPeer, channel: Channel, admission: Admission) -> Raw {
        Raw { socket: RawSocket::Tls(Box::new(Encrypted { socket, peer, channel })), admission }
    }

    /// Whether it can be given to another process. What encrypts it cannot.
    pub fn can_be_given_away(&self) -> bool {
        !matches!(self.socket, RawSocket::Tls(_))
    }

    /// Whether its handshake of TLS is not finished yet.
    pub fn is_handshaking(&self) -> bool {
        matches!(&self.socket, RawSocket::Tls(encrypted) if encrypted.channel.is_handshaking())
    }

    /// A Unix socket that does not block.
    pub fn unix(socket: std::os::unix::net::UnixStream, admission: Admission) -> Raw {
        Raw { socket: RawSocket::Unix(socket), admission }
    }

    /// Whether it came in on a loopback address or a Unix socket.
    pub fn is_on_loopback(&self) -> bool {
        match &self.socket {
            RawSocket::Tcp(socket, _) => is_loopback(socket.local_addr()),
            RawSocket::Unix(_) => true,
            RawSocket::Tls(encrypted) => is_loopback(encrypted.socket.local_addr()),
        }
    }

    /// Whether it is part of the reserve.
    pub fn is_reserve(&self) -> bool {
        self.admission.is_reserve()
    }

    /// Lets the runtime watch it.
    pub fn into_stream(self) -> io::Result<Stream> {
        let socket = match self.socket {
            RawSocket::Tcp(socket, peer) => StreamSocket::Tcp(TcpStream::from_std(socket)?, peer),
            RawSocket::Unix(socket) => StreamSocket::Unix(UnixStream::from_std(socket)?),
            RawSocket::Tls(encrypted) => StreamSocket::Tls(Box::new(encrypted.with_socket(TcpStream::from_std)?)),
        };
        Ok(Stream { socket, admission: self.admission })
    }
}

impl Stream {
    /// The peer.
    pub fn remote(&self) -> Peer {
        match &self.socket {
            StreamSocket::Tcp(_, peer) => Peer::Tcp(*peer),
            StreamSocket::Unix(_) => Peer::Unix,
            StreamSocket::Tls(encrypted) => Peer::Tcp(encrypted.peer),
        }
    }

    /// Whether it came in on a loopback address or a Unix socket.
    pub fn is_on_loopback(&self) -> bool {
        match &self.socket {
            StreamSocket::Tcp(socket, _) => is_loopback(socket.local_addr()),
            StreamSocket::Unix(_) => true,
            StreamSocket::Tls(encrypted) => is_loopback(encrypted.socket.local_addr()),
        }
    }

    /// Waits until the runtime knows that the socket is writable. A new socket is at once.
    pub async fn writable(&self) -> io::Result<()> {
        match &self.socket {
            StreamSocket::Tcp(socket, _) => socket.writable().await,
            StreamSocket::Unix(socket) => socket.writable().await,
            StreamSocket::Tls(encrypted) => encrypted.socket.writable().await,
        }
    }

    /// Whether it is part of the reserve.
    pub fn is_reserve(&self) -> bool {
        self.admission.is_reserve()
    }

    /// Reads what the kernel has received, even if the runtime was not notified of it yet.
    ///
    /// # Errors
    /// The error of the system call; [`io::ErrorKind::WouldBlock`] if there is nothing.
    pub fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let socket = match &mut self.socket {
            StreamSocket::Tcp(socket, _) => (*socket).as_fd(),
            StreamSocket::Unix(socket) => (*socket).as_fd(),
            StreamSocket::Tls(encrypted) => return encrypted.channel.read(&mut Now(encrypted.socket.as_fd()), buffer),
        };
        Ok(rustix::net::recv(socket, buffer, RecvFlags::DONTWAIT)?.0)
    }

    /// Limits the bytes that the kernel buffers and has not sent yet (tcp(7), `TCP_NOTSENT_LOWAT`).
    pub fn bound_unsent(&self) {
        let (socket, peer) = match &self.socket {
            StreamSocket::Tcp(socket, peer) => (socket, peer),
            StreamSocket::Tls(encrypted) => (&encrypted.socket, &encrypted.peer),
            StreamSocket::Unix(_) => return,
        };
        if let Err(error) = SockRef::from(socket).set_tcp_notsent_lowat(SEND_UNSENT_BYTES_MAX) {
            log::debug!("the kernel may buffer more of an answer to {peer} than it should: {error}");
        }
    }

    /// Ends the watch of the runtime.
    pub fn into_raw(self) -> io::Result<Raw> {
        let socket = match self.socket {
            StreamSocket::Tcp(socket, peer) => RawSocket::Tcp(socket.into_std()?, peer),
            StreamSocket::Unix(socket) => RawSocket::Unix(socket.into_std()?),
            StreamSocket::Tls(encrypted) => RawSocket::Tls(Box::new(encrypted.with_socket(TcpStream::into_std)?)),
        };
        Ok(Raw { socket, admission: self.admission })
    }
}

impl Raw {
    /// The peer.
    pub fn remote(&self) -> Peer {
        match &self.socket {
            RawSocket::Tcp(_, peer) => Peer::Tcp(*peer),
            RawSocket::Unix(_) => Peer::Unix,
            RawSocket::Tls(encrypted) => Peer::Tcp(encrypted.peer),
        }
    }

    /// Makes the kernel detect that the client is gone, for a framing without pongs: after an idle time of `ping` the kernel sends
    /// probes. It ends the connection if sent data is not acknowledged for `ping` and `timeout` together (tcp(7), `SO_KEEPALIVE`
    /// and `TCP_USER_TIMEOUT`).
    ///
    /// # Errors
    /// The error of the system call.
    pub fn probe_after(&self, ping: Duration, timeout: Duration) -> io::Result<()> {
        let socket = match &self.socket {
            RawSocket::Tcp(socket, _) => socket,
            RawSocket::Tls(encrypted) => &encrypted.socket,
            // The kernel reports the end of the other process.
            RawSocket::Unix(_) => return Ok(()),
        };
        let idle = ping.min(KEEP_ALIVE_MAX);
        let probes = TcpKeepalive::new().with_time(idle).with_interval(idle);
        let socket = SockRef::from(socket);
        socket.set_tcp_keepalive(&probes)?;
        socket.set_tcp_user_timeout(Some(idle + timeout.min(KEEP_ALIVE_MAX)))
    }
}

/// Whether the local address of a connection is a loopback address.
pub(super) fn is_loopback(address: io::Result<SocketAddr>) -> bool {
    address.is_ok_and(|address| address.ip().to_canonical().is_loopback())
}

impl AsFd for Raw {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            RawSocket::Tcp(socket, _) => socket.as_fd(),
            RawSocket::Unix(socket) => socket.as_fd(),
            RawSocket::Tls(encrypted) => encrypted.socket.as_fd(),
        }
    }
}

impl Socket for Raw {
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.socket {
            RawSocket::Tcp(socket, _) => socket.read(buffer),
            RawSocket::Unix(socket) => socket.read(buffer),
            RawSocket::Tls(encrypted) => encrypted.channel.read(&mut encrypted.socket, buffer),
        }
    }

    fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // One slice is the usual case, and `send` is cheaper than `writev`.
        match (&mut self.socket, slices) {
            (RawSocket::Tcp(socket, _), [slice]) => socket.write(slice),
            (RawSocket::Tcp(socket, _), slices) => socket.write_vectored(slices),
            (RawSocket::Unix(socket), slices) => socket.write_vectored(slices),
            (RawSocket::Tls(encrypted), slices) => encrypted.channel.write(&mut encrypted.socket, slices),
        }
    }

    fn flush(&mut self) -> io::Result<bool> {
        match &mut self.socket {
            RawSocket::Tls(encrypted) => encrypted.channel.flush(&mut encrypted.socket),
            RawSocket::Tcp(..) | RawSocket::Unix(_) => Ok(true),
        }
    }

    fn is_blocked(&self) -> bool {
        matches!(&self.socket, RawSocket::Tls(encrypted) if encrypted.channel.is_blocked())
    }

    fn has_ended(&self) -> bool {
        matches!(&self.socket, RawSocket::Tls(encrypted) if encrypted.channel.has_ended())
    }

    fn finish(&mut self) {
        if let RawSocket::Tls(encrypted) = &mut self.socket {
            encrypted.channel.end();
            // What the kernel does not accept now is lost with the connection.
            let _ = encrypted.channel.flush(&mut encrypted.socket);
        }
    }

    fn shutdown_write(&mut self) {
        // An error means that the connection has already ended.
        let _ = match &mut self.socket {
            RawSocket::Tcp(socket, _) => socket.shutdown(Shutdown::Write),
            RawSocket::Unix(socket) => socket.shutdown(Shutdown::Write),
            RawSocket::Tls(encrypted) => {
                encrypted.channel.end();
                let sent = encrypted.channel.flush(&mut encrypted.socket);
                sent.and_then(|_| encrypted.socket.shutdown(Shutdown::Write))
            }
        };
    }

    fn peer(&self) -> String {
        self.remote().to_string()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            StreamSocket::Tcp(socket, _) => Pin::new(socket).poll_read(cx, buffer),
            StreamSocket::Unix(socket) => Pin::new(socket).poll_read(cx, buffer),
            StreamSocket::Tls(encrypted) => encrypted.poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().socket {
            StreamSocket::Tcp(socket, _) => Pin::new(socket).poll_write(cx, bytes),
            StreamSocket::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
            StreamSocket::Tls(encrypted) => encrypted.poll_write(cx, &[IoSlice::new(bytes)]),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().socket {
            StreamSocket::Tcp(socket, _) => Pin::new(socket).poll_write_vectored(cx, slices),
            StreamSocket::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            StreamSocket::Tls(encrypted) => encrypted.poll_write(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            StreamSocket::Tcp(..) | StreamSocket::Unix(_) => Poll::Ready(Ok(())),
            StreamSocket::Tls(encrypted) => encrypted.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            StreamSocket::Tcp(socket, _) => Pin::new(socket).poll_shutdown(cx),
            StreamSocket::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            StreamSocket::Tls(encrypted) => encrypted.poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Members;

    #[test]
    fn the_kernel_probes_an_idle_peer() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let admission = Admission { shard: Members::default().join(1).unwrap(), counted: None };
        let (socket, address) = listener.accept().unwrap();
        let raw = Raw { socket: RawSocket::Tcp(socket, address.into()), admission };
        // Every session has one, so it must be small.
        assert!(size_of::<Raw>() <= 40, "{}", size_of::<Raw>());
        assert!(!SockRef::from(&raw).keepalive().unwrap());
        // The longest `ping` that can be configured is longer than the kernel supports.
        for (ping, idle) in [(25, 25), (604_800, 32_767)] {
            raw.probe_after(Duration::from_secs(ping), Duration::from_secs(20)).unwrap();
            assert!(SockRef::from(&raw).keepalive().unwrap());
            assert_eq!(SockRef::from(&raw).tcp_keepalive_time().unwrap(), Duration::from_secs(idle));
            assert_eq!(SockRef::from(&raw).tcp_user_timeout().unwrap(), Some(Duration::from_secs(idle + 20)));
        }
        drop(peer);
    }
}
