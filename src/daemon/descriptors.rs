//! Descriptors that were open when the process began.
//!
//! They arrive as plain numbers, and only unsafe code may turn a number into an owned descriptor. So each number is
//! sent through a socket pair (`SCM_RIGHTS`): the kernel returns an owned descriptor, with close-on-exec set.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;

use nix::fcntl::OFlag;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Turns descriptor `number` into an owned one.
pub(super) fn own(number: RawFd) -> io::Result<OwnedFd> {
    let (here, there) = UnixDatagram::pair()?;
    let rights = [ControlMessage::ScmRights(&[number])];
    sendmsg::<()>(here.as_raw_fd(), &[IoSlice::new(b"f")], &rights, MsgFlags::empty(), None)?;
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(&there, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut arrived = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let descriptor = arrived.next().ok_or_else(|| io::Error::other("the inherited descriptor was lost on its way"))?;
    nix::unistd::close(number)?;
    Ok(descriptor)
}

/// Sets close-on-exec on all descriptors beyond the standard streams that this process inherited without it, so that
/// started programs do not inherit them. They stay open in this process for its whole life, because one of them may
/// hold a lock. Call this after [`listen_fds`](super::notify::listen_fds), which relies on the original numbers.
pub fn keep_from_children() {
    // Without /proc the open descriptors are unknown. Those meant for this process were taken already.
    let Ok(open) = fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<RawFd> = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2 && is_inherited(*number)) {
        if let Ok(descriptor) = own(number) {
            std::mem::forget(descriptor);
        }
    }
}

/// Whether a started program would inherit it.
fn is_inherited(number: RawFd) -> bool {
    let flags = || {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        i32::from_str_radix(flags.trim(), 8).ok()
    };
    flags().is_some_and(|flags| flags & OFlag::O_CLOEXEC.bits() == 0)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::IntoRawFd;

    use super::*;

    #[test]
    fn a_number_becomes_a_socket_that_works() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let number = listener.into_raw_fd();
        let listener = TcpListener::from(own(number).unwrap());
        assert_eq!(listener.local_addr().unwrap(), address);
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"x").unwrap();
        let (mut served, _) = listener.accept().unwrap();
        let mut byte = [0];
        served.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
        assert!(own(-1).is_err());
    }
}
