//! What is wrong with a configuration, said to the operator.
//!
//! Every diagnostic has a place (file, line, column), the line itself, what was found and what would do. All of them are
//! reported at once, in the order of the file. A [`Diagnostic`] is finished text: `report` makes it while the file is
//! at hand, and nobody needs the file to show it later. [`Display`](fmt::Display) gives the full picture for a
//! terminal, [`Diagnostic::summary`] one line for a log.

use std::fmt;

/// Whether pushd can run with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Nothing starts, nothing changes.
    Error,
    /// Allowed, but worth a second look.
    Warning,
}

/// A place in the file, as an editor counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

/// One thing wrong (or worth a second look).
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnostic {
    pub(super) severity: Severity,
    pub(super) location: Option<Location>,
    pub(super) summary: String,
    pub(super) rendered: String,
    /// Whether this user may not read the file.
    pub(super) denied: bool,
}

impl Diagnostic {
    /// Whether pushd can run with it.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// Where it is; `None`: the file as a whole.
    pub fn location(&self) -> Option<Location> {
        self.location
    }

    /// One line: `pushd.toml:12:8: unknown key ...`.
    pub fn summary(&self) -> &str {
        &self.summary
    }
}

/// Everything wrong with a configuration, warnings included; never empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Errors(pub Vec<Diagnostic>);

impl Errors {
    /// Whether a file was not read for want of permission: nothing is known of what stands there.
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
