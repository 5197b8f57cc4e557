//! Secrets: the bytes themselves, and how the file names them.
//!
//! The file never contains a secret. It names a file (`{ file = "backend.key" }`), or a credential that the service manager passes
//! (`{ credential = "backend.key" }`, systemd.exec(5) "CREDENTIALS"), or a list of them while one is replaced by another. They are read
//! with the configuration, so a reload reads them anew.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use toml::de::DeValue;

use super::keys;
use super::limits::{SECRET_BYTES_MAX, SECRET_BYTES_SHORT, SECRETS_MAX};
use super::reader::Item;
use super::report::Problem;
use super::text_file::{self, Pipes};

/// The variable with the directory of the credentials.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
const EXPECTED: &str = "`{ file = \"PATH\" }` or `{ credential = \"NAME\" }`";

/// Bytes that must not be shown.
#[derive(Clone)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// The secret in the content of a file. A line break at the end is not part of it.
    pub fn new(content: &[u8]) -> Secret {
        let line = content.strip_suffix(b"\n").unwrap_or(content);
        Secret(line.strip_suffix(b"\r").unwrap_or(line).into())
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// In constant time for secrets of the same length.
impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for Secret {}

impl<'a> Item<'a> {
    /// The secrets that it names. None of them, if the files are only parsed.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        self.places().iter().filter_map(Item::secret).collect()
    }

    /// The tables that name a file or a credential: one, or a list of a few.
    pub(super) fn places(&self) -> Vec<Item<'a>> {
        match self.value.get_ref() {
            DeValue::Array(values) if (1..=SECRETS_MAX).contains(&values.len()) => {
                values.iter().map(|value| self.with_value(value)).collect()
            }
            DeValue::Array(_) => {
                let problem = self.error(format!("`{}` takes one secret or a few", self.key()));
                self.note(problem.label(format!("expected 1 to {SECRETS_MAX}")));
                Vec::new()
            }
            _ => vec![*self],
        }
    }

    fn secret(&self) -> Option<Secret> {
        let (path, named) = self.place()?;
        self.report.reads_files.then(|| named.read_secret(&path))?
    }

    /// The file or the credential that its table names, and the value that names it.
    pub(super) fn place(&self) -> Option<(PathBuf, Item<'a>)> {
        if self.as_text().is_some() {
            let problem =
                self.error("a secret is not written into this file").label("anybody who reads the file sees it");
            self.note(problem.help(format!("write it to a file of its own, and here {EXPECTED}")));
            return None;
        }
        if !self.is_table() {
            self.mismatch(EXPECTED);
            return None;
        }
        let table = self.table(&keys::SECRET)?;
        match (table.item("file"), table.item("credential")) {
            (Some(file), None) => Some((file.base().join(file.text("the path of a file")?), file)),
            (None, Some(credential)) => Some((credential.credential()?, credential)),
            _ => {
                let problem = self.error("a secret is in one place").label(format!("expected {EXPECTED}"));
                self.note(problem);
                None
            }
        }
    }

    /// The path of a credential. `None`: it has none here, or a mistake was reported.
    fn credential(&self) -> Option<PathBuf> {
        let name = self.text("the name of a credential")?;
        if name.contains('/') || name.starts_with('.') {
            self.note(self.error("this is not the name of a credential").label("expected a name without `/`"));
            return None;
        }
        match std::env::var_os(CREDENTIALS) {
            Some(directory) => Some(Path::new(&directory).join(name)),
            None if !self.report.needs_credentials => None,
            None => {
                let problem = self.error("there are no credentials here").label("only the service manager passes some");
                self.note(problem.help(format!(
                    "in the unit, `LoadCredential={name}:PATH` passes it; elsewhere, set {CREDENTIALS} to a directory \
                     that has `{name}`, or use `{{ file = \"PATH\" }}`"
                )));
                None
            }
        }
    }

    /// Reads the file at `path`, which this item names.
    fn read_secret(&self, path: &Path) -> Option<Secret> {
        let content = match text_file::read(path, Pipes::Refused, SECRET_BYTES_MAX as u64 + 1) {
            Ok(content) => content,
            Err(error) => {
                let problem = self.error("this secret cannot be read").label(unreadable(&error));
                self.note(problem.help(format!(
                    "the file is {}; `pushctl key new --file PATH` makes one. A reload reads it as the user that pushd runs as",
                    path.display()
                )));
                return None;
            }
        };
        let secret = Secret::new(&content);
        match secret.bytes().len() {
            0 => self.note(self.error("this secret is empty").label(format!("{} has no bytes", path.display()))),
            SECRET_BYTES_MAX.. => {
                let problem = self.error("this secret is too long");
                self.note(problem.label(format!("at most {SECRET_BYTES_MAX} bytes")));
            }
            short => {
                self.warn_of(path, short);
                return Some(secret);
            }
        }
        None
    }

    fn warn_of(&self, path: &Path, bytes: usize) {
        if bytes < SECRET_BYTES_SHORT {
            let problem = Problem::warning(self.span(), "this secret is short, and may be guessed");
            let label = format!("fewer than {SECRET_BYTES_SHORT} bytes");
            self.note(problem.label(label).help("`pushctl key new --file PATH` makes one of 32 random bytes"));
        }
        self.warn_if_open(path, "secret");
    }

    /// Warns of a file that every user can read.
    pub(super) fn warn_if_open(&self, path: &Path, what: &str) {
        let mode = fs::metadata(path).map_or(0, |found| found.permissions().mode());
        if mode & 0o007 != 0 {
            let problem = Problem::warning(self.span(), format!("every user of this machine can read this {what}"));
            let label = format!("its mode is {:o}", mode & 0o777);
            self.note(problem.label(label).help(format!("`chmod o= {}`", path.display())));
        }
    }
}

/// Why a file cannot be read.
pub(super) fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_compared_and_not_shown() {
        let secret = Secret::new(b"hunter2\r\n");
        assert_eq!((secret.bytes(), format!("{secret:?}").as_str()), (&b"hunter2"[..], "Secret(hidden)"));
        assert_eq!(secret, Secret::new(b"hunter2"));
        assert_ne!(secret, Secret::new(b"hunter2\n\n"));
    }
}
