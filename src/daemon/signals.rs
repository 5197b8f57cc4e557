//! Signals by which the operator controls a running pushd.
//!
//! The handlers only set a flag and write a byte to a socket pair; the waiting thread (main's) does the rest. They are
//! installed whatever signals the parent process ignored. Rust's start-up code ignores SIGPIPE.
//!
//! The handlers run on a thread of their own; all other threads block these signals. Otherwise the kernel would deliver
//! a signal to main first, and while main waits for a file system that hangs, no handler would run.
//!
//! A second SIGINT or SIGTERM, or one after SIGUSR2, ends the process at once with [`EXIT_NOW`] from inside the
//! handler, so that no stuck thread can prevent it. This is armed when [`Signals::wait`] returns the first signal. That
//! is a moment late on purpose: `timeout` and some supervisors signal the process and then its group, which is one
//! request sent twice. If main does not take the first signal, because a reload hangs on a file system, the thread of
//! the handlers arms it.

use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal as Number};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::{flag, low_level};

/// The exit code of a process that a second SIGINT or SIGTERM ended. It is not zero, and none of
/// [`Exit`](super::Exit)'s.
pub const EXIT_NOW: i32 = 1;
/// Two requests to end that arrive within this time count as one.
const SAME_ORDER: Duration = Duration::from_millis(10);

/// How long main may take to handle a request to end, before another one ends the process at once.
const MAIN_IS_STUCK: Duration = Duration::from_secs(1);

/// A request of the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT or SIGTERM, whose name it carries: a graceful end.
    Shutdown(&'static str),
    /// SIGUSR2: hand the sessions to the next process, and end.
    HandOver,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1: reopen the log.
    Reopen,
}

/// The installed handlers. They stay installed for the life of the process.
#[derive(Debug)]
pub struct Signals {
    wake: UnixStream,
    /// In order of priority: a request to end does not wait behind a reload.
    flags: [(Signal, Arc<AtomicBool>); 5],
    armed: Arc<AtomicBool>,
}

impl Signals {
    /// Installs the handlers. Call it after `detach` and before any other thread starts, so that all threads inherit
    /// the signal mask. Code that starts programs must reset the mask for them.
    pub fn install() -> io::Result<Signals> {
        let (wake, write) = UnixStream::pair()?;
        let armed = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Before the flag: the signal that arms it must not be the one that triggers it.
            flag::register_conditional_shutdown(signal, EXIT_NOW, Arc::clone(&armed))?;
        }
        let orders = [
            (SIGINT, Signal::Shutdown("SIGINT")),
            (SIGTERM, Signal::Shutdown("SIGTERM")),
            (SIGUSR2, Signal::HandOver),
            (SIGHUP, Signal::Reload),
            (SIGUSR1, Signal::Reopen),
        ];
        let flags = orders.map(|(number, signal)| (number, signal, Arc::new(AtomicBool::new(false))));
        for (number, _, flag) in &flags {
            flag::register(*number, Arc::clone(flag))?;
            low_level::pipe::register(*number, write.try_clone()?)?;
        }
        // A shell makes background programs ignore SIGQUIT, and an ignored signal stays ignored in the programs they
        // start, such as the commands of feeds. A handler is not inherited; this one does what SIGQUIT does by default.
        flag::register_conditional_default(SIGQUIT, Arc::new(AtomicBool::new(true)))?;
        let ours = [Number::SIGINT, Number::SIGTERM, Number::SIGHUP, Number::SIGUSR1, Number::SIGUSR2];
        let ours = SigSet::from_iter(ours);
        ours.thread_block()?;
        let (mut ends, end) = UnixStream::pair()?;
        for number in [SIGINT, SIGTERM, SIGUSR2] {
            low_level::pipe::register(number, end.try_clone()?)?;
        }
        let arm = Arc::clone(&armed);
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            // Cannot fail: the set is valid.
            let _ = ours.thread_unblock();
            if ends.read_exact(&mut [0]).is_ok() {
                sleep(MAIN_IS_STUCK);
                arm.store(true, Ordering::SeqCst);
            }
            // This thread stays, because the handlers of later signals run on it.
            loop {
                std::thread::park();
            }
        })?;
        Ok(Signals { wake, flags: flags.map(|(_, signal, flag)| (signal, flag)), armed })
    }

    /// Waits for a signal without a time limit.
    pub fn wait(&mut self) -> Signal {
        loop {
            if let Some(signal) = self.next(None) {
                return signal;
            }
        }
    }

    /// Waits for a signal until `deadline`.
    pub fn wait_until(&mut self, deadline: Instant) -> Option<Signal> {
        self.next(Some(deadline))
    }

    /// A signal that has arrived already.
    pub fn poll(&mut self) -> Option<Signal> {
        self.pending()
    }

    /// Whether a request to end has arrived. It is not taken.
    pub fn is_end_asked(&self) -> bool {
        let ends = |signal: &Signal| matches!(signal, Signal::Shutdown(_) | Signal::HandOver);
        self.flags.iter().any(|(signal, flag)| ends(signal) && flag.load(Ordering::SeqCst))
    }

    fn next(&mut self, deadline: Option<Instant>) -> Option<Signal> {
        loop {
            if let Some(signal) = self.pending() {
                return Some(signal);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return None;
            }
            // The bytes only mean "check the flags". Bytes that do not fit into the socket are dropped, and not needed.
            // The flags are checked after the bytes are read, so a signal that arrives in between only costs one more
            // round.
            let mut bytes = [0; 64];
            let read = self.wake.set_read_timeout(left).and_then(|()| self.wake.read(&mut bytes));
            match read {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                // Cannot happen while the handlers hold the other end. The pause avoids a busy loop in any case.
                Err(_) => sleep(SAME_ORDER),
            }
        }
    }

    fn pending(&self) -> Option<Signal> {
        let (signal, _) = self.flags.iter().find(|(_, flag)| flag.swap(false, Ordering::SeqCst))?;
        if matches!(signal, Signal::Shutdown(_)) && !self.armed.load(Ordering::SeqCst) {
            sleep(SAME_ORDER);
            for (other, flag) in &self.flags {
                if matches!(other, Signal::Shutdown(_)) {
                    flag.store(false, Ordering::SeqCst);
                }
            }
        }
        if matches!(signal, Signal::Shutdown(_) | Signal::HandOver) {
            self.armed.store(true, Ordering::SeqCst);
        }
        Some(*signal)
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::kill;
    use nix::unistd::Pid;

    use super::*;

    /// Sends to the process, as an operator does. A thread that blocks the signal would never receive one sent to
    /// itself.
    fn raise(signals: &Signals, number: Number, order: Signal) {
        kill(Pid::this(), number).unwrap();
        let (_, flag) = signals.flags.iter().find(|(signal, _)| *signal == order).unwrap();
        while !flag.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }

    /// One test, because signals belong to the process and not to a thread.
    #[test]
    fn signals_arrive_by_name_and_in_order_of_priority() {
        SigSet::from_iter([Number::SIGHUP]).thread_block().unwrap();
        let mut signals = Signals::install().unwrap();
        assert_eq!(signals.poll(), None);
        assert_eq!(signals.wait_until(Instant::now() + Duration::from_millis(1)), None);

        raise(&signals, Number::SIGHUP, Signal::Reload);
        assert_eq!(signals.wait(), Signal::Reload);
        raise(&signals, Number::SIGUSR1, Signal::Reopen);
        raise(&signals, Number::SIGUSR1, Signal::Reopen);
        assert_eq!(signals.wait_until(Instant::now() + Duration::from_secs(10)), Some(Signal::Reopen));
        assert_eq!(signals.poll(), None);

        raise(&signals, Number::SIGUSR1, Signal::Reopen);
        raise(&signals, Number::SIGHUP, Signal::Reload);
        assert!(!signals.is_end_asked());
        raise(&signals, Number::SIGTERM, Signal::Shutdown("SIGTERM"));
        raise(&signals, Number::SIGTERM, Signal::Shutdown("SIGTERM"));
        assert!(signals.is_end_asked());
        assert!(!signals.armed.load(Ordering::SeqCst));
        assert_eq!(signals.wait(), Signal::Shutdown("SIGTERM"));
        assert!(signals.armed.load(Ordering::SeqCst));
        assert_eq!(signals.wait(), Signal::Reload);
        assert_eq!(signals.wait(), Signal::Reopen);
        raise(&signals, Number::SIGUSR1, Signal::Reopen);
        raise(&signals, Number::SIGUSR2, Signal::HandOver);
        assert_eq!(signals.wait(), Signal::HandOver);
        assert_eq!(signals.wait(), Signal::Reopen);
    }
}
