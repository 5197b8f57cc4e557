//! The service manager: messages to it, and the sockets that it opened.
//!
//! Without a service manager (no `NOTIFY_SOCKET`) nothing here does anything. A notification that cannot be sent is
//! logged at level debug; it never fails a working server.
//!
//! It can also keep descriptors for the next process ([`keep`], [`forget`]). It processes messages later, so a process
//! that is about to end waits for it ([`barrier`]).

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use sd_notify::NotifyState;

use super::descriptors::own;
use crate::config::limits::NOTIFY_PATIENCE;

/// The process serves. `status` is the line that `systemctl status` shows.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload begins. [`ready`] ends it, whether anything changed or not.
pub fn reloading() {
    // Both must be in one datagram: otherwise systemd 253 and later end the service.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => ::log::debug!("cannot read the monotonic clock: {error}"),
    }
}

/// Sets the line that `systemctl status` shows.
pub fn status(text: &str) {
    send(&[NotifyState::Status(text)]);
}

/// The process is about to end.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Tells the watchdog that the process works. Call it only after proof of progress; a call on a timer alone would
/// defeat its purpose.
pub fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

/// Whether a service manager may keep descriptors. Whether it really does can be checked only afterwards.
pub fn keeps_descriptors() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some() && std::env::var_os("FDSTORE").is_none_or(|most| most != "0")
}

/// Has the service manager keep a descriptor under a name (letters, digits, dashes) until [`forget`]. The service
/// manager does not poll it: the other end of a pipe may be closed.
///
/// # Errors
/// The message could not be sent.
pub fn keep(name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    send_with(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}\n"), descriptor)
}

/// Tells the service manager to close what it keeps under a name.
pub fn forget(name: &str) {
    send(&[NotifyState::Custom("FDSTOREREMOVE=1"), NotifyState::Custom(&format!("FDNAME={name}"))]);
}

/// Waits until the service manager has processed all messages so far.
///
/// # Errors
/// The message could not be sent, or there was no answer in time.
pub fn barrier() -> io::Result<()> {
    let (ours, its) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    send_with("BARRIER=1\n", its.as_fd())?;
    drop(its);
    // The pipe reports a hang-up once the last copy of the other end is closed.
    let deadline = Instant::now() + NOTIFY_PATIENCE;
    loop {
        let left =
            PollTimeout::try_from(deadline.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(ours.as_fd(), PollFlags::empty())], left) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the service manager does not answer")),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends a message with a descriptor. The crate that sends the other messages would need one more crate for this.
fn send_with(message: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is no service manager"));
    };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A service manager that does not read must not block the end of the process for ever.
    socket.set_write_timeout(Some(NOTIFY_PATIENCE))?;
    let rights = [ControlMessage::ScmRights(&[descriptor.as_raw_fd()])];
    let flags = MsgFlags::MSG_NOSIGNAL;
    let message = message.as_bytes();
    let sent = loop {
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(message)], &rights, flags, None) {
            // With a timeout set, the kernel does not restart the call after a signal (signal(7)).
            Err(Errno::EINTR) => {}
            sent => break sent?,
        }
    };
    if sent == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Sends messages. A status must be one line: a newline in it would begin the next assignment.
fn send(states: &[NotifyState<'_>]) {
    let flat: Vec<String> = states
        .iter()
        .map(|state| match state {
            NotifyState::Status(text) => format!("STATUS={}", text.replace(['\n', '\r'], " ")),
            other => other.to_string(),
        })
        .collect();
    let flat: Vec<NotifyState<'_>> = flat.iter().map(|state| NotifyState::Custom(state)).collect();
    if let Err(error) = sd_notify::notify(&flat) {
        ::log::debug!("cannot notify the service manager: {error}");
    }
}

/// A socket that the service manager opened.
#[derive(Debug)]
pub struct PassedSocket {
    /// Its `FileDescriptorName=`; the unit's name if that is not set, `unknown` if the manager gives no names.
    pub name: String,
    /// The socket.
    pub socket: OwnedFd,
}

/// Takes the sockets that the service manager opened for this process; empty if there are none. Call it before `detach`
/// (they are meant for this PID only), and only once: the original numbers are closed, so a second call fails.
pub fn listen_fds() -> io::Result<Vec<PassedSocket>> {
    // Sockets meant for the parent process are not for this one; that is not an error.
    if sd_notify::listen_fds()?.len() == 0 {
        return Ok(Vec::new());
    }
    sd_notify::listen_fds_with_names()?.map(|(number, name)| Ok(PassedSocket { name, socket: own(number)? })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_service_manager_nothing_is_sent() {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            ready("serving");
            reloading();
            status("a\nb");
            stopping();
            watchdog();
        }
        if std::env::var_os("LISTEN_PID").is_none() {
            assert!(listen_fds().unwrap().is_empty());
        }
    }
}
