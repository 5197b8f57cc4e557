//! `pushctl config show` and `pushctl diff`: the effective values, where they are set, and what a change would do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pushd::config::{self, Config, keys};
use tempfile::TempDir;

#[path = "common/keys.rs"]
mod common_keys;

use common_keys::{two_values, with_value};

/// The output of pushctl. Its exit code must be 0, and standard error may contain only warnings.
fn pushctl(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pushctl")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(0), "{args:?}: {out}{err}");
    assert!(err.is_empty() || err.starts_with("warning: "), "{args:?}: {err}");
    out
}

fn shown(file: &Path) -> String {
    pushctl(&["config", "show", file.to_str().unwrap()])
}

/// The configuration without the parts that depend on its location.
fn bare(config: Config) -> Config {
    Config { files: Vec::new(), warnings: Vec::new(), ..config }
}

fn shipped() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let files = [root.clone(), root.join("examples")].into_iter().flat_map(|folder| folder.read_dir().unwrap());
    files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "toml")).collect()
}

/// A configuration with drop-ins, and one that differs from it.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    fs::create_dir_all(folder.path().join("conf.d")).unwrap();
    fs::create_dir_all(folder.path().join("conf.d/www")).unwrap();
    fs::create_dir_all(folder.path().join("new")).unwrap();
    write(
        "config.toml",
        r#"[server.main]
listen = ["127.0.0.1:8888", "unix:main.sock"]
[server.main.routes]
"/ws" = { websocket = "push", to = "all", on_message = "broadcast" }
"/chat/{room}" = { websocket = "chat", channels = "room/{room}" }
"/ready" = { ready = true }
[server.second]
listen = "127.0.0.1:8889"
routes = { "/" = { websocket = "chat" } }
[hub.push]
ping = false
[hub.chat]
[feed.clock]
hub = "push"
channel = "all"
every = "60s"
message = "{n}"
[log]
rotate = false
"#,
    );
    write(
        "conf.d/10-files.toml",
        "[server.main.routes]\n\"/\" = { static = \"www\" }\n[hub.push]\nmessage_max = 4096\n[daemon]\numask = 0o27\n",
    );
    write(
        "conf.d/20-feed.toml",
        "[feed.lines]\nhub = \"chat\"\nchannel = \"all\"\ncommand = [\"./lines\", \"./x\"]\n[feed.tail]\nhub = \"chat\"\nchannel = \"all\"\ntail = \"x.log\"\n",
    );
    write(
        "new/config.toml",
        r#"[daemon]
workers = 4
umask = "027"
[server.main]
listen = "127.0.0.1:8888"
[server.main.routes]
"/ws" = { websocket = "chat", to = "all", on_message = "broadcast", greeting = "Hello" }
"/ready" = { health = true }
[hub.push]
ping = "10s"
message_max = "4KiB"
[hub.chat]
queue_age_max = "30s"
[feed.clock]
hub = "push"
channel = "all"
every = "1m"
message = "tick:{n}"
"#,
    );
    folder
}

/// The output is a configuration file with the same meaning, independent of its location.
#[test]
fn the_shown_file_has_the_same_meaning() {
    let folder = folder();
    let mut files = shipped();
    files.push(folder.path().join("config.toml"));
    assert!(files.len() > 7, "{files:?}");
    for file in files {
        let shown = shown(&file);
        let read = config::parse(Path::new("/elsewhere/x.toml"), &shown).unwrap_or_else(|e| panic!("{shown}\n{e}"));
        assert_eq!(bare(read), bare(config::load(&file).unwrap()), "{shown}");
    }
}

#[test]
fn every_key_is_shown_with_its_location() {
    let folder = folder();
    let shown = shown(&folder.path().join("config.toml"));
    let mut locations = 0;
    for line in shown.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")) {
        let (said, comment) = line.split_once(" # ").unwrap_or_else(|| panic!("{line}"));
        let key = said.trim_start_matches('#').split(" = ").next().unwrap().trim();
        let Some((file, number)) = comment.rsplit_once(':').filter(|(file, _)| file.ends_with(".toml")) else {
            assert!(comment == "default" || comment.starts_with("not set"), "{line}");
            continue;
        };
        let text = fs::read_to_string(file).unwrap();
        let there = text.lines().nth(number.parse::<usize>().unwrap() - 1).unwrap();
        let name = key.trim_matches(['[', ']']).rsplit('.').next().unwrap();
        assert!(there.contains(name), "{line}\n{there}");
        locations += 1;
    }
    assert!(locations > 30, "{shown}");
    assert!(shown.contains("config.toml with 2 drop-ins: every key"), "{shown}");
    assert!(shown.contains("conf.d/10-files.toml:6"), "{shown}");
    for key in keys::SECTIONS.iter().flat_map(|section| section.keys) {
        let has =
            |line: &str| line.starts_with(&format!("{} =", key.name)) || line.starts_with(&format!("#{} ", key.name));
        let here = keys::HUB.key(key.name).is_some() || keys::FEED.key(key.name).is_some();
        assert!(!here || shown.lines().any(has), "{}: {shown}", key.name);
    }
}

#[test]
fn differences_are_grouped_by_when_they_take_effect() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let shown = pushctl(&["diff", &path("new/config.toml"), "--config", &path("config.toml")]);
    let shown = shown.replace(folder.path().to_str().unwrap(), "DIR");
    let expected = r#"At once:
  log.rotate                            false -> on
  server.main.listen                    ["127.0.0.1:8888", "unix:DIR/main.sock"] -> "127.0.0.1:8888"  (DIR/new/config.toml:5)
  server.main.routes."/ws".websocket    "push" -> "chat"; its sessions are closed with 1001  (DIR/new/config.toml:7)
  server.main.routes."/ready"           a health route, was a ready route  (DIR/new/config.toml:8)
  hub.push.ping                         false -> "10s"  (DIR/new/config.toml:10)
  hub.chat.queue_age_max                not set -> "30s"  (DIR/new/config.toml:13)
  feed.clock.message                    "{n}" -> "tick:{n}"; the feed begins anew  (DIR/new/config.toml:18)
  server.main.routes."/chat/{room}"     removed; its sessions are closed with 1001
  server.main.routes."/"                removed
  server.second                         removed; its sessions are closed with 1001
  feed.lines                            removed
  feed.tail                             removed
For new connections only:
  server.main.routes."/ws".greeting     not set -> "Hello"  (DIR/new/config.toml:7)
Only by a restart:
  daemon.workers                        "auto" -> 4  (DIR/new/config.toml:2)
"#;
    assert_eq!(shown, expected, "{shown}");
    let same = pushctl(&["diff", &path("config.toml"), "-c", &path("config.toml")]);
    assert_eq!(same, "Nothing would change.\n");
}

/// A change of any key that can have two values is reported in the group of the table of keys, and causes no other
/// difference.
#[test]
fn every_key_is_reported_in_the_group_of_the_table_of_keys() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["one", "other"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let mut reported = 0;
    // Secrets and certificates are values: the keys in them are not reported alone.
    for section in keys::SECTIONS.into_iter().filter(|section| ![keys::SECRET, keys::TLS].contains(*section)) {
        for key in section.keys {
            let Some(values) = two_values(key) else { continue };
            let [now, new] = values.map(|value| {
                let file = folder.path().join("x.toml");
                fs::write(&file, with_value(section, key, &value)).unwrap();
                config::load_settings(&file).unwrap_or_else(|e| panic!("{}: {e}", key.name)).1
            });
            let differences = config::differences(&now, &new);
            let found: Vec<_> =
                differences.iter().map(|one| (one.name.rsplit('.').next().unwrap(), one.change)).collect();
            assert_eq!(found, [(key.name, key.change)], "{}", section.title);
            let publishing = differences[0].text.ends_with("; publishing goes by it at once");
            assert_eq!(publishing, key.name == "origins" && *section == keys::SERVER, "{}", section.title);
            reported += 1;
        }
    }
    assert!(reported > 45, "{reported}");
}

/// A history is turned on and off by a restart, its limits change at once. A new hub is one difference, with all its tables.
#[test]
fn a_history_that_is_turned_on_needs_a_restart_and_its_limits_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, hubs: &str| {
        let routes = "\"/a\" = { websocket = \"a\" }\n\"/b\" = { websocket = \"b\" }\n";
        let text = format!("[server.s]\nlisten = \"127.0.0.1:1\"\n[server.s.routes]\n{routes}{hubs}");
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let now = write("now.toml", "[hub.a]\nhistory = { messages = 1 }\n[hub.b]\nhistory = false\n");
    let new = write(
        "new.toml",
        "[hub.a.history]\nmessages = 2\n[hub.b]\nhistory = { age = \"1h\" }\n[hub.c.history]\nbytes = 9\n",
    );
    let shown = |new: &str, now: &str| {
        pushctl(&["diff", new, "--config", now]).replace(&format!("{}/", folder.path().display()), "")
    };
    assert_eq!(
        shown(&new, &now),
        "At once:\n  hub.a.history.messages                1 -> 2  (new.toml:7)\n  hub.c                                 new  (new.toml:10)\n\
         Only by a restart:\n  hub.b.history                         false -> on\n"
    );
    assert_eq!(
        shown(&now, &new),
        "At once:\n  hub.a.history.messages                2 -> 1  (now.toml:7)\n  hub.c                                 removed\n\
         Only by a restart:\n  hub.b.history                         on -> false  (now.toml:9)\n"
    );
}

#[test]
fn an_invalid_file_is_not_compared() {
    let folder = folder();
    let bad = folder.path().join("new/bad.toml");
    fs::write(&bad, "nonsense = 1\n").unwrap();
    let good = folder.path().join("config.toml");
    let output =
        Command::new(env!("CARGO_BIN_EXE_pushctl")).arg("diff").arg(&bad).arg("-c").arg(good).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(78), 0));
}
