//! How many system calls a running pushd makes for a delivery: one write for each subscriber, however many publications come together,
//! and a few calls more for the whole batch.
//!
//! All threads of the process are traced (ptrace(2)), and each system call is counted where it begins. No other program is needed, and
//! containers allow a process to trace its own child. Batches follow each other without a pause, and their total is divided, so a timer
//! that expires in between does not matter.

mod common;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use common::http::{Answer, request};
use common::wire::Wire;
use common::ws::{self, TEXT, Ws};
use common::{PLAIN, Pushd, start};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What is published.
const MESSAGE: &str = "twenty bytes of text";
/// How many subscribers each publication has.
const SUBSCRIBERS: usize = 100;
/// Publications of a batch.
const BATCH: usize = 64;
/// How many batches are counted.
const BATCHES: usize = 50;
/// Calls for a batch that are not writes to sockets. A shard reads the batch, and waits in two epoll sets: its runtime's and its own.
/// These are three. Two more are allowed, because a busy machine may wake the shard twice for one batch.
const OTHERS_MAX: usize = 5;
/// The same with two shards: they send each other at most three messages (the request to the channel's owner, the publication to the other
/// shard, the count of its subscribers back). Each takes a write that wakes the shard, and waits there. Five to seven were measured.
const OTHERS_MAX_2_SHARDS: usize = 11;

/// System calls by number.
#[derive(Default)]
struct Calls(BTreeMap<i64, usize>);

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, count) in &self.0 {
            write!(f, "{}: {count}, ", name(*number))?;
        }
        write!(f, "in {BATCHES} batches")
    }
}

/// The name of a system call that is likely here; of others, the number.
fn name(number: i64) -> String {
    let names = [
        (libc::SYS_read, "read"),
        (libc::SYS_write, "write"),
        (libc::SYS_writev, "writev"),
        (libc::SYS_recvfrom, "recvfrom"),
        (libc::SYS_sendto, "sendto"),
        (libc::SYS_sendmsg, "sendmsg"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_epoll_wait, "epoll_wait"),
        (libc::SYS_epoll_pwait, "epoll_pwait"),
        (libc::SYS_epoll_ctl, "epoll_ctl"),
        (libc::SYS_futex, "futex"),
    ];
    let found = names.iter().find(|(known, _)| *known == number);
    found.map_or_else(|| format!("call {number}"), |(_, name)| (*name).to_owned())
}

/// A running pushd whose system calls are being counted.
struct Counting {
    is_over: Arc<AtomicBool>,
    tracer: JoinHandle<Calls>,
}

impl Counting {
    /// Counts from now on.
    fn begin(pushd: &Pushd) -> Counting {
        let is_over = Arc::new(AtomicBool::new(false));
        let (until, (ready, is_ready), process) = (is_over.clone(), mpsc::channel(), pushd.pid());
        // A thread of its own: the kernel detaches what a thread traces when the thread ends.
        let tracer = thread::spawn(move || {
            seize(process);
            ready.send(()).unwrap();
            trace(&until)
        });
        is_ready.recv().expect("pushd can be traced");
        Counting { is_over, tracer }
    }

    /// Counts no longer. `client` gives pushd something to do, because the tracer waits for a system call.
    fn end(self, client: &mut Ws) -> Calls {
        self.is_over.store(true, Ordering::Relaxed);
        client.expect_nothing();
        self.tracer.join().unwrap()
    }
}

/// Traces all threads of a process.
fn seize(process: Pid) {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    for entry in threads {
        let thread = Pid::from_raw(entry.unwrap().file_name().to_str().unwrap().parse().unwrap());
        ptrace::seize(thread, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE).unwrap();
        ptrace::interrupt(thread).unwrap();
    }
}

/// Counts the system calls of all threads that this thread traces.
fn trace(is_over: &AtomicBool) -> Calls {
    let mut calls = Calls::default();
    // Of this thread's children only: another test's are not its business.
    let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    while !is_over.load(Ordering::Relaxed) {
        let (thread, signal) = match waitpid(None, Some(flags)) {
            Ok(WaitStatus::PtraceSyscall(thread)) => {
                calls.note(thread);
                (thread, None)
            }
            Ok(WaitStatus::Stopped(thread, signal)) => (thread, Some(signal)),
            Ok(WaitStatus::PtraceEvent(thread, ..)) => (thread, None),
            Ok(_) => continue,
            // It was killed.
            Err(Errno::ECHILD) => break,
            Err(error) => panic!("waitpid: {error}"),
        };
        match ptrace::syscall(thread, signal) {
            Ok(()) | Err(Errno::ESRCH) => (),
            Err(error) => panic!("ptrace: {error}"),
        }
    }
    calls
}

impl Calls {
    /// Counts the call that a thread begins; one that ends was counted already.
    fn note(&mut self, thread: Pid) {
        let Ok(info) = ptrace::syscall_info(thread) else { return };
        if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            #[allow(unsafe_code, reason = "the C library has what differs between stops as a union")]
            // SAFETY: at the begin of a system call the kernel fills this part of the union.
            let number = unsafe { info.u.entry.nr };
            *self.0.entry(number as i64).or_default() += 1;
        }
    }

    /// How many writes to sockets a batch took, and how many other calls.
    fn per_batch(&self) -> (f64, f64) {
        let is_write = |number: i64| [libc::SYS_sendto, libc::SYS_sendmsg, libc::SYS_writev].contains(&number);
        let (mut writes, mut others) = (0, 0);
        for (&number, count) in &self.0 {
            *if is_write(number) { &mut writes } else { &mut others } += count;
        }
        (writes as f64 / BATCHES as f64, others as f64 / BATCHES as f64)
    }
}

/// A batch may cost so many writes to sockets, and so many other calls.
fn expect(what: &str, calls: &Calls, writes_max: usize, others_max: usize) {
    println!("{what}: {calls}");
    let (writes, others) = calls.per_batch();
    assert!(writes > 0.0 && others > 0.0, "{what}: the calls were not counted: {calls}");
    for (kind, now, bound) in [("writes to sockets", writes, writes_max), ("other calls", others, others_max)] {
        assert!(now <= bound as f64, "{what}: {now:.2} {kind} for a batch, bound {bound}. Counted: {calls}");
    }
}

/// A server and its subscribers, the first of them on a route of its own.
fn start_with_subscribers(workers: usize, first: &str, subscribers: usize) -> (Pushd, Vec<Ws>) {
    let pushd = start(&format!("{PLAIN}\n[daemon]\nworkers = {workers}\n"));
    let routes = iter::once(first).chain(iter::repeat_n("/ws", subscribers - 1));
    let clients = routes.map(|route| Ws::open(pushd.address(), route)).collect();
    (pushd, clients)
}

/// The system calls of the batches that `publish` sends, each of so many messages. The first batch is not counted.
fn count(pushd: &Pushd, clients: &mut [Ws], messages: usize, mut publish: impl FnMut(&mut Ws)) -> Calls {
    let mut round = |clients: &mut [Ws]| {
        publish(&mut clients[0]);
        for client in clients {
            (0..messages).for_each(|_| client.expect_text(MESSAGE));
        }
    };
    round(clients);
    let counting = Counting::begin(pushd);
    (0..BATCHES).for_each(|_| round(clients));
    counting.end(&mut clients[0])
}

/// A client sends each batch in one write.
fn count_messages(route: &str, subscribers: usize, messages: usize) -> Calls {
    let (pushd, mut clients) = start_with_subscribers(1, route, subscribers);
    let batch = ws::frame(TEXT, MESSAGE.as_bytes()).repeat(messages);
    count(&pushd, &mut clients, messages, |publisher| publisher.wire.send(&batch))
}

/// A request publishes one message.
fn count_requests(workers: usize) -> Calls {
    let (pushd, mut clients) = start_with_subscribers(workers, "/ws", SUBSCRIBERS);
    let mut http = Wire::connect(pushd.address());
    let post = request(pushd.address(), "POST", "/publish/all", &[], MESSAGE.as_bytes());
    count(&pushd, &mut clients, 1, |_| {
        http.send(&post);
        assert_eq!(Answer::read(&mut http).status, 200);
    })
}

#[test]
fn a_broadcast_costs_one_write_per_subscriber() {
    expect("a broadcast", &count_messages("/chat", SUBSCRIBERS, 1), SUBSCRIBERS, OTHERS_MAX);
}

#[test]
fn a_batch_of_broadcasts_costs_no_more_calls_than_one_of_them() {
    expect("64 broadcasts", &count_messages("/chat", SUBSCRIBERS, BATCH), SUBSCRIBERS, OTHERS_MAX);
}

#[test]
fn a_batch_of_echoes_is_one_write() {
    expect("64 echoes", &count_messages("/echo", 1, BATCH), 1, OTHERS_MAX);
}

#[test]
fn a_request_that_publishes_costs_one_write_per_subscriber_and_its_answer() {
    expect("a request", &count_requests(1), SUBSCRIBERS + 1, OTHERS_MAX);
}

#[test]
fn a_second_shard_costs_a_few_calls_for_a_publication() {
    expect("a request, two shards", &count_requests(2), SUBSCRIBERS + 1, OTHERS_MAX_2_SHARDS);
}
