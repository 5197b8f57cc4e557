//! Conditional requests: RFC 9110 §13, in the order of its §13.2.2.
//!
//! 1. `If-Match` must match the current file, else 412. Without it, `If-Unmodified-Since` must not be older than the file, else 412.
//! 2. If `If-None-Match` matches, 304. Without it, 304 if `If-Modified-Since` is not older than the file.
//! 3. `Range` is applied, unless an `If-Range` does not match; then it is ignored.
//!
//! An invalid date, and a date that is given twice, are ignored. Times are in whole seconds, as in the headers.

use std::time::UNIX_EPOCH;

use http::HeaderMap;
use http::header::{self, HeaderName};

/// The fields that are conditions.
const FIELDS: [HeaderName; 6] = [
    header::IF_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_RANGE,
    header::RANGE,
];

/// The conditions of one request, copied from its header.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Conditions {
    if_match: Option<Vec<u8>>,
    if_unmodified_since: Option<u64>,
    if_none_match: Option<Vec<u8>>,
    if_modified_since: Option<u64>,
    if_range: Option<Vec<u8>>,
    range: Option<String>,
}

/// The validators of a file in its current state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Validators {
    /// An entity tag with its quotes; a weak one begins with `W/`.
    pub(super) etag: String,
    /// `Last-Modified`, in seconds since 1970; `None` for a date that cannot be sent in a header.
    pub(super) modified: Option<u64>,
    /// Whether the date is a strong validator: no other content can have it.
    pub(super) is_date_strong: bool,
}

/// The result of the conditions.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict<'r> {
    /// Send the file, or the part that the `Range` field requests.
    Send(Option<&'r str>),
    /// 304: the client has the current file.
    NotModified,
    /// 412: the file is not the one the client expects.
    Failed,
}

impl Conditions {
    /// The conditions in `headers`.
    pub(super) fn of(headers: &HeaderMap) -> Conditions {
        // One pass over the names costs less than six lookups, and most requests have no conditions.
        if !headers.keys().any(|name| FIELDS.contains(name)) {
            return Conditions::default();
        }
        Conditions {
            if_match: list(headers, header::IF_MATCH),
            if_unmodified_since: date(headers, header::IF_UNMODIFIED_SINCE),
            if_none_match: list(headers, header::IF_NONE_MATCH),
            if_modified_since: date(headers, header::IF_MODIFIED_SINCE),
            if_range: headers.get(header::IF_RANGE).map(|value| value.as_bytes().trim_ascii().to_vec()),
            range: single(headers, header::RANGE).map(str::to_owned),
        }
    }

    /// Evaluates the conditions for a file with the validators `now`.
    pub(super) fn judge(&self, now: &Validators) -> Verdict<'_> {
        let failed = match (&self.if_match, self.if_unmodified_since, now.modified) {
            (Some(tags), _, _) => !names(tags, &now.etag, Comparison::Strong),
            (None, Some(since), Some(modified)) => modified > since,
            _ => false,
        };
        if failed {
            return Verdict::Failed;
        }
        let known = match (&self.if_none_match, self.if_modified_since, now.modified) {
            (Some(tags), _, _) => names(tags, &now.etag, Comparison::Weak),
            (None, Some(since), Some(modified)) => modified <= since,
            _ => false,
        };
        if known {
            return Verdict::NotModified;
        }
        let same = self.if_range.as_ref().is_none_or(|held| is_same(held, now));
        Verdict::Send(self.range.as_deref().filter(|_| same))
    }
}

/// Whether `held`, an entity tag or a date, is a strong validator of exactly this content (§13.1.5).
fn is_same(held: &[u8], now: &Validators) -> bool {
    if held.first() == Some(&b'"') {
        return held == now.etag.as_bytes();
    }
    let date = std::str::from_utf8(held).ok().and_then(seconds);
    date.is_some() && date == now.modified && now.is_date_strong
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether a list of entity tags, or `*`, contains `etag`. Parsing stops at the first invalid entity tag.
fn names(list: &[u8], etag: &str, comparison: Comparison) -> bool {
    if list == b"*" {
        return true;
    }
    let (is_weak, opaque) = etag.strip_prefix("W/").map_or((false, etag), |opaque| (true, opaque));
    let mut rest = list;
    loop {
        while let [b' ' | b'\t' | b',', after @ ..] = rest {
            rest = after;
        }
        let (weak, tag) = match rest {
            [b'W', b'/', tag @ ..] => (true, tag),
            tag => (false, tag),
        };
        let Some((b'"', inside)) = tag.split_first() else { return false };
        let Some(end) = inside.iter().position(|&byte| byte == b'"') else { return false };
        let (tag, after) = tag.split_at(end + 2);
        if tag == opaque.as_bytes() && (!(weak || is_weak) || comparison == Comparison::Weak) {
            return true;
        }
        rest = after;
    }
}

/// Joins all lines of a list field.
fn list(headers: &HeaderMap, name: HeaderName) -> Option<Vec<u8>> {
    let lines: Vec<_> = headers.get_all(name).iter().map(|line| line.as_bytes().trim_ascii()).collect();
    (!lines.is_empty()).then(|| lines.join(&b", "[..]))
}

/// The value of a field that may occur only once; `None` if it occurs twice.
fn single(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?.to_str().ok()?.trim();
    lines.next().is_none().then_some(first)
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<u64> {
    single(headers, name).and_then(seconds)
}

fn seconds(date: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(date).ok()?;
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn verdict(fields: &[(&'static str, &'static str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let now = Validators { etag: "\"e,1\"".into(), modified: Some(784_111_777), is_date_strong: true };
        format!("{:?}", Conditions::of(&headers).judge(&now))
    }

    #[test]
    fn conditions_are_evaluated_in_the_order_of_the_rfc() {
        const SEND: &str = "Send(None)";
        const KNOWN: &str = "NotModified";
        const FAILED: &str = "Failed";
        let table: &[(&[(&str, &str)], &str)] = &[
            (&[], SEND),
            (&[("if-match", "\"e,1\"")], SEND),
            (&[("if-match", "*")], SEND),
            (&[("if-match", "\"x\"")], FAILED),
            (&[("if-match", "\"x\", \"e,1\"")], SEND),
            (&[("if-match", "\"x\""), ("if-match", "\"e,1\"")], SEND),
            (&[("if-match", "W/\"e,1\"")], FAILED),
            (&[("if-match", "e,1")], FAILED),
            (&[("if-unmodified-since", BEFORE)], FAILED),
            (&[("if-unmodified-since", THEN)], SEND),
            (&[("if-unmodified-since", "yesterday")], SEND),
            (&[("if-match", "*"), ("if-unmodified-since", BEFORE)], SEND),
            (&[("if-match", "\"x\""), ("if-unmodified-since", AFTER)], FAILED),
            (&[("if-match", "\"x\""), ("if-none-match", "\"e,1\"")], FAILED),
            (&[("if-none-match", "\"e,1\"")], KNOWN),
            (&[("if-none-match", "W/\"e,1\"")], KNOWN),
            (&[("if-none-match", "\"x\",, W/\"y\" ,\"e,1\"")], KNOWN),
            (&[("if-none-match", "*")], KNOWN),
            (&[("if-none-match", "\"x\"")], SEND),
            (&[("if-none-match", "\"unclosed")], SEND),
            (&[("if-none-match", "\"x\""), ("if-modified-since", AFTER)], SEND),
            (&[("if-none-match", "\"e,1\""), ("if-modified-since", BEFORE)], KNOWN),
            (&[("if-match", "\"e,1\""), ("if-none-match", "\"e,1\"")], KNOWN),
            (&[("if-modified-since", BEFORE)], SEND),
            (&[("if-modified-since", THEN)], KNOWN),
            (&[("if-modified-since", AFTER)], KNOWN),
            (&[("if-modified-since", "Sunday, 06-Nov-94 08:49:37 GMT")], KNOWN),
            (&[("if-modified-since", "0")], SEND),
            (&[("if-modified-since", AFTER), ("if-modified-since", AFTER)], SEND),
            (&[("if-unmodified-since", THEN), ("if-modified-since", THEN)], KNOWN),
            (&[("range", "bytes=0-1")], "Send(Some(\"bytes=0-1\"))"),
            (&[("range", "bytes=0-1"), ("if-none-match", "\"e,1\"")], KNOWN),
            (&[("range", "bytes=0-1"), ("if-range", "\"e,1\"")], "Send(Some(\"bytes=0-1\"))"),
            (&[("range", "bytes=0-1"), ("if-range", "W/\"e,1\"")], SEND),
            (&[("range", "bytes=0-1"), ("if-range", "\"x\"")], SEND),
            (&[("range", "bytes=0-1"), ("if-range", THEN)], "Send(Some(\"bytes=0-1\"))"),
            (&[("range", "bytes=0-1"), ("if-range", AFTER)], SEND),
            (&[("range", "bytes=0-1"), ("if-range", BEFORE)], SEND),
            (&[("range", "bytes=0-1"), ("range", "bytes=2-3")], SEND),
        ];
        for (fields, expected) in table {
            assert_eq!(verdict(fields), *expected, "{fields:?}");
        }
    }

    #[test]
    fn a_file_without_a_date_is_validated_by_its_tag() {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_MODIFIED_SINCE, THEN.parse().unwrap());
        headers.insert(header::IF_RANGE, THEN.parse().unwrap());
        headers.insert(header::RANGE, "bytes=0-1".parse().unwrap());
        let now = Validators { etag: "\"e\"".into(), modified: None, is_date_strong: false };
        assert_eq!(Conditions::of(&headers).judge(&now), Verdict::Send(None));
    }

    #[test]
    fn a_weak_tag_never_satisfies_if_match_or_if_range() {
        let now = Validators { etag: "W/\"e\"".into(), modified: Some(784_111_777), is_date_strong: false };
        for (name, value, expected) in [
            ("if-none-match", "W/\"e\"", Verdict::NotModified),
            ("if-none-match", "\"e\"", Verdict::NotModified),
            ("if-none-match", "\"x\"", Verdict::Send(None)),
            ("if-match", "W/\"e\"", Verdict::Failed),
            ("if-match", "\"e\"", Verdict::Failed),
            ("if-match", "*", Verdict::Send(None)),
            ("if-modified-since", THEN, Verdict::NotModified),
        ] {
            let headers = HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().unwrap())]);
            assert_eq!(Conditions::of(&headers).judge(&now), expected, "{name}: {value}");
        }
        for held in ["W/\"e\"", "\"e\"", THEN] {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_RANGE, held.parse().unwrap());
            headers.insert(header::RANGE, "bytes=0-1".parse().unwrap());
            assert_eq!(Conditions::of(&headers).judge(&now), Verdict::Send(None), "{held}");
        }
    }
}
