//! One event, and its form as one line.
//!
//! The text format is twistd's: `2026-11-20T21:08:03+0000 [hub#info] text`. The alternative is one JSON object a line.
//! Control characters are escaped, so that text from a client cannot break the line.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::SystemTime;

use ::log::{Level, Record};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::Serialize;

use crate::config::LogFormat;
use crate::config::limits::LOG_LINE_BYTES_MAX;
use crate::daemon::journal;

/// This crate's name, the first segment of the path of each of its modules.
const CRATE: &str = env!("CARGO_PKG_NAME");

/// An event to be logged.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) time: SystemTime,
    pub(super) level: Level,
    pub(super) target: Cow<'static, str>,
    pub(super) text: String,
}

impl Line {
    pub(super) fn new(level: Level, target: &'static str, text: String) -> Line {
        Line { time: SystemTime::now(), level, target: Cow::Borrowed(target), text }
    }

    /// The event of a record of the `log` facade.
    pub(super) fn of(record: &Record<'_>) -> Line {
        let target = match record.module_path_static() {
            Some(path) if path == record.target() => Cow::Borrowed(module(path)),
            _ => Cow::Owned(module(record.target()).to_string()),
        };
        let mut text = record.args().to_string();
        if text.len() > LOG_LINE_BYTES_MAX {
            text.truncate(text.floor_char_boundary(LOG_LINE_BYTES_MAX));
            text.push('…');
        }
        Line { time: SystemTime::now(), level: record.level(), target, text }
    }
}

/// Whether a record comes from another crate.
pub(super) fn is_foreign(record: &Record<'_>) -> bool {
    record.module_path().is_some_and(|path| path.split("::").next() != Some(CRATE))
}

/// `pushd::shard::accept` → `shard`. Another crate is shown by its name: `hyper::proto` → `hyper`.
fn module(target: &str) -> &str {
    let mut segments = target.split("::");
    match (segments.next(), segments.next()) {
        (Some(CRATE), Some(module)) => module,
        (Some(name), _) => name,
        (None, _) => target,
    }
}

/// Writes lines in one of the formats, in local time.
#[derive(Debug)]
pub(super) struct Pen {
    pub(super) format: LogFormat,
    zone: TimeZone,
    /// The last second that was formatted, and its text: most lines have the same second as the line before.
    second: (i64, String),
}

#[derive(Serialize)]
struct Json<'a> {
    time: String,
    level: &'a str,
    target: &'a str,
    message: &'a str,
}

impl Pen {
    pub(super) fn new(format: LogFormat) -> Pen {
        Pen { format, zone: TimeZone::system(), second: (i64::MIN, String::new()) }
    }

    /// Appends `line` and a newline, the only one in it.
    pub(super) fn write(&mut self, line: &Line, out: &mut Vec<u8>) {
        match self.format {
            LogFormat::Text => {
                let stamp = self.stamp(line.time);
                out.extend_from_slice(stamp.as_bytes());
                out.push(b' ');
                text(line, out);
            }
            LogFormat::Json => self.json(line, out),
        }
        out.push(b'\n');
    }

    /// Appends `line` without newline and time, for a receiver that adds the time itself.
    pub(super) fn write_timeless(&mut self, line: &Line, out: &mut Vec<u8>) {
        match self.format {
            LogFormat::Text => text(line, out),
            LogFormat::Json => self.json(line, out),
        }
    }

    /// Appends `line` for the journal, with its priority instead of the time.
    pub(super) fn write_with_priority(&mut self, line: &Line, out: &mut Vec<u8>) {
        // Writing into memory cannot fail.
        let _ = write!(out, "<{}>", journal::priority(line.level));
        self.write_timeless(line, out);
        out.push(b'\n');
    }

    /// The time in the format of the oldest syslog protocol: local, without zone and year.
    pub(super) fn syslog_stamp(&self, time: SystemTime) -> String {
        self.local(time).strftime("%b %e %H:%M:%S").to_string()
    }

    fn json(&mut self, line: &Line, out: &mut Vec<u8>) {
        let time = self.local(line.time).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string();
        let json = Json { time, level: level(line.level), target: &line.target, message: &line.text };
        // Serializing strings into memory cannot fail.
        let _ = serde_json::to_writer(out, &json);
    }

    fn stamp(&mut self, time: SystemTime) -> &str {
        let local = self.local(time);
        let second = local.timestamp().as_second();
        if self.second.0 != second {
            self.second = (second, local.strftime("%Y-%m-%dT%H:%M:%S%z").to_string());
        }
        &self.second.1
    }

    fn local(&self, time: SystemTime) -> Zoned {
        Timestamp::try_from(time).unwrap_or_default().to_zoned(self.zone.clone())
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

fn text(line: &Line, out: &mut Vec<u8>) {
    // Writing into memory cannot fail.
    let _ = write!(out, "[{}#{}] ", line.target, level(line.level));
    escape(&line.text, out);
}

/// Appends `text` with every character escaped that could break a line or control a terminal.
fn escape(text: &str, out: &mut Vec<u8>) {
    if !text.contains(breaks) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if breaks(c) {
            let _ = write!(escaped, "{}", c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    out.extend_from_slice(escaped.as_bytes());
}

/// Whether `c` ends a line, controls a terminal, or changes the direction of the text after it (UAX 9, section 2).
fn breaks(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}')
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pen(format: LogFormat, zone: TimeZone) -> Pen {
        Pen { format, zone, second: (i64::MIN, String::new()) }
    }

    fn line(text: &str) -> Line {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_208_883_250);
        Line { time, ..Line::new(Level::Info, "hub", text.to_string()) }
    }

    fn written(mut pen: Pen, text: &str) -> String {
        let mut out = Vec::new();
        pen.write(&line(text), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_text_format_is_twistds() {
        let utc = pen(LogFormat::Text, TimeZone::UTC);
        assert_eq!(written(utc, "a message"), "2026-11-20T21:08:03+0000 [hub#info] a message\n");
        let there = pen(LogFormat::Text, TimeZone::fixed(jiff::tz::offset(-5)));
        assert_eq!(written(there, "ü"), "2026-11-20T16:08:03-0500 [hub#info] ü\n");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let json = written(pen(LogFormat::Json, TimeZone::UTC), "say \"x\"\nand y");
        assert_eq!(json.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["time"], "2026-11-20T21:08:03.250+00:00");
        assert_eq!(value["level"], "info");
        assert_eq!(value["target"], "hub");
        assert_eq!(value["message"], "say \"x\"\nand y");
    }

    #[test]
    fn control_characters_cannot_break_a_line() {
        let out = written(pen(LogFormat::Text, TimeZone::UTC), "a\nb\r\t\u{1b}[31m\u{0}\u{85}\u{2028}\u{202e}z");
        assert_eq!(out.lines().count(), 1);
        assert!(out.ends_with("a\\nb\\r\\t\\u{1b}[31m\\u{0}\\u{85}\\u{2028}\\u{202e}z\n"), "{out}");
    }

    #[test]
    fn the_target_is_the_first_module_after_the_crate() {
        assert_eq!(module("pushd::shard::accept"), "shard");
        assert_eq!(module("pushd"), "pushd");
        assert_eq!(module("hyper::proto::h1"), "hyper");
        assert_eq!(module("access"), "access");
    }

    #[test]
    fn a_line_is_bounded() {
        let long = "ü".repeat(LOG_LINE_BYTES_MAX);
        let line = Line::of(&Record::builder().args(format_args!("{long}")).target("pushd::hub").build());
        assert!(line.text.len() <= LOG_LINE_BYTES_MAX + 3);
        assert!(line.text.ends_with("ü…"));
        assert_eq!(line.target, "hub");
    }
}
