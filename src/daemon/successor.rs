//! The program that comes after this one: the same file, or after an upgrade another one in its place.
//!
//! Only that program knows whether it can start with a configuration: a new version may have keys that this one takes for mistakes, and may
//! refuse what this one takes.

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

/// The program that runs: its file, whatever its name is by now.
const RUNNING: &str = "/proc/self/exe";
/// What the kernel writes behind the name of a file that is gone.
const DELETED: &[u8] = b" (deleted)";
/// How often it is looked whether the check has ended.
const LOOK_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// Asks the program that was installed in the place of this one what it says of a configuration. `None`: there is no other, or it cannot be
/// asked; then this one knows as much.
pub fn check(config: &Path) -> Option<Result<(), String>> {
    let program = replaced_by()?;
    match ask(&program, config) {
        Ok((status, _)) if status.success() => Some(Ok(())),
        Ok((status, said)) if status.code() == Some(Exit::Config.code().into()) => Some(Err(said)),
        Ok((status, said)) => {
            // Such as a user that only root may become.
            log::info!("{} cannot say whether it could start: {status}: {said}", program.display());
            None
        }
        Err(error) => {
            log::warn!("{} cannot be asked whether it could start: {error}", program.display());
            None
        }
    }
}

/// The program in the place of this one, if it is another.
fn replaced_by() -> Option<PathBuf> {
    let name = fs::read_link(RUNNING).ok()?.into_os_string().into_vec();
    let program = PathBuf::from(OsString::from_vec(name.strip_suffix(DELETED).unwrap_or(&name).to_vec()));
    let (running, installed) = (fs::metadata(RUNNING).ok()?, fs::metadata(&program).ok()?);
    ((running.dev(), running.ino()) != (installed.dev(), installed.ino())).then_some(program)
}

fn ask(program: &Path, config: &Path) -> io::Result<(ExitStatus, String)> {
    // A file has room for all it says, so it never waits for a reader.
    let mut said = File::from(memfd_create("pushd-check", MFdFlags::MFD_CLOEXEC)?);
    let mut command = Command::new(program);
    command.arg("--check").arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(said.try_clone()?);
    // It says nothing to the service manager, and takes nothing from it.
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
