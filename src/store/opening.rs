//! Opening a store: creating it, and finding out whether it is whole.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::path::Path;

use rusqlite::Connection;

use super::append::{State, transaction};
use super::files::{Files, Lock};
use super::schema::{APPLICATION, FORMAT, PAGE};
use super::{Sync, io_error, is_damage, log_file, salvage, schema, verify};
use crate::config::limits::STORE_CHECKED_BYTES_MAX;

/// A larger number than this in the place of the format is damage, not a format.
const FORMAT_BELIEVED_MAX: i32 = 255;

/// Why a store cannot be opened.
#[derive(Debug)]
pub struct OpenError {
    /// What happened, and what would help.
    pub message: String,
    /// The kind of the error. `PermissionDenied`: exit code 77; another one: 73.
    pub kind: io::ErrorKind,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for OpenError {}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> OpenError {
        OpenError { message: format!("the store cannot be opened: {error}"), kind: error.kind() }
    }
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> OpenError {
        io_error(&error).into()
    }
}

impl OpenError {
    pub(super) fn busy(directory: &Path) -> OpenError {
        let message = format!("the store in {} is in use by another process", directory.display());
        OpenError { message, kind: io::ErrorKind::ResourceBusy }
    }

    /// For a store that is only looked at.
    pub fn damaged(directory: &Path, found: &str) -> OpenError {
        let help = "pushd repairs it when it starts: what is whole is saved, and the damaged file is kept";
        let message = format!("{}: the store is damaged: {found}\n{help}", directory.display());
        OpenError { message, kind: io::ErrorKind::InvalidData }
    }

    fn of(directory: &Path, what: &str, error: &io::Error) -> OpenError {
        OpenError { message: format!("{what} {}: {error}", directory.display()), kind: error.kind() }
    }
}

/// A store that is open.
pub(super) struct Opened {
    pub files: Files,
    pub lock: Lock,
    pub db: Connection,
    /// What the log should say.
    pub warnings: Vec<String>,
    /// Whether every message was checked.
    pub is_checked: bool,
}

/// Opens or creates the store in `directory`.
pub(super) fn open(directory: &Path, sync: Sync) -> Result<Opened, OpenError> {
    let files =
        Files::create(directory).map_err(|error| OpenError::of(directory, "cannot create the store", &error))?;
    let lock = files.lock().map_err(|error| OpenError::of(directory, "cannot lock the store", &error))?;
    let lock = lock.ok_or_else(|| OpenError::busy(directory))?;
    let mut warnings = Vec::new();
    if let Some(aside) = files.clean()? {
        warnings.push(format!("the store was damaged; what was whole was saved; the damaged file is kept as {aside}"));
    }
    if !files.database().exists() && !is_there(&files.log()) {
        create(&files)?;
    }
    let mut is_checked = true;
    let db = match examine(&files)? {
        Some(found) => Err(found),
        None => match usable(&files, sync, &mut warnings)? {
            Ok((db, checked)) => {
                is_checked = checked;
                Ok(db)
            }
            Err(found) => Err(found),
        },
    };
    let db = match db {
        Ok(db) => db,
        Err(found) => {
            warnings.extend(salvage::rebuild(&files, &found, &[]).map_err(|error| {
                OpenError::of(
                    directory,
                    &format!("the store is damaged ({found}), and what is whole cannot be saved in"),
                    &error,
                )
            })?);
            schema::writing(&files.database(), sync)?
        }
    };
    schema::add_missing(&db)?;
    Ok(Opened { files, lock, db, warnings, is_checked })
}

fn create(files: &Files) -> Result<(), OpenError> {
    Files::create_empty(&files.unfinished())?;
    schema::create(&files.unfinished())?;
    files.begin()?;
    Ok(())
}

fn is_there(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.len() > 0)
}

/// Looks at the bytes of the files, before SQLite does. Returns what is damaged.
fn examine(files: &Files) -> Result<Option<String>, OpenError> {
    let mut header = Vec::new();
    match OpenOptions::new().read(true).write(true).open(files.database()) {
        Ok(file) => drop(file.take(100).read_to_end(&mut header)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some("the database is missing".to_owned())),
        Err(error) => return Err(OpenError::of(&files.database(), "cannot open", &error)),
    }
    let number =
        |at: usize| header.get(at..at + 4).map(|bytes| i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    let page = header.get(16..18).map(|bytes| usize::from(bytes[0]) << 8 | usize::from(bytes[1]));
    if !header.starts_with(b"SQLite format 3\0") || page != Some(PAGE) || number(68) != Some(APPLICATION) {
        return Ok(Some("the beginning of the database is damaged".to_owned()));
    }
    match number(60) {
        Some(FORMAT) => {}
        Some(format @ 2..=FORMAT_BELIEVED_MAX) => {
            let database = files.database();
            let message = format!(
                "the store {} has format {format}, this version knows only up to {FORMAT}: a newer pushd has written it",
                database.display()
            );
            return Err(OpenError { message, kind: io::ErrorKind::Unsupported });
        }
        _ => return Ok(Some("the format of the database is damaged".to_owned())),
    }
    Ok(log_file::damage(&files.log(), &files.index())?)
}

/// Opens the database and checks it. The inner error is what is damaged.
fn usable(
    files: &Files,
    sync: Sync,
    warnings: &mut Vec<String>,
) -> Result<Result<(Connection, bool), String>, OpenError> {
    match check(files, sync, warnings) {
        Ok(checked) => Ok(checked),
        Err(error) if is_damage(&error) => Ok(Err(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

fn check(
    files: &Files,
    sync: Sync,
    warnings: &mut Vec<String>,
) -> rusqlite::Result<Result<(Connection, bool), String>> {
    let db = schema::writing(&files.database(), sync)?;
    schema::empty_log(&db)?;
    let pages: i64 = db.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    let (expected, bytes) =
        (pages.max(0) as u64 * PAGE as u64, files.database().metadata().map_or(0, |found| found.len()));
    if bytes < expected {
        return Ok(Err(format!("the database is cut: {bytes} of {expected} bytes are there")));
    }
    let is_small = bytes <= STORE_CHECKED_BYTES_MAX;
    let findings = if is_small {
        verify::complete(&db)?
    } else {
        verify::Findings { structure: verify::start(&db)?, messages: Vec::new() }
    };
    if let Some(found) = findings.structure {
        return Ok(Err(found));
    }
    if !findings.messages.is_empty() {
        warnings.extend(forget(&db, &findings.messages)?);
    }
    Ok(Ok((db, is_small)))
}

/// Deletes messages whose bytes are damaged. Returns what the log should say.
fn forget(db: &Connection, messages: &[i64]) -> rusqlite::Result<Vec<String>> {
    let mut state = State { is_stale: true, ..State::default() };
    transaction(db, || {
        state.refresh(db)?;
        messages.iter().try_for_each(|&id| state.forget(db, id))?;
        state.flush(db)
    })?;
    let of = |id: i64| {
        let (number, offset) = schema::of_message_id(id);
        let hub = state.hubs.iter().find(|hub| hub.number == number).map_or("unknown", |hub| &hub.name);
        format!("a message in the store is damaged and was deleted: hub {hub}, offset {offset}")
    };
    let mut lines: Vec<_> = messages.iter().take(5).map(|&id| of(id)).collect();
    if messages.len() > lines.len() {
        lines.push(format!("{} more messages in the store are damaged and were deleted", messages.len() - lines.len()));
    }
    Ok(lines)
}
