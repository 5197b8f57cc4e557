//! From where a client continues: the position in its request.

use std::borrow::Cow;
use std::iter;

use http::header::{HeaderMap, HeaderName};

use super::arguments::Arguments;
use crate::hub::Since;

/// The field in which an `EventSource` names its last position.
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The arguments that mean the same, for clients that cannot set a header.
const ARGUMENTS: [&str; 2] = ["last_event_id", "since"];

/// The position after which a client wants to continue. The header counts before an argument. An empty one is none: browsers send
/// nothing then, and pages an argument without a value.
pub fn since(headers: &HeaderMap, arguments: &Arguments<'_>) -> Option<Since> {
    let header = headers.get(LAST_EVENT_ID).map(|value| Cow::Borrowed(value.to_str().unwrap_or("?")));
    let arguments = ARGUMENTS.map(|name| arguments.value(name));
    let mut texts = iter::once(header).chain(arguments).flatten();
    texts.find(|text| !text.is_empty()).map(|text| Since::parse(&text))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::hub::{Epoch, Position};

    #[test]
    fn an_empty_position_is_none_and_the_next_one_counts() {
        let position = |offset| Some(Since::After(Position { epoch: Epoch(1), offset }));
        let read = |header: Option<&'static str>, query: &str| {
            let header = header.map(|text| (LAST_EVENT_ID, HeaderValue::from_static(text)));
            since(&header.into_iter().collect(), &Arguments::new(Vec::new(), Some(query)))
        };
        assert_eq!(read(Some("1-1"), "last_event_id=1-2&since=1-3"), position(1));
        assert_eq!(read(Some(""), "last_event_id=1-2&since=1-3"), position(2));
        assert_eq!(read(None, "last_event_id=&since=1-3"), position(3));
        assert_eq!(read(Some(""), "last_event_id=&since="), None);
        assert_eq!(read(None, "other=1-4"), None);
    }
}
