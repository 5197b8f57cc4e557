//! The `static` route: which files it serves, and how.

use std::path::PathBuf;

use super::reader::{Item, Table};
use super::routes::Routes;

/// A route that serves files.
#[derive(Debug, Clone, PartialEq)]
pub struct Static {
    /// The directory. A relative path is joined to the directory of the file already.
    pub root: PathBuf,
    /// Whether a directory without an index is listed.
    pub listing: bool,
    /// The file names served for a directory: the first that exists.
    pub index: Vec<String>,
    /// Whether text is compressed if no compressed file lies beside it.
    pub compress: bool,
}

impl Static {
    /// A route that serves the files below `root`, with the default of every key.
    pub fn plain(root: PathBuf) -> Static {
        Static { root, listing: false, index: vec!["index.html".to_owned()], compress: true }
    }
}

impl<'a> Routes<'_, 'a> {
    pub(super) fn files(&self, table: &Table<'a>, item: &Item<'a>) -> Option<Static> {
        Some(Static {
            listing: table.flag("listing"),
            index: table.value("index", |item| index(*item)),
            compress: table.flag("compress"),
            root: item.directory()?,
        })
    }
}

fn index(item: Item<'_>) -> Option<Vec<String>> {
    let items = item.strings()?;
    for item in items.iter().filter(|item| item.as_text().is_some_and(|name| name.is_empty() || name.contains('/'))) {
        item.note(item.error("this is not a file name").label("an index is a file in the directory itself"));
    }
    Some(items.iter().filter_map(Item::as_text).map(str::to_owned).collect())
}
