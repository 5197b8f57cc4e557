//! The head of an HTTP answer, read from bytes as they come: to a handshake, and to a publication.

use http::StatusCode;

use crate::ctl::dial::refusal;

/// An answer whose head is whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Its status.
    pub status: StatusCode,
    /// What follows the head, as far as it came.
    pub rest: &'a [u8],
    fields: &'a str,
}

impl<'a> Answer<'a> {
    /// The answer at the start of `bytes`; `None`: its head is not whole. An error is something that is no answer.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<Answer<'a>>, String> {
        if !b"HTTP/1.1 ".starts_with(&bytes[..bytes.len().min(9)]) && !bytes.starts_with(b"HTTP/1.0 ") {
            return Err(format!("{:?} is no HTTP", String::from_utf8_lossy(&bytes[..bytes.len().min(40)])));
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "its head is no text".to_owned())?;
        let (line, fields) = head.split_once("\r\n").unwrap_or((head, ""));
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| format!("{line:?} has no status"))?;
        Ok(Some(Answer { status, rest: &bytes[end + 4..], fields }))
    }

    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&'a str> {
        let mut fields = self.fields.split("\r\n").filter_map(|field| field.split_once(':'));
        fields.find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// How long its body is once it is whole; `None`: it is not whole yet.
    pub fn whole_body(&self) -> Option<usize> {
        if let Some(length) = self.field("content-length").and_then(|length| length.parse().ok()) {
            return (self.rest.len() >= length).then_some(length);
        }
        if self.field("transfer-encoding").is_some() {
            return self.rest.ends_with(b"0\r\n\r\n").then_some(self.rest.len());
        }
        Some(0)
    }

    /// Why it refuses, in the server's words.
    pub fn refusal(&self) -> String {
        refusal(self.status, self.field("retry-after"), self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_in_pieces() {
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
