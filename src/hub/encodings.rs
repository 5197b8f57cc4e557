//! The encodings of one publication: each is made on first need, once, and shared by all shards.
//!
//! They form a list that only grows. Most publications have one entry, and each entry is looked up once per shard, not once per
//! subscriber. No entry is locked while another one is made.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

/// Names an encoding: a framing together with what is said in it. Sessions with the same key receive the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EncodingKey(pub u64);

/// The encodings made so far: a list whose first entry is here, since most publications have only one.
#[derive(Debug, Default)]
pub struct Encodings(OnceLock<Entry>);

#[derive(Debug)]
struct Entry {
    key: EncodingKey,
    bytes: OnceLock<Bytes>,
    /// A shard has begun to make the bytes, or has made them.
    is_begun: AtomicBool,
    next: OnceLock<Box<Entry>>,
}

impl Encodings {
    /// The bytes of an encoding. Where another shard is making them, this waits for it: `make` must be quick.
    pub fn share(&self, key: EncodingKey, make: impl FnOnce() -> Bytes) -> &Bytes {
        self.entry(key).bytes.get_or_init(make)
    }

    /// The same where `make` takes long: `None` while another shard is making the bytes.
    pub fn try_share(&self, key: EncodingKey, make: impl FnOnce() -> Bytes) -> Option<&Bytes> {
        let entry = self.entry(key);
        match entry.is_begun.swap(true, Ordering::Relaxed) {
            true => entry.bytes.get(),
            false => Some(entry.bytes.get_or_init(make)),
        }
    }

    fn entry(&self, key: EncodingKey) -> &Entry {
        let new = || Entry { key, bytes: OnceLock::new(), is_begun: AtomicBool::new(false), next: OnceLock::new() };
        let mut entry = self.0.get_or_init(new);
        while entry.key != key {
            entry = entry.next.get_or_init(|| Box::new(new()));
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_encoding_is_made_once() {
        let encodings = Encodings::default();
        for round in 0..2 {
            for key in 0..5 {
                let bytes = encodings.share(EncodingKey(key), || {
                    assert_eq!(round, 0, "made again");
                    vec![key as u8].into()
                });
                assert_eq!(bytes[..], [key as u8]);
            }
        }
    }

    #[test]
    fn a_slow_encoding_keeps_no_other_shard_waiting() {
        let (encodings, key) = (Encodings::default(), EncodingKey(7));
        let made = encodings.try_share(key, || {
            // Another shard asks meanwhile, for this one and for another one.
            assert_eq!(encodings.try_share(key, || unreachable!()), None);
            assert_eq!(encodings.share(EncodingKey(8), || b"plain"[..].into())[..], *b"plain");
            b"small"[..].into()
        });
        assert_eq!(made.map(|bytes| &bytes[..]), Some(&b"small"[..]));
        assert_eq!(encodings.try_share(key, || unreachable!()), made);
    }
}
