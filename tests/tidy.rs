//! Rules of this project that the compiler does not check: which modules may import which, lengths, and words to avoid.
//!
//! All rules read the source tree, and assert that they found something to check. All violations of a rule are reported
//! together, each with its location.

#[path = "tidy/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::path::Path;

use source::{Source, files, line};

/// The longest file, in lines, without the tests at its end.
const FILE_LINES_MAX: usize = 400;
/// The longest function, in lines.
const FUNCTION_LINES_MAX: usize = 70;
/// A sleep in a test needs a comment with one of these words, in its line or the one above. It must either poll for a
/// condition up to a deadline, or run while the runtime's clock is paused.
const SLEEP_MARKERS: [&str; 2] = ["deadline", "paused"];

/// The top-level modules of `src`, and the modules each may import. A module imports only modules to its left: `config
/// ◄ hub ◄ wire ◄ session ◄ http ◄ shard ◄ server ◄ main`, `config ◄ feed ◄ server`, `config ◄ hub ◄ store ◄ shard`, with `daemon`, `cli` and `ctl`
/// beside them.
const LAYERS: [(&str, &[&str]); 17] = [
    ("config", &[]),
    ("grant", &["config"]),
    ("hook", &["config"]),
    ("hub", &["config"]),
    ("tls", &["config"]),
    ("wire", &["config", "hub"]),
    ("session", &["config", "hub", "wire"]),
    ("http", &["config", "grant", "hook", "hub", "tls", "wire", "session"]),
    ("shard", &["config", "hook", "hub", "wire", "session", "http", "store", "tls"]),
    ("feed", &["config"]),
    ("store", &["config", "hub"]),
    ("server", &["config", "hook", "hub", "wire", "session", "http", "shard", "feed", "store"]),
    ("daemon", &["config"]),
    ("cli", &["config", "daemon"]),
    ("ctl", &["config", "grant", "hub", "store", "daemon"]),
    ("main", &["config", "server", "daemon", "cli"]),
    ("bin", &["config", "daemon", "ctl"]),
];

/// Modules that import nothing of the crate: the lowest one. (`main` and `bin` see the crate as `pushd`.)
const IMPORTS_NOTHING: [&str; 1] = ["config"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let paths = folders.iter().flat_map(|folder| files(&root().join(folder), ".rs"));
    let sources: Vec<_> = paths.map(|path| Source::read(root(), &path)).collect();
    assert!(sources.len() > 5, "found only {} files in {folders:?}", sources.len());
    sources
}

fn report(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn modules_import_only_modules_below_them() {
    let mut violations = Vec::new();
    let (mut modules, mut importing) = (BTreeSet::new(), BTreeSet::new());
    let sources = sources(&["src"]);
    for source in &sources {
        let module = source.module().unwrap();
        if module == "lib" {
            continue;
        }
        modules.insert(module);
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            violations.push(format!("{}: the module `{module}` is not in the table of layers", source.path));
            continue;
        };
        let from_outside = source.words("pushd::").map(|at| (at, word_after(&source.code[at + 7..])));
        let through_supers = supers(source);
        for (at, name) in source.crate_paths().into_iter().chain(from_outside).chain(through_supers) {
            if name != module && LAYERS.iter().any(|(other, _)| *other == name) {
                importing.insert(module);
                if !allowed.contains(&name) {
                    violations
                        .push(format!("{}: `{module}` imports `{name}`, which is above or beside it", source.at(at)));
                }
            }
        }
    }
    report(&violations);
    let all: BTreeSet<_> = LAYERS.iter().map(|(module, _)| *module).collect();
    let missing: Vec<_> = all.difference(&modules).collect();
    assert!(missing.is_empty(), "modules of the table that do not exist: {missing:?}");
    let silent: Vec<_> = modules.difference(&importing).copied().collect();
    assert_eq!(silent, IMPORTS_NOTHING, "every other module imports something, or the check reads nothing");
}

/// Paths that lead by `super::` to the root of the crate, and from there into another module.
fn supers(source: &Source) -> Vec<(usize, &str)> {
    let inside = source.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let depth = inside.split('/').count();
    let chain = "super::".repeat(depth);
    source
        .words("super::")
        .filter_map(|at| Some((at, source.code[at..].strip_prefix(&chain)?)))
        .map(|(at, rest)| (at, word_after(rest)))
        .collect()
}

fn word_after(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

#[test]
fn every_file_begins_with_a_description() {
    let sources = sources(&["src", "tests", "benches", "fuzz"]);
    let headless = sources.iter().filter(|source| !source.text.starts_with("//! "));
    report(&headless.map(|source| format!("{}:1: no `//!` head", source.path)).collect::<Vec<_>>());
}

#[test]
fn files_and_functions_are_not_too_long() {
    let mut violations = Vec::new();
    let mut functions = 0;
    for source in sources(&["src"]) {
        let lines = source.code[..source.tests_at()].lines().count();
        if lines > FILE_LINES_MAX {
            violations.push(format!("{}:{lines}: more than {FILE_LINES_MAX} lines, tests not counted", source.path));
        }
        for function in source.functions() {
            functions += 1;
            if function.lines > FUNCTION_LINES_MAX {
                let (name, lines) = (function.name, function.lines);
                violations.push(format!(
                    "{}:{}: `{name}` has {lines} lines, more than {FUNCTION_LINES_MAX}",
                    source.path, function.line
                ));
            }
        }
    }
    assert!(functions > 300, "found only {functions} functions");
    report(&violations);
}

#[test]
fn vague_names_are_not_used() {
    let mut violations = Vec::new();
    let mut definitions = 0;
    for source in sources(&["src", "tests", "benches", "fuzz"]) {
        // The names of tests are sentences.
        let end = source.tests_at();
        for (at, name) in source.definitions().into_iter().filter(|&(at, _)| at < end || source.is_test()) {
            definitions += 1;
            let snake = snake(name);
            let mut parts = snake.split('_');
            let sentence = source.is_test() && snake.matches('_').count() > 2;
            let vague = !sentence
                && parts.clone().any(|part| matches!(part, "manager" | "helper" | "helpers" | "util" | "utils"));
            if vague || (matches!(parts.next(), Some("do" | "get")) && parts.next().is_some()) {
                violations.push(format!("{}: `{name}` does not say what it is", source.at(at)));
            }
        }
    }
    assert!(definitions > 500, "found only {definitions} definitions");
    report(&violations);
}

/// `FooBar` as `foo_bar`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for (i, c) in name.char_indices() {
        if c.is_uppercase() && name[..i].ends_with(char::is_lowercase) {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}

#[test]
fn no_notes_for_later_remain() {
    let mut violations = Vec::new();
    // Split here, so that this file does not break its own rule.
    let notes = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
    for source in sources(&["src", "tests", "benches", "fuzz"]) {
        for note in notes {
            let found = source.text.match_indices(note);
            violations.extend(found.map(|(at, _)| format!("{}:{}: {note}", source.path, line(&source.text, at))));
        }
        for macro_name in ["todo!", "unimplemented!", "dbg!"] {
            violations.extend(source.words(macro_name).map(|at| format!("{}: {macro_name}", source.at(at))));
        }
    }
    report(&violations);
}

#[test]
fn unsafe_occurs_once_in_the_poller() {
    let found: BTreeSet<_> =
        sources(&["src"]).iter().flat_map(|s| s.words("unsafe").map(|at| s.at(at)).collect::<Vec<_>>()).collect();
    let elsewhere: Vec<_> = found.iter().filter(|at| !at.starts_with("src/shard/poller.rs:")).cloned().collect();
    report(&elsewhere);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn the_core_uses_no_io_clock_or_runtime() {
    let outside =
        ["std::net", "std::io", "std::fs", "std::time", "Instant", "SystemTime", "log::", "tokio", "async", "println!"];
    let mut violations = words_in("src/hub", &outside);
    // The wire handles only bytes. The configuration opens files, but starts nothing.
    violations.extend(words_in("src/wire", &outside));
    violations
        .extend(words_in("src/config", &["std::net::Tcp", "Instant", "SystemTime", "tokio", "async", "std::thread"]));
    violations.extend(words_in("src/session", &["Instant", "SystemTime", "tokio", "async", "std::fs", "std::net"]));
    violations.extend(words_in("src/shard/table", &["Instant", "SystemTime", "tokio", "async", "std::fs", "std::net"]));
    // The process is set up before there is a runtime.
    violations.extend(words_in("src/daemon", &["tokio", "hub::", "async"]));
    report(&violations);
}

/// The locations of these words in the code of a folder, or of the file with that name; tests are not checked.
fn words_in(folder: &str, words: &[&str]) -> Vec<String> {
    let sources: Vec<_> = sources(&["src"]).into_iter().filter(|source| source.path.starts_with(folder)).collect();
    assert!(sources.len() > 1, "nothing in {folder}");
    let mut found = Vec::new();
    for source in &sources {
        let end = source.tests_at();
        for word in words {
            let offsets = source.words(word).filter(|&at| at < end);
            found.extend(offsets.map(|at| format!("{}: `{word}` must not be used in {folder}", source.at(at))));
        }
    }
    found
}

#[test]
fn tests_wait_for_conditions_not_for_time() {
    let mut violations = Vec::new();
    for source in sources(&["src", "tests"]) {
        let lines: Vec<_> = source.text.lines().collect();
        for at in source.words("sleep(").filter(|&at| at >= source.tests_at()) {
            let here = line(&source.code, at) - 1;
            let marked = lines[here.saturating_sub(1)..=here].iter().any(|line| {
                line.split_once("//")
                    .is_some_and(|(_, comment)| SLEEP_MARKERS.iter().any(|marker| comment.contains(marker)))
            });
            if !marked {
                violations.push(format!("{}: sleeps without a comment about its deadline", source.at(at)));
            }
        }
    }
    report(&violations);
}

#[test]
fn no_file_contains_a_path_of_one_machine() {
    let machines = [concat!("/ro", "ot"), concat!("/wo", "rk"), concat!("/ho", "me")].map(|start| format!("{start}/"));
    let mut violations = Vec::new();
    let mut checked = 0;
    for path in files(root(), "") {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        checked += 1;
        for start in &machines {
            for (at, _) in text.match_indices(start.as_str()) {
                // `/proc/self/root/` and the like are other paths.
                let inside = text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || "._-}$".contains(c));
                if !inside {
                    let file = path.strip_prefix(root()).unwrap().display().to_string();
                    violations.push(format!("{file}:{}: a path of one machine", line(&text, at)));
                }
            }
        }
    }
    assert!(checked > 100, "checked only {checked} files");
    report(&violations);
}

#[test]
fn the_scanner_distinguishes_code_from_comments_and_strings() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.rs");
    let text = r###"//! unsafe
fn one<'a>(x: &'a [u8; 4]) -> char {
    let _ = "unsafe // fn two() {"; /* unsafe /* fn */ */
    let _ = (r#"unsafe " "#, b'\'', '{', 'ä', br"unsafe\");
    'x'
}
trait T { fn three(&self); }
use crate::{hub::{self, Kind}, wire};
"###;
    std::fs::write(&path, text).unwrap();
    let source = Source::read(folder.path(), &path);
    assert_eq!(source.words("unsafe").count(), 0, "{}", source.code);
    let functions: Vec<_> = source.functions().iter().map(|f| (f.name.clone(), f.line, f.lines)).collect();
    assert_eq!(functions, [("one".to_owned(), 2, 5)]);
    assert_eq!(source.crate_paths().iter().map(|(_, name)| *name).collect::<Vec<_>>(), ["hub", "wire"]);
}
