//! `pushctl`: see [`pushd::ctl`].

use std::process::ExitCode;

fn main() -> ExitCode {
    pushd::ctl::main()
}
