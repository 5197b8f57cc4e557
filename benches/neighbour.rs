//! The effect of neighbours on a client: the time from its ping to the pong, while others flood the server, or an
//! operator changes it.
//!
//!     cargo bench --bench neighbour                  each scene for some seconds, about a minute
//!     cargo bench --bench neighbour -- --quick       each for a moment, as a check
//!     PUSHD_BENCH_CONNECTIONS=5000 cargo bench --bench neighbour     fewer than 10,000 idle clients, if the limit of open files is low
//!
//! One client sends a ping one millisecond after each pong, on a hub of its own. The first row is the result when
//! nothing else happens. Compare the other rows with it, because server, flood and neighbour share the processors.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "neighbour/crowd.rs"]
mod crowd;

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::service::Service;
use common::ws::{self, PING, PONG, Ws};
use crowd::Crowd;
use flate2::{Compress, Compression, FlushCompress};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

/// The number of idle clients; PUSHD_BENCH_CONNECTIONS changes it.
const CROWD: usize = 10_000;

fn config(crowd: &str) -> String {
    format!(
        r#"
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/neighbour" = {{ websocket = "own" }}
"/ignore" = {{ websocket = "push", on_message = "ignore" }}
"/echo" = {{ websocket = "push", on_message = "echo" }}
"/logged" = {{ websocket = "push", on_message = "ignore", log = "messages" }}
"/publish/{{channel}}" = {{ publish = "push", channel = "{{channel}}" }}
{crowd}
[hub.own]
[hub.push]
deflate = true
[daemon]
pidfile = "pushd.pid"
"#
    )
}

/// The route of the idle clients.
const ROUTE: &str = "\"/crowd\" = { websocket = \"push\" }";
/// The same with other terms.
const CHANGED: &str = "\"/crowd\" = { websocket = \"push\", on_message = \"echo\" }";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    // Without `--bench`, `cargo test` runs this as a check.
    let (crowd, time) = match (has("--bench"), has("--quick")) {
        (false, _) => (50, Duration::from_millis(50)),
        (true, true) => (CROWD, Duration::from_millis(500)),
        (true, false) => (CROWD, Duration::from_secs(5)),
    };
    let asked = std::env::var("PUSHD_BENCH_CONNECTIONS").ok().and_then(|number| number.parse().ok());
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let crowd = asked.unwrap_or(crowd).min(hard as usize - 1000);
    println!("| scene | pings | p50 ms | p99 ms | longest ms |\n|---|---:|---:|---:|---:|");
    floods(time);
    operator(crowd, time);
}

/// Clients that send the same bytes again and again.
struct Scene<'b> {
    name: &'static str,
    path: &'static str,
    clients: usize,
    bytes: &'b [u8],
    /// The bytes they send each second altogether; `None` for as many as the server accepts.
    rate: Option<usize>,
}

/// Clients that send too much.
fn floods(time: Duration) {
    let empty = [0x81, 0x80, 0, 0, 0, 0].repeat(8 << 10);
    let bombs = bomb().repeat(64);
    let scene = |name, path, clients, bytes, rate| Scene { name, path, clients, bytes, rate };
    let scenes: [Scene<'_>; 8] = [
        scene("nothing else", "/ignore", 0, &[], None),
        scene("500 flood empty messages", "/ignore", 500, &empty, None),
        scene("2000 flood empty messages", "/ignore", 2000, &empty, None),
        scene("100 flood an echo", "/echo", 100, &empty, None),
        scene("200 flood, and are logged", "/logged", 200, &empty, None),
        scene("one sends 2 MB/s of bombs to an echo", "/echo", 1, &bombs, Some(2_000_000)),
        scene("100 send bombs", "/ignore", 100, &bombs, None),
        scene("100 send bombs, and are logged", "/logged", 100, &bombs, None),
    ];
    for Scene { name, path, clients, bytes, rate } in scenes {
        let mut service = Service::started(&config(ROUTE));
        let neighbour = Neighbour::start(service.address());
        let flood = Flood::start(service.address(), path, clients, bytes, rate);
        std::thread::sleep(time / 4);
        neighbour.begin();
        std::thread::sleep(time);
        neighbour.report(name);
        drop(neighbour);
        flood.end();
        // The shutdown is not measured.
        service.kill();
    }
}

/// Commands of an operator, while there are many idle clients.
fn operator(count: usize, time: Duration) {
    let mut service = Service::started(&config(ROUTE));
    let crowd = Crowd::open(service.address(), "/crowd", count);
    let neighbour = Neighbour::start(service.address());
    let scene = |name: &str, service: &mut Service, act: &mut dyn FnMut(&mut Service)| {
        std::thread::sleep(time / 10);
        neighbour.begin();
        act(service);
        std::thread::sleep(time / 2);
        neighbour.report(&name.replace("N", &count.to_string()));
    };
    scene("N idle", &mut service, &mut |_| {});
    let mut publisher = TcpStream::connect(service.address()).unwrap();
    scene("a message to N, ten times a second", &mut service, &mut |service| {
        let until = Instant::now() + time / 2;
        while Instant::now() < until {
            let message = common::http::request(service.address(), "POST", "/publish/all", &[], b"hello");
            publisher.write_all(&message).unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    drop(publisher);
    scene("a reload, N are rebound", &mut service, &mut |service| drop(service.reload(&config(CHANGED))));
    scene("a restart, N are handed over", &mut service, &mut |service| service.restart());
    scene("a reload, N are closed", &mut service, &mut |service| drop(service.reload(&config(""))));
    crowd.end();
    drop(service.reload(&config(ROUTE)));
    let crowd = Crowd::open(service.address(), "/crowd", count);
    std::thread::sleep(time / 10);
    neighbour.begin();
    service.signal(Signal::SIGTERM);
    assert_eq!(service.wait(), 0, "{}", service.log());
    neighbour.report(&format!("an end, {count} are closed; until its own"));
    crowd.end();
}

/// The client that sends pings.
struct Neighbour {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    times: std::sync::Mutex<Vec<Duration>>,
    ended: AtomicBool,
}

impl Neighbour {
    fn start(address: SocketAddr) -> Neighbour {
        let shared = Arc::<Shared>::default();
        let own = shared.clone();
        let mut client = Ws::open(address, "/neighbour");
        let thread = std::thread::spawn(move || {
            while !own.ended.load(Ordering::Relaxed) {
                let began = Instant::now();
                client.send(PING, b"?");
                let (first, _) = client.next();
                if first != PONG {
                    return;
                }
                own.times.lock().unwrap().push(began.elapsed());
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Neighbour { shared, thread: Some(thread) }
    }

    fn begin(&self) {
        self.shared.times.lock().unwrap().clear();
    }

    fn report(&self, scene: &str) {
        let mut times = std::mem::take(&mut *self.shared.times.lock().unwrap());
        times.sort_unstable();
        let at = |part: f64| match times.len() {
            0 => f64::NAN,
            count => times[((count - 1) as f64 * part) as usize].as_secs_f64() * 1e3,
        };
        println!("| {scene} | {} | {:.2} | {:.2} | {:.2} |", times.len(), at(0.5), at(0.99), at(1.0));
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Clients that send the same bytes again and again, as fast as the server accepts them or at a given rate.
struct Flood {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Flood {
    fn start(address: SocketAddr, path: &str, clients: usize, bytes: &[u8], rate: Option<usize>) -> Flood {
        let mut streams: Vec<TcpStream> = (0..clients).map(|_| crowd::open(address, path)).collect();
        let (ended, bytes) = (Arc::<AtomicBool>::default(), bytes.to_vec());
        let stop = ended.clone();
        let thread = std::thread::spawn(move || {
            // The offset of each stream in the bytes it sends.
            let mut offsets = vec![0; streams.len()];
            let mut sink = [0; 64 << 10];
            let (began, mut sent) = (Instant::now(), 0);
            while !stop.load(Ordering::Relaxed) {
                let mut moved = false;
                for (stream, offset) in streams.iter_mut().zip(&mut offsets) {
                    while matches!(std::io::Read::read(stream, &mut sink), Ok(1..)) {}
                    let allowed =
                        rate.map_or(usize::MAX, |rate| (began.elapsed().as_secs_f64() * rate as f64) as usize);
                    if sent >= allowed {
                        continue;
                    }
                    match stream.write(&bytes[*offset..]) {
                        Ok(count) => {
                            *offset = (*offset + count) % bytes.len();
                            sent += count;
                            moved = true;
                        }
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        // It was closed because of its flood, and connects again.
                        Err(_) => {
                            *stream = crowd::open(address, "/ignore");
                            *offset = 0;
                        }
                    }
                }
                if !moved {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Flood { ended, thread }
    }

    fn end(self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
    }
}

/// A small frame that inflates to 64 KiB.
fn bomb() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4096);
    let mut deflate = Compress::new(Compression::best(), false);
    deflate.compress_vec(&[b'x'; 64 << 10], &mut bytes, FlushCompress::Sync).unwrap();
    let body = bytes.strip_suffix(&[0, 0, 0xff, 0xff]).unwrap();
    ws::frame(0xc1, body)
}
