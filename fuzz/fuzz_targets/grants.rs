//! What a stranger shows to be let in: as a token, and as the field Authorization. Nothing panics, no token is good that was not signed with
//! the secret, and no field opens a route but one with the key itself.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use libfuzzer_sys::fuzz_target;
use pushd::config::{self, AccessKey, Secret, TokenKeys, Tokens};
use pushd::grant::{Keyring, Verifier};

/// The key, and the secret of the tokens.
const SECRET: &[u8] = b"a-secret-that-no-input-contains-0123456789";

static VERIFIERS: LazyLock<Vec<Verifier>> = LazyLock::new(|| {
    let text = "[server.s]\nlisten = \"127.0.0.1:1\"\nroutes.\"/\" = { websocket = \"h\", tokens = \"t\" }\n[hub.h]\n\
                [token.t]\nalgorithm = \"ALGORITHM\"\nsecret = { file = \"x\" }\nissuer = \"i\"\naudience = \"a\"\n";
    let tokens = ["HS256", "HS384", "HS512"].map(|algorithm| {
        let config = config::parse(Path::new("/x.toml"), &text.replace("ALGORITHM", algorithm)).unwrap();
        let tokens = config.servers[0].routes[0].action.tokens().unwrap();
        Tokens { keys: TokenKeys::Secrets(vec![Secret::new(SECRET)]), ..tokens.clone() }
    });
    tokens.iter().map(Verifier::new).collect()
});

static RING: LazyLock<Keyring> = LazyLock::new(|| {
    let key = AccessKey { name: "k".into(), secrets: vec![Secret::new(SECRET)], publish: None, addresses: None };
    Keyring::new(&[key])
});

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        for verifier in VERIFIERS.iter() {
            let bad = verifier.verify(text).expect_err("nobody but the backend signs tokens");
            assert!(bad.0.is_ascii() && !bad.0.contains('"'), "it is part of a header field");
        }
    }
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let headers: HeaderMap = [(AUTHORIZATION, value)].into_iter().collect();
    let is_key = data.len() > 7 && data[..7].eq_ignore_ascii_case(b"bearer ") && data[7..].trim_ascii() == SECRET;
    assert_eq!(RING.find(&headers, None).is_ok(), is_key);
});
