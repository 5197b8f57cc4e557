//! Configuration files for single keys, used by tests that go through all keys.

#![allow(dead_code, reason = "each test uses a part of this file")]

use pushd::config::keys::{self, Fallback, Key, Kind, Section};

/// The keys of which a feed has exactly one.
const SOURCES: [&str; 3] = ["every", "tail", "command"];

/// The keys of a hub that some kinds of routes need.
const ABLE: &str = "history = { messages = 1 }\npresence = true\n";

/// The keys, tokens and hooks that routes may name.
const KEYS: &str = "[token.one]\nalgorithm = \"HS256\"\nsecret = { file = \"one\" }\n[token.other]\nalgorithm = \"HS256\"\nsecret = { file = \"one\" }\n[key.one]\nsecret = { file = \"one\" }\n[key.other]\nsecret = { file = \"other\" }\n\
    [hook.one]\nconnect = \"http://localhost/\"\npublish = \"http://localhost/\"\n\
    [hook.other]\nconnect = \"http://localhost/\"\npublish = \"http://localhost/\"\n";

/// A file with one entry in the table `section`. It is valid if the entry is.
pub fn around(section: &Section, entry: &str) -> String {
    match section.title {
        "the file" => format!("{entry}\n"),
        "rotate" => format!("[log]\nrotate = {{ {entry} }}\n"),
        "history" => format!("[hub.n]\nhistory = {{ {entry} }}\n"),
        "secret" => format!("[key.n]\nsecret = {{ {entry} }}\n"),
        "tls" => format!("[server.n]\ntls = {{ {entry} }}\n"),
        title if title.ends_with("route") => {
            let others = required(section, entry.split(' ').next().unwrap_or_default());
            let server = "[server.s]\nlisten = \"127.0.0.1:1\"\n";
            format!("[hub.one]\n{ABLE}{KEYS}{server}[server.s.routes.\"/x\"]\n{others}{entry}\n")
        }
        title => format!("{}\n{entry}\n", title.replace("NAME", "n")),
    }
}

/// The required keys of `section` except `except`, one on each line.
fn required(section: &Section, except: &str) -> String {
    let keys = section.keys.iter().filter(|key| key.fallback == Fallback::Required && key.name != except);
    let lines = keys.filter_map(|key| Some(format!("{} = {}\n", key.name, one_value(key)?)));
    lines.collect()
}

/// What a table needs besides its required keys, where `key` is set.
fn needed(section: &Section, key: &str) -> String {
    let entry = match (section.title, key) {
        ("history", "") => "messages = 1",
        ("a publish route", _) if key != "channel" => "channel = \"one\"",
        ("a websocket route", "subscribe") => "envelope = true",
        ("[hub.NAME]", "presence_channel") => "presence = true",
        ("[token.NAME]", "secret") => "",
        ("[token.NAME]", "algorithm") => "secret = { file = \"one\" }",
        ("[token.NAME]", "public_key" | "jwks") => "",
        ("[token.NAME]", _) => "secret = { file = \"one\" }",
        _ => return String::new(),
    };
    format!("{entry}\n")
}

/// A value of a key in TOML; `None` if it is a table.
fn one_value(key: &Key) -> Option<String> {
    match key.kind {
        Kind::On => Some("true".to_owned()),
        Kind::Word(words) => Some(format!("{:?}", words[0])),
        _ => two_values(key).map(|[one, _]| one),
    }
}

/// Two different values of a key in TOML; `None` if it is a table, or has only one value.
pub fn two_values(key: &Key) -> Option<[String; 2]> {
    let quoted = |texts: [&str; 2]| texts.map(|text| format!("{text:?}"));
    Some(match key.kind {
        Kind::Duration { .. } | Kind::DurationOrOff { .. } => quoted(["11s", "12s"]),
        Kind::DurationOrAlways { .. } => quoted(["1s", "always"]),
        Kind::Size { .. } => quoted(["512KiB", "600KiB"]),
        Kind::Count { least, .. } => [least.max(1), least.max(1) + 1].map(|number| number.to_string()),
        Kind::CountOrAuto(_) => [1, 2].map(|number| number.to_string()),
        Kind::Template if key.name == "redirect" => quoted(["/one", "/other"]),
        Kind::Flag => [true, false].map(|flag| flag.to_string()),
        Kind::Mask => quoted(["027", "022"]),
        Kind::Word([one, other, ..]) => quoted([one, other]),
        Kind::Words([one, other, ..]) => [format!("[{one:?}]"), format!("[{one:?}, {other:?}]")],
        Kind::Text if key.name == "channels" => quoted(["token.one", "token.other"]),
        Kind::Text | Kind::Hub | Kind::Hook | Kind::Template | Kind::Path | Kind::RunPath | Kind::LogTarget => {
            quoted(["one", "other"])
        }
        Kind::Texts | Kind::Templates(_) | Kind::Patterns(_) => ["[\"one\"]", "[\"other\"]"].map(str::to_owned),
        Kind::Fields => ["{ \"X-One\" = \"1\" }", "{ \"X-One\" = \"2\" }"].map(str::to_owned),
        Kind::CacheRules => ["{ \"*\" = \"1h\" }", "{ \"*\" = \"never\" }"].map(str::to_owned),
        Kind::ErrorPages => ["{ 404 = \"one\" }", "{ 404 = \"other\" }"].map(str::to_owned),
        Kind::Keys => ["[\"one\"]", "[\"other\"]"].map(str::to_owned),
        Kind::Tokens => quoted(["one", "other"]),
        Kind::Url => quoted(["http://localhost/1", "https://localhost/2"]),
        Kind::Networks => quoted(["10.0.0.0/8", "::1"]),
        Kind::Certificates => ["one", "other"].map(|file| format!("{{ certificate = {file:?}, key = \"key\" }}")),
        Kind::Secrets => ["one", "other"].map(|file| format!("{{ file = {file:?} }}")),
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
    let mut text = format!("[hub.one]\n{ABLE}[hub.other]\n{ABLE}{KEYS}");
    for table in keys::SECTIONS.into_iter().filter(|table| **table != keys::TOP) {
        let is_ours = table == section;
        if *table == keys::SECRET {
            if is_ours {
                text.push_str(&format!("[key.secret]\nsecret = {{ {} = {value} }}\n", key.name));
            }
            continue;
        }
        if *table == keys::TLS {
            if is_ours {
                let others = required(table, key.name).replace('\n', ", ");
                text.push_str(&format!(
                    "[server.tls]\nlisten = \"127.0.0.1:9\"\nredirect = \"https\"\ntls = {{ {others}{} = {value} }}\n",
                    key.name
                ));
            }
            continue;
        }
        text.push_str(&match table.title {
            "rotate" => "[log.rotate]\n".to_owned(),
            "history" => "[hub.n.history]\n".to_owned(),
            title if title.ends_with("route") => format!("[server.n.routes.\"/{}\"]\n", table.action().name),
            title => format!("{}\n", title.replace("NAME", "n")),
        });
        text.push_str(&required(table, if is_ours { key.name } else { "" }));
        if is_ours && *table == keys::TOKEN && ["public_key", "jwks"].contains(&key.name) {
            let start = text.rfind("HS256").unwrap();
            text.replace_range(start..start + 5, "RS256");
        }
        text.push_str(&needed(table, if is_ours { key.name } else { "" }));
        if *table == keys::FEED {
            text.push_str(match key.name {
                "every" if is_ours => "message = \"x\"\n",
                name if is_ours && SOURCES.contains(&name) => "",
                _ => "command = [\"ls\"]\n",
            });
        }
        if is_ours {
            text.push_str(&format!("{} = {value}\n", key.name));
        }
    }
    text
}
