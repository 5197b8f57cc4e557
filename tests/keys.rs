//! Keys: which requests are accepted with them, what is answered to the others, and that no secret is shown anywhere.

mod common;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::http::{Answer, ask, get, metric};
use common::wire::Wire;
use common::ws::Ws;
use common::{Pushd, Start, run};

const OLD: &str = "the-first-secret-of-the-backend-4711";
const NEW: &str = "the-second-secret-of-the-backend-0815";
const OTHER: &str = "a-secret-for-everything-that-is-far-away";

const CONFIG: &str = r#"
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/ws" = { websocket = "push", channels = ["news/7", "user/7"] }
"/publish/{channel}" = { publish = "push", channel = "{channel}", keys = ["backend", "far"], methods = ["POST", "PUT"] }
"/batch" = { publish = "push", batch = true, keys = ["backend"] }
"/presence" = { presence = "push", channel = "news/7", keys = ["backend"] }
"/open" = { publish = "push", channel = "news/7" }
"/metrics" = { metrics = true }
[hub.push]
presence = true
[key.backend]
secret = SECRET
publish = ["news/*"]
[key.far]
secret = { file = "far.key" }
addresses = ["192.0.2.0/24"]
"#;

const BOTH: &str = "[{ file = \"old.key\" }, { file = \"new.key\" }]";

fn config(secret: &str) -> String {
    CONFIG.replace("SECRET", secret)
}

fn write_secret(directory: &Path, name: &str, secret: &str) {
    let path = directory.join(name);
    fs::write(&path, secret).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A pushd with all secrets, which logs everything.
fn start(secret: &str) -> Pushd {
    let start = Start::new(&config(secret)).arguments(&["--debug"]);
    write_secret(start.path(), "old.key", OLD);
    write_secret(start.path(), "new.key", &format!("{NEW}\r\n"));
    write_secret(start.path(), "far.key", &format!("{OTHER}\n"));
    start.run()
}

fn post(address: SocketAddr, path: &str, fields: &[&str]) -> Answer {
    ask(address, "POST", path, fields, b"hello")
}

fn bearer(secret: &str) -> String {
    format!("Authorization: Bearer {secret}")
}

fn status(address: SocketAddr, secret: &str) -> u16 {
    post(address, "/publish/news%2F7", &[&bearer(secret)]).status
}

#[test]
fn a_request_needs_a_key_of_the_route() {
    let pushd = start(BOTH);
    let address = pushd.address();
    let mut client = Ws::open(address, "/ws");
    for (fields, challenge) in [
        (vec![], "Bearer realm=\"pushd\""),
        (vec!["Authorization: Basic YTpi".to_owned()], "Bearer realm=\"pushd\""),
        (vec![bearer("")], "Bearer realm=\"pushd\""),
        (vec![bearer("wrong")], "Bearer realm=\"pushd\", error=\"invalid_token\""),
        (vec![bearer(&OLD[1..])], "Bearer realm=\"pushd\", error=\"invalid_token\""),
        (vec![bearer(&format!("{OLD}x"))], "Bearer realm=\"pushd\", error=\"invalid_token\""),
        (vec![bearer(&OLD.to_uppercase())], "Bearer realm=\"pushd\", error=\"invalid_token\""),
        // Good, but not from here. The answer does not tell.
        (vec![bearer(OTHER)], "Bearer realm=\"pushd\", error=\"invalid_token\""),
    ] {
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let answer = post(address, "/publish/news%2F7", &fields);
        assert_eq!((answer.status, answer.field("www-authenticate")), (401, Some(challenge)), "{fields:?}");
        assert!(answer.json()["error"].is_string(), "{answer:?}");
    }
    let two = post(address, "/publish/news%2F7", &[&bearer(OLD), &bearer(OLD)]);
    assert_eq!(two.status, 400, "{two:?}");
    for query in ["?key=", "?token=", "?authorization=Bearer%20"] {
        assert_eq!(post(address, &format!("/publish/news%2F7{query}{OLD}"), &[]).status, 401);
    }
    client.expect_nothing();
    for good in [bearer(OLD), bearer(NEW), format!("authorization:bearer   {OLD}")] {
        let answer = post(address, "/publish/news%2F7", &[&good]);
        assert_eq!(answer.json()["subscribers"], 1, "{answer:?}");
        client.expect_text("hello");
    }
    assert_eq!(post(address, "/open", &[]).status, 200);
    pushd.logged("refused at /publish/news%2F7: a key is needed");
}

#[test]
fn a_key_publishes_only_on_its_channels() {
    let pushd = start(BOTH);
    let address = pushd.address();
    let mut client = Ws::open(address, "/ws");
    for channel in ["user%2F7", "news", "news%2F7%2F8"] {
        let answer = post(address, &format!("/publish/{channel}"), &[&bearer(OLD)]);
        assert_eq!(answer.status, 403, "{answer:?}");
        let named = channel.replace("%2F", "/");
        assert_eq!(answer.json()["error"], format!("this key may not publish on {named:?}"));
    }
    client.expect_nothing();
    let lines = "{\"channel\":\"news/7\",\"data\":\"one\"}\n{\"channel\":\"user/7\",\"data\":\"two\"}\n";
    let answer = ask(address, "POST", "/batch", &[&bearer(NEW)], lines.as_bytes());
    let answer: Vec<&str> = answer.text().lines().collect();
    assert_eq!(answer.len(), 2);
    assert!(answer[0].contains("\"subscribers\":1") && answer[1].contains("may not publish on"), "{answer:?}");
    client.expect_text("one");
    client.expect_nothing();
}

/// A stranger does not learn what a route would say, and does not make the server read a body.
#[test]
fn the_key_is_asked_for_before_everything_else() {
    let pushd = start(BOTH);
    let address = pushd.address();
    let mut wire = Wire::connect(address);
    wire.send(b"POST /publish/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(Answer::read(&mut wire).status, 401);
    for (path, fields) in [("/publish/%00", vec![]), ("/publish/x", vec!["Idempotency-Key: \u{1}"]), ("/batch", vec![])]
    {
        let answer = post(address, path, &fields);
        assert!([400, 401].contains(&answer.status), "{path}: {answer:?}");
        assert!(!answer.text().contains("channel"), "{answer:?}");
    }
    assert_eq!(get(address, "/presence").status, 401);
    let answer = ask(address, "GET", "/presence", &[&bearer(OLD)], b"");
    assert_eq!(answer.json()["channel"], "news/7");
    // A preflight request has no key, and says that one may be sent.
    let origin = format!("Origin: http://{address}");
    let answer = ask(address, "OPTIONS", "/publish/x", &[&origin, "Access-Control-Request-Method: POST"], b"");
    assert_eq!(answer.status, 204);
    assert!(answer.field("access-control-allow-headers").unwrap().contains("authorization"), "{answer:?}");
    // A key does not open the server to other pages.
    let foreign = post(address, "/publish/news%2F7", &[&bearer(OLD), "Origin: http://evil.example"]);
    assert_eq!(foreign.status, 403);
}

#[test]
fn a_reload_takes_a_secret_away() {
    let pushd = start(BOTH);
    let address = pushd.address();
    assert_eq!((status(address, OLD), status(address, NEW)), (200, 200));
    assert!(pushd.reload(&config("{ file = \"new.key\" }")).contains("Reloaded"), "{}", pushd.log());
    assert_eq!((status(address, OLD), status(address, NEW)), (401, 200));
    // The content of the file is read anew.
    write_secret(pushd.path(), "new.key", OLD);
    pushd.reload(&config("{ file = \"new.key\" }"));
    assert_eq!((status(address, OLD), status(address, NEW)), (200, 401));
    // A reload that finds no secret changes nothing.
    fs::remove_file(pushd.path().join("new.key")).unwrap();
    pushd.reload(&config("{ file = \"new.key\" }"));
    pushd.logged("this secret cannot be read");
    assert_eq!((status(address, OLD), status(address, NEW)), (200, 401));
}

#[test]
fn a_secret_can_be_a_credential_of_the_service_manager() {
    let start = Start::new(&config("{ credential = \"backend\" }"));
    write_secret(start.path(), "far.key", OTHER);
    fs::create_dir(start.path().join("credentials")).unwrap();
    write_secret(&start.path().join("credentials"), "backend", &format!("{NEW}\n"));
    let pushd = start.after("export CREDENTIALS_DIRECTORY=\"$PWD/credentials\"").run();
    assert_eq!((status(pushd.address(), NEW), status(pushd.address(), OLD)), (200, 401));
    // A check by another process does not miss them.
    let ran = run(Command::new(env!("CARGO_BIN_EXE_pushctl")).arg("check").arg(pushd.path().join("pushd.toml")));
    assert_eq!(ran.code(), 0, "{ran:?}");
}

#[test]
fn no_secret_is_shown_anywhere() {
    let pushd = start(BOTH);
    let address = pushd.address();
    let wrong = "a-wrong-key-that-somebody-tries-9999";
    status(address, OLD);
    status(address, wrong);
    post(address, "/publish/user", &[&bearer(NEW)]);
    pushd.reload(&config("{ file = \"new.key\" }"));
    let file = pushd.path().join("pushd.toml");
    let mut shown = pushd.log();
    assert!(shown.contains("refused at"), "the log has the refusals");
    shown += get(address, "/metrics").text();
    assert_eq!(metric(address, "pushd_http_requests_refused_total"), 2);
    for words in [vec!["check"], vec!["config", "show"], vec!["diff"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pushctl"));
        command.args(&words).arg(&file);
        if words == ["diff"] {
            command.arg("-c").arg(&file);
        }
        let ran = run(&mut command);
        assert_eq!(ran.code(), 0, "{ran:?}");
        shown += &format!("{ran:?}");
    }
    // Written into the file, where it does not belong.
    fs::write(&file, config(&format!("\"{OLD}\""))).unwrap();
    for argument in ["check", "diff"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pushctl"));
        let ran = run(command.arg(argument).arg(&file));
        assert_eq!(ran.code(), 78, "{ran:?}");
        shown += &format!("{ran:?}");
    }
    assert!(shown.contains("not written into this file"));
    for secret in [OLD, NEW, OTHER, wrong] {
        assert!(!shown.contains(secret), "{secret} is in: {shown}");
    }
}

#[test]
fn secrets_that_are_weak_or_open_are_warned_of() {
    let start = Start::new(&config(BOTH));
    write_secret(start.path(), "old.key", "short");
    write_secret(start.path(), "far.key", OTHER);
    fs::write(start.path().join("new.key"), NEW).unwrap();
    fs::set_permissions(start.path().join("new.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let ran = run(Command::new(env!("CARGO_BIN_EXE_pushctl")).arg("check").arg(start.path().join("pushd.toml")));
    assert_eq!(ran.code(), 0, "{ran:?}");
    let said = format!("{ran:?}");
    for words in ["this secret is short", "every user of this machine can read this secret", "its mode is 644"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn pushctl_makes_a_key_and_publishes_with_it() {
    let start = Start::new(&config("{ file = \"old.key\" }"));
    write_secret(start.path(), "far.key", OTHER);
    let file = start.path().join("old.key");
    let pushctl = |arguments: &[&str]| run(Command::new(env!("CARGO_BIN_EXE_pushctl")).args(arguments));
    let path = file.to_str().unwrap();
    let made = pushctl(&["key", "new", "--file", path]);
    assert_eq!(made.code(), 0, "{made:?}");
    let secret = fs::read_to_string(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(secret.trim_end().len() >= 43 && !format!("{made:?}").contains(secret.trim_end()), "{made:?}");
    let again = pushctl(&["key", "new", "--file", path]);
    assert_eq!(again.code(), 73, "{again:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), secret);
    let pushd = start.run();
    let url = format!("http://{}/publish/{{channel}}", pushd.address());
    let refused = pushctl(&["publish", "--url", &url, "news/7", "hello"]);
    assert_eq!(refused.code(), 1);
    assert!(format!("{refused:?}").contains("--key-file"), "{refused:?}");
    let published = pushctl(&["publish", "--key-file", path, "--url", &url, "news/7", "hello"]);
    assert_eq!(published.code(), 0, "{published:?}");
}
