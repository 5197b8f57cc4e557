//! `headers` of a static route: further header fields of its answers.

use super::reader::Item;
use super::report::Problem;

/// Fields that pushd sets itself, and what to do instead. A wrong value of the others would break the connection or the file.
const OWN: [(&str, &str); 22] = [
    ("accept-ranges", ""),
    ("access-control-allow-credentials", "use `origins`"),
    ("access-control-allow-origin", "use `origins`"),
    ("allow", ""),
    ("cache-control", "use `cache`"),
    ("connection", ""),
    ("content-encoding", "put compressed files beside the files, or use `compress`"),
    ("content-length", ""),
    ("content-range", ""),
    ("content-type", "it follows from the name of the file"),
    ("date", ""),
    ("etag", ""),
    ("keep-alive", ""),
    ("last-modified", ""),
    ("location", "add a route with `redirect`"),
    ("proxy-authenticate", ""),
    ("te", ""),
    ("trailer", ""),
    ("transfer-encoding", ""),
    ("upgrade", ""),
    ("vary", ""),
    ("www-authenticate", "use `basic_auth`"),
];

/// Reads the table of fields. Names are in lower case afterwards, in the order of the file.
pub(super) fn read(item: Item<'_>) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for item in item.members() {
        let name = item.key().to_ascii_lowercase();
        let at_name = |title: &str| Problem::error(item.key_span(), title);
        if name.is_empty() || !name.bytes().all(is_token) {
            item.note(at_name("this is not the name of a header field").label("expected letters, digits and `-`"));
            continue;
        }
        if let Some((_, help)) = OWN.iter().find(|(own, _)| *own == name) {
            let problem = at_name("this header field cannot be set").label("pushd sets it by itself");
            item.note(if help.is_empty() { problem } else { problem.help(*help) });
            continue;
        }
        if fields.iter().any(|(earlier, _)| *earlier == name) {
            item.note(at_name("this header field is set twice").label("upper and lower case are the same"));
            continue;
        }
        let Some(value) = item.text("the value of a header field") else { continue };
        // Visible ASCII: other bytes mean different things to different clients (RFC 9110, section 5.5).
        if !value.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) || value.trim() != value {
            let problem = item.error("this cannot be the value of a header field");
            item.note(problem.label("expected visible ASCII characters, without space at the ends"));
            continue;
        }
        fields.push((name, value.to_owned()));
    }
    fields
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
