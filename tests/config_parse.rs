//! The parser as a whole: it reads every key in the table, and no text makes it panic.

use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use pushd::config::{self, Action, Errors, Listen, LogTarget, Source, keys};

#[path = "common/keys.rs"]
mod common_keys;

use common_keys::around;

/// Whether an error is about the value of the entry. (An unknown key would be an error about the key.)
fn is_reported(text: &str, entry: &str, errors: &Errors) -> bool {
    let (at, line) = (0..).zip(text.lines()).find(|(_, line)| line.contains(entry)).unwrap();
    let value = line.find(entry).unwrap() + entry.find("1979").unwrap() + 1;
    errors.0.iter().any(|one| one.location().is_some_and(|found| (found.line, found.column) == (at + 1, value)))
}

/// No key takes a date, so a key that is read must cause an error.
#[test]
fn every_key_in_the_table_is_read() {
    let mut read = 0;
    for section in keys::SECTIONS {
        for key in section.names() {
            let entry = format!("{key} = 1979-05-27");
            let text = around(section, &entry);
            let errors = config::parse(Path::new("x.toml"), &text).expect_err(&text);
            assert!(
                is_reported(&text, &entry, &errors),
                "`{key}` of {} is in the table, but not read:\n{text}\n{errors}",
                section.title
            );
            read += 1;
        }
    }
    assert!(read > 50, "{read}");
}

#[test]
fn a_key_that_is_not_in_the_table_is_unknown() {
    for section in keys::SECTIONS {
        let text = around(section, "nonsense = 1979-05-27");
        let errors = config::parse(Path::new("x.toml"), &text).unwrap_err();
        assert!(errors.to_string().contains("unknown key `nonsense`"), "{}: {errors}", section.title);
    }
}

/// Relative paths begin in the directory of the file, except those that begin in the run directory.
#[test]
fn relative_paths_begin_in_the_directory_of_the_file() {
    let text = r#"
        daemon = { pidfile = "p.pid", rundir = "run" }
        log = { file = "p.log" }
        hub.h = {}
        [server.s]
        listen = ["unix:p.sock", "unix:/run/p.sock"]
        routes = { "/" = { static = "www" }, "/ws" = { websocket = "h" } }
        [feed]
        a = { hub = "h", channel = "all", tail = "a.log" }
        b = { hub = "h", channel = "all", command = ["./b.sh", "./x"] }
        c = { hub = "h", channel = "all", command = ["vmstat", "1"] }
    "#;
    let config = config::parse(Path::new("/etc/pushd/x.toml"), text).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.daemon.pidfile, Path::new("p.pid"));
    assert_eq!(config.daemon.rundir.as_deref(), Some(Path::new("/etc/pushd/run")));
    assert_eq!(config.log.target, Some(LogTarget::File("p.log".into())));
    let server = &config.servers[0];
    assert_eq!(server.listen[0], Listen::Unix("/etc/pushd/p.sock".into()));
    assert_eq!(server.listen[1], Listen::Unix("/run/p.sock".into()));
    assert!(matches!(&server.routes[0].action, Action::Static(files) if files.root == Path::new("/etc/pushd/www")));
    let sources: Vec<_> = config.feeds.iter().map(|feed| feed.source.clone()).collect();
    let command = |words: [&str; 2]| Source::Command(words.map(str::to_owned).to_vec());
    assert_eq!(sources[0], Source::Tail("/etc/pushd/a.log".into()));
    assert_eq!(sources[1], command(["/etc/pushd/./b.sh", "./x"]));
    assert_eq!(sources[2], command(["vmstat", "1"]), "searched in PATH");
}

/// The texts that are mutated: the default file, also with its comments as entries, the examples, and the files with mistakes.
static SEEDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut seeds = vec![config::DEFAULT.to_owned(), config::DEFAULT.replace("\n#", "\n")];
    for folder in ["tests/config_errors", "config/examples"] {
        let files = Path::new(folder).read_dir().unwrap().map(|file| file.unwrap().path());
        let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
        seeds.extend(files.map(|path| std::fs::read_to_string(path).unwrap()));
    }
    assert!(seeds.len() > 20, "{}", seeds.len());
    seeds
});

/// One change: `length` bytes from `at` on are replaced by `text`.
#[derive(Debug, Clone)]
struct Mutation {
    at: prop::sample::Index,
    length: usize,
    text: String,
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let tokens = prop::sample::select(vec![
        "",
        "\"",
        "'",
        "\"\"\"",
        "{",
        "}",
        "[",
        "]",
        "[[",
        "=",
        ".",
        ",",
        "\n",
        "\r\n",
        "\0",
        "\u{feff}",
        "ä",
        "#",
        "-",
        "99999999999999999999",
        "0o",
        "1e999",
        "inf",
        "true",
        "\\u0000",
        "{n}",
        "{{",
        "/",
        "[hub.x]\n",
        "a.b.c = 1\n",
    ]);
    let text = prop_oneof![tokens.prop_map(str::to_owned), "\\PC{0,6}"];
    (any::<prop::sample::Index>(), 0_usize..40, text).prop_map(|(at, length, text)| Mutation { at, length, text })
}

impl Mutation {
    fn apply(&self, text: &mut String) {
        let boundary = |mut at: usize| {
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let start = boundary(self.at.index(text.len() + 1));
        let end = boundary((start + self.length).min(text.len())).max(start);
        text.replace_range(start..end, &self.text);
    }
}

/// Each of these files would take minutes if the time grew with the number of mistakes times the number of bytes.
#[test]
fn a_file_full_of_mistakes_is_read_in_linear_time() {
    for noise in ["[", "=", "a b ", "\"", "{", "x\n", "[a]\n", "a={", "[[[", "'''", "a.", "\u{1}"] {
        let errors = config::parse(Path::new("x.toml"), &noise.repeat(100_000 / noise.len())).unwrap_err();
        assert!(errors.0.len() <= config::limits::DIAGNOSTICS_MAX + 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(
        seed in any::<prop::sample::Selector>(),
        mutations in prop::collection::vec(mutation(), 1..6),
    ) {
        let mut text = seed.select(SEEDS.iter()).clone();
        for mutation in &mutations {
            mutation.apply(&mut text);
        }
        match config::parse(Path::new("x.toml"), &text) {
            Ok(config) => prop_assert!(!config.servers.is_empty()),
            Err(errors) => prop_assert!(errors.0.iter().any(|error| error.severity() == config::Severity::Error)),
        }
    }

    #[test]
    fn no_drop_in_makes_the_parser_panic(
        seeds in any::<[prop::sample::Selector; 3]>(),
        mutations in prop::collection::vec(mutation(), 0..6),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let drop_ins = folder.path().join(config::DROP_INS);
        std::fs::create_dir(&drop_ins).unwrap();
        let [main, first, second] = seeds.map(|seed| seed.select(SEEDS.iter()).clone());
        let mut drop_in = second;
        for mutation in &mutations {
            mutation.apply(&mut drop_in);
        }
        let named = folder.path().join("x.toml");
        for (file, text) in [(&named, main), (&drop_ins.join("1.toml"), first), (&drop_ins.join("2.toml"), drop_in)] {
            std::fs::write(file, text).unwrap();
        }
        if let Err(errors) = config::load(&named) {
            prop_assert!(errors.0.iter().any(|error| error.severity() == config::Severity::Error));
        }
        config::load_daemon(&named).unwrap();
    }

    #[test]
    fn no_noise_makes_the_parser_panic(text in "\\PC{0,200}") {
        let _ = config::parse(Path::new("x.toml"), &text);
    }
}
