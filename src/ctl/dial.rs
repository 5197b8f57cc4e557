//! The connection to a server, over TCP, TLS or a Unix socket, and one HTTP request with its response.

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::once;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, RETRY_AFTER, USER_AGENT};
use http::request::Builder;
use http::{Method, Request, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::fault::Fault;
use super::tls;
use super::url::{Address, Url};
use crate::config::duration_text;
use crate::config::limits::{
    CTL_ANSWER_BYTES_MAX, CTL_ANSWER_TIMEOUT, CTL_BODY_BYTES_UNASKED, CTL_CONNECT_TIMEOUT, CTL_CONTINUE_TIMEOUT,
};
use crate::daemon::exit::{Exit, reason};

/// The value of the User-Agent field.
pub(super) const AGENT: &str = concat!("pushctl/", env!("CARGO_PKG_VERSION"));

/// A connection of either kind.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of a request.
type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A response, read completely.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// The server's Retry-After in seconds, if it sent one.
    pub retry_after: Option<String>,
    /// Its body.
    pub body: Bytes,
}

/// Connects to the address of `url`.
pub(super) async fn dial(url: &Url) -> Result<Box<dyn Io>, Fault> {
    let encryption = if url.tls { Some((TlsConnector::from(tls::client()?), tls::name(url)?)) } else { None };
    let connecting = async {
        Ok::<Box<dyn Io>, io::Error>(match &url.address {
            Address::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                match encryption {
                    Some((connector, name)) => Box::new(connector.connect(name, stream).await?),
                    None => Box::new(stream),
                }
            }
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    };
    match timeout(CTL_CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(io)) => Ok(io),
        Ok(Err(error)) => Err(unreachable(url, &error)),
        Err(_) => {
            let limit = duration_text(CTL_CONNECT_TIMEOUT);
            let message = format!("cannot connect to {}: no answer within {limit}", url.address);
            Err(Fault::new(Exit::Unavailable, message))
        }
    }
}

/// The error for a failed connection, with a hint.
pub(super) fn unreachable(url: &Url, error: &io::Error) -> Fault {
    let hint = match error.kind() {
        ErrorKind::ConnectionRefused => ". Nothing listens there: is pushd running, and on that port?",
        ErrorKind::NotFound => ". There is no such socket: is pushd running?",
        ErrorKind::PermissionDenied => ". This user may not use the socket",
        ErrorKind::InvalidData if url.tls => tls::hint(error),
        _ => "",
    };
    Fault::new(Exit::Unavailable, format!("cannot connect to {}: {}{hint}", url.address, reason(error)))
}

/// A request to `url`, with the header fields that all requests have.
pub(super) fn request(method: Method, url: &Url) -> Builder {
    Request::builder().method(method).uri(&url.path).header(HOST, url.authority()).header(USER_AGENT, AGENT)
}

/// Sends one request and reads its response. A large body is sent only after the server has had time to refuse it.
pub(super) async fn exchange(url: &Url, request: Builder, body: Bytes) -> Result<Answer, Fault> {
    let request = with_body(request, body)
        .map_err(|error| Fault::new(Exit::Usage, format!("{url} cannot be requested: {error}")))?;
    let io = dial(url).await?;
    match timeout(CTL_ANSWER_TIMEOUT, ask(io, request)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(why)) => Err(Fault::new(Exit::Unavailable, format!("{} gave no proper answer: {why}", url.address))),
        Err(_) => {
            let limit = duration_text(CTL_ANSWER_TIMEOUT);
            Err(Fault::new(Exit::Unavailable, format!("{} did not answer within {limit}", url.address)))
        }
    }
}

/// A large body waits a moment for "100 Continue" (RFC 9110 §10.1.1), so that a server can refuse it first. Otherwise
/// the server might close the connection in the middle of the body, and its reason would be lost.
fn with_body(request: Builder, body: Bytes) -> http::Result<Request<Body>> {
    if body.len() <= CTL_BODY_BYTES_UNASKED {
        return request.body(Full::new(body).boxed_unsync());
    }
    let length = body.len();
    let welcome = Arc::new(Notify::new());
    let awaited = Arc::clone(&welcome);
    let frames = once(async move {
        // Not every server sends it. After the timeout the body is sent anyway.
        let _ = timeout(CTL_CONTINUE_TIMEOUT, awaited.notified()).await;
        Ok(Frame::data(body))
    });
    let request = request.header(CONTENT_LENGTH, length).header(EXPECT, "100-continue");
    let mut request = request.body(StreamBody::new(frames).boxed_unsync())?;
    hyper::ext::on_informational(&mut request, move |_| welcome.notify_one());
    Ok(request)
}

async fn ask(io: Box<dyn Io>, request: Request<Body>) -> Result<Answer, BoxError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    // Errors of the connection are also returned by the request.
    let connection = tokio::spawn(async move { drop(connection.await) });
    let response = sender.send_request(request).await?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, CTL_ANSWER_BYTES_MAX).collect().await?.to_bytes();
    connection.abort();
    let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Ok(Answer { status: head.status, retry_after, body })
}

/// Why a request was refused, from the status and the body of its answer.
pub(super) fn refusal(status: StatusCode, retry_after: Option<&str>, body: &[u8]) -> String {
    /// The length, in characters, at which a response is cut that is not a short sentence.
    const SENTENCE_MAX: usize = 300;
    let error = serde_json::from_slice::<serde_json::Value>(body).ok();
    let text = error.as_ref().and_then(|value| value.get("error")?.as_str().map(str::to_owned));
    let text = text.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    let line = text.trim().lines().next().unwrap_or("").trim();
    let mut text = match line.char_indices().nth(SENTENCE_MAX) {
        _ if line.is_empty() || line.starts_with('<') => status.to_string(),
        Some((end, _)) => format!("{}…, {status}", &line[..end]),
        None => format!("{line} ({status})"),
    };
    if let Some(seconds) = retry_after {
        text.push_str(&format!("; it asks to be tried again after {seconds} s"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_reported_in_the_servers_words() {
        let reported = |status, body: &str| refusal(status, None, body.as_bytes());
        let json = "{\"error\":\"missing argument `userid`\"}\n";
        assert_eq!(reported(StatusCode::BAD_REQUEST, json), "missing argument `userid` (400 Bad Request)");
        assert_eq!(reported(StatusCode::NOT_FOUND, "no such path\n"), "no such path (404 Not Found)");
        assert_eq!(reported(StatusCode::BAD_GATEWAY, "<html>\n<b>502</b>"), "502 Bad Gateway");
        assert_eq!(reported(StatusCode::FORBIDDEN, ""), "403 Forbidden");
        assert!(reported(StatusCode::FORBIDDEN, &"ä".repeat(5000)).len() < 1000);
        let later = refusal(StatusCode::SERVICE_UNAVAILABLE, Some("1"), b"{\"error\":\"full\"}");
        assert_eq!(later, "full (503 Service Unavailable); it asks to be tried again after 1 s");
    }
}
