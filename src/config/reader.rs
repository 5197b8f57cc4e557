//! One typed look at a TOML table.
//!
//! A [`Table`] knows its [`Section`], and says at once which of its keys are not in it. An [`Item`] is one value with
//! its key and its place; asked for a type, it answers or notes what it is instead. Nobody stops at a mistake: `None`
//! means "absent, or already told", and the caller goes on with the default.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{Kind, Section};
use super::report::{Problem, Report, Span};
use super::units;

/// A table of the file, of a known kind.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    report: &'a Report<'a>,
    section: &'static Section,
    entries: &'a DeTable<'a>,
    /// Where its name stands.
    start: usize,
    end: usize,
}

/// One value, under its key.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) report: &'a Report<'a>,
    key: &'a str,
    key_start: usize,
    key_end: usize,
    pub(super) value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Table<'a> {
    /// The file itself.
    pub(super) fn top(report: &'a Report<'a>, section: &'static Section, entries: &'a DeTable<'a>) -> Table<'a> {
        let table = Table { report, section, entries, start: 0, end: 0 };
        table.note_unknown();
        table
    }

    /// Notes every key that its section does not have.
    fn note_unknown(&self) {
        for key in self.entries.keys().filter(|key| self.section.key(key.get_ref()).is_none()) {
            let name = key.get_ref().as_ref();
            let known = self.section.names();
            let list = format!("{} takes {}", self.section.title, listed(known.clone(), "and"));
            let problem = Problem::error(key.span(), format!("unknown key `{name}`"));
            self.report
                .note(problem.label(format!("not a key of {}", self.section.title)).help(list).meant(name, known));
        }
    }

    /// The value of `key`, if it is there.
    pub(super) fn item(&self, key: &str) -> Option<Item<'a>> {
        debug_assert!(self.section.key(key).is_some(), "`{key}` is read but not listed in keys");
        let (key, value) = self.entries.get_key_value(key)?;
        Some(Item::new(self.report, key, value))
    }

    /// The value of `key`; notes that it is missing, and `help`, what to write.
    pub(super) fn required(&self, key: &str, help: &str) -> Option<Item<'a>> {
        let item = self.item(key);
        if item.is_none() {
            let title = format!("`{key}` is missing from {}", self.section.title);
            self.report.note(Problem::error(self.span(), title).absence().help(help));
        }
        item
    }

    /// The kind of table it is.
    pub(super) fn section(&self) -> &'static Section {
        self.section
    }

    /// Where its name stands.
    pub(super) fn span(&self) -> Span {
        self.start..self.end
    }

    /// Adds a finding.
    pub(super) fn note(&self, problem: Problem) {
        self.report.note(problem);
    }

    /// The tables under `key`, as in `[hub.NAME]`, in the order of the file.
    pub(super) fn named(&self, key: &str) -> Vec<Item<'a>> {
        let Some(item) = self.item(key) else { return Vec::new() };
        if item.is_list() {
            let problem = item.error(format!("each {key} has a name")).label("this is a list");
            item.note(problem.help(format!("write `[{key}.NAME]` instead of `[[{key}]]`")));
            return Vec::new();
        }
        let mut items = item.members();
        let Some(Kind::Named(section)) = self.section.key(key).map(|key| key.kind) else { return items };
        let is_key = |item: &Item<'_>| section.key(item.key).is_some();
        if let Some(nameless) = items.iter().find(|item| is_key(item) && !item.is_table()) {
            let problem = Problem::error(nameless.key_span(), format!("each {key} has a name"));
            self.note(
                problem
                    .label(format!("a key of {}", section.title))
                    .help(format!("write `[{key}.NAME]` instead of `[{key}]`")),
            );
            items.retain(|item| !is_key(item));
        }
        items
    }
}

impl<'a> Item<'a> {
    fn new(
        report: &'a Report<'a>,
        key: &'a Spanned<std::borrow::Cow<'a, str>>,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Item<'a> {
        Item { report, key: key.get_ref(), key_start: key.span().start, key_end: key.span().end, value }
    }

    /// One of its elements, under the same key.
    pub(super) fn with_value(self, value: &'a Spanned<DeValue<'a>>) -> Item<'a> {
        Item { value, ..self }
    }

    /// Its key.
    pub(super) fn key(&self) -> &'a str {
        self.key
    }

    /// Where its key stands.
    pub(super) fn key_span(&self) -> Span {
        self.key_start..self.key_end
    }

    /// Where its value stands.
    pub(super) fn span(&self) -> Span {
        self.value.span()
    }

    /// Adds a finding.
    pub(super) fn note(&self, problem: Problem) {
        self.report.note(problem);
    }

    /// An error at its value.
    pub(super) fn error(&self, title: impl Into<String>) -> Problem {
        Problem::error(self.span(), title)
    }

    /// Notes that it is not `expected`.
    pub(super) fn mismatch(&self, expected: &str) {
        self.note(self.error(format!("`{}` takes {expected}", self.key)).label(format!("this is {}", self.kind())));
    }

    fn kind(&self) -> &'static str {
        match self.value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a fractional number",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        }
    }

    /// The string it is, without a note if it is none.
    pub(super) fn as_text(&self) -> Option<&'a str> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(text),
            _ => None,
        }
    }

    /// The boolean it is, without a note if it is none.
    pub(super) fn as_flag(&self) -> Option<bool> {
        match self.value.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            _ => None,
        }
    }

    /// The integer it is, without a note if it is none.
    fn as_integer(&self) -> Option<i128> {
        match self.value.get_ref() {
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        }
    }

    /// Whether it is a table.
    pub(super) fn is_table(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Table(_))
    }

    /// Whether it is a list.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Array(_))
    }

    /// Its own entries, whatever their keys, in the order of the file.
    pub(super) fn members(self) -> Vec<Item<'a>> {
        let DeValue::Table(entries) = self.value.get_ref() else {
            self.mismatch("a table");
            return Vec::new();
        };
        let mut items: Vec<_> = entries.iter().map(|(key, value)| Item::new(self.report, key, value)).collect();
        items.sort_by_key(|item| item.key_start);
        items
    }

    /// A table of the kind `section`.
    pub(super) fn table(self, section: &'static Section) -> Option<Table<'a>> {
        let DeValue::Table(entries) = self.value.get_ref() else {
            self.mismatch("a table");
            return None;
        };
        let table = Table { report: self.report, section, entries, start: self.key_start, end: self.key_end };
        table.note_unknown();
        Some(table)
    }

    /// A string that is not empty; `expected` is what to call it.
    pub(super) fn text(&self, expected: &str) -> Option<&'a str> {
        match self.as_text() {
            Some("") => self.note(self.error("this string is empty").label(format!("expected {expected}"))),
            Some(text) if text.contains('\0') => {
                self.note(self.error(format!("`{}` holds a NUL character", self.key)));
            }
            Some(text) => return Some(text),
            None => self.mismatch(expected),
        }
        None
    }

    /// `true` or `false`.
    pub(super) fn flag(&self) -> Option<bool> {
        let flag = self.as_flag();
        if flag.is_none() {
            self.mismatch("`true` or `false`");
        }
        flag
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, words: &[(&'static str, T)]) -> Option<T> {
        let known = || words.iter().map(|(word, _)| *word);
        let expected = listed(known(), "or");
        let Some(found) = self.as_text() else {
            self.mismatch(&expected);
            return None;
        };
        let chosen = words.iter().find(|(word, _)| *word == found).map(|(_, choice)| *choice);
        if chosen.is_none() {
            let problem = self.error(format!("`{}` takes {expected}", self.key));
            self.note(problem.label("none of these").meant(found, known()));
        }
        chosen
    }

    /// A whole number within `bounds`.
    pub(super) fn count(&self, bounds: RangeInclusive<usize>) -> Option<usize> {
        let Some(number) = self.as_integer() else {
            self.mismatch("a whole number");
            return None;
        };
        self.within(usize::try_from(number).ok(), &bounds, |n| n.to_string())
    }

    /// A whole number from 1 to `most`.
    pub(super) fn positive(&self, most: usize) -> Option<NonZeroUsize> {
        self.count(1..=most).and_then(NonZeroUsize::new)
    }

    /// A size in bytes within `bounds`.
    pub(super) fn size(&self, bounds: RangeInclusive<usize>) -> Option<usize> {
        let size = match (self.as_text().map(units::size), self.as_integer()) {
            (Some(Ok(size)), _) => usize::try_from(size).ok(),
            (_, Some(number)) => usize::try_from(number).ok(),
            (Some(Err(help)), None) => {
                self.note(self.error(format!("`{}` takes a size", self.key)).label("not a size").help(help));
                return None;
            }
            (None, None) => {
                self.mismatch("a size, such as \"64KiB\"");
                return None;
            }
        };
        self.within(size, &bounds, |n| units::size_text(*n as u64))
    }

    /// A duration within `bounds`.
    pub(super) fn duration(&self, bounds: RangeInclusive<Duration>) -> Option<Duration> {
        match (self.as_text().map(units::duration), self.as_integer()) {
            (Some(Ok(duration)), _) => self.within(Some(duration), &bounds, |d| units::duration_text(*d)),
            (Some(Err(help)), _) => {
                self.note(self.error(format!("`{}` takes a duration", self.key)).label("not a duration").help(help));
                None
            }
            (None, Some(number)) => {
                let problem = self.error(format!("`{}` takes a duration", self.key)).label("this is a bare number");
                self.note(problem.help(format!("say the unit: `\"{number}s\"` or `\"{number}ms\"`")));
                None
            }
            (None, None) => {
                self.mismatch("a duration, such as \"10s\"");
                None
            }
        }
    }

    fn within<T: PartialOrd>(
        &self,
        value: Option<T>,
        bounds: &RangeInclusive<T>,
        shown: impl Fn(&T) -> String,
    ) -> Option<T> {
        let value = value.filter(|value| bounds.contains(value));
        if value.is_none() {
            let (least, most) = (shown(bounds.start()), shown(bounds.end()));
            let problem = self.error(format!("`{}` is out of range", self.key));
            self.note(problem.label(format!("expected {least} to {most}")));
        }
        value
    }
}

/// `a`, `b` and `c`, each in backquotes.
pub(super) fn listed<T: AsRef<str>>(words: impl IntoIterator<Item = T>, and: &str) -> String {
    let mut words: Vec<String> = words.into_iter().map(|word| format!("`{}`", word.as_ref())).collect();
    match words.pop() {
        Some(last) if words.is_empty() => last,
        Some(last) => format!("{} {and} {last}", words.join(", ")),
        None => String::new(),
    }
}
