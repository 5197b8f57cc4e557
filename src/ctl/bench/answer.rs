//! Parses the head of an HTTP response from bytes as they arrive: the response to a handshake, or to a publication.

use http::StatusCode;

use crate::ctl::dial::refusal;

/// A response with a complete head.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Its status.
    pub status: StatusCode,
    /// The bytes after the head that have arrived.
    pub rest: &'a [u8],
    fields: &'a str,
}

impl<'a> Answer<'a> {
    /// The response at the start of `bytes`; `None` if its head is incomplete. Fails if the bytes are not an HTTP
    /// response.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<Answer<'a>>, String> {
        if !b"HTTP/1.1 ".starts_with(&bytes[..bytes.len().min(9)]) && !bytes.starts_with(b"HTTP/1.0 ") {
            return Err(format!("{:?} is not HTTP", String::from_utf8_lossy(&bytes[..bytes.len().min(40)])));
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "its head is not text".to_owned())?;
        let (line, fields) = head.split_once("\r\n").unwrap_or((head, ""));
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| format!("{line:?} has no status"))?;
        Ok(Some(Answer { status, rest: &bytes[end + 4..], fields }))
    }

    /// The value of a header field.
    pub fn field(&self, name: &str) -> Option<&'a str> {
        let mut fields = self.fields.split("\r\n").filter_map(|field| field.split_once(':'));
        fields.find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The length of the body, if all of it has arrived.
    pub fn whole_body(&self) -> Option<usize> {
        if let Some(length) = self.field("content-length").and_then(|length| length.parse().ok()) {
            return (self.rest.len() >= length).then_some(length);
        }
        if self.field("transfer-encoding").is_some() {
            return self.rest.ends_with(b"0\r\n\r\n").then_some(self.rest.len());
        }
        Some(0)
    }

    /// The reason of a refusal, in the server's words.
    pub fn refusal(&self) -> String {
        refusal(self.status, self.field("retry-after"), self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_parsed_once_it_is_complete() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: a: b\r\n\r\nabc";
        for end in 0..text.len() {
            let whole = Answer::parse(&text[..end]).unwrap().and_then(|answer| answer.whole_body());
            assert_eq!(whole, None, "after {end}");
        }
        let answer = Answer::parse(text).unwrap().unwrap();
        assert_eq!((answer.status.as_u16(), answer.whole_body(), answer.field("x")), (200, Some(3), Some("a: b")));
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
        assert_eq!(Answer::parse(chunked).unwrap().unwrap().whole_body(), Some(11));
        assert!(Answer::parse(b"SSH-2.0-x").is_err());
        assert!(Answer::parse(b"HTTP/1.1 what\r\n\r\n").is_err());
        let refused = b"HTTP/1.1 503 x\r\nRetry-After: 1\r\n\r\nfull";
        assert!(Answer::parse(refused).unwrap().unwrap().refusal().starts_with("full (503"));
    }
}
