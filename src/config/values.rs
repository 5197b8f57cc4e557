//! The values that TOML does not have: lists, templates, channels, directories, masks. And the values of plain keys, by name.
//!
//! The second part of [`Item`] and [`Table`]: `reader` has the types of TOML, this module those of pushd.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use super::Template;
use super::limits;
use super::reader::{Item, Table, listed};
use super::report::{Outside, Problem};
use super::units;

/// The value of a key that is set, else its default.
impl Table<'_> {
    pub(super) fn duration(&self, key: &str) -> Duration {
        self.value(key, |item| item.duration())
    }

    /// `None`: off.
    pub(super) fn duration_or_off(&self, key: &str) -> Option<Duration> {
        self.value(key, |item| item.duration_or_off())
    }

    pub(super) fn size(&self, key: &str) -> usize {
        self.value(key, |item| item.size())
    }

    pub(super) fn count(&self, key: &str) -> usize {
        self.value(key, |item| item.count())
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.value(key, |item| item.flag())
    }

    pub(super) fn choice<T: Copy>(&self, key: &str, words: &[(&'static str, T)]) -> T {
        self.value(key, |item| item.choice(words))
    }
}

impl<'a> Item<'a> {
    /// A duration within the bounds of its entry, or `false`.
    fn duration_or_off(&self) -> Option<Option<Duration>> {
        if self.as_flag() == Some(false) { Some(None) } else { self.duration().map(Some) }
    }

    /// A file mode creation mask: octal, as a string or as TOML writes it (`0o027`).
    pub(super) fn umask(&self) -> Option<u32> {
        let mode = match self.value.get_ref() {
            DeValue::String(text) => units::mode(text),
            DeValue::Integer(number) if number.radix() == 8 => units::mode(number.as_str()),
            _ => None,
        };
        if mode.is_none() {
            let problem = self.error(format!("`{}` takes an octal number up to 777", self.key()));
            self.note(match self.as_text() {
                Some(_) => problem.label("not octal").help("up to three digits, each 0 to 7, as in `\"027\"`"),
                None => problem.label("not a string").help("write it as a string, as in `\"027\"`"),
            });
        }
        mode
    }

    /// A list of strings, or one alone.
    pub(super) fn strings(self) -> Option<Vec<Item<'a>>> {
        match self.value.get_ref() {
            DeValue::String(_) => Some(vec![self]),
            DeValue::Array(values) if values.is_empty() => {
                self.note(self.error(format!("`{}` is empty", self.key())).label("expected at least one"));
                None
            }
            DeValue::Array(values) => {
                let items: Vec<_> = values.iter().map(|value| self.with_value(value)).collect();
                for odd in items.iter().filter(|item| item.as_text().is_none()) {
                    odd.mismatch("a list of strings");
                }
                Some(items.into_iter().filter(|item| item.as_text().is_some()).collect())
            }
            _ => {
                self.mismatch("a string or a list of strings");
                None
            }
        }
    }

    /// Where relative paths begin here: in the directory of the file that says this.
    pub(super) fn base(&self) -> &'a Path {
        &self.report.file(self.span().start).base
    }

    /// A directory.
    pub(super) fn directory(&self) -> Option<PathBuf> {
        let path = self.base().join(self.text("the path of a directory")?);
        self.report.expect(self.span(), Outside::Directory(path.clone()));
        Some(path)
    }

    /// Notes it if the key, a name the operator chose, could be mistaken in a log line or a metric.
    pub(super) fn note_bad_name(&self) {
        let good = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        if self.key().is_empty() || !self.key().chars().all(good) {
            let problem = Problem::error(self.key_span(), "this name will not do");
            self.note(problem.label("letters, digits, `_`, `-` and `.` only"));
        }
    }

    /// A template.
    pub(super) fn template(&self) -> Option<Template> {
        let Some(text) = self.as_text() else {
            self.mismatch("a string");
            return None;
        };
        match Template::parse(text) {
            Ok(template) => Some(template),
            Err(wrong) => {
                let whole = self.span();
                let at = self.report.inside(&whole, text).map(|start| start + wrong.at);
                let span = at.map_or(whole, |at| at..at + 1);
                self.note(Problem::error(span, "this template cannot be read").label(wrong.what));
                None
            }
        }
    }

    /// A template that names a channel.
    pub(super) fn channel(&self) -> Option<Template> {
        let text = self.text("the name of a channel")?;
        if text.chars().any(char::is_control) {
            self.note(self.error("a channel's name holds no control characters"));
        } else if text.len() > limits::CHANNEL_BYTES_MAX {
            let problem = self.error("this channel's name is too long");
            self.note(problem.label(format!("at most {} bytes", limits::CHANNEL_BYTES_MAX)));
        }
        let template = self.template()?;
        if template.is_ambiguous() {
            let problem = Problem::warning(self.span(), "different values can make the same channel here");
            self.note(problem.label("two holes without a `/` between them").help("put a `/` between them"));
        }
        Some(template)
    }

    /// Notes every hole of its `template` that is not one of `known`; `reason` says why only these.
    pub(super) fn only_holes(&self, template: &Template, known: &[&str], reason: &str) {
        for name in template.names().filter(|name| !known.contains(name)) {
            let problem = self.error(format!("nothing fills `{{{name}}}`")).label(reason).help(match known {
                [] => "for a brace itself write it twice: `{{`".to_owned(),
                _ => format!("{} would do", listed(known.iter().map(|name| format!("{{{name}}}")), "or")),
            });
            self.note(problem.meant(name, known.iter().copied()));
        }
    }
}
