//! A validator for the part of JSON Schema that the configuration's schema uses. It panics on an unknown keyword.

use serde_json::{Map, Value};
use toml::de::DeValue;

/// A duration, as in `config::units`.
pub const DURATION: &str = "^[0-9]+ *(ms|s|m|h|d)$";
/// A size.
pub const SIZE: &str = "^[0-9]+ *(B|KiB|MiB|GiB|kB|KB|MB|GB)?$";
/// A file mode creation mask.
pub const MASK: &str = "^(0o)?[0-7]+$";

/// All errors in `value` (at path `at`) according to `schema`, which is a part of `whole`.
pub fn mistakes(whole: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    let tried = |schemas: &Value| {
        let tries = schemas.as_array().unwrap().iter().map(|schema| mistakes(whole, schema, value, at));
        tries.collect::<Vec<_>>()
    };
    for (keyword, by) in schema.as_object().unwrap() {
        let good = match keyword.as_str() {
            "$schema" | "title" | "description" | "default" | "definitions" => true,
            "$ref" => {
                let name = by.as_str().unwrap().strip_prefix("#/definitions/").unwrap();
                found.extend(mistakes(whole, &whole["definitions"][name], value, at));
                true
            }
            "allOf" => {
                found.extend(tried(by).concat());
                true
            }
            "anyOf" => tried(by).iter().any(Vec::is_empty),
            "oneOf" => tried(by).iter().filter(|tried| tried.is_empty()).count() == 1,
            "type" => match by.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "integer" => value.is_i64() || value.is_u64(),
                "boolean" => value.is_boolean(),
                other => panic!("type {other}"),
            },
            "const" => value == by,
            "enum" => by.as_array().unwrap().contains(value),
            "pattern" => value.as_str().is_none_or(|text| fits(by.as_str().unwrap(), text)),
            "minLength" => value.as_str().is_none_or(|text| text.chars().count() as u64 >= by.as_u64().unwrap()),
            "minimum" => value.as_i64().is_none_or(|number| number >= by.as_i64().unwrap()),
            "maximum" => value.as_i64().is_none_or(|number| number <= by.as_i64().unwrap()),
            "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= by.as_u64().unwrap()),
            "maxItems" => value.as_array().is_none_or(|items| items.len() as u64 <= by.as_u64().unwrap()),
            "items" => {
                let items = value.as_array().into_iter().flatten();
                found.extend(items.flat_map(|item| mistakes(whole, by, item, &format!("{at}[]"))));
                true
            }
            "required" => {
                let has = |key: &Value| value.get(key.as_str().unwrap()).is_some();
                !value.is_object() || by.as_array().unwrap().iter().all(has)
            }
            "properties" | "additionalProperties" => {
                let members = value.as_object().into_iter().flatten();
                for (key, member) in members {
                    let known = schema.get("properties").and_then(|properties| properties.get(key));
                    let at = format!("{at}.{key}");
                    match (keyword.as_str(), known) {
                        ("properties", Some(known)) => found.extend(mistakes(whole, known, member, &at)),
                        ("properties", None) | (_, Some(_)) => {}
                        (_, None) if by.is_object() => found.extend(mistakes(whole, by, member, &at)),
                        _ => found.push(format!("{at} is unknown")),
                    }
                }
                true
            }
            other => panic!("the keyword {other}"),
        };
        if !good {
            found.push(format!("{at}: {keyword} {by}"));
        }
    }
    found
}

fn fits(pattern: &str, text: &str) -> bool {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = text[end..].trim_start_matches(' ');
    match pattern {
        DURATION => end > 0 && ["ms", "s", "m", "h", "d"].contains(&unit),
        SIZE => end > 0 && ["", "B", "KiB", "MiB", "GiB", "kB", "KB", "MB", "GB"].contains(&unit),
        MASK => text.trim_start_matches("0o").bytes().all(|b| matches!(b, b'0'..=b'7')),
        other => panic!("the pattern {other}"),
    }
}

/// A TOML value as JSON. A date becomes null, which matches no schema either.
pub fn json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).unwrap().into(),
        DeValue::Float(number) => number.as_str().parse::<f64>().unwrap().into(),
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Datetime(_) => Value::Null,
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(entries) => {
            let members = entries.iter().map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref())));
            Value::Object(members.collect::<Map<_, _>>())
        }
    }
}
