//! From where a client continues: the position in its request.

use http::header::{HeaderMap, HeaderName};

use super::arguments::Arguments;
use crate::hub::Since;

/// The field in which an `EventSource` names its last position.
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The arguments that mean the same, for clients that cannot set a header.
const ARGUMENTS: [&str; 2] = ["last_event_id", "since"];

/// The position after which a client wants to continue. The header counts before an argument. An empty one is none: browsers send
/// nothing then.
pub fn since(headers: &HeaderMap, arguments: &Arguments<'_>) -> Option<Since> {
    let header = headers.get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or("?").to_owned());
    let argument = || ARGUMENTS.into_iter().find_map(|name| arguments.value(name)).map(|value| value.into_owned());
    header
        .filter(|text| !text.is_empty())
        .or_else(argument)
        .filter(|text| !text.is_empty())
        .map(|text| Since::parse(&text))
}
