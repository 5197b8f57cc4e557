//! Who is at the other end of a connection, as the log names it.
//!
//! Noted when the connection is accepted: of one that was reset the kernel does not know it any more, and the line that ends it must
//! name whom the line that began it named. Every session has one, so it is small: 18 bytes, where `SocketAddr` has 32.

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};

/// The other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A process of this machine, through a Unix socket.
    Unix,
    /// One with an address.
    Tcp(TcpPeer),
}

/// An address and a port; nobody has port 0, which stands for one that was gone before it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpPeer {
    /// Of IPv6, or one of IPv4 in it. Not an `Ipv6Addr` with its scope, which would take four bytes more.
    address: [u8; 16],
    port: u16,
}

impl From<SocketAddr> for TcpPeer {
    fn from(peer: SocketAddr) -> TcpPeer {
        let address = match peer {
            SocketAddr::V4(peer) => peer.ip().to_ipv6_mapped(),
            SocketAddr::V6(peer) => *peer.ip(),
        };
        TcpPeer { address: address.octets(), port: peer.port() }
    }
}

impl From<io::Result<SocketAddr>> for TcpPeer {
    fn from(peer: io::Result<SocketAddr>) -> TcpPeer {
        peer.map_or(TcpPeer { address: [0; 16], port: 0 }, TcpPeer::from)
    }
}

impl fmt::Display for TcpPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            0 => f.write_str("(gone)"),
            port => SocketAddr::new(Ipv6Addr::from(self.address).to_canonical(), port).fmt(f),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Unix => f.write_str("unix"),
            Peer::Tcp(peer) => peer.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_named_as_its_address_is_written() {
        for (address, name) in [
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[2001:db8::1]:65535", "[2001:db8::1]:65535"),
            ("[::ffff:192.0.2.1]:80", "192.0.2.1:80"),
        ] {
            assert_eq!(TcpPeer::from(address.parse::<SocketAddr>().unwrap()).to_string(), name);
        }
        assert_eq!(TcpPeer::from(Err(io::ErrorKind::NotConnected.into())).to_string(), "(gone)");
        assert_eq!(Peer::Unix.to_string(), "unix");
        assert_eq!(size_of::<TcpPeer>(), 18);
    }
}
