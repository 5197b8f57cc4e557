//! Waiting for a file system with a time limit.
//!
//! A call that touches a file may block for ever, because a network file system may not answer. So the call runs on a
//! thread of its own. The caller waits for a limited time and can do other work meanwhile. An abandoned thread ends
//! with the process.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime};

/// How often `goes_on` is called.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Returns the result of `work` if it ends within `timeout`. Meanwhile `goes_on` is called again and again, and returns
/// whether to wait on.
///
/// # Errors
/// No thread could be started, `work` panicked, or the wait ended.
pub fn within<T: Send + 'static>(
    timeout: Duration,
    work: impl FnOnce() -> T + Send + 'static,
    mut goes_on: impl FnMut() -> bool,
) -> io::Result<T> {
    let (done, worked) = channel();
    let deadline = Instant::now() + timeout;
    std::thread::Builder::new().name("timeout".to_owned()).spawn(move || done.send(work()))?;
    loop {
        match worked.recv_timeout(LOOK_INTERVAL) {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Timeout) if Instant::now() < deadline && goes_on() => {}
            Err(RecvTimeoutError::Timeout) => return Err(io::ErrorKind::TimedOut.into()),
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("it ended in a panic")),
        }
    }
}

/// The time of the system, in seconds since 1970.
pub fn seconds_since_1970() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_does_not_end_is_abandoned() {
        let long = Duration::from_secs(60);
        assert_eq!(within(long, || 5, || true).unwrap(), 5);
        let (_never, ends) = channel::<()>();
        let asked = within(long, move || ends.recv().is_ok(), || false).unwrap_err();
        assert_eq!(asked.kind(), io::ErrorKind::TimedOut);
        let (_never, ends) = channel::<()>();
        let late = within(Duration::ZERO, move || ends.recv().is_ok(), || true).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    }
}
