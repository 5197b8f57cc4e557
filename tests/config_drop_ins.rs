//! Drop-ins: `conf.d/*.toml` beside the main file are merged by key, and every mistake is reported with the right file.
//!
//! The messages about `drop_ins/NAME/config.toml` are those in `drop_ins/NAME.txt`. `PUSHD_BLESS=1` updates them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pushd::config::{self, Action, Config, Diagnostic, Source};
use tempfile::TempDir;

/// The minimum number of cases. A test that finds no case proves nothing.
const CASES_MIN: usize = 6;

const MAIN: &str = r#"
[server.main]
listen = "127.0.0.1:8888"

[server.main.routes]
"/ws" = { websocket = "push", channels = ["one"], log = "messages" }
"/health" = { health = true }

[hub.push]
ping = "25s"
message_max = "4KiB"

[log]
rotate = { size = "5MB", keep = 7 }
"#;

/// A configuration in a directory of its own.
struct Folder(TempDir);

impl Folder {
    fn new(drop_ins: &[(&str, &str)]) -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        fs::create_dir(folder.path("conf.d")).unwrap();
        fs::write(folder.path("config.toml"), MAIN).unwrap();
        for (name, text) in drop_ins {
            fs::write(folder.path("conf.d").join(name), text).unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self) -> Config {
        config::load(&self.path("config.toml")).unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn refused(&self) -> String {
        config::load(&self.path("config.toml")).unwrap_err().to_string()
    }
}

/// Tests run in the root of the package, so relative paths in messages are the same on every machine.
fn cases() -> Vec<PathBuf> {
    let entries = Path::new("tests/drop_ins").read_dir().expect("the cases are in tests/drop_ins");
    let mut cases: Vec<_> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    cases.sort();
    cases
}

fn diagnostics(case: &Path) -> Vec<Diagnostic> {
    match config::load(&case.join("config.toml")) {
        Ok(config) => config.warnings,
        Err(errors) => errors.0,
    }
}

#[test]
fn the_messages_about_each_folder_are_those_of_its_golden_file() {
    let bless = std::env::var_os("PUSHD_BLESS").is_some();
    let cases = cases();
    assert!(cases.len() >= CASES_MIN, "only {} cases", cases.len());
    let mut changed = Vec::new();
    for case in &cases {
        let diagnostics = diagnostics(case);
        let full: String = diagnostics.iter().map(|diagnostic| format!("{diagnostic}\n\n")).collect();
        let short: String = diagnostics.iter().map(|diagnostic| format!("{}\n", diagnostic.summary())).collect();
        let (found, golden) = (format!("{full}---- in a log ----\n{short}"), case.with_extension("txt"));
        if bless {
            fs::write(&golden, &found).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != found {
            changed.push(format!("{}:\n{found}", case.display()));
        }
    }
    assert!(changed.is_empty(), "{} differ from their .txt\n\n{}", changed.len(), changed.join("\n"));
}

#[test]
fn a_drop_in_replaces_single_keys_of_the_main_file() {
    let hub = "[hub.push]\nping = \"5s\"\n[hub.more]\n[log]\nrotate.keep = 2\n";
    let route = "[server.main.routes]\n\"/ws\" = { websocket = \"push\" }\n\"/more\" = { websocket = \"more\" }\n";
    let folder = Folder::new(&[("10-hub.toml", hub), ("20-route.toml", route)]);
    let config = folder.load();
    let push = &config.hubs[0];
    assert_eq!((push.ping, push.message_bytes_max), (Some(Duration::from_secs(5)), 4 << 10));
    let rotate = config.log.rotate.unwrap();
    assert_eq!((rotate.size_bytes, rotate.keep), (5_000_000, 2));
    let paths: Vec<_> = config.servers[0].routes.iter().map(|route| route.pattern.text()).collect();
    assert_eq!(paths, ["/health", "/ws", "/more"], "in the order of the files");
    let Action::WebSocket(socket) = &config.servers[0].routes[1].action else { panic!() };
    assert_eq!(socket.subscription.channels[0].fixed(), Some("all"), "a route is replaced as a whole");
    assert_eq!(socket.subscription.log, config::SessionLog::Off);
    let files: Vec<_> = config.files.iter().map(|file| file.strip_prefix(folder.0.path()).unwrap()).collect();
    assert_eq!(files, ["config.toml", "conf.d/10-hub.toml", "conf.d/20-route.toml"].map(Path::new));
}

#[test]
fn only_visible_toml_files_are_drop_ins() {
    let bad = "nonsense = 1\n";
    let names = [".hidden.toml", "x.toml~", "x.toml.dpkg-new", "toml", "README", "x.conf"];
    let folder = Folder::new(&names.map(|name| (name, bad)));
    assert_eq!(folder.load().files.len(), 1);
    fs::write(folder.path("conf.d/x.toml"), bad).unwrap();
    assert!(folder.refused().contains("conf.d/x.toml:1:1"), "{}", folder.refused());
}

#[test]
fn relative_paths_begin_in_the_directory_of_the_drop_in() {
    let feed =
        "[feed.a]\nhub = \"push\"\nchannel = \"all\"\ntail = \"a.log\"\n[daemon]\nrundir = \"..\"\npidfile = \"p\"\n";
    let folder = Folder::new(&[("10-feed.toml", feed)]);
    let config = folder.load();
    assert_eq!(config.feeds[0].source, Source::Tail(folder.path("conf.d/a.log")));
    assert_eq!(config.daemon.rundir, Some(folder.path("conf.d/..")));
    let daemon = config::load_daemon(&folder.path("config.toml")).unwrap();
    assert_eq!(daemon, config.daemon, "pushctl finds a pidfile that a drop-in sets");
}

#[test]
fn the_number_and_size_of_drop_ins_are_bounded() {
    let folder = Folder::new(&[("10-large.toml", &"\n".repeat(3 << 20)), ("20-larger.toml", &"\n".repeat(2 << 20))]);
    let refused = folder.refused();
    assert!(refused.contains("20-larger.toml") && refused.contains("larger than 4 MiB"), "{refused}");
    let folder = Folder::new(&[]);
    for number in 0..=config::limits::DROP_INS_MAX {
        fs::write(folder.path("conf.d").join(format!("{number}.toml")), "").unwrap();
    }
    assert!(folder.refused().contains("more than 256 drop-ins"), "{}", folder.refused());
}

/// No process writes to this pipe, so a process that opened it would wait for ever, also in a reload.
#[test]
fn a_pipe_among_the_drop_ins_is_refused_at_once() {
    let folder = Folder::new(&[]);
    let pipe = folder.path("conf.d/10-pipe.toml");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(folder.refused().contains("this is a pipe, not a file"), "{}", folder.refused());
}
