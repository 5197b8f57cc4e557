//! Whether the addresses of a configuration could be bound now, beside a pushd that runs already.
//!
//! A restart inherits the listeners of the process before, so an address that this one holds is free for the next. Whose a taken
//! address is stands in `/proc`: in the descriptors of the process where they may be looked at, else (in another user
//! namespace, as that of a systemd unit with `PrivateUsers=`) in the user who owns the socket.
//!
//! Nothing listens meanwhile, and no file of a Unix socket is made.

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

/// How `/proc/net/tcp` writes that a socket listens.
const LISTENS: &str = "0A";

/// The pushd that runs already, as its pidfile has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predecessor {
    /// There is none.
    None,
    /// This process; without a number, one that has not written it yet.
    Running(Option<i32>),
}

/// By what its sockets are known.
#[derive(Debug)]
enum Owner {
    Nobody,
    Inodes(BTreeSet<u64>),
    User(u32),
}

/// What a start with `config` could not bind.
pub fn rehearse(config: &Config, predecessor: Predecessor) -> Vec<BindError> {
    let owner = Owner::of(predecessor);
    let mut errors = Vec::new();
    for listen in config.servers.iter().flat_map(|server| &server.listen) {
        let tried = match listen {
            Listen::Tcp(address) => tcp(*address, &owner),
            Listen::Unix(path) => unix(path, &owner),
            // The service manager passes it at the start, or does not.
            Listen::Systemd(_) => Ok(()),
        };
        errors.extend(tried.err().map(|error| BindError { address: name(listen), error }));
    }
    errors
}

/// What this process could not read once it serves. No start fails for it: files come and go.
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

fn tcp(address: SocketAddr, owner: &Owner) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    match socket.bind(&address.into()) {
        Err(error) if error.kind() == ErrorKind::AddrInUse && owner.holds(address) => Ok(()),
        bound => bound,
    }
}

fn unix(path: &Path, owner: &Owner) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(entry) if !entry.file_type().is_socket() => return Err(ErrorKind::AddrInUse.into()),
        Ok(entry) if answers(path)? && !owner.holds_file(path, entry.uid()) => return Err(ErrorKind::AddrInUse.into()),
        // What nobody listens on is taken away at the start, as it is made: in the directory.
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    Ok(access(directory, AccessFlags::W_OK | AccessFlags::X_OK)?)
}

/// Whether somebody listens there.
fn answers(path: &Path) -> io::Result<bool> {
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
    Ok(!probe.connect(&SockAddr::unix(path)?).is_err_and(refused))
}

impl Owner {
    fn of(predecessor: Predecessor) -> Owner {
        let Predecessor::Running(pid) = predecessor else { return Owner::Nobody };
        match pid.and_then(|pid| sockets(pid).ok()) {
            Some(inodes) => Owner::Inodes(inodes),
            None => Owner::User(Uid::effective().as_raw()),
        }
    }

    /// Whether all that listens where `address` would be in the way is its own.
    fn holds(&self, address: SocketAddr) -> bool {
        let table = if address.is_ipv4() { "/proc/self/net/tcp" } else { "/proc/self/net/tcp6" };
        let listeners = fs::read_to_string(table).map(|text| listeners(&text)).unwrap_or_default();
        let mut in_the_way = listeners.iter().filter(|(bound, ..)| {
            let everywhere = bound.ip().is_unspecified() || address.ip().is_unspecified();
            bound.port() == address.port() && (bound.ip() == address.ip() || everywhere)
        });
        let own = |&(_, user, inode): &(SocketAddr, u32, u64)| match self {
            Owner::Nobody => false,
            Owner::Inodes(inodes) => inodes.contains(&inode),
            Owner::User(uid) => *uid == user,
        };
        in_the_way.clone().next().is_some() && in_the_way.all(own)
    }

    /// The same of a Unix socket, whose file belongs to `user`.
    fn holds_file(&self, path: &Path, user: u32) -> bool {
        match self {
            Owner::Nobody => false,
            Owner::User(uid) => *uid == user,
            Owner::Inodes(inodes) => {
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
    // A descriptor that was closed meanwhile is no error of the rest.
    Ok(names.filter_map(|target| inode(target.ok()?)).collect())
}

/// What listens, of a table as `/proc/net/tcp` or `tcp6`: address, user, inode.
fn listeners(table: &str) -> Vec<(SocketAddr, u32, u64)> {
    let read = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, LISTENS, _, _, _, user, _, inode, ..] = columns[..] else { return None };
        Some((address(local)?, user.parse().ok()?, inode.parse().ok()?))
    };
    table.lines().filter_map(read).collect()
}

/// `0100007F:22B8` is 127.0.0.1:8888: words of 32 bits as this machine has them in memory.
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
    fn what_another_program_has_is_taken_and_what_the_predecessor_has_is_not() {
        let this = Predecessor::Running(Some(std::process::id() as i32));
        for bound in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(bound).unwrap();
            let address = listener.local_addr().unwrap();
            let everywhere = address.to_string().replace("127.0.0.1", "0.0.0.0").replace("::1", "::");
            for wanted in [address.to_string(), everywhere] {
                let [error] = &tried(from_ref(&wanted), Predecessor::None)[..] else { panic!("{wanted} is taken") };
                assert!(error.contains(&wanted) && error.contains("another program uses this port"), "{error}");
                // A process that has it, one that does not, and one of this user that cannot be looked into.
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
    fn a_unix_socket_is_tried_without_making_it() {
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
        assert_eq!(tried(&wanted, Predecessor::None), [""; 0], "nobody listens");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(tried(&wanted, Predecessor::None)[0].contains("is no socket"));
        let nowhere = [format!("unix:{}/none/s", dir.path().display())];
        assert_eq!(tried(&nowhere, Predecessor::None).len(), 1);
    }
}
