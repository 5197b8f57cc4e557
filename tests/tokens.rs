//! Tokens: which are accepted, what they open, and when their sessions end.

mod common;

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use common::events::Events;
use common::http::{Answer, ask, get};
use common::service::Service;
use common::wire::Wire;
use common::ws::{Ws, handshake};
use common::{Pushd, Start, run};

const SECRET: &str = "the-secret-that-signs-tokens-for-tests";
const NEXT: &str = "the-secret-that-comes-after-the-first-one";

const CONFIG: &str = r#"
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/ws" = { websocket = "push", channels = ["user/{token.sub}", "all"], tokens = "site" }
"/events" = { events = "push", channels = ["user/{token.sub}"], tokens = "site" }
"/poll" = { poll = "push", channels = ["user/{token.sub}"], tokens = "site" }
"/patient" = { websocket = "push", channels = ["user/{token.sub}"], tokens = "patient" }
"/chosen/{channel}" = { websocket = "push", channels = ["{channel}"], tokens = "limited", envelope = true, subscribe = ["**"] }
"/mine" = { publish = "push", channel = "user/{token.sub}", tokens = "site" }
"/batch" = { publish = "push", batch = true, tokens = "limited" }
"/mine/batch" = { publish = "push", channel = "user/{token.sub}", batch = true, tokens = "site" }
"/room" = { websocket = "push", channels = ["one"], to = "{room}", on_message = "broadcast", tokens = "limited" }
"/publish/{channel}" = { publish = "push", channel = "{channel}" }
"/who/{channel}" = { presence = "push", channel = "{channel}" }
[hub.push]
history = { messages = 10 }
presence = true
[token.site]
algorithm = "HS256"
secret = SECRETS
cookie = "push_token"
[token.patient]
algorithm = "HS256"
secret = { file = "one.key" }
leeway = "1h"
[token.limited]
algorithm = "HS256"
secret = { file = "one.key" }
channels = "token.channels"
"#;

fn config(secrets: &str) -> String {
    CONFIG.replace("SECRETS", secrets)
}

fn start() -> Pushd {
    let start = Start::new(&config("{ file = \"one.key\" }")).arguments(&["--debug"]);
    fs::write(start.path().join("one.key"), SECRET).unwrap();
    fs::write(start.path().join("next.key"), NEXT).unwrap();
    start.run()
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// A token with these claims, signed with `secret`.
fn signed(secret: &str, claims: &Value) -> String {
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

fn token(claims: Value) -> String {
    let mut claims = claims;
    claims.as_object_mut().unwrap().entry("exp").or_insert(json!(now() + 3600));
    signed(SECRET, &claims)
}

fn user(sub: &str) -> String {
    token(json!({ "sub": sub }))
}

/// The answer to a handshake with these header fields.
fn upgrade(address: SocketAddr, target: &str, fields: &[&str]) -> Answer {
    let mut wire = Wire::connect(address);
    wire.send(&handshake(address, target, fields));
    let mut answer = Answer::read_head(&mut wire);
    if answer.status != 101 {
        answer.read_body(&mut wire);
    }
    answer
}

fn publish(address: SocketAddr, channel: &str, text: &str) -> Value {
    let answer = ask(
        address,
        "POST",
        &format!("/publish/{}", channel.replace('%', "%25").replace('/', "%2F")),
        &[],
        text.as_bytes(),
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["subscribers"].clone()
}

#[test]
fn a_token_comes_in_a_field_an_argument_or_a_cookie() {
    let pushd = start();
    let address = pushd.address();
    let seven = user("7");
    let mut by_argument = Ws::open(address, &format!("/ws?token={seven}&token.sub=8&sub=8"));
    let (answer, mut by_field) = Ws::ask(address, "/ws?token.sub=8", &[&format!("Authorization: Bearer {seven}")]);
    assert_eq!(answer.status, 101);
    let (answer, mut by_cookie) = Ws::ask(address, "/ws", &[&format!("Cookie: a=b; push_token={seven}; c=d")]);
    assert_eq!(answer.status, 101);
    let mut events = Events::open(address, &format!("/events?token={seven}"));
    events.expect_id();
    assert_eq!(publish(address, "user/8", "for another"), 0);
    assert_eq!(publish(address, "user/7", "for seven"), 4);
    for client in [&mut by_argument, &mut by_field, &mut by_cookie] {
        client.expect_text("for seven");
    }
    events.expect("for seven");
    // What fills a name cannot reach into another channel.
    let mut odd = Ws::open(address, &format!("/ws?token={}", user("7/x")));
    assert_eq!(publish(address, "user/7/x", "no"), 0);
    assert_eq!(publish(address, "user/7%2Fx", "yes"), 1);
    odd.expect_text("yes");
    // Publishing and polls go by the token, too; the subject is who a client is.
    let answer = ask(address, "POST", "/mine", &[&format!("Authorization: bearer {seven}")], b"mine");
    assert_eq!(answer.json()["channel"], "user/7", "{answer:?}");
    assert_eq!(get(address, &format!("/poll?token={seven}")).status, 200);
    let who = get(address, "/who/user%2F7").json();
    assert_eq!(who["members"], json!([{ "id": "7", "connections": 4 }]), "{who}");
}

#[test]
fn a_token_that_is_not_good_is_refused_everywhere() {
    let pushd = start();
    let address = pushd.address();
    let good = user("7");
    let (head, rest) = good.split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    let encoded = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let with_header = |header: Value| {
        let body = format!("{}.{claims}", encoded(header));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
        format!("{body}.{}", URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, body.as_bytes())))
    };
    let said = |claims: Value| token(claims);
    for (bad, why) in [
        ("x".to_owned(), "not a JSON Web Token"),
        (format!("{head}.{claims}"), "not a JSON Web Token"),
        (format!("{head}.{claims}."), ""),
        (format!("{head}.{claims}.{}", &signature[1..]), ""),
        (format!("{head}.{}.{signature}", encoded(json!({ "sub": "8", "exp": now() + 99 }))), "signature"),
        (signed(NEXT, &json!({ "sub": "7", "exp": now() + 99 })), "signature"),
        (format!("{}.{claims}.", encoded(json!({ "alg": "none" }))), "another algorithm"),
        (format!("{}.{claims}.{signature}", encoded(json!({ "alg": "None" }))), "another algorithm"),
        (with_header(json!({ "alg": "HS512" })), "another algorithm"),
        (with_header(json!({ "alg": "RS256" })), "another algorithm"),
        (with_header(json!({ "typ": "JWT" })), "another algorithm"),
        (with_header(json!({ "alg": "HS256", "crit": ["b64"], "b64": false })), "an extension"),
        (with_header(json!({ "alg": "HS256", "kid": 7 })), "not a string"),
        (said(json!({ "sub": "7", "exp": now() - 10 })), "has expired"),
        (said(json!({ "sub": "7", "exp": -1 })), "exp"),
        (said(json!({ "sub": "7", "exp": "tomorrow" })), "exp"),
        (said(json!({ "sub": "7", "nbf": now() + 60 })), "nbf"),
        (signed(SECRET, &json!({ "sub": "7" })), "exp"),
        (token(json!({ "sub": "7", "filler": "x".repeat(9000) })), "too long"),
    ] {
        let target = if bad.len() > 4000 { "/mine".to_owned() } else { format!("/mine?token={bad}") };
        let field = format!("Authorization: Bearer {bad}");
        let fields: Vec<&str> = if bad.len() > 4000 { vec![&field] } else { vec![] };
        let answer = ask(address, "POST", &target, &fields, b"hello");
        assert_eq!(answer.status, 401, "{why}: {answer:?}");
        let challenge = answer.field("www-authenticate").unwrap().to_owned();
        assert!(challenge.starts_with("Bearer realm=\"pushd\", error=\"invalid_token\""), "{challenge}");
        assert!(answer.text().contains(why), "{why}: {answer:?}");
        if bad.len() < 4000 {
            assert_eq!(upgrade(address, &format!("/ws?token={bad}"), &[]).status, 401, "{why}");
            let accept = "Accept: text/event-stream";
            assert_eq!(ask(address, "GET", &format!("/events?token={bad}"), &[accept], b"").status, 401, "{why}");
        }
    }
    for target in ["/ws", "/ws?token=", "/ws?token.sub=7"] {
        let answer = upgrade(address, target, &[]);
        assert_eq!(
            (answer.status, answer.field("www-authenticate")),
            (401, Some("Bearer realm=\"pushd\"")),
            "{target}"
        );
    }
    // Keys and addresses in a header are ignored, and so is a name of a key where there is one secret.
    let decorated =
        with_header(json!({ "alg": "HS256", "jwk": {}, "jku": "http://evil.example/", "kid": "../../etc/passwd" }));
    assert_eq!(ask(address, "POST", &format!("/mine?token={decorated}"), &[], b"x").status, 200);
    // A claim that the route needs.
    assert_eq!(upgrade(address, &format!("/ws?token={}", token(json!({}))), &[]).status, 403);
    for sub in [json!(null), json!(["7"]), json!(7.5), json!({ "a": 7 })] {
        let status = upgrade(address, &format!("/ws?token={}", token(json!({ "sub": sub }))), &[]).status;
        assert!([401, 403].contains(&status), "{sub}: {status}");
    }
    assert_eq!(upgrade(address, &format!("/ws?token={}", token(json!({ "sub": 7 }))), &[]).status, 101);
    // A page of another site cannot use the cookie.
    let cookie = format!("Cookie: push_token={good}");
    assert_eq!(upgrade(address, "/ws", &[&cookie, "Origin: http://evil.example"]).status, 403);
    let log = pushd.log();
    for part in [signature, &good, claims] {
        assert!(!log.contains(part), "a token is in the log");
    }
}

#[test]
fn a_claim_limits_the_channels() {
    let pushd = start();
    let address = pushd.address();
    let limited = token(json!({ "channels": ["news/*", "one"] }));
    let mut client = Ws::open(address, &format!("/chosen/one?token={limited}"));
    let refused = upgrade(address, &format!("/chosen/two?token={limited}"), &[]);
    assert_eq!((refused.status, refused.text()), (403, "this token does not allow \"two\"\n"));
    assert_eq!(upgrade(address, &format!("/chosen/one?token={}", token(json!({}))), &[]).status, 403);
    client.text("{\"subscribe\":\"news/7\"}");
    assert!(client.next_text().starts_with("{\"subscribed\":\"news/7\""));
    for channel in ["two", "news/7/8", "**"] {
        client.text(&format!("{{\"subscribe\":{channel:?}}}"));
        assert_eq!(
            client.next_text(),
            format!("{{\"error\":\"your token does not allow it\",\"channel\":{channel:?}}}")
        );
    }
}

/// Also where the body of a request, or an argument, names the channel.
#[test]
fn a_token_limits_where_its_client_publishes() {
    let pushd = start();
    let address = pushd.address();
    let publish = |target: &str, token: &str, body: &str| {
        let answer = ask(address, "POST", target, &[&format!("Authorization: Bearer {token}")], body.as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        String::from_utf8(answer.body).unwrap()
    };
    let limited = token(json!({ "exp": now() + 99, "channels": ["one", "news/*"] }));
    let body = "{\"channel\":\"news/1\",\"data\":\"a\"}\n{\"channel\":\"two\",\"data\":\"b\"}\n";
    let said = publish("/batch", &limited, body);
    assert!(said.contains("\"channel\":\"news/1\""), "{said}");
    assert!(said.contains("this token does not allow \\\"two\\\""), "{said}");
    let body = "{\"data\":\"a\"}\n{\"channel\":\"user/7\",\"data\":\"b\"}\n{\"channel\":\"user/8\",\"data\":\"c\"}\n";
    let said = publish("/mine/batch", &user("7"), body);
    assert_eq!(said.matches("\"channel\":\"user/7\"").count(), 2, "{said}");
    assert!(!said.contains("user/8") && said.contains("the messages of this route go to its own channel"), "{said}");
    assert_eq!(upgrade(address, &format!("/room?room=news%2F1&token={limited}"), &[]).status, 101);
    let refused = upgrade(address, &format!("/room?room=two&token={limited}"), &[]);
    assert_eq!(refused.status, 403, "{refused:?}");
}

#[test]
fn sessions_end_when_their_token_does() {
    let pushd = start();
    let address = pushd.address();
    // Leeway included: five seconds behind `exp`.
    let brief = token(json!({ "sub": "7", "exp": now() - 1 }));
    let mut socket = Ws::open(address, &format!("/ws?token={brief}"));
    let mut events = Events::open(address, &format!("/events?token={brief}"));
    // One that is not over yet ends when it expires, whatever the leeway.
    let soon = token(json!({ "sub": "8", "exp": now() + 6 }));
    let mut ending = Ws::open(address, &format!("/patient?token={soon}"));
    let mut lasting = Ws::open(address, &format!("/ws?token={}", user("7")));
    ending.expect_close(1008, "token expired");
    events.expect_id();
    socket.expect_close(1008, "token expired");
    events.expect_end("token expired");
    assert_eq!(publish(address, "user/7", "still here"), 1);
    lasting.expect_text("still here");
}

#[test]
fn a_reload_revokes_the_tokens_of_a_key() {
    let pushd = start();
    let address = pushd.address();
    let both = "[{ file = \"one.key\" }, { file = \"next.key\" }]";
    pushd.reload(&config(both));
    let mut first = Ws::open(address, &format!("/ws?token={}", user("7")));
    let next = signed(NEXT, &json!({ "sub": "7", "exp": now() + 99 }));
    let mut second = Ws::open(address, &format!("/ws?token={next}"));
    pushd.reload(&config(both));
    assert_eq!(publish(address, "user/7", "both"), 2);
    first.expect_text("both");
    second.expect_text("both");
    pushd.reload(&config("{ file = \"next.key\" }"));
    first.expect_close(1008, "token revoked");
    assert_eq!(publish(address, "user/7", "one is left"), 1);
    second.expect_text("one is left");
    assert_eq!(upgrade(address, &format!("/ws?token={}", user("7")), &[]).status, 401);
}

/// The next process may have another configuration: without the key, or with tokens on a route that asked for none.
#[test]
fn a_restart_revokes_the_tokens_of_a_key() {
    let both = config("[{ file = \"one.key\" }, { file = \"next.key\" }]")
        .replace("\"/patient\" = {", "\"/old\" = { websocket = \"push\" }\n\"/patient\" = {");
    let mut service = Service::new(&both, 64);
    fs::write(service.path().join("one.key"), SECRET).unwrap();
    fs::write(service.path().join("next.key"), NEXT).unwrap();
    service.start();
    let address = service.address();
    let mut first = Ws::open(address, &format!("/ws?token={}", user("7")));
    let next = signed(NEXT, &json!({ "sub": "7", "exp": now() + 99 }));
    let mut second = Ws::open(address, &format!("/ws?token={next}"));
    let mut open = Ws::open(address, "/old");
    assert_eq!(publish(address, "all", "before"), 3);
    for client in [&mut first, &mut second, &mut open] {
        client.expect_text("before");
    }
    let changed = both
        .replace("{ file = \"one.key\" }, ", "")
        .replace("\"/old\" = { websocket = \"push\" }", "\"/old\" = { websocket = \"push\", tokens = \"site\" }");
    service.configure(&changed);
    service.restart();
    first.expect_close(1008, "token revoked");
    open.expect_close(1008, "token revoked");
    assert_eq!(publish(service.address(), "all", "one is left"), 1);
    second.expect_text("one is left");
}

/// Public keys: in a file of one, and in a set, where the token names one.
#[test]
fn tokens_of_public_keys_are_checked() {
    let keys: Vec<KeyPair> = (0..2).map(|_| KeyPair::generate(KeySize::Rsa2048).unwrap()).collect();
    let der = |key: &KeyPair| AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(key).unwrap().as_ref().to_vec();
    let public = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(keys[0].public_key()).unwrap();
    let pem =
        |label: &str, der: &[u8]| format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der));
    let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let jwk = |key: &KeyPair, id: &str| {
        let (n, e) = (key.public_key().modulus(), key.public_key().exponent());
        json!({ "kty": "RSA", "kid": id, "use": "sig", "alg": "RS256",
            "n": number(n.big_endian_without_leading_zero()), "e": number(e.big_endian_without_leading_zero()) })
    };
    let text = r#"
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/one" = { websocket = "push", tokens = "one" }
"/set" = { websocket = "push", tokens = "set" }
[hub.push]
[token.one]
algorithm = "RS256"
public_key = "public.pem"
issuer = "https://login.example"
audience = "push"
[token.set]
algorithm = "RS256"
jwks = "jwks.json"
"#;
    let start = Start::new(text);
    let public_pem = pem("PUBLIC KEY", public.as_ref());
    fs::write(start.path().join("public.pem"), &public_pem).unwrap();
    let set = json!({ "keys": [jwk(&keys[0], "a"), jwk(&keys[1], "b")] });
    fs::write(start.path().join("jwks.json"), set.to_string()).unwrap();
    let pushd = start.run();
    let address = pushd.address();
    let signed = |key: usize, id: Option<&str>, claims: Value| {
        let header = Header { kid: id.map(str::to_owned), ..Header::new(Algorithm::RS256) };
        let private = pem("PRIVATE KEY", &der(&keys[key]));
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_rsa_pem(private.as_bytes()).unwrap()).unwrap()
    };
    let status = |path: &str, token: &str| upgrade(address, &format!("{path}?token={token}"), &[]).status;
    let (iss, exp) = ("https://login.example", now() + 99);
    for (claims, expected) in [
        (json!({ "exp": exp, "iss": iss, "aud": "push" }), 101),
        (json!({ "exp": exp, "iss": iss, "aud": ["other", "push"] }), 101),
        (json!({ "exp": exp, "iss": iss, "aud": ["other"] }), 401),
        (json!({ "exp": exp, "iss": iss }), 401),
        (json!({ "exp": exp, "aud": "push" }), 401),
        (json!({ "exp": exp, "iss": "https://evil.example", "aud": "push" }), 401),
    ] {
        assert_eq!(status("/one", &signed(0, None, claims.clone())), expected, "{claims}");
    }
    assert_eq!(status("/one", &signed(1, None, json!({ "exp": exp, "iss": iss, "aud": "push" }))), 401);
    // The public key is no secret: a token that is signed with it by HS256 is refused.
    let forged = jsonwebtoken::encode(
        &Header::default(),
        &json!({ "exp": exp, "iss": iss, "aud": "push" }),
        &EncodingKey::from_secret(public_pem.as_bytes()),
    );
    assert_eq!(status("/one", &forged.unwrap()), 401);
    for (key, id, expected) in [
        (0, Some("a"), 101),
        (1, Some("b"), 101),
        (0, Some("b"), 401),
        (0, Some("c"), 401),
        (0, Some("a' OR 1=1 --"), 401),
        (0, None, 401),
    ] {
        assert_eq!(status("/set", &signed(key, id, json!({ "exp": exp, "aud": "anything" }))), expected, "{id:?}");
    }
}

#[test]
fn pushctl_makes_and_checks_tokens() {
    let pushd = start();
    let file = pushd.path().join("pushd.toml");
    let pushctl = |arguments: &[&str]| {
        run(Command::new(env!("CARGO_BIN_EXE_pushctl")).arg("token").args(arguments).arg("-c").arg(&file))
    };
    let made = pushctl(&["make", "--name", "site", "sub=7", "roles=[\"a\"]"]);
    assert_eq!(made.code(), 0, "{made:?}");
    let token = made.stdout.trim();
    let mut client = Ws::open(pushd.address(), &format!("/ws?token={token}"));
    assert_eq!(publish(pushd.address(), "user/7", "hello"), 1);
    client.expect_text("hello");
    let good = pushctl(&["check", "--name", "site", token]);
    assert_eq!(good.code(), 0, "{good:?}");
    assert!(good.stdout.contains("\"roles\":[\"a\"]") && good.stdout.contains("\ngood: [token.site]"), "{good:?}");
    let bad = pushctl(&["check", "--name", "site", &token[..token.len() - 2]]);
    assert_eq!(bad.code(), 1);
    assert!(bad.stdout.contains("not good: "), "{bad:?}");
    let which = pushctl(&["make", "sub=7"]);
    assert_eq!(which.code(), 64);
    assert!(which.stderr.contains("limited, patient, site"), "{which:?}");
}
