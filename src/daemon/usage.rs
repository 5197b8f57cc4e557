//! Messages about errors of the command line, for `pushd` and `pushctl`.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The same error. If an unexpected argument looks like a configuration file, a hint names the switch for it.
pub fn with_tip(mut error: clap::Error) -> clap::Error {
    let found = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(found))) if found.ends_with(".toml") => found.clone(),
        _ => return error,
    };
    let tip = format!("a configuration is named with -c: -c {found}");
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    error
}
