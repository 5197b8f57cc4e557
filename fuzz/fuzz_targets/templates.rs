//! Channel names that are filled from requests: a template that is one hole takes the value unchanged, and in other templates no
//! value can make the name of another channel.
//!
//! The input, by lines: a template, then the values of its holes for one request, then those for another, one in each line.

#![no_main]

use std::borrow::Cow;
use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use pushd::config::Template;

type Values<'v> = HashMap<String, &'v str>;

fn value<'v>(values: &Values<'v>, name: &str) -> Option<Cow<'v, str>> {
    values.get(name).copied().map(Cow::Borrowed)
}

/// Whether every part between slashes has at most one hole. Then different values give different names.
fn has_separate_holes(text: &str) -> bool {
    let plain = !text.contains("{{") && !text.contains("}}") && !text.contains('=') && !text.contains('%');
    plain && text.split('/').all(|stretch| stretch.matches('{').count() <= 1)
}

fuzz_target!(|text: &str| {
    let mut lines = text.split('\n');
    let source = lines.next().unwrap_or_default();
    let Ok(template) = Template::parse(source) else { return };
    let mut names: Vec<String> = template.names().map(str::to_owned).collect();
    names.sort();
    names.dedup();
    let mut take = || names.iter().cloned().zip(lines.by_ref().take(names.len()).collect::<Vec<_>>()).collect();
    let (one, other): (Values<'_>, Values<'_>) = (take(), take());

    let slashes = |text: &str| text.matches('/').count();
    let nothing = template.channel(|_| Some("".into())).expect("every hole is filled");
    for values in [&one, &other] {
        let channel = template.channel(|name| value(values, name));
        let message = template.text(|name| value(values, name));
        assert_eq!(channel.is_err(), message.is_err());
        let needed = template.needs().find(|name| !values.contains_key(*name));
        assert_eq!(channel.as_ref().err().map(|missing| missing.0.as_str()), needed);
        let Ok(channel) = channel else { continue };
        if template.is_whole() {
            assert_eq!(Ok(&channel), message.as_ref(), "the value is taken unchanged");
        } else {
            assert_eq!(slashes(&channel), slashes(&nothing), "a value has added a separator in {channel:?}");
        }
        assert!(template.fixed().is_none_or(|fixed| fixed == channel));
        let bytes = template.bytes("name", b"value");
        assert!(String::from_utf8(bytes).is_ok());
    }
    if has_separate_holes(source)
        && let (Ok(a), Ok(b)) =
            (template.channel(|name| value(&one, name)), template.channel(|name| value(&other, name)))
    {
        assert_eq!(a == b, one == other, "{source:?} filled with {one:?} and with {other:?}");
    }
});
