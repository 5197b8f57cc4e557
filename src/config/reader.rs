//! Reads a TOML table by the entries of its keys.
//!
//! A [`Table`] has a [`Section`], and reports at once each of its keys that the section does not have. An [`Item`] is one value with
//! its key and its location. Its methods convert it to a type within the bounds of its entry; where that fails, they report what was
//! found, and reading continues: `None` means "not set, or already reported".

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{Fallback, Key, Kind, Section};
use super::report::{Problem, Report, Span};

/// A table of the file, of a known kind.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    report: &'a Report<'a>,
    section: &'static Section,
    /// `None`: the file does not have the table, so all its keys have their defaults.
    entries: Option<&'a DeTable<'a>>,
    /// The location of its name.
    start: usize,
    end: usize,
}

/// One value with its key.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) report: &'a Report<'a>,
    key: &'a str,
    key_start: usize,
    key_end: usize,
    /// The entry of its key; `None`: the operator chose the key, as a name or a path.
    entry: Option<&'static Key>,
    pub(super) value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Table<'a> {
    /// The file itself.
    pub(super) fn top(report: &'a Report<'a>, section: &'static Section, entries: &'a DeTable<'a>) -> Table<'a> {
        let table = Table { report, section, entries: Some(entries), start: 0, end: 0 };
        table.note_unknown();
        table
    }

    /// A table that no file has: all its keys have their defaults.
    pub(super) fn absent(report: &'a Report<'a>, section: &'static Section) -> Table<'a> {
        Table { report, section, entries: None, start: 0, end: 0 }
    }

    /// Reports every key that its section does not have.
    fn note_unknown(&self) {
        let keys = self.entries.into_iter().flat_map(DeTable::keys);
        for key in keys.filter(|key| self.section.key(key.get_ref()).is_none()) {
            let name = key.get_ref().as_ref();
            let known = self.section.names();
            let list = format!("{} takes {}", self.section.title, listed(known.clone(), "and"));
            let problem = Problem::error(key.span(), format!("unknown key `{name}`"));
            self.report
                .note(problem.label(format!("not a key of {}", self.section.title)).help(list).meant(name, known));
        }
    }

    /// The value of `key`, if it is set.
    pub(super) fn item(&self, key: &str) -> Option<Item<'a>> {
        let entry = self.section.key(key);
        debug_assert!(entry.is_some(), "`{key}` is read, but has no entry in keys");
        let (key, value) = self.entries?.get_key_value(key)?;
        Some(Item { entry, ..Item::new(self.report, key, value) })
    }

    /// The value of `key` as `read` converts it. Its default, if it is not set or cannot be converted.
    pub(super) fn value<T>(&self, key: &str, read: impl Fn(&Item<'_>) -> Option<T>) -> T {
        let set = self.item(key).and_then(|item| read(&item));
        set.unwrap_or_else(|| self.default(key, read))
    }

    /// The default of `key` as `read` converts it.
    fn default<T>(&self, key: &str, read: impl Fn(&Item<'_>) -> Option<T>) -> T {
        let entry = self.section.key(key).filter(|entry| matches!(entry.fallback, Fallback::Value(_)));
        let Some((entry, Fallback::Value(text))) = entry.map(|entry| (entry, entry.fallback)) else {
            unreachable!("`{key}` of {} has no default", self.section.title);
        };
        let value = DeValue::parse(text).ok();
        let item = value.as_ref().map(|value| {
            let (report, key) = (self.report, entry.name);
            Item { report, key, key_start: 0, key_end: 0, entry: Some(entry), value }
        });
        let read = item.and_then(|item| read(&item));
        read.unwrap_or_else(|| unreachable!("`{key}` of {} cannot be {text}, its default", self.section.title))
    }

    /// The value of `key`. If it is missing, that is reported with `help`, which says what to write.
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

    /// The location of its name.
    pub(super) fn span(&self) -> Span {
        self.start..self.end
    }

    /// Adds a problem to the report.
    pub(super) fn note(&self, problem: Problem) {
        self.report.note(problem);
    }

    /// The table under `key`.
    pub(super) fn table(&self, key: &str) -> Table<'a> {
        let Some(Kind::Table(section) | Kind::TableOrOff(section)) = self.section.key(key).map(|entry| entry.kind)
        else {
            unreachable!("`{key}` of {} is not a table", self.section.title);
        };
        let table = self.item(key).and_then(|item| item.table(section));
        table.unwrap_or_else(|| Table::absent(self.report, section))
    }

    /// The tables under `key`, as in `[hub.NAME]`, in the order of the file.
    pub(super) fn named(&self, key: &str) -> Vec<Item<'a>> {
        let Some(item) = self.item(key) else { return Vec::new() };
        if item.is_list() {
            let problem = item.error(format!("each {key} needs a name")).label("this is a list");
            item.note(problem.help(format!("write `[{key}.NAME]` instead of `[[{key}]]`")));
            return Vec::new();
        }
        let mut items = item.members();
        let Some(Kind::Named(section)) = self.section.key(key).map(|key| key.kind) else { return items };
        let is_key = |item: &Item<'_>| section.key(item.key).is_some();
        if let Some(nameless) = items.iter().find(|item| is_key(item) && !item.is_table()) {
            let problem = Problem::error(nameless.key_span(), format!("each {key} needs a name"));
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
        Item { report, key: key.get_ref(), key_start: key.span().start, key_end: key.span().end, entry: None, value }
    }

    /// The type that the entry of its key has, with its bounds.
    pub(super) fn kind(&self) -> Option<Kind> {
        self.entry.map(|entry| entry.kind)
    }

    /// One of its elements, under the same key.
    pub(super) fn with_value(self, value: &'a Spanned<DeValue<'a>>) -> Item<'a> {
        Item { value, ..self }
    }

    /// Its key.
    pub(super) fn key(&self) -> &'a str {
        self.key
    }

    /// The location of its key.
    pub(super) fn key_span(&self) -> Span {
        self.key_start..self.key_end
    }

    /// Whether the files that the configuration names are read, too.
    pub(super) fn reads_files(&self) -> bool {
        self.report.reads_files
    }

    /// The location of its value.
    pub(super) fn span(&self) -> Span {
        self.value.span()
    }

    /// Adds a problem to the report.
    pub(super) fn note(&self, problem: Problem) {
        self.report.note(problem);
    }

    /// An error at its value.
    pub(super) fn error(&self, title: impl Into<String>) -> Problem {
        Problem::error(self.span(), title)
    }

    /// Reports that it is not `expected`.
    pub(super) fn mismatch(&self, expected: &str) {
        self.note(self.error(format!("`{}` takes {expected}", self.key)).label(format!("this is {}", self.found())));
    }

    /// What it is, for messages.
    fn found(&self) -> &'static str {
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

    /// The string, if it is one. Reports nothing.
    pub(super) fn as_text(&self) -> Option<&'a str> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(text),
            _ => None,
        }
    }

    /// The boolean, if it is one. Reports nothing.
    pub(super) fn as_flag(&self) -> Option<bool> {
        match self.value.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            _ => None,
        }
    }

    /// The integer, if it is one. Reports nothing.
    pub(super) fn as_integer(&self) -> Option<i128> {
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

    /// The entries of a table whose keys the operator chooses, in the order of the file.
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
        let (start, end) = (self.key_start, self.key_end);
        let table = Table { report: self.report, section, entries: Some(entries), start, end };
        table.note_unknown();
        Some(table)
    }

    /// A string that is not empty. `expected` names it in messages.
    pub(super) fn text(&self, expected: &str) -> Option<&'a str> {
        match self.as_text() {
            Some("") => self.note(self.error("this string is empty").label(format!("expected {expected}"))),
            Some(text) if text.contains('\0') => {
                self.note(self.error(format!("`{}` contains a NUL character", self.key)));
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
