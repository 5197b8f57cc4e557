//! Why a configuration cannot be served.

use std::fmt;
use std::io;

use super::bind::BindError;
use crate::store::OpenError;

/// Why a configuration cannot be served.
#[derive(Debug)]
pub enum ServeError {
    /// An address could not be bound.
    Bind(BindError),
    /// The store could not be opened.
    Store(OpenError),
    /// The system refused something else.
    System(io::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Bind(error) => error.fmt(f),
            ServeError::Store(error) => error.fmt(f),
            ServeError::System(error) => write!(f, "cannot start serving: {error}"),
        }
    }
}

impl From<BindError> for ServeError {
    fn from(error: BindError) -> ServeError {
        ServeError::Bind(error)
    }
}

impl From<OpenError> for ServeError {
    fn from(error: OpenError) -> ServeError {
        ServeError::Store(error)
    }
}

impl From<io::Error> for ServeError {
    fn from(error: io::Error) -> ServeError {
        ServeError::System(error)
    }
}
