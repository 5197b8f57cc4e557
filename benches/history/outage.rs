//! Many clients that come back at once after an outage, and what the clients that are live meanwhile notice of them.
//!
//! Messages are published at a steady rate. The time of each delivery to each live client is measured: before the others come back,
//! while they receive what they missed, and after. The server has the first processor, the generator the second one. There the thread
//! of those that come back has a lower priority, so that it does not delay those that measure.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::live::{Stream, batch, message};
use crate::subject::Subject;
use crate::{Scale, median, quantile};

const ROUTES: &str = r#"
"/events" = { events = "news", channels = ["all"] }
"/batch" = { publish = "news", batch = true }
"/publish" = { publish = "news", channel = "all" }
"#;
/// The time from one publication to the next.
const INTERVAL: Duration = Duration::from_millis(20);

/// How much lower the priority of the clients that come back is.
const LOWER: i32 = 19;

/// The numbers of a run.
struct Plan {
    clients: usize,
    missed: u64,
    /// How long is measured before the clients come back, and after the last of them is live.
    time: Duration,
}

/// The times of deliveries: before, during and after.
type Phases = [Vec<Duration>; 3];

/// Prints the table.
pub fn run(scale: Scale) {
    let plan = scale.pick(
        Plan { clients: 10, missed: 20, time: Duration::from_millis(100) },
        Plan { clients: 1000, missed: 1000, time: Duration::from_millis(500) },
        Plan { clients: 1000, missed: 1000, time: Duration::from_secs(4) },
    );
    let Plan { clients, missed, .. } = plan;
    println!("\n{clients} clients come back, each {missed} messages of 64 B behind; {clients} are live\n");
    println!(
        "| history | before: p50, p99 ms | during | after | p99 during to before | s until all are live | missed messages/s |"
    );
    println!("|---|---|---|---|---:|---:|---:|");
    for is_durable in [false, true] {
        let (mut rows, mut ratios, mut seconds) = ([const { (Vec::new(), Vec::new()) }; 3], Vec::new(), Vec::new());
        for _ in 0..scale.pick(1, 1, 3) {
            let (mut phases, took) = one(&plan, is_durable);
            let quantiles = phases.each_mut().map(|times| (quantile(times, 0.5), quantile(times, 0.99)));
            for (row, (p50, p99)) in rows.iter_mut().zip(quantiles) {
                row.0.push(p50);
                row.1.push(p99);
            }
            ratios.push(quantiles[1].1 / quantiles[0].1);
            seconds.push(took.as_secs_f64());
        }
        let cells = rows.each_mut().map(|(p50, p99)| format!("{:.2}, {:.2}", median(p50), median(p99)));
        let name = if is_durable { "durable, after a crash" } else { "in memory" };
        let (ratio, seconds) = (median(&mut ratios), median(&mut seconds));
        let rate = clients as f64 * missed as f64 / seconds;
        println!("| {name} | {} | {ratio:.2} | {seconds:.2} | {rate:.0} |", cells.join(" | "));
    }
}

/// One run: the times of deliveries, and how long it took until all clients were live.
fn one(plan: &Plan, is_durable: bool) -> (Phases, Duration) {
    let hub = format!("[hub.news]\nhistory = {{ messages = 10000 }}\ndurable = {is_durable}\n");
    let mut subject = Subject::start_apart(ROUTES, &hub, "100ms", "256MiB");
    let since = subject.publish("/publish", b"before");
    subject.publish_batch("/batch", batch("all", 1, plan.missed).as_bytes());
    if is_durable {
        subject.crash();
    }
    let address = subject.address();
    let phase = Arc::new(AtomicUsize::new(0));
    let ended = Arc::new(AtomicBool::new(false));
    let returning = {
        let (phase, ended) = (phase.clone(), ended.clone());
        let (clients, missed) = (plan.clients, plan.missed);
        let target = format!("/events?since={since}");
        std::thread::spawn(move || {
            come_back(|| Stream::open(address, &target, Some(1)), clients, missed, &phase, &ended)
        })
    };
    let mut live = Live::open(&subject, plan.clients, plan.missed + 1);
    let mut phases = Phases::default();
    let lasts = |time| {
        let until = Instant::now() + time;
        move || Instant::now() < until
    };
    live.publish_while(lasts(plan.time / 4), &phase, &mut Phases::default());
    live.publish_while(lasts(plan.time), &phase, &mut phases);
    phase.store(1, Ordering::SeqCst);
    live.publish_while(|| phase.load(Ordering::SeqCst) == 1, &phase, &mut phases);
    live.publish_while(lasts(plan.time), &phase, &mut phases);
    ended.store(true, Ordering::SeqCst);
    (phases, returning.join().unwrap())
}

/// The clients that come back once `phase` is 1. Sets it to 2 when each of them has what it missed, and returns how long that took.
fn come_back(
    open: impl Fn() -> Stream,
    clients: usize,
    missed: u64,
    phase: &AtomicUsize,
    ended: &AtomicBool,
) -> Duration {
    let thread = rustix::process::Pid::from_raw(nix::unistd::gettid().as_raw());
    let own = rustix::process::getpriority_process(thread).unwrap();
    rustix::process::setpriority_process(thread, (own + LOWER).min(19)).unwrap();
    while phase.load(Ordering::SeqCst) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let began = Instant::now();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let open = |number| {
        let stream = open();
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, number)).unwrap();
        stream
    };
    let mut streams: Vec<Stream> = (0..clients as u64).map(open).collect();
    let mut events = vec![EpollEvent::empty(); 256];
    let mut buffer = vec![0; 256 << 10];
    let (mut left, mut took) = (clients, Duration::ZERO);
    while !ended.load(Ordering::SeqCst) {
        let ready = epoll.wait(&mut events, EpollTimeout::from(20_u8)).unwrap();
        for event in &events[..ready] {
            let stream = &mut streams[event.data() as usize];
            stream.read(&mut buffer, |number| left -= usize::from(number == missed));
        }
        if left == 0 && took.is_zero() {
            took = began.elapsed();
            phase.store(2, Ordering::SeqCst);
        }
    }
    took
}

/// The live clients, and the publisher.
struct Live {
    epoll: Epoll,
    streams: Vec<Stream>,
    publisher: TcpStream,
    request: String,
    /// The number of the first message, and when each of them was sent, in which phase.
    first: u64,
    sent: Vec<(Instant, usize)>,
}

impl Live {
    fn open(subject: &Subject, clients: usize, first: u64) -> Live {
        let address = subject.address();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let open = |number| {
            let stream = Stream::open(address, "/events", None);
            epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, number)).unwrap();
            stream
        };
        let streams = (0..clients as u64).map(open).collect();
        let all = clients as u64;
        crate::common::until_true("all live clients", || subject.metric("pushd_sessions") >= all);
        let publisher = TcpStream::connect(address).unwrap();
        publisher.set_nodelay(true).unwrap();
        publisher.set_nonblocking(true).unwrap();
        let request =
            format!("POST /publish HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n", message(0).len());
        Live { epoll, streams, publisher, request, first, sent: Vec::new() }
    }

    /// Publishes while it `lasts`, and adds the time of each delivery to the phase in which the message was sent.
    fn publish_while(&mut self, lasts: impl Fn() -> bool, phase: &AtomicUsize, phases: &mut Phases) {
        let mut events = vec![EpollEvent::empty(); 1024];
        let mut buffer = vec![0; 64 << 10];
        let mut next = Instant::now();
        let (mut missing, mut is_over) = (0, false);
        // After the end, the last messages are awaited.
        while !is_over || missing > 0 {
            is_over = is_over || !lasts();
            if !is_over && Instant::now() >= next {
                next += INTERVAL;
                missing += self.streams.len();
                self.publish(phase.load(Ordering::SeqCst));
            }
            let ready = self.epoll.wait(&mut events, EpollTimeout::from(1_u8)).unwrap();
            for event in &events[..ready] {
                let (first, sent) = (self.first, &self.sent);
                let now = Instant::now();
                self.streams[event.data() as usize].read(&mut buffer, |number| {
                    let (began, phase) = sent[(number - first) as usize];
                    phases[phase].push(now - began);
                    missing -= 1;
                });
            }
            match self.publisher.read(&mut buffer) {
                Ok(0) => panic!("the publisher's connection ended"),
                Ok(count) => assert!(!buffer[..count].starts_with(b"HTTP/1.1 5"), "refused"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
    }

    fn publish(&mut self, phase: usize) {
        let number = self.first + self.sent.len() as u64;
        self.sent.push((Instant::now(), phase));
        let bytes = format!("{}{}", self.request, message(number));
        self.publisher.write_all(bytes.as_bytes()).unwrap();
    }
}
