//! `pushctl`: the command line of operators and users. It uses only interfaces that are open to everyone: HTTP,
//! WebSocket, pidfile and signals.
//!
//! ```text
//! publish                 url -> dial -> one request, one response
//! subscribe  connect      url -> dial -> websocket -> talk          dial uses tls for https and wss
//! check  config  diff     config; check also unit: the start of a systemd unit
//! stop  reload  status    instance: which pidfile, whether it is locked, by which process
//! bench                   url -> a module of its own, without the runtime
//! key                     a file with a new secret
//! token                   config; grant makes the verdict
//! store                   the store's files, beside a running pushd or without one
//! completions             the definition of the command line below
//! ```
//!
//! Results go to standard output, messages to standard error. The exit code is one of [`Exit`]'s, or [`FAILED`], or
//! [`NOT_RUNNING`]. There is one runtime on one thread. The daemon imports nothing from here.

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
mod instance;
mod key;
mod publish;
mod reload;
mod status;
mod stop;
mod store;
mod subscribe;
mod talk;
mod tls;
mod token;
mod unit;
mod url;
mod websocket;

pub use fault::Fault;

/// The command was valid and was tried, but failed.
pub const FAILED: u8 = 1;
/// `status`: no process holds the pidfile (the code that systemctl and the LSB use).
pub const NOT_RUNNING: u8 = 3;

/// The default path of the configuration, the same as pushd's.
const CONFIG: &str = "/etc/pushd/config.toml";

/// The exit code of a command, or why it failed.
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
    Key(key::KeyCommand),
    Token(token::TokenCommand),
    Subscribe(subscribe::Subscribe),
    Connect(connect::Connect),
    Status(status::Status),
    Reload(reload::Reload),
    Stop(stop::Stop),
    Bench(bench::Bench),
    Store(store::StoreCommand),
    Completions(completions::Completions),
}

/// The whole program.
pub fn main() -> ExitCode {
    let ctl = match Ctl::try_parse().map_err(usage::with_tip) {
        Ok(ctl) => ctl,
        Err(error) => {
            // A failure to print does not change the exit code.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Clean.into() };
        }
    };
    let outcome = match ctl.command {
        Command::Check(check) => check.run(),
        Command::Config(config) => config.run(),
        Command::Diff(diff) => diff.run(),
        Command::Publish(publish) => publish.run(),
        Command::Key(key) => key.run(),
        Command::Token(token) => token.run(),
        Command::Subscribe(subscribe) => subscribe.run(),
        Command::Connect(connect) => connect.run(),
        Command::Status(status) => status.run(),
        Command::Reload(reload) => reload.run(),
        Command::Stop(stop) => stop.run(),
        Command::Bench(bench) => bench.run(),
        Command::Store(store) => store.run(),
        Command::Completions(completions) => completions.run(),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(fault) => {
            journal::print(log::Level::Error, &format!("pushctl: {}", fault.message));
            ExitCode::from(fault.code)
        }
    }
}

/// Runs a command that uses the network.
fn block_on(outcome: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Fault::io("cannot start a runtime", &error))?;
    let outcome = runtime.block_on(outcome);
    // Do not wait for a name that is still being looked up.
    runtime.shutdown_background();
    outcome
}

/// Prints one line on standard error, with the program's name.
fn notice(message: &str) {
    use std::io::Write;
    // If standard error is closed, the message is lost.
    let _ = writeln!(std::io::stderr(), "pushctl: {message}");
}

fn print(text: &str) -> Result<(), Fault> {
    exit::print(text).map_err(|error| Fault::io("cannot write the output", &error))
}

/// A duration in the syntax of the configuration. A plain number is in seconds, as for `timeout` and `curl`.
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
    fn the_command_line_definition_is_valid() {
        Ctl::command().debug_assert();
    }

    #[test]
    fn examples_fit_80_columns_and_prose_is_not_wrapped_by_hand() {
        let ctl = Ctl::command();
        let texts = ctl.get_subcommands().chain([&ctl]).filter_map(clap::Command::get_after_help);
        let texts: Vec<String> = texts.map(ToString::to_string).collect();
        assert!(texts.len() > 5, "{texts:?}");
        for text in texts {
            let lines: Vec<&str> = text.lines().collect();
            let is_prose = |line: &str| !line.is_empty() && !line.starts_with(' ');
            let example = lines.iter().find(|line| line.starts_with(' ') && line.chars().count() > 80);
            assert_eq!(example, None);
            let broken = lines.windows(2).find(|two| is_prose(two[0]) && is_prose(two[1]));
            assert_eq!(broken, None);
        }
    }

    #[test]
    fn a_plain_number_is_in_seconds() {
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "1.5s", "-1", "soon", "99999999999999999999"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
