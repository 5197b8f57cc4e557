//! Every shipped configuration loads without a message, and serves what its description promises.
//!
//! The default file is also a reference: it documents every key in the table, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pushd::config::keys::{self, Fallback, Section};
use pushd::config::{
    self, Accept, Action, Config, Listen, LogTarget, OnMessage, Origins, SessionLog, Source, WebSocket,
};

fn shipped() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let files = [root.clone(), root.join("examples")].into_iter().flat_map(|folder| folder.read_dir().unwrap());
    files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "toml")).collect()
}

fn example(name: &str) -> Config {
    let path = format!("{}/config/examples/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    config::load(Path::new(&path)).unwrap_or_else(|errors| panic!("{errors}"))
}

fn ports(config: &Config) -> Vec<u16> {
    let tcp = |listen: &Listen| match listen {
        Listen::Tcp(address) if address.ip().is_loopback() => address.port(),
        other => panic!("open to other machines: {other:?}"),
    };
    config.servers.iter().flat_map(|server| &server.listen).map(tcp).collect()
}

/// The action of the route `path`, of the first server that has it.
fn action<'c>(config: &'c Config, path: &str) -> &'c Action {
    let mut routes = config.servers.iter().flat_map(|server| &server.routes);
    &routes.find(|route| route.pattern.text() == path).unwrap_or_else(|| panic!("no route {path}")).action
}

fn websocket<'c>(config: &'c Config, path: &str) -> &'c WebSocket {
    match action(config, path) {
        Action::WebSocket(websocket) => websocket,
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn all_seven_files_load_without_error_or_warning() {
    let files = shipped();
    assert_eq!(files.len(), 7, "{files:?}");
    for path in files {
        let config = config::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(config.warnings.is_empty(), "{}", config.warnings[0]);
        assert_eq!(config.daemon.pidfile, Path::new("pushd.pid"), "{}", path.display());
        assert_eq!(config.log.target, None, "{}", path.display());
        ports(&config);
    }
}

#[test]
fn examples_allow_pages_of_every_origin() {
    for path in shipped().iter().filter(|path| path.parent().unwrap().ends_with("examples")) {
        for server in config::load(path).unwrap().servers {
            assert_eq!(server.origins, Origins::Any, "{}", path.display());
        }
    }
}

#[test]
fn the_default_file_serves_a_page_a_hub_publishing_and_status() {
    let config = config::parse(Path::new("pushd.toml"), config::DEFAULT).unwrap();
    assert_eq!(ports(&config), [8888]);
    assert!(matches!(action(&config, "/"), Action::Page(_)));
    assert_eq!(websocket(&config, "/ws").on_message, OnMessage::Ignore);
    let Action::Events(events) = action(&config, "/events") else { panic!("/events") };
    assert_eq!(events.subscription.channels, websocket(&config, "/ws").subscription.channels);
    let live = websocket(&config, "/live");
    assert!(live.envelope);
    assert_eq!(live.subscription.channels, events.subscription.channels);
    let hub = &config.hubs[live.subscription.hub.0 as usize];
    assert!(hub.history.is_some() && !hub.durable, "the page misses nothing, and no file is written");
    assert!(matches!(action(&config, "/publish/{channel}"), Action::Publish(_)));
    assert_eq!(action(&config, "/metrics"), &Action::Metrics);
    assert_eq!(action(&config, "/healthz"), &Action::Health);
    assert_eq!(action(&config, "/readyz"), &Action::Ready);
}

#[test]
fn server_push_addresses_its_clients_by_a_pair() {
    let config = example("server-push");
    assert_eq!(ports(&config), [8888]);
    let socket = websocket(&config, "/ws");
    assert_eq!(socket.subscription.channels[0].needs().collect::<Vec<_>>(), ["userid", "compid"]);
    assert_eq!(socket.subscription.channels[1].fixed(), Some("all"));
    assert_eq!((socket.on_message, socket.subscription.log), (OnMessage::Ignore, SessionLog::Messages));
    for (path, needs) in [("/push", vec!["userid", "compid"]), ("/pushtoall", vec![])] {
        let Action::Publish(publish) = action(&config, path) else { panic!("{path}") };
        assert_eq!(publish.channel.as_ref().unwrap().needs().collect::<Vec<_>>(), needs);
        assert!(publish.methods.contains(&config::Method::Get));
        assert_eq!(publish.message.as_ref().unwrap().needs().collect::<Vec<_>>(), ["message"]);
    }
}

#[test]
fn hello_world_greets_each_client() {
    let config = example("hello-world");
    assert_eq!(ports(&config), [8888]);
    let socket = websocket(&config, "/ws");
    assert_eq!(socket.greeting.as_ref().unwrap().fixed(), Some("Hello World"));
    assert_eq!((socket.on_message, socket.subscription.log), (OnMessage::Ignore, SessionLog::Messages));
    assert!(matches!(action(&config, "/"), Action::Static(_)));
}

#[test]
fn streaming_has_feeds_from_a_command_and_a_file() {
    let config = example("streaming");
    assert_eq!(ports(&config), [8888]);
    assert!(matches!(&config.feeds[0].source, Source::Command(words) if words[0] == "sh"));
    assert!(matches!(&config.feeds[1].source, Source::Tail(path) if path.is_file()));
    assert!(config.feeds.iter().all(|feed| feed.channel == "all"));
}

#[test]
fn echo_accepts_messages_of_16_mebibytes() {
    let config = example("echo");
    assert_eq!(ports(&config), [8888]);
    let socket = websocket(&config, "/ws");
    assert_eq!((socket.on_message, socket.accept), (OnMessage::Echo, Accept::Both));
    let hub = &config.hubs[socket.subscription.hub.0 as usize];
    assert_eq!(hub.message_bytes_max, 16 << 20);
    assert!(hub.queue_bytes_max > hub.message_bytes_max);
}

#[test]
fn techops_broadcasts_text_and_lists_pages() {
    let config = example("techops");
    assert_eq!(ports(&config), [5000, 8000]);
    let socket = websocket(&config, "/");
    assert_eq!((socket.on_message, socket.accept), (OnMessage::Broadcast, Accept::Text));
    assert!(socket.draft76);
    assert!(matches!(&config.servers[1].routes[0].action, Action::Static(files) if files.listing));
}

#[test]
fn tick_publishes_every_second() {
    let config = example("tick");
    assert_eq!(ports(&config), [9876, 8888]);
    let socket = websocket(&config, "/");
    assert!(socket.draft76 && socket.on_message == OnMessage::Broadcast);
    assert_eq!(socket.message.as_ref().unwrap().bytes("message", b"x"), b"msg:x");
    let feed = &config.feeds[0];
    assert_eq!(feed.source, Source::Every(std::time::Duration::from_secs(1)));
    assert_eq!(feed.message.bytes("n", b"0"), b"tick:0");
    assert_eq!(
        (feed.hub, feed.channel.as_str()),
        (socket.subscription.hub, socket.subscription.channels[0].fixed().unwrap())
    );
}

/// The table of the default file in which keys of `section` are documented. Routes have one for all their kinds.
fn area(section: &Section) -> &'static str {
    match section.title {
        "the file" => "",
        "rotate" => "log",
        "history" => "hub",
        "secret" => "key",
        "tls" => "server",
        title if title.ends_with("route") => "routes",
        title => title.trim_start_matches('[').split(['.', ']']).next().unwrap_or_default(),
    }
}

/// The keys that the default file documents, by table, each with the rest of its line: `key =`, `#key =` or `#   key =`, and those of
/// its inline tables.
fn documented() -> BTreeMap<&'static str, Vec<(&'static str, &'static str)>> {
    let mut found: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    let mut area = "";
    for line in config::DEFAULT.lines() {
        if let Some(header) = line.trim_start_matches('#').strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let name = header.split('.').next().unwrap_or_default();
            found.entry("").or_default().push((name, ""));
            area = if header.ends_with(".routes") { "routes" } else { name };
            if area == "routes" {
                found.entry(name).or_default().push((area, ""));
            }
            continue;
        }
        let rests = line.match_indices(['{', ',', '}']).map(|(at, _)| &line[at + 1..]);
        let assignments = std::iter::once(line).chain(rests).filter_map(|part| part.split_once(" = "));
        let assignments = assignments.map(|(key, rest)| (key.trim_matches(['#', ' ']), rest));
        let keys = assignments.filter(|(key, _)| key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        found.entry(area).or_default().extend(keys);
    }
    found
}

#[test]
fn the_default_file_documents_every_key_and_no_other() {
    let documented = documented();
    let mut missing = Vec::new();
    let mut known = BTreeSet::new();
    for section in keys::SECTIONS {
        for key in section.keys {
            known.insert((area(section), key.name));
            if *section == keys::SECRET {
                known.insert(("token", key.name));
            }
            if !documented.get(area(section)).is_some_and(|keys| keys.iter().any(|(name, _)| *name == key.name)) {
                let default = if let Fallback::Value(text) = key.fallback { text } else { "..." };
                missing.push(format!("{}: #{} = {default}", section.title, key.name));
            }
        }
    }
    assert!(known.len() > 40, "{known:?}");
    assert!(missing.is_empty(), "missing from config/pushd.toml:\n{}", missing.join("\n"));
    let all = documented.iter().flat_map(|(area, keys)| keys.iter().map(move |(name, _)| (*area, *name)));
    assert_eq!(all.filter(|key| !known.contains(key)).collect::<Vec<_>>(), [("", ""); 0], "documented, but not a key");
}

/// The default file shows each key that has a default as `#key = default` or `#   key = default`.
#[test]
fn the_default_file_shows_the_defaults_of_the_table() {
    let documented = documented();
    let mut compared = 0;
    for section in keys::SECTIONS {
        for key in section.keys {
            let Fallback::Value(default) = key.fallback else { continue };
            let shown = documented[area(section)].iter().any(|(name, rest)| {
                let end = rest.strip_prefix(default);
                *name == key.name && end.is_some_and(|end| !end.starts_with(|c: char| c.is_ascii_alphanumeric()))
            });
            assert!(shown, "config/pushd.toml does not show {}: {} = {default}", section.title, key.name);
            compared += 1;
        }
    }
    assert!(compared > 25, "{compared}");
}

/// The same configuration results if the `#` is removed from each line that shows a default.
#[test]
fn the_defaults_that_the_default_file_shows_change_nothing() {
    let has_default = |name: &str| {
        let mut keys = keys::SECTIONS.iter().flat_map(|section| section.keys).filter(|key| key.name == name);
        // The log has another default in the foreground: see below.
        // `headers` has one only in a hook, and the example is that of a server.
        name == "file" || name != "headers" && keys.any(|key| matches!(key.fallback, Fallback::Value(_)))
    };
    let shown: String = config::DEFAULT
        .lines()
        .take_while(|line| !line.starts_with("# ---- Feeds"))
        .chain(config::DEFAULT.lines().skip_while(|line| !line.starts_with("# ---- The process")))
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => {
                let key = rest.split(' ').next().unwrap_or_default();
                if has_default(key) { rest } else { line }
            }
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut all_set = config::parse(Path::new("pushd.toml"), &shown).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(shown.lines().filter(|line| line.contains(" = ")).count() > 25);
    // For a daemon, and only there, this file is the same as no file.
    let default_log = LogTarget::File(pushd::daemon::log::DEFAULT_FILE.into());
    assert_eq!(all_set.log.target.take(), Some(default_log));
    assert_eq!(all_set, config::parse(Path::new("pushd.toml"), config::DEFAULT).unwrap());
}
