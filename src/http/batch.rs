//! The body of a batch: messages as JSON objects, one on each line or in an array.
//!
//! All of it is parsed before anything is published: a body that is cut publishes nothing. An object that is JSON, but no message, does
//! not affect the others: its result is an error. Whether the body is an array shows in its first byte that is not white space, not
//! in `Content-Type`, because clients such as curl send types of their own.
//!
//! Pure: `super::publish_batch` publishes the entries.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::refusals::shortened;
use crate::config::limits::{BATCH_LINES_MAX, IDEMPOTENCY_KEY_BYTES_MAX};

/// The usual alphabet. Padding may be left out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A message of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'b> {
    /// Its channel as sent, not checked yet. `None`: that of the route.
    pub channel: Option<Cow<'b, str>>,
    /// The message.
    pub data: Data<'b>,
    /// Its `Idempotency-Key`.
    pub key: Option<Cow<'b, str>>,
}

/// The message of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data<'b> {
    /// Text, from `data`.
    Text(Cow<'b, str>),
    /// Bytes, from `base64`.
    Binary(Vec<u8>),
}

/// Why a body is not a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It has more than [`BATCH_LINES_MAX`] entries.
    TooMany,
    /// It is not JSON: a sentence with line and column.
    Syntax(String),
}

/// The entries of a body, in their order. An entry that is no message is the sentence that says why.
///
/// # Errors
/// The body is not JSON, or has too many entries.
pub fn parse(body: &[u8]) -> Result<Vec<Result<Entry<'_>, String>>, Unreadable> {
    let syntax = |error: serde_json::Error| Unreadable::Syntax(format!("the body cannot be parsed: {error}"));
    let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let mut json = serde_json::Deserializer::from_slice(body);
    let entries = if is_array {
        let Entries(entries) = Entries::deserialize(&mut json).map_err(syntax)?;
        json.end().map_err(syntax)?;
        entries
    } else {
        let lines = json.into_iter().take(BATCH_LINES_MAX + 1).map(|line| line.map(|Item(entry)| entry));
        lines.collect::<Result<_, _>>().map_err(syntax)?
    };
    if entries.len() > BATCH_LINES_MAX { Err(Unreadable::TooMany) } else { Ok(entries) }
}

/// Checks an `Idempotency-Key`.
///
/// # Errors
/// A sentence that says what a key is.
pub fn check_key(key: &str) -> Result<(), String> {
    let is_plain = key.bytes().all(|byte| byte == b'\t' || byte == b' ' || byte.is_ascii_graphic());
    if is_plain && (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) {
        return Ok(());
    }
    Err(format!("an Idempotency-Key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} characters of ASCII"))
}

/// Up to one entry more than a batch may have. Further ones are only checked to be JSON.
struct Entries<'b>(Vec<Result<Entry<'b>, String>>);

impl<'b> Deserialize<'b> for Entries<'b> {
    fn deserialize<D: Deserializer<'b>>(from: D) -> Result<Entries<'b>, D::Error> {
        struct Array;
        impl<'b> Visitor<'b> for Array {
            type Value = Entries<'b>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'b>>(self, mut array: A) -> Result<Entries<'b>, A::Error> {
                let mut entries = Vec::new();
                while entries.len() <= BATCH_LINES_MAX {
                    let Some(Item(entry)) = array.next_element()? else { return Ok(Entries(entries)) };
                    entries.push(entry);
                }
                while array.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Entries(entries))
            }
        }
        from.deserialize_seq(Array)
    }
}

/// One value of a batch: an entry, or why it is none.
struct Item<'b>(Result<Entry<'b>, String>);

impl<'b> Deserialize<'b> for Item<'b> {
    fn deserialize<D: Deserializer<'b>>(from: D) -> Result<Item<'b>, D::Error> {
        Ok(Item(match Value::deserialize(from)? {
            Value::Object(members) => members.into_entry(),
            other => Err(format!(
                "a message is an object such as {{\"channel\":\"news\",\"data\":\"…\"}}, and not {}",
                other.what()
            )),
        }))
    }
}

/// The members of an object.
#[derive(Default)]
struct Members<'b> {
    channel: Option<Value<'b>>,
    data: Option<Value<'b>>,
    base64: Option<Value<'b>>,
    key: Option<Value<'b>>,
    /// The first thing that is wrong with it.
    wrong: Option<String>,
}

impl<'b> Members<'b> {
    fn add(&mut self, name: &str, value: Value<'b>) {
        let member = match name {
            "channel" => &mut self.channel,
            "data" => &mut self.data,
            "base64" => &mut self.base64,
            "key" => &mut self.key,
            _ => {
                let why =
                    || format!("there is no member `{}`; there are channel, data, base64 and key", shortened(name));
                self.wrong.get_or_insert_with(why);
                return;
            }
        };
        if member.replace(value).is_some() {
            self.wrong.get_or_insert_with(|| format!("`{name}` occurs twice"));
        }
    }

    fn into_entry(self) -> Result<Entry<'b>, String> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let (channel, key) = (text("channel", self.channel)?, text("key", self.key)?);
        if let Some(key) = &key {
            check_key(key)?;
        }
        let data = match (text("data", self.data)?, text("base64", self.base64)?) {
            (Some(text), None) => Data::Text(text),
            (None, Some(digits)) => {
                let bytes = BASE64.decode(digits.as_bytes());
                Data::Binary(bytes.map_err(|error| format!("`base64` is not valid base64: {error}"))?)
            }
            (Some(_), Some(_)) => return Err("the message has both `data` and `base64`".to_owned()),
            (None, None) => return Err("the message has neither `data` nor `base64`".to_owned()),
        };
        Ok(Entry { channel, data, key })
    }
}

/// The text of a member. Null is as if it was left out.
fn text<'b>(name: &str, value: Option<Value<'b>>) -> Result<Option<Cow<'b, str>>, String> {
    match value {
        None | Some(Value::Other("null")) => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(other) if name == "data" => {
            Err(format!("`data` is a string, and not {}; send other JSON as text in a string", other.what()))
        }
        Some(other) => Err(format!("`{name}` is a string, and not {}", other.what())),
    }
}

/// A JSON value, as far as it matters here.
enum Value<'b> {
    Text(Cow<'b, str>),
    Object(Box<Members<'b>>),
    /// What it is.
    Other(&'static str),
}

impl Value<'_> {
    fn what(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Object(_) => "an object",
            Value::Other(what) => what,
        }
    }
}

impl<'b> Deserialize<'b> for Value<'b> {
    fn deserialize<D: Deserializer<'b>>(from: D) -> Result<Value<'b>, D::Error> {
        from.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'b> Visitor<'b> for AnyValue {
    type Value = Value<'b>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'b str) -> Result<Value<'b>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'b>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_map<A: MapAccess<'b>>(self, mut object: A) -> Result<Value<'b>, A::Error> {
        let mut members = Box::<Members<'_>>::default();
        while let Some(name) = object.next_key()? {
            if let Value::Text(name) = name {
                members.add(&name, object.next_value()?);
            }
        }
        Ok(Value::Object(members))
    }

    fn visit_seq<A: SeqAccess<'b>>(self, mut array: A) -> Result<Value<'b>, A::Error> {
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other("an array"))
    }

    fn visit_unit<E>(self) -> Result<Value<'b>, E> {
        Ok(Value::Other("null"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value<'b>, E> {
        Ok(Value::Other("a boolean"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value<'b>, E> {
        Ok(Value::Other("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value<'b>, E> {
        Ok(Value::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value<'b>, E> {
        Ok(Value::Other("a number"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn only(body: &str) -> Result<Entry<'_>, String> {
        let entries = parse(body.as_bytes()).unwrap_or_else(|why| panic!("{body}: {why:?}"));
        let [entry] = <[_; 1]>::try_from(entries).unwrap();
        entry
    }

    fn data(text: &str) -> Entry<'_> {
        Entry { channel: None, data: Data::Text(text.into()), key: None }
    }

    #[test]
    fn lines_and_arrays_have_the_same_entries() {
        let bodies = [
            "{\"data\":\"a\"}\n\n{\"data\":\"b\"}",
            " \r\n{\"data\":\"a\"}\r\n{\"data\":\"b\"}\r\n",
            " [{\"data\":\"a\"},\n{\"data\":\"b\"}]\n",
        ];
        for body in bodies {
            assert_eq!(parse(body.as_bytes()), Ok(vec![Ok(data("a")), Ok(data("b"))]), "{body}");
        }
        for body in ["", " \n", "[]", " [ ] "] {
            assert_eq!(parse(body.as_bytes()), Ok(vec![]), "{body}");
        }
    }

    #[test]
    fn an_entry_is_read() {
        let entry = only("{\"key\":\"k\",\"base64\":\"AP8B\",\"channel\":\"\\u00fc\"}").unwrap();
        let expected = Entry { channel: Some("ü".into()), data: Data::Binary(vec![0, 255, 1]), key: Some("k".into()) };
        assert_eq!(entry, expected);
        assert_eq!(only("{\"base64\":\"AA\"}").unwrap().data, Data::Binary(vec![0]), "padding may be left out");
        assert_eq!(only("{\"base64\":\"AA==\"}").unwrap().data, Data::Binary(vec![0]));
        assert_eq!(only("{\"channel\":null,\"data\":\"\",\"base64\":null,\"key\":null}"), Ok(data("")));
    }

    #[test]
    fn an_object_that_is_no_message_is_an_error_of_its_own() {
        let long = format!("{{\"data\":\"\",\"key\":\"{}\"}}", "k".repeat(256));
        for (body, part) in [
            ("{\"channel\":\"a\"}", "neither `data` nor `base64`"),
            ("{\"data\":\"a\",\"base64\":\"\"}", "both `data` and `base64`"),
            ("{\"data\":{\"a\":[1]}}", "`data` is a string, and not an object; send other JSON as text"),
            ("{\"data\":1.5}", "not a number"),
            ("{\"data\":[true,{}]}", "not an array"),
            ("{\"channel\":true,\"data\":\"\"}", "`channel` is a string, and not a boolean"),
            ("{\"base64\":\"*\"}", "not valid base64"),
            ("{\"base64\":\"_w==\"}", "not valid base64"),
            ("{\"data\":\"a\",\"data\":\"b\"}", "`data` occurs twice"),
            ("{\"data\":\"a\",\"chanel\":\"b\"}", "no member `chanel`"),
            ("{\"data\":\"a\",\"key\":\"\"}", "1 to 255 characters"),
            ("{\"data\":\"a\",\"key\":\"\\n\"}", "1 to 255 characters"),
            ("{\"data\":\"a\",\"key\":7}", "`key` is a string"),
            (&long, "1 to 255 characters"),
            ("7", "not a number"),
            ("\"text\"", "not a string"),
            ("null", "not null"),
            ("[[]]", "not an array"),
        ] {
            let why = only(body).unwrap_err();
            assert!(why.contains(part), "{body}: {why}");
        }
    }

    #[test]
    fn a_body_that_is_not_json_has_no_entries() {
        for (body, place) in [
            ("{\"data\":\"a\"}\n{\"data\":\"b", "line 2 column 10"),
            ("[{\"data\":\"a\"}", "line 1 column 13"),
            ("[{\"data\":\"a\"}] x", "line 1 column 16"),
            ("{\"data\":\"a\"},", "line 1 column 13"),
            ("channel=a", "line 1 column 1"),
            ("{\"data\":\"\\ud800\"}", "line 1"),
        ] {
            let Err(Unreadable::Syntax(why)) = parse(body.as_bytes()) else { panic!("{body}") };
            assert!(why.contains(place), "{body}: {why}");
        }
        assert!(matches!(parse(b"{\"data\":\"\xff\"}"), Err(Unreadable::Syntax(_))));
        assert!(matches!(parse("[".repeat(1 << 20).as_bytes()), Err(Unreadable::Syntax(_))));
    }

    #[test]
    fn the_number_of_entries_is_limited() {
        let one = "{\"data\":\"\"}";
        for (count, is_batch) in [(BATCH_LINES_MAX, true), (BATCH_LINES_MAX + 1, false), (BATCH_LINES_MAX + 9, false)] {
            let lines = vec![one; count].join("\n");
            for body in [format!("[{}]", lines.replace('\n', ",")), lines] {
                let parsed = parse(body.as_bytes());
                assert_eq!(parsed.as_ref().map(Vec::len), if is_batch { Ok(count) } else { Err(&Unreadable::TooMany) });
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(sent in proptest::collection::vec(
            (proptest::option::of(".*"), proptest::result::maybe_ok(".*", proptest::collection::vec(any::<u8>(), 0..9)), proptest::option::of("[ -~]{1,255}")),
            0..9,
        ), pretty in any::<bool>()) {
            let values: Vec<_> = sent.iter().map(|(channel, data, key)| match data {
                Ok(text) => json!({ "channel": channel, "data": text, "key": key }),
                Err(bytes) => json!({ "channel": channel, "base64": BASE64.encode(bytes), "key": key }),
            }).collect();
            let expected: Vec<_> = sent.iter().map(|(channel, data, key)| Ok(Entry {
                channel: channel.as_deref().map(Cow::Borrowed),
                data: match data {
                    Ok(text) => Data::Text(text.as_str().into()),
                    Err(bytes) => Data::Binary(bytes.clone()),
                },
                key: key.as_deref().map(Cow::Borrowed),
            })).collect();
            let array = if pretty { serde_json::to_string_pretty(&values) } else { serde_json::to_string(&values) }.unwrap();
            prop_assert_eq!(parse(array.as_bytes()), Ok(expected.clone()));
            let lines: String = values.iter().map(|value| format!("{value}\n")).collect();
            prop_assert_eq!(parse(lines.as_bytes()), Ok(expected.clone()));
            prop_assert!(parse(&array.as_bytes()[..array.len() - 1]).is_err());
            // Cut anywhere, it has entries from its beginning, or cannot be parsed.
            for end in 0..lines.len() {
                if let Ok(entries) = parse(&lines.as_bytes()[..end]) {
                    prop_assert!(expected.starts_with(&entries));
                }
            }
        }

        #[test]
        fn any_text_is_parsed_or_refused(body in "[\\[\\]{}\",:a-d0-9\\\\ \n]*") {
            if let Ok(entries) = parse(body.as_bytes()) {
                prop_assert!(entries.len() <= BATCH_LINES_MAX);
            }
        }
    }
}
