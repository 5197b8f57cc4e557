//! The `static` route: which files it serves, and how.

use std::path::{Component, Path, PathBuf};

use super::addresses;
use super::caching::{self, Caching};
use super::fields;
use super::passwords::{self, Passwords};
use super::reader::{Item, Table, listed};
use super::report::{Problem, Report, Span};
use super::routes::{Routes, warn_idle};
use super::{Action, Listen, Origins, Route};

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
    /// Further header fields of all answers: names in lower case, with their values.
    pub headers: Vec<(String, String)>,
    /// How long caches may keep which files.
    pub cache: Caching,
    /// The file, below the directory, that is sent to a browser for a path without a file.
    pub fallback: Option<String>,
    /// The files, below the directory, that are sent with answers of these statuses.
    pub errors: Vec<(u16, String)>,
    /// The pages of other origins whose scripts may read the files; `None`: no other origin.
    pub origins: Option<Origins>,
    /// Who may read the files; `None`: everybody.
    pub passwords: Option<Passwords>,
}

/// The statuses that a static route answers with if it does not send a file.
const ERRORS: [u16; 10] = [400, 401, 403, 404, 405, 412, 414, 416, 500, 503];

impl Static {
    /// A route that serves the files below `root`, with the default of every key.
    pub fn plain(root: PathBuf) -> Static {
        Static {
            root,
            listing: false,
            index: vec!["index.html".to_owned()],
            compress: true,
            headers: Vec::new(),
            cache: Caching::default(),
            fallback: None,
            errors: Vec::new(),
            origins: None,
            passwords: None,
        }
    }
}

impl<'a> Routes<'_, 'a> {
    pub(super) fn files(&self, table: &Table<'a>, item: &Item<'a>) -> Option<Static> {
        let root = item.directory();
        Some(Static {
            listing: table.flag("listing"),
            index: table.value("index", |item| index(*item)),
            compress: table.flag("compress"),
            headers: table.item("headers").map(fields::read).unwrap_or_default(),
            cache: table.item("cache").map(caching::read).unwrap_or_default(),
            fallback: table.item("fallback").and_then(|item| file_below(&item, root.as_deref())),
            errors: table.item("errors").map(|item| errors(item, root.as_deref())).unwrap_or_default(),
            origins: table.item("origins").and_then(addresses::origins),
            passwords: passwords(table),
            root: root?,
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

/// The path of a file below the directory of the route, which is `root`.
fn file_below(item: &Item<'_>, root: Option<&Path>) -> Option<String> {
    let text = item.text("the path of a file below the directory")?;
    let is_below = Path::new(text).components().all(|part| matches!(part, Component::Normal(_)));
    if !is_below || text.ends_with('/') || text.contains("//") {
        let problem = item.error("this is not a file below the directory of the route");
        item.note(problem.label("expected a path such as `index.html` or `pages/404.html`"));
        return None;
    }
    let is_missing = |root: &Path| root.is_dir() && !root.join(text).is_file();
    if item.report.reads_files && root.is_some_and(is_missing) {
        let problem =
            Problem::warning(item.span(), "this file does not exist").label("requests get a line of text instead");
        item.note(problem.help("the path begins in the directory of the route"));
    }
    Some(text.to_owned())
}

fn passwords(table: &Table<'_>) -> Option<Passwords> {
    let realm = table.value("realm", realm);
    if table.item("basic_auth").is_none() {
        warn_idle(table, "realm", "`basic_auth`");
    }
    table.item("basic_auth").map(|item| passwords::read(&item, realm))
}

/// Warns of passwords that other machines send without encryption.
pub(super) fn warn_unencrypted(report: &Report<'_>, listen: &[Listen], routes: &[(Span, Route)]) {
    let open = listen.iter().find_map(|listen| match listen {
        Listen::Tcp(address) if !address.ip().to_canonical().is_loopback() => Some(address),
        _ => None,
    });
    let Some(address) = open else { return };
    let asks = |action: &Action| matches!(action, Action::Static(pages) if pages.passwords.is_some());
    for (span, route) in routes.iter().filter(|(_, route)| asks(&route.action)) {
        let title = format!("passwords for `{}` are sent to {address} without encryption", route.pattern);
        let problem = Problem::warning(span.clone(), title).label("everybody on the way can read them");
        report
            .note(problem.help(
                "add `tls` to the server, or listen on 127.0.0.1 or on a Unix socket behind a proxy that has it",
            ));
    }
}

/// The text that browsers show. In the header field it stands between quotes.
fn realm(item: &Item<'_>) -> Option<String> {
    let text = item.text("what browsers show when they ask for the password")?;
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        item.note(
            item.error("this realm cannot be shown").label("expected visible ASCII without quotes and backslashes"),
        );
        return None;
    }
    Some(text.to_owned())
}

fn errors(item: Item<'_>, root: Option<&Path>) -> Vec<(u16, String)> {
    let mut errors = Vec::new();
    for item in item.members() {
        let status = item.key().parse().ok().filter(|status| ERRORS.contains(status));
        if status.is_none() {
            let problem = Problem::error(item.key_span(), "a static route does not answer with this status");
            let known = ERRORS.map(|status| status.to_string());
            item.note(problem.label("not one of its statuses").help(format!("expected {}", listed(known, "or"))));
        }
        if let (Some(file), Some(status)) = (file_below(&item, root), status) {
            errors.push((status, file));
        }
    }
    errors
}
