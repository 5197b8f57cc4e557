//! `pushctl subscribe`: prints the messages of a WebSocket route, one a line.

use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use super::talk::{Plan, talk};
use super::url::Url;
use super::websocket::{self, Options, Printer};
use super::{Outcome, block_on, duration};

const EXAMPLES: &str = "\
Examples:
  pushctl subscribe ws://127.0.0.1:8888/ws
  pushctl subscribe 'ws://127.0.0.1:8888/ws?channel=news'
  pushctl subscribe --count 1 --timeout 30s ws://127.0.0.1:9876/
  pushctl subscribe --origin https://example.com ws://127.0.0.1:8888/ws

Standard error has 'opened' once messages can come, and 'closed CODE REASON' at the end. \
The exit code is 0 if the close was 1000 or 1001 and no message that --count asked for is missing.";

/// Print what comes over a WebSocket, one message a line
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Subscribe {
    /// End after N messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// End after so long, as in 500ms, 10s, 2m; a bare number is in seconds
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,

    /// Connect as a page of this origin would
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<String>,

    /// Print binary messages as they are, with nothing added [default: "(N bytes)"]
    #[arg(long)]
    binary: bool,

    /// The WebSocket route, as in ws://127.0.0.1:8888/ws
    url: Url,
}

impl Subscribe {
    pub fn run(&self) -> Outcome {
        block_on(async {
            let options = Options { origin: self.origin.clone(), subprotocol: None };
            let socket = websocket::open(&self.url, &options).await?;
            let deadline = self.timeout.map(|timeout| Instant::now() + timeout);
            talk(socket, Printer::new(self.binary), Plan { count: self.count, deadline, ..Plan::default() }).await
        })
    }
}
