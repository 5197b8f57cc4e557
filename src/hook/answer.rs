//! What a backend may say: `{"result":{…}}`, `{"error":{"code":…,"message":"…"}}` or `{"disconnect":{"code":…,"reason":"…"}}`.
//!
//! An answer is either one of these or no answer at all: an empty object may come from any program that happens to listen there.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::limits::{CHANNEL_BYTES_MAX, HOOK_CHANNELS_MAX, HOOK_REASON_CHARS_MAX, IDENTITY_BYTES_MAX};

/// An answer.
#[derive(Debug, PartialEq)]
pub enum Said<T> {
    /// Yes, and how.
    Yes(T),
    /// No.
    No(Refusal),
}

/// Why a client may not do what it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The backend's code.
    pub code: u32,
    /// A sentence, on one line.
    pub reason: String,
}

/// How a client connects.
#[derive(Debug, Default, PartialEq)]
pub struct Connected {
    /// Its user; `None`: not known.
    pub user: Option<String>,
    /// Channels besides those of the route.
    pub channels: Vec<String>,
    /// What it receives first.
    pub greeting: Option<String>,
    /// When its session ends, in seconds since 1970.
    pub expires: Option<u64>,
}

/// What is published.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Message {
    /// The message unchanged.
    #[default]
    Unchanged,
    /// This text instead.
    Text(Bytes),
    /// These bytes instead.
    Binary(Bytes),
    /// Nothing, but the publisher is told that it is published.
    Nothing,
}

#[derive(Deserialize)]
struct Whole<T> {
    result: Option<T>,
    error: Option<Reason>,
    disconnect: Option<Reason>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Reason {
    code: u32,
    #[serde(alias = "reason")]
    message: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ConnectResult {
    user: Option<String>,
    channels: Option<Vec<String>>,
    data: Option<Value>,
    expire_at: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PublishResult {
    data: Option<Value>,
    b64data: Option<String>,
    skip: bool,
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<Result<T, Refusal>, String> {
    let whole: Whole<T> =
        serde_json::from_slice(body).map_err(|error| format!("the answer cannot be read: {error}"))?;
    match (whole.disconnect.or(whole.error), whole.result) {
        (Some(Reason { code, message }), _) => Ok(Err(Refusal { code, reason: shown(&message) })),
        (None, Some(result)) => Ok(Ok(result)),
        (None, None) => Err("the answer has neither `result` nor `error` nor `disconnect`".to_owned()),
    }
}

/// A message of the backend as clients are shown it: one line, not too long.
fn shown(message: &str) -> String {
    let line: String = message.chars().filter(|char| !char.is_control()).take(HOOK_REASON_CHARS_MAX).collect();
    if line.is_empty() { "the backend refuses this".to_owned() } else { line }
}

/// Reads the answer to whether a client may connect.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn connect(body: &[u8]) -> Result<Said<Connected>, String> {
    let result: ConnectResult = match read(body)? {
        Ok(result) => result,
        Err(refusal) => return Ok(Said::No(refusal)),
    };
    let channels = result.channels.unwrap_or_default();
    if channels.len() > HOOK_CHANNELS_MAX {
        return Err(format!("the answer has more than {HOOK_CHANNELS_MAX} channels"));
    }
    let is_name = |name: &str, most| (1..=most).contains(&name.len()) && !name.contains(char::is_control);
    if let Some(name) = channels.iter().find(|name| !is_name(name, CHANNEL_BYTES_MAX)) {
        return Err(format!(
            "the answer has a channel that is empty, too long or has control characters: {}",
            shown(name)
        ));
    }
    if result.user.as_deref().is_some_and(|user| !user.is_empty() && !is_name(user, IDENTITY_BYTES_MAX)) {
        return Err(format!("the user in the answer has control characters, or more than {IDENTITY_BYTES_MAX} bytes"));
    }
    Ok(Said::Yes(Connected {
        user: result.user.filter(|user| !user.is_empty()),
        channels,
        greeting: result.data.map(text_of),
        // A negative one is over, too.
        expires: result.expire_at.filter(|at| *at != 0).map(|at| u64::try_from(at).unwrap_or(0)),
    }))
}

/// Reads the answer to whether a message is published.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn publish(body: &[u8]) -> Result<Said<Message>, String> {
    let result: PublishResult = match read(body)? {
        Ok(result) => result,
        Err(refusal) => return Ok(Said::No(refusal)),
    };
    if result.skip {
        return Ok(Said::Yes(Message::Nothing));
    }
    Ok(Said::Yes(match (result.b64data, result.data) {
        (Some(text), _) if !text.is_empty() => {
            let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text);
            Message::Binary(bytes.map_err(|error| format!("`b64data` cannot be read: {error}"))?.into())
        }
        (_, Some(data)) => Message::Text(text_of(data).into()),
        _ => Message::Unchanged,
    }))
}

/// A string without its quotes, other JSON as its compact text.
fn text_of(data: Value) -> String {
    match data {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no<T>(code: u32, reason: &str) -> Result<Said<T>, String> {
        Ok(Said::No(Refusal { code, reason: reason.to_owned() }))
    }

    #[test]
    fn a_client_connects_as_the_answer_says() {
        assert_eq!(connect(b"{\"result\":{}}"), Ok(Said::Yes(Connected::default())));
        let answer =
            br#"{"result":{"user":"42","channels":["a","b"],"data":{"x":1},"expire_at":0,"unknown":[]},"error":null}"#;
        let channels = vec!["a".to_owned(), "b".to_owned()];
        let (user, greeting) = (Some("42".to_owned()), Some("{\"x\":1}".to_owned()));
        assert_eq!(connect(answer), Ok(Said::Yes(Connected { user, channels, greeting, expires: None })));
        assert_eq!(connect(br#"{"error":{"code":1000,"message":"no\r\nway"}}"#), no(1000, "noway"));
        assert_eq!(connect(br#"{"disconnect":{"code":4500,"reason":"banned"},"result":{}}"#), no(4500, "banned"));
        assert_eq!(connect(br#"{"disconnect":{}}"#), no(0, "the backend refuses this"));
        for (at, expires) in [(1_700_000_000, 1_700_000_000), (-1, 0)] {
            let answer = format!("{{\"result\":{{\"expire_at\":{at}}}}}");
            let connected = Connected { expires: Some(expires), ..Connected::default() };
            assert_eq!(connect(answer.as_bytes()), Ok(Said::Yes(connected)));
        }
    }

    #[test]
    fn a_message_is_published_as_the_answer_says() {
        let yes = |answer: &str| match publish(answer.as_bytes()) {
            Ok(Said::Yes(message)) => message,
            other => panic!("{answer}: {other:?}"),
        };
        assert_eq!(yes("{\"result\":{}}"), Message::Unchanged);
        assert_eq!(yes("{\"result\":{\"data\":\"a \\\"b\\\"\"}}"), Message::Text("a \"b\"".into()));
        assert_eq!(yes("{\"result\":{\"data\":{\"a\": 1}}}"), Message::Text("{\"a\":1}".into()));
        assert_eq!(yes("{\"result\":{\"b64data\":\"AP8=\"}}"), Message::Binary(Bytes::from_static(&[0, 255])));
        assert_eq!(yes("{\"result\":{\"skip\":true,\"data\":1}}"), Message::Nothing);
        assert!(publish(b"{\"result\":{\"b64data\":\"?\"}}").is_err());
    }

    #[test]
    fn anything_else_is_no_answer() {
        for wrong in [
            "",
            "{}",
            "[]",
            "null",
            "{\"result\":null}",
            "{\"result\":1}",
            "{\"result\":{}",
            "<html>",
            "{\"error\":\"x\"}",
        ] {
            assert!(connect(wrong.as_bytes()).is_err(), "{wrong}");
            assert!(publish(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let many = format!("{{\"result\":{{\"channels\":[{}\"a\"]}}}}", "\"a\",".repeat(HOOK_CHANNELS_MAX));
        assert!(connect(many.as_bytes()).is_err());
    }
}
