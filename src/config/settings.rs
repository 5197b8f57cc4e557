//! The value of each key and where it is set, for `pushctl config show` and `pushctl diff`.
//!
//! The merged table is compared with [`keys`](super::keys), so that keys that are not set are included with their defaults. This is
//! done only for a valid configuration.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::Listen;
use super::addresses;
use super::keys::{self, Fallback, Key, Kind, Section};
use super::report::Report;
use super::text;
use super::units;

/// Shown in the place of a secret.
const HIDDEN: &str = "\"(hidden)\"";

/// The default of a table that is off unless it is set.
const OFF: Fallback = Fallback::Value("false");

/// One table with all its keys, except those that are tables themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Its path: `["server", "main", "routes", "/ws"]`.
    pub path: Vec<String>,
    /// Its kind.
    pub section: &'static Section,
    /// Where it is first in the files.
    pub provenance: Provenance,
    /// Its keys, in the order of the section.
    pub keys: Vec<Setting>,
}

/// One key.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The key.
    pub key: &'static Key,
    /// Its value in TOML, hidden if it is secret; `None`: it has no value.
    pub value: Option<String>,
    /// Where it is set.
    pub provenance: Provenance,
    /// The value in a form that is equal for all ways to write it.
    meaning: Option<String>,
}

/// Where a table or a key is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provenance {
    /// In no file.
    Default,
    /// In this file, on this line.
    Line(PathBuf, usize),
}

impl Settings {
    /// Its name: `server.main.routes."/ws"`.
    pub fn name(&self) -> String {
        text::path(&self.path)
    }
}

impl Setting {
    /// Whether both have the same value.
    pub fn is_as(&self, other: &Setting) -> bool {
        self.meaning == other.meaning
    }
}

/// The settings of the merged table.
pub(super) fn settings(report: &Report<'_>, entries: &DeTable<'_>) -> Vec<Settings> {
    let mut walk = Walk { report, found: Vec::new() };
    walk.table(&keys::TOP, &mut Vec::new(), Some(entries), Provenance::Default);
    // The top has only tables, so it has no settings of its own.
    walk.found.retain(|table| !table.path.is_empty());
    walk.found
}

struct Walk<'r, 'a> {
    report: &'r Report<'a>,
    found: Vec<Settings>,
}

impl Walk<'_, '_> {
    /// Adds a table and the tables in it. If `entries` is `None`, the files do not have it, and its keys have their defaults.
    fn table(
        &mut self,
        section: &'static Section,
        path: &mut Vec<String>,
        entries: Option<&DeTable<'_>>,
        provenance: Provenance,
    ) {
        let place = self.found.len();
        self.found.push(Settings { path: path.clone(), section, provenance, keys: Vec::new() });
        for key in section.keys {
            let entry = entries.and_then(|entries| entries.get_key_value(key.name));
            let table = entry.and_then(|(_, value)| value.get_ref().as_table());
            path.push(key.name.to_owned());
            match (key.kind, table) {
                (Kind::Table(below), _) | (Kind::TableOrOff(below), Some(_)) => self.below(below, path, entry, table),
                (Kind::TableOrOff(below), None) if entry.is_none() && key.fallback != OFF => {
                    self.below(below, path, entry, table);
                }
                (Kind::Named(below), Some(table)) => self.members(table, path, |_| Some(below)),
                (Kind::Routes, Some(table)) => self.members(table, path, kind_of_route),
                (Kind::Named(_) | Kind::Routes, None) => {}
                _ => {
                    let setting = self.setting(key, entry);
                    self.found[place].keys.push(setting);
                }
            }
            path.pop();
        }
    }

    fn below(
        &mut self,
        section: &'static Section,
        path: &mut Vec<String>,
        entry: Option<Entry<'_, '_>>,
        table: Option<&DeTable<'_>>,
    ) {
        let provenance = entry.map_or(Provenance::Default, |(key, _)| self.provenance(key.span().start));
        self.table(section, path, table, provenance);
    }

    /// Adds the tables whose names the operator chooses, in the order of the files.
    fn members(
        &mut self,
        table: &DeTable<'_>,
        path: &mut Vec<String>,
        section: impl Fn(&DeTable<'_>) -> Option<&'static Section>,
    ) {
        let mut members: Vec<_> = table.iter().collect();
        members.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in members {
            let Some(entries) = value.get_ref().as_table() else { continue };
            let Some(section) = section(entries) else { continue };
            path.push(key.get_ref().to_string());
            self.table(section, path, Some(entries), self.provenance(key.span().start));
            path.pop();
        }
    }

    fn setting(&self, key: &'static Key, entry: Option<Entry<'_, '_>>) -> Setting {
        let (value, meaning, provenance) = match (entry, key.fallback) {
            (Some((name, value)), _) => {
                let base = &self.report.file(value.span().start).base;
                let (value, meaning) = written(key.kind, value.get_ref(), base);
                (Some(value), Some(meaning), self.provenance(name.span().start))
            }
            (None, Fallback::Value(text)) => match DeValue::parse(text) {
                Ok(value) => {
                    let (value, meaning) = written(key.kind, value.get_ref(), Path::new(""));
                    (Some(value), Some(meaning), Provenance::Default)
                }
                Err(_) => (None, None, Provenance::Default),
            },
            (None, _) => (None, None, Provenance::Default),
        };
        Setting { key, value: if key.secret { value.map(|_| HIDDEN.to_owned()) } else { value }, provenance, meaning }
    }

    fn provenance(&self, at: usize) -> Provenance {
        Provenance::Line(self.report.file(at).path.clone(), self.report.location(at).line)
    }
}

/// A key in its table.
type Entry<'t, 'a> = (&'t toml::Spanned<std::borrow::Cow<'a, str>>, &'t toml::Spanned<DeValue<'a>>);

/// The kind of a route.
fn kind_of_route(entries: &DeTable<'_>) -> Option<&'static Section> {
    keys::ROUTES.into_iter().find(|section| entries.contains_key(section.action().name))
}

/// A value in TOML, with absolute paths and normalised addresses, and a form of it that is equal for all ways to write it.
fn written(kind: Kind, value: &DeValue<'_>, base: &Path) -> (String, String) {
    let mut first = true;
    // `./www/` and `www` are the same path.
    let plain = |path: &Path| path.components().collect::<PathBuf>().display().to_string();
    let shown = text::value(value, &mut |text| match kind {
        Kind::Path => plain(&base.join(text)),
        // The words of a command are not normalised.
        Kind::Program if std::mem::take(&mut first) && text.contains('/') => base.join(text).display().to_string(),
        Kind::Addresses => match addresses::listen(text, base) {
            Ok(Listen::Tcp(address)) => address.to_string(),
            Ok(Listen::Unix(path)) => format!("unix:{}", plain(&path)),
            Ok(Listen::Systemd(_)) | Err(_) => text.to_owned(),
        },
        Kind::Hosts => addresses::host(text).unwrap_or_else(|_| text.to_owned()),
        Kind::Origins => addresses::origin(text).unwrap_or_else(|_| text.to_owned()),
        _ => text.to_owned(),
    });
    let string = match value {
        DeValue::String(text) => Some(text.as_ref()),
        _ => None,
    };
    let meaning = match (kind, string, value) {
        (Kind::Duration { .. } | Kind::DurationOrOff { .. } | Kind::DurationOrAlways { .. }, Some(text), _) => {
            units::duration(text).ok().map(|time| format!("{}ms", time.as_millis()))
        }
        (Kind::Size { .. }, Some(text), _) => units::size(text).ok().map(|bytes| bytes.to_string()),
        (Kind::Mask, Some(text), _) => units::mode(text).map(|mode| format!("{mode:o}")),
        (Kind::Mask, None, DeValue::Integer(number)) => units::mode(number.as_str()).map(|mode| format!("{mode:o}")),
        (_, _, DeValue::Integer(number)) => {
            i128::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string())
        }
        (
            Kind::Texts
            | Kind::Keys
            | Kind::Networks
            | Kind::Templates(_)
            | Kind::Patterns(_)
            | Kind::Words(_)
            | Kind::Addresses,
            Some(_),
            _,
        ) => Some(format!("[{shown}]")),
        _ => None,
    };
    let meaning = meaning.unwrap_or_else(|| shown.clone());
    (shown, meaning)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DURATION: Kind = Kind::Duration { least: Duration::ZERO, most: Duration::MAX };

    fn meaning(kind: Kind, text: &str) -> String {
        written(kind, DeValue::parse(text).unwrap().get_ref(), Path::new("/etc/pushd")).1
    }

    #[test]
    fn two_ways_to_write_a_value_are_equal() {
        for (kind, one, other) in [
            (DURATION, "\"1m\"", "\"60s\""),
            (Kind::Size { least: 0, most: 99 }, "\"64KiB\"", "65536"),
            (Kind::Mask, "\"027\"", "0o027"),
            (Kind::Count { least: 0, most: 99 }, "0x10", "16"),
            (Kind::Texts, "\"all\"", "['all']"),
            (Kind::Path, "\"www\"", "\"/etc/pushd/www\""),
            (Kind::Path, "\"www\"", "\"./www/\""),
            (Kind::Addresses, "\"[::1]:80\"", "[\"[0:0:0:0:0:0:0:1]:080\"]"),
            (Kind::Addresses, "\"unix:s\"", "\"unix:./s\""),
            (Kind::Hosts, "[\"a.b\"]", "[\"A.B.\"]"),
            (Kind::Origins, "[\"https://a.b\"]", "[\"HTTPS://A.B:443\"]"),
            (Kind::Addresses, "\"unix:s\"", "[\"unix:/etc/pushd/s\"]"),
            (Kind::Program, "[\"./run\", \"./x\"]", "[\"/etc/pushd/./run\", \"./x\"]"),
        ] {
            assert_eq!(meaning(kind, one), meaning(kind, other), "{kind:?}");
        }
        assert_ne!(meaning(Kind::Program, "[\"run\"]"), meaning(Kind::Program, "[\"./run\"]"));
        // The feed would restart.
        assert_ne!(meaning(Kind::Program, "[\"./run\"]"), meaning(Kind::Program, "[\"././run\"]"));
        let or_off = Kind::DurationOrOff { least: Duration::ZERO, most: Duration::MAX };
        assert_ne!(meaning(or_off, "false"), meaning(or_off, "\"0s\""));
    }

    #[test]
    fn a_secret_is_hidden_but_its_change_is_detected() {
        static KEY: Key = Key {
            name: "key",
            kind: Kind::Text,
            fallback: Fallback::Required,
            change: keys::Change::AtOnce,
            secret: true,
            about: "",
        };
        let of = |text: &str| {
            let files = super::super::sources::Sources::of(Path::new("x.toml"), text.to_owned()).files;
            let mut report = Report::new(&files, Vec::new());
            let table = super::super::merge::merged(&mut report);
            Walk { report: &report, found: Vec::new() }.setting(&KEY, table.get_key_value("key"))
        };
        let (one, other) = (of("key = \"one\""), of("key = \"other\""));
        assert_eq!((&one.value, &other.value), (&Some(HIDDEN.to_owned()), &Some(HIDDEN.to_owned())));
        assert!(!one.is_as(&other));
        assert_eq!(one.provenance, Provenance::Line("x.toml".into(), 1));
    }
}
