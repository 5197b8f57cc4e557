//! Event streams (WHATWG HTML, section 9.2): UTF-8 lines that an `EventSource` reads.
//!
//! An event has one field on each line, and ends with an empty line. Lines end with LF. CR and CRLF inside a message also end a
//! line, so clients receive them as LF.

use crate::hub::Position;

/// A comment. Clients ignore it; it keeps proxies and routers from closing an idle connection.
pub const KEEP_ALIVE: &[u8] = b":\n\n";
/// The same as a chunk.
pub const KEEP_ALIVE_CHUNK: &[u8] = b"3\r\n:\n\n\r\n";

/// Appends an event. `name` is its type, without CR and LF. Without a name the type is `message`. `id` is what a client sends when
/// it connects again.
pub fn event_into(name: Option<&str>, id: Option<Position>, message: &[u8], out: &mut Vec<u8>) {
    if let Some(name) = name {
        field_into(b"event", name.as_bytes(), out);
    }
    if let Some(id) = id {
        id_field_into(id, out);
    }
    let mut rest = message;
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        field_into(b"data", &rest[..end], out);
        rest = &rest[end + 1 + usize::from(rest[end..].starts_with(b"\r\n"))..];
    }
    field_into(b"data", rest, out);
    out.push(b'\n');
}

/// Appends a block with an id alone. Chromium remembers it; Firefox does only with an event.
pub fn id_into(id: Position, out: &mut Vec<u8>) {
    id_field_into(id, out);
    out.push(b'\n');
}

fn id_field_into(id: Position, out: &mut Vec<u8>) {
    out.extend_from_slice(b"id: ");
    id.write_into(out);
    out.push(b'\n');
}

/// Appends a comment of one line.
pub fn comment_into(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b": ");
    out.extend(text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(b"\n\n");
}

/// Appends the time that a client waits before it reconnects.
pub fn retry_into(milliseconds: u32, out: &mut Vec<u8>) {
    field_into(b"retry", milliseconds.to_string().as_bytes(), out);
    out.push(b'\n');
}

fn field_into(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a stream as a client does (section 9.2.6): the type and the data of each event.
    fn read(stream: &str) -> Vec<(String, String)> {
        let (mut events, mut name, mut data) = (Vec::new(), String::new(), None::<String>);
        for line in stream.replace("\r\n", "\n").replace('\r', "\n").split_inclusive('\n') {
            let line = line.trim_end_matches('\n');
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                _ if line.is_empty() => {
                    let name = std::mem::take(&mut name);
                    events.extend(data.take().map(|data| (name, data)));
                }
                "event" => name = value.to_owned(),
                "data" => data = Some(data.map_or(value.to_owned(), |before| before + "\n" + value)),
                _ => {}
            }
        }
        events
    }

    fn event(name: Option<&str>, message: &str) -> String {
        let mut out = Vec::new();
        event_into(name, None, message.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn events_have_the_format_of_the_standard() {
        assert_eq!(event(None, "hello"), "data: hello\n\n");
        assert_eq!(event(Some("news"), "a\nb"), "event: news\ndata: a\ndata: b\n\n");
        assert_eq!(event(None, ""), "data: \n\n");
        assert_eq!(event(None, "a\r\nb\rc\n"), "data: a\ndata: b\ndata: c\ndata: \n\n");
        let mut out = Vec::new();
        retry_into(2500, &mut out);
        comment_into("too slow\nid: 7", &mut out);
        assert_eq!(out, b"retry: 2500\n\n: too slow id: 7\n\n");
    }

    proptest! {
        #[test]
        fn each_message_is_received_as_one_event(messages in prop::collection::vec("(\r|\n|:| |data|id|[a-zä\u{2028}\0]){0,12}", 1..5)) {
            let stream: String = messages.iter().map(|message| event(Some("e"), message)).collect();
            let expected: Vec<_> = messages
                .iter()
                .map(|message| ("e".to_owned(), message.replace("\r\n", "\n").replace('\r', "\n")))
                .collect();
            prop_assert_eq!(read(&stream), expected);
        }
    }
}
