//! The peer of a connection, as the log names it.
//!
//! The address is stored when the connection is accepted, because the kernel does not report it after a reset, and the last log
//! line of a connection must have the same name as the first. Every session has one, so it is small: 18 bytes; `SocketAddr` has 32.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A process of this machine, by a Unix socket.
    Unix,
    /// A TCP peer.
    Tcp(TcpPeer),
}

/// An address and a port. Port 0 means unknown: the connection had ended before its address was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpPeer {
    /// An IPv6 address, or an IPv4-mapped one. The scope is not stored; it would take four bytes more.
    address: [u8; 16],
    port: u16,
}

impl Peer {
    /// Its address. `None`: it has none, or none is known.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(peer) if peer.port != 0 => Some(Ipv6Addr::from(peer.address).to_canonical()),
            Peer::Tcp(_) | Peer::Unix => None,
        }
    }
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
    fn a_peer_is_displayed_as_its_address() {
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
