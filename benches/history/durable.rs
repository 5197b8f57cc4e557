//! Durable publications: how many a second are acknowledged, beside the floor (see `floor`) and beside Redis Streams.
//!
//! Servers and generator share all processors. Each publisher waits for the answer to its request before it sends the next one.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pushd::ctl::bench::process::{busy, cpu};

use crate::publishers::{self, Load, Protocol};
use crate::server::{Kind, Server};
use crate::subject::{Subject, directory};
use crate::{Scale, disk, median, quantile};

const PUBLISHERS: usize = 64;
const SIZE: usize = 256;
/// Messages in a request.
const BATCHES: [usize; 2] = [1, 100];
/// How many messages are kept of each channel. So few that old messages are deleted while it is measured.
const KEPT: usize = 1000;
/// How the servers sync: the words of pushd and those of Redis.
const SYNCS: [(&str, &str); 2] = [("100ms", "everysec"), ("always", "always")];
const ROUTES: &str = r#"
"/publish/{channel}" = { publish = "news", channel = "{channel}" }
"/batch" = { publish = "news", batch = true }
"#;

/// A server to measure.
#[derive(Debug, Clone, Copy)]
enum Row<'a> {
    Floor,
    Pushd,
    Redis(&'a str),
}

/// The figures of one run.
#[derive(Debug, Default, Clone)]
struct Figures {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Processor time of the server for each message.
    cpu_us: f64,
    /// The processors that the server, this program and others used.
    server: f64,
    own: f64,
    others: f64,
    /// Messages for each commit, where it is known.
    per_commit: f64,
}

/// Prints the tables.
pub fn run(scale: Scale, redis: Option<&str>) {
    let repetitions = scale.pick(1, 1, 3);
    let rows: Vec<Row<'_>> = [Row::Floor, Row::Pushd].into_iter().chain(redis.map(Row::Redis)).collect();
    for syncs in SYNCS {
        for messages in BATCHES {
            let load = Load {
                publishers: scale.pick(4, PUBLISHERS, PUBLISHERS),
                messages,
                size: SIZE,
                kept: KEPT,
                warm_up: scale.pick(Duration::ZERO, Duration::from_millis(200), Duration::from_secs(2)),
                duration: Duration::from_millis(scale.pick(50, 500, 5000)),
            };
            let mut runs = vec![Vec::new(); rows.len()];
            for _ in 0..repetitions {
                for (row, runs) in rows.iter().zip(&mut runs) {
                    runs.push(one(*row, syncs, &load));
                }
            }
            table(syncs, &load, &rows, &runs);
        }
    }
    disk::run(scale, &[SIZE, PUBLISHERS * SIZE, 100 * SIZE, PUBLISHERS * 100 * SIZE]);
}

fn one(row: Row<'_>, syncs: (&str, &str), load: &Load) -> Figures {
    match row {
        Row::Floor => {
            let floor = Floor::start(syncs.0);
            measure(floor.address, floor.child.id(), Protocol::Http, load)
        }
        Row::Redis(command) => {
            let place = directory();
            let command = format!("env TMPDIR={} {}", place.path().display(), command.replace("{sync}", syncs.1));
            let server = Server::start(&Kind::Beside("redis".to_owned(), command)).unwrap();
            measure(server.address.parse().unwrap(), server.pid(), Protocol::Redis, load)
        }
        Row::Pushd => {
            let hub = format!("[hub.news]\nhistory = {{ messages = {KEPT} }}\ndurable = true\n");
            let subject = Subject::start(ROUTES, &hub, syncs.0, "1GiB");
            let before = offset(&subject.publish("/publish/last", b"before"));
            let commits = subject.metric("pushd_store_commits_total");
            let (figures, all) = measure_all(subject.address(), subject.pid(), Protocol::Http, load);
            let commits = subject.metric("pushd_store_commits_total") - commits;
            let after = offset(&subject.publish("/publish/last", b"after"));
            assert_eq!(after - before - 1, all, "each acknowledged message has a position, and nothing else has one");
            Figures { per_commit: if commits == 0 { f64::NAN } else { all as f64 / commits as f64 }, ..figures }
        }
    }
}

/// The offset of a position.
fn offset(position: &str) -> u64 {
    let (_, offset) = position.split_once('-').unwrap();
    u64::from_str_radix(offset, 36).unwrap()
}

fn measure(address: SocketAddr, pid: u32, protocol: Protocol, load: &Load) -> Figures {
    measure_all(address, pid, protocol, load).0
}

/// The figures, and how many messages were acknowledged altogether.
fn measure_all(address: SocketAddr, pid: u32, protocol: Protocol, load: &Load) -> (Figures, u64) {
    let mut spent = Vec::new();
    let mut measured = publishers::run(address, protocol, load, &mut || {
        spent.push([cpu(pid), cpu(std::process::id()), busy()].map(|time| time.unwrap_or(0) as f64 / 1e9));
    });
    let [server, own, all] = [0, 1, 2].map(|which| (spent[1][which] - spent[0][which]).max(0.0));
    let (messages, seconds) = (measured.messages as f64, measured.seconds);
    let figures = Figures {
        per_second: messages / seconds,
        p50_ms: quantile(&mut measured.times, 0.5),
        p99_ms: quantile(&mut measured.times, 0.99),
        cpu_us: server * 1e6 / messages,
        server: server / seconds,
        own: own / seconds,
        others: (all - server - own).max(0.0) / seconds,
        per_commit: f64::NAN,
    };
    (figures, measured.all)
}

fn table(syncs: (&str, &str), load: &Load, rows: &[Row<'_>], runs: &[Vec<Figures>]) {
    let Load { publishers, messages, size, .. } = load;
    let how = if *messages == 1 { "one by one".to_owned() } else { format!("{messages} in a request") };
    println!("\n{publishers} publishers, {size} B, {how}, sync = \"{}\" (Redis: {})\n", syncs.0, syncs.1);
    println!(
        "| server | messages/s | to floor | p50 ms | p99 ms | CPU µs/message | messages/commit | processors: server | generator | others |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for (row, own) in rows.iter().zip(runs) {
        let of = |figure: fn(&Figures) -> f64| median(&mut own.iter().map(figure).collect::<Vec<_>>());
        let pairs = own.iter().zip(&runs[0]).map(|(own, floor)| own.per_second / floor.per_second);
        let name = match row {
            Row::Floor => "floor: group commit",
            Row::Pushd => "pushd",
            Row::Redis(_) => "Redis Streams",
        };
        println!(
            "| {name} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {:.2} | {:.2} | {:.2} |",
            of(|run| run.per_second),
            median(&mut pairs.collect::<Vec<_>>()),
            of(|run| run.p50_ms),
            of(|run| run.p99_ms),
            of(|run| run.cpu_us),
            of(|run| run.per_commit),
            of(|run| run.server),
            of(|run| run.own),
            own.iter().map(|run| run.others).fold(0.0, f64::max),
        );
    }
}

/// This executable as the floor.
struct Floor {
    child: Child,
    address: SocketAddr,
}

impl Floor {
    fn start(sync: &str) -> Floor {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.args(["--serve", sync]).stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Floor { child, address: address.trim().parse().unwrap() }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}
