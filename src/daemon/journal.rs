//! Standard error, with the priorities that systemd's journal understands where it reads that stream.
//!
//! The journal adds the time of each line itself, and takes the priority from the start of the line, `<3>` for an
//! error. On a terminal or in a file the priorities are left out.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use ::log::Level;
use nix::sys::stat::fstat;

use crate::config::text::shown;

/// Whether standard error leads to the journal. The variable alone does not prove it: a child process inherits the
/// variable even if it was given another standard error.
pub fn is_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    fstat(io::stderr()).is_ok_and(|stderr| stream == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

/// The number of a level in syslog(3).
pub fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Prints text on standard error, each line with its priority if the journal reads it.
pub fn print(level: Level, text: &str) {
    let mut lines = String::with_capacity(text.len() + 64);
    let marked = is_stderr();
    for line in text.lines() {
        if marked {
            // Writing into memory cannot fail.
            let _ = write!(lines, "<{}>", priority(level));
        }
        // Escape control sequences: text from a file or an argument must not control the terminal.
        lines.push_str(&shown(line));
        lines.push('\n');
    }
    // If standard error is closed, there is nothing left to do.
    let _ = io::stderr().write_all(lines.as_bytes());
}
