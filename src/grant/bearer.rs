//! What a request shows as `Authorization: Bearer …` (RFC 6750, section 2.1).

use http::header::{AUTHORIZATION, HeaderMap};

/// The request has more than one Authorization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Several;

/// What the request shows. `None`: nothing, or something of another scheme.
///
/// # Errors
/// There is more than one Authorization. Which one counts would be a guess.
pub fn shown(headers: &HeaderMap) -> Result<Option<&[u8]>, Several> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().map(|value| value.as_bytes());
    if values.next().is_some() {
        return Err(Several);
    }
    Ok(value.and_then(bearer))
}

/// The part behind the scheme, which is compared without case (RFC 9110, section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, shown) = value.split_at_checked(SCHEME.len())?;
    let shown = shown.trim_ascii();
    (scheme.eq_ignore_ascii_case(SCHEME) && !shown.is_empty()).then_some(shown)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn one_bearer_is_shown() {
        for (value, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer   abc ", Some("abc")),
            ("BEARER a.b-c", Some("a.b-c")),
            ("Bearer", None),
            ("Bearer ", None),
            ("Bearerabc", None),
            ("Basic abc", None),
            ("", None),
        ] {
            let headers: HeaderMap = [(AUTHORIZATION, HeaderValue::from_static(value))].into_iter().collect();
            assert_eq!(shown(&headers), Ok(expected.map(str::as_bytes)), "{value:?}");
        }
        assert_eq!(shown(&HeaderMap::new()), Ok(None));
        let mut two = HeaderMap::new();
        two.append(AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        two.append(AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        assert_eq!(shown(&two), Err(Several));
    }
}
