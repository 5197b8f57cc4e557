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
use super::coding::Coding;
use super::condition::Validators;
use super::{Body, NOSNIFF};

/// The fields that a 304 has in common with the corresponding 200.
const SHARED: [HeaderName; 4] = [header::ETAG, header::LAST_MODIFIED, header::CACHE_CONTROL, header::VARY];

/// Where the bytes of a file in a coding are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// From the disk.
    Disk,
    /// pushd has compressed the file. Another version may compress it to other bytes.
    Made,
}

/// What is sent for a file.
#[derive(Debug, Clone)]
pub(super) struct Sent<'f> {
    /// The metadata of the file that is read.
    pub(super) metadata: &'f Metadata,
    /// The path of the file that was found, whose name decides the type.
    pub(super) path: &'f Path,
    pub(super) coding: Coding,
    pub(super) origin: Origin,
    /// How many bytes are sent.
    pub(super) length: u64,
    /// Whether another request may get the file in another coding.
    pub(super) varies: bool,
    pub(super) cache_control: HeaderValue,
}

/// A file in one of its states.
#[derive(Debug)]
pub(super) struct Description {
    pub(super) length: u64,
    pub(super) validators: Validators,
    /// The header of a response with the whole file.
    header: HeaderMap,
}

impl Description {
    /// The description of what is sent, at the time `now`.
    pub(super) fn of(sent: &Sent<'_>, now: SystemTime) -> Description {
        let &Sent { metadata, path, coding, length, varies, .. } = sent;
        let validators = Validators::of(sent, now);
        let mut header = HeaderMap::with_capacity(12);
        set(&mut header, header::ETAG, &validators.etag);
        if let Some(modified) = validators.modified {
            let time = UNIX_EPOCH + Duration::from_secs(modified);
            set(&mut header, header::LAST_MODIFIED, &httpdate::fmt_http_date(time));
        }
        header.insert(header::CACHE_CONTROL, sent.cache_control.clone());
        header.insert(header::CONTENT_LENGTH, length.into());
        header.insert(header::CONTENT_TYPE, content_type(path));
        header.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        header.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if varies {
            header.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        if coding != Coding::Identity {
            header.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        }
        debug_assert!(sent.origin == Origin::Made || length == metadata.len());
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
    /// The validators of what is sent at the time `now`.
    ///
    /// The tag is made of the file's inode number, its size, and the times of its last modification and change. A
    /// change of the content changes one of these, even if the time of modification is set back. While a change might
    /// not be visible yet, the tag is weak, and differs from the later strong one. Each coding has a tag of its own.
    ///
    /// The date is the time of modification, rounded down. It is left out if it is in the future, before 1970 or after
    /// 9999 (such dates cannot be sent in a header), and if the file is undated. Two codings of a file may have the same date, so
    /// the date is weak where there are several.
    fn of(sent: &Sent<'_>, now: SystemTime) -> Validators {
        let metadata = sent.metadata;
        const YEAR_10000: u64 = 253_402_300_800;
        let settled = Identity::of(metadata).is_settled(now);
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let nanoseconds = |seconds: i64, more: i64| i128::from(seconds) * 1_000_000_000 + i128::from(more);
        let (written, changed) = (
            nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        );
        let mut tag = format!("{:x}-{written:x}-{changed:x}-{:x}", metadata.ino(), metadata.len());
        if sent.coding != Coding::Identity {
            tag = format!("{tag}-{}", sent.coding.name());
        }
        if sent.origin == Origin::Made {
            tag = format!("{tag}-{}", env!("CARGO_PKG_VERSION"));
        }
        let etag = if settled { format!("\"{tag}\"") } else { format!("W/\"{tag}-new\"") };
        let modified = u64::try_from(metadata.mtime()).ok().filter(|&at| at <= now && at < YEAR_10000);
        let modified = modified.filter(|_| !is_undated(metadata));
        Validators { etag, modified, is_date_strong: settled && !sent.varies && metadata.ctime() <= metadata.mtime() }
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
    let kind = media_type(path);
    if kind.starts_with("text/") || kind == "application/javascript" {
        return HeaderValue::from_str(&format!("{kind}; charset=utf-8"))
            .unwrap_or(HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    HeaderValue::from_static(kind)
}

fn media_type(path: &Path) -> &'static str {
    let name = path.file_name().map_or(Path::new(""), |name: &OsStr| Path::new(name));
    mime_guess::from_path(name).first_raw().unwrap_or("application/octet-stream")
}

/// Whether the name says that the file is text, or of a type that is not compressed already.
pub(super) fn is_compressible(path: &Path) -> bool {
    const OTHERS: [&str; 7] = [
        "application/javascript",
        "application/json",
        "application/wasm",
        "application/xml",
        "application/x-sh",
        "font/otf",
        "font/ttf",
    ];
    let kind = media_type(path);
    kind.starts_with("text/") || kind.ends_with("+xml") || kind.ends_with("+json") || OTHERS.contains(&kind)
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

    #[test]
    fn types_that_are_compressed_already_are_not_compressed_again() {
        for (name, expected) in [
            ("a.html", true),
            ("a.css", true),
            ("a.js", true),
            ("a.mjs", true),
            ("a.json", true),
            ("a.webmanifest", true),
            ("a.svg", true),
            ("a.xml", true),
            ("a.wasm", true),
            ("a.ttf", true),
            ("a.png", false),
            ("a.woff2", false),
            ("a.mp4", false),
            ("a.html.gz", false),
            ("README", false),
        ] {
            assert_eq!(is_compressible(Path::new(name)), expected, "{name}");
        }
    }
}
