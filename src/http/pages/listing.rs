//! The page that lists a directory without an index file.
//!
//! Directories come first, then files, sorted by name, each with size and time. The page lists exactly what can be
//! requested: names that begin with a dot, links that leave the root, and anything but files and directories are left
//! out. In a directory with more than `LISTING_ENTRIES_MAX` names, only that many are examined, and the page says so.
//!
//! Examining many entries takes long. So requests that arrive meanwhile share one page, and that page is used again for
//! a short time while the directory does not change.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::Refusal;
use super::cache::Identity;
use super::open::Root;
use crate::config::limits::{LISTING_ENTRIES_MAX, LISTING_KEPT, LISTINGS_BYTES_MAX};

/// The Content-Security-Policy of a listing: it may only show itself.
pub(super) const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'");

/// All but the unreserved characters of RFC 3986.
const IN_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const HEAD: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<style>
body { font: 1rem/1.6 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.25rem; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .15rem .75rem .15rem 0; border-bottom: 1px solid #8884 }
td { overflow-wrap: anywhere }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
</style>
"#;

/// One row of a listing.
struct Entry {
    directory: bool,
    name: OsString,
    bytes: u64,
    /// Seconds since 1970.
    modified: i64,
}

/// The directory to list, and its path as the client knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ListedDirectory {
    root: PathBuf,
    path: PathBuf,
    title: String,
}

impl ListedDirectory {
    /// The directory at `path` below `root`. The client knows it as `shown`, percent-encoded.
    pub(super) fn new(root: &Path, path: &Path, shown: &str) -> ListedDirectory {
        let title = escape(&percent_decode_str(shown).decode_utf8_lossy());
        ListedDirectory { root: root.to_owned(), path: path.to_owned(), title }
    }
}

/// A page that was made.
struct MadePage {
    /// When the directory was examined.
    looked: Instant,
    /// The state of the directory at that time; `None` if a later change might not be visible in it.
    settled: Option<Identity>,
    page: Bytes,
}

/// The pages made recently. The request that makes a page holds its lock.
static PAGES: Mutex<Pages> = Mutex::new(Pages { by_directory: BTreeMap::new(), bytes: 0 });

struct Pages {
    by_directory: BTreeMap<ListedDirectory, Arc<Mutex<Option<MadePage>>>>,
    bytes: usize,
}

/// The page for a directory, for a request that `arrived` at that time. Returns a page that was made since then, or one that was
/// made a short time ago if the directory has not changed; otherwise it makes a new one.
pub(super) fn page(root: &Root, directory: ListedDirectory, arrived: Instant) -> Result<Bytes, Refusal> {
    let slot = lock(&PAGES).by_directory.entry(directory.clone()).or_default().clone();
    let mut kept = lock(&slot);
    let identity = Identity::of(&root.peek(&directory.path)?);
    if let Some(kept) = &*kept
        && (kept.looked >= arrived || (kept.settled == Some(identity) && kept.looked.elapsed() < LISTING_KEPT))
    {
        return Ok(kept.page.clone());
    }
    let (looked, settled) = (Instant::now(), identity.is_settled(SystemTime::now()).then_some(identity));
    let page = Bytes::from(write(root, &directory)?);
    let before = kept.replace(MadePage { looked, settled, page: page.clone() });
    drop(kept);
    lock(&PAGES).count(before.map_or(ENTRY_BYTES + page.len(), |before| page.len().saturating_sub(before.page.len())));
    Ok(page)
}

/// The approximate cost of a page beside its bytes: its names.
const ENTRY_BYTES: usize = 1024;

impl Pages {
    /// Adds to the number of kept bytes. If that is too much, all pages are dropped; a request that is making one still
    /// gets it.
    fn count(&mut self, more: usize) {
        self.bytes += more;
        if self.bytes > LISTINGS_BYTES_MAX {
            (self.by_directory, self.bytes) = (BTreeMap::new(), 0);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the page.
fn write(root: &Root, ListedDirectory { path, title, .. }: &ListedDirectory) -> Result<String, Refusal> {
    let (entries, cut) = entries(root, path)?;
    let mut page = String::with_capacity(1024 + 160 * entries.len());
    page.push_str(HEAD);
    let _ = writeln!(
        page,
        "<title>Index of {title}</title>\n</head>\n<body>\n<main>\n<h1>Index of <bdi>{title}</bdi></h1>"
    );
    // The directory above the route's own is served by another route, or not at all.
    if !path.as_os_str().is_empty() {
        page.push_str("<p><a href=\"../\">Parent directory</a></p>\n");
    }
    if entries.is_empty() && !cut {
        page.push_str("<p>This directory is empty.</p>\n");
    } else {
        page.push_str("<table>\n<thead><tr><th scope=\"col\">Name</th><th scope=\"col\" class=\"n\">Size</th>");
        page.push_str("<th scope=\"col\" class=\"n\">Modified (UTC)</th></tr></thead>\n<tbody>\n");
        for entry in &entries {
            entry.write(&mut page);
        }
        page.push_str("</tbody>\n</table>\n");
    }
    if cut {
        let _ = writeln!(page, "<p>Only {} names of this directory are shown.</p>", entries.len());
    }
    page.push_str("</main>\n</body>\n</html>\n");
    Ok(page)
}

/// The public entries of the directory, sorted, and whether there are more.
fn entries(root: &Root, path: &Path) -> Result<(Vec<Entry>, bool), Refusal> {
    let mut entries = Vec::new();
    let (mut seen, mut cut) = (0, false);
    // A read error ends the listing; the entries read before it are still correct.
    for found in root.directory(path)?.iter().map_while(Result::ok) {
        let name = found.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        // Entries that are not shown count too, because examining them costs time.
        if seen == LISTING_ENTRIES_MAX {
            cut = true;
            break;
        }
        seen += 1;
        if name.starts_with(b".") {
            continue;
        }
        let name = OsString::from_vec(name.to_vec());
        let Ok(metadata) = root.peek(&path.join(&name)) else { continue };
        if !metadata.is_dir() && !metadata.is_file() {
            continue;
        }
        entries.push(Entry { directory: metadata.is_dir(), name, bytes: metadata.len(), modified: metadata.mtime() });
    }
    entries.sort_by(|a, b| b.directory.cmp(&a.directory).then_with(|| a.name.cmp(&b.name)));
    Ok((entries, cut))
}

impl Entry {
    fn write(&self, page: &mut String) {
        let slash = if self.directory { "/" } else { "" };
        let link = percent_encode(self.name.as_bytes(), IN_SEGMENT);
        let name = escape(&self.name.to_string_lossy());
        let size = if self.directory { "–".to_owned() } else { size(self.bytes) };
        let time = jiff::Timestamp::from_second(self.modified).unwrap_or_default();
        let _ = writeln!(
            page,
            "<tr><td><a href=\"{link}{slash}\"><bdi>{name}</bdi>{slash}</a></td><td class=\"n\">{size}</td>\
             <td class=\"n\"><time datetime=\"{time}\">{}</time></td></tr>",
            time.strftime("%Y-%m-%d %H:%M"),
        );
    }
}

/// A size for people, with up to three digits.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1000.0 || unit == "TiB" {
            let digits = usize::from(unit != "B" && value < 9.95);
            return format!("{value:.digits$} {unit}");
        }
        value /= 1024.0;
    }
    bytes.to_string()
}

/// Escapes text for HTML, both for content and for quoted attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            character if character.is_control() => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_few_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (20 << 10, "20 KiB"),
            (5 << 20, "5.0 MiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn markup_is_escaped() {
        assert_eq!(escape("<a href=\"x\">'&\n"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;\u{fffd}");
    }
}
