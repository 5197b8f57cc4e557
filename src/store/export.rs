//! A message as a line of JSON, as `pushctl store export` writes it and `pushctl store import` reads it:
//! `{"channel":"news","id":"k3x09q2f-1f","data":"It works","time":1790000000}`, bytes as `"base64"` instead of `"data"`.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::hub::{Epoch, Kind, Position};

/// A message outside of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Epoch and offset. `None`: not given; a message that is imported gets a new one.
    pub position: Option<(u64, u64)>,
    /// Its channel.
    pub channel: Arc<str>,
    /// What it is made of.
    pub kind: Kind,
    /// When it was published, in seconds since 1970. `None`: not given.
    pub time: Option<i64>,
    /// The message.
    pub payload: Bytes,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    channel: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<i64>,
}

impl Exported {
    /// One line, without its end.
    pub fn line(&self) -> String {
        let text = (self.kind == Kind::Text).then(|| std::str::from_utf8(&self.payload).ok()).flatten();
        let position = |(epoch, offset)| Position { epoch: Epoch(epoch), offset }.to_string();
        let line = Line {
            channel: self.channel.to_string(),
            id: self.position.map(position),
            data: text.map(str::to_owned),
            base64: text.is_none().then(|| BASE64.encode(&self.payload)),
            time: self.time,
        };
        serde_json::to_string(&line).unwrap_or_default()
    }

    /// Reads one line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(line: &str) -> Result<Exported, String> {
        let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let (kind, payload) = match (line.data, line.base64) {
            (Some(data), None) => (Kind::Text, Bytes::from(data)),
            (None, Some(base64)) => {
                (Kind::Binary, BASE64.decode(base64).map_err(|error| format!("`base64`: {error}"))?.into())
            }
            _ => return Err("one of `data` and `base64` is needed".to_owned()),
        };
        let position = line.id.and_then(|id| Position::parse(&id)).map(|id| (id.epoch.0, id.offset));
        Ok(Exported { position, channel: line.channel.into(), kind, time: line.time, payload })
    }
}
