//! The manual pages document every key and every option, and no others.
//!
//! In `pushd.toml.5`, each kind of table has a `.Ss` with its title, followed by an item for each of its keys:
//! `.It Cm key Ar type Pq default`. In `pushd.8` each option is an `.It Fl` with its long name; in `pushctl.1` it is
//! under the `.Ss` of its command. These macros are not used for anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use clap::CommandFactory;
use pushd::cli::Cli;
use pushd::config::keys::{self, Change, Fallback, Kind};

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/man").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The keys of `pushd.toml.5` by the title of their table, each with the rest of its line.
fn documented(page: &str) -> BTreeMap<String, BTreeMap<&str, &str>> {
    let mut tables: BTreeMap<String, BTreeMap<&str, &str>> = BTreeMap::new();
    let mut title = String::new();
    for line in page.lines() {
        if let Some(text) = line.strip_prefix(".Ss ").or(line.strip_prefix(".Sh ")) {
            title = text.trim_end_matches("\\&").to_lowercase();
        } else if let Some(item) = line.strip_prefix(".It Cm ") {
            let (key, rest) = item.split_once(' ').unwrap_or((item, ""));
            let twice = tables.entry(title.clone()).or_default().insert(key, rest);
            assert_eq!(twice, None, "`{key}` occurs twice under {title}");
        }
    }
    tables
}

/// The text in parentheses at the end of a key's line, without macros and quotes.
fn default_of(rest: &str) -> Option<String> {
    let (_, default) = rest.split_once("Pq ")?;
    let words: Vec<_> = default.split(' ').filter(|word| !matches!(*word, "Qq" | "Li" | "No" | "Cm")).collect();
    Some(words.join(" ").replace("\\(dq", "\""))
}

/// The name of a type in the manual.
fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Duration { .. } => "duration",
        Kind::DurationOrOff { .. } => "duration or false",
        Kind::DurationOrAlways { .. } => "duration or \"always\"",
        Kind::Size { .. } => "size",
        Kind::Count { .. } => "number",
        Kind::CountOrAuto(_) => "number or \"auto\"",
        Kind::Flag => "flag",
        Kind::On => "true",
        Kind::Word(_) => "word",
        Kind::Text | Kind::Mask => "string",
        Kind::Words(_) | Kind::Texts | Kind::Program | Kind::Addresses | Kind::Keys | Kind::Networks => "strings",
        Kind::Secrets => "secrets",
        Kind::Certificates => "certificates",
        Kind::Hub => "hub",
        Kind::Tokens => "name",
        Kind::Hook => "hook",
        Kind::Url => "url",
        Kind::Template => "template",
        Kind::Templates(_) => "templates",
        Kind::Patterns(_) => "patterns",
        Kind::Path | Kind::RunPath => "path",
        Kind::LogTarget => "path or word",
        Kind::Origins | Kind::Hosts => "word or strings",
        Kind::Table(_) | Kind::Routes | Kind::Fields | Kind::CacheRules | Kind::ErrorPages => "table",
        Kind::TableOrOff(_) => "table or false",
        Kind::Named(_) => "tables",
    }
}

/// The type in a key's line, without macros.
fn documented_type(rest: &str) -> String {
    let (shown, _) = rest.split_once(" Pq ").unwrap_or((rest, ""));
    let shown = shown.replace("Qo auto Qc", "\"auto\"").replace("Qo always Qc", "\"always\"");
    let words: Vec<_> = shown.split(' ').filter(|word| !matches!(*word, "Ar" | "No" | "Li")).collect();
    words.join(" ")
}

#[test]
fn every_key_is_documented_and_no_other() {
    let page = page("pushd.toml.5");
    let mut documented = documented(&page);
    let (mut found, mut missing) = (0, Vec::new());
    for section in keys::SECTIONS {
        let mut shown = documented.remove(&section.title.to_lowercase()).unwrap_or_default();
        for key in section.keys {
            found += 1;
            if shown.remove(key.name).is_none() {
                let default = match key.fallback {
                    Fallback::Value(value) => format!("Qq {}", value.trim_matches('"')),
                    Fallback::Required => "required".to_owned(),
                    Fallback::Nothing(_) => "not set".to_owned(),
                };
                missing.push(format!("{}: .It Cm {} Ar {} Pq {default}", section.title, key.name, type_of(key.kind)));
            }
        }
        assert_eq!(shown.keys().collect::<Vec<_>>(), [&""; 0], "{}: documented, but not a key", section.title);
    }
    assert!(missing.is_empty(), "missing from packaging/man/pushd.toml.5:\n{}", missing.join("\n"));
    assert!(found > 50, "only {found} keys");
    assert!(documented.is_empty(), "not a kind of table: {:?}", documented.keys());
}

#[test]
fn every_key_is_documented_with_its_type_and_its_default() {
    let page = page("pushd.toml.5");
    let documented = documented(&page);
    let mut compared = 0;
    for section in keys::SECTIONS {
        for key in section.keys {
            let name = format!("{}: {}", section.title, key.name);
            // A key that is missing fails the test above.
            let Some(rest) = documented.get(&section.title.to_lowercase()).and_then(|table| table.get(key.name)) else {
                continue;
            };
            assert_eq!(documented_type(rest), type_of(key.kind), "{name}");
            let shown = default_of(rest).unwrap_or_default();
            assert!(!shown.is_empty(), "{name}: no default");
            let is = match key.fallback {
                Fallback::Value(value) => value.trim_matches(['[', ']', '"']),
                Fallback::Required => "required",
                // The manual explains in its own words what applies then.
                Fallback::Nothing(_) => continue,
            };
            assert_eq!(shown, is, "{name}");
            compared += 1;
        }
    }
    assert!(compared > 40, "only {compared} keys");
}

#[test]
fn the_manual_names_each_key_that_takes_effect_at_the_next_start() {
    let page = page("pushd.toml.5");
    let reloading = page.split(".Sh RELOADING\n").nth(1).and_then(|rest| rest.split("\n.Sh ").next()).unwrap();
    let keys = keys::SECTIONS.into_iter().flat_map(|section| section.keys);
    let keys: Vec<_> = keys.filter(|key| key.change == Change::Restart).map(|key| key.name).collect();
    assert!(keys.len() > 4, "{keys:?}");
    for key in keys {
        let is_named = |line: &str| line.strip_prefix(".Cm ").is_some_and(|rest| rest.split(' ').next() == Some(key));
        assert!(reloading.lines().any(is_named), "`.Cm {key}` is missing from RELOADING in pushd.toml.5");
    }
}

/// An option in the notation of the pages.
fn item(short: Option<char>, long: &str) -> String {
    short.map_or(format!("\\-{long}"), |short| format!("{short} , Fl \\-{long}"))
}

/// The options in these lines of a page.
fn items<'p>(lines: impl Iterator<Item = &'p str>) -> BTreeSet<String> {
    let items = lines.filter_map(|line| line.strip_prefix(".It Fl "));
    items.map(|item| item.split(" Ar ").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn every_option_of_pushd_is_documented_and_no_other() {
    let mut command = Cli::command();
    command.build();
    let known: BTreeSet<String> =
        command.get_arguments().filter_map(|argument| Some(item(argument.get_short(), argument.get_long()?))).collect();
    assert!(known.len() > 10, "{known:?}");
    assert_eq!(known, items(page("pushd.8").lines()));
}

/// The output of `pushctl ARGS`.
fn help(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pushctl")).args(args).output().unwrap();
    assert!(output.status.success(), "pushctl {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The options in a help text, without `--help`.
fn listed(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let options = lines.map(|line| {
        let (short, long) = line.split_once("--").unwrap_or_else(|| panic!("no long name: {line}"));
        let end = long.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).unwrap_or(long.len());
        item(short.chars().nth(1), &long[..end])
    });
    options.filter(|option| !option.ends_with("\\-help")).collect()
}

#[test]
fn every_command_of_pushctl_is_documented_with_its_options() {
    let overview = help(&["--help"]);
    let commands = overview.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap_or_default();
    // A line that is indented further continues the line above it.
    let names = commands.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let commands: BTreeSet<&str> = names.filter(|name| !name.is_empty()).collect();
    assert!(commands.len() > 5, "{overview}");
    let page = page("pushctl.1");
    let section = page.split(".Sh COMMANDS\n").nth(1).and_then(|rest| rest.split("\n.Sh ").next()).unwrap();
    let documented: BTreeMap<&str, &str> =
        section.split(".Ss ").filter_map(|part| part.split_once('\n')).filter(|(name, _)| !name.is_empty()).collect();
    assert_eq!(commands, documented.keys().copied().collect());
    for (command, part) in documented {
        assert_eq!(listed(&help(&[command, "--help"])), items(part.lines()), "pushctl {command}");
    }
}
