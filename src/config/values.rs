//! The values that TOML does not have: numbers with bounds, sizes, durations, templates, channels, directories, masks.
//!
//! The second part of [`Item`] and [`Table`]: `reader` has the types of TOML, this module those of pushd.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use super::Template;
use super::keys::Kind;
use super::limits;
use super::reader::{Item, Table, listed};
use super::report::{External, Problem};
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
    /// A whole number within the bounds of its entry.
    pub(super) fn count(&self) -> Option<usize> {
        let Some(number) = self.as_integer() else {
            self.mismatch("a whole number");
            return None;
        };
        let (least, most) = match self.kind() {
            Some(Kind::Count { least, most }) => (least, most),
            Some(Kind::CountOrAuto(most)) => (1, most),
            other => unreachable!("`{}` is not a count, but {other:?}", self.key()),
        };
        self.within(usize::try_from(number).ok(), least, most)
    }

    /// A whole number from 1 to the bound of its entry.
    pub(super) fn positive(&self) -> Option<NonZeroUsize> {
        self.count().and_then(NonZeroUsize::new)
    }

    /// A size in bytes within the bounds of its entry.
    pub(super) fn size(&self) -> Option<usize> {
        let size = match (self.as_text().map(units::size), self.as_integer()) {
            (Some(Ok(size)), _) => usize::try_from(size).ok(),
            (_, Some(number)) => usize::try_from(number).ok(),
            (Some(Err(help)), None) => {
                self.note(self.error(format!("`{}` takes a size", self.key())).label("not a size").help(help));
                return None;
            }
            (None, None) => {
                self.mismatch("a size, such as \"64KiB\"");
                return None;
            }
        };
        let Some(Kind::Size { least, most }) = self.kind() else { unreachable!("`{}` is not a size", self.key()) };
        self.within(size, least, most)
    }

    /// A duration within the bounds of its entry.
    pub(super) fn duration(&self) -> Option<Duration> {
        let Some(
            Kind::Duration { least, most }
            | Kind::DurationOrOff { least, most }
            | Kind::DurationOrAlways { least, most },
        ) = self.kind()
        else {
            unreachable!("`{}` is not a duration", self.key())
        };
        let is_word_allowed = matches!(self.kind(), Some(Kind::DurationOrAlways { .. }));
        let expected = if is_word_allowed { "\"always\" or a duration" } else { "a duration" };
        let title = format!("`{}` takes {expected}", self.key());
        match (self.as_text().map(units::duration), self.as_integer()) {
            (Some(Ok(duration)), _) => self.within(Some(duration), least, most),
            (Some(Err(help)), _) => {
                self.note(self.error(title).label("not a duration").help(help));
                None
            }
            (None, Some(number)) => {
                let problem = self.error(title).label("this number has no unit");
                self.note(problem.help(format!("add the unit: `\"{number}s\"` or `\"{number}ms\"`")));
                None
            }
            (None, None) => {
                self.mismatch(match self.kind() {
                    Some(Kind::DurationOrOff { .. }) => "a duration, such as \"10s\", or `false`",
                    Some(Kind::DurationOrAlways { .. }) => "\"always\" or a duration, such as \"100ms\"",
                    _ => "a duration, such as \"10s\"",
                });
                None
            }
        }
    }

    fn within<T: PartialOrd>(&self, value: Option<T>, least: T, most: T) -> Option<T> {
        let value = value.filter(|value| (least..=most).contains(value));
        if value.is_none() {
            let bounds = self.kind().and_then(Kind::bounds).unwrap_or_default();
            let problem = self.error(format!("`{}` is out of range", self.key()));
            self.note(problem.label(format!("expected {bounds}")));
        }
        value
    }

    /// A duration within the bounds of its entry, or `false`.
    fn duration_or_off(&self) -> Option<Option<Duration>> {
        if self.as_flag() == Some(false) { Some(None) } else { self.duration().map(Some) }
    }

    /// A file mode creation mask: octal, as a string or as a number of TOML (`0o027`).
    pub(super) fn umask(&self) -> Option<u32> {
        let mode = match self.value.get_ref() {
            DeValue::String(text) => units::mode(text),
            DeValue::Integer(number) if number.radix() == 8 => units::mode(number.as_str()),
            _ => None,
        };
        if mode.is_none() {
            let problem = self.error(format!("`{}` takes an octal number up to 777", self.key()));
            self.note(match self.as_text() {
                Some(_) => {
                    problem.label("not octal").help("write up to three digits from 0 to 7, for example `\"027\"`")
                }
                None => problem.label("not a string").help("write it as a string, for example `\"027\"`"),
            });
        }
        mode
    }

    /// A list of strings, or one alone.
    pub(super) fn strings(self) -> Option<Vec<Item<'a>>> {
        match self.value.get_ref() {
            DeValue::String(_) => Some(vec![self]),
            DeValue::Array(values) if values.is_empty() => {
                self.note(self.error(format!("`{}` is empty", self.key())).label("expected at least one value"));
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

    /// The directory in which relative paths begin: that of the file with this value.
    pub(super) fn base(&self) -> &'a Path {
        &self.report.file(self.span().start).base
    }

    /// A directory.
    pub(super) fn directory(&self) -> Option<PathBuf> {
        let path = self.base().join(self.text("the path of a directory")?);
        self.report.expect(self.span(), External::Directory(path.clone()));
        Some(path)
    }

    /// Reports a name that the operator chose, if it could not be read unambiguously in a log line or a metric.
    pub(super) fn note_bad_name(&self) {
        let good = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        if self.key().is_empty() || !self.key().chars().all(good) {
            let problem = Problem::error(self.key_span(), "this name is not allowed");
            self.note(problem.label("expected letters, digits, `_`, `-` and `.`"));
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

    /// A template for the name of a channel.
    pub(super) fn channel(&self) -> Option<Template> {
        let text = self.text("the name of a channel")?;
        if text.chars().any(char::is_control) {
            self.note(self.error("the name of a channel cannot contain control characters"));
        } else if text.len() > limits::CHANNEL_BYTES_MAX {
            let problem = self.error("the name of this channel is too long");
            self.note(problem.label(format!("at most {} bytes", limits::CHANNEL_BYTES_MAX)));
        }
        let template = self.template()?;
        if template.is_ambiguous() {
            let problem = Problem::warning(self.span(), "different values can result in the same channel");
            self.note(problem.label("two placeholders without a `/` between them").help("separate them with a `/`"));
        }
        Some(template)
    }

    /// Reports every hole of its `template` that is not one of `known`; `reason` says why only these are possible.
    pub(super) fn only_holes(&self, template: &Template, known: &[&str], reason: &str) {
        for name in template.names().filter(|name| !known.contains(name)) {
            let problem = self.error(format!("`{{{name}}}` has no value here")).label(reason).help(match known {
                [] => "to write a brace as text, double it: `{{`".to_owned(),
                _ => format!("use {}", listed(known.iter().map(|name| format!("{{{name}}}")), "or")),
            });
            self.note(problem.meant(name, known.iter().copied()));
        }
    }
}
