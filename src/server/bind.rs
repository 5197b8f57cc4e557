//! Addresses to listeners.
//!
//! All are bound before anything else happens, while the operator can still read the error. A reload hands over what it keeps: a
//! listener whose address stays is never closed, so no connection is refused meanwhile. One that goes is closed last, also where it
//! is in the way of one that comes: `127.0.0.1:80` of `0.0.0.0:80`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::estate::Inherited;
use crate::config::limits::LISTEN_BACKLOG;
use crate::config::{Config, Listen};
use crate::shard::listener::{Listener, ListenerSocket};

/// Listeners with the address they were configured with, in the order of the file. An address stands here as often as there: port 0
/// is another port each time.
pub type Listeners = Vec<(Listen, Arc<Listener>)>;

/// How the name of a Unix socket begins.
const UNIX: &str = "unix:";

/// An address that could not be bound.
#[derive(Debug)]
pub struct BindError {
    /// What was to be bound, as the configuration names it.
    pub address: String,
    /// Why it was not.
    pub error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.error.kind() {
            io::ErrorKind::AddrInUse if self.address.starts_with(UNIX) => {
                write!(f, "cannot listen on {}: it is taken by another program, or is no socket", self.address)
            }
            io::ErrorKind::AddrInUse => write!(
                f,
                "cannot listen on {}: it is taken, by another program or by another address of this one",
                self.address
            ),
            io::ErrorKind::PermissionDenied if self.address.starts_with(UNIX) => {
                write!(f, "cannot listen on {}: not permitted to make a file there", self.address)
            }
            io::ErrorKind::PermissionDenied => write!(
                f,
                "cannot listen on {}: not permitted; ports below 1024 need root or CAP_NET_BIND_SERVICE",
                self.address
            ),
            io::ErrorKind::AddrNotAvailable => {
                write!(f, "cannot listen on {}: no interface of this machine has that address", self.address)
            }
            _ => write!(f, "cannot listen on {}: {}", self.address, self.error),
        }
    }
}

/// Binds all addresses of `config`; those in `kept` are taken over as they are. One that the service manager opened is as many
/// sockets as it passed under that name. If one cannot be bound nothing is left of the others.
pub fn bind(config: &Config, kept: &Listeners, inherited: &Inherited) -> Result<Listeners, BindError> {
    let mut listeners = Listeners::new();
    let bound = bind_all(config, kept, inherited, &mut listeners);
    if bound.is_err() {
        let is_new = |listen: &&Listen| !kept.iter().any(|(before, _)| before == *listen);
        unlink(listeners.iter().map(|(listen, _)| listen).filter(is_new));
    }
    bound.map(|()| listeners)
}

fn bind_all(
    config: &Config,
    kept: &Listeners,
    inherited: &Inherited,
    listeners: &mut Listeners,
) -> Result<(), BindError> {
    let stays = |listen: &Listen| config.servers.iter().any(|server| server.listen.contains(listen));
    let going: Vec<_> = kept.iter().filter(|(listen, _)| !stays(listen)).collect();
    let mut kept = kept.clone();
    for server in &config.servers {
        for listen in &server.listen {
            let failed = |error| BindError { address: name(listen), error };
            let of_server = |socket| Arc::new(Listener::new(server.name.as_str().into(), socket));
            let before = listeners.len();
            while let Some(listener) = take(&mut kept, config, &server.name, listen) {
                let listener = match *listener.server == *server.name {
                    true => listener,
                    false => of_server(listener.socket.try_clone().map_err(failed)?),
                };
                listeners.push((listen.clone(), listener));
                if !matches!(listen, Listen::Systemd(_)) {
                    break;
                }
            }
            if listeners.len() == before {
                for socket in open(listen, &going, inherited).map_err(failed)? {
                    listeners.push((listen.clone(), of_server(socket)));
                }
            }
        }
    }
    Ok(())
}

/// Takes from `kept` the listener for an address of a server: its own, else one whose server no longer has that address.
fn take(kept: &mut Listeners, config: &Config, server: &str, listen: &Listen) -> Option<Arc<Listener>> {
    let needed = |name: &str| config.servers.iter().any(|server| server.name == name && server.listen.contains(listen));
    let own = kept.iter().position(|(address, listener)| address == listen && *listener.server == *server);
    let spare = || kept.iter().position(|(address, listener)| address == listen && !needed(&listener.server));
    own.or_else(spare).map(|at| kept.remove(at).1)
}

/// What a listener is really bound to: the port that the kernel chose, where it was asked to.
pub fn bound_name(listen: &Listen, listener: &Listener) -> String {
    match &listener.socket {
        ListenerSocket::Tcp(socket) => socket.local_addr().map_or_else(|_| name(listen), |address| address.to_string()),
        ListenerSocket::Unix(_) => name(listen),
    }
}

/// An address as messages name it.
pub(super) fn name(listen: &Listen) -> String {
    match listen {
        Listen::Tcp(address) => address.to_string(),
        Listen::Unix(path) => format!("{UNIX}{}", path.display()),
        Listen::Systemd(name) => format!("systemd:{name}"),
    }
}

/// Opens the sockets of an address; `going` are the listeners that end once all are open.
fn open(listen: &Listen, going: &[&(Listen, Arc<Listener>)], inherited: &Inherited) -> io::Result<Vec<ListenerSocket>> {
    match listen {
        Listen::Tcp(address) => {
            let in_the_way = going.iter().filter(|(going, _)| going.overlaps(listen));
            Ok(vec![tcp(*address, &in_the_way.map(|(_, listener)| &listener.socket).collect::<Vec<_>>())?])
        }
        Listen::Unix(path) => Ok(vec![unix(path)?]),
        Listen::Systemd(name) => {
            let passed = inherited.named.get(name).ok_or_else(|| missing(name, inherited))?;
            passed.iter().map(|socket| adopt(socket.try_clone()?)).collect()
        }
    }
}

/// A service manager passes its sockets once, at the start: what is missing then is missing until the next one.
fn missing(name: &str, inherited: &Inherited) -> io::Error {
    let mut names: Vec<_> = inherited.named.keys().map(String::as_str).collect();
    names.sort_unstable();
    let passed = match names.is_empty() {
        true => "it passed none at the start".to_owned(),
        false => format!("at the start it passed {}", names.join(", ")),
    };
    let why = format!(
        "the service manager passed no socket of that name; {passed} (FileDescriptorName={name} in a socket unit)"
    );
    io::Error::new(io::ErrorKind::NotFound, why)
}

/// Listens on `address`, beside those listeners for as long as they last.
fn tcp(address: SocketAddr, beside: &[&ListenerSocket]) -> io::Result<ListenerSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A restart must not wait for connections of the last run to time out.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` are two addresses, on every machine alike.
        socket.set_only_v6(true)?;
    }
    // Only while it is bound: nobody else shall share the port.
    let share = |on: bool| {
        beside.iter().try_for_each(|old| SockRef::from(*old).set_reuse_port(on))?;
        if beside.is_empty() { Ok(()) } else { socket.set_reuse_port(on) }
    };
    share(true)?;
    let bound = socket.bind(&address.into()).and_then(|()| socket.listen(LISTEN_BACKLOG));
    share(false)?;
    bound?;
    socket.set_nonblocking(true)?;
    Ok(ListenerSocket::Tcp(socket.into()))
}

fn unix(path: &Path) -> io::Result<ListenerSocket> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if let Err(error) = socket.bind(&address) {
        if error.kind() != io::ErrorKind::AddrInUse || !is_abandoned(path, &address) {
            return Err(error);
        }
        // What a run that was killed left behind: nobody answers there.
        std::fs::remove_file(path)?;
        socket.bind(&address)?;
    }
    socket.listen(LISTEN_BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(ListenerSocket::Unix(OwnedFd::from(socket).into()))
}

fn is_abandoned(path: &Path, address: &SockAddr) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|entry| entry.file_type().is_socket());
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).and_then(|socket| {
        // Where somebody listens and does not accept, it would be waited for.
        socket.set_nonblocking(true)?;
        socket.connect(address)
    });
    is_socket && probe.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// A socket opened by the service manager, whatever its kind.
pub(super) fn adopt(descriptor: OwnedFd) -> io::Result<ListenerSocket> {
    let socket = Socket::from(descriptor);
    if !socket.is_listener().unwrap_or(false) || socket.r#type()? != Type::STREAM {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the service manager passed a socket that does not listen",
        ));
    }
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    if address.is_unix() {
        return Ok(ListenerSocket::Unix(OwnedFd::from(socket).into()));
    }
    Ok(ListenerSocket::Tcp(socket.into()))
}

/// Takes away the files of Unix sockets that end.
pub fn unlink<'l>(ended: impl Iterator<Item = &'l Listen>) {
    for listen in ended {
        if let Listen::Unix(path) = listen
            && let Err(error) = std::fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_made_has_nothing_to_do_with_ports() {
        let told = |address: &str, kind: io::ErrorKind| {
            BindError { address: address.to_owned(), error: kind.into() }.to_string()
        };
        let made = told("unix:/run/x", io::ErrorKind::PermissionDenied);
        assert_eq!(made, "cannot listen on unix:/run/x: not permitted to make a file there");
        assert!(told("127.0.0.1:80", io::ErrorKind::PermissionDenied).contains("below 1024"));
        assert!(told("unix:/etc/passwd", io::ErrorKind::AddrInUse).ends_with("or is no socket"));
        assert!(told("10.9.8.7:80", io::ErrorKind::AddrNotAvailable).contains("no interface"));
    }

    #[test]
    fn only_what_listens_is_adopted() {
        let connected: OwnedFd = std::os::unix::net::UnixStream::pair().unwrap().0.into();
        let datagrams: OwnedFd = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into();
        for socket in [connected, datagrams] {
            assert_eq!(adopt(socket).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        let listening: OwnedFd = std::net::TcpListener::bind("127.0.0.1:0").unwrap().into();
        assert!(matches!(adopt(listening), Ok(ListenerSocket::Tcp(_))));
    }
}
