//! A conversation over one WebSocket: lines go out, messages come in and are printed, until there is enough of it.
//!
//! Both directions run at once, so that a server that answers before it has heard all is never waited for in vain.

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
use super::websocket::{Printer, Socket, tell};
use super::{FAILED, Outcome, say};
use crate::config::limits::CLOSE_TIMEOUT;
use crate::daemon::exit::Exit;

/// What a second Ctrl-C ends with, as shells count a process that the signal ended.
const EXIT_INTERRUPTED: i32 = 130;
/// The connection ended without a closing handshake (RFC 6455 §7.1.5).
const ABNORMAL: u16 = 1006;
/// The closing handshake named no code.
const NO_CODE: u16 = 1005;

/// When there is enough of a conversation.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// What is sent; `None`: nothing ever.
    pub lines: Option<mpsc::Receiver<String>>,
    /// Enough after so many messages. `None`: after as many as lines were sent, once all were.
    pub count: Option<u64>,
    /// Enough at this time, whatever came.
    pub deadline: Option<Instant>,
    /// How long answers to the lines are waited for once all are sent; `None`: not at all.
    pub patience: Option<Duration>,
}

/// Why a conversation came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// All that was wanted was heard.
    Enough,
    /// Time was up.
    Late,
    /// Ctrl-C, or nobody reads the output any more.
    Unwanted,
    /// The server ended it, or something between.
    Closed,
}

/// One end of a conversation.
struct Talk {
    sink: SplitSink<Socket, Message>,
    stream: SplitStream<Socket>,
    printer: Printer,
    heard: u64,
    wanted: Option<u64>,
    /// What the server said at the end, or what became of the connection.
    closed: Option<(u16, String)>,
}

/// Talks until the plan is fulfilled or the server ends it; closes with 1000 where nobody has, and says how it went.
pub(super) async fn talk(socket: Socket, printer: Printer, plan: Plan) -> Outcome {
    let mut interrupt = Interrupt::install().map_err(|error| Fault::io("cannot install a signal handler", &error))?;
    let all_that_comes = plan.count.is_none();
    let (sink, stream) = socket.split();
    let mut talk = Talk { sink, stream, printer, heard: 0, wanted: plan.count, closed: None };
    let why = talk.converse(plan, &mut interrupt).await?;
    // What still comes while it closes belongs to the conversation, unless an exact number was asked for.
    talk.close(all_that_comes && why != Why::Unwanted).await?;
    let (code, reason) = talk.closed.unwrap_or((ABNORMAL, "the server did not answer the close".to_owned()));
    tell(format!("closed {code} {reason}").trim_end());
    if let Some(wanted) = talk.wanted.filter(|wanted| talk.heard < *wanted && why != Why::Unwanted) {
        let late = if why == Why::Late { " in time" } else { "" };
        let hint = match talk.heard == 0 && all_that_comes {
            true => "; the route must echo or broadcast (on_message)",
            false => "",
        };
        say(&format!("{} of {wanted} messages came{late}{hint}", talk.heard));
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
            if self.wanted.is_some_and(|wanted| self.heard >= wanted) {
                return Ok(Why::Enough);
            }
            tokio::select! {
                biased;
                () = interrupt.wait() => return Ok(Why::Unwanted),
                message = self.stream.next() => match message {
                    Some(Ok(message)) if is_application(&message) => {
                        self.heard += 1;
                        if !self.printer.print(&message)? {
                            return Ok(Why::Unwanted);
                        }
                    }
                    Some(Ok(Message::Close(frame))) => {
                        self.closed = Some(said(frame));
                        return Ok(Why::Closed);
                    }
                    Some(Ok(_)) => {}
                    end => {
                        self.closed = Some(lost(end.and_then(Result::err)));
                        return Ok(Why::Closed);
                    }
                },
                lines = &mut sending, if !all_sent => {
                    all_sent = true;
                    match (lines, plan.patience) {
                        (Ok(lines), Some(patience)) => {
                            self.wanted = Some(lines);
                            deadline = deadline.or(Some(Instant::now() + patience));
                        }
                        (Ok(_), None) => return Ok(Why::Enough),
                        // The server has its reason, and the stream will have it too.
                        (Err(_), _) => deadline = Some(Instant::now() + CLOSE_TIMEOUT),
                    }
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    return Ok(Why::Late);
                }
            }
        }
    }

    /// The closing handshake: ours, or the answer to the server's, which the socket writes while it is read.
    async fn close(&mut self, print: bool) -> Result<(), Fault> {
        let closing = async {
            if self.closed.is_none() {
                let farewell = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                // A server that is gone is noticed below.
                let _ = self.sink.send(Message::Close(Some(farewell))).await;
            }
            while let Some(message) = self.stream.next().await {
                match message {
                    Ok(Message::Close(frame)) => self.closed = Some(said(frame)),
                    Ok(message) if print && is_application(&message) => {
                        self.heard += 1;
                        self.printer.print(&message)?;
                    }
                    Ok(_) => {}
                    Err(error) => {
                        self.closed.get_or_insert_with(|| lost(Some(error)));
                        break;
                    }
                }
            }
            Ok(())
        };
        timeout(CLOSE_TIMEOUT, closing).await.unwrap_or(Ok(()))
    }
}

/// Sends every line; how many there were.
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

fn said(frame: Option<CloseFrame>) -> (u16, String) {
    match frame {
        Some(frame) => (frame.code.into(), frame.reason.escape_debug().to_string()),
        None => (NO_CODE, "the server named no code".to_owned()),
    }
}

fn lost(error: Option<Error>) -> (u16, String) {
    let why = match error {
        None | Some(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
            "the connection was cut without a closing handshake".to_owned()
        }
        Some(Error::Io(error)) => format!("the connection was lost: {}", crate::daemon::exit::reason(&error)),
        Some(error) => format!("what came was no WebSocket: {error}"),
    };
    (ABNORMAL, why)
}

/// SIGINT and SIGTERM, the first of which ends the conversation politely and the second at once.
struct Interrupt(UnixStream);

impl Interrupt {
    fn install() -> io::Result<Interrupt> {
        let (wake, write) = std::os::unix::net::UnixStream::pair()?;
        let armed = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Before the flag: the signal that arms it must not be the one that fires.
            flag::register_conditional_shutdown(signal, EXIT_INTERRUPTED, Arc::clone(&armed))?;
            flag::register(signal, Arc::clone(&armed))?;
            low_level::pipe::register(signal, write.try_clone()?)?;
        }
        wake.set_nonblocking(true)?;
        Ok(Interrupt(UnixStream::from_std(wake)?))
    }

    async fn wait(&mut self) {
        // The handlers hold the other end, so there is no end of file.
        let _ = self.0.read_u8().await;
    }
}
