//! What a process leaves to the next one: a few descriptors, each under a name, which a service manager keeps meanwhile.
//!
//! - `pushd-handover-state`: which listener is which, and how far the feeds have come
//! - `pushd-handover-listener-N`: the addresses, which so never cease to listen: who connects meanwhile waits in the kernel
//! - `pushd-handover-file-N`: the file of such a listener, if it is a Unix socket: which one is to be removed with it
//! - `pushd-handover-feed-N`: the file that a tail follows, whatever its name is by now
//! - `pushd-handover-records-N`, `pushd-handover-sockets-N`: the sessions of a shard ([`crate::shard::parcel`])
//!
//! Nothing of it is used up before the next process serves: one that cannot start leaves all of it to yet another.
//!
//! The next process may be of another version. A descriptor under a name that it does not know, but for the beginning, is closed and
//! forgotten; the rest is written as fields with tags ([`crate::wire::tagged`]).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Instant;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::bind::Listeners;
use super::feeds::{Feeds, Left};
use super::{DRAIN_INTERVAL, End, Server};
use crate::config::Listen;
use crate::config::limits::{CONFIG_BYTES_MAX, HANDOVER};
use crate::feed::mark::{Mark, Place};
use crate::shard::handover::{Packed, Step};
use crate::shard::listener::ListenerSocket;
use crate::shard::mailbox::{Command, Mailbox};
use crate::shard::socket_file::SocketFile;
use crate::wire::fields::{self, Damaged, Fields};
use crate::wire::format1;
use crate::wire::tagged::{Field, tagged};

/// What the name of everything that is left begins with.
pub(super) const PREFIX: &str = "pushd-handover-";
/// See the head of this file.
pub(super) const STATE: &str = "pushd-handover-state";
/// See the head of this file.
pub(super) const LISTENER: &str = "pushd-handover-listener-";
/// See the head of this file.
pub(super) const FILE: &str = "pushd-handover-file-";
/// See the head of this file.
pub(super) const FEED: &str = "pushd-handover-feed-";
/// See the head of this file.
pub(super) const RECORDS: &str = "pushd-handover-records-";
/// See the head of this file.
pub(super) const SOCKETS: &str = "pushd-handover-sockets-";

/// Left by a start that began to open the rest, once for each: where it is found, such a start died of it.
pub const TRIED: &str = "pushd-handover-tried";

/// What the state begins with, and the number of its format.
const MAGIC: &[u8] = b"pushd state ";
const FORMAT: u64 = 2;

/// Everything that is left, on its way.
#[derive(Debug)]
pub struct Handover {
    state: OwnedFd,
    listeners: Vec<(String, ListenerSocket)>,
    socket_files: Vec<(String, Arc<SocketFile>)>,
    feeds: Vec<Left>,
    packed: Vec<Packed>,
    /// Requests that were not finished in time.
    pub unfinished: usize,
}

impl Handover {
    /// What is to be kept, under its names; the sockets last, so that where they are kept the rest is.
    pub fn descriptors(&self) -> impl Iterator<Item = (String, BorrowedFd<'_>)> {
        let listeners = self.listeners.iter().map(|(name, socket)| (name.clone(), socket.as_fd()));
        let socket_files = self.socket_files.iter().map(|(name, file)| (name.clone(), file.as_fd()));
        let files = self.feeds.iter().enumerate().filter_map(|(number, feed)| {
            let place = feed.mark.place.as_ref()?;
            Some((format!("{FEED}{number}"), place.file.as_fd()))
        });
        let records = self.packed.iter().enumerate();
        let records = records.map(|(number, packed)| (format!("{RECORDS}{number}"), packed.parcel.records.as_fd()));
        let pipes = self.packed.iter().enumerate().flat_map(|(number, packed)| {
            let out = packed.parcel.pipes.iter().filter_map(|pipe| pipe.out.as_ref());
            out.map(move |out| (format!("{SOCKETS}{number}"), out.as_fd()))
        });
        let state = [(STATE.to_owned(), self.state.as_fd())].into_iter();
        state.chain(listeners).chain(socket_files).chain(files).chain(records).chain(pipes)
    }

    /// Whether somebody else holds the sessions now: asked once the service manager has had time to take them.
    pub fn is_kept(&mut self) -> bool {
        let pipes = self.packed.iter_mut().flat_map(|packed| &mut packed.parcel.pipes);
        // Each is asked, for that lets go of our own hold.
        pipes.filter_map(|pipe| (!pipe.is_kept()).then_some(())).count() == 0
    }

    /// How many sessions are handed over.
    pub fn sessions(&self) -> usize {
        self.packed.iter().map(|packed| packed.sessions).sum()
    }

    /// How many connections beside them, which have no request in flight.
    pub fn silent(&self) -> usize {
        self.packed.iter().map(|packed| packed.parcel.count - packed.sessions).sum()
    }

    /// How many could not be.
    pub fn left_out(&self) -> usize {
        self.packed.iter().map(|packed| packed.left_out).sum()
    }

    /// How many addresses are.
    pub fn listeners(&self) -> usize {
        self.listeners.len()
    }
}

impl Server {
    /// Stops serving, without a word to the clients, and packs everything for another process. Afterwards either
    /// [`Server::leave`] or [`Server::resume`] is due.
    ///
    /// # Errors
    /// A shard could not pack; then [`Server::resume`] is due.
    pub fn hand_over(&mut self) -> Result<Handover, String> {
        let feeds = self.feeds.take().map(Feeds::stop).unwrap_or_default();
        // Whoever connects meanwhile waits, so a slow request may take only a part of the grace.
        let finished = Instant::now() + self.config.daemon.grace / 3;
        let deadline = finished + HANDOVER;
        self.step(Step::Rest, deadline)?;
        while self.requests() > 0 && Instant::now() < finished {
            std::thread::sleep(DRAIN_INTERVAL);
        }
        let unfinished = self.requests();
        self.step(Step::Hush, deadline)?;
        self.step(Step::Spread, deadline)?;
        let packed = self.step(Step::Pack, deadline)?;
        let listeners =
            passed_on(&self.listeners).map_err(|error| format!("a listener cannot be handed over: {error}"))?;
        let state =
            write_state(&self.listeners, &feeds).map_err(|error| format!("the state cannot be written: {error}"))?;
        let socket_files = socket_files(&self.listeners);
        Ok(Handover { state, listeners, socket_files, feeds, packed, unfinished })
    }

    /// Goes on as if nothing had been packed.
    pub fn resume(&self) {
        if let Err(why) = self.step(Step::Resume, Instant::now() + HANDOVER) {
            log::error!("{why}");
        }
    }

    /// Ends, now that another process has what was packed; those left out are asked to come back. How many connections were cut off.
    pub fn leave(self, handover: &Handover) -> usize {
        if handover.left_out() + handover.unfinished == 0 {
            super::stop(&self.mailboxes, self.shards);
            return 0;
        }
        if let Err(why) = self.step(Step::Leave, Instant::now() + HANDOVER) {
            log::error!("{why}");
        }
        self.drain(End::HandedOver)
    }

    /// Connections that wait for an answer.
    fn requests(&self) -> usize {
        let others =
            |mailbox: &Mailbox| mailbox.counters.sessions.value() as usize + mailbox.aside.load(Ordering::Relaxed);
        self.connections().saturating_sub(self.mailboxes.iter().map(others).sum())
    }

    /// Has all shards take a step together.
    fn step(&self, step: Step, deadline: Instant) -> Result<Vec<Packed>, String> {
        let (done, answers) = channel();
        for mailbox in self.mailboxes.iter() {
            mailbox.send(Command::HandOver(step, done.clone()));
        }
        drop(done);
        let mut packed = Vec::new();
        for _ in self.mailboxes.iter() {
            match answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Ok(part)) => packed.extend(part),
                Ok(Err(error)) => return Err(format!("a shard cannot hand over: {error}")),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err("a shard does not answer".to_owned());
                }
            }
        }
        Ok(packed)
    }
}

/// The listeners that the next process cannot get elsewhere, by name.
fn passed_on(listeners: &Listeners) -> io::Result<Vec<(String, ListenerSocket)>> {
    let own = listeners.iter().enumerate().filter(|(_, (listen, _))| !matches!(listen, Listen::Systemd(_)));
    own.map(|(number, (_, listener))| Ok((format!("{LISTENER}{number}"), listener.socket.try_clone()?))).collect()
}

/// The files of Unix sockets among them, by name.
fn socket_files(listeners: &Listeners) -> Vec<(String, Arc<SocketFile>)> {
    let files = listeners.iter().enumerate();
    files.filter_map(|(number, (_, listener))| Some((format!("{FILE}{number}"), listener.file.clone()?))).collect()
}

/// Which of them is which, and how far the feeds have come.
fn write_state(listeners: &Listeners, feeds: &[Left]) -> io::Result<OwnedFd> {
    let mut out = MAGIC.to_vec();
    fields::number(FORMAT, &mut out);
    State::of(listeners, feeds).write(&mut out);
    let mut file = File::from(memfd_create("pushd-state", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&out)?;
    Ok(file.into())
}

/// What another process wrote of its state.
#[derive(Debug, Default, PartialEq)]
pub(super) struct State {
    /// Its listeners, by number.
    pub(super) listeners: Vec<ListenerState>,
    /// Its feeds, by number.
    pub(super) feeds: Vec<FeedState>,
}

tagged!(State { 1 listeners, 2 feeds });

/// A listener without its socket. It has one address, of a kind that this version knows or not.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct ListenerState {
    pub(super) server: String,
    tcp: String,
    unix: Vec<u8>,
    systemd: String,
}

tagged!(ListenerState { 1 server, 2 tcp, 3 unix, 4 systemd });

/// A feed without its file.
#[derive(Debug, Default, PartialEq)]
pub(super) struct FeedState {
    name: String,
    origin: Vec<u8>,
    count: u64,
    begun: bool,
    at: u64,
    inside: bool,
}

tagged!(FeedState { 1 name, 2 origin, 3 count, 4 begun, 5 at, 6 inside });

impl State {
    fn of(listeners: &Listeners, feeds: &[Left]) -> State {
        let listeners = listeners.iter().map(|(listen, listener)| {
            let server = listener.server.to_string();
            match listen {
                Listen::Tcp(address) => ListenerState { server, tcp: address.to_string(), ..Default::default() },
                Listen::Unix(path) => {
                    ListenerState { server, unix: path.as_os_str().as_bytes().to_vec(), ..Default::default() }
                }
                Listen::Systemd(name) => ListenerState { server, systemd: name.clone(), ..Default::default() },
            }
        });
        let feeds = feeds.iter().map(|Left { name, origin, mark }| {
            let (at, inside) = mark.place.as_ref().map_or((0, false), |place| (place.at, place.inside));
            let (name, origin) = (name.clone(), origin.clone());
            FeedState { name, origin, count: mark.count, begun: mark.begun, at, inside }
        });
        State { listeners: listeners.collect(), feeds: feeds.collect() }
    }
}

impl ListenerState {
    /// What it was configured as, if this version knows such addresses.
    pub(super) fn listen(&self) -> Option<Listen> {
        let tcp = self.tcp.parse().ok().map(Listen::Tcp);
        let unix = || (!self.unix.is_empty()).then(|| Listen::Unix(OsStr::from_bytes(&self.unix).into()));
        tcp.or_else(unix).or_else(|| (!self.systemd.is_empty()).then(|| Listen::Systemd(self.systemd.clone())))
    }
}

impl FeedState {
    /// With its file, if it was left.
    pub(super) fn with(self, file: Option<OwnedFd>) -> Left {
        let FeedState { name, origin, count, begun, at, inside } = self;
        let place = file.map(|file| Place { file: Arc::new(File::from(file)), at, inside });
        Left { name, origin, mark: Mark { count, begun, place } }
    }
}

/// Reads what another process wrote of its state.
pub(super) fn read_state(state: OwnedFd) -> Result<State, String> {
    let (mut file, mut bytes) = (File::from(state), Vec::new());
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(CONFIG_BYTES_MAX).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    parse_state(&bytes).map_err(|Damaged(why)| why.to_owned())
}

fn parse_state(bytes: &[u8]) -> Result<State, Damaged> {
    let foreign = Damaged("it is written in a format of another version");
    let mut fields = Fields(bytes.strip_prefix(MAGIC).ok_or(foreign)?);
    match fields.number()? {
        FORMAT => State::read(fields.0),
        format if format == u64::from(format1::FORMAT) => State::read(&format1::state(fields)?),
        _ => Err(foreign),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::listener::Listener;

    #[test]
    fn what_is_written_of_listeners_is_read_and_damage_is_told() {
        let socket = || ListenerSocket::Tcp(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let all = [
            ("main", Listen::Tcp("[::1]:0".parse().unwrap())),
            ("main", Listen::Unix("/run/a b.sock".into())),
            ("other", Listen::Systemd("hub".into())),
        ];
        let listeners =
            all.clone().map(|(server, listen)| (listen, Arc::new(Listener::new(server.into(), socket(), None))));
        let listeners = Listeners::from(listeners);
        let feeds = [(5, true), (u64::MAX, false)].map(|(count, begun)| Left {
            name: "f".into(),
            origin: b"tail /x".to_vec(),
            mark: Mark { count, begun, place: None },
        });
        let state = write_state(&listeners, &feeds).unwrap();
        let read = read_state(state.try_clone().unwrap()).unwrap();
        let described: Vec<_> = read.listeners.iter().map(|known| (&*known.server, known.listen().unwrap())).collect();
        assert_eq!(described, all);
        let read: Vec<Left> = read.feeds.into_iter().map(|feed| feed.with(None)).collect();
        assert_eq!(format!("{read:?}"), format!("{feeds:?}"));
        // Those of a service manager come from there again.
        assert_eq!(passed_on(&listeners).unwrap().len(), 2);

        let mut bytes = Vec::new();
        let mut file = File::from(state);
        file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut bytes)).unwrap();
        // A file is cut nowhere, but where a field ends.
        let read = (0..bytes.len()).filter(|cut| parse_state(&bytes[..*cut]).is_ok()).count();
        assert_eq!(read, 2, "nothing, and the listeners");
        bytes[MAGIC.len()] += 1;
        assert_eq!(parse_state(&bytes), Err(Damaged("it is written in a format of another version")));
    }
}
