//! What the service manager passed: sockets that it opened for us, and what a process before this one left ([`super::handover`]).
//!
//! All of it may be from another version, or damaged. What cannot be used is told and closed; the server starts anyway.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::channel;

use socket2::{SockAddr, SockRef, Socket};

use super::bind::{Listeners, adopt, unlink};
use super::feeds::Left;
use super::handover::{FEED, FILE, LISTENER, ListenerState, PREFIX, RECORDS, SOCKETS, STATE, State, TRIED, read_state};
use crate::config::limits::{LINGER_BYTES_MAX, TAKE_UP_TRIES_MAX};
use crate::config::{Config, Listen};
use crate::session::Seconds;
use crate::session::record::Record;
use crate::shard::Plan;
use crate::shard::handover::{Returning, Step};
use crate::shard::listener::Listener;
use crate::shard::mailbox::{Command, Mailbox};
use crate::shard::parcel::{self, Item, Opened};
use crate::shard::socket_file::SocketFile;
use crate::shard::stream::{Place, Raw};

/// How many sessions are given to a shard at once.
const SESSIONS_PER_COMMAND: usize = 64;

/// Everything that was passed.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Sockets that the service manager opened, by name; kept for as long as the process lives, whatever the file asks for now.
    pub(super) named: HashMap<String, Vec<OwnedFd>>,
    /// Listeners of the process before, each with the name it was left under.
    listeners: Vec<(String, Listen, Arc<Listener>)>,
    /// Its feeds.
    pub(super) feeds: Vec<Left>,
    /// Sessions of each of its shards: records and sockets.
    parcels: BTreeMap<String, (Option<OwnedFd>, Vec<OwnedFd>)>,
    /// How many starts before this one have begun to open them, and have not lived to serve.
    tries: usize,
    /// The names of all that was left.
    left: Vec<String>,
    /// What could not be used, said once there is a log.
    troubles: Vec<String>,
}

impl Inherited {
    /// Sorts what was passed, each under its name.
    pub fn new(passed: impl IntoIterator<Item = (String, OwnedFd)>) -> Inherited {
        let mut inherited = Inherited::default();
        let (mut state, mut listeners, mut socket_files, mut files) =
            (None, Vec::new(), HashMap::new(), HashMap::new());
        for (name, descriptor) in passed {
            if name.starts_with(PREFIX) && !inherited.left.contains(&name) {
                inherited.left.push(name.clone());
            }
            if name == TRIED {
                inherited.tries += 1;
            } else if name == STATE {
                state = Some(descriptor);
            } else if let Some(number) = name.strip_prefix(LISTENER) {
                listeners.push((number.to_owned(), descriptor));
            } else if let Some(number) = name.strip_prefix(FILE) {
                socket_files.insert(number.to_owned(), descriptor);
            } else if let Some(number) = name.strip_prefix(FEED) {
                files.insert(number.to_owned(), descriptor);
            } else if let Some(number) = name.strip_prefix(RECORDS) {
                inherited.parcels.entry(number.to_owned()).or_default().0 = Some(descriptor);
            } else if let Some(number) = name.strip_prefix(SOCKETS) {
                inherited.parcels.entry(number.to_owned()).or_default().1.push(descriptor);
            } else if !name.starts_with(PREFIX) {
                inherited.named.entry(name).or_default().push(descriptor);
            }
        }
        let state = state.map_or(Ok(State::default()), read_state).unwrap_or_else(|why| {
            inherited.troubles.push(format!("the process before left its state, which cannot be read: {why}"));
            State::default()
        });
        inherited.take_listeners(state.listeners, listeners, socket_files);
        let feeds = state.feeds.into_iter().enumerate();
        inherited.feeds = feeds.map(|(number, feed)| feed.with(files.remove(&number.to_string()))).collect();
        inherited
    }

    fn take_listeners(
        &mut self,
        described: Vec<ListenerState>,
        listeners: Vec<(String, OwnedFd)>,
        mut files: HashMap<String, OwnedFd>,
    ) {
        for (number, descriptor) in listeners {
            let known = number.parse().ok().and_then(|number: usize| described.get(number));
            let known = known.and_then(|known| Some((known.server.clone(), known.listen()?)));
            match take_listener(known, descriptor, files.remove(&number)) {
                Ok((listen, listener)) => {
                    self.listeners.push((format!("{LISTENER}{number}"), listen, Arc::new(listener)));
                }
                Err(error) => self.troubles.push(format!("a listener of the process before cannot be used: {error}")),
            }
        }
    }

    /// Lets go of the listeners that are not asked for any more; under which names they were left. Until the service manager has
    /// forgotten them too their addresses are taken.
    pub fn let_go(&mut self, config: &Config) -> Vec<String> {
        let is_needed = |listen: &Listen| config.servers.iter().any(|server| server.listen.contains(listen));
        let (needed, gone) =
            std::mem::take(&mut self.listeners).into_iter().partition(|(_, listen, _)| is_needed(listen));
        self.listeners = needed;
        unlink(gone.iter().map(|(_, _, listener)| listener));
        gone.into_iter().map(|(name, ..)| name).collect()
    }

    /// Whether there are sessions among it.
    pub(super) fn has_sessions(&self) -> bool {
        !self.parcels.is_empty()
    }

    /// The names of everything that another process left.
    pub fn left(&self) -> &[String] {
        &self.left
    }

    /// The listeners of the process before, as a reload has those that are there.
    pub(super) fn kept(&mut self) -> Listeners {
        std::mem::take(&mut self.listeners).into_iter().map(|(_, listen, listener)| (listen, listener)).collect()
    }

    /// What the sessions' clock says.
    pub(super) fn clock(&self) -> Seconds {
        let records = self.parcels.values().filter_map(|(records, _)| records.as_ref());
        // A damaged clock must not run out.
        records.map(parcel::clock).max().unwrap_or_default().min(Seconds::MAX / 2)
    }

    /// Opens the parcels. From here on nobody else can take them up.
    pub(super) fn open(&mut self) -> Vec<Opened> {
        self.troubles.drain(..).for_each(|trouble| log::warn!("{trouble}"));
        if self.tries >= TAKE_UP_TRIES_MAX && self.has_sessions() {
            log::error!("{} starts have died of the sessions of the process before: they are given up", self.tries);
            self.parcels.clear();
        }
        let parcels = std::mem::take(&mut self.parcels).into_values().map(|(records, pipes)| {
            let (opened, why) = Opened::new(records, pipes);
            if let Some(why) = why {
                log::warn!("sessions of the process before cannot be taken up: {why}");
            }
            opened
        });
        parcels.collect()
    }
}

/// What a listener was configured as, or where that is not known, what the kernel says of it.
fn take_listener(
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
            // Nobody finds a socket whose name is gone. An older version leaves no file: then it is the one that stands there.
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

/// Waits until all shards have done what they were told so far; whether all of them run.
pub(super) fn are_up(mailboxes: &[Mailbox]) -> bool {
    let (done, answers) = channel();
    mailboxes.iter().for_each(|mailbox| mailbox.send(Command::HandOver(Step::Wait, done.clone())));
    drop(done);
    // What a shard does not answer any more is dropped with its mailbox's commands.
    answers.iter().count() == mailboxes.len()
}

/// Gives the sessions of the process before to the shards, evenly; returns once they have them. None of them is read before
/// all are there. Connections without a request in flight are left, to be served once everybody is.
pub(super) fn take_up(parcels: Vec<Opened>, plan: &Plan, mailboxes: &[Mailbox]) -> Vec<(usize, Command)> {
    let mut silent = Vec::new();
    if parcels.is_empty() {
        return silent;
    }
    let (mut taken, mut gone, mut lost) = (0, 0, 0);
    // Why and how often: another version may have left ten thousand that are unreadable alike.
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
                Item::Silent { server, .. } => server,
            };
            let place = place(&socket, plan, server, &mailboxes[index]);
            match (Raw::returning(socket, place), item) {
                (Ok(raw), Item::Silent { server, early }) => {
                    silent.push((index, Command::Serve(raw, early.into(), server.into())));
                }
                (Ok(raw), Item::Session(record)) => {
                    let session = returning(record, raw, plan);
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
    // One that has ended meanwhile is seen by the server.
    are_up(mailboxes);
    log::info!("Took up {taken} sessions of the process before");
    if gone > 0 {
        log::warn!("{gone} of them came by a route that is no longer served, and are closed");
    }
    for (why, count) in unreadable {
        log::warn!("{count} records of the process before cannot be read: {why}");
    }
    if lost > 0 {
        log::warn!("{lost} connections of the process before could not be taken up and were ended");
    }
    silent
}

/// A place for a connection. One that had a place keeps it, however few there are now.
fn place(socket: &OwnedFd, plan: &Plan, server: &str, mailbox: &Mailbox) -> Place {
    let peer = || SockRef::from(socket).peer_addr().ok()?.as_socket().map(|peer| peer.ip());
    let counted = plan.gate.readmit(plan, server, plan.connections_per_address_max.and_then(|_| peer()));
    Place { shard: mailbox.connections.enter(), counted: counted.boxed() }
}

/// A session with what it may now.
fn returning(record: Record, socket: Raw, plan: &Plan) -> Returning {
    let terms = plan.sites.get(&record.server).and_then(|site| site.terms(&record.path));
    let terms = terms.filter(|terms| terms.hub.name == record.hub).cloned();
    let members = terms.as_ref().map(|terms| terms.members.clone()).unwrap_or_default();
    Returning { socket, record, terms, membership: members.enter() }
}

/// Ends a connection of which nothing is known, so that its client sees an end and no reset.
fn end(descriptor: OwnedFd) {
    let mut socket = Socket::from(descriptor);
    let mut sink = [0; 4096];
    let mut left = LINGER_BYTES_MAX;
    // What fails here is a connection that has ended already.
    let _ = socket.shutdown(Shutdown::Write);
    let _ = socket.set_nonblocking(true);
    while let Ok(count @ 1..) = socket.read(&mut sink)
        && left > 0
    {
        left = left.saturating_sub(count);
    }
}
