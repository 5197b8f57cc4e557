//! The header fields of a file. They are made once for each state of the file; a response from the cache only copies
//! them.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::cache::Identity;
use super::condition::Validators;
use super::{Body, CACHE_CONTROL, NOSNIFF};

/// The fields that a 304 has in common with the corresponding 200.
const SHARED: [HeaderName; 3] = [header::ETAG, header::LAST_MODIFIED, header::CACHE_CONTROL];

/// A file in one of its states.
#[derive(Debug)]
pub(super) struct Description {
    pub(super) length: u64,
    pub(super) validators: Validators,
    /// The header of a response with the whole file.
    header: HeaderMap,
}

impl Description {
    /// The description of the file at `path`, at the time `now`.
    pub(super) fn of(metadata: &Metadata, path: &Path, now: SystemTime) -> Description {
        let (length, validators) = (metadata.len(), Validators::of(metadata, now));
        let mut header = HeaderMap::with_capacity(8);
        set(&mut header, header::ETAG, &validators.etag);
        if let Some(modified) = validators.modified {
            let time = UNIX_EPOCH + Duration::from_secs(modified);
            set(&mut header, header::LAST_MODIFIED, &httpdate::fmt_http_date(time));
        }
        header.insert(header::CACHE_CONTROL, CACHE_CONTROL);
        header.insert(header::CONTENT_LENGTH, length.into());
        header.insert(header::CONTENT_TYPE, content_type(path));
        header.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        header.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        Description { length, validators, header }
    }

    /// A response with the whole file.
    pub(super) fn whole(&self, body: Body) -> Response<Body> {
        let mut answer = Response::new(body);
        *answer.headers_mut() = self.header.clone();
        answer
    }

    /// A response with a part of the file. The part must not be empty.
    pub(super) fn part(&self, body: Body, part: &Range<u64>) -> Response<Body> {
        let mut answer = self.whole(body);
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_LENGTH, (part.end - part.start).into());
        set(headers, header::CONTENT_RANGE, &format!("bytes {}-{}/{}", part.start, part.end - 1, self.length));
        answer
    }

    /// The response to a client that has the current file.
    pub(super) fn not_modified(&self) -> Response<Body> {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        for name in SHARED {
            if let Some(value) = self.header.get(&name) {
                answer.headers_mut().insert(name, value.clone());
            }
        }
        answer
    }
}

impl Validators {
    /// The validators of a file at the time `now`.
    ///
    /// The tag is made of the file's inode number, its size, and the times of its last modification and change. A
    /// change of the content changes one of these, even if the time of modification is set back. While a change might
    /// not be visible yet, the tag is weak, and differs from the later strong one.
    ///
    /// The date is the time of modification, rounded down. It is left out if it is in the future, before 1970 or after
    /// 9999 (such dates cannot be sent in a header), and if the file is undated.
    fn of(metadata: &Metadata, now: SystemTime) -> Validators {
        const YEAR_10000: u64 = 253_402_300_800;
        let settled = Identity::of(metadata).is_settled(now);
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let nanoseconds = |seconds: i64, more: i64| i128::from(seconds) * 1_000_000_000 + i128::from(more);
        let (written, changed) = (
            nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        );
        let tag = format!("{:x}-{written:x}-{changed:x}-{:x}", metadata.ino(), metadata.len());
        let etag = if settled { format!("\"{tag}\"") } else { format!("W/\"{tag}-new\"") };
        let modified = u64::try_from(metadata.mtime()).ok().filter(|&at| at <= now && at < YEAR_10000);
        let modified = modified.filter(|_| !is_undated(metadata));
        Validators { etag, modified, is_date_strong: settled && metadata.ctime() <= metadata.mtime() }
    }
}

/// Whether the time of modification has no meaning: tools for reproducible packages set it to the first or second
/// second of 1970, for every version of a file.
pub(super) fn is_undated(metadata: &Metadata) -> bool {
    matches!(metadata.mtime(), 0 | 1)
}

/// Sets a field whose value is made here and is always valid in a header.
pub(super) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The media type according to the file's name; text is UTF-8.
fn content_type(path: &Path) -> HeaderValue {
    let name = path.file_name().map_or(Path::new(""), |name: &OsStr| Path::new(name));
    let kind = mime_guess::from_path(name).first_raw().unwrap_or("application/octet-stream");
    if kind.starts_with("text/") || kind == "application/javascript" {
        return HeaderValue::from_str(&format!("{kind}; charset=utf-8"))
            .unwrap_or(HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    HeaderValue::from_static(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_follows_from_the_name() {
        for (name, kind) in [
            ("a.html", "text/html; charset=utf-8"),
            ("a.css", "text/css; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("A.TXT", "text/plain; charset=utf-8"),
            ("a.json", "application/json"),
            ("a.svg", "image/svg+xml"),
            ("a.wasm", "application/wasm"),
            ("a.png", "image/png"),
            ("a.tar.gz", "application/gzip"),
            ("README", "application/octet-stream"),
            ("a.qqq", "application/octet-stream"),
        ] {
            assert_eq!(content_type(Path::new(name)), kind, "{name}");
        }
    }
}
