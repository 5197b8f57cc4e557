//! Converts the rest of the path after the route's, as it was sent, into a path below the route's directory.
//!
//! It is decoded once, segment by segment, so that an encoded separator never becomes a separator. Spellings that would
//! leave the directory are refused here. Symbolic links that would leave it are refused by the kernel, in
//! [`open`](super::open).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use http::StatusCode;
use percent_encoding::percent_decode_str;

use super::Refusal;
use crate::config::limits::PATH_BYTES_MAX;

/// The only public name that begins with a dot (RFC 8615), and only as the first segment.
const WELL_KNOWN: &[u8] = b".well-known";

/// The path below the directory; empty for the directory itself. A slash at its end is dropped.
pub(super) fn below(rest: &str) -> Result<PathBuf, Refusal> {
    if rest.len() > PATH_BYTES_MAX {
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, "the path is too long"));
    }
    let mut path = PathBuf::new();
    let segments = rest.strip_suffix('/').unwrap_or(rest);
    if segments.is_empty() {
        return if rest.is_empty() { Ok(path) } else { Err(Refusal::ABSENT) };
    }
    for (index, segment) in segments.split('/').enumerate() {
        if !is_encoded_well(segment) {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "a % in the path is not followed by two hex digits"));
        }
        let name: Vec<u8> = percent_decode_str(segment).collect();
        if name.contains(&0) {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "the path holds a NUL"));
        }
        let hidden = name.starts_with(b".") && !(index == 0 && name == WELL_KNOWN);
        if name.is_empty() || name.contains(&b'/') || hidden {
            return Err(Refusal::ABSENT);
        }
        path.push(OsStr::from_bytes(&name));
    }
    Ok(path)
}

/// Whether each `%` is followed by two hex digits.
fn is_encoded_well(segment: &str) -> bool {
    segment
        .split('%')
        .skip(1)
        .all(|after| after.as_bytes().first_chunk::<2>().is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    fn status(rest: &str) -> u16 {
        match below(rest) {
            Ok(path) => panic!("{rest} became {}", path.display()),
            Err(refusal) => refusal.status.as_u16(),
        }
    }

    #[test]
    fn plain_paths_are_decoded_once() {
        for (rest, path) in [
            ("", ""),
            ("a", "a"),
            ("a/", "a"),
            ("a/b.html", "a/b.html"),
            ("a%20b/%C3%A9", "a b/é"),
            ("%2541", "%41"),
            ("100%25", "100%"),
            ("a\\b", "a\\b"),
            (".well-known/security.txt", ".well-known/security.txt"),
            ("%2ewell-known/x", ".well-known/x"),
        ] {
            assert_eq!(below(rest).unwrap(), Path::new(path), "{rest}");
        }
    }

    #[test]
    fn hidden_names_and_parent_directories_are_absent() {
        for rest in [
            "..",
            "../x",
            "a/../b",
            "a/..",
            ".",
            "./a",
            "a/./b",
            "%2e%2e",
            "%2E%2e/x",
            ".%2e/x",
            "%2e./x",
            "a/%2e%2e/b",
            "..%2fx",
            "a%2fb",
            "a%2F..%2Fb",
            "%2fetc%2fpasswd",
            "/etc/passwd",
            "//",
            "/",
            "a//b",
            "a//",
            ".env",
            "a/.git/config",
            "%2eenv",
            ".well-known2",
            "a/.well-known/x",
            "...",
        ] {
            assert_eq!(status(rest), 404, "{rest}");
        }
    }

    #[test]
    fn invalid_encodings_are_bad_requests() {
        for rest in ["%00", "a%00.html", "a/%00/b", "%", "%4", "%zz", "a%2", "%é"] {
            assert_eq!(status(rest), 400, "{rest}");
        }
        assert_eq!(status(&"a".repeat(PATH_BYTES_MAX + 1)), 414);
    }

    /// Path pieces used in attacks, and plain ones.
    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z./%\\\\]{0,6}",
            prop::sample::select(vec![
                "..",
                "%2e%2e",
                ".%2E",
                "%252e%252e",
                "/",
                "%2f",
                "%5c",
                "%c0%ae",
                "%00",
                "//",
                ".",
                "%2e",
            ])
            .prop_map(str::to_owned),
            any::<u8>().prop_map(|byte| format!("%{byte:02x}")),
        ]
    }

    proptest! {
        #[test]
        fn an_accepted_path_never_leads_upwards(pieces in prop::collection::vec(piece(), 0..12)) {
            if let Ok(path) = below(&pieces.concat()) {
                prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{:?}", path);
                let shown: PathBuf = path.components().collect();
                prop_assert_eq!(shown.as_os_str(), path.as_os_str());
            }
        }
    }
}
