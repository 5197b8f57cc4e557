//! The exact messages about files with mistakes.
//!
//! The messages about `config_errors/NAME.toml` are those in `NAME.txt`. After a deliberate change update them with
//! `PUSHD_BLESS=1 cargo test --test config_errors`, and read the difference before you commit it.

use std::path::{Path, PathBuf};

use pushd::config::{self, Severity};

/// The minimum number of cases. A test that finds no case proves nothing.
const CASES_MIN: usize = 35;

/// Tests run in the root of the package, so relative paths in messages are the same on every machine.
fn cases() -> Vec<PathBuf> {
    let folder = Path::new("tests/config_errors").read_dir().expect("the cases are in tests/config_errors");
    let mut cases: Vec<_> = folder.map(|file| file.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    cases.sort();
    cases
}

/// All messages about a file, and then each as a line for a log.
fn messages(path: &Path) -> String {
    let diagnostics = match config::load(path) {
        Ok(config) => config.warnings,
        Err(errors) => errors.0,
    };
    let full: String = diagnostics.iter().map(|diagnostic| format!("{diagnostic}\n\n")).collect();
    let short: String = diagnostics.iter().map(|diagnostic| format!("{}\n", diagnostic.summary())).collect();
    format!("{full}---- in a log ----\n{short}")
}

#[test]
fn the_messages_about_each_file_are_those_of_its_golden_file() {
    let bless = std::env::var_os("PUSHD_BLESS").is_some();
    let cases = cases();
    assert!(cases.len() >= CASES_MIN, "only {} cases", cases.len());
    let mut changed = Vec::new();
    for case in &cases {
        let (found, golden) = (messages(case), case.with_extension("txt"));
        if bless {
            std::fs::write(&golden, &found).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != found {
            changed.push(format!("{}:\n{found}", case.display()));
        }
    }
    assert!(changed.is_empty(), "{} differ from their .txt\n\n{}", changed.len(), changed.join("\n"));
}

#[test]
fn messages_are_in_the_order_of_the_file() {
    for case in cases() {
        let Err(errors) = config::load(&case) else { continue };
        let locations: Vec<_> = errors.0.iter().filter_map(config::Diagnostic::location).collect();
        assert!(locations.is_sorted(), "{}: {locations:?}", case.display());
        assert!(errors.0.iter().any(|diagnostic| diagnostic.severity() == Severity::Error), "{}", case.display());
    }
}

#[test]
fn a_file_that_cannot_be_read_is_reported_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let found = |path: &Path| config::load(path).unwrap_err().to_string();
    assert!(found(&folder.path().join("none.toml")).contains("this file does not exist"));
    assert!(found(folder.path()).contains("this is a directory, not a file"));
    let binary = folder.path().join("binary.toml");
    std::fs::write(&binary, b"[log]\nfile = \"\xff\"\n").unwrap();
    assert!(found(&binary).contains("not UTF-8 text: see line 2"));
    let huge = folder.path().join("huge.toml");
    std::fs::write(&huge, vec![b'\n'; (5 << 20) + 1]).unwrap();
    assert!(found(&huge).contains("larger than 4 MiB"));
}

/// Neither a file, nor its name, nor a key can send commands to a terminal or fill the screen.
#[test]
fn text_from_a_file_is_escaped_and_cut_in_messages() {
    let folder = tempfile::tempdir().unwrap();
    let (file, drop_ins) = (folder.path().join("config.toml"), folder.path().join("conf.d"));
    std::fs::create_dir(&drop_ins).unwrap();
    std::fs::write(&file, "[server.s]\nlisten = \"127.0.0.1:1\"\nroutes.\"/\" = { health = true }\n").unwrap();
    std::fs::write(drop_ins.join("\u{1b}[31m.toml"), format!("\"\\u001b[32m\" = 1\n{} = 2\n", "x".repeat(1 << 20)))
        .unwrap();
    let errors = config::load(&file).unwrap_err();
    assert_eq!(errors.0.len(), 2);
    for diagnostic in &errors.0 {
        for text in [diagnostic.to_string(), diagnostic.summary().to_owned()] {
            assert!(!text.contains('\u{1b}') && text.contains("\\u{1b}[31m.toml"), "{text}");
            assert!(text.len() < 4096, "{} bytes", text.len());
        }
    }
    assert!(errors.0[0].summary().contains("unknown key `\\u{1b}[32m`"), "{}", errors.0[0].summary());
}
