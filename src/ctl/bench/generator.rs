//! The load generator: one thread and one epoll set for all connections.

use std::io;
use std::mem;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::connection::{Connection, Phase};
use super::figures::Times;
use super::framing::HEADER_BYTES_MAX;
use super::histogram::Histogram;
use super::ledger::{Ledger, Received};
use super::load::{Handshakes, Load, Progress, Publisher};
use super::poster::Poster;
use super::script::Script;
use crate::config::limits::{
    BENCH_HANDSHAKES_AT_ONCE, BENCH_PATIENCE, BENCH_POLL_GAP, BENCH_READ_BYTES, BENCH_TURN, BENCH_WATCH,
    CTL_ANSWER_TIMEOUT,
};
use crate::ctl::dial;
use crate::ctl::fault::Fault;
use crate::daemon::exit::{Exit, reason};

/// Events taken from the kernel at once.
const EVENTS: usize = 1024;
/// The id of the publisher's connection in the epoll set; the others use their number.
const POSTER: u64 = u64::MAX;

/// The state of a running load.
pub struct Generator<'a> {
    load: &'a Load,
    run: u32,
    epoll: Epoll,
    events: Vec<EpollEvent>,
    connections: Vec<Connection>,
    poster: Option<Poster>,
    /// Expected and received messages.
    pub ledger: Ledger,
    /// The reason why the first prematurely closed connection was closed.
    pub first_closed: Option<String>,
    handshakes: Histogram,
    opened: usize,
    publishing: bool,
    spinning: bool,
    buffer: Vec<u8>,
    began: Instant,
    watch: &'a mut dyn FnMut(Progress),
    watched: u64,
}

impl<'a> Generator<'a> {
    /// Creates a generator without connections.
    pub fn new(load: &'a Load, watch: &'a mut dyn FnMut(Progress)) -> Result<Generator<'a>, Fault> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC);
        let epoll = epoll.map_err(|errno| Fault::io("cannot make an epoll set", &errno.into()))?;
        // Two loads that run at once must be able to distinguish their messages.
        let run = std::process::id() ^ std::time::UNIX_EPOCH.elapsed().map_or(0, |now| now.subsec_nanos());
        let buffer = vec![0; BENCH_READ_BYTES + load.size];
        let script = Script::new(load.framing, run, load.size, load.window);
        let ledger = Ledger::new(script, load.window, buffer.len() - HEADER_BYTES_MAX);
        Ok(Generator {
            load,
            run,
            epoll,
            events: vec![EpollEvent::empty(); EVENTS],
            connections: Vec::with_capacity(load.connections),
            poster: None,
            ledger,
            first_closed: None,
            handshakes: Histogram::default(),
            opened: 0,
            publishing: false,
            spinning: false,
            buffer,
            began: Instant::now(),
            watch,
            watched: 0,
        })
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// The rate and times of the handshakes, which took `seconds` altogether.
    pub fn handshakes_in(&self, seconds: f64) -> Handshakes {
        Handshakes { per_second: self.opened as f64 / seconds, times: Times::of(&self.handshakes) }
    }

    /// Opens all connections, several at once.
    pub fn open_all(&mut self) -> Result<(), Fault> {
        let all = self.load.connections;
        let mut last = (self.opened, self.now());
        while self.opened < all {
            while self.connections.len() < all && self.connections.len() - self.opened < BENCH_HANDSHAKES_AT_ONCE {
                self.begin_connection()?;
            }
            self.turn()?;
            let now = self.now();
            if self.opened > last.0 {
                last = (self.opened, now);
            } else if now - last.1 > CTL_ANSWER_TIMEOUT.as_nanos() as u64 {
                let limit = CTL_ANSWER_TIMEOUT.as_secs();
                return Err(self.refused(&format!("no answer within {limit} s")));
            }
            if now - self.watched > BENCH_WATCH.as_nanos() as u64 {
                self.watched = now;
                (self.watch)(Progress::Opening { opened: self.opened, all });
            }
            if self.load.stop.load(Ordering::Relaxed) {
                return Err(self.refused("interrupted"));
            }
        }
        Ok(())
    }

    fn begin_connection(&mut self) -> Result<(), Fault> {
        let number = self.connections.len();
        let began = self.now();
        let socket = self.load.target.connect(number, self.load.connections, self.run);
        let socket = socket.map_err(|error| self.unreachable(&error))?;
        let tls = self.load.target.encryption().map_err(|error| self.unreachable(&error))?;
        let stream = if matches!(self.load.publisher, Publisher::Echo) { number } else { 0 };
        let connection = Connection::new(socket, tls, self.ledger.join(stream), began);
        let event = EpollEvent::new(EpollFlags::EPOLLOUT, number as u64);
        self.epoll.add(&connection, event).map_err(|errno| self.unreachable(&errno.into()))?;
        self.connections.push(connection);
        Ok(())
    }

    /// The server refused a connection, for the reason `why`.
    fn refused(&self, why: &str) -> Fault {
        let (url, opened, all) = (&self.load.target.url, self.opened, self.load.connections);
        Fault::failed(match opened {
            0 => format!("{url} was not opened: {why}"),
            _ => format!("{url}: {opened} of {all} connections are open, the next one was refused: {why}"),
        })
    }

    /// A connection could not be made, or failed before the response.
    fn unreachable(&self, error: &io::Error) -> Fault {
        let (url, opened, all) = (&self.load.target.url, self.opened, self.load.connections);
        match opened {
            0 => dial::unreachable(url, error),
            _ => {
                let why = reason(error);
                let message = format!("{url}: {opened} of {all} connections are open, the next one failed: {why}");
                Fault::new(Exit::Unavailable, message)
            }
        }
    }

    /// Receives for a while without sending.
    pub fn rest(&mut self, time: Duration) -> Result<(), Fault> {
        let end = self.now() + time.as_nanos() as u64;
        while self.now() < end {
            self.turn()?;
        }
        Ok(())
    }

    /// Messages are sent from now on.
    pub fn begin_publishing(&mut self) {
        self.publishing = true;
        self.spinning = self.load.spin;
    }

    /// Keeps the window full for a while. Returns false if it ended early because no more messages arrived.
    pub fn deliver(&mut self, time: Duration) -> Result<bool, Fault> {
        let end = self.now() + time.as_nanos() as u64;
        let mut reported = (self.ledger.tally.deliveries, self.now());
        let mut last = reported;
        self.publish_all()?;
        loop {
            self.turn()?;
            self.publish()?;
            let (now, deliveries) = (self.now(), self.ledger.tally.deliveries);
            if now >= end && deliveries > 0 {
                return Ok(true);
            }
            if deliveries > last.0 {
                last = (deliveries, now);
            } else if now - last.1 > BENCH_PATIENCE.as_nanos() as u64 {
                return Ok(false);
            }
            if now - self.watched > BENCH_WATCH.as_nanos() as u64 {
                self.watched = now;
                let per_second = (deliveries - reported.0) as f64 * 1e9 / (now - reported.1).max(1) as f64;
                reported = (deliveries, now);
                (self.watch)(Progress::Delivering { per_second, left: Duration::from_nanos(end.saturating_sub(now)) });
            }
            if self.load.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
        }
    }

    /// Stops sending and waits for the messages in flight. Those that do not arrive count as lost.
    pub fn finish(&mut self) -> Result<(), Fault> {
        self.publishing = false;
        let mut last = (self.ledger.in_flight(), self.now());
        while last.0 > 0 && self.now() - last.1 < BENCH_PATIENCE.as_nanos() as u64 {
            self.turn()?;
            let left = self.ledger.in_flight();
            if left != last.0 {
                last = (left, self.now());
            }
        }
        for connection in self.connections.iter_mut().filter(|connection| connection.phase == Phase::Open) {
            self.ledger.give_up(&mut connection.subscriber);
        }
        Ok(())
    }

    /// Handles the events of one wait.
    fn turn(&mut self) -> Result<(), Fault> {
        let wait = if self.spinning { Duration::ZERO } else { BENCH_TURN };
        let mut events = mem::take(&mut self.events);
        let timeout = EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::ZERO);
        let count = match self.epoll.wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            waited => waited.map_err(|errno| Fault::io("cannot wait for the network", &errno.into()))?,
        };
        for event in &events[..count] {
            match event.data() {
                POSTER => self.handle_poster()?,
                number => self.handle_ready(number as usize, event.events())?,
            }
        }
        self.events = events;
        if self.spinning && count < EVENTS / 2 {
            // Polling without a pause would delay the server, whose sends need the same lock in the kernel.
            let until = Instant::now() + BENCH_POLL_GAP;
            while Instant::now() < until {
                std::hint::spin_loop();
            }
        }
        Ok(())
    }

    fn handle_ready(&mut self, number: usize, ready: EpollFlags) -> Result<(), Fault> {
        let connection = &mut self.connections[number];
        match connection.phase {
            Phase::Gone => return Ok(()),
            Phase::Connecting => {
                if let Err(error) = connection.ask(&self.load.target, self.load.framing) {
                    return Err(self.unreachable(&error));
                }
            }
            Phase::Asked | Phase::Open => {
                if ready.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
                    self.read(number)?;
                }
            }
        }
        self.flush(number)
    }

    /// Writes the waiting bytes of a connection. If some remain, the epoll set waits until it is writable.
    fn flush(&mut self, number: usize) -> Result<(), Fault> {
        let connection = &mut self.connections[number];
        if connection.phase == Phase::Gone || (!connection.is_blocked() && !connection.awaits_writable) {
            return Ok(());
        }
        if let Err(error) = connection.flush() {
            return self.handle_error(number, &error);
        }
        let waits = connection.is_blocked();
        if mem::replace(&mut connection.awaits_writable, waits) != waits {
            let mut flags = EpollFlags::EPOLLIN;
            flags.set(EpollFlags::EPOLLOUT, waits);
            let changed = self.epoll.modify(&*connection, &mut EpollEvent::new(flags, number as u64));
            changed.map_err(|errno| Fault::io("cannot change the epoll set", &errno.into()))?;
        }
        Ok(())
    }

    fn read(&mut self, number: usize) -> Result<(), Fault> {
        let now = self.now();
        let connection = &mut self.connections[number];
        let held = connection.held.len();
        let length = match connection.read(&mut self.buffer) {
            Ok(None) => return Ok(()),
            Ok(Some(bytes)) => bytes.len(),
            Err(error) => return self.handle_error(number, &error),
        };
        let mut bytes = &self.buffer[..length];
        let answer;
        if connection.phase == Phase::Asked {
            connection.hold(bytes);
            match connection.take_answer(self.load.framing) {
                Ok(false) => return Ok(()),
                Ok(true) => {}
                Err(why) => return Err(self.refused(&why)),
            }
            self.opened += 1;
            self.handshakes.add(now - connection.began);
            answer = mem::take(&mut connection.held);
            bytes = &answer;
        } else {
            self.ledger.tally.bytes += (length - held) as u64;
        }
        match self.ledger.receive(&mut connection.subscriber, bytes, now, &mut connection.out) {
            Received::Used(used) if used == bytes.len() && held == 0 => {}
            Received::Used(used) => connection.hold(&bytes[used..]),
            Received::Ended(why) => return self.end_session(number, &why),
        }
        match self.load.publisher {
            Publisher::Echo => self.send(number),
            _ => Ok(()),
        }
    }

    /// A connection failed without a close frame.
    fn handle_error(&mut self, number: usize, error: &io::Error) -> Result<(), Fault> {
        match self.connections[number].phase {
            Phase::Open => self.end_session(number, &reason(error)),
            _ => Err(self.unreachable(error)),
        }
    }

    /// A session was ended by the server or by the network.
    fn end_session(&mut self, number: usize, why: &str) -> Result<(), Fault> {
        let connection = &mut self.connections[number];
        if number == 0 && matches!(self.load.publisher, Publisher::Subscriber) {
            return Err(Fault::failed(format!("the publisher's own connection was ended: {why}")));
        }
        connection.phase = Phase::Gone;
        self.ledger.leave(&mut connection.subscriber);
        self.first_closed.get_or_insert_with(|| why.to_owned());
        let gone = self.epoll.delete(&*connection);
        gone.map_err(|errno| Fault::io("cannot change the epoll set", &errno.into()))
    }

    /// Fills the windows for the first time.
    fn publish_all(&mut self) -> Result<(), Fault> {
        match self.load.publisher {
            Publisher::Echo => (0..self.connections.len()).try_for_each(|number| self.send(number)),
            _ => self.publish(),
        }
    }

    /// Sends as many messages as the window allows, if there is one publisher.
    fn publish(&mut self) -> Result<(), Fault> {
        match &self.load.publisher {
            Publisher::Subscriber => self.send(0),
            Publisher::Post(_) => self.post(),
            Publisher::Echo => Ok(()),
        }
    }

    /// Sends on one connection as many messages as the window of its stream allows.
    fn send(&mut self, number: usize) -> Result<(), Fault> {
        let now = self.now();
        let connection = &mut self.connections[number];
        if !self.publishing || connection.is_blocked() || connection.phase != Phase::Open {
            return Ok(());
        }
        let stream = connection.subscriber.stream;
        while let Some(message) = self.ledger.send(stream, now) {
            self.ledger.script.client_frame_into(stream, message, &mut connection.out);
        }
        self.flush(number)
    }

    /// Posts the next message, if the last one was answered and the window allows it.
    fn post(&mut self) -> Result<(), Fault> {
        let Publisher::Post(target) = &self.load.publisher else { return Ok(()) };
        if !self.publishing || self.poster.as_ref().is_some_and(|poster| !poster.is_idle()) {
            return Ok(());
        }
        let poster = match self.poster.take().filter(|poster| !poster.must_reconnect()) {
            Some(poster) => self.poster.insert(poster),
            None => {
                let poster = Poster::new((**target).clone())?;
                // Edge-triggered: for one connection it is cheap to handle every change.
                let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
                let added = self.epoll.add(&poster, EpollEvent::new(flags, POSTER));
                added.map_err(|errno| Fault::io("cannot change the epoll set", &errno.into()))?;
                self.poster.insert(poster)
            }
        };
        let now = self.began.elapsed().as_nanos() as u64;
        let Some(message) = self.ledger.send(0, now) else { return Ok(()) };
        let mut payload = Vec::with_capacity(self.load.size);
        self.ledger.script.payload_into(0, message, &mut payload);
        poster.post(&payload)
    }

    fn handle_poster(&mut self) -> Result<(), Fault> {
        let Some(poster) = &mut self.poster else { return Ok(()) };
        poster.flush()?;
        poster.read(&mut self.buffer)?;
        self.post()
    }
}
