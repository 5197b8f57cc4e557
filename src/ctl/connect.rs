//! `pushctl connect`: opens a WebSocket, sends lines, prints received messages, closes.

use std::io::{BufRead, IsTerminal};
use std::time::Duration;

use clap::Args;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::fault::Fault;
use super::talk::{Plan, talk};
use super::url::Url;
use super::websocket::{self, Options, Printer};
use super::{Outcome, block_on, duration, notice};
use crate::config::limits::CTL_ANSWERS_TIMEOUT;

/// Lines of standard input that may be queued for the network. Reading waits while the queue is full.
const LINES_AHEAD: usize = 16;

const EXAMPLES: &str = "\
Examples:
  pushctl connect ws://127.0.0.1:8888/ws 'Hello Chetan'     a route that echoes
  pushctl connect --timeout 1s ws://127.0.0.1:5000/ one two three
  pushctl connect ws://127.0.0.1:8888/ws                    until Ctrl-D
  seq 3 | pushctl connect ws://127.0.0.1:8888/ws

With LINEs, or lines from a file or a pipe, as many messages are waited for as lines were sent. \
Standard error has 'opened', and 'closed CODE REASON' at the end. The exit code is 0 if the close was 1000 or 1001 and no answer is missing.";

/// Talk over a WebSocket: send lines, print what comes
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Connect {
    /// How long answers are waited for [default: 5s]; a bare number is in seconds
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,

    /// Offer this subprotocol, or several with commas between
    #[arg(long, value_name = "NAME")]
    subprotocol: Option<String>,

    /// Connect as a page of this origin would
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<String>,

    /// Print binary messages as they are, with nothing added [default: "(N bytes)"]
    #[arg(long)]
    binary: bool,

    /// The WebSocket route, as in ws://127.0.0.1:8888/ws
    url: Url,

    /// What to send, a message each; "--" before one that begins with a dash [default: the lines of standard input]
    #[arg(value_name = "LINE", allow_negative_numbers = true)]
    lines: Vec<String>,
}

impl Connect {
    pub fn run(&self) -> Outcome {
        block_on(async {
            let options = Options { origin: self.origin.clone(), subprotocol: self.subprotocol.clone() };
            let socket = websocket::open(&self.url, &options).await?;
            talk(socket, Printer::new(self.binary), self.plan()?).await
        })
    }

    fn plan(&self) -> Result<Plan, Fault> {
        let timeout = self.timeout.unwrap_or(CTL_ANSWERS_TIMEOUT);
        if self.lines.is_empty() {
            let typed = std::io::stdin().is_terminal();
            let lines = Some(lines_of_stdin()?);
            return Ok(Plan { lines, answer_timeout: (!typed).then_some(timeout), ..Plan::default() });
        }
        let (sender, lines) = mpsc::channel(self.lines.len());
        for line in &self.lines {
            // The channel has space for all of them.
            let _ = sender.try_send(line.clone());
        }
        let deadline = Some(Instant::now() + timeout);
        Ok(Plan { lines: Some(lines), deadline, answer_timeout: Some(timeout), ..Plan::default() })
    }
}

/// The lines of standard input. A thread of its own reads them, because a read that waits for input must block neither
/// the network nor the end of the program.
fn lines_of_stdin() -> Result<mpsc::Receiver<String>, Fault> {
    let (sender, lines) = mpsc::channel(LINES_AHEAD);
    let read = move || {
        for line in std::io::stdin().lock().lines() {
            match line {
                Ok(line) => {
                    if sender.blocking_send(line).is_err() {
                        return;
                    }
                }
                Err(error) => return notice(&format!("cannot read standard input: {error}")),
            }
        }
    };
    let thread = std::thread::Builder::new().name("stdin".to_owned()).spawn(read);
    thread.map_err(|error| Fault::io("cannot start a thread", &error))?;
    Ok(lines)
}
