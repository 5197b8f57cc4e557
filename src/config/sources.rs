//! The files of one configuration: the main file, and the drop-ins beside it.
//!
//! `conf.d/*.toml` beside the main file are drop-ins, in the order of their names. Hidden files are not. All files have offsets in one
//! range of bytes, one file after the other. So a [`Span`] also determines the file, and problems sort in the order of the files.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::limits;
use super::report::{Problem, Span};
use super::text_file::{self, Pipes};
use super::unclosed::{self, Mended};

/// The directory of the drop-ins, beside the main file.
pub const DROP_INS: &str = "conf.d";

/// One file.
pub(super) struct Source {
    /// Its path, as messages show it.
    pub(super) path: PathBuf,
    /// The directory in which relative paths begin.
    pub(super) base: PathBuf,
    pub(super) text: String,
    /// The offset of its first byte.
    pub(super) start: usize,
    /// The text without the brackets that it does not close. It is parsed where the text itself is not TOML.
    mended: OnceCell<Option<Mended>>,
}

/// All files; at least one.
pub(super) struct Sources {
    pub(super) files: Vec<Source>,
    /// The files that could not be read, and why.
    pub(super) unread: Vec<Problem>,
}

impl Sources {
    /// One file at `path` with this text. No file is read.
    pub(super) fn of(path: &Path, text: String) -> Sources {
        let base = path.parent().unwrap_or(Path::new("")).to_owned();
        Sources {
            files: vec![Source { path: path.to_owned(), base, text, start: 0, mended: OnceCell::new() }],
            unread: Vec::new(),
        }
    }

    /// Reads the main file at `path` and its drop-ins; `pipes` says whether it may be a pipe. Where the main file cannot be read, that is
    /// the only problem reported.
    pub(super) fn read(path: &Path, pipes: Pipes) -> Sources {
        let mut left = limits::CONFIG_BYTES_MAX;
        let mut sources = Sources { files: Vec::new(), unread: Vec::new() };
        sources.add(path, pipes, &mut left);
        if sources.unread.is_empty() {
            let folder = path.parent().unwrap_or(Path::new("")).join(DROP_INS);
            match names(&folder) {
                Ok(names) if names.len() > limits::DROP_INS_MAX => {
                    let title = format!("this directory has more than {} drop-ins", limits::DROP_INS_MAX);
                    sources.unread.push(Problem::whole(title).of(folder));
                }
                Ok(names) => names.iter().for_each(|name| sources.add(&folder.join(name), Pipes::Refused, &mut left)),
                Err(error) => {
                    let title = format!("this directory of drop-ins cannot be read: {error}");
                    let problem = Problem::whole(title).of(folder);
                    let denied = error.kind() == ErrorKind::PermissionDenied;
                    sources.unread.push(if denied { problem.denied() } else { problem });
                }
            }
        }
        sources
    }

    /// Adds a file. Its text is empty if it cannot be read.
    fn add(&mut self, path: &Path, pipes: Pipes, left: &mut u64) {
        let text = text_of(path, self.files.is_empty(), pipes, left).unwrap_or_else(|problem| {
            self.unread.push(problem.of(path.to_owned()));
            String::new()
        });
        // One byte between two files, because the end of a file is a location in it.
        let start = self.files.last().map_or(0, |last| last.start + last.text.len() + 1);
        // Absolute, because the daemon leaves the directory where it was started.
        let place = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let base = place.parent().unwrap_or(Path::new("")).to_owned();
        self.files.push(Source { path: path.to_owned(), base, text, start, mended: OnceCell::new() });
    }
}

impl Source {
    /// The text without the brackets that it does not close; `None`: it closes all.
    pub(super) fn mended(&self) -> Option<&Mended> {
        self.mended.get_or_init(|| unclosed::mend(&self.text)).as_ref()
    }

    /// The part of the file that `span` covers, as offsets in its text.
    pub(super) fn local(&self, span: &Span) -> Span {
        let inside = |at: usize| at.saturating_sub(self.start).min(self.text.len());
        inside(span.start)..inside(span.end)
    }

    /// The offset in its text of the byte `at`, or of the nearest start of a character before it.
    pub(super) fn boundary(&self, at: usize) -> usize {
        let at = at.saturating_sub(self.start).min(self.text.len());
        (0..=at).rev().find(|&i| self.text.is_char_boundary(i)).unwrap_or(0)
    }
}

/// The names of the drop-ins in `folder`, sorted; none if the folder does not exist.
fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    let entries = match folder.read_dir() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.ends_with(b".toml") && !bytes.starts_with(b".") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Reads the text of one file. `named`: it is the main file. `left`: how many bytes may still be read.
fn text_of(path: &Path, named: bool, pipes: Pipes, left: &mut u64) -> Result<String, Box<Problem>> {
    let unreadable = |error: io::Error| {
        let problem = Problem::whole(match error.kind() {
            ErrorKind::NotFound => "this file does not exist".to_owned(),
            ErrorKind::PermissionDenied => "this user has no permission to read it".to_owned(),
            ErrorKind::IsADirectory => "this is a directory, not a file".to_owned(),
            // An error of `text_file`, which has its own message.
            ErrorKind::Other | ErrorKind::TimedOut if error.raw_os_error().is_none() => error.to_string(),
            _ => format!("this file cannot be read: {error}"),
        });
        Box::new(match error.kind() {
            ErrorKind::NotFound if named => {
                problem.help("`env pushd --print-default-config` prints a file to start from")
            }
            ErrorKind::PermissionDenied => problem.denied(),
            _ => problem,
        })
    };
    let bytes = text_file::read(path, pipes, *left + 1).map_err(unreadable)?;
    let Some(rest) = left.checked_sub(bytes.len() as u64) else {
        let whole = if named { "this file is" } else { "with this file, the configuration is" };
        return Err(Box::new(Problem::whole(format!("{whole} larger than {} MiB", limits::CONFIG_BYTES_MAX >> 20))));
    };
    *left = rest;
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|&&b| b == b'\n').count() + 1;
        Box::new(Problem::whole(format!("this file is not UTF-8 text: see line {line}")))
    })
}
