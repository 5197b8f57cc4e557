//! Replaces the values of arguments that are secret by their names.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// An argument whose name contains one of these is secret. Names such as `monkey` are masked, too, which costs nothing.
const SECRET: [&str; 11] =
    ["token", "secret", "passw", "pwd", "key", "auth", "jwt", "credential", "signature", "session", "code"];
const SHORT: [&str; 3] = ["sig", "pass", "sid"];
/// What is shown instead of a value.
const MASK: &str = "***";

/// A URL, or its path with a query, in which the values of secret arguments are masked. A fragment, and a name and password before
/// a host, are removed: neither is sent by browsers.
pub(super) fn masked(url: &str) -> Cow<'_, str> {
    let url = url.split('#').next().unwrap_or_default();
    let has_user = url
        .split_once("://")
        .is_some_and(|(_, rest)| rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@')));
    let Some((before, query)) = url.split_once('?').filter(|_| !has_user) else {
        return if has_user { Cow::Owned(without_user(url)) } else { Cow::Borrowed(url) };
    };
    if !query.split(['&', ';']).any(|argument| is_secret(name_of(argument))) {
        return Cow::Borrowed(url);
    }
    let mut shown = format!("{before}?");
    for piece in query.split_inclusive(['&', ';']) {
        let argument = piece.trim_end_matches(['&', ';']);
        let end = &piece[argument.len()..];
        match argument.split_once('=') {
            Some((name, _)) if is_secret(name) => shown.extend([name, "=", MASK, end]),
            _ => shown.push_str(piece),
        }
    }
    Cow::Owned(shown)
}

fn without_user(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit('@').next().unwrap_or_default();
    masked(&format!("{scheme}://{host}{path}")).into_owned()
}

fn name_of(argument: &str) -> &str {
    argument.split('=').next().unwrap_or_default()
}

fn is_secret(name: &str) -> bool {
    let name = percent_decode_str(name).decode_utf8_lossy().to_ascii_lowercase();
    SECRET.iter().any(|word| name.contains(word)) || SHORT.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_arguments_are_masked_and_others_are_not() {
        for (url, expected) in [
            ("/a", "/a"),
            ("/a?b=c&d", "/a?b=c&d"),
            ("/a?token=x", "/a?token=***"),
            ("/a?b=c&access_token=x&d=e", "/a?b=c&access_token=***&d=e"),
            ("/a?API%4bey=x;b=c", "/a?API%4bey=***;b=c"),
            ("/a?to%6ben=x=y", "/a?to%6ben=***"),
            ("/a?token", "/a?token"),
            ("/a?sig=1&sigma=2", "/a?sig=***&sigma=2"),
            ("/a?password=x&password=y", "/a?password=***&password=***"),
            ("https://a.example/b?key=1#x?token=2", "https://a.example/b?key=***"),
            ("https://a.example/b#token=1", "https://a.example/b"),
            ("https://a.example/b?c=d#token=1?token=2", "https://a.example/b?c=d"),
            ("https://u:p@a.example/b", "https://a.example/b"),
            ("https://u:p@a.example?jwt=1", "https://a.example?jwt=***"),
            ("/a@b?c=d", "/a@b?c=d"),
        ] {
            assert_eq!(masked(url), expected, "{url}");
        }
    }
}
