//! Sends a file that was found: chooses its coding, reads it, and says whether it is to be cached.

use std::fs::{File, Metadata};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::StatusCode;

use super::cache::{self, Identity, Kept, State};
use super::coding::{Available, Coding, Codings};
use super::compressed;
use super::description::{Description, Origin, Sent, is_compressible, is_undated};
use super::files::Files;
use super::open::{self, Root};
use super::request::{Answered, Request};
use super::route::Pages;
use super::siblings::{self, Siblings};
use super::{Body, Refusal};
use crate::config::limits::{COMPRESS_BYTES_MAX, COMPRESS_BYTES_MIN, FILE_CHUNK_BYTES, FILE_WHOLE_BYTES_MAX};
use crate::http::body::FileStream;

/// Where a file is looked up.
pub(super) struct Place<'p> {
    pub(super) root: Root,
    pub(super) pages: &'p Pages,
    pub(super) files: &'p Files,
}

/// A file that was found, open for reading.
struct Original<'f> {
    file: File,
    metadata: &'f Metadata,
    /// Its path below the root.
    path: &'f Path,
}

/// Where the bytes of the chosen coding are.
enum Source {
    /// In the file itself.
    Original,
    /// In a file beside it.
    Beside(File, Metadata),
    /// In memory.
    Made(Bytes),
}

impl Request {
    /// The file at `path` below the root, or the requested part of it.
    pub(super) fn file(
        &self,
        place: &Place<'_>,
        file: File,
        metadata: &Metadata,
        path: &Path,
    ) -> Result<Answered, Refusal> {
        let now = SystemTime::now();
        let original = Original { file, metadata, path };
        let (identity, siblings) = (Identity::of(metadata), Siblings::beside(&place.pages.route.root.join(path)));
        let mut available = Available { beside: siblings.codings(), made: original.made_codings(place.pages, now) };
        let (coding, source) = self.choose(place, &original, &mut available)?;
        let state = State { identity, siblings, available };

        let (file, metadata, made) = match source {
            Source::Original => (original.file, metadata.clone(), None),
            Source::Beside(file, metadata) => (file, metadata, None),
            Source::Made(bytes) => (original.file, metadata.clone(), Some(bytes)),
        };
        let sent = Sent {
            metadata: &metadata,
            path,
            coding,
            origin: if made.is_some() { Origin::Made } else { Origin::Disk },
            length: made.as_ref().map_or(metadata.len(), |bytes| bytes.len() as u64),
            cache_control: place.pages.cache_control(path),
            varies: siblings.any() || is_compressible(path),
        };
        let description = Arc::new(Description::of(&sent, now));
        let length = description.length;
        let sent_identity = Identity::of(&metadata);
        // A date in the future will become valid one day, so a description without a date must not be cached.
        let is_dated = description.validators.modified.is_some() || is_undated(&metadata);
        let lasts = identity.is_settled(now) && sent_identity.is_settled(now) && is_dated && open::is_local(&file);
        let keep = |bytes: &Bytes| {
            let beside = (sent_identity != identity).then_some(sent_identity);
            let copy = cache::Copy { beside, description: description.clone(), bytes: bytes.clone() };
            Kept { below: path.to_owned(), state, coding, copy }
        };
        let mut kept = None;
        let answer = self.asked.answer(&description, |part| {
            if let Some(bytes) = made {
                kept = lasts.then(|| keep(&bytes));
                return Ok(bytes.slice(part.start as usize..part.end as usize).into());
            }
            let is_kept = part == (0..length) && length <= FILE_WHOLE_BYTES_MAX && lasts;
            // Files that are not cached need memory for each client, so they are read in small pieces.
            if !is_kept && part.end - part.start > FILE_CHUNK_BYTES as u64 {
                let file = place.files.share(file, sent_identity).ok_or(Refusal::BUSY)?;
                return Ok(Body::File(FileStream::new(file, part.start, part.end - part.start)));
            }
            let bytes = read(&file, &part).map_err(|error| unreadable(&error, path))?;
            kept = is_kept.then(|| keep(&bytes));
            Ok(bytes.into())
        })?;
        Ok((answer, kept))
    }

    /// The coding that the request prefers, and its bytes. Codings that turn out not to be `available` are removed there.
    fn choose(
        &self,
        place: &Place<'_>,
        original: &Original<'_>,
        available: &mut Available,
    ) -> Result<(Coding, Source), Refusal> {
        let mut now = *available;
        loop {
            let coding = self.asked.accepted.best(now);
            if coding == Coding::Identity {
                return Ok((coding, Source::Original));
            }
            if now.beside.has(coding) {
                if let Some((file, metadata)) = siblings::open(&place.root, original.path, coding, original.metadata) {
                    return Ok((coding, Source::Beside(file, metadata)));
                }
                available.beside.remove(coding);
                now.beside.remove(coding);
                continue;
            }
            let identity = Identity::of(original.metadata);
            let all = 0..original.metadata.len();
            let copy = compressed::copy(identity, coding, || read(&original.file, &all));
            match copy.map_err(|error| unreadable(&error, original.path))? {
                compressed::Copy::Made(bytes) => return Ok((coding, Source::Made(bytes))),
                compressed::Copy::Useless => {
                    available.made.remove(coding);
                    now.made.remove(coding);
                }
                compressed::Copy::InTheMaking => now.made = Codings::default(),
            }
        }
    }
}

impl Original<'_> {
    /// The codings that can be made of it. A file that has just changed is not compressed: a further change might not be visible.
    fn made_codings(&self, pages: &Pages, now: SystemTime) -> Codings {
        let fits = (COMPRESS_BYTES_MIN..=COMPRESS_BYTES_MAX).contains(&self.metadata.len());
        let is_settled = Identity::of(self.metadata).is_settled(now);
        if pages.route.compress && fits && is_settled && is_compressible(self.path) {
            Codings::COMPRESSED
        } else {
            Codings::default()
        }
    }
}

/// Reads this part of a file.
fn read(file: &File, part: &Range<u64>) -> std::io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(part.end - part.start).unwrap_or(0)];
    file.read_exact_at(&mut bytes, part.start)?;
    Ok(bytes.into())
}

fn unreadable(error: &std::io::Error, path: &Path) -> Refusal {
    log::warn!("cannot read {}: {error}", path.display());
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the file could not be read")
}
