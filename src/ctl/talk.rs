//! A conversation over one WebSocket: sends lines and prints received messages until an end condition is met.
//!
//! Both directions run at once: a server may answer before it has received all lines.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tungstenite::Message;
use tungstenite::error::{Error, ProtocolError};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;

use super::fault::Fault;
use super::websocket::{Printer, Socket, print_status};
use super::{FAILED, Outcome, notice};
use crate::config::limits::CLOSE_TIMEOUT;
use crate::daemon::exit::Exit;

/// The exit code after a second Ctrl-C, as shells report a process that a signal ended.
const EXIT_INTERRUPTED: i32 = 130;
/// The connection ended without a closing handshake (RFC 6455 §7.1.5).
const ABNORMAL: u16 = 1006;
/// The close frame had no code.
const NO_CODE: u16 = 1005;

/// The end conditions of a conversation.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The lines to send; `None` to send nothing.
    pub lines: Option<mpsc::Receiver<String>>,
    /// End after this number of messages. `None`: after as many messages as lines, once all lines were sent.
    pub count: Option<u64>,
    /// End at this time in any case.
    pub deadline: Option<Instant>,
    /// How long to wait for answers once all lines were sent; `None` for not at all.
    pub answer_timeout: Option<Duration>,
}

/// Why a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// All wanted messages were received.
    Enough,
    /// The deadline has passed.
    Late,
    /// Ctrl-C, or the reader of the output has gone.
    Unwanted,
    /// The server or something on the way closed the connection.
    Closed,
}

/// The state of a conversation.
struct Talk {
    sink: SplitSink<Socket, Message>,
    stream: SplitStream<Socket>,
    printer: Printer,
    received: u64,
    wanted: Option<u64>,
    /// The close code and reason, or how the connection was lost.
    closed: Option<(u16, String)>,
}

/// Runs the conversation until an end condition is met or the server closes. Closes with 1000 if the server did not,
/// and reports the outcome.
pub(super) async fn talk(socket: Socket, printer: Printer, plan: Plan) -> Outcome {
    let mut interrupt = Interrupt::install().map_err(|error| Fault::io("cannot install a signal handler", &error))?;
    let all_that_comes = plan.count.is_none();
    let (sink, stream) = socket.split();
    let mut talk = Talk { sink, stream, printer, received: 0, wanted: plan.count, closed: None };
    let why = talk.converse(plan, &mut interrupt).await?;
    // Messages that arrive during the close are printed, unless an exact number was requested.
    talk.close(all_that_comes && why != Why::Unwanted).await?;
    let (code, reason) = talk.closed.unwrap_or((ABNORMAL, "the server did not answer the close".to_owned()));
    print_status(format!("closed {code} {reason}").trim_end());
    if let Some(wanted) = talk.wanted.filter(|wanted| talk.received < *wanted && why != Why::Unwanted) {
        let late = if why == Why::Late { " in time" } else { "" };
        let hint = match talk.received == 0 && all_that_comes {
            true => "; the route must echo or broadcast (on_message)",
            false => "",
        };
        notice(&format!("{} of {wanted} messages came{late}{hint}", talk.received));
        return Ok(FAILED);
    }
    Ok(if matches!(code, 1000 | 1001) { Exit::Clean.code() } else { FAILED })
}

impl Talk {
    async fn converse(&mut self, plan: Plan, interrupt: &mut Interrupt) -> Result<Why, Fault> {
        let mut sending = pin!(send_all(&mut self.sink, plan.lines));
        let mut deadline = plan.deadline;
        let mut all_sent = false;
        loop {
            if self.wanted.is_some_and(|wanted| self.received >= wanted) {
                return Ok(Why::Enough);
            }
            tokio::select! {
                biased;
                () = interrupt.wait() => return Ok(Why::Unwanted),
                message = self.stream.next() => match message {
                    Some(Ok(message)) if is_application(&message) => {
                        self.received += 1;
                        if !self.printer.print(&message)? {
                            return Ok(Why::Unwanted);
                        }
                    }
                    Some(Ok(Message::Close(frame))) => {
                        self.closed = Some(close_reason(frame));
                        return Ok(Why::Closed);
                    }
                    Some(Ok(_)) => {}
                    end => {
                        self.closed = Some(loss(end.and_then(Result::err)));
                        return Ok(Why::Closed);
                    }
                },
                lines = &mut sending, if !all_sent => {
                    all_sent = true;
                    match (lines, plan.answer_timeout) {
                        (Ok(lines), Some(timeout)) => {
                            self.wanted = Some(lines);
                            deadline = deadline.or(Some(Instant::now() + timeout));
                        }
                        (Ok(_), None) => return Ok(Why::Enough),
                        // The server had a reason, which is still to be read from the stream.
                        (Err(_), _) => deadline = Some(Instant::now() + CLOSE_TIMEOUT),
                    }
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    return Ok(Why::Late);
                }
            }
        }
    }

    /// Runs the closing handshake. If the server closed first, the socket sends the answer while it is read.
    async fn close(&mut self, print: bool) -> Result<(), Fault> {
        let closing = async {
            if self.closed.is_none() {
                let farewell = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                // If the connection is gone, the loop below notices it.
                let _ = self.sink.send(Message::Close(Some(farewell))).await;
            }
            while let Some(message) = self.stream.next().await {
                match message {
                    Ok(Message::Close(frame)) => self.closed = Some(close_reason(frame)),
                    Ok(message) if print && is_application(&message) => {
                        self.received += 1;
                        self.printer.print(&message)?;
                    }
                    Ok(_) => {}
                    Err(error) => {
                        self.closed.get_or_insert_with(|| loss(Some(error)));
                        break;
                    }
                }
            }
            Ok(())
        };
        timeout(CLOSE_TIMEOUT, closing).await.unwrap_or(Ok(()))
    }
}

/// Sends all lines. Returns their number.
async fn send_all(
    sink: &mut SplitSink<Socket, Message>,
    lines: Option<mpsc::Receiver<String>>,
) -> Result<u64, Box<Error>> {
    let Some(mut lines) = lines else { return std::future::pending().await };
    let mut sent = 0;
    while let Some(line) = lines.recv().await {
        sink.send(Message::text(line)).await?;
        sent += 1;
    }
    Ok(sent)
}

fn is_application(message: &Message) -> bool {
    matches!(message, Message::Text(_) | Message::Binary(_))
}

fn close_reason(frame: Option<CloseFrame>) -> (u16, String) {
    match frame {
        Some(frame) => (frame.code.into(), frame.reason.escape_debug().to_string()),
        None => (NO_CODE, "the server named no code".to_owned()),
    }
}

fn loss(error: Option<Error>) -> (u16, String) {
    let why = match error {
        None | Some(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
            "the connection was cut without a closing handshake".to_owned()
        }
        Some(Error::Io(error)) => format!("the connection was lost: {}", crate::daemon::exit::reason(&error)),
        Some(error) => format!("the data received is not WebSocket: {error}"),
    };
    (ABNORMAL, why)
}

/// SIGINT and SIGTERM: the first ends the conversation gracefully, the second ends the program at once.
struct Interrupt(UnixStream);

impl Interrupt {
    fn install() -> io::Result<Interrupt> {
        let (wake, write) = std::os::unix::net::UnixStream::pair()?;
        let armed = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Before the flag: the signal that arms it must not be the one that triggers it.
            flag::register_conditional_shutdown(signal, EXIT_INTERRUPTED, Arc::clone(&armed))?;
            flag::register(signal, Arc::clone(&armed))?;
            low_level::pipe::register(signal, write.try_clone()?)?;
        }
        wake.set_nonblocking(true)?;
        Ok(Interrupt(UnixStream::from_std(wake)?))
    }

    async fn wait(&mut self) {
        // The handlers hold the other end, so there is never an end of file.
        let _ = self.0.read_u8().await;
    }
}
