//! The journal, where it is what reads our standard error.
//!
//! It notes the time of each line by itself, and takes the priority from the line's beginning, `<3>` for an error. Who
//! runs from a terminal, or into a file, sees none of this.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use ::log::Level;
use nix::sys::stat::fstat;

use crate::config::text::shown;

/// Whether standard error leads to the journal. The variable alone does not say so: a child that was given another
/// standard error has inherited it.
pub fn is_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    fstat(io::stderr()).is_ok_and(|stderr| stream == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

/// The number that stands for a level in syslog(3).
pub fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Says something on standard error, for people or for the journal, which has a priority for each line of it.
pub fn say(level: Level, text: &str) {
    let mut lines = String::with_capacity(text.len() + 64);
    let marked = is_stderr();
    for line in text.lines() {
        if marked {
            // Into memory: there is nothing that could fail.
            let _ = write!(lines, "<{}>", priority(level));
        }
        // What a file or an argument holds is no command to a terminal.
        lines.push_str(&shown(line));
        lines.push('\n');
    }
    // Who closed standard error does not want to know.
    let _ = io::stderr().write_all(lines.as_bytes());
}
