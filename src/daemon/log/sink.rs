//! The destinations of lines: a file, a standard stream, the journal behind one, the system logger.
//!
//! A sink writes a batch in as few writes as possible. A failure is never final: lines that could not be written are
//! reported as a [`Loss`], and the next batch is tried again.

use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

use super::file::{LogFile, Loss};
use super::line::{Line, Pen};
use super::syslog::Syslog;
use crate::config::{LogFormat, Rotate};
use crate::daemon::behalf::Behalf;
use crate::daemon::exit::{Exit, Failure, reason};
use crate::daemon::journal;
use ::log::Level;

/// The target size of one write.
const WRITE_BYTES: usize = 64 << 10;
/// The module name in the log's own lines.
const OWN: &str = "log";

/// A destination, with everything needed to open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// An absolute path, and the user on whose behalf it is opened.
    File(PathBuf, Behalf),
    Stderr,
    Stdout,
    /// The program name to log under.
    Syslog(String),
}

#[derive(Debug)]
enum Out {
    File(LogFile),
    Stderr,
    /// Standard error, read by the journal.
    Journal,
    Stdout,
    Syslog(Syslog),
}

#[derive(Debug)]
pub(super) struct Sink {
    out: Out,
    pen: Pen,
    buffer: Vec<u8>,
}

impl Sink {
    /// Opens `destination`.
    pub(super) fn open(destination: &Destination, format: LogFormat, rotate: Option<Rotate>) -> Result<Sink, Failure> {
        let out = match destination {
            Destination::File(path, behalf) => Out::File(
                LogFile::open(path, rotate, behalf).map_err(|error| Failure::create("the log", path, &error))?,
            ),
            Destination::Stderr if journal::is_stderr() => Out::Journal,
            Destination::Stderr => Out::Stderr,
            Destination::Stdout => Out::Stdout,
            Destination::Syslog(prefix) => Out::Syslog(Syslog::connect(prefix, None).map_err(|error| {
                Failure::new(Exit::of_error(&error), format!("cannot reach the system logger: {}", reason(&error)))
            })?),
        };
        Ok(Sink { out, pen: Pen::new(format), buffer: Vec::new() })
    }

    /// Changes the format of lines and the size at which the file rotates.
    pub(super) fn restyle(&mut self, format: LogFormat, rotate: Option<Rotate>) {
        self.pen.format = format;
        if let Out::File(file) = &mut self.out {
            file.set_rotate(rotate);
        }
    }

    /// Writes the first line of a log.
    pub(super) fn greet(&mut self) -> Result<(), Loss> {
        self.write(&[greeting()])
    }

    /// SIGUSR1. Only a file has something to reopen.
    pub(super) fn reopen(&mut self) -> Result<(), Loss> {
        let Out::File(file) = &mut self.out else { return Ok(()) };
        let first = match file.reopen() {
            Ok(()) => greeting(),
            Err(error) => complaint("reopen", &error),
        };
        self.write(&[first])
    }

    /// Writes all lines, in order.
    pub(super) fn write(&mut self, lines: &[Line]) -> Result<(), Loss> {
        let Sink { out, pen, buffer } = self;
        buffer.clear();
        match out {
            Out::File(file) => to_file(file, pen, buffer, lines),
            Out::Stderr => to_stream(&mut io::stderr(), Pen::write, pen, buffer, lines),
            Out::Journal => to_stream(&mut io::stderr(), Pen::write_with_priority, pen, buffer, lines),
            Out::Stdout => to_stream(&mut io::stdout(), Pen::write, pen, buffer, lines),
            Out::Syslog(syslog) => {
                let mut loss = Tally::default();
                for line in lines {
                    loss.note(syslog.send(line, pen).map_err(|error| Loss { lines: 1, error }));
                }
                loss.settle()
            }
        }
    }
}

fn to_file(file: &mut LogFile, pen: &mut Pen, buffer: &mut Vec<u8>, lines: &[Line]) -> Result<(), Loss> {
    let mut loss = Tally::default();
    if file.look() {
        pen.write(&greeting(), buffer);
    }
    for line in lines {
        let before = buffer.len();
        pen.write(line, buffer);
        if file.is_full(before, buffer.len() - before) {
            let last = buffer.split_off(before);
            loss.note(file.write(buffer));
            buffer.clear();
            let first = match file.is_full(0, last.len()).then(|| file.rotate()) {
                None => None,
                Some(Ok(())) => Some(greeting()),
                Some(Err(error)) => Some(complaint("rotate", &error)),
            };
            if let Some(first) = first {
                pen.write(&first, buffer);
            }
            buffer.extend_from_slice(&last);
        }
        if buffer.len() >= WRITE_BYTES {
            loss.note(file.write(buffer));
            buffer.clear();
        }
    }
    loss.note(file.write(buffer));
    loss.settle()
}

fn to_stream(
    out: &mut impl Write,
    write: fn(&mut Pen, &Line, &mut Vec<u8>),
    pen: &mut Pen,
    buffer: &mut Vec<u8>,
    lines: &[Line],
) -> Result<(), Loss> {
    for line in lines {
        write(pen, line, buffer);
    }
    let mut rest = &buffer[..];
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => break,
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Loss { lines: newlines(rest), error }),
        }
    }
    out.flush().map_err(|error| Loss { lines: 0, error })
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn greeting() -> Line {
    let version = env!("CARGO_PKG_VERSION");
    Line::new(Level::Info, OWN, format!("Log opened (pushd {version}, PID {})", std::process::id()))
}

fn complaint(what: &str, error: &io::Error) -> Line {
    Line::new(Level::Error, OWN, format!("cannot {what} the log, going on with the old file: {}", reason(error)))
}

/// The sum of the losses of several writes.
#[derive(Default)]
struct Tally(Option<Loss>);

impl Tally {
    fn note(&mut self, written: Result<(), Loss>) {
        if let Err(mut loss) = written {
            loss.lines += self.0.as_ref().map_or(0, |before| before.lines);
            self.0 = Some(loss);
        }
    }

    fn settle(self) -> Result<(), Loss> {
        self.0.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn lines(count: usize) -> Vec<Line> {
        (0..count).map(|number| Line::new(Level::Info, "test", format!("line {number:04}"))).collect()
    }

    #[test]
    fn a_large_batch_is_split_into_files_of_the_configured_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pushd.log");
        let rotate = Rotate { size_bytes: 1000, keep: 100 };
        let mut sink =
            Sink::open(&Destination::File(path.clone(), Behalf::default()), LogFormat::Text, Some(rotate)).unwrap();
        sink.greet().unwrap();
        sink.write(&lines(100)).unwrap();
        let mut found = Vec::new();
        for entry in fs::read_dir(dir.path()).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            assert!(text.len() <= 1000, "{}", text.len());
            assert!(text.lines().next().unwrap().contains("[log#info] Log opened"), "{text}");
            found.extend(text.lines().skip(1).map(|line| line[line.len() - 9..].to_string()));
        }
        found.sort();
        assert_eq!(found, (0..100).map(|number| format!("line {number:04}")).collect::<Vec<_>>());
    }

    #[test]
    fn every_line_lost_to_a_full_disk_is_counted() {
        let destination = Destination::File("/dev/full".into(), Behalf::default());
        let mut sink = Sink::open(&destination, LogFormat::Json, None).unwrap();
        assert_eq!(sink.write(&lines(5000)).unwrap_err().lines, 5000);
    }

    #[test]
    fn the_error_names_a_path_that_does_not_exist() {
        let destination = Destination::File("/nonexistent/pushd.log".into(), Behalf::default());
        let failure = Sink::open(&destination, LogFormat::Text, None).unwrap_err();
        assert_eq!(failure.exit, Exit::CannotCreate);
        assert!(failure.message.contains("/nonexistent/pushd.log"), "{failure}");
    }
}
