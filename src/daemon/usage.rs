//! What is said of a command line that was not understood, of `pushd` as of `pushctl`.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The same mistake; one that looks like a configuration without its switch says how it is named.
pub fn with_tip(mut error: clap::Error) -> clap::Error {
    let found = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(found))) if found.ends_with(".toml") => found.clone(),
        _ => return error,
    };
    let tip = format!("a configuration is named with -c: -c {found}");
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    error
}
