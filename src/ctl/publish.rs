//! `pushctl publish`: sends one message to a publish route by POST.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::dial::{self, Answer};
use super::fault::Fault;
use super::url::Url;
use super::{Outcome, block_on, print};
use crate::config::Secret;
use crate::config::limits::{BATCH_BYTES_MAX, MESSAGE_BYTES_CEILING};
use crate::daemon::exit::Exit;

/// The default publish route: that of the default configuration.
const URL: &str = "http://127.0.0.1:8888/publish/{channel}";

/// The characters that are not escaped in a channel's name as one segment of a path (RFC 3986, unreserved).
const IN_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const EXAMPLES: &str = "\
Examples:
  pushctl publish news 'It works'
  pushctl publish --url http://push.example/publish/{channel} news <message.json
  pushctl publish http://127.0.0.1:8888/publish/news 'It works'
  pushctl publish 'http://127.0.0.1:8888/pushtoall?message=hi'
  pushctl publish unix:/run/pushd/main.sock:/publish/news 'It works'
  pushctl publish --batch http://127.0.0.1:8888/batch <messages.ndjson

The answer of the server is printed: the channel, and how many subscribers it was queued for.";

/// Publish a message, and print the server's answer
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Publish {
    /// The publish route a channel goes to
    #[arg(long, value_name = "URL", default_value = URL)]
    url: String,

    /// Show the key in this file
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,

    /// Send the bytes as a binary message
    #[arg(long)]
    binary: bool,

    /// Send standard input as a batch: a JSON object with channel and data on each line, or an array of them.
    /// The target is the URL of a route with batch = true
    #[arg(long, conflicts_with_all = ["binary", "message", "url"])]
    batch: bool,

    /// A channel, or the whole URL of a publish route
    target: String,

    /// The message. Without it, or with "-", standard input is sent, without its last newline unless --binary.
    /// If the URL has a message= already, no message is needed
    // A number may be negative; a word with a dash needs `--`, or a misspelt switch would be published.
    #[arg(allow_negative_numbers = true)]
    message: Option<String>,
}

impl Publish {
    pub fn run(&self) -> Outcome {
        if self.batch {
            return self.send_batch();
        }
        let url = destination(&self.target, &self.url).map_err(|why| Fault::new(Exit::Usage, why))?;
        let message = self.read_message(&url)?;
        let key = self.key()?;
        block_on(publish(&url, key, message, self.binary))
    }

    fn send_batch(&self) -> Outcome {
        if !Url::is_meant(&self.target) {
            let why = format!(
                "--batch needs the address of a route, such as http://127.0.0.1:8888/batch, not '{}'",
                self.target
            );
            return Err(Fault::new(Exit::Usage, why));
        }
        let url = destination(&self.target, &self.url).map_err(|why| Fault::new(Exit::Usage, why))?;
        let input = std::io::stdin();
        if input.is_terminal() {
            super::notice("reading the messages from the terminal; Ctrl-D ends them");
        }
        let batch = read_up_to(BATCH_BYTES_MAX, "batch", input.lock())?;
        let key = self.key()?;
        block_on(publish_batch(&url, key, batch.into()))
    }

    /// The value of Authorization.
    fn key(&self) -> Result<Option<HeaderValue>, Fault> {
        let Some(file) = &self.key_file else { return Ok(None) };
        let content = std::fs::read(file);
        let content = content.map_err(|error| Fault::io(format!("cannot read {}", file.display()), &error))?;
        let shown = [b"Bearer ", Secret::new(&content).bytes()].concat();
        let value = HeaderValue::from_bytes(&shown);
        let mut value = value.map_err(|_| Fault::failed(format!("{} contains no key", file.display())))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn read_message(&self, url: &Url) -> Result<Bytes, Fault> {
        match self.message.as_deref() {
            Some(message) if message != "-" => Ok(Bytes::copy_from_slice(message.as_bytes())),
            None if url.has_argument("message") => Ok(Bytes::new()),
            _ => {
                let input = std::io::stdin();
                if input.is_terminal() {
                    super::notice("reading the message from the terminal; Ctrl-D ends it");
                }
                read_all(input.lock(), self.binary).map(Bytes::from)
            }
        }
    }
}

/// The URL that TARGET means. The error contains a hint.
fn destination(target: &str, template: &str) -> Result<Url, String> {
    if Url::is_meant(target) {
        return match template {
            URL => target.parse().map_err(|why| format!("'{target}': {why}")),
            _ => Err(format!("'{target}' is an address already: leave out --url, or name a channel")),
        };
    }
    let host = target.split('/').next().unwrap_or("");
    if host.parse::<std::net::SocketAddr>().is_ok() || host.starts_with("localhost:") {
        return Err(format!("'{target}' looks like an address without its scheme: 'http://{target}'"));
    }
    if target.is_empty() {
        return Err("the channel's name is empty".to_owned());
    }
    let channel = utf8_percent_encode(target, IN_SEGMENT).to_string();
    let bare = template.parse::<Url>().is_ok_and(|url| url.path == "/");
    let text = match template {
        _ if template.contains("{channel}") => template.replace("{channel}", &channel),
        _ if bare => format!("{}/publish/{channel}", template.trim_end_matches('/')),
        _ => return Err(format!("--url '{template}' has no {{channel}}: put it where the channel's name belongs")),
    };
    text.parse().map_err(|why| format!("--url '{template}': {why}"))
}

/// Reads all of standard input, up to the largest possible message.
fn read_all(input: impl Read, binary: bool) -> Result<Vec<u8>, Fault> {
    let mut message = read_up_to(MESSAGE_BYTES_CEILING, "message", input)?;
    if !binary {
        if message.ends_with(b"\n") {
            message.pop();
        }
        if std::str::from_utf8(&message).is_err() {
            return Err(Fault::failed("the message is not UTF-8 text: --binary would send it as it is"));
        }
    }
    Ok(message)
}

/// Reads all of `input`, up to `most` bytes of a message or a batch.
fn read_up_to(most: usize, what: &str, input: impl Read) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    let read = input.take(most as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Fault::io(format!("cannot read the {what} from standard input"), &error))?;
    if bytes.len() > most {
        return Err(Fault::failed(format!("no pushd takes a {what} of more than {} MiB", most >> 20)));
    }
    Ok(bytes)
}

async fn publish(url: &Url, key: Option<HeaderValue>, message: Bytes, binary: bool) -> Outcome {
    let media_type = if binary { "application/octet-stream" } else { "text/plain; charset=utf-8" };
    let answer = send(url, key, message, media_type).await?;
    print(&format!("{}\n", answer.trim_end()))?;
    Ok(Exit::Clean.code())
}

async fn publish_batch(url: &Url, key: Option<HeaderValue>, batch: Bytes) -> Outcome {
    let answer = send(url, key, batch, "application/x-ndjson").await?;
    print(&answer)?;
    let refused = answer.lines().filter(|line| line.starts_with("{\"error\"")).count();
    match refused {
        0 => Ok(Exit::Clean.code()),
        _ => Err(Fault::failed(format!("{refused} of {} messages were refused", answer.lines().count()))),
    }
}

/// Posts a body. Returns the body of the answer.
async fn send(url: &Url, key: Option<HeaderValue>, message: Bytes, media_type: &str) -> Result<String, Fault> {
    let is_without = key.is_none();
    let mut request = dial::request(Method::POST, url).header(CONTENT_TYPE, media_type);
    if let Some(key) = key {
        request = request.header(AUTHORIZATION, key);
    }
    let Answer { status, retry_after, body } = dial::exchange(url, request, message).await?;
    if !status.is_success() {
        let why = dial::refusal(status, retry_after.as_deref(), &body);
        let hint = if is_without && status == StatusCode::UNAUTHORIZED { "; --key-file FILE shows one" } else { "" };
        return Err(Fault::failed(format!("{url} refused it: {why}{hint}")));
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes_to(target: &str, template: &str) -> String {
        destination(target, template).unwrap_or_else(|why| panic!("{target}: {why}")).to_string()
    }

    #[test]
    fn a_channel_becomes_one_segment_of_the_path() {
        assert_eq!(goes_to("news", URL), "http://127.0.0.1:8888/publish/news");
        assert_eq!(goes_to("user/7?x#y", URL), "http://127.0.0.1:8888/publish/user%2F7%3Fx%23y");
        assert_eq!(goes_to("größe 100%", URL), "http://127.0.0.1:8888/publish/gr%C3%B6%C3%9Fe%20100%25");
        assert_eq!(goes_to("news", "http://h:9/p?to={channel}"), "http://h:9/p?to=news");
        assert_eq!(goes_to("a", "unix:/s:/publish/{channel}"), "unix:/s:/publish/a");
    }

    #[test]
    fn a_server_without_a_path_has_the_default_route() {
        for template in ["http://[::1]:9000", "http://[::1]:9000/"] {
            assert_eq!(goes_to("news", template), "http://[::1]:9000/publish/news");
        }
        assert!(destination("news", "http://h/p").unwrap_err().contains("{channel}"));
    }

    #[test]
    fn a_url_is_used_unchanged() {
        assert_eq!(goes_to("ws://h:1/pushtoall?message=hi", URL), "http://h:1/pushtoall?message=hi");
        assert!(destination("http://h/", "http://i/{channel}").unwrap_err().contains("--url"));
        for meant in ["127.0.0.1:8888/publish/news", "[::1]:80", "localhost:8888/publish/news"] {
            assert!(destination(meant, URL).unwrap_err().contains(&format!("http://{meant}")), "{meant}");
        }
        assert!(destination("", URL).is_err());
    }

    #[test]
    fn the_last_newline_is_removed_from_text_and_kept_in_bytes() {
        assert_eq!(read_all(&b"hi\n\n"[..], false).unwrap(), b"hi\n");
        assert_eq!(read_all(&b"hi\n"[..], true).unwrap(), b"hi\n");
        assert_eq!(read_all(&b"\xff"[..], true).unwrap(), b"\xff");
        assert!(read_all(&b"\xff"[..], false).unwrap_err().message.contains("--binary"));
    }
}
