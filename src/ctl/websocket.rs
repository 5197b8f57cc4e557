//! Opens a WebSocket, and prints its messages.

use std::io::{self, ErrorKind, IsTerminal, Stdout, Write};

use http::header::{HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_PROTOCOL, USER_AGENT};
use tokio::time::timeout;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tungstenite::client::IntoClientRequest;
use tungstenite::error::{Error, ProtocolError, SubProtocolError};
use tungstenite::handshake::client::Request;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Bytes, Message};

use super::dial::{AGENT, Io, dial, refusal};
use super::fault::Fault;
use super::url::Url;
use crate::config::duration_text;
use crate::config::limits::{CTL_ANSWER_TIMEOUT, MESSAGE_BYTES_CEILING};
use crate::daemon::exit::{Exit, reason};

/// An open WebSocket.
pub(super) type Socket = WebSocketStream<Box<dyn Io>>;

/// Optional header fields of the handshake.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// The value of Origin.
    pub origin: Option<String>,
    /// The subprotocol to offer.
    pub subprotocol: Option<String>,
}

/// Opens a WebSocket, and reports that on standard error.
pub(super) async fn open(url: &Url, options: &Options) -> Result<Socket, Fault> {
    let request = request(url, options)?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_CEILING))
        .max_frame_size(Some(MESSAGE_BYTES_CEILING));
    let io = dial(url).await?;
    match timeout(CTL_ANSWER_TIMEOUT, client_async_with_config(request, io, Some(config))).await {
        Ok(Ok((socket, answer))) => {
            match answer.headers().get(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok()) {
                Some(spoken) => print_status(&format!("opened, subprotocol {spoken}")),
                None => print_status("opened"),
            }
            Ok(socket)
        }
        Ok(Err(error)) => Err(not_opened(url, &error)),
        Err(_) => {
            let limit = duration_text(CTL_ANSWER_TIMEOUT);
            Err(Fault::new(Exit::Unavailable, format!("{} did not answer within {limit}", url.address)))
        }
    }
}

fn request(url: &Url, options: &Options) -> Result<Request, Fault> {
    let text = format!("ws://{}{}", url.authority(), url.path);
    let mut request = text
        .into_client_request()
        .map_err(|error| Fault::new(Exit::Usage, format!("{url} cannot be requested: {error}")))?;
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    let given: [(HeaderName, &str, &Option<String>); 2] =
        [(ORIGIN, "--origin", &options.origin), (SEC_WEBSOCKET_PROTOCOL, "--subprotocol", &options.subprotocol)];
    for (name, switch, value) in given {
        if let Some(text) = value {
            let value = HeaderValue::from_str(text).map_err(|_| {
                Fault::new(Exit::Usage, format!("{switch} {text:?} has characters that no header may have"))
            })?;
            headers.insert(name, value);
        }
    }
    Ok(request)
}

fn not_opened(url: &Url, error: &Error) -> Fault {
    match error {
        Error::Http(answer) if answer.status().is_success() => {
            let status = answer.status();
            Fault::failed(format!("{url} was not opened: it answers {status}, but serves no WebSocket"))
        }
        Error::Http(answer) => {
            let retry_after = answer.headers().get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
            let body = answer.body().as_deref().unwrap_or_default();
            Fault::failed(format!("{url} was not opened: {}", refusal(answer.status(), retry_after, body)))
        }
        Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(SubProtocolError::NoSubProtocol)) => {
            Fault::failed(format!("{url} was not opened: the server does not support the requested subprotocol"))
        }
        Error::Io(error) => {
            Fault::new(Exit::Unavailable, format!("{} gave no proper answer: {}", url.address, reason(error)))
        }
        _ => Fault::failed(format!("{url} was not opened, its answer is not a WebSocket handshake: {error}")),
    }
}

/// Prints one line on standard error. Scripts parse these lines.
pub(super) fn print_status(line: &str) {
    // If standard error is closed, the line is lost.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints received messages, one a line.
#[derive(Debug)]
pub(super) struct Printer {
    out: Stdout,
    /// Escape control characters: data from the network must not control the terminal.
    escape: bool,
    raw: bool,
}

impl Printer {
    /// A printer to standard output. If `raw`, binary messages are printed unchanged.
    pub fn new(raw: bool) -> Printer {
        let out = io::stdout();
        let escape = out.is_terminal();
        Printer { out, escape, raw }
    }

    /// Prints one message. Returns whether the output is still read.
    pub fn print(&mut self, message: &Message) -> Result<bool, Fault> {
        let written = match message {
            Message::Text(text) => self.print_text(text),
            Message::Binary(bytes) => self.print_binary(bytes),
            _ => Ok(()),
        };
        match written.and_then(|()| self.out.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Fault::io("cannot write the output", &error)),
        }
    }

    fn print_text(&mut self, text: &str) -> io::Result<()> {
        if self.escape {
            return writeln!(self.out, "{}", shown(text));
        }
        self.out.write_all(text.as_bytes())?;
        self.out.write_all(b"\n")
    }

    fn print_binary(&mut self, bytes: &Bytes) -> io::Result<()> {
        match bytes.len() {
            _ if self.raw => self.out.write_all(bytes),
            1 => writeln!(self.out, "(1 byte)"),
            n => writeln!(self.out, "({n} bytes)"),
        }
    }
}

/// `text` with control characters escaped.
fn shown(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, c| {
        match c {
            '\n' | '\t' => shown.push(c),
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
        shown
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_control_the_terminal() {
        assert_eq!(shown("plain: ä\tb\nc"), "plain: ä\tb\nc");
        assert_eq!(shown("\u{1b}[2J\u{7}\u{9b}x\r"), "\\u{1b}[2J\\u{7}\\u{9b}x\\r");
    }

    #[test]
    fn the_handshake_has_the_given_options() {
        let url: Url = "http://[::1]:8888/ws?a=b".parse().unwrap();
        let options = Options { origin: Some("http://x".into()), subprotocol: Some("chat".into()) };
        let asked = request(&url, &options).unwrap();
        let field = |name: &str| asked.headers().get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!((field("host"), field("origin")), ("[::1]:8888".into(), "http://x".into()));
        assert_eq!(field("sec-websocket-protocol"), "chat");
        assert_eq!(asked.uri().path_and_query().unwrap(), "/ws?a=b");
        let options = Options { origin: Some("a\nb".into()), subprotocol: None };
        assert_eq!(request(&url, &options).unwrap_err().code, 64);
    }
}
