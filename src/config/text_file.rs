//! Reads the text of one file, with a limit in bytes and a timeout.
//!
//! A pipe, such as `-c <(…)` or `/dev/stdin`, can be read only once. It is allowed at the start, where the operator sees the message if
//! nothing arrives. A running server reads only regular files.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::limits::CONFIG_PATIENCE;

/// What happens with a file that is not a regular one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pipes {
    /// It is read to its end, once.
    Read,
    /// It is not opened.
    Refused,
}

/// Reads at most `most` bytes of the file at `path`.
pub(super) fn read(path: &Path, pipes: Pipes, most: u64) -> io::Result<Vec<u8>> {
    // Checked before it is opened, because opening a pipe already wakes its writer; and again after, because it may be another file then.
    allow(&path.metadata()?, pipes)?;
    let file = File::options().read(true).custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits()).open(path)?;
    let metadata = file.metadata()?;
    allow(&metadata, pipes)?;
    if !metadata.is_file() {
        return to_the_end(&file, most, CONFIG_PATIENCE);
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn allow(metadata: &Metadata, pipes: Pipes) -> io::Result<()> {
    match pipes {
        _ if metadata.is_dir() => Err(ErrorKind::IsADirectory.into()),
        Pipes::Refused if metadata.file_type().is_fifo() => Err(io::Error::other("this is a pipe, not a file")),
        Pipes::Refused if !metadata.is_file() => Err(io::Error::other("this is a device or a socket, not a file")),
        _ => Ok(()),
    }
}

/// Reads a pipe or a terminal to its end.
fn to_the_end(mut file: &File, most: u64, timeout: Duration) -> io::Result<Vec<u8>> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    // Waits before the first read, because a pipe that no process has opened for writing yet looks as if it had ended.
    wait(file, timeout)?;
    while (bytes.len() as u64) < most {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait(file, timeout)?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

fn wait(file: &File, timeout: Duration) -> io::Result<()> {
    let poll_timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLIN)], poll_timeout) {
            Ok(0) => {
                let why = format!("this is a pipe, and nothing arrived for {} s", timeout.as_secs());
                return Err(io::Error::new(ErrorKind::TimedOut, why));
            }
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::PathBuf;

    use super::*;

    /// A pipe without a name, like a shell's `<(…)`.
    fn pipe() -> (PathBuf, io::PipeReader, io::PipeWriter) {
        use std::os::fd::AsRawFd as _;
        let (reader, writer) = io::pipe().unwrap();
        (PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd())), reader, writer)
    }

    #[test]
    fn a_pipe_is_read_to_its_end() {
        let (path, _reader, mut writer) = pipe();
        let late = std::thread::spawn(move || {
            // Usually each piece is a read of its own.
            for piece in ["one", "two"] {
                writer.write_all(piece.as_bytes()).unwrap();
                std::thread::yield_now();
            }
        });
        assert_eq!(read(&path, Pipes::Read, 99).unwrap(), b"onetwo");
        late.join().unwrap();
        let (path, _reader, mut writer) = pipe();
        writer.write_all(b"written and closed before").unwrap();
        drop(writer);
        assert_eq!(read(&path, Pipes::Read, 7).unwrap().len(), 25, "it may exceed the limit by one read");
    }

    #[test]
    fn a_pipe_without_an_end_is_given_up_after_the_timeout() {
        let (path, _reader, mut writer) = pipe();
        writer.write_all(b"begun").unwrap();
        let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).unwrap();
        let refused = to_the_end(&file, 99, Duration::ZERO).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_running_server_reads_only_regular_files() {
        let (path, _reader, _writer) = pipe();
        assert!(read(&path, Pipes::Refused, 9).unwrap_err().to_string().contains("this is a pipe"));
        let device = read(Path::new("/dev/zero"), Pipes::Refused, 9).unwrap_err().to_string();
        assert!(device.contains("device"), "{device}");
        for pipes in [Pipes::Read, Pipes::Refused] {
            assert_eq!(read(Path::new("/"), pipes, 9).unwrap_err().kind(), ErrorKind::IsADirectory);
            assert!(read(Path::new("/proc/self/status"), pipes, 9).is_ok());
        }
    }
}
