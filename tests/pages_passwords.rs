//! Static routes that ask for a user and a password.

mod common;

use std::fs;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::http::{Answer, ask, get};
use common::wire::Wire;
use common::{PLAIN, Pushd, Start, until_true};
use nix::sys::signal::Signal;

/// The hash of `pass:wörd`.
const BCRYPT: &str = "$2y$05$abcdefghijklmnopqrstuufCq7KSx/yTY1N2WBDUpQoHYqabOcAn2";
/// The hash of `pass`.
const SHA512: &str =
    "$6$rounds=1000$saltsalt$FiBN5PCSQz7PpTOT7vwGSzY2QH528hJHj.FtyQdehiyRbdxPIZydG7z9a4mOh.ZWHCU17ZsaRhe.JmCaRFZjY.";
const CONFIG: &str = "\"/\" = { static = \"www\", basic_auth = { file = \"users\" }, realm = \"The files\", \
                      errors = { 401 = \"401.html\" }, origins = \"any\" }\n\"/open\" = { static = \"www\" }";

fn start() -> Pushd {
    let config =
        PLAIN.replace("\"/\" = { page = \"live\" }", CONFIG) + "\n[log]\naccess = \"access.log\"\nlevel = \"debug\"\n";
    let pushd = Start::new(&config);
    fs::create_dir(pushd.path().join("www")).unwrap();
    fs::write(pushd.path().join("www/a.txt"), "a").unwrap();
    fs::write(pushd.path().join("www/401.html"), "<p>who?").unwrap();
    fs::write(pushd.path().join("users"), format!("# The users\nanna:{BCRYPT}\nben:{SHA512}\n")).unwrap();
    pushd.run()
}

fn with(address: SocketAddr, path: &str, user: &str, password: &str) -> Answer {
    let shown = STANDARD.encode(format!("{user}:{password}"));
    ask(address, "GET", path, &[&format!("Authorization: Basic {shown}")], b"")
}

#[test]
fn a_route_is_read_with_a_password_only() {
    let pushd = start();
    let address = pushd.address();
    // Several times: later answers may come from the cache, and right passwords are remembered.
    for _ in 0..3 {
        for path in ["/a.txt", "/none", "/"] {
            let refused = get(address, path);
            assert_eq!((refused.status, refused.text()), (401, "<p>who?"), "{path}");
            assert_eq!(refused.field("www-authenticate"), Some("Basic realm=\"The files\", charset=\"UTF-8\""));
        }
        for (user, password) in [("anna", "pass:wörd"), ("ben", "pass")] {
            let answer = with(address, "/a.txt", user, password);
            assert_eq!((answer.status, answer.text()), (200, "a"), "{user}");
            assert_eq!(with(address, "/none", user, password).status, 404);
        }
        for (user, password) in
            [("anna", "pass"), ("anna", ""), ("ben", "pass:wörd"), ("Anna", "pass:wörd"), ("", ""), ("eve", "pass")]
        {
            assert_eq!(with(address, "/a.txt", user, password).status, 401, "{user}");
        }
        assert_eq!(get(address, "/open/a.txt").status, 200);
    }
    for odd in ["Authorization: Basic", "Authorization: Basic ???", "Authorization: Bearer YW5uYTpwYXNz"] {
        assert_eq!(ask(address, "GET", "/a.txt", &[odd], b"").status, 401, "{odd}");
    }
    // Another method tells nothing either, but a browser may ask for leave.
    assert_eq!(ask(address, "POST", "/a.txt", &[], b"").status, 401);
    let fields = ["Origin: https://a.example", "Access-Control-Request-Method: GET"];
    let preflight = ask(address, "OPTIONS", "/a.txt", &fields, b"");
    assert_eq!((preflight.status, preflight.field("access-control-allow-origin")), (204, Some("*")));
    // The access log names the user, and no log has a password or a hash.
    let log = || fs::read_to_string(pushd.path().join("access.log")).unwrap_or_default();
    until_true("the user in the access log", || log().contains("127.0.0.1 - anna ["));
    for secret in ["pass:w", "saltsalt", "abcdef", &STANDARD.encode("anna:pass:wörd"), "eve"] {
        assert!(!log().contains(secret) && !pushd.log().contains(secret), "{secret}");
    }
}

#[test]
fn a_reload_reads_the_users_anew() {
    let pushd = start();
    let address = pushd.address();
    let config = fs::read_to_string(pushd.path().join("pushd.toml")).unwrap();
    assert_eq!(with(address, "/a.txt", "ben", "pass").status, 200);
    fs::write(pushd.path().join("users"), format!("cleo:{SHA512}\n")).unwrap();
    assert_eq!(with(address, "/a.txt", "ben", "pass").status, 200, "before the reload");
    assert!(pushd.reload(&config).contains("Reloaded"));
    assert_eq!(with(address, "/a.txt", "ben", "pass").status, 401);
    assert_eq!(with(address, "/a.txt", "cleo", "pass").status, 200);
    // A mistake changes nothing.
    fs::write(pushd.path().join("users"), "dora:plain\n").unwrap();
    let refused = pushd.reload(&config);
    assert!(refused.contains("Reload refused") && !refused.contains("plain"), "{refused}");
    assert_eq!(with(address, "/a.txt", "cleo", "pass").status, 200);
}

#[test]
fn many_wrong_passwords_are_refused_and_hold_up_nobody() {
    let mut pushd = start();
    let address = pushd.address();
    assert_eq!(with(address, "/a.txt", "anna", "pass:wörd").status, 200);
    let mut wires: Vec<Wire> = (0..120).map(|_| Wire::connect(address)).collect();
    for (number, wire) in wires.iter_mut().enumerate() {
        let shown = STANDARD.encode(format!("anna:wrong{number}"));
        let fields = [format!("Authorization: Basic {shown}")];
        wire.send(&common::http::request(address, "GET", "/a.txt", &[&fields[0]], b""));
    }
    // A password that is remembered, and files without one, need not wait.
    assert_eq!(with(address, "/a.txt", "anna", "pass:wörd").status, 200);
    assert_eq!(get(address, "/open/a.txt").status, 200);
    for wire in &mut wires {
        let answer = Answer::read(wire);
        assert!(matches!(answer.status, 401 | 503), "{answer:?}");
        assert_eq!(answer.field("retry-after").is_some(), answer.status == 503);
    }
    drop(wires);
    assert_eq!(with(address, "/a.txt", "ben", "pass").status, 200);
    assert_eq!(pushd.end(Signal::SIGTERM), 0);
}
