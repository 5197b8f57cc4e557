//! The answer to a poll as JSON: a position, and the messages up to it. It is the same for every speech.

use std::sync::Arc;

use serde::Serialize;

use super::Said;
use super::json;
use super::plain::Envelope;
use crate::hub::history::Page;
use crate::hub::{Position, Since};

#[derive(Serialize)]
struct Answer<'m> {
    position: String,
    messages: Vec<Envelope<'m>>,
    gap: bool,
    /// The channels that have lost messages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<&'m str>,
}

/// An answer without messages. The client continues from `since`.
pub fn nothing(since: Since) -> Vec<u8> {
    line(&Answer { position: since.to_string(), messages: Vec::new(), gap: false, gaps: Vec::new() })
}

/// An answer with one message.
pub(super) fn with(said: Said<'_>) -> Vec<u8> {
    let position = said.position.map_or(Since::Unknown, Since::After).to_string();
    line(&Answer { position, messages: vec![said.into()], gap: false, gaps: Vec::new() })
}

/// An answer with a page of history, and the gaps that the client must be told of.
pub fn of(page: &Page, gone: &[Arc<str>]) -> Vec<u8> {
    let messages = page.messages.iter().map(|kept| {
        let position = Some(Position { offset: kept.offset, ..page.position });
        Said { channel: &kept.channel, kind: kept.kind, payload: &kept.payload, position }.into()
    });
    line(&Answer {
        position: page.position.to_string(),
        messages: messages.collect(),
        gap: !gone.is_empty(),
        gaps: gone.iter().map(|channel| &**channel).collect(),
    })
}

/// One line, for clients that read lines.
fn line(answer: &Answer<'_>) -> Vec<u8> {
    let mut out = json(answer);
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::history::Kept;
    use crate::hub::{Epoch, Kind};

    fn position(offset: u64) -> Position {
        Position { epoch: Epoch(36), offset }
    }

    fn text(answer: Vec<u8>) -> String {
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn answers_have_the_fixed_form() {
        assert_eq!(text(nothing(Since::After(position(3)))), "{\"position\":\"10-3\",\"messages\":[],\"gap\":false}\n");
        let said = Said { channel: "news", kind: Kind::Text, payload: b"\"hi\"\n", position: Some(position(4)) };
        assert_eq!(
            text(with(said)),
            "{\"position\":\"10-4\",\"messages\":[{\"channel\":\"news\",\"id\":\"10-4\",\"data\":\"\\\"hi\\\"\\n\"}],\
             \"gap\":false}\n"
        );
        let kept = Kept { offset: 5, channel: "b".into(), kind: Kind::Binary, payload: b"\0\xff\x01"[..].into() };
        let page = Page {
            messages: vec![kept],
            position: position(9),
            is_end: true,
            gone: Vec::new(),
            gone_before: Vec::new(),
        };
        assert_eq!(
            text(of(&page, &["a".into()])),
            "{\"position\":\"10-9\",\"messages\":[{\"channel\":\"b\",\"id\":\"10-5\",\"base64\":\"AP8B\"}],\
             \"gap\":true,\"gaps\":[\"a\"]}\n"
        );
    }
}
