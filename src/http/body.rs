//! What an answer carries: bytes that are at hand, or a piece of a file read while it is sent.
//!
//! A file is read in chunks on the runtime's blocking threads, never on the shard's own: while one chunk is being sent the
//! next one is read, and no more than that one, so a client that does not read costs two chunks and no disk.
//! A file that turns out shorter than it was is an error, which ends the connection: the client was promised
//! a length, and a cut that looks like an end would be kept by caches.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read, Seek, SeekFrom};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::config::limits::FILE_CHUNK_BYTES;

/// The body of every answer.
#[derive(Debug)]
pub enum Body {
    /// Bytes at hand; `None` once they are sent, or where there are none.
    Full(Option<Bytes>),
    /// A piece of a file.
    File(FileStream),
}

/// A piece of a file, read chunk by chunk.
#[derive(Debug)]
pub struct FileStream {
    file: Arc<File>,
    /// Bytes not handed out yet, those of `ahead` included.
    left: u64,
    ahead: Ahead,
}

/// The one chunk that may be ahead of what was handed out.
#[derive(Debug)]
enum Ahead {
    Nothing,
    Read(Bytes),
    Reading(JoinHandle<io::Result<Bytes>>),
}

impl Body {
    /// No bytes at all.
    pub fn empty() -> Body {
        Body::Full(None)
    }

    /// The sentence it is, where it is one.
    pub fn sentence(&self) -> &str {
        match self {
            Body::Full(Some(bytes)) => std::str::from_utf8(bytes).unwrap_or_default().trim_end(),
            Body::Full(None) | Body::File(_) => "",
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        Body::Full(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Body {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Body {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Body::Full(bytes) => Poll::Ready(bytes.take().map(Frame::data).map(Ok)),
            Body::File(stream) => stream.poll_chunk(cx).map(|chunk| chunk.map(|read| read.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Body::Full(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Body::File(stream) => stream.left,
        })
    }
}

impl FileStream {
    /// The `length` bytes of `file` that begin at `start`. Reads the first chunk: call it where blocking is allowed.
    ///
    /// # Errors
    /// What seeking and reading say; a file that ends too early is [`io::ErrorKind::UnexpectedEof`].
    pub fn open(mut file: File, start: u64, length: u64) -> io::Result<FileStream> {
        if start > 0 {
            file.seek(SeekFrom::Start(start))?;
        }
        let first = read_chunk(&file, chunk_bytes(length))?;
        Ok(FileStream { file: Arc::new(file), left: length, ahead: Ahead::Read(first) })
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let read = match &mut self.ahead {
            Ahead::Read(chunk) => Ok(std::mem::take(chunk)),
            Ahead::Reading(reading) => match ready!(Pin::new(reading).poll(cx)) {
                Ok(read) => read,
                Err(gone) => Err(io::Error::other(gone)),
            },
            Ahead::Nothing => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        self.ahead = Ahead::Nothing;
        match &read {
            Ok(chunk) => self.left -= chunk.len() as u64,
            Err(_) => self.left = 0,
        }
        if self.left > 0 {
            let (file, bytes) = (Arc::clone(&self.file), chunk_bytes(self.left));
            self.ahead = Ahead::Reading(tokio::task::spawn_blocking(move || read_chunk(&file, bytes)));
        }
        Poll::Ready(Some(read))
    }
}

impl Drop for FileStream {
    fn drop(&mut self) {
        if let Ahead::Reading(reading) = &self.ahead {
            reading.abort();
        }
    }
}

fn chunk_bytes(left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(FILE_CHUNK_BYTES)
}

/// Exactly `bytes` more of `file`.
fn read_chunk(mut file: &File, bytes: usize) -> io::Result<Bytes> {
    let mut chunk = Vec::with_capacity(bytes);
    Read::by_ref(&mut file).take(bytes as u64).read_to_end(&mut chunk)?;
    if chunk.len() < bytes {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was sent"));
    }
    Ok(chunk.into())
}

/// An answer in plain text: the status, and why.
pub fn plain_text(status: StatusCode, why: &str) -> Response<Body> {
    let mut answer = Response::new(Body::from(format!("{}: {why}\n", status.as_u16())));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use http_body::Body as _;
    use http_body_util::BodyExt;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i / 251 + i) as u8).collect()
    }

    #[tokio::test]
    async fn bytes_at_hand_are_sent_once_and_their_length_is_known() {
        let mut body = Body::from("hello");
        assert_eq!(body.size_hint().exact(), Some(5));
        assert!(!body.is_end_stream());
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "hello");
        assert!(body.is_end_stream());
        assert!(body.frame().await.is_none());
        assert!(Body::empty().is_end_stream());
        assert!(Body::from("").is_end_stream());
    }

    #[tokio::test]
    async fn a_piece_of_a_file_arrives_whole_in_chunks() {
        let bytes = pattern(3 * FILE_CHUNK_BYTES + 17);
        for (start, length) in [(0, bytes.len()), (5, 2 * FILE_CHUNK_BYTES), (100, 1), (bytes.len() - 3, 3)] {
            let mut body = Body::File(FileStream::open(file(&bytes), start as u64, length as u64).unwrap());
            let mut sent = Vec::new();
            while let Some(frame) = body.frame().await {
                let chunk = frame.unwrap().into_data().unwrap();
                assert!(chunk.len() <= FILE_CHUNK_BYTES);
                sent.extend_from_slice(&chunk);
                assert_eq!(body.size_hint().exact(), Some((length - sent.len()) as u64));
            }
            assert!(sent == bytes[start..start + length], "{start}+{length}");
        }
    }

    #[tokio::test]
    async fn a_file_that_shrinks_is_an_error_not_an_end() {
        let shrinking = file(&pattern(3 * FILE_CHUNK_BYTES));
        let other = shrinking.try_clone().unwrap();
        let mut body = Body::File(FileStream::open(shrinking, 0, 3 * FILE_CHUNK_BYTES as u64).unwrap());
        other.set_len(FILE_CHUNK_BYTES as u64 + 1).unwrap();
        assert!(body.frame().await.unwrap().is_ok());
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(body.frame().await.is_none());
        assert!(FileStream::open(file(b"abc"), 0, 4).is_err());
    }

    #[tokio::test]
    async fn plain_text_says_what_and_why() {
        let answer = plain_text(StatusCode::NOT_FOUND, "no such file below this path");
        assert_eq!(answer.status(), 404);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "404: no such file below this path\n");
    }
}
