//! `config/pushd.schema.json`, which editors use to complete and check: it is generated from the table of keys, and agrees with the parser.
//!
//! After a change of the table update it with `PUSHD_BLESS=1 cargo test --test config_schema`.

#[path = "common/keys.rs"]
mod common_keys;
#[path = "common/schema.rs"]
mod schema;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common_keys::{around, two_values, with_value};
use pushd::config;
use pushd::config::keys::{self, Fallback, Key, Kind, Section};
use schema::{json, mistakes};
use serde_json::{Map, Value, json};
use toml::de::{DeTable, DeValue};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

fn made() -> Value {
    let mut definitions = Map::new();
    for section in keys::SECTIONS.into_iter().filter(|section| **section != keys::TOP) {
        definitions.insert(name(section), table(section));
    }
    let mut routes: Vec<_> = keys::ROUTES.iter().map(|section| reference(section)).collect();
    routes.sort_by_key(Value::to_string);
    definitions.insert("route".to_owned(), json!({ "oneOf": routes }));
    let Value::Object(mut whole) = table(&keys::TOP) else { unreachable!("a table is an object") };
    whole.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
    whole.insert("title".to_owned(), json!("pushd.toml"));
    whole.insert("description".to_owned(), json!("The configuration of pushd; pushd.toml(5) has the details."));
    whole.insert("definitions".to_owned(), Value::Object(definitions));
    Value::Object(whole)
}

/// The name of a kind of table in the schema: `hub`, `websocket_route`.
fn name(section: &Section) -> String {
    let bare = section.title.trim_start_matches('[').trim_end_matches(']');
    bare.trim_end_matches(".NAME").trim_start_matches("a ").trim_start_matches("an ").replace(' ', "_")
}

fn reference(section: &Section) -> Value {
    json!({ "$ref": format!("#/definitions/{}", name(section)) })
}

fn table(section: &Section) -> Value {
    let properties: Map<_, _> = section.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let mut table = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    let required: Vec<_> = section.keys.iter().filter(|key| key.fallback == Fallback::Required).collect();
    if !required.is_empty() {
        table["required"] = required.iter().map(|key| key.name).collect();
    }
    if *section == keys::PUBLISH {
        let batch = json!({ "properties": { "batch": { "const": true } }, "required": ["batch"] });
        table["anyOf"] = json!([{ "required": ["channel"] }, batch]);
    }
    if *section == keys::SERVER {
        table["anyOf"] = ["routes", "redirect"].map(|key| json!({ "required": [key] })).to_vec().into();
    }
    if *section == keys::HISTORY {
        table["anyOf"] = ["messages", "bytes", "age"].map(|limit| json!({ "required": [limit] })).to_vec().into();
    }
    if *section == keys::FEED {
        table["oneOf"] = ["every", "tail", "command"].map(|source| json!({ "required": [source] })).to_vec().into();
    }
    table
}

fn property(key: &Key) -> Value {
    let mut property = kind(key.kind);
    let unset = match key.fallback {
        Fallback::Nothing(meaning) => format!(" Not set: {meaning}."),
        _ => String::new(),
    };
    let bounds = key.kind.bounds().map(|bounds| format!(" Range: {bounds}.")).unwrap_or_default();
    property["description"] = json!(format!("{}{bounds}{unset}", key.about));
    if let Fallback::Value(text) = key.fallback {
        property["default"] = json(DeValue::parse(text).unwrap().get_ref());
    }
    property
}

fn kind(kind: Kind) -> Value {
    let duration = json!({ "type": "string", "pattern": schema::DURATION });
    let text = json!({ "type": "string", "minLength": 1 });
    let list = |item: &Value| json!({ "type": "array", "items": item, "minItems": 1 });
    let one_or_list = |item: Value| json!({ "anyOf": [list(&item), item] });
    match kind {
        Kind::Duration { .. } => duration,
        Kind::DurationOrOff { .. } => json!({ "anyOf": [duration, { "const": false }] }),
        Kind::DurationOrAlways { .. } => json!({ "anyOf": [duration, { "const": "always" }] }),
        Kind::Size { least, most } => {
            let mut number = json!({ "type": "integer", "minimum": least });
            if most != keys::UNBOUNDED {
                number["maximum"] = json!(most);
            }
            json!({ "anyOf": [{ "type": "string", "pattern": schema::SIZE }, number] })
        }
        Kind::Count { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::CountOrAuto(most) => {
            json!({ "anyOf": [{ "type": "integer", "minimum": 1, "maximum": most }, { "const": "auto" }] })
        }
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::On => json!({ "const": true }),
        Kind::Mask => {
            let number = json!({ "type": "integer", "minimum": 0, "maximum": 0o777 });
            json!({ "anyOf": [{ "type": "string", "pattern": schema::MASK }, number] })
        }
        Kind::Word(words) => json!({ "enum": words }),
        Kind::Words(words) => one_or_list(json!({ "enum": words })),
        Kind::Text
        | Kind::Hub
        | Kind::Hook
        | Kind::Tokens
        | Kind::Url
        | Kind::Template
        | Kind::Path
        | Kind::RunPath
        | Kind::LogTarget => text,
        Kind::Texts | Kind::Addresses | Kind::Keys | Kind::Networks => one_or_list(text),
        Kind::Certificates => one_or_list(reference(&keys::TLS)),
        Kind::Secrets => one_or_list(reference(&keys::SECRET)),
        Kind::Templates(most) | Kind::Patterns(most) => {
            let mut list = list(&text);
            list["maxItems"] = json!(most);
            json!({ "anyOf": [list, text] })
        }
        Kind::Program => list(&json!({ "type": "string" })),
        Kind::Hosts => json!({ "anyOf": [{ "enum": ["any"] }, list(&text)] }),
        Kind::Origins => json!({ "anyOf": [{ "enum": ["same", "any"] }, list(&text)] }),
        Kind::Fields | Kind::CacheRules | Kind::ErrorPages => json!({ "type": "object", "additionalProperties": text }),
        Kind::Table(section) => json!({ "allOf": [reference(section)] }),
        Kind::TableOrOff(section) => json!({ "anyOf": [reference(section), { "const": false }] }),
        Kind::Named(section) => json!({ "type": "object", "additionalProperties": reference(section) }),
        Kind::Routes => json!({ "type": "object", "additionalProperties": { "$ref": "#/definitions/route" } }),
    }
}

/// The mistakes in a file, by the schema.
fn schema_mistakes(text: &str) -> Vec<String> {
    let (table, errors) = DeTable::parse_recoverable(text);
    assert!(errors.is_empty(), "{text}: {errors:?}");
    let schema = made();
    mistakes(&schema, &schema, &json(&DeValue::Table(table.into_inner())), "")
}

#[test]
fn the_schema_is_generated_from_the_table_of_keys() {
    let file = root().join("pushd.schema.json");
    let made = serde_json::to_string_pretty(&made()).unwrap() + "\n";
    if std::env::var_os("PUSHD_BLESS").is_some() {
        std::fs::write(&file, &made).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&file).unwrap_or_default(),
        made,
        "update it: PUSHD_BLESS=1 cargo test --test config_schema"
    );
    let named = config::DEFAULT.lines().next().and_then(|line| line.strip_prefix("#:schema ")).unwrap();
    assert_eq!(root().join(named).canonicalize().unwrap(), file.canonicalize().unwrap());
}

#[test]
fn every_shipped_file_is_valid() {
    let folders = [root(), root().join("examples")].into_iter().flat_map(|folder| folder.read_dir().unwrap());
    let files = folders.map(|file| file.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    assert_eq!(files.len(), 7, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(schema_mistakes(&text), [""; 0], "{}", file.display());
    }
}

/// The schema takes each value of a key that the parser takes. Neither takes an unknown key or a value that no key takes.
#[test]
fn schema_and_parser_agree_on_every_key() {
    let mut agreed = 0;
    for section in keys::SECTIONS {
        assert!(!schema_mistakes(&around(section, "nonsense = 1")).is_empty(), "{}", section.title);
        for key in section.keys {
            assert!(
                !schema_mistakes(&around(section, &format!("{} = 1979-05-27", key.name))).is_empty(),
                "{}",
                key.name
            );
            for value in two_values(key).into_iter().flatten() {
                let text = with_value(section, key, &value);
                config::parse(Path::new("/x.toml"), &text).unwrap_or_else(|errors| panic!("{text}\n{errors}"));
                assert_eq!(schema_mistakes(&text), [""; 0], "{text}");
                agreed += 1;
            }
        }
    }
    assert!(agreed > 90, "{agreed}");
}

/// Whether the parser refuses this value of the key because it is out of range. (Another key may forbid it.)
fn is_out_of_range(section: &Section, key: &Key, value: &str) -> bool {
    let parsed = config::parse(Path::new("/x.toml"), &with_value(section, key, value));
    parsed.is_err_and(|errors| errors.to_string().contains(&format!("`{}` is out of range", key.name)))
}

#[test]
fn the_parser_takes_the_words_and_bounds_of_the_table() {
    let parse = |section: &Section, key: &Key, value: &str| {
        config::parse(Path::new("/x.toml"), &with_value(section, key, value)).map_err(|errors| errors.to_string())
    };
    let (mut words_compared, mut bounds_compared) = (0, 0);
    for (section, key) in keys::SECTIONS.iter().flat_map(|section| section.keys.iter().map(move |key| (section, key))) {
        // Just below, at both ends, just above.
        let values: [Option<String>; 4] = match key.kind {
            Kind::Word(words) if section.action() != key => {
                let listed: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
                let (last, others) = listed.split_last().unwrap();
                let refused = parse(section, key, "\"nonsense\"").unwrap_err();
                let or = if others.is_empty() { "" } else { " or " };
                assert!(refused.contains(&format!("{}{or}{last}", others.join(", "))), "{refused}");
                words_compared += 1;
                continue;
            }
            Kind::Words(words) => {
                parse(section, key, &format!("{words:?}")).unwrap();
                parse(section, key, "[\"nonsense\"]").unwrap_err();
                words_compared += 1;
                continue;
            }
            Kind::Count { least, most } | Kind::Size { least, most } => {
                [least.checked_sub(1), Some(least), Some(most), most.checked_add(1)].map(|n| Some(n?.to_string()))
            }
            Kind::CountOrAuto(most) => {
                parse(section, key, "\"auto\"").unwrap();
                [0, 1, most, most + 1].map(|number| Some(number.to_string()))
            }
            Kind::Duration { least, most }
            | Kind::DurationOrOff { least, most }
            | Kind::DurationOrAlways { least, most } => {
                let step = Duration::from_millis(1);
                let values = [least.checked_sub(step), Some(least), Some(most), Some(most + step)];
                values.map(|value| Some(format!("\"{}ms\"", value?.as_millis())))
            }
            _ => continue,
        };
        let outcomes = values.map(|value| value.map(|value| is_out_of_range(section, key, &value)));
        let expected = [Some(true), Some(false), Some(false), Some(true)];
        let compared = outcomes.iter().zip(expected).filter(|(outcome, _)| outcome.is_some());
        for (outcome, expected) in compared {
            assert_eq!(*outcome, expected, "{}: {outcomes:?}", key.name);
        }
        bounds_compared += 1;
    }
    assert!(words_compared > 6 && bounds_compared > 18, "{words_compared} {bounds_compared}");
}
