//! Waiting for a file system without being held up by it.
//!
//! A call that touches a file may take for ever: a network file system does not answer. So it runs on a thread of its own, and the caller
//! waits only for so long, with other things to do meanwhile. A thread that is given up ends with the process.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How often it is looked whether there is something else to do.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What `work` came to, if it did within `patience`. Meanwhile `goes_on` is asked again and again, and says whether to wait on.
///
/// # Errors
/// There is no thread to be had, or the work was given up.
pub fn within<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
    mut goes_on: impl FnMut() -> bool,
) -> io::Result<T> {
    let (done, worked) = channel();
    let deadline = Instant::now() + patience;
    std::thread::Builder::new().name("patience".to_owned()).spawn(move || done.send(work()))?;
    loop {
        match worked.recv_timeout(LOOK_INTERVAL) {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Timeout) if Instant::now() < deadline && goes_on() => {}
            Err(RecvTimeoutError::Timeout) => return Err(io::ErrorKind::TimedOut.into()),
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("it ended in a panic")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_end_is_given_up() {
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
