//! The body of an answer: bytes in memory, or a part of a file that is read while it is sent.
//!
//! A file is read in chunks. Each chunk is read when the one before is sent, so a client that does not read costs one chunk and no
//! disk access. A chunk that is in the page cache is copied at once. Other chunks are read on the blocking threads of the runtime,
//! never on the thread of the shard.
//!
//! If a file has become shorter meanwhile, this is an error that ends the connection: the length is already sent, and caches must
//! not store a truncated body as a complete one.

use std::fs::File;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Frame, SizeHint};
use rustix::io::{ReadWriteFlags, preadv2};
use tokio::task::JoinHandle;

use super::pages::OpenFile;
use crate::config::limits::{FILE_CHUNK_BYTES, FILE_TURN_BYTES};

/// The body of every answer.
#[derive(Debug)]
pub enum Body {
    /// Bytes in memory. `None`: they are sent, or there are none.
    Full(Option<Bytes>),
    /// A part of a file.
    File(FileStream),
}

/// A part of a file, read in chunks.
#[derive(Debug)]
pub struct FileStream {
    file: Arc<OpenFile>,
    /// Where the next chunk begins.
    at: u64,
    /// Bytes not handed out yet.
    left: u64,
    next: Next,
    /// Bytes handed out since other connections were served.
    turn: usize,
}

/// The next chunk.
#[derive(Debug)]
enum Next {
    Unread,
    Reading(JoinHandle<io::Result<Bytes>>),
}

impl Body {
    /// An empty body.
    pub fn empty() -> Body {
        Body::Full(None)
    }

    /// Its text, if it is in memory.
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
    /// The `length` bytes of `file` that begin at `start`.
    pub fn new(file: Arc<OpenFile>, start: u64, length: u64) -> FileStream {
        FileStream { file, at: start, left: length, next: Next::Unread, turn: 0 }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let bytes = usize::try_from(self.left).unwrap_or(usize::MAX).min(FILE_CHUNK_BYTES);
        if matches!(self.next, Next::Unread) {
            if self.turn >= FILE_TURN_BYTES {
                self.turn = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match read_cached(&self.file.file, self.at, bytes) {
                Some(chunk) => return Poll::Ready(Some(Ok(self.hand_out(chunk)))),
                None => {
                    let (file, at) = (self.file.clone(), self.at);
                    self.next = Next::Reading(tokio::task::spawn_blocking(move || read_chunk(&file.file, at, bytes)));
                }
            }
        }
        let Next::Reading(reading) = &mut self.next else { return Poll::Ready(None) };
        let read = ready!(Pin::new(reading).poll(cx)).unwrap_or_else(|failed| Err(io::Error::other(failed)));
        self.next = Next::Unread;
        if read.is_err() {
            self.left = 0;
        }
        Poll::Ready(Some(read.map(|chunk| self.hand_out(chunk))))
    }

    fn hand_out(&mut self, chunk: Bytes) -> Bytes {
        self.at += chunk.len() as u64;
        self.left -= chunk.len() as u64;
        self.turn += chunk.len();
        chunk
    }
}

impl Drop for FileStream {
    fn drop(&mut self) {
        if let Next::Reading(reading) = &self.next {
            reading.abort();
        }
    }
}

/// Up to `bytes` bytes of `file` from `at` on that are in the page cache. `None`: none are.
fn read_cached(file: &File, at: u64, bytes: usize) -> Option<Bytes> {
    let mut chunk = vec![0; bytes];
    let read = preadv2(file, &mut [IoSliceMut::new(&mut chunk)], at, ReadWriteFlags::NOWAIT).ok()?;
    chunk.truncate(read);
    (read > 0).then(|| chunk.into())
}

/// Exactly `bytes` bytes of `file` from `at` on.
fn read_chunk(file: &File, at: u64, bytes: usize) -> io::Result<Bytes> {
    let mut chunk = vec![0; bytes];
    file.read_exact_at(&mut chunk, at).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "the file became shorter while it was sent"),
        _ => error,
    })?;
    Ok(chunk.into())
}

/// An answer in plain text: the status, and the reason.
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

    fn file(bytes: &[u8]) -> Arc<OpenFile> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        OpenFile::alone(file)
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i / 251 + i) as u8).collect()
    }

    #[tokio::test]
    async fn bytes_in_memory_are_sent_once_and_their_length_is_known() {
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
    async fn a_part_of_a_file_is_sent_completely_in_chunks() {
        let bytes = pattern(3 * FILE_CHUNK_BYTES + 17);
        for (start, length) in [(0, bytes.len()), (5, 2 * FILE_CHUNK_BYTES), (100, 1), (bytes.len() - 3, 3)] {
            let mut body = Body::File(FileStream::new(file(&bytes), start as u64, length as u64));
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
    async fn a_file_that_becomes_shorter_is_an_error_and_not_an_end() {
        let shrinking = file(&pattern(3 * FILE_CHUNK_BYTES));
        let mut body = Body::File(FileStream::new(shrinking.clone(), 0, 3 * FILE_CHUNK_BYTES as u64));
        shrinking.file.set_len(FILE_CHUNK_BYTES as u64 + 1).unwrap();
        assert!(body.frame().await.unwrap().is_ok());
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 1);
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_plain_text_answer_has_the_status_and_the_reason() {
        let answer = plain_text(StatusCode::NOT_FOUND, "no such file below this path");
        assert_eq!(answer.status(), 404);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "404: no such file below this path\n");
    }
}
