//! What the operator reads when a file is wrong, word for word.
//!
//! Each `config_errors/NAME.toml` is told about exactly as `NAME.txt` says. After a deliberate change, write them anew with
//! `PUSHD_BLESS=1 cargo test --test config_errors`, and read the difference aloud before it is committed.

use std::path::{Path, PathBuf};

use pushd::config::{self, Severity};

/// How many cases there are at least: a test that found nothing proves nothing.
const CASES_MIN: usize = 22;

/// Where tests are run is the package's root, so that a relative path is the same on every machine.
fn cases() -> Vec<PathBuf> {
    let folder = Path::new("tests/config_errors").read_dir().expect("the cases are in tests/config_errors");
    let mut cases: Vec<_> = folder.map(|file| file.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    cases.sort();
    cases
}

/// Everything said about a file, and a line for a log of each.
fn told(path: &Path) -> String {
    let told = match config::load(path) {
        Ok(config) => config.warnings,
        Err(errors) => errors.0,
    };
    let full: String = told.iter().map(|diagnostic| format!("{diagnostic}\n\n")).collect();
    let short: String = told.iter().map(|diagnostic| format!("{}\n", diagnostic.summary())).collect();
    format!("{full}---- in a log ----\n{short}")
}

#[test]
fn mistakes_are_told_word_for_word() {
    let bless = std::env::var_os("PUSHD_BLESS").is_some();
    let cases = cases();
    assert!(cases.len() >= CASES_MIN, "only {} cases", cases.len());
    let mut changed = Vec::new();
    for case in &cases {
        let (said, golden) = (told(case), case.with_extension("txt"));
        if bless {
            std::fs::write(&golden, &said).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != said {
            changed.push(format!("{}:\n{said}", case.display()));
        }
    }
    assert!(changed.is_empty(), "{} differ from their .txt\n\n{}", changed.len(), changed.join("\n"));
}

#[test]
fn everything_is_in_the_order_of_the_file() {
    for case in cases() {
        let Err(errors) = config::load(&case) else { continue };
        let locations: Vec<_> = errors.0.iter().filter_map(config::Diagnostic::location).collect();
        assert!(locations.is_sorted(), "{}: {locations:?}", case.display());
        assert!(errors.0.iter().any(|told| told.severity() == Severity::Error), "{}", case.display());
    }
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let said = |path: &Path| config::load(path).unwrap_err().to_string();
    assert!(said(&folder.path().join("none.toml")).contains("there is no such file"));
    assert!(said(folder.path()).contains("this is a directory, not a file"));
    let binary = folder.path().join("binary.toml");
    std::fs::write(&binary, b"[log]\nfile = \"\xff\"\n").unwrap();
    assert!(said(&binary).contains("not UTF-8 text: see line 2"));
    let huge = folder.path().join("huge.toml");
    std::fs::write(&huge, vec![b'\n'; (5 << 20) + 1]).unwrap();
    assert!(said(&huge).contains("larger than 4 MiB"));
}

/// What a file, its name or a key holds is no command to a terminal, nor a screenful.
#[test]
fn what_is_shown_is_escaped_and_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (file, drop_ins) = (folder.path().join("config.toml"), folder.path().join("conf.d"));
    std::fs::create_dir(&drop_ins).unwrap();
    std::fs::write(&file, "[server.s]\nlisten = \"127.0.0.1:1\"\nroutes.\"/\" = { health = true }\n").unwrap();
    std::fs::write(drop_ins.join("\u{1b}[31m.toml"), format!("\"\\u001b[32m\" = 1\n{} = 2\n", "x".repeat(1 << 20)))
        .unwrap();
    let errors = config::load(&file).unwrap_err();
    assert_eq!(errors.0.len(), 2);
    for told in &errors.0 {
        for text in [told.to_string(), told.summary().to_owned()] {
            assert!(!text.contains('\u{1b}') && text.contains("\\u{1b}[31m.toml"), "{text}");
            assert!(text.len() < 4096, "{} bytes", text.len());
        }
    }
    assert!(errors.0[0].summary().contains("unknown key `\\u{1b}[32m`"), "{}", errors.0[0].summary());
}
