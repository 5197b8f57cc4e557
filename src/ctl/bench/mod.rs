//! `pushctl bench`: how fast a server delivers, and whether it delivers everything.
//!
//! ```text
//! load       open, wait, warm up, count, finish; the results
//!   generator  one thread, one epoll set
//!     target     where to connect, and from where   connection  handshake, bytes received and sent
//!     ledger     expected and received messages     poster      the publisher over HTTP
//!     script     the content of the messages        framing     WebSockets and event streams
//!     histogram  times
//!   process    processor time and memory of the server
//! report     the table, the progress line, JSON
//! ```
//!
//! There is no async runtime here, because its cost would be measured, too. `benches/fan_out.rs` uses the same
//! [`measure`].

mod answer;
mod connection;
mod figures;
mod framing;
mod generator;
mod histogram;
mod ledger;
mod load;
mod poster;
pub mod process;
mod report;
mod script;
mod target;

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use signal_hook::consts::SIGINT;

pub use figures::{Cost, Faults, Figures, Times};
pub use framing::Framing;
pub use load::{Load, Progress, Publisher, measure};
pub use target::Target;

use super::fault::Fault;
use super::url::Url;
use super::{FAILED, Outcome, duration, notice, print};
use crate::config;
use crate::config::limits::{
    BENCH_CONNECTIONS_MAX, BENCH_DURATION_MAX, BENCH_MESSAGE_BYTES_MAX, BENCH_WINDOW_BYTES_MAX, BENCH_WINDOW_MAX,
};
use crate::daemon::exit::Exit;
use script::MARKER_BYTES;

const EXAMPLES: &str = "\
Examples:
  pushctl bench --connections 1000 ws://127.0.0.1:8888/chat/a  broadcast to all
  pushctl bench --publish http://127.0.0.1:8888/publish/all \\
      ws://127.0.0.1:8888/ws
  pushctl bench --echo ws://127.0.0.1:8888/echo                each its own
  pushctl bench --events --publish http://127.0.0.1:8888/publish/all \\
      http://127.0.0.1:8888/events                             event streams
  pushctl bench --pid \"$(cat pushd.pid)\" --json ws://127.0.0.1:8888/chat/a

A closed loop: at most W messages are not yet delivered to all subscribers. With 1 this measures one message at a time, \
with 64 what a busy channel can carry. Every delivery is compared with what was sent. The exit code is 1 if one was \
lost, duplicated, reordered or changed, or if the server ended a connection.

Use it only on your own server. On any other server it is an attack.";

/// Measure a route of WebSockets or event streams: connections, deliveries a second, latency, and whether anything is lost
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Bench {
    /// How many subscribers
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = connections)]
    connections: usize,

    /// Bytes of each message, as in 64 or 1KiB
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = size)]
    size: usize,

    /// How many messages may be on their way at once; with --echo, for each connection
    #[arg(long, value_name = "W", default_value_t = 1, value_parser = window)]
    window: usize,

    /// How long deliveries are counted, as in 500ms, 10s, 2m; a bare number is in seconds
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = how_long)]
    duration: Duration,

    /// Post the messages to this publish route, one after the other [default: the first subscriber sends them]
    #[arg(long, value_name = "URL", conflicts_with = "echo")]
    publish: Option<Url>,

    /// Each subscriber sends its own messages and receives them back
    #[arg(long)]
    echo: bool,

    /// The subscribers are event streams; requires --publish, because no messages can be sent on them
    #[arg(long, conflicts_with = "echo")]
    events: bool,

    /// The server's process on this machine: adds what it costs
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,

    /// Never sleep while deliveries are counted: takes a processor, and spares the server the time to wake this program
    #[arg(long)]
    spin: bool,

    /// Print the figures as JSON
    #[arg(long)]
    json: bool,

    /// The route of the subscribers, as in ws://127.0.0.1:8888/chat/a
    url: Url,
}

impl Bench {
    pub fn run(&self) -> Outcome {
        if self.size * self.window > BENCH_WINDOW_BYTES_MAX {
            let most = BENCH_WINDOW_BYTES_MAX >> 20;
            let message = format!("--size times --window is more than {most} MiB: take less of one of them");
            return Err(Fault::new(Exit::Usage, message));
        }
        if self.events && self.publish.is_none() {
            let message = "--events requires --publish URL, because no messages can be sent on event streams";
            return Err(Fault::new(Exit::Usage, message));
        }
        if self.publish.as_ref().is_some_and(|url| url.tls) {
            let message = "--publish cannot use TLS: name a plain address of the same server";
            return Err(Fault::new(Exit::Usage, message));
        }
        let load = self.load()?;
        let targets = [Some(&load.target), posted(&load.publisher)].into_iter().flatten();
        for target in targets.filter(|target| !target.is_here()) {
            let address = &target.url.address;
            notice(&format!("{address} is another machine: put load only on what is yours, with its owner's consent"));
        }
        let mut line = report::Line::new(std::io::stderr().is_terminal());
        let measured = measure(&load, &mut |progress| line.show(progress));
        line.clear();
        let figures = measured?;
        print(&if self.json { report::json(&figures) } else { report::table(&figures, &self.url.to_string()) })?;
        if !figures.faults.is_none() {
            notice(&(report::faults(&figures) + self.hint(&figures)));
            return Ok(FAILED);
        }
        Ok(Exit::Clean.code())
    }

    /// A hint if everything is wrong: the route may be of the other kind.
    fn hint(&self, figures: &Figures) -> &'static str {
        let found = figures.faults;
        match (self.echo, &self.publish) {
            (true, _) if found.corrupt > 0 => {
                "; subscribers received messages of others: for a route that broadcasts leave out --echo"
            }
            (false, None) if found.lost > 0 && figures.deliveries == 0 => {
                "; not every subscriber received messages: for a route that echoes add --echo"
            }
            _ => "",
        }
    }

    fn load(&self) -> Result<Load, Fault> {
        let stop = Arc::new(AtomicBool::new(false));
        // The first Ctrl-C ends the measurement, the second one the program.
        let second = signal_hook::flag::register_conditional_default(SIGINT, stop.clone());
        let first = second.and_then(|_| signal_hook::flag::register(SIGINT, stop.clone()));
        first.map_err(|error| Fault::io("cannot install a signal handler", &error))?;
        Ok(Load {
            target: Target::new(&self.url)?,
            framing: if self.events { Framing::EventStream } else { Framing::WebSocket },
            publisher: match &self.publish {
                _ if self.echo => Publisher::Echo,
                Some(url) => Publisher::Post(Box::new(Target::new(url)?)),
                None => Publisher::Subscriber,
            },
            connections: self.connections,
            size: self.size,
            window: self.window,
            duration: self.duration,
            pid: self.pid,
            spin: self.spin,
            stop,
        })
    }
}

fn posted(publisher: &Publisher) -> Option<&Target> {
    match publisher {
        Publisher::Post(target) => Some(target),
        Publisher::Subscriber | Publisher::Echo => None,
    }
}

fn connections(text: &str) -> Result<usize, String> {
    between(text, 1, BENCH_CONNECTIONS_MAX)
}

fn window(text: &str) -> Result<usize, String> {
    between(text, 1, BENCH_WINDOW_MAX)
}

fn size(text: &str) -> Result<usize, String> {
    let size = config::size(text)?;
    match usize::try_from(size) {
        Ok(size) if size < MARKER_BYTES => {
            Err(format!("at least {MARKER_BYTES} bytes, because each message contains its number"))
        }
        Ok(size) if size <= BENCH_MESSAGE_BYTES_MAX => Ok(size),
        _ => Err(format!("at most {} MiB", BENCH_MESSAGE_BYTES_MAX >> 20)),
    }
}

fn how_long(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    let possible = Duration::from_millis(100)..=BENCH_DURATION_MAX;
    if possible.contains(&time) { Ok(time) } else { Err("from 100ms to 24h".to_owned()) }
}

fn between(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("a number from {least} to {most}"))
}
