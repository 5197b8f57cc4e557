//! Any bytes as the answer of a backend: it is read, or refused with a sentence, and what is read keeps the limits. Any text as a
//! message: the question stays one JSON object, whose fields the message cannot change.

#![no_main]

use bytes::Bytes;
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use pushd::config::limits::{CHANNEL_BYTES_MAX, HOOK_CHANNELS_MAX, HOOK_REASON_CHARS_MAX, IDENTITY_BYTES_MAX};
use pushd::hook::answer::{self, Refusal, Said};
use pushd::hook::question::{About, Data, Question};

fn check(refusal: &Refusal) {
    assert!((1..=HOOK_REASON_CHARS_MAX).contains(&refusal.reason.chars().count()));
    assert!(!refusal.reason.contains(char::is_control));
}

fuzz_target!(|bytes: &[u8]| {
    match answer::connect(bytes) {
        Ok(Said::Yes(connected)) => {
            assert!(connected.channels.len() <= HOOK_CHANNELS_MAX);
            let names = connected.channels.iter().map(|name| (name, CHANNEL_BYTES_MAX));
            for (name, most) in names.chain(connected.user.iter().map(|user| (user, IDENTITY_BYTES_MAX))) {
                assert!((1..=most).contains(&name.len()) && !name.contains(char::is_control));
            }
        }
        Ok(Said::No(refusal)) => check(&refusal),
        Err(why) => assert!(!why.is_empty()),
    }
    match answer::publish(bytes) {
        Ok(Said::No(refusal)) => check(&refusal),
        Ok(Said::Yes(_)) => {}
        Err(why) => assert!(!why.is_empty()),
    }
    let bytes = Bytes::copy_from_slice(bytes);
    let about = || About { user: "alice".to_owned(), ..About::default() };
    for data in [Data::Text(bytes.clone()), Data::Binary(bytes.clone())] {
        let question = Question { fields: HeaderMap::new(), about: about(), data };
        let Ok(body) = question.body() else {
            assert!(std::str::from_utf8(&bytes).is_err());
            continue;
        };
        // A number may be too large for a value, and is valid JSON.
        if let Ok(value) = serde_json::from_slice::<serde_json::Value>(&body) {
            assert_eq!(value["user"], "alice");
        }
    }
});
