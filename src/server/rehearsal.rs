//! Checks whether the addresses of a configuration could be bound now, beside a running pushd.
//!
//! A restart inherits the listeners of the previous process, so an address that the running process holds is free for
//! the next one. `/proc` shows which process holds a taken address: by the descriptors of the running process if they
//! may be read, otherwise by the user that owns the socket. The latter happens in another user namespace, as of a
//! systemd unit with `PrivateUsers=`.
//!
//! Nothing listens during the check, and no file of a Unix socket is created.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, Uid, access};
use socket2::{Domain, SockAddr, Socket, Type};

use super::BindError;
use super::bind::name;
use crate::config::{Action, Config, Listen, Source};

/// The state "listening" in `/proc/net/tcp`.
const LISTENS: &str = "0A";

/// The running pushd, according to its pidfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predecessor {
    /// There is none.
    None,
    /// This process; `None` if it has not written its PID yet.
    Running(Option<i32>),
}

/// How the sockets of the running process are recognised.
#[derive(Debug)]
enum Held {
    None,
    Inodes(BTreeSet<u64>),
    User(u32),
}

/// The addresses that a start with `config` could not bind.
pub fn rehearse(config: &Config, predecessor: Predecessor) -> Vec<BindError> {
    let held = Held::by(predecessor);
    let mut errors = Vec::new();
    for listen in config.servers.iter().flat_map(|server| &server.listen) {
        let tried = match listen {
            Listen::Tcp(address) => tcp(*address, &held),
            Listen::Unix(path) => unix(path, &held),
            // Whether the service manager passes it is known only at the start.
            Listen::Systemd(_) => Ok(()),
        };
        errors.extend(tried.err().map(|error| BindError { address: name(listen), error }));
    }
    errors
}

/// The files that this process could not read while it serves. They do not make a start fail, because files may change
/// at any time.
pub fn unreadable(config: &Config) -> Vec<String> {
    let refused = |path: &Path, flags| match access(path, flags) {
        Err(Errno::EACCES) => Some(format!("user {} has no permission to read {}", Uid::effective(), path.display())),
        _ => None,
    };
    let routes = config.servers.iter().flat_map(|server| &server.routes);
    let pages = routes.filter_map(|route| match &route.action {
        Action::Static(files) => {
            let flags = if files.listing { AccessFlags::R_OK | AccessFlags::X_OK } else { AccessFlags::X_OK };
            refused(&files.root, flags).map(|why| format!("route {}: {why}", route.pattern))
        }
        _ => None,
    });
    let tails = config.feeds.iter().filter_map(|feed| match &feed.source {
        Source::Tail(path) => refused(path, AccessFlags::R_OK).map(|why| format!("feed {}: {why}", feed.name)),
        _ => None,
    });
    pages.chain(tails).collect()
}

fn tcp(address: SocketAddr, held: &Held) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    match socket.bind(&address.into()) {
        Err(error) if error.kind() == ErrorKind::AddrInUse && held.holds(address) => Ok(()),
        bound => bound,
    }
}

fn unix(path: &Path, held: &Held) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(entry) if !entry.file_type().is_socket() => return Err(ErrorKind::AddrInUse.into()),
        Ok(entry) if answers(path)? && !held.holds_file(path, entry.uid()) => return Err(ErrorKind::AddrInUse.into()),
        // A start removes an abandoned socket, which needs the same right in the directory as creating one.
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    Ok(access(directory, AccessFlags::W_OK | AccessFlags::X_OK)?)
}

/// Whether a process listens on the socket.
fn answers(path: &Path) -> io::Result<bool> {
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
    Ok(!probe.connect(&SockAddr::unix(path)?).is_err_and(refused))
}

impl Held {
    fn by(predecessor: Predecessor) -> Held {
        let Predecessor::Running(pid) = predecessor else { return Held::None };
        match pid.and_then(|pid| sockets(pid).ok()) {
            Some(inodes) => Held::Inodes(inodes),
            None => Held::User(Uid::effective().as_raw()),
        }
    }

    /// Whether all listeners that conflict with `address` belong to the running process.
    fn holds(&self, address: SocketAddr) -> bool {
        let table = if address.is_ipv4() { "/proc/self/net/tcp" } else { "/proc/self/net/tcp6" };
        let listeners = fs::read_to_string(table).map(|text| listeners(&text)).unwrap_or_default();
        let mut in_the_way = listeners.iter().filter(|(bound, ..)| {
            let everywhere = bound.ip().is_unspecified() || address.ip().is_unspecified();
            bound.port() == address.port() && (bound.ip() == address.ip() || everywhere)
        });
        let own = |&(_, user, inode): &(SocketAddr, u32, u64)| match self {
            Held::None => false,
            Held::Inodes(inodes) => inodes.contains(&inode),
            Held::User(uid) => *uid == user,
        };
        in_the_way.clone().next().is_some() && in_the_way.all(own)
    }

    /// The same for a Unix socket, whose file belongs to `user`.
    fn holds_file(&self, path: &Path, user: u32) -> bool {
        match self {
            Held::None => false,
            Held::User(uid) => *uid == user,
            Held::Inodes(inodes) => {
                let table = fs::read_to_string("/proc/self/net/unix").unwrap_or_default();
                let named = table.lines().filter(|line| line.split(' ').next_back().map(Path::new) == Some(path));
                named
                    .filter_map(|line| line.split_whitespace().nth(6)?.parse().ok())
                    .any(|inode| inodes.contains(&inode))
            }
        }
    }
}

/// The inodes of the sockets that process `pid` has open.
fn sockets(pid: i32) -> io::Result<BTreeSet<u64>> {
    let names = fs::read_dir(format!("/proc/{pid}/fd"))?.map(|entry| fs::read_link(entry?.path()));
    let inode = |target: std::path::PathBuf| -> Option<u64> {
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    // A descriptor that was closed meanwhile does not matter.
    Ok(names.filter_map(|target| inode(target.ok()?)).collect())
}

/// The listening sockets in a table like `/proc/net/tcp` or `tcp6`: address, user, inode.
fn listeners(table: &str) -> Vec<(SocketAddr, u32, u64)> {
    let read = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, LISTENS, _, _, _, user, _, inode, ..] = columns[..] else { return None };
        Some((address(local)?, user.parse().ok()?, inode.parse().ok()?))
    };
    table.lines().filter_map(read).collect()
}

/// `0100007F:22B8` is 127.0.0.1:8888: 32-bit words in the byte order of this machine.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let mut bytes = [0; 16];
            bytes.chunks_exact_mut(4).zip(words).for_each(|(part, word)| part.copy_from_slice(&word));
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::slice::from_ref;

    use super::*;

    fn tried(listen: &[String], predecessor: Predecessor) -> Vec<String> {
        let list: Vec<String> = listen.iter().map(|address| format!("{address:?}")).collect();
        let text = format!("[server.s]\nlisten = [{}]\nroutes.\"/\" = {{ health = true }}\n", list.join(", "));
        let config = crate::config::parse(Path::new("/x.toml"), &text).unwrap_or_else(|errors| panic!("{errors}"));
        rehearse(&config, predecessor).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_of_other_programs_are_taken_and_those_of_the_predecessor_are_not() {
        let this = Predecessor::Running(Some(std::process::id() as i32));
        for bound in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(bound).unwrap();
            let address = listener.local_addr().unwrap();
            let everywhere = address.to_string().replace("127.0.0.1", "0.0.0.0").replace("::1", "::");
            for wanted in [address.to_string(), everywhere] {
                let [error] = &tried(from_ref(&wanted), Predecessor::None)[..] else { panic!("{wanted} is taken") };
                assert!(error.contains(&wanted) && error.contains("another program uses this port"), "{error}");
                // The process that holds it, another process, and a process of this user whose descriptors cannot be
                // read.
                assert_eq!(tried(from_ref(&wanted), this), [""; 0]);
                assert_eq!(
                    tried(from_ref(&wanted), Predecessor::Running(Some(1))).len(),
                    usize::from(Uid::effective().is_root())
                );
                assert_eq!(tried(&[wanted], Predecessor::Running(None)), [""; 0]);
            }
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(tried(&[free.to_string()], Predecessor::None), [""; 0]);
        assert!(tried(&["192.0.2.1:80".into()], Predecessor::None)[0].contains("no interface"));
    }

    #[test]
    fn a_unix_socket_is_checked_without_creating_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let wanted = [format!("unix:{}", path.display())];
        assert_eq!(tried(&wanted, Predecessor::None), [""; 0]);
        assert!(!path.exists());
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(tried(&wanted, Predecessor::None).len(), 1);
        for predecessor in [Some(std::process::id() as i32), None] {
            assert_eq!(tried(&wanted, Predecessor::Running(predecessor)), [""; 0]);
        }
        drop(listener);
        assert_eq!(tried(&wanted, Predecessor::None), [""; 0], "no process listens");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(tried(&wanted, Predecessor::None)[0].contains("is not a socket"));
        let nowhere = [format!("unix:{}/none/s", dir.path().display())];
        assert_eq!(tried(&nowhere, Predecessor::None).len(), 1);
    }
}
