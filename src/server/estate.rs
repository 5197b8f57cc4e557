//! What the service manager passed: sockets that it opened, and what the previous process handed over
//! ([`super::handover`]).
//!
//! All of it may come from another version, or be damaged. What cannot be used is logged and closed, and the server
//! starts anyway.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::channel;

use socket2::{SockAddr, SockRef, Socket};

use super::bind::{Listeners, adopt, unlink};
use super::handover::{
    FEED, FILE, HISTORIES, LISTENER, ListenerState, PREFIX, RECORDS, SOCKETS, STATE, State, TRIED, read_state,
};
use super::presence;
use super::progress::StoppedFeed;
use crate::config::limits::{LINGER_BYTES_MAX, TAKE_UP_TRIES_MAX};
use crate::config::{Config, Listen};
use crate::session::Seconds;
use crate::session::Terms;
use crate::session::record::Record;
use crate::shard::Plan;
use crate::shard::handover::{Returning, Step};
use crate::shard::listener::Listener;
use crate::shard::mailbox::{Command, Mailbox};
use crate::shard::parcel::{self, Item, Opened};
use crate::shard::socket_file::SocketFile;
use crate::shard::stream::{Admission, Raw};

/// How many sessions are given to a shard with one command.
const SESSIONS_PER_COMMAND: usize = 64;

/// Everything that was passed.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Sockets that the service manager opened, by name. They are kept for the life of the process, whatever the file
    /// says now.
    pub(super) named: HashMap<String, Vec<OwnedFd>>,
    /// Listeners of the previous process, each with the name under which it was handed over.
    listeners: Vec<(String, Listen, Arc<Listener>)>,
    /// Its feeds.
    pub(super) feeds: Vec<StoppedFeed>,
    /// What its hubs remember.
    pub(super) histories: Vec<OwnedFd>,
    /// Sessions of each of its shards: records and sockets.
    parcels: BTreeMap<String, (Option<OwnedFd>, Vec<OwnedFd>)>,
    /// How many starts before this one have begun to open the parcels, and died before they served.
    attempts: usize,
    /// The names of everything that was handed over.
    names: Vec<String>,
    /// What could not be used. It is logged once there is a log.
    troubles: Vec<String>,
}

impl Inherited {
    /// Sorts what was passed by its names.
    pub fn new(passed: impl IntoIterator<Item = (String, OwnedFd)>) -> Inherited {
        let mut inherited = Inherited::default();
        let (mut state, mut listeners, mut socket_files, mut files) =
            (None, Vec::new(), HashMap::new(), HashMap::new());
        for (name, descriptor) in passed {
            if name.starts_with(PREFIX) && !inherited.names.contains(&name) {
                inherited.names.push(name.clone());
            }
            if name == TRIED {
                inherited.attempts += 1;
            } else if name == STATE {
                state = Some(descriptor);
            } else if let Some(number) = name.strip_prefix(LISTENER) {
                listeners.push((number.to_owned(), descriptor));
            } else if let Some(number) = name.strip_prefix(FILE) {
                socket_files.insert(number.to_owned(), descriptor);
            } else if let Some(number) = name.strip_prefix(FEED) {
                files.insert(number.to_owned(), descriptor);
            } else if name.starts_with(HISTORIES) {
                inherited.histories.push(descriptor);
            } else if let Some(number) = name.strip_prefix(RECORDS) {
                inherited.parcels.entry(number.to_owned()).or_default().0 = Some(descriptor);
            } else if let Some(number) = name.strip_prefix(SOCKETS) {
                inherited.parcels.entry(number.to_owned()).or_default().1.push(descriptor);
            } else if !name.starts_with(PREFIX) {
                inherited.named.entry(name).or_default().push(descriptor);
            }
        }
        let state = state.map_or(Ok(State::default()), read_state).unwrap_or_else(|why| {
            inherited.troubles.push(format!("the state of the previous process cannot be read: {why}"));
            State::default()
        });
        inherited.add_listeners(state.listeners, listeners, socket_files);
        let feeds = state.feeds.into_iter().enumerate();
        inherited.feeds = feeds.map(|(number, feed)| feed.with(files.remove(&number.to_string()))).collect();
        inherited
    }

    fn add_listeners(
        &mut self,
        described: Vec<ListenerState>,
        listeners: Vec<(String, OwnedFd)>,
        mut files: HashMap<String, OwnedFd>,
    ) {
        for (number, descriptor) in listeners {
            let known = number.parse().ok().and_then(|number: usize| described.get(number));
            let known = known.and_then(|known| Some((known.server.clone(), known.listen()?)));
            match make_listener(known, descriptor, files.remove(&number)) {
                Ok((listen, listener)) => {
                    self.listeners.push((format!("{LISTENER}{number}"), listen, Arc::new(listener)));
                }
                Err(error) => self.troubles.push(format!("a listener of the previous process cannot be used: {error}")),
            }
        }
    }

    /// Closes the listeners that are no longer configured, and returns their names. Their addresses stay taken until the
    /// service manager has dropped its copies, too.
    pub fn close_unneeded_listeners(&mut self, config: &Config) -> Vec<String> {
        let is_needed = |listen: &Listen| config.servers.iter().any(|server| server.listen.contains(listen));
        let (needed, gone) =
            std::mem::take(&mut self.listeners).into_iter().partition(|(_, listen, _)| is_needed(listen));
        self.listeners = needed;
        unlink(gone.iter().map(|(_, _, listener)| listener));
        gone.into_iter().map(|(name, ..)| name).collect()
    }

    /// Notes what could not be used. It is logged once there is a log.
    pub(super) fn note_trouble(&mut self, trouble: String) {
        self.troubles.push(trouble);
    }

    /// Whether sessions were handed over.
    pub(super) fn has_sessions(&self) -> bool {
        !self.parcels.is_empty()
    }

    /// The names under which the service manager keeps what was handed over.
    pub fn kept_names(&self) -> &[String] {
        &self.names
    }

    /// Takes out the listeners of the previous process, in the form that a reload has them.
    pub(super) fn take_listeners(&mut self) -> Listeners {
        std::mem::take(&mut self.listeners).into_iter().map(|(_, listen, listener)| (listen, listener)).collect()
    }

    /// The clock of the sessions that were handed over.
    pub(super) fn clock(&self) -> Seconds {
        let records = self.parcels.values().filter_map(|(records, _)| records.as_ref());
        // A damaged value must leave the clock time to run.
        records.map(parcel::clock).max().unwrap_or_default().min(Seconds::MAX / 2)
    }

    /// Opens the parcels. From here on no other process can take the sessions up.
    pub(super) fn open_parcels(&mut self) -> Vec<Opened> {
        self.troubles.drain(..).for_each(|trouble| log::warn!("{trouble}"));
        if self.attempts >= TAKE_UP_TRIES_MAX && self.has_sessions() {
            log::error!(
                "{} starts died while they took up the sessions of the previous process: these sessions are ended",
                self.attempts
            );
            self.parcels.clear();
        }
        let parcels = std::mem::take(&mut self.parcels).into_values().map(|(records, pipes)| {
            let (opened, why) = Opened::new(records, pipes);
            if let Some(why) = why {
                log::warn!("sessions of the previous process cannot be taken up: {why}");
            }
            opened
        });
        parcels.collect()
    }
}

/// Makes a listener for the address that was configured for it, or if that is not known, for the one that the kernel reports.
fn make_listener(
    known: Option<(String, Listen)>,
    descriptor: OwnedFd,
    file: Option<OwnedFd>,
) -> io::Result<(Listen, Listener)> {
    let socket = Socket::from(descriptor);
    let bound = socket.local_addr()?;
    let (server, listen) = match known {
        Some(known) => known,
        None => (String::new(), address(&bound).ok_or_else(|| io::Error::other("it has no address"))?),
    };
    let file = match &listen {
        Listen::Unix(path) => {
            // A socket without a name cannot be reached. An older version does not hand over the file: then the one at
            // the path is used.
            let named = SocketFile::at(path)?;
            Some(file.map_or(Ok(named), |file| SocketFile::held(path, file))?)
        }
        _ => None,
    };
    Ok((listen, Listener::new(server.as_str().into(), adopt(socket.into())?, file.map(Arc::new))))
}

fn address(bound: &SockAddr) -> Option<Listen> {
    let path = || bound.as_pathname().map(|path| Listen::Unix(path.to_owned()));
    bound.as_socket().map(Listen::Tcp).or_else(path)
}

/// Waits until all shards have carried out the commands sent so far. Returns whether all of them run.
pub(super) fn wait_for_shards(mailboxes: &[Mailbox]) -> bool {
    let (done, answers) = channel();
    mailboxes.iter().for_each(|mailbox| mailbox.send(Command::HandOver(Step::Wait, done.clone())));
    drop(done);
    // The sender of a shard that has ended is dropped with its mailbox's commands.
    answers.iter().count() == mailboxes.len()
}

/// Distributes the sessions of the previous process evenly over the shards, and returns once the shards have them. No
/// session is read before all have arrived. Connections without a request in flight are returned, to be served after
/// that.
pub(super) fn take_up(mut parcels: Vec<Opened>, plan: &Plan, mailboxes: &[Mailbox]) -> Vec<(usize, Command)> {
    let mut silent = Vec::new();
    if parcels.is_empty() {
        return silent;
    }
    presence::expect(&mut parcels, plan, mailboxes);
    let (mut taken, mut gone, mut lost) = (0, 0, 0);
    // Errors are counted by reason: another version may have written ten thousand records that are all unreadable.
    let mut unreadable = BTreeMap::<String, usize>::new();
    let mut batches: Vec<Vec<Returning>> = mailboxes.iter().map(|_| Vec::new()).collect();
    for mut parcel in parcels {
        for next in &mut parcel {
            let (item, socket) = match next {
                Ok(next) => next,
                Err(why) => {
                    *unreadable.entry(why).or_default() += 1;
                    continue;
                }
            };
            let fewest = (0..mailboxes.len()).min_by_key(|&index| mailboxes[index].connections.count());
            let index = fewest.unwrap_or_default();
            let server = match &item {
                Item::Session(record) => &record.server,
                Item::Idle { server, .. } => server,
            };
            let place = place(&socket, plan, server, &mailboxes[index]);
            match (Raw::returning(socket, place), item) {
                (Ok(raw), Item::Idle { server, early }) => {
                    silent.push((index, Command::Serve(raw, early.into(), server.into())));
                }
                (Ok(raw), Item::Session(record)) => {
                    let session = returning(*record, raw, plan);
                    taken += 1;
                    gone += usize::from(session.terms.is_none());
                    batches[index].push(session);
                }
                (Err(error), _) => log::warn!("a connection could not be taken up: {error}"),
            }
            if batches[index].len() == SESSIONS_PER_COMMAND {
                mailboxes[index].send(Command::TakeUp(std::mem::take(&mut batches[index])));
            }
        }
        lost += parcel.left().map(end).count();
    }
    for (mailbox, batch) in mailboxes.iter().zip(batches) {
        mailbox.send(Command::TakeUp(batch));
    }
    // If a shard has ended meanwhile, the server notices that.
    wait_for_shards(mailboxes);
    log::info!("Took up {taken} sessions of the previous process");
    if gone > 0 {
        log::warn!("{gone} of them came by a route that is no longer served, and are closed");
    }
    for (why, count) in unreadable {
        log::warn!("{count} records of the previous process cannot be read: {why}");
    }
    if lost > 0 {
        log::warn!("{lost} connections of the previous process could not be taken up and were ended");
    }
    silent
}

/// Counts a connection in the limits. A connection that was counted before is admitted even if the limit is lower now.
fn place(socket: &OwnedFd, plan: &Plan, server: &str, mailbox: &Mailbox) -> Admission {
    let peer = || SockRef::from(socket).peer_addr().ok()?.as_socket().map(|peer| peer.ip());
    let counted = plan.gate.readmit(plan, server, plan.connections_per_address_max.and_then(|_| peer()));
    Admission { shard: mailbox.connections.enter(), counted: counted.boxed() }
}

/// A session with the terms that its route has now.
fn returning(record: Record, socket: Raw, plan: &Plan) -> Returning {
    let terms = plan.sites.get(&record.server).and_then(|site| site.terms(&record.path));
    let is_same = |terms: &&Arc<Terms>| terms.hub.name == record.hub && terms.transport == record.framing.transport();
    let terms = terms.filter(is_same).cloned();
    let members = terms.as_ref().map(|terms| terms.members.clone()).unwrap_or_default();
    Returning { socket, record, terms, membership: members.enter() }
}

/// Ends a connection about which nothing is known, so that its client receives an end of stream and not a reset.
fn end(descriptor: OwnedFd) {
    let mut socket = Socket::from(descriptor);
    let mut sink = [0; 4096];
    let mut left = LINGER_BYTES_MAX;
    // If this fails, the connection has ended already.
    let _ = socket.shutdown(Shutdown::Write);
    let _ = socket.set_nonblocking(true);
    while let Ok(count @ 1..) = socket.read(&mut sink)
        && left > 0
    {
        left = left.saturating_sub(count);
    }
}
