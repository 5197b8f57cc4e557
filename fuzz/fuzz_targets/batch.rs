//! Any bytes as the body of a batch: it is refused, or has as many results as values, and an entry that is read is also read from what is
//! written of it, in lines and in an array. What is cut off the end of lines never changes the entries before.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pushd::config::limits::{BATCH_LINES_MAX, IDEMPOTENCY_KEY_BYTES_MAX};
use pushd::http::batch::{Data, Entry, Unreadable, parse};
use serde_json::{Value, json};

/// Base64, written a second time, so that both do not share a mistake.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let is_data = digit <= chunk.len();
            text.push(if is_data { char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]) } else { '=' });
        }
    }
    text
}

fn written(entry: &Entry<'_>) -> Value {
    let mut object = match &entry.data {
        Data::Text(text) => json!({ "data": text }),
        Data::Binary(bytes) => json!({ "base64": base64(bytes) }),
    };
    for (name, value) in [("channel", &entry.channel), ("key", &entry.key)] {
        if let Some(value) = value {
            object[name] = value.as_ref().into();
        }
    }
    object
}

/// How many values a body has, according to a parser that keeps all of them.
fn values(body: &[u8]) -> Option<usize> {
    let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    if is_array {
        return serde_json::from_slice::<Vec<Value>>(body).ok().map(|values| values.len());
    }
    let stream = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
    stream.collect::<Result<Vec<_>, _>>().ok().map(|values| values.len())
}

fuzz_target!(|body: &[u8]| {
    let entries = match parse(body) {
        Ok(entries) => entries,
        Err(Unreadable::TooMany) => return,
        Err(Unreadable::Syntax(why)) => {
            assert!(why.contains(" at line ") && why.contains(" column "), "{why}");
            return;
        }
    };
    assert!(entries.len() <= BATCH_LINES_MAX);
    // A number may be too large for a value, and is valid JSON.
    if let Some(values) = values(body) {
        assert_eq!(entries.len(), values);
    }
    let good: Vec<_> = entries.into_iter().filter_map(Result::ok).collect();
    for entry in &good {
        assert!(
            entry.key.as_ref().is_none_or(|key| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) && key.is_ascii())
        );
    }
    let expected: Vec<_> = good.iter().cloned().map(Ok).collect();
    let objects: Vec<Value> = good.iter().map(written).collect();
    assert_eq!(parse(serde_json::to_string_pretty(&objects).unwrap().as_bytes()), Ok(expected.clone()));
    let lines: String = objects.iter().map(|object| format!("{object}\n")).collect();
    assert_eq!(parse(lines.as_bytes()), Ok(expected.clone()));
    let half = &lines.as_bytes()[..lines.len() / 2];
    if let Ok(entries) = parse(half) {
        assert!(expected.starts_with(&entries));
    }
});
