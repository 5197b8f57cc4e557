//! Compressed copies of files that have none beside them.
//!
//! Each state of a file is compressed once for each coding, on a blocking thread, and the result is shared by all shards. While
//! a copy is being made, other requests get the file as it is; they do not wait. The cache is bounded; when it is full, it is
//! emptied.
//!
//! Only files are compressed, never an answer that a request can influence. So the size of an answer tells an attacker nothing
//! about a secret (BREACH).

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{LazyLock, Mutex, PoisonError};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::cache::Identity;
use super::coding::Coding;
use crate::config::limits::COMPRESSED_BYTES_MAX;

/// The levels: each compresses some 50 to 200 MB a second. More effort makes an answer a few percent smaller.
const BROTLI_QUALITY: i32 = 4;
const BROTLI_WINDOW: i32 = 22;
const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: u32 = 6;

/// The approximate cost of an entry beside its bytes.
const ENTRY_BYTES: usize = 256;

/// What is known of the compressed copy of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Copy {
    /// Its bytes.
    Made(Bytes),
    /// It would not be smaller.
    Useless,
    /// Another thread makes it.
    InTheMaking,
}

#[derive(Default)]
struct Cache {
    copies: HashMap<(Identity, u8), Copy>,
    bytes: usize,
}

static CACHE: LazyLock<Mutex<Cache>> = LazyLock::new(Mutex::default);

/// The copy of the file with this identity. If there is none yet, it is made of what `read` returns.
///
/// # Errors
/// That of `read`.
pub(super) fn copy(identity: Identity, coding: Coding, read: impl FnOnce() -> io::Result<Bytes>) -> io::Result<Copy> {
    let key = (identity, coding as u8);
    {
        let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(copy) = cache.copies.get(&key) {
            return Ok(copy.clone());
        }
        cache.copies.insert(key, Copy::InTheMaking);
    }
    // If this fails or panics, the entry must not stay.
    let mut making = Making { key, made: None };
    let bytes = read()?;
    let packed = compress(coding, &bytes)?;
    let is_useful = packed.len() + packed.len() / 16 < bytes.len();
    let copy = if is_useful { Copy::Made(packed.into()) } else { Copy::Useless };
    making.made = Some(copy.clone());
    Ok(copy)
}

/// A copy that is being made. When this is dropped, it is in the cache, or forgotten.
struct Making {
    key: (Identity, u8),
    made: Option<Copy>,
}

impl Drop for Making {
    fn drop(&mut self) {
        let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
        cache.copies.remove(&self.key);
        let Some(copy) = self.made.take() else { return };
        let cost = ENTRY_BYTES + if let Copy::Made(bytes) = &copy { bytes.len() } else { 0 };
        if cache.bytes + cost > COMPRESSED_BYTES_MAX {
            cache.copies.retain(|_, copy| *copy == Copy::InTheMaking);
            cache.bytes = 0;
        }
        cache.bytes += cost;
        cache.copies.insert(self.key, copy);
    }
}

fn compress(coding: Coding, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let packed = Vec::with_capacity(bytes.len() / 3);
    match coding {
        Coding::Brotli => {
            let parameters = brotli::enc::BrotliEncoderParams {
                quality: BROTLI_QUALITY,
                lgwin: BROTLI_WINDOW,
                size_hint: bytes.len(),
                ..Default::default()
            };
            let mut packed = packed;
            brotli::BrotliCompress(&mut &*bytes, &mut packed, &parameters)?;
            Ok(packed)
        }
        Coding::Zstd => zstd::bulk::compress(bytes, ZSTD_LEVEL),
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(packed, Compression::new(GZIP_LEVEL));
            encoder.write_all(bytes)?;
            encoder.finish()
        }
        Coding::Identity => Ok(bytes.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn identity(name: &str) -> (tempfile::NamedTempFile, Identity) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(name.as_bytes()).unwrap();
        let identity = Identity::of(&file.as_file().metadata().unwrap());
        (file, identity)
    }

    #[test]
    fn a_copy_is_made_once_and_unpacks_to_the_file() {
        let (_file, identity) = identity("once");
        let text = Bytes::from("<p>hello</p>\n".repeat(1000));
        for coding in Coding::COMPRESSED {
            let Copy::Made(packed) = copy(identity, coding, || Ok(text.clone())).unwrap() else { panic!("{coding:?}") };
            assert!(packed.len() < text.len() / 10, "{coding:?}");
            let mut unpacked = Vec::new();
            match coding {
                Coding::Brotli => brotli::BrotliDecompress(&mut &*packed, &mut unpacked).unwrap(),
                Coding::Zstd => unpacked = zstd::stream::decode_all(&*packed).unwrap(),
                _ => drop(flate2::read::GzDecoder::new(&*packed).read_to_end(&mut unpacked).unwrap()),
            }
            assert!(unpacked == text, "{coding:?}");
            let again = copy(identity, coding, || panic!("it is read twice")).unwrap();
            assert_eq!(again, Copy::Made(packed), "{coding:?}");
        }
    }

    #[test]
    fn a_copy_that_is_not_smaller_is_useless_and_a_failure_is_forgotten() {
        let (_file, identity) = identity("useless");
        assert!(copy(identity, Coding::Gzip, || Err(io::Error::other("x"))).is_err());
        let noise: Vec<u8> = (0_u32..4096).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let packed = zstd::bulk::compress(&noise, 19).unwrap();
        assert_eq!(copy(identity, Coding::Gzip, || Ok(packed.into())).unwrap(), Copy::Useless);
    }

    #[test]
    fn requests_at_the_same_time_do_not_wait() {
        let (_file, identity) = identity("same time");
        let outer = copy(identity, Coding::Gzip, || {
            let inner = copy(identity, Coding::Gzip, || panic!("it is read twice")).unwrap();
            assert_eq!(inner, Copy::InTheMaking);
            Ok("a".repeat(4096).into())
        });
        assert!(matches!(outer.unwrap(), Copy::Made(_)));
    }
}
