//! Hooks: what the backend is asked, what becomes of its answers, and that a backend that fails holds up only those who ask.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use common::events::{Block, Events};
use common::http::{ask, get, metric, publish};
use common::tls::{Certificate, certificate};
use common::ws::Ws;
use common::{Pushd, Start, start, until_true};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// The secret of the signatures.
const SECRET: &str = "the-secret-that-signs-the-questions-0815";

/// A question, as the backend received it.
#[derive(Debug)]
struct Question {
    head: String,
    body: Vec<u8>,
}

impl Question {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn field(&self, name: &str) -> Option<&str> {
        let named = |line: &&str| line.split(':').next().is_some_and(|it| it.eq_ignore_ascii_case(name));
        self.head.lines().find(named).and_then(|line| Some(line.split_once(':')?.1.trim()))
    }
}

/// What the backend does.
#[derive(Debug, Clone)]
enum Reply {
    /// 200 with this body.
    Says(String),
    /// These bytes.
    Bytes(Vec<u8>),
    /// Closes the connection.
    Closes,
    /// Nothing, for longer than any timeout.
    Nothing,
}

fn says(value: &Value) -> Reply {
    Reply::Says(value.to_string())
}

/// A backend on a port of its own.
struct Backend {
    address: SocketAddr,
    reply: Arc<Mutex<Reply>>,
    questions: Receiver<Question>,
}

impl Backend {
    fn start(reply: Reply) -> Backend {
        Backend::start_as(reply, |stream| stream)
    }

    fn start_as<S: Read + Write + Send + 'static>(
        reply: Reply,
        wrap: impl Fn(TcpStream) -> S + Send + 'static,
    ) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, reply) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(reply)));
        let (sender, questions) = channel();
        let shared = reply.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (sender, reply) = (sender.clone(), shared.clone());
                let mut stream = wrap(stream.unwrap());
                std::thread::spawn(move || serve(&mut stream, &sender, &reply));
            }
        });
        Backend { address, reply, questions }
    }

    /// The same with TLS.
    fn start_with_tls(certificate: &Certificate, reply: Reply) -> Backend {
        let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).unwrap();
        let settings = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der.clone()], key);
        let settings = Arc::new(settings.unwrap());
        Backend::start_as(reply, move |stream| {
            StreamOwned::new(ServerConnection::new(settings.clone()).unwrap(), stream)
        })
    }

    fn reply(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    fn question(&self) -> Question {
        self.questions.recv_timeout(Duration::from_secs(10)).expect("the backend is asked")
    }

    fn is_not_asked(&self) {
        assert!(self.questions.try_recv().is_err());
    }
}

/// Serves one connection, with all its requests.
fn serve(stream: &mut (impl Read + Write), sender: &Sender<Question>, reply: &Mutex<Reply>) -> Option<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let mut question = Question { head: String::from_utf8(head).unwrap(), body: Vec::new() };
        let length = question.field("content-length").map_or(0, |length| length.parse().unwrap());
        question.body.resize(length, 0);
        stream.read_exact(&mut question.body).ok()?;
        let reply = reply.lock().unwrap().clone();
        sender.send(question).ok()?;
        match reply {
            Reply::Says(body) => {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all((head + &body).as_bytes()).ok()?;
            }
            Reply::Bytes(bytes) => stream.write_all(&bytes).ok()?,
            Reply::Closes => return None,
            // Until pushd closes its side.
            Reply::Nothing => drop(stream.read(&mut [0])),
        }
    }
}

/// A file whose hook asks `backend`; `more` are further keys of the hook.
fn config(backend: &Backend, more: &str) -> String {
    let address = backend.address;
    format!(
        r#"
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/ws/{{room}}" = {{ websocket = "push", channels = ["{{room}}"], identity = "{{name=}}", hook = "site" }}
"/plain" = {{ websocket = "push", channels = ["news"] }}
"/events/{{room}}" = {{ events = "push", channels = ["{{room}}"], hook = "site" }}
"/poll/{{room}}" = {{ poll = "push", channels = ["{{room}}"], hook = "site" }}
"/publish/{{channel}}" = {{ publish = "push", channel = "{{channel}}", hook = "site" }}
"/open/{{channel}}" = {{ publish = "push", channel = "{{channel}}" }}
"/batch" = {{ publish = "push", batch = true, hook = "site" }}
"/presence/{{channel}}" = {{ presence = "push", channel = "{{channel}}" }}
"/metrics" = {{ metrics = true }}
[hub.push]
presence = true
history = {{ messages = 10 }}
message_max = "1KiB"
[hook.site]
connect = "http://{address}/connect?from=pushd"
publish = "http://{address}/publish"
{more}
"#
    )
}

fn post(pushd: &Pushd, path: &str, body: &str) -> common::http::Answer {
    ask(pushd.address(), "POST", path, &[], body.as_bytes())
}

#[test]
fn a_client_connects_as_the_backend_says() {
    let backend = Backend::start(says(&json!({
        "result": { "user": "alice", "channels": ["user/alice", "all"], "data": { "hello": 1 } }
    })));
    let pushd = start(&config(&backend, ""));
    let address = pushd.address();
    let fields = ["Cookie: session=7", "User-Agent: test", "X-Other: secret", "Content-Type: text/evil"];
    let (answer, mut client) = Ws::ask(address, "/ws/all?name=bob&token=t%20k", &fields);
    assert_eq!(answer.status, 101, "{answer:?}");
    client.expect_text("{\"hello\":1}");
    assert_eq!(publish(address, "/open/user%2Falice", "for alice"), 1);
    client.expect_text("for alice");
    assert_eq!(publish(address, "/open/all", "for all"), 1);
    client.expect_text("for all");
    assert!(get(address, "/presence/all").text().contains("alice"));

    let question = backend.question();
    assert!(question.head.starts_with("POST /connect?from=pushd HTTP/1.1\r\n"), "{question:?}");
    for (name, value) in [
        ("content-type", Some("application/json")),
        ("cookie", Some("session=7")),
        ("user-agent", Some("test")),
        ("x-other", None),
        ("x-pushd-signature", None),
    ] {
        assert_eq!(question.field(name), value, "{name}");
    }
    let asked = question.json();
    assert_eq!(asked["client"].as_str().unwrap().len(), 36);
    let expected = [
        ("transport", json!("websocket")),
        ("protocol", json!("json")),
        ("encoding", json!("json")),
        ("user", json!("bob")),
        ("channels", json!(["all"])),
        ("data", json!({ "room": "all", "name": "bob", "token": "t k" })),
        ("server", json!("main")),
        ("path", json!("/ws/all")),
        ("address", json!("127.0.0.1")),
    ];
    for (name, value) in expected {
        assert_eq!(asked[name], value, "{name}");
    }
    assert_eq!(metric(address, "pushd_hook_questions_total{hook=\"site\"}"), 1);
}

#[test]
fn streams_and_polls_are_asked_about_too() {
    let backend = Backend::start(says(&json!({ "result": { "channels": ["more"] } })));
    let pushd = start(&config(&backend, ""));
    let address = pushd.address();
    let mut events = Events::open(address, "/events/all");
    assert_eq!(backend.question().json()["transport"], "sse");
    assert_eq!(publish(address, "/open/more", "by a stream"), 1);
    // The first block may be a position.
    let event = std::iter::repeat_with(|| events.next()).find(|block| matches!(block, Block::Event(..)));
    assert_eq!(event, Some(Block::Event(None, "by a stream".to_owned())));
    let answer = get(address, "/poll/all?since=earliest&wait=0s");
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("by a stream"), "{answer:?}");
    assert_eq!(backend.question().json()["transport"], "poll");
}

#[test]
fn a_client_that_the_backend_refuses_gets_its_reason() {
    let backend = Backend::start(says(&json!({ "error": { "code": 1000, "message": "no\r\nentry: here" } })));
    let pushd = start(&config(&backend, "on_error = \"allow\""));
    let address = pushd.address();
    for reply in [
        json!({ "error": { "code": 1, "message": "go away" } }),
        json!({ "disconnect": { "code": 4500, "reason": "go away" } }),
    ] {
        backend.reply(says(&reply));
        let (answer, _) = Ws::ask(address, "/ws/all", &[]);
        assert_eq!((answer.status, answer.field("upgrade")), (403, None));
        let answer = ask(address, "GET", "/events/all", &["Accept: text/event-stream"], b"");
        assert_eq!((answer.status, answer.text()), (403, "go away\n"));
        assert_eq!(get(address, "/poll/all?since=earliest").status, 403);
    }
    // A session whose time is over does not begin, whatever on_error says.
    backend.reply(says(&json!({ "result": { "expire_at": 1_700_000_000 } })));
    assert_eq!(Ws::ask(address, "/ws/all", &[]).0.status, 403);
    assert_eq!(metric(address, "pushd_sessions"), 0);
    assert_eq!(metric(address, "pushd_hook_refusals_total{hook=\"site\"}"), 6);
}

#[test]
fn a_session_ends_when_the_backend_says() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let backend = Backend::start(says(&json!({ "result": { "expire_at": now + 2 } })));
    let pushd = start(&config(&backend, ""));
    let mut client = Ws::open(pushd.address(), "/ws/all");
    client.expect_close(1008, "token expired");
}

#[test]
fn a_message_is_published_as_the_backend_says() {
    let backend = Backend::start(says(&json!({ "result": {} })));
    let pushd = start(&config(&backend, ""));
    let address = pushd.address();
    let mut client = Ws::open(address, "/plain");
    assert_eq!(publish(address, "/publish/news", "{\"a\": 1}"), 1);
    client.expect_text("{\"a\": 1}");
    let question = backend.question();
    assert!(question.head.starts_with("POST /publish HTTP/1.1\r\n"), "{question:?}");
    let asked = question.json();
    assert_eq!(
        (&asked["channel"], &asked["data"], &asked["transport"]),
        (&json!("news"), &json!({ "a": 1 }), &json!("http"))
    );

    backend.reply(says(&json!({ "result": { "data": "rewritten" } })));
    assert_eq!(publish(address, "/publish/news", "text"), 1);
    client.expect_text("rewritten");
    assert_eq!(backend.question().json()["data"], "text");

    backend.reply(says(&json!({ "result": { "skip": true } })));
    let answer = post(&pushd, "/publish/news", "skipped");
    assert_eq!((answer.status, answer.json()), (200, json!({ "channel": "news", "subscribers": 0 })));

    backend.reply(says(&json!({ "error": { "code": 1000, "message": "not this" } })));
    let answer = post(&pushd, "/publish/news", "refused");
    assert_eq!((answer.status, answer.json()), (403, json!({ "error": "not this" })));

    backend.reply(says(&json!({ "result": { "data": "x".repeat(2000) } })));
    assert_eq!(post(&pushd, "/publish/news", "small").status, 502);
    assert_eq!(publish(address, "/open/news", "the last"), 1);
    client.expect_text("the last");
}

#[test]
fn each_message_of_a_batch_is_asked_about_and_their_order_stays() {
    let backend = Backend::start(says(&json!({ "result": {} })));
    let pushd = start(&config(&backend, ""));
    let mut client = Ws::open(pushd.address(), "/plain");
    let lines: Vec<_> = (0..50).map(|n| json!({ "channel": "news", "data": n.to_string() }).to_string()).collect();
    let answer = post(&pushd, "/batch", &lines.join("\n"));
    assert_eq!((answer.status, answer.text().lines().count()), (200, 50));
    for n in 0..50 {
        client.expect_text(&n.to_string());
    }
    backend.reply(says(&json!({ "error": { "code": 1000, "message": "not this" } })));
    let answer = post(&pushd, "/batch", &format!("{}\n{{}}\n", lines[0]));
    let answers: Vec<Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((answer.status, &answers[0], answers.len()), (200, &json!({ "error": "not this" }), 2));
    backend.reply(says(&json!({ "result": { "skip": true } })));
    let answer = post(&pushd, "/batch", &lines[..2].join("\n"));
    assert_eq!(answer.text(), "{\"channel\":\"news\",\"subscribers\":0}\n".repeat(2));
    let many = vec!["{\"channel\":\"news\",\"data\":\"x\"}"; 1001].join("\n");
    assert_eq!(post(&pushd, "/batch", &many).status, 413);
}

#[test]
fn questions_are_signed() {
    let backend = Backend::start(says(&json!({ "result": {} })));
    let start = Start::new(&config(&backend, "secret = [{ file = \"new\" }, { file = \"old\" }]"));
    for (name, secret) in
        [("new", format!("{SECRET}\n")), ("old", "an-older-secret-that-is-still-good-4711".to_owned())]
    {
        fs::write(start.path().join(name), secret).unwrap();
        fs::set_permissions(start.path().join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let pushd = start.arguments(&["--debug"]).run();
    assert_eq!(post(&pushd, "/publish/news", "signed").status, 200);
    let question = backend.question();
    let signature = question.field("x-pushd-signature").unwrap().to_owned();
    let (time, signatures) = signature.strip_prefix("t=").unwrap().split_once(',').unwrap();
    let signatures: Vec<_> = signatures.split(',').map(|it| it.strip_prefix("v1=").unwrap()).collect();
    assert_eq!(signatures.len(), 2);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert!(now.abs_diff(time.parse().unwrap()) < 30);
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
    let signed = [format!("{time}.").as_bytes(), &question.body].concat();
    let expected: String =
        aws_lc_rs::hmac::sign(&key, &signed).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(signatures[0], expected);
    assert!(!pushd.log().contains(SECRET));
}

#[test]
fn a_backend_with_https_shows_a_certificate_that_is_trusted() {
    let (good, other) = (certificate(&["localhost"]), certificate(&["localhost"]));
    let backend = Backend::start_with_tls(&good, says(&json!({ "result": {} })));
    let port = backend.address.port();
    let text = config(&backend, "ca = \"good.pem\"")
        .replace(&format!("http://127.0.0.1:{port}"), &format!("https://localhost:{port}"));
    let start = Start::new(&text);
    good.write(start.path(), "good");
    other.write(start.path(), "other");
    let pushd = start.run();
    assert_eq!(post(&pushd, "/publish/news", "x").status, 200);
    assert_eq!(backend.question().json()["data"], "x");
    // Another certificate, and those of the system, do not sign it.
    for ca in ["ca = \"other.pem\"", ""] {
        pushd.reload(&text.replace("ca = \"good.pem\"", ca));
        assert_eq!(post(&pushd, "/publish/news", "x").status, 503, "{ca}");
        backend.is_not_asked();
    }
}

#[test]
fn what_is_no_answer_denies() {
    let backend = Backend::start(Reply::Closes);
    let text = config(&backend, "timeout = \"100ms\"\nanswer_max = \"1KiB\"");
    let pushd = Start::new(&text).arguments(&["--debug"]).run();
    let address = pushd.address();
    let huge = format!("{{\"result\":{{\"data\":\"{}\"}}}}", "x".repeat(2000));
    let bytes = |text: &str| Reply::Bytes(text.as_bytes().to_vec());
    let whole = "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"result\":{}}";
    let wrong = [
        (Reply::Closes, "has no answer"),
        (Reply::Nothing, "no answer within 100ms"),
        (Reply::Says(huge), "more than 1024 bytes"),
        (Reply::Says("{}".to_owned()), "neither"),
        (Reply::Says("<html>".to_owned()), "cannot be read"),
        (bytes("not HTTP at all\r\n\r\n"), "has no answer"),
        (bytes(&whole.replace("200 OK", "500 No")), "the status is 500"),
        (bytes(&whole.replace("200 OK", "302 Found\r\nLocation: /other")), "the status is 302"),
        (bytes(&whole.replace(": 13", ": 20")), "has no answer"),
    ];
    for (reply, why) in wrong {
        backend.reply(reply.clone());
        let began = Instant::now();
        let answer = post(&pushd, "/publish/news", "never");
        assert_eq!((answer.status, answer.field("retry-after").is_some()), (503, true), "{reply:?}: {answer:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "{reply:?}");
        pushd.logged(why);
        // An answer in between keeps the breaker closed.
        backend.reply(Reply::Bytes(whole.as_bytes().to_vec()));
        assert_eq!(post(&pushd, "/publish/other", "published").status, 200, "after {reply:?}");
    }
    assert_eq!(metric(address, "pushd_hook_failures_total{hook=\"site\"}"), 9);
    assert_eq!(metric(address, "pushd_hook_open{hook=\"site\"}"), 0);
    let answer = get(address, "/poll/news?since=earliest&wait=0s");
    assert!(answer.text().contains("\"messages\":[]"), "{answer:?}");
}

#[test]
fn without_an_answer_streams_come_again_and_others_are_told_to() {
    let backend = Backend::start(Reply::Says("{}".to_owned()));
    let pushd = start(&config(&backend, ""));
    let address = pushd.address();
    assert_eq!(Ws::ask(address, "/ws/all", &[]).0.status, 503);
    assert_eq!(get(address, "/poll/all?since=earliest").status, 503);
    let answer = ask(address, "GET", "/events/all", &["Accept: text/event-stream"], b"");
    assert_eq!(answer.status, 200);
    assert!(answer.text().starts_with("retry:"), "{answer:?}");
    assert_eq!(metric(address, "pushd_sessions"), 0);
}

#[test]
fn with_allow_a_backend_that_fails_changes_nothing() {
    let backend = Backend::start(Reply::Closes);
    let pushd = start(&config(&backend, "on_error = \"allow\""));
    let mut client = Ws::open(pushd.address(), "/ws/news");
    assert_eq!(publish(pushd.address(), "/publish/news", "as it is"), 1);
    client.expect_text("as it is");
}

#[test]
fn a_breaker_opens_and_closes_and_is_reported() {
    let backend = Backend::start(Reply::Closes);
    let pushd = start(&config(&backend, ""));
    let address = pushd.address();
    let open = || metric(address, "pushd_hook_open{hook=\"site\"}");
    for _ in 0..5 {
        assert_eq!((post(&pushd, "/publish/news", "x").status), 503);
    }
    assert_eq!(open(), 1);
    pushd.logged_times("fails: it is not asked for 5s", 1);
    while backend.questions.try_recv().is_ok() {}
    assert_eq!(post(&pushd, "/publish/news", "x").status, 503);
    backend.is_not_asked();
    backend.reply(says(&json!({ "result": {} })));
    // The other question of the hook has another address, and a breaker of its own.
    Ws::open(address, "/ws/news");
    until_true("the breaker closes", || post(&pushd, "/publish/news", "x").status == 200);
    assert_eq!(open(), 0);
    pushd.logged_times("answers again", 1);
}

#[test]
fn only_the_request_that_asks_waits() {
    let backend = Backend::start(Reply::Nothing);
    let pushd = start(&config(&backend, "timeout = \"3s\"\nrequests_max = 1"));
    let address = pushd.address();
    let mut client = Ws::open(address, "/plain");
    let mut waiting = common::wire::Wire::connect(address);
    waiting.send(&common::ws::handshake(address, "/ws/news", &[]));
    backend.question();
    for n in 0..100 {
        assert_eq!(publish(address, "/open/news", &n.to_string()), 1);
        client.expect_text(&n.to_string());
    }
    assert_eq!(metric(address, "pushd_sessions"), 1);
}

#[test]
fn a_reload_changes_the_hook_and_keeps_its_figures() {
    let (first, second) =
        (Backend::start(says(&json!({ "result": {} }))), Backend::start(says(&json!({ "result": {} }))));
    let pushd = start(&config(&first, ""));
    assert_eq!(post(&pushd, "/publish/news", "x").status, 200);
    first.question();
    pushd.reload(&config(&second, ""));
    assert_eq!(post(&pushd, "/publish/news", "x").status, 200);
    second.question();
    first.is_not_asked();
    assert_eq!(metric(pushd.address(), "pushd_hook_questions_total{hook=\"site\"}"), 2);
}
