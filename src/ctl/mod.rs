//! `pushctl`: what operators and users say to a pushd, over the same HTTP, WebSocket, pidfile and signals anyone can use.
//!
//! ```text
//! publish                 url -> dial -> one request, one answer
//! subscribe  connect      url -> dial -> websocket -> talk
//! check  config  diff     config; check also unit: what systemd makes of it
//! stop  reload  status    place: which pidfile, whether its lock is held, by whom
//! bench                   url -> a room of its own, without the runtime
//! completions             the definition of the command line below
//! ```
//!
//! Standard output has what was asked for, standard error what there is to say about it, and the exit code is one of
//! [`Exit`]'s, or [`FAILED`], or [`NOT_RUNNING`]. One runtime on one thread; nothing here is imported by the daemon.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::daemon::exit::{self, Exit};
use crate::daemon::journal;
use crate::daemon::usage;

pub mod bench;
mod check;
mod completions;
mod config;
mod connect;
mod dial;
mod diff;
mod fault;
mod place;
mod publish;
mod reload;
mod status;
mod stop;
mod subscribe;
mod talk;
mod unit;
mod url;
mod websocket;

pub use fault::Fault;

/// It was understood and tried, and did not come out as asked.
pub const FAILED: u8 = 1;
/// `status`: nobody holds the pidfile (as systemctl and the LSB have it).
pub const NOT_RUNNING: u8 = 3;

/// Where the configuration is unless a command says otherwise: where pushd itself looks.
const CONFIG: &str = "/etc/pushd/config.toml";

/// What a command comes to: the exit code, or why there was no way to have it.
type Outcome = Result<u8, Fault>;

const EXAMPLES: &str = "\
Examples:
  pushctl check hub.toml                          everything wrong with a file
  pushctl config show hub.toml                    every key, and who says it
  pushctl diff new.toml                           what a reload would change
  pushctl publish news 'It works'                 to a channel of the pushd here
  uptime | pushctl publish load                   what another program says
  pushctl subscribe 'ws://127.0.0.1:8888/ws?channel=news'
  pushctl connect ws://127.0.0.1:8888/ws 'Hello Chetan'
  pushctl status; pushctl reload; pushctl stop    the one here, or in /run/pushd
  pushctl stop -c hub.toml                        the one that runs on this file
  pushctl bench ws://127.0.0.1:8888/chat/a        how fast a route broadcasts

Exit codes: 0 as asked; 1 refused or failed; 3 not running (status); 64 usage; 69 cannot be reached; \
71 the system refused; 77 no permission; 78 bad configuration.";

/// Talk to pushd: publish, listen, look, stop.
#[derive(Debug, Parser)]
#[command(name = "pushctl", bin_name = "pushctl", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(disable_help_subcommand = true)]
struct Ctl {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Check),
    Config(config::Config),
    Diff(diff::Diff),
    Publish(publish::Publish),
    Subscribe(subscribe::Subscribe),
    Connect(connect::Connect),
    Status(status::Status),
    Reload(reload::Reload),
    Stop(stop::Stop),
    Bench(bench::Bench),
    Completions(completions::Completions),
}

/// The whole program.
pub fn main() -> ExitCode {
    let ctl = match Ctl::try_parse().map_err(usage::with_tip) {
        Ok(ctl) => ctl,
        Err(error) => {
            // Nowhere to print to is no reason for another code.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Clean.into() };
        }
    };
    let outcome = match ctl.command {
        Command::Check(check) => check.run(),
        Command::Config(config) => config.run(),
        Command::Diff(diff) => diff.run(),
        Command::Publish(publish) => publish.run(),
        Command::Subscribe(subscribe) => subscribe.run(),
        Command::Connect(connect) => connect.run(),
        Command::Status(status) => status.run(),
        Command::Reload(reload) => reload.run(),
        Command::Stop(stop) => stop.run(),
        Command::Bench(bench) => bench.run(),
        Command::Completions(completions) => completions.run(),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(fault) => {
            journal::say(log::Level::Error, &format!("pushctl: {}", fault.message));
            ExitCode::from(fault.code)
        }
    }
}

/// Runs what needs a network to its end.
fn block_on(outcome: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Fault::io("cannot start a runtime", &error))?;
    let outcome = runtime.block_on(outcome);
    // A name that is still being looked up would be waited for.
    runtime.shutdown_background();
    outcome
}

/// One line to standard error, under the program's name.
fn say(message: &str) {
    use std::io::Write;
    // Who closed standard error does not want to know.
    let _ = writeln!(std::io::stderr(), "pushctl: {message}");
}

fn print(text: &str) -> Result<(), Fault> {
    exit::print(text).map_err(|error| Fault::io("cannot write the output", &error))
}

/// A duration as the configuration writes it; a bare number is in seconds, as `timeout` and `curl` take it.
fn duration(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return crate::config::duration(&format!("{text}s"));
    }
    crate::config::duration(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Ctl::command().debug_assert();
    }

    #[test]
    fn examples_fit_80_columns_and_prose_is_left_to_be_wrapped() {
        let ctl = Ctl::command();
        let told = ctl.get_subcommands().chain([&ctl]).filter_map(clap::Command::get_after_help);
        let told: Vec<String> = told.map(ToString::to_string).collect();
        assert!(told.len() > 5, "{told:?}");
        for text in told {
            let lines: Vec<&str> = text.lines().collect();
            let is_prose = |line: &str| !line.is_empty() && !line.starts_with(' ');
            let example = lines.iter().find(|line| line.starts_with(' ') && line.chars().count() > 80);
            assert_eq!(example, None);
            let broken = lines.windows(2).find(|two| is_prose(two[0]) && is_prose(two[1]));
            assert_eq!(broken, None);
        }
    }

    #[test]
    fn a_bare_number_is_in_seconds() {
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "1.5s", "-1", "soon", "99999999999999999999"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
