//! The access log: one line for each request in the combined format, without secrets, in a file of its own or in the log.

mod common;

use std::fs;

use common::events::Events;
use common::http::{ask, get, publish};
use common::ws::Ws;
use common::{PLAIN, Pushd, Start, until, until_true};
use nix::sys::signal::Signal;

const AGENT: &str = "User-Agent: test/1";

fn with(access: &str) -> String {
    let routes = "\"/\" = { static = \"www\" }\n\"/events\" = { events = \"push\" }\n\"/poll\" = { poll = \"push\" }";
    let config = PLAIN
        .replace("\"/\" = { page = \"live\" }", routes)
        .replace("[hub.push]", "[hub.push]\nhistory = { messages = 9 }");
    format!("{config}\n[log]\n{access}\n")
}

fn start(access: &str) -> Pushd {
    let pushd = Start::new(&with(access));
    fs::create_dir(pushd.path().join("www")).unwrap();
    fs::write(pushd.path().join("www/a.txt"), "0123456789").unwrap();
    pushd.run()
}

/// The lines of a file in the directory of pushd, without the time.
fn lines(pushd: &Pushd, name: &str) -> Vec<String> {
    let text = fs::read_to_string(pushd.path().join(name)).unwrap_or_default();
    let line = |line: &str| {
        let (start, rest) = line.split_once(" [").unwrap();
        let (time, rest) = rest.split_once("] ").unwrap();
        assert!(jiff::fmt::strtime::parse("%d/%b/%Y:%H:%M:%S %z", time).is_ok(), "{line}");
        format!("{start} {rest}")
    };
    text.lines().map(line).collect()
}

/// Waits until the last line of the file is this one.
fn expect_last(pushd: &Pushd, expected: &str) {
    until_true(expected, || lines(pushd, "access.log").last().is_some_and(|line| line == expected));
}

#[test]
fn each_request_has_a_line() {
    let mut pushd = start("access = \"access.log\"");
    let address = pushd.address();
    let line = |request: &str, rest: &str| format!("127.0.0.1 - - \"{request} HTTP/1.1\" {rest}");
    ask(address, "GET", "/a.txt?v=1", &[AGENT, "Referer: https://a.example/b"], b"");
    expect_last(&pushd, &line("GET /a.txt?v=1", "200 10 \"https://a.example/b\" \"test/1\""));
    ask(address, "HEAD", "/a.txt", &[AGENT], b"");
    expect_last(&pushd, &line("HEAD /a.txt", "200 0 \"-\" \"test/1\""));
    let answer = ask(address, "GET", "/none", &[], b"");
    expect_last(&pushd, &line("GET /none", &format!("404 {} \"-\" \"-\"", answer.body.len())));
    let answer = ask(address, "POST", "/publish/all", &[AGENT], b"x");
    expect_last(&pushd, &line("POST /publish/all", &format!("200 {} \"-\" \"test/1\"", answer.body.len())));
    let answer = ask(address, "GET", "/healthz", &["Host: evil.example"], b"");
    expect_last(&pushd, &line("GET /healthz", &format!("421 {} \"-\" \"-\"", answer.body.len())));
    let answer = ask(address, "GET", "/healthz", &["Host: a", "Host: b"], b"");
    expect_last(&pushd, &line("GET /healthz", &format!("400 {} \"-\" \"-\"", answer.body.len())));
    // Sessions have a line when they begin, whether hyper reads their request or not.
    let (_, _socket) = Ws::ask(address, "/ws?channel=a", &[AGENT]);
    expect_last(&pushd, &line("GET /ws?channel=a", "101 0 \"-\" \"test/1\""));
    let (_, _second) = Ws::ask(address, "/ws?channel=b", &[AGENT, "Content-Length: 0"]);
    expect_last(&pushd, &line("GET /ws?channel=b", "101 0 \"-\" \"test/1\""));
    let _stream = Events::ask(address, "/events", &[AGENT]);
    expect_last(&pushd, &line("GET /events", "200 0 \"-\" \"test/1\""));
    publish(address, "/publish/all", "y");
    let before = lines(&pushd, "access.log").len();
    get(address, "/a.txt");
    assert_eq!(pushd.end(Signal::SIGTERM), 0);
    // What waits is written before the end.
    assert!(lines(&pushd, "access.log").len() > before);
    assert!(!pushd.log().contains("HTTP/1.1\" 200"), "{}", pushd.log());
}

#[test]
fn nothing_secret_is_in_a_line_and_no_client_can_forge_one() {
    let pushd = start("access = \"access.log\"\nlevel = \"debug\"");
    let address = pushd.address();
    let secret = "S3CR3T";
    let fields = [
        format!("Referer: https://u:{secret}@a.example/b?api_key={secret}&x=1"),
        format!("Authorization: Bearer {secret}"),
        format!("Cookie: session={secret}"),
        "User-Agent: x\" 200 1 \"-\\".to_owned(),
    ];
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    let target = format!("/a.txt?token={secret}&b=c&%74oken={secret}");
    ask(address, "GET", &target, &fields, b"");
    let rest = "200 10 \"https://a.example/b?api_key=***&x=1\" \"x\\x22 200 1 \\x22-\\x5C\"";
    expect_last(&pushd, &format!("127.0.0.1 - - \"GET /a.txt?token=***&b=c&%74oken=*** HTTP/1.1\" {rest}"));
    Ws::ask(address, &format!("/ws?access_token={secret}"), &fields[1..3]);
    expect_last(&pushd, "127.0.0.1 - - \"GET /ws?access_token=*** HTTP/1.1\" 101 0 \"-\" \"-\"");
    ask(address, "GET", &format!("/none?jwt={secret}"), &["Host: a", "Host: b"], b"");
    until_true("a third line", || lines(&pushd, "access.log").len() == 3);
    let all = fs::read_to_string(pushd.path().join("access.log")).unwrap() + &pushd.log();
    assert!(!all.contains(secret), "{all}");
}

#[test]
fn the_file_is_opened_again_by_a_signal_and_rotated() {
    let pushd = start("access = \"access.log\"\nrotate = false");
    let address = pushd.address();
    let path = pushd.path().join("access.log");
    get(address, "/a.txt?n=1");
    until_true("a line", || lines(&pushd, "access.log").len() == 1);
    fs::rename(&path, pushd.path().join("moved")).unwrap();
    pushd.signal(Signal::SIGUSR1);
    until_true("a new file", || path.exists());
    get(address, "/a.txt?n=2");
    until_true("a line in it", || lines(&pushd, "access.log").len() == 1);
    assert_eq!(lines(&pushd, "moved").len(), 1);
    // A reload changes when it rotates, where it is, and whether it is on.
    assert!(
        pushd.reload(&with("access = \"access.log\"\nrotate = { size = \"500B\", keep = 50 }")).contains("Reloaded")
    );
    for number in 0..40 {
        get(address, &format!("/a.txt?number={number}"));
    }
    let names = || -> Vec<String> {
        let names = pushd.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("access.log")).collect()
    };
    let all = || names().iter().map(|name| lines(&pushd, name).len()).sum::<usize>();
    until("all lines", || (all() == 41).then_some(()));
    assert!(names().len() >= 5, "{:?}", names());
    assert!(names().iter().all(|name| fs::metadata(pushd.path().join(name)).unwrap().len() <= 500));
    assert!(pushd.reload(&with("access = \"other.log\"")).contains("Reloaded"));
    get(address, "/a.txt");
    until_true("a line in the other file", || lines(&pushd, "other.log").len() == 1);
    let refused = pushd.reload(&with("access = \"none/access.log\""));
    assert!(refused.contains("Reload refused") && refused.contains("the access log"), "{refused}");
    get(address, "/a.txt");
    until_true("a second line in it", || lines(&pushd, "other.log").len() == 2);
    assert!(pushd.reload(&with("")).contains("Reloaded"));
    get(address, "/a.txt");
    assert!(pushd.reload(&with("access = \"log\"")).contains("Reloaded"));
    get(address, "/a.txt?in=log");
    pushd.logged("[access#info] 127.0.0.1 - - [");
    pushd.logged("\"GET /a.txt?in=log HTTP/1.1\" 200 10 \"-\" \"-\"");
    assert_eq!((lines(&pushd, "other.log").len(), all()), (2, 41));
}

#[test]
fn a_file_that_cannot_be_opened_prevents_the_start() {
    let refused = Start::new(&with("access = \"none/access.log\""));
    fs::create_dir(refused.path().join("www")).unwrap();
    let why = refused.try_run().err().unwrap();
    assert!(why.contains("the access log") && why.contains("none/access.log"), "{why}");
}
