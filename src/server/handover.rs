//! What a process hands over to the next one: descriptors under names, which the service manager keeps meanwhile.
//!
//! - `pushd-handover-state`: a description of the listeners, and the progress of the feeds
//! - `pushd-handover-listener-N`: a listener. It stays open, so clients that connect meanwhile wait in the kernel.
//! - `pushd-handover-file-N`: the file of listener N, if that is a Unix socket, so that this file can be removed with it
//! - `pushd-handover-feed-N`: the file that a tail follows, whatever its name is now
//! - `pushd-handover-histories-N`: what the hubs of a shard remember ([`crate::shard::histories`])
//! - `pushd-handover-records-N`, `pushd-handover-sockets-N`: the sessions of a shard ([`crate::shard::parcel`])
//!
//! Nothing is consumed before the next process serves: if it cannot start, everything is left to the start after it.
//!
//! The next process may be of another version. It closes and drops descriptors whose names begin with the prefix but
//! are unknown. Everything else is written as fields with tags ([`crate::wire::tagged`]).

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
use super::feeds::Feeds;
use super::progress::{FeedState, StoppedFeed};
use super::{DRAIN_INTERVAL, End, Server};
use crate::config::Listen;
use crate::config::limits::{CONFIG_BYTES_MAX, HANDOVER};
use crate::shard::handover::{Packed, Step};
use crate::shard::listener::ListenerSocket;
use crate::shard::mailbox::{Command, Mailbox};
use crate::shard::socket_file::SocketFile;
use crate::wire::fields::{self, Damaged, Fields};
use crate::wire::format1;
use crate::wire::tagged::{Field, tagged};

/// The prefix of all these names.
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
pub(super) const HISTORIES: &str = "pushd-handover-histories-";
/// See the head of this file.
pub(super) const RECORDS: &str = "pushd-handover-records-";
/// See the head of this file.
pub(super) const SOCKETS: &str = "pushd-handover-sockets-";

/// A marker of each start that began to open the parcels. If it is found, that start died before it served.
pub const TRIED: &str = "pushd-handover-tried";

/// The first bytes of the state, and the number of its format.
const MAGIC: &[u8] = b"pushd state ";
const FORMAT: u64 = 2;

/// Everything that is handed over.
#[derive(Debug)]
pub struct Handover {
    state: OwnedFd,
    listeners: Vec<(String, ListenerSocket)>,
    socket_files: Vec<(String, Arc<SocketFile>)>,
    feeds: Vec<StoppedFeed>,
    packed: Vec<Packed>,
    /// Requests that were not finished in time.
    pub unfinished: usize,
}

impl Handover {
    /// The descriptors to keep, with their names. The sockets come last: if those are kept, so is the rest.
    pub fn descriptors(&self) -> impl Iterator<Item = (String, BorrowedFd<'_>)> {
        let listeners = self.listeners.iter().map(|(name, socket)| (name.clone(), socket.as_fd()));
        let socket_files = self.socket_files.iter().map(|(name, file)| (name.clone(), file.as_fd()));
        let files = self.feeds.iter().enumerate().filter_map(|(number, feed)| {
            let file = feed.mark.file.as_ref()?.file.as_ref()?;
            Some((format!("{FEED}{number}"), file.as_fd()))
        });
        let histories = self.packed.iter().enumerate();
        let histories = histories.map(|(number, packed)| (format!("{HISTORIES}{number}"), packed.histories.as_fd()));
        let records = self.packed.iter().enumerate();
        let records = records.map(|(number, packed)| (format!("{RECORDS}{number}"), packed.parcel.records.as_fd()));
        let pipes = self.packed.iter().enumerate().flat_map(|(number, packed)| {
            let out = packed.parcel.pipes.iter().filter_map(|pipe| pipe.out.as_ref());
            out.map(move |out| (format!("{SOCKETS}{number}"), out.as_fd()))
        });
        let state = [(STATE.to_owned(), self.state.as_fd())].into_iter();
        state.chain(listeners).chain(socket_files).chain(files).chain(histories).chain(records).chain(pipes)
    }

    /// Closes our own ends of the pipes that hold the sessions, and returns whether another process holds all of them. Call
    /// it after [`crate::daemon::notify::barrier`], when the service manager has had time to take them.
    pub fn release_pipes(&mut self) -> bool {
        let pipes = self.packed.iter_mut().flat_map(|packed| &mut packed.parcel.pipes);
        // Each pipe must be checked, because the check closes our end.
        pipes.filter_map(|pipe| (!pipe.close_and_check_holder()).then_some(())).count() == 0
    }

    /// The number of sessions that are handed over.
    pub fn sessions(&self) -> usize {
        self.packed.iter().map(|packed| packed.sessions).sum()
    }

    /// The number of other connections that are handed over; they have no request in flight.
    pub fn idle(&self) -> usize {
        self.packed.iter().map(|packed| packed.parcel.count - packed.sessions).sum()
    }

    /// The number of sessions that could not be handed over.
    pub fn left_out(&self) -> usize {
        self.packed.iter().map(|packed| packed.left_out).sum()
    }

    /// The number of addresses that are handed over.
    pub fn listeners(&self) -> usize {
        self.listeners.len()
    }
}

impl Server {
    /// Stops serving without closing connections, and packs everything for another process. Call either
    /// [`Server::leave`] or [`Server::resume`] afterwards.
    ///
    /// # Errors
    /// A shard could not pack. Then call [`Server::resume`].
    pub fn hand_over(&mut self) -> Result<Handover, String> {
        let feeds = self.feeds.take().map(Feeds::stop).unwrap_or_default();
        // Clients that connect meanwhile wait, so slow requests get only a part of the grace.
        let finished = Instant::now() + self.config.daemon.grace / 3;
        let deadline = finished + HANDOVER;
        self.step(Step::StopAccepting, deadline)?;
        while self.requests() > 0 && Instant::now() < finished {
            std::thread::sleep(DRAIN_INTERVAL);
        }
        let unfinished = self.requests();
        self.step(Step::StopReading, deadline)?;
        self.step(Step::Spread, deadline)?;
        let packed = self.step(Step::Pack, deadline)?;
        let listeners =
            passed_on(&self.listeners).map_err(|error| format!("a listener cannot be handed over: {error}"))?;
        let state =
            write_state(&self.listeners, &feeds).map_err(|error| format!("the state cannot be written: {error}"))?;
        let socket_files = socket_files(&self.listeners);
        Ok(Handover { state, listeners, socket_files, feeds, packed, unfinished })
    }

    /// Continues as if nothing had been packed.
    pub fn resume(&self) {
        if let Err(why) = self.step(Step::Resume, Instant::now() + HANDOVER) {
            log::error!("{why}");
        }
    }

    /// Ends this process's service, after another process has taken what was packed. Clients of sessions that were left
    /// out are asked to reconnect. Returns the number of connections that were cut off.
    pub fn leave(self, handover: &Handover) -> usize {
        if handover.left_out() + handover.unfinished == 0 {
            super::stop(&self.mailboxes, self.shards);
            self.lasting.durable.close();
            return 0;
        }
        if let Err(why) = self.step(Step::Leave, Instant::now() + HANDOVER) {
            log::error!("{why}");
        }
        self.drain(End::HandedOver)
    }

    /// The number of connections with a request in flight.
    fn requests(&self) -> usize {
        let others =
            |mailbox: &Mailbox| mailbox.counters.sessions.value() as usize + mailbox.aside.load(Ordering::Relaxed);
        self.connections().saturating_sub(self.mailboxes.iter().map(others).sum())
    }

    /// Has all shards take a step, and waits for all of them.
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

/// The listeners that the next process cannot get from the service manager's own sockets, by name.
fn passed_on(listeners: &Listeners) -> io::Result<Vec<(String, ListenerSocket)>> {
    let own = listeners.iter().enumerate().filter(|(_, (listen, _))| !matches!(listen, Listen::Systemd(_)));
    own.map(|(number, (_, listener))| Ok((format!("{LISTENER}{number}"), listener.socket.try_clone()?))).collect()
}

/// The files of the Unix sockets among them, by name.
fn socket_files(listeners: &Listeners) -> Vec<(String, Arc<SocketFile>)> {
    let files = listeners.iter().enumerate();
    files.filter_map(|(number, (_, listener))| Some((format!("{FILE}{number}"), listener.file.clone()?))).collect()
}

/// Writes the description of the listeners and the progress of the feeds.
fn write_state(listeners: &Listeners, feeds: &[StoppedFeed]) -> io::Result<OwnedFd> {
    let mut out = MAGIC.to_vec();
    fields::number(FORMAT, &mut out);
    State::of(listeners, feeds).write(&mut out);
    let mut file = File::from(memfd_create("pushd-state", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&out)?;
    Ok(file.into())
}

/// The state as another process wrote it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct State {
    /// Its listeners, by number.
    pub(super) listeners: Vec<ListenerState>,
    /// Its feeds, by number.
    pub(super) feeds: Vec<FeedState>,
}

tagged!(State { 1 listeners, 2 feeds });

/// A listener without its socket. It has one address; its kind may be unknown to this version.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct ListenerState {
    pub(super) server: String,
    tcp: String,
    unix: Vec<u8>,
    systemd: String,
}

tagged!(ListenerState { 1 server, 2 tcp, 3 unix, 4 systemd });

impl State {
    fn of(listeners: &Listeners, feeds: &[StoppedFeed]) -> State {
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
        let feeds = feeds.iter().map(|StoppedFeed { name, source_key, mark }| FeedState::of(name, source_key, mark));
        State { listeners: listeners.collect(), feeds: feeds.collect() }
    }
}

impl ListenerState {
    /// The configured address, if this version knows its kind.
    pub(super) fn listen(&self) -> Option<Listen> {
        let tcp = self.tcp.parse().ok().map(Listen::Tcp);
        let unix = || (!self.unix.is_empty()).then(|| Listen::Unix(OsStr::from_bytes(&self.unix).into()));
        tcp.or_else(unix).or_else(|| (!self.systemd.is_empty()).then(|| Listen::Systemd(self.systemd.clone())))
    }
}

/// Reads the state that another process wrote.
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
    use crate::feed::mark::Mark;
    use crate::shard::listener::Listener;

    #[test]
    fn the_written_state_can_be_read_and_damage_is_reported() {
        let socket = || ListenerSocket::Tcp(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let all = [
            ("main", Listen::Tcp("[::1]:0".parse().unwrap())),
            ("main", Listen::Unix("/run/a b.sock".into())),
            ("other", Listen::Systemd("hub".into())),
        ];
        let listeners =
            all.clone().map(|(server, listen)| (listen, Arc::new(Listener::new(server.into(), socket(), None))));
        let listeners = Listeners::from(listeners);
        let feeds = [(5, true), (u64::MAX, false)].map(|(count, begun)| StoppedFeed {
            name: "f".into(),
            source_key: b"tail /x".to_vec(),
            mark: Mark { count, begun, file: None },
        });
        let state = write_state(&listeners, &feeds).unwrap();
        let read = read_state(state.try_clone().unwrap()).unwrap();
        let described: Vec<_> = read.listeners.iter().map(|known| (&*known.server, known.listen().unwrap())).collect();
        assert_eq!(described, all);
        let read: Vec<StoppedFeed> = read.feeds.into_iter().map(|feed| feed.with(None)).collect();
        assert_eq!(format!("{read:?}"), format!("{feeds:?}"));
        // Sockets of the service manager are passed by itself again.
        assert_eq!(passed_on(&listeners).unwrap().len(), 2);

        let mut bytes = Vec::new();
        let mut file = File::from(state);
        file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut bytes)).unwrap();
        // A truncated state is readable only if it ends between two fields.
        let read = (0..bytes.len()).filter(|cut| parse_state(&bytes[..*cut]).is_ok()).count();
        assert_eq!(read, 2, "no field, and the listeners");
        bytes[MAGIC.len()] += 1;
        assert_eq!(parse_state(&bytes), Err(Damaged("it is written in a format of another version")));
    }
}
