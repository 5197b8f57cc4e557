//! Any text of a client on a route that lets clients subscribe: it is a request that the route allows, one that is refused with an
//! answer in JSON, or a message like others.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pushd::config::limits::CHANNEL_BYTES_MAX;
use pushd::config::{self, Action, ChannelPattern};
use pushd::hub::Kind;
use pushd::session::speech::{Ask, Plain, Speech};

const FILE: &str = "[server.s]\nlisten = \"127.0.0.1:0\"\n[server.s.routes]\n\
    \"/\" = { websocket = \"h\", envelope = true, subscribe = [\"news/*\", \"user/*/x/**\", \"all\"] }\n[hub.h]\n";

static ROUTE: LazyLock<(Speech, Vec<ChannelPattern>)> = LazyLock::new(|| {
    let config = config::parse(Path::new("x.toml"), FILE).expect("the file is right");
    let Action::WebSocket(route) = &config.servers[0].routes[0].action else { panic!("it has one route") };
    (Speech::Plain(Plain::from(route)), route.subscribe.clone())
});

fuzz_target!(|text: &str| {
    let (speech, patterns) = &*ROUTE;
    match speech.hear(Kind::Text, text.as_bytes()) {
        Ask::Subscribe(selector, _) => {
            assert!(selector.text.len() <= CHANNEL_BYTES_MAX && !selector.text.contains(char::is_control));
            assert!(speech.allows(&selector));
            let asked = ChannelPattern::parse(&selector.text).expect("it was parsed before");
            assert_eq!(asked.is_wild(), selector.is_pattern);
            assert!(patterns.iter().any(|pattern| pattern.covers(&asked)));
            if !selector.is_pattern {
                assert!(patterns.iter().any(|pattern| pattern.matches(&selector.text)));
            }
        }
        Ask::Unsubscribe(selector) => assert!(selector.text.len() <= CHANNEL_BYTES_MAX),
        Ask::Reply(answer) => {
            let answer = std::str::from_utf8(&answer).expect("an answer is text");
            assert!(answer.starts_with("{\"error\":\"") && answer.ends_with("\"}"), "{answer}");
        }
        Ask::Nothing => {}
        Ask::Publish(_) => panic!("the route publishes nothing"),
    }
});
