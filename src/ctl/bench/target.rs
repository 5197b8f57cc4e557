//! The destination of a load, its source addresses, and its descriptors.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::limits::{BENCH_DESCRIPTORS_RESERVED, BENCH_PORTS_PER_ADDRESS};
use crate::ctl::fault::Fault;
use crate::ctl::tls;
use crate::ctl::url::{Address, Url};
use crate::daemon::exit::{Exit, reason};

/// A server and a path on it.
#[derive(Debug, Clone)]
pub struct Target {
    pub(super) url: Url,
    address: SockAddr,
    tls: Option<Box<(Arc<ClientConfig>, ServerName<'static>)>>,
}

impl Target {
    /// Parses an address like `ws://127.0.0.1:8888/ws`. Names are looked up.
    ///
    /// # Errors
    /// It is not an address, or the name is unknown.
    pub fn parse(text: &str) -> Result<Target, Fault> {
        let url: Url = text.parse().map_err(|why| Fault::new(Exit::Usage, format!("'{text}': {why}")))?;
        Target::new(&url)
    }

    pub(in crate::ctl) fn new(url: &Url) -> Result<Target, Fault> {
        let unknown = |why: String| Fault::new(Exit::Unavailable, format!("cannot connect to {}: {why}", url.address));
        let address = match &url.address {
            Address::Tcp(host, port) => {
                let mut found = (host.as_str(), *port).to_socket_addrs().map_err(|error| unknown(reason(&error)))?;
                found.next().ok_or_else(|| unknown("the name has no address".to_owned()))?.into()
            }
            Address::Unix(path) => SockAddr::unix(path).map_err(|error| unknown(reason(&error)))?,
        };
        let tls = if url.tls { Some(Box::new((tls::client()?, tls::name(url)?))) } else { None };
        Ok(Target { url: url.clone(), address, tls })
    }

    /// Uses these settings for TLS, and not those of the system.
    ///
    /// # Errors
    /// The address has no name that a certificate can have.
    pub fn with_tls(mut self, settings: Arc<ClientConfig>) -> Result<Target, Fault> {
        self.tls = Some(Box::new((settings, tls::name(&self.url)?)));
        Ok(self)
    }

    /// What encrypts a new connection, if the server expects that.
    ///
    /// # Errors
    /// It could not be made.
    pub fn encryption(&self) -> io::Result<Option<Box<ClientConnection>>> {
        let Some((settings, name)) = self.tls.as_deref() else { return Ok(None) };
        let mut connection = ClientConnection::new(settings.clone(), name.clone()).map_err(io::Error::other)?;
        // What waits is limited by the window.
        connection.set_buffer_limit(None);
        Ok(Some(Box::new(connection)))
    }

    /// Whether it is certainly this machine.
    pub fn is_here(&self) -> bool {
        self.address.is_unix() || self.address.as_socket().is_some_and(|address| address.ip().is_loopback())
    }

    /// Starts to connect, as connection number `number` of `all`.
    ///
    /// # Errors
    /// No socket could be created, or the address cannot be reached.
    pub fn connect(&self, number: usize, all: usize, run: u32) -> io::Result<Socket> {
        let domain = Domain::from(i32::from(self.address.family()));
        let socket = Socket::new(domain, Type::STREAM, None)?;
        if let Some(from) = self.source(number, all, run) {
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
            socket.bind(&SocketAddr::from((from, 0)).into())?;
        }
        if !self.address.is_unix() {
            socket.set_tcp_nodelay(true)?;
            socket.set_nonblocking(true)?;
        }
        match socket.connect(&self.address) {
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {}
            connected => connected?,
        }
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// The source address of a connection, if the ports of one address may not suffice: one of 127.0.1.1 to
    /// 127.0.1.254. The first one depends on the load, so that a load does not have to wait until the ports of the
    /// previous one are free again.
    fn source(&self, number: usize, all: usize, run: u32) -> Option<Ipv4Addr> {
        let IpAddr::V4(to) = self.address.as_socket()?.ip() else { return None };
        if !to.is_loopback() || all <= BENCH_PORTS_PER_ADDRESS {
            return None;
        }
        let host = (run as usize + number / BENCH_PORTS_PER_ADDRESS) % 254;
        Some(Ipv4Addr::new(127, 0, 1, host as u8 + 1))
    }
}

/// Raises the limit of open files as far as possible, and checks that it suffices for `connections`.
///
/// # Errors
/// It does not suffice.
pub fn raise_descriptor_limit(connections: usize) -> Result<(), Fault> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let limit = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_or(soft, |()| hard);
    let needed = (connections + BENCH_DESCRIPTORS_RESERVED) as u64;
    if needed <= limit {
        return Ok(());
    }
    let most = limit.saturating_sub(BENCH_DESCRIPTORS_RESERVED as u64);
    let message = format!(
        "{connections} connections need {needed} open files, and this process may have {limit}: \
         request at most {most} connections, or raise the limit (`ulimit -Hn`)"
    );
    Err(Fault::new(Exit::System, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_many_connections_to_loopback_use_several_addresses() {
        let from = |url: &str, number: usize, all: usize| Target::parse(url).unwrap().source(number, all, 253);
        let many = 3 * BENCH_PORTS_PER_ADDRESS;
        assert_eq!(from("ws://127.0.0.1:1/", 0, BENCH_PORTS_PER_ADDRESS), None);
        assert_eq!(from("ws://127.0.0.1:1/", 0, many), Some(Ipv4Addr::new(127, 0, 1, 254)));
        assert_eq!(from("ws://127.0.0.1:1/", BENCH_PORTS_PER_ADDRESS, many), Some(Ipv4Addr::new(127, 0, 1, 1)));
        assert_eq!(from("ws://[::1]:1/", 0, many), None);
        assert_eq!(from("ws://192.0.2.1:1/", 0, many), None);
        assert_eq!(from("unix:/run/x.sock:/", 0, many), None);
    }

    #[test]
    fn this_machine_is_distinguished_from_others() {
        for (url, here) in [("ws://127.0.0.1:1/", true), ("unix:/x:/", true), ("ws://192.0.2.1/", false)] {
            assert_eq!(Target::parse(url).unwrap().is_here(), here, "{url}");
        }
        assert!(Target::parse("127.0.0.1").is_err());
    }

    #[test]
    fn too_many_connections_are_refused_with_the_possible_number() {
        assert!(raise_descriptor_limit(10).is_ok());
        let fault = raise_descriptor_limit(1 << 40).unwrap_err();
        assert!(fault.message.contains("at most"), "{}", fault.message);
    }
}
