//! The manual pages document every key and every option, and no others.
//!
//! In `pushd.toml.5`, each kind of table has a `.Ss` with its title, followed by one `.It Cm key` for each of its keys,
//! with the default in parentheses. In `pushd.8` each option is an `.It Fl` with its long name; in `pushctl.1` it is
//! under the `.Ss` of its command. These macros are not used for anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use clap::CommandFactory;
use pushd::cli::Cli;
use pushd::config::{self, keys, keys::Fallback};

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

#[test]
fn every_key_is_documented_and_no_other() {
    let page = page("pushd.toml.5");
    let mut documented = documented(&page);
    let mut found = 0;
    for section in keys::SECTIONS {
        let known: BTreeSet<&str> = section.names().collect();
        let listed = documented.remove(&section.title.to_lowercase()).unwrap_or_default();
        let listed: BTreeSet<&str> = listed.keys().copied().collect();
        assert_eq!(known.difference(&listed).collect::<Vec<_>>(), [&""; 0], "{}: known, not documented", section.title);
        assert_eq!(listed.difference(&known).collect::<Vec<_>>(), [&""; 0], "{}: documented, not known", section.title);
        found += listed.len();
    }
    assert!(found > 50, "only {found} keys");
    assert!(documented.is_empty(), "not a kind of table: {:?}", documented.keys());
}

/// The defaults are in the table of keys, and in the default file as `#key = value`. The page must agree with both.
#[test]
fn the_documented_default_of_every_key_is_right() {
    let page = page("pushd.toml.5");
    let documented = documented(&page);
    for (title, table) in &documented {
        for (key, rest) in table {
            assert!(default_of(rest).is_some_and(|default| !default.is_empty()), "{title}: {key}: no default");
        }
    }
    let mut compared = 0;
    for section in keys::SECTIONS {
        for key in section.keys {
            let shown = default_of(documented[&section.title.to_lowercase()][key.name]).unwrap_or_default();
            let is = match key.fallback {
                Fallback::Value(value) => value.trim_matches(['[', ']', '"']),
                Fallback::Required => "required",
                Fallback::Nothing(_) => continue,
            };
            assert_eq!(shown, is, "{}: {}", section.title, key.name);
            compared += 1;
        }
    }
    assert!(compared > 40, "only {compared} keys");
    compared = 0;
    let mut title = String::new();
    for line in config::DEFAULT.lines() {
        if let Some(header) = line.trim_start_matches('#').strip_prefix('[') {
            let name = header.split(['.', ']']).next().unwrap_or_default();
            let named = matches!(name, "server" | "hub" | "feed");
            title = if named { format!("[{name}.name]") } else { format!("[{name}]") };
        }
        let Some((key, shown)) = line.strip_prefix('#').and_then(|line| line.split_once(" = ")) else { continue };
        let key_like = key.starts_with(|c: char| c.is_ascii_lowercase()) && !key.contains(' ');
        let Some(rest) = documented.get(&title).and_then(|table| table.get(key)).filter(|_| key_like) else { continue };
        let default = default_of(rest).unwrap_or_default();
        // Keys without a default, and the keys of a feed, are shown with an example.
        let example = matches!(default.as_str(), "not set" | "required" | "the user's own" | "{line}");
        if !example {
            assert_eq!(default, shown.trim_matches('"'), "{title}: {key}");
            compared += 1;
        }
    }
    assert!(compared > 15, "only {compared} defaults");
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
