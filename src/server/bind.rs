//! Binds addresses to listeners.
//!
//! All are bound before anything else happens, while the operator can still read the error. At a reload, existing
//! listeners are passed in: a listener whose address stays is never closed, so no connection is refused meanwhile. A
//! listener that is no longer configured is closed last, even if a new address overlaps it, such as `127.0.0.1:80` and
//! `0.0.0.0:80`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::estate::Inherited;
use crate::config::limits::LISTEN_BACKLOG;
use crate::config::{Config, Listen};
use crate::shard::listener::{Listener, ListenerSocket};
use crate::shard::socket_file::SocketFile;

/// Listeners with their configured addresses, in the order of the file. An address is listed as often as in the file:
/// port 0 is another port each time.
pub type Listeners = Vec<(Listen, Arc<Listener>)>;

/// A bound Unix socket, and its file.
pub type UnixSocket = (ListenerSocket, SocketFile);

/// Calls a function that binds a Unix socket at a path, as the user who shall own the socket's file.
pub type BindAs<'a> = &'a dyn Fn(&Path, &dyn Fn() -> io::Result<UnixSocket>) -> io::Result<UnixSocket>;

/// For a process that will not become another user.
pub const AS_OURSELVES: BindAs<'_> = &|_, bind| bind();

/// The prefix of the name of a Unix socket.
const UNIX: &str = "unix:";

/// An address that could not be bound.
#[derive(Debug)]
pub struct BindError {
    /// The address as the configuration names it.
    pub address: String,
    /// The reason.
    pub error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.error.kind() {
            io::ErrorKind::AddrInUse if self.address.starts_with(UNIX) => {
                write!(f, "cannot listen on {}: another program uses it, or it is not a socket", self.address)
            }
            io::ErrorKind::AddrInUse => write!(
                f,
                "cannot listen on {}: another program uses this port, or another `listen` of this file does",
                self.address
            ),
            io::ErrorKind::PermissionDenied if self.address.starts_with(UNIX) => match self.error.raw_os_error() {
                Some(_) => write!(f, "cannot listen on {}: no permission to create a file there", self.address),
                None => write!(f, "cannot listen on {}: {}", self.address, self.error),
            },
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

/// Binds all addresses of `config`; listeners in `kept` are used as they are. An address of the service manager becomes
/// as many listeners as it passed sockets under that name. If one cannot be bound, no new socket is left behind.
pub fn bind(
    config: &Config,
    kept: &Listeners,
    inherited: &Inherited,
    bind_as: BindAs<'_>,
) -> Result<Listeners, BindError> {
    let mut listeners = Listeners::new();
    let bound = bind_all(config, kept, inherited, bind_as, &mut listeners);
    if bound.is_err() {
        let is_new = |(listen, _): &&(Listen, Arc<Listener>)| !kept.iter().any(|(before, _)| before == listen);
        unlink(listeners.iter().filter(is_new).map(|(_, listener)| listener));
    }
    bound.map(|()| listeners)
}

fn bind_all(
    config: &Config,
    kept: &Listeners,
    inherited: &Inherited,
    bind_as: BindAs<'_>,
    listeners: &mut Listeners,
) -> Result<(), BindError> {
    let stays = |listen: &Listen| config.servers.iter().any(|server| server.listen.contains(listen));
    let going: Vec<_> = kept.iter().filter(|(listen, _)| !stays(listen)).collect();
    let mut kept = kept.clone();
    for server in &config.servers {
        for listen in &server.listen {
            let failed = |error| BindError { address: name(listen), error };
            let of_server = |socket, file| Arc::new(Listener::new(server.name.as_str().into(), socket, file));
            let before = listeners.len();
            while let Some(listener) = take(&mut kept, config, &server.name, listen) {
                let listener = match *listener.server == *server.name {
                    true => listener,
                    false => of_server(listener.socket.try_clone().map_err(failed)?, listener.file.clone()),
                };
                listeners.push((listen.clone(), listener));
                if !matches!(listen, Listen::Systemd(_)) {
                    break;
                }
            }
            if listeners.len() == before {
                for (socket, file) in open(listen, &going, inherited, bind_as).map_err(failed)? {
                    listeners.push((listen.clone(), of_server(socket, file.map(Arc::new))));
                }
            }
        }
    }
    Ok(())
}

/// Removes from `kept` the listener for an address of a server: its own, else that of a server that no longer has the
/// address.
fn take(kept: &mut Listeners, config: &Config, server: &str, listen: &Listen) -> Option<Arc<Listener>> {
    let needed = |name: &str| config.servers.iter().any(|server| server.name == name && server.listen.contains(listen));
    let own = kept.iter().position(|(address, listener)| address == listen && *listener.server == *server);
    let spare = || kept.iter().position(|(address, listener)| address == listen && !needed(&listener.server));
    own.or_else(spare).map(|at| kept.remove(at).1)
}

/// The address a listener is actually bound to: with the port that the kernel chose, if it was asked to.
pub fn bound_name(listen: &Listen, listener: &Listener) -> String {
    match &listener.socket {
        ListenerSocket::Tcp(socket) => socket.local_addr().map_or_else(|_| name(listen), |address| address.to_string()),
        ListenerSocket::Unix(_) => name(listen),
    }
}

/// An address as it is written in messages.
pub(super) fn name(listen: &Listen) -> String {
    match listen {
        Listen::Tcp(address) => address.to_string(),
        Listen::Unix(path) => format!("{UNIX}{}", path.display()),
        Listen::Systemd(name) => format!("systemd:{name}"),
    }
}

/// Opens the sockets of an address. `going` are the listeners that will be closed once all are open.
fn open(
    listen: &Listen,
    going: &[&(Listen, Arc<Listener>)],
    inherited: &Inherited,
    bind_as: BindAs<'_>,
) -> io::Result<Vec<(ListenerSocket, Option<SocketFile>)>> {
    match listen {
        Listen::Tcp(address) => {
            let in_the_way = going.iter().filter(|(going, _)| going.overlaps(listen));
            let in_the_way: Vec<_> = in_the_way.map(|(_, listener)| &listener.socket).collect();
            Ok(vec![(tcp(*address, &in_the_way)?, None)])
        }
        Listen::Unix(path) => bind_as(path, &|| unix(path)).map(|(socket, file)| vec![(socket, Some(file))]),
        Listen::Systemd(name) => {
            let passed = inherited.named.get(name).ok_or_else(|| missing(name, inherited))?;
            passed.iter().map(|socket| Ok((adopt(socket.try_clone()?)?, None))).collect()
        }
    }
}

/// A service manager passes its sockets only at the start, so a missing one can arrive only with the next start.
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

/// Listens on `address`, while the listeners `beside` it are still open.
fn tcp(address: SocketAddr, beside: &[&ListenerSocket]) -> io::Result<ListenerSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Otherwise a restart would have to wait for connections of the last run to time out.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` are two addresses on every machine.
        socket.set_only_v6(true)?;
    }
    // Only for the moment of binding: no other program may share the port.
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

fn unix(path: &Path) -> io::Result<UnixSocket> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if let Err(error) = socket.bind(&address) {
        // Opened before the test, so that exactly the tested file is removed.
        let found = SocketFile::at(path);
        if error.kind() != io::ErrorKind::AddrInUse || !is_abandoned(&address)? {
            return Err(error);
        }
        // Left behind by a run that was killed: no process listens on it.
        found.map_err(|_| error)?.remove()?;
        socket.bind(&address)?;
    }
    let file = SocketFile::at(path)?;
    socket.listen(LISTEN_BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((ListenerSocket::Unix(OwnedFd::from(socket).into()), file))
}

fn is_abandoned(address: &SockAddr) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Otherwise a listener that does not accept would block this call.
    socket.set_nonblocking(true)?;
    match socket.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        tried => Ok(tried.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)),
    }
}

/// Checks a socket that the service manager opened, and wraps it by its kind.
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

/// Removes the files of Unix sockets that were closed, unless another program has taken the name since.
pub fn unlink<'l>(ended: impl Iterator<Item = &'l Arc<Listener>>) {
    for file in ended.filter_map(|listener| listener.file.as_ref()) {
        match file.remove() {
            Ok(true) => {}
            Ok(false) => {
                log::warn!("{} is not the socket that was bound there, and is left alone", file.path().display())
            }
            Err(error) => log::warn!("cannot remove {}: {error}", file.path().display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_sockets_error_does_not_mention_ports() {
        let message = |address: &str, kind: io::ErrorKind| {
            BindError { address: address.to_owned(), error: kind.into() }.to_string()
        };
        let refused = io::Error::from_raw_os_error(nix::errno::Errno::EACCES as i32);
        let made = BindError { address: "unix:/run/x".to_owned(), error: refused }.to_string();
        assert_eq!(made, "cannot listen on unix:/run/x: no permission to create a file there");
        assert!(message("127.0.0.1:80", io::ErrorKind::PermissionDenied).contains("below 1024"));
        assert!(message("unix:/etc/passwd", io::ErrorKind::AddrInUse).ends_with("or it is not a socket"));
        assert!(message("10.9.8.7:80", io::ErrorKind::AddrNotAvailable).contains("no interface"));
    }

    #[test]
    fn only_listening_stream_sockets_are_adopted() {
        let connected: OwnedFd = std::os::unix::net::UnixStream::pair().unwrap().0.into();
        let datagrams: OwnedFd = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into();
        for socket in [connected, datagrams] {
            assert_eq!(adopt(socket).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        let listening: OwnedFd = std::net::TcpListener::bind("127.0.0.1:0").unwrap().into();
        assert!(matches!(adopt(listening), Ok(ListenerSocket::Tcp(_))));
    }
}
