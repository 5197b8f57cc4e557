//! The system logger, through `/dev/log`.
//!
//! The crate `syslog` connects only once, so after a restart of the logger all lines would be lost. Here a failed send
//! connects again, once, and only then counts the line as lost. The crate's own formatter writes the time in UTC,
//! although the protocol (RFC 3164) requires local time; the formatter here writes local time.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use ::log::Level;
use ::syslog::{Error, Facility, LogFormat, Logger, LoggerBackend, Severity};

use super::line::{Line, Pen};

/// A connection that is made again when it fails.
pub(super) struct Syslog {
    prefix: String,
    /// The logger's socket; `None` for the default of this system.
    path: Option<PathBuf>,
    logger: Option<Logger<LoggerBackend, Header>>,
}

/// The text before a message: `<PRIORITY>Nov 20 21:08:03 pushd[4711]: `.
#[derive(Debug, Clone)]
struct Header {
    prefix: String,
    stamp: String,
}

impl<T: Display> LogFormat<T> for Header {
    fn format<W: Write>(&self, out: &mut W, severity: Severity, message: T) -> ::syslog::Result<()> {
        let priority = Facility::LOG_DAEMON as u8 | severity as u8;
        let pid = std::process::id();
        // One call, because each call sends a datagram.
        out.write_fmt(format_args!("<{priority}>{} {}[{pid}]: {message}", self.stamp, self.prefix))
            .map_err(Error::Write)
    }
}

impl Syslog {
    /// Connects, with `prefix` as the program name.
    pub(super) fn connect(prefix: &str, path: Option<PathBuf>) -> io::Result<Syslog> {
        let mut syslog = Syslog { prefix: prefix.to_string(), path, logger: None };
        syslog.logger = Some(syslog.open()?);
        Ok(syslog)
    }

    /// Sends one line, over a new connection if the old one fails.
    pub(super) fn send(&mut self, line: &Line, pen: &mut Pen) -> io::Result<()> {
        let mut text = Vec::new();
        pen.write_timeless(line, &mut text);
        let text = String::from_utf8_lossy(&text);
        let stamp = pen.syslog_stamp(line.time);
        if let Some(logger) = &mut self.logger {
            if send_line(logger, line.level, &stamp, &text).is_ok() {
                return Ok(());
            }
            self.logger = None;
        }
        let mut logger = self.open()?;
        send_line(&mut logger, line.level, &stamp, &text)?;
        self.logger = Some(logger);
        Ok(())
    }

    fn open(&self) -> io::Result<Logger<LoggerBackend, Header>> {
        let stamp = Pen::new(crate::config::LogFormat::Text).syslog_stamp(SystemTime::now());
        let header = Header { prefix: self.prefix.clone(), stamp };
        let opened = match &self.path {
            Some(path) => ::syslog::unix_custom(header, path),
            None => ::syslog::unix(header),
        };
        opened.map_err(plain)
    }
}

impl std::fmt::Debug for Syslog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Syslog").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

fn send_line(logger: &mut Logger<LoggerBackend, Header>, level: Level, stamp: &str, text: &str) -> io::Result<()> {
    logger.formatter.stamp.clear();
    logger.formatter.stamp.push_str(stamp);
    let sent = match level {
        Level::Error => logger.err(text),
        Level::Warn => logger.warning(text),
        Level::Info => logger.info(text),
        Level::Debug | Level::Trace => logger.debug(text),
    };
    sent.map_err(plain)
}

/// The system's error inside the crate's error, if there is one.
fn plain(error: Error) -> io::Error {
    match error {
        Error::Io(error) | Error::Write(error) => error,
        Error::Initialization(inner) => match inner.downcast::<Error>() {
            Ok(error) => plain(*error),
            Err(other) => io::Error::other(other.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn received(logger: &UnixDatagram) -> String {
        let mut datagram = [0; 1024];
        let length = logger.recv(&mut datagram).unwrap();
        String::from_utf8_lossy(&datagram[..length]).into_owned()
    }

    #[test]
    fn a_restarted_logger_is_connected_to_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert!(Syslog::connect("pushd", Some(path.clone())).is_err());
        let logger = UnixDatagram::bind(&path).unwrap();
        let mut pen = Pen::new(crate::config::LogFormat::Text);
        let mut syslog = Syslog::connect("mine", Some(path.clone())).unwrap();
        let line = |level| Line::new(level, "hub", "hear\nthis".to_string());

        syslog.send(&line(Level::Info), &mut pen).unwrap();
        let first = received(&logger);
        assert!(first.starts_with("<30>"), "{first}");
        let end = format!(" mine[{}]: [hub#info] hear\\nthis", std::process::id());
        assert!(first.ends_with(&end), "{first}");
        assert_eq!(first.len(), "<30>Nov 20 21:08:03".len() + end.len());

        drop(logger);
        std::fs::remove_file(&path).unwrap();
        assert!(syslog.send(&line(Level::Info), &mut pen).is_err());
        let logger = UnixDatagram::bind(&path).unwrap();
        syslog.send(&line(Level::Error), &mut pen).unwrap();
        assert!(received(&logger).starts_with("<27>"));
    }
}
