//! A storm of clients: many connect at once, stay or leave, and come again. Measures the cost of each, and the memory
//! that remains.
//!
//!     cargo bench --bench storm                                10,000 clients, 512 at a time, four times over
//!     cargo bench --bench storm -- --quick                     less of everything, as a check
//!     cargo bench --bench storm -- --beside 'NAME=COMMAND {port}'   another server too
//!     PUSHD_BENCH_BINARY=PATH cargo bench --bench storm        with this executable of pushd instead of the one just built
//!
//! Each server is started for the run and goes through the same steps. A few clients trigger what is allocated only
//! once. In each of four rounds, all clients connect, stay idle while the memory is read, and leave. Then a million
//! clients connect and leave at once. On pushd, a burst of the largest messages to eight subscribers follows. Memory is
//! the private memory of the process (`Private_Dirty`), so pages of the executable do not count.

// The other benchmark uses more of these modules than this one.
#[allow(dead_code)]
#[path = "fan_out/floor.rs"]
mod floor;
#[path = "fan_out/processors.rs"]
mod processors;
#[allow(dead_code)]
#[path = "fan_out/server.rs"]
mod server;

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

use pushd::ctl::bench::process::cpu;
use socket2::SockRef;

use processors::{pin, two_processors};
use server::{Kind, Server};

/// How many clients a server has served before its memory is read for the first time.
const WARM_UP: usize = 16;
/// Bytes of a message in the burst (the largest possible `message_max`), and the number of messages.
const LARGE_BYTES: usize = 64 << 20;
const LARGE_MESSAGES: usize = 4;
const LARGE_SUBSCRIBERS: usize = 8;
/// How long a server may take to notice that its clients have gone, and to free their memory.
const SETTLE: Duration = Duration::from_millis(1500);
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// The parameters of a run.
struct Plan {
    clients: usize,
    at_once: usize,
    rounds: usize,
    short_lived: usize,
    large: bool,
}

/// The results for one server.
struct Results {
    /// Bytes for each idle client, and CPU time for each handshake, round by round.
    rounds: Vec<(f64, f64)>,
    /// The additional memory, in bytes: after all clients have left, after the million, after the burst.
    left: f64,
    left_by_short_lived: f64,
    left_by_large: Option<f64>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [serve, kind] = &arguments[..]
        && serve == "--serve"
    {
        return floor::main(kind == "coalesce");
    }
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    // Without `--bench`, `cargo test` runs this as a check.
    let plan = match (has("--bench"), has("--quick")) {
        (false, _) => Plan { clients: 64, at_once: 32, rounds: 2, short_lived: 64, large: false },
        (true, true) => Plan { clients: 2000, at_once: 512, rounds: 2, short_lived: 20_000, large: true },
        (true, false) => Plan { clients: 10_000, at_once: 512, rounds: 4, short_lived: 1_000_000, large: true },
    };
    let besides = arguments.windows(2).filter(|words| words[0] == "--beside");
    let besides = besides.filter_map(|words| Kind::beside(&words[1]));
    match run(&plan, [Kind::Send, Kind::Pushd].into_iter().chain(besides)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("storm: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &Plan, kinds: impl Iterator<Item = Kind>) -> Result<(), String> {
    floor::raise_descriptors().map_err(|error| error.to_string())?;
    let Plan { clients, at_once, rounds, short_lived, .. } = plan;
    println!("{clients} clients, {at_once} at a time, {rounds} rounds; {short_lived} that come and go\n");
    println!(
        "| server | B/client, by round | CPU µs/handshake, by round | KiB left | after the short-lived | after the large |"
    );
    println!("|---|---|---|---:|---:|---:|");
    for kind in kinds {
        let seen = one(plan, &kind).map_err(|error| format!("{}: {error}", kind.name()))?;
        let column = |figure: fn(&(f64, f64)) -> f64, digits: usize| {
            let figures = seen.rounds.iter().map(|round| format!("{:.digits$}", figure(round)));
            figures.collect::<Vec<_>>().join(", ")
        };
        let kib = |bytes: f64| format!("{:.0}", bytes / 1024.0);
        println!(
            "| {} | {} | {} | {} | {} | {} |",
            kind.name(),
            column(|round| round.0, 0),
            column(|round| round.1, 1),
            kib(seen.left),
            kib(seen.left_by_short_lived),
            seen.left_by_large.map_or("-".to_owned(), kib),
        );
    }
    Ok(())
}

fn one(plan: &Plan, kind: &Kind) -> Result<Results, Box<dyn std::error::Error>> {
    let processors = two_processors();
    pin(processors.map(|(server, _)| server))?;
    let server = Server::start(kind)?;
    pin(processors.map(|(_, generator)| generator))?;
    let mut open = Vec::with_capacity(plan.clients);
    storm(&server, "/", &mut open, WARM_UP, WARM_UP)?;
    leave(&mut open);
    let beginning = held(&server)?;
    let beyond = |bytes: u64| bytes as f64 - beginning as f64;
    let mut rounds = Vec::new();
    for _ in 0..plan.rounds {
        let before = cpu(server.pid()).ok_or("it is gone")?;
        storm(&server, "/", &mut open, plan.clients, plan.at_once)?;
        let spent = cpu(server.pid()).ok_or("it is gone")? - before;
        std::thread::sleep(SETTLE);
        let clients = plan.clients as f64;
        rounds.push((beyond(held(&server)?) / clients, spent as f64 / 1000.0 / clients));
        leave(&mut open);
    }
    let left = beyond(held(&server)?);
    for _ in 0..plan.short_lived.div_ceil(plan.at_once) {
        storm(&server, "/", &mut open, plan.at_once, plan.at_once)?;
        open.clear();
    }
    leave(&mut open);
    let left_by_short_lived = beyond(held(&server)?);
    let left_by_large = match plan.large && *kind == Kind::Pushd {
        true => {
            large(&server)?;
            Some(beyond(held(&server)?))
        }
        false => None,
    };
    Ok(Results { rounds, left, left_by_short_lived, left_by_large })
}

/// Opens sessions up to the number `clients`, in batches: all of a batch connect, then all send a request, then all
/// receive the response.
fn storm(server: &Server, path: &str, open: &mut Vec<TcpStream>, clients: usize, at_once: usize) -> io::Result<()> {
    let request = request(server, path);
    while open.len() < clients {
        let begun = open.len();
        for _ in begun..clients.min(begun + at_once) {
            let stream = TcpStream::connect(&server.address)?;
            stream.set_read_timeout(Some(READ_TIMEOUT))?;
            // Close without TIME_WAIT: otherwise the ports would run out during a million connections.
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            open.push(stream);
        }
        for stream in &mut open[begun..] {
            stream.write_all(&request)?;
        }
        open[begun..].iter_mut().try_for_each(expect_upgrade)?;
    }
    Ok(())
}

fn request(server: &Server, path: &str) -> Vec<u8> {
    // About what a browser sends.
    format!(
        "GET {path} HTTP/1.1\r\nHost: {0}\r\nConnection: Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
         Upgrade: websocket\r\nOrigin: http://{0}\r\nSec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
         Accept-Language: en-GB,en;q=0.9\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n",
        server.address
    )
    .into_bytes()
}

fn expect_upgrade(stream: &mut TcpStream) -> io::Result<()> {
    let (mut answer, mut length) = ([0; 1024], 0);
    while !answer[..length].ends_with(b"\r\n\r\n") {
        match stream.read(&mut answer[length..])? {
            0 => break,
            count => length += count,
        }
    }
    match answer.starts_with(b"HTTP/1.1 101 ") {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&answer[..length]).into_owned())),
    }
}

/// Closes all clients, and waits until the server has noticed.
fn leave(open: &mut Vec<TcpStream>) {
    open.clear();
    std::thread::sleep(SETTLE);
}

/// One client sends the largest possible messages, and all subscribers receive them.
fn large(server: &Server) -> io::Result<()> {
    let mut open = Vec::new();
    storm(server, "/large", &mut open, LARGE_SUBSCRIBERS + 1, LARGE_SUBSCRIBERS + 1)?;
    std::thread::scope(|scope| {
        let expected = LARGE_MESSAGES * (LARGE_BYTES + 10);
        let mut publisher = open.pop().ok_or(io::ErrorKind::NotFound)?;
        let subscribers: Vec<_> = open.iter_mut().map(|stream| scope.spawn(move || drain(stream, expected))).collect();
        let mut own_copy = publisher.try_clone()?;
        let own = scope.spawn(move || drain(&mut own_copy, expected));
        let mut frame = vec![0x82, 0xff];
        frame.extend((LARGE_BYTES as u64).to_be_bytes());
        // A mask of zeros leaves the payload unchanged.
        frame.extend([0; 4]);
        frame.resize(frame.len() + LARGE_BYTES, b'x');
        for _ in 0..LARGE_MESSAGES {
            publisher.write_all(&frame)?;
        }
        let mut ended = subscribers.into_iter().chain([own]).map(std::thread::ScopedJoinHandle::join);
        ended.try_for_each(|read| read.map_err(|_| io::Error::other("a subscriber panicked"))?)
    })?;
    leave(&mut open);
    Ok(())
}

/// Reads this number of bytes.
fn drain(stream: &mut TcpStream, mut left: usize) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    while left > 0 {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::Error::other(format!("ended {left} bytes early")));
        }
        left = left.saturating_sub(count);
    }
    Ok(())
}

/// The private memory of the process, in bytes.
fn held(server: &Server) -> io::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", server.pid()))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Private_Dirty:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or(io::ErrorKind::InvalidData.into())
}
