//! The messages about a configuration.
//!
//! Every diagnostic has a location (file, line, column), the line itself, what was found and what would be right. All of them are
//! reported at once, in the order of the file. A [`Diagnostic`] is finished text, which `report` makes while the file is in memory.
//! [`Display`](fmt::Display) has several lines, for a terminal; [`Diagnostic::summary`] is one line, for a log.

use std::fmt;

/// How severe a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// pushd does not start with it, and a reload changes nothing.
    Error,
    /// It is allowed, but may be a mistake.
    Warning,
}

/// A location in a file, as editors count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

/// One error or warning.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnostic {
    pub(super) severity: Severity,
    pub(super) location: Option<Location>,
    pub(super) summary: String,
    pub(super) rendered: String,
    /// Whether this user has no permission to read the file.
    pub(super) denied: bool,
}

impl Diagnostic {
    /// How severe it is.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// Its location; `None`: it is about a file as a whole.
    pub fn location(&self) -> Option<Location> {
        self.location
    }

    /// One line: `pushd.toml:12:8: unknown key ...`.
    pub fn summary(&self) -> &str {
        &self.summary
    }
}

/// All errors and warnings of a configuration; never empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Errors(pub Vec<Diagnostic>);

impl Errors {
    /// Whether a file could not be read for lack of permission. Its content is unknown then.
    pub fn are_of_permission(&self) -> bool {
        self.0.iter().any(|diagnostic| diagnostic.denied)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rendered)
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.0 {
            writeln!(f, "{diagnostic}\n")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}
