//! Configuration files for single keys, used by tests that go through all keys.

#![allow(dead_code, reason = "each test uses a part of this file")]

use pushd::config::keys::{Key, Kind, Section};

/// A file with one entry in the table `section`. It is valid if the entry is.
pub fn around(section: &Section, entry: &str) -> String {
    let route = |rest: &str| {
        format!("[hub.h]\n[server.s]\nlisten = \"127.0.0.1:1\"\n[server.s.routes]\n\"/x\" = {{ {rest}{entry} }}\n")
    };
    let own = entry.starts_with(&format!("{} =", section.action().name));
    match section.title {
        "the file" => format!("{entry}\n"),
        "rotate" => format!("[log]\nrotate = {{ {entry} }}\n"),
        "a websocket route" if !own => route("websocket = \"h\", "),
        "an events route" if !own => route("events = \"h\", "),
        "a publish route" if !own => route("publish = \"h\", "),
        "a static route" if !own => route("static = \"www\", "),
        "a page route" if !own => route("page = \"live\", "),
        title if title.ends_with("route") && !own => route(&format!("{} = true, ", section.action().name)),
        title if title.ends_with("route") => route(""),
        title => format!("{}\n{entry}\n", title.replace("NAME", "n")),
    }
}

/// Two different values of a key in TOML syntax; `None` if it is a table, or has only one value.
pub fn two_values(key: &Key) -> Option<[String; 2]> {
    let quoted = |texts: [&str; 2]| texts.map(|text| format!("{text:?}"));
    Some(match key.kind {
        Kind::Duration { .. } | Kind::DurationOrOff { .. } => quoted(["11s", "12s"]),
        Kind::Size { .. } => quoted(["512KiB", "600KiB"]),
        Kind::Count { .. } | Kind::CountOrAuto(_) => [1, 2].map(|number| number.to_string()),
        Kind::Flag => [true, false].map(|flag| flag.to_string()),
        Kind::Mask => quoted(["027", "022"]),
        Kind::Word([one, other, ..]) => quoted([one, other]),
        Kind::Words([one, other, ..]) => [format!("[{one:?}]"), format!("[{one:?}, {other:?}]")],
        Kind::Text | Kind::Hub | Kind::Template | Kind::RunPath | Kind::LogTarget => quoted(["one", "other"]),
        Kind::Texts | Kind::Templates(_) => ["[\"one\"]", "[\"other\"]"].map(str::to_owned),
        Kind::Path => quoted(["one", "other"]),
        Kind::Program => ["[\"one\"]", "[\"one\", \"2\"]"].map(str::to_owned),
        Kind::Addresses => quoted(["127.0.0.1:11", "127.0.0.1:12"]),
        Kind::Hosts => ["\"any\"".to_owned(), "[\"www.example.com\"]".to_owned()],
        Kind::Origins => ["\"any\"".to_owned(), "[\"https://example.com\"]".to_owned()],
        Kind::On
        | Kind::Word(_)
        | Kind::Words(_)
        | Kind::Table(_)
        | Kind::TableOrOff(_)
        | Kind::Named(_)
        | Kind::Routes => return None,
    })
}

/// A valid file in which a key of `section` has this value.
pub fn with_value(section: &Section, key: &Key, value: &str) -> String {
    let mut tables = vec![
        ("[daemon]", String::new()),
        ("[log]", String::new()),
        ("rotate", String::new()),
        ("[server.NAME]", "listen = \"127.0.0.1:1\"\n".to_owned()),
        ("a websocket route", "websocket = \"one\"\n".to_owned()),
        ("an events route", "events = \"one\"\n".to_owned()),
        ("a publish route", "publish = \"one\"\nchannel = \"all\"\n".to_owned()),
        ("a static route", "static = \"one\"\n".to_owned()),
        ("[hub.NAME]", String::new()),
        ("[feed.NAME]", "hub = \"one\"\nchannel = \"all\"\ncommand = [\"ls\"]\n".to_owned()),
    ];
    let sources = ["every", "tail", "command"];
    let mut text = "[hub.one]\n[hub.other]\n".to_owned();
    for (title, entries) in &mut tables {
        if *title == section.title {
            let ours = |line: &&str| {
                let name = line.split(' ').next().unwrap_or_default();
                name == key.name || sources.contains(&name) && sources.contains(&key.name)
            };
            *entries = entries.lines().filter(|line| !ours(line)).map(|line| format!("{line}\n")).collect();
            entries.push_str(&format!("{} = {value}\n", key.name));
            if key.name == "every" {
                entries.push_str("message = \"x\"\n");
            }
        }
        let header = match *title {
            "rotate" => "[log.rotate]".to_owned(),
            "a websocket route" => "[server.n.routes.\"/ws\"]".to_owned(),
            "an events route" => "[server.n.routes.\"/events\"]".to_owned(),
            "a publish route" => "[server.n.routes.\"/publish\"]".to_owned(),
            "a static route" => "[server.n.routes.\"/files\"]".to_owned(),
            title => title.replace("NAME", "n"),
        };
        text.push_str(&format!("{header}\n{entries}"));
    }
    text
}
