//! Addresses to listeners.
//!
//! All are bound before anything else happens, while the operator can still read the error. A reload hands over what it keeps: a
//! listener whose address stays is never closed, so no connection is refused meanwhile. One that goes is closed last, also where it
//! is in the way of one that comes: `127.0.0.1:80` of `0.0.0.0:80`.

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

/// Listeners with the address they were configured with, in the order of the file. An address stands here as often as there: port 0
/// is another port each time.
pub type Listeners = Vec<(Listen, Arc<Listener>)>;

/// A bound Unix socket, and its file.
pub type UnixSocket = (ListenerSocket, SocketFile);

/// Has a Unix socket bound at a path by the user who shall own its file.
pub type Owner<'a> = &'a dyn Fn(&Path, &dyn Fn() -> io::Result<UnixSocket>) -> io::Result<UnixSocket>;

/// A process that will not become another user.
pub const OURSELVES: Owner<'_> = &|_, bind| bind();

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
                "cannot listen on {}: another program uses this port, or another `listen` of this file does",
                self.address
            ),
            io::ErrorKind::PermissionDenied if self.address.starts_with(UNIX) => match self.error.raw_os_error() {
                Some(_) => write!(f, "cannot listen on {}: not permitted to make a file there", self.address),
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

/// Binds all addresses of `config`; those in `kept` are taken over as they are. One that the service manager opened is as many
/// sockets as it passed under that name. If one cannot be bound nothing is left of the others.
pub fn bind(
    config: &Config,
    kept: &Listeners,
    inherited: &Inherited,
    owner: Owner<'_>,
) -> Result<Listeners, BindError> {
    let mut listeners = Listeners::new();
    let bound = bind_all(config, kept, inherited, owner, &mut listeners);
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
    owner: Owner<'_>,
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
                for (socket, file) in open(listen, &going, inherited, owner).map_err(failed)? {
                    listeners.push((listen.clone(), of_server(socket, file.map(Arc::new))));
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
fn open(
    listen: &Listen,
    going: &[&(Listen, Arc<Listener>)],
    inherited: &Inherited,
    owner: Owner<'_>,
) -> io::Result<Vec<(ListenerSocket, Option<SocketFile>)>> {
    match listen {
        Listen::Tcp(address) => {
            let in_the_way = going.iter().filter(|(going, _)| going.overlaps(listen));
            let in_the_way: Vec<_> = in_the_way.map(|(_, listener)| &listener.socket).collect();
            Ok(vec![(tcp(*address, &in_the_way)?, None)])
        }
        Listen::Unix(path) => owner(path, &|| unix(path)).map(|(socket, file)| vec![(socket, Some(file))]),
        Listen::Systemd(name) => {
            let passed = inherited.named.get(name).ok_or_else(|| missing(name, inherited))?;
            passed.iter().map(|socket| Ok((adopt(socket.try_clone()?)?, None))).collect()
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

fn unix(path: &Path) -> io::Result<UnixSocket> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if let Err(error) = socket.bind(&address) {
        // Held before it is tried: what is removed is what was tried.
        let found = SocketFile::at(path);
        if error.kind() != io::ErrorKind::AddrInUse || !is_abandoned(&address)? {
            return Err(error);
        }
        // What a run that was killed left behind: nobody answers there.
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
    // Where somebody listens and does not accept, it would be waited for.
    socket.set_nonblocking(true)?;
    match socket.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        tried => Ok(tried.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)),
    }
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

/// Takes away the files of Unix sockets that end, where no other program has taken the name since.
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
    fn a_file_that_cannot_be_made_has_nothing_to_do_with_ports() {
        let told = |address: &str, kind: io::ErrorKind| {
            BindError { address: address.to_owned(), error: kind.into() }.to_string()
        };
        let refused = io::Error::from_raw_os_error(nix::errno::Errno::EACCES as i32);
        let made = BindError { address: "unix:/run/x".to_owned(), error: refused }.to_string();
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
