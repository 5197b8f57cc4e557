//! The program that the next start will run: the same file, or the one that an upgrade put in its place.
//!
//! Only that program knows whether it can start with a configuration: a new version may have keys that this version
//! reports as mistakes, and may refuse what this version accepts.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;
use std::{ffi::OsString, thread::sleep};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::exit::Exit;
use crate::config::limits::{SUCCESSOR_PATIENCE, SUCCESSOR_SAYS_MAX};

/// The file of the running program, whatever its name is now.
const RUNNING: &str = "/proc/self/exe";
/// The kernel's suffix for the name of a deleted file.
const DELETED: &[u8] = b" (deleted)";
/// How often to check whether the program has ended.
const LOOK_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// Runs the program that was installed in the place of this one with `--check`, and returns its verdict on a
/// configuration. `None` if there is no other program or it cannot be run; then this process must decide itself.
pub fn check(config: &Path) -> Option<Result<(), String>> {
    let program = replaced_by()?;
    match ask(&program, config) {
        Ok((status, _)) if status.success() => Some(Ok(())),
        Ok((status, said)) if status.code() == Some(Exit::Config.code().into()) => Some(Err(said)),
        Ok((status, said)) => {
            // For example, it needs to become a user that only root may become.
            log::info!("cannot find out whether {} could start: {status}: {said}", program.display());
            None
        }
        Err(error) => {
            log::warn!("cannot run {} to check whether it could start: {error}", program.display());
            None
        }
    }
}

/// The program installed in the place of this one, if it is another file.
fn replaced_by() -> Option<PathBuf> {
    let name = fs::read_link(RUNNING).ok()?.into_os_string().into_vec();
    let program = PathBuf::from(OsString::from_vec(name.strip_suffix(DELETED).unwrap_or(&name).to_vec()));
    let (running, installed) = (fs::metadata(RUNNING).ok()?, fs::metadata(&program).ok()?);
    ((running.dev(), running.ino()) != (installed.dev(), installed.ino())).then_some(program)
}

fn ask(program: &Path, config: &Path) -> io::Result<(ExitStatus, String)> {
    // Its output goes to a file in memory, so it never waits for a reader.
    let mut said = File::from(memfd_create("pushd-check", MFdFlags::MFD_CLOEXEC)?);
    let mut command = Command::new(program);
    command.arg("--check").arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(said.try_clone()?);
    // Without these variables it can neither notify the service manager nor take its sockets.
    for name in
        ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "FDSTORE"]
    {
        command.env_remove(name);
    }
    let mut child = command.spawn()?;
    let deadline = Instant::now() + SUCCESSOR_PATIENCE;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() < deadline => sleep(LOOK_PAUSE),
            None => {
                child.kill()?;
                child.wait()?;
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    };
    let mut bytes = Vec::new();
    said.seek(SeekFrom::Start(0))?;
    said.take(SUCCESSOR_SAYS_MAX).read_to_end(&mut bytes)?;
    let lines = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = lines.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    Ok((status, lines.join("; ")))
}
