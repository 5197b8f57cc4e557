//! `pushctl publish`, `subscribe` and `connect`, from outside, against servers that the tests control.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, WebSocket};

/// A test that waits longer than this has failed.
const DEADLINE: Duration = Duration::from_secs(60);

fn pushctl(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushctl"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs pushctl with `input`. Returns exit code, standard output and standard error.
fn run_with(args: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut child = pushctl(args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that does not want its input closes it.
    let _ = stdin.write_all(input);
    drop(stdin);
    outcome(child)
}

fn run(args: &[&str]) -> (i32, String, String) {
    run_with(args, b"")
}

fn outcome(child: Child) -> (i32, String, String) {
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().expect("an exit, not a signal"), text(stdout), text(stderr))
}

/// A connection to a client. If the process was stopped and continued, the kernel does not restart a read with a
/// timeout (signal(7)), and neither does tungstenite, so it is done here.
struct Peer(TcpStream);

impl Read for Peer {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

impl Write for Peer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Serves one connection on a port of its own. Returns the port, and a receiver of the result of `serve`.
fn server<T: Send + 'static>(serve: impl FnOnce(Peer) -> T + Send + 'static) -> (u16, Receiver<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, found) = channel();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let _ = sender.send(serve(Peer(stream)));
    });
    (port, found)
}

/// Serves one WebSocket. Returns its URL, and a receiver of the result of `serve`.
fn websocket<T: Send + 'static>(
    serve: impl FnOnce(&mut WebSocket<Peer>) -> T + Send + 'static,
) -> (String, Receiver<T>) {
    let (port, found) = server(|stream| serve(&mut tungstenite::accept(stream).unwrap()));
    (format!("ws://127.0.0.1:{port}/ws"), found)
}

/// Waits for the client's close and returns its code.
fn code_of_close(socket: &mut WebSocket<Peer>) -> u16 {
    loop {
        if let Message::Close(frame) = socket.read().expect("the client sends a close") {
            // The answer is sent by the read that finds the end.
            let _ = socket.read();
            return frame.expect("the close has a code").code.into();
        }
    }
}

fn close(socket: &mut WebSocket<Peer>, code: u16, reason: &'static str) {
    socket.close(Some(CloseFrame { code: code.into(), reason: reason.into() })).unwrap();
    while socket.read().is_ok() {}
}

fn echo(socket: &mut WebSocket<Peer>) {
    while let Ok(message) = socket.read() {
        if message.is_text() {
            socket.send(message).unwrap();
        }
    }
}

/// The head of a request.
fn head(stream: &mut impl BufRead) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).unwrap(), 0, "the request ended early: {head}");
    }
    head.to_lowercase()
}

fn length(head: &str) -> usize {
    let line = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    line.map_or(0, |value| value.parse().unwrap())
}

/// Reads one request and answers it. Returns its head and its body.
fn answer(stream: impl Read + Write, status: &str, body: &str) -> (String, Vec<u8>) {
    let mut stream = BufReader::new(stream);
    let head = head(&mut stream);
    if head.contains("expect: 100-continue") {
        stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
    }
    let mut received = vec![0; length(&head)];
    stream.read_exact(&mut received).unwrap();
    write!(stream.get_mut(), "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    (head, received)
}

const PUBLISHED: &str = "{\"channel\":\"news\",\"subscribers\":2}\n";

#[test]
fn publish_posts_to_the_route_of_a_channel() {
    let (port, request) = server(|stream| answer(stream, "200 OK", PUBLISHED));
    let route = format!("http://127.0.0.1:{port}/publish/{{channel}}");
    assert_eq!(run(&["publish", "--url", &route, "user/7", "It works"]), (0, PUBLISHED.into(), String::new()));
    let (head, body) = request.recv_timeout(DEADLINE).unwrap();
    assert!(head.starts_with("post /publish/user%2f7 http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nhost: 127.0.0.1:{port}\r\n")), "{head}");
    assert!(head.contains("\r\ncontent-type: text/plain; charset=utf-8\r\n"), "{head}");
    assert_eq!(body, b"It works");
}

#[test]
fn publish_takes_the_message_from_standard_input() {
    for (args, sent) in [(&["-"][..], &b"a\nb"[..]), (&[], b"a\nb"), (&["--binary"], b"a\nb\n")] {
        let (port, request) = server(|stream| answer(stream, "202 Accepted", PUBLISHED));
        let url = format!("ws://127.0.0.1:{port}/publish/news");
        let (code, ..) = run_with(&[&["publish", &url], args].concat(), b"a\nb\n");
        let (head, body) = request.recv_timeout(DEADLINE).unwrap();
        assert_eq!((code, &body[..]), (0, sent), "{args:?}");
        assert_eq!(head.contains("content-type: application/octet-stream\r\n"), args == ["--binary"], "{head}");
    }
}

#[test]
fn publish_needs_no_input_if_the_url_has_the_message() {
    let (port, request) = server(|stream| answer(stream, "200 OK", PUBLISHED));
    let mut child = pushctl(&["publish", &format!("http://127.0.0.1:{port}/pushtoall?message=Grüß Gott")]);
    // Standard input stays open: reading it would block for ever.
    let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
    let stdin = child.stdin.take();
    assert_eq!(outcome(child).0, 0);
    let (head, body) = request.recv_timeout(DEADLINE).unwrap();
    assert!(head.starts_with("post /pushtoall?message=gr%c3%bc%c3%9f%20gott http/1.1\r\n"), "{head}");
    assert_eq!(body, b"");
    drop(stdin);
}

#[test]
fn publish_sends_a_batch_and_counts_what_is_refused() {
    let refused = "{\"error\":\"the message has neither `data` nor `base64`\"}\n";
    for (answered, expected) in [(PUBLISHED.repeat(2), 0), (format!("{PUBLISHED}{refused}"), 1)] {
        let body = answered.clone();
        let (port, request) = server(move |stream| answer(stream, "200 OK", &body));
        let url = format!("http://127.0.0.1:{port}/batch");
        let (code, out, err) = run_with(&["publish", "--batch", &url], b"{}\n{}\n");
        assert_eq!((code, out), (expected, answered), "{err}");
        assert_eq!(err.contains("1 of 2 messages were refused"), expected == 1, "{err}");
        let (head, body) = request.recv_timeout(DEADLINE).unwrap();
        assert!(head.contains("\r\ncontent-type: application/x-ndjson\r\n"), "{head}");
        assert_eq!(body, b"{}\n{}\n");
    }
    let (code, _, err) = run(&["publish", "--batch", "news"]);
    assert_eq!(code, 64, "{err}");
    assert!(err.contains("needs the address of a route"), "{err}");
}

#[test]
fn publish_reaches_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let request = std::thread::spawn(move || answer(listener.accept().unwrap().0, "200 OK", PUBLISHED));
    let (code, out, _) = run(&["publish", &format!("unix:{}:/publish/news", path.display()), "x"]);
    assert_eq!((code, out.as_str()), (0, PUBLISHED));
    assert!(request.join().unwrap().0.starts_with("post /publish/news "));
}

#[test]
fn a_refused_publish_reports_the_reason() {
    let (port, _) = server(|stream| answer(stream, "400 Bad Request", "{\"error\":\"missing argument `userid`\"}"));
    let (code, out, err) = run(&["publish", &format!("http://127.0.0.1:{port}/push"), "x"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("missing argument `userid` (400 Bad Request)"), "{err}");
}

#[test]
fn a_large_message_is_refused_before_it_is_sent() {
    let large = vec![b'a'; 8 << 20];
    let (port, rest) = server(|stream| {
        let mut stream = BufReader::new(stream);
        assert!(head(&mut stream).contains("expect: 100-continue\r\n"));
        let refusal =
            "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 19\r\nConnection: close\r\n\r\n{\"error\":\"too big\"}";
        stream.get_mut().write_all(refusal.as_bytes()).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        rest.len()
    });
    let (code, _, err) = run_with(&["publish", &format!("http://127.0.0.1:{port}/p")], &large);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("too big (413 Payload Too Large)"), "{err}");
    assert_eq!(rest.recv_timeout(DEADLINE).unwrap(), 0);

    let (port, request) = server(|stream| answer(stream, "200 OK", PUBLISHED));
    let (code, ..) = run_with(&["publish", &format!("http://127.0.0.1:{port}/p")], &large);
    assert_eq!(code, 0);
    assert_eq!(request.recv_timeout(DEADLINE).unwrap().1, large);
}

#[test]
fn an_unreachable_server_exits_with_69() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/x");
    for args in [&["publish", &url, "x"][..], &["subscribe", &url], &["connect", &url, "x"]] {
        let (code, _, err) = run(args);
        assert_eq!(code, 69, "{args:?}: {err}");
        assert!(err.contains(&format!("127.0.0.1:{port}")) && err.contains("refused"), "{err}");
    }
}

#[test]
fn subscribe_prints_one_message_a_line_until_it_is_closed() {
    for (code, exit) in [(1000, 0), (1001, 0), (1008, 1), (4000, 1)] {
        let (url, _done) = websocket(move |socket| {
            socket.send(Message::text("one")).unwrap();
            socket.send(Message::binary(vec![0, 10, 255])).unwrap();
            socket.send(Message::text("zwölf")).unwrap();
            close(socket, code, "a reason");
        });
        let expected = (exit, "one\n(3 bytes)\nzwölf\n".into(), format!("opened\nclosed {code} a reason\n"));
        assert_eq!(run(&["subscribe", &url]), expected);
    }
}

#[test]
fn subscribe_prints_bytes_unchanged() {
    let (url, _done) = websocket(|socket| {
        socket.send(Message::binary("by\ntes")).unwrap();
        close(socket, 1000, "");
    });
    assert_eq!(run(&["subscribe", "--binary", &url]).1, "by\ntes");
}

#[test]
fn subscribe_ends_after_count_messages() {
    let (url, code) = websocket(|socket| {
        for n in 0..3 {
            socket.send(Message::text(n.to_string())).unwrap();
        }
        code_of_close(socket)
    });
    assert_eq!(run(&["subscribe", "--count", "2", &url]), (0, "0\n1\n".into(), "opened\nclosed 1000\n".into()));
    assert_eq!(code.recv_timeout(DEADLINE).unwrap(), 1000);
}

#[test]
fn subscribe_ends_after_its_timeout() {
    for (args, exit) in [(&[][..], 0), (&["--count", "1"], 1)] {
        let (url, code) = websocket(code_of_close);
        let (found, _, err) = run(&[&["subscribe", "--timeout", "50ms", &url], args].concat());
        assert_eq!(found, exit, "{err}");
        assert_eq!(err.contains("0 of 1 messages came in time"), exit == 1, "{err}");
        assert_eq!(code.recv_timeout(DEADLINE).unwrap(), 1000);
    }
}

#[test]
fn subscribe_closes_the_session_when_interrupted() {
    let (url, code) = websocket(|socket| {
        socket.send(Message::text("one")).unwrap();
        code_of_close(socket)
    });
    let mut child = pushctl(&["subscribe", &url]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(outcome(child), (0, String::new(), "opened\nclosed 1000\n".into()));
    assert_eq!(code.recv_timeout(DEADLINE).unwrap(), 1000);
}

#[test]
fn a_connection_that_is_cut_is_not_a_clean_end() {
    let (url, _done) = websocket(|socket| socket.send(Message::text("one")).unwrap());
    let (code, out, err) = run(&["subscribe", &url]);
    assert_eq!((code, out.as_str()), (1, "one\n"));
    assert!(err.contains("closed 1006"), "{err}");
}

#[test]
fn a_refused_handshake_reports_the_reason() {
    let (port, request) = server(|stream| answer(stream, "403 Forbidden", "Origin http://x is not allowed here\n"));
    let (code, _, err) = run(&["subscribe", "--origin", "http://x", &format!("ws://127.0.0.1:{port}/ws")]);
    assert_eq!(code, 1);
    assert!(err.contains("Origin http://x is not allowed here (403 Forbidden)"), "{err}");
    assert!(request.recv_timeout(DEADLINE).unwrap().0.contains("\r\norigin: http://x\r\n"));
}

#[test]
fn connect_sends_lines_and_prints_the_answers() {
    let (url, _done) = websocket(echo);
    let expected = (0, "Hello Chetan\n".into(), "opened\nclosed 1000\n".into());
    assert_eq!(run(&["connect", &url, "Hello Chetan"]), expected);
    let (url, _done) = websocket(echo);
    assert_eq!(run(&["connect", &url.replace("ws:", "http:"), "a", "-7", "--", "-b"]).1, "a\n-7\n-b\n");
    let (url, _done) = websocket(echo);
    let many: String = (0..5000).map(|n| format!("{n}\n")).collect();
    let (code, out, err) = run_with(&["connect", &url], many.as_bytes());
    assert_eq!((code, out == many), (0, true), "{} of {} bytes: {err}", out.len(), many.len());
}

#[test]
fn connect_without_lines_prints_the_greeting() {
    let (url, code) = websocket(|socket| {
        socket.send(Message::text("Hello World")).unwrap();
        code_of_close(socket)
    });
    assert_eq!(run(&["connect", &url]), (0, "Hello World\n".into(), "opened\nclosed 1000\n".into()));
    assert_eq!(code.recv_timeout(DEADLINE).unwrap(), 1000);
}

#[test]
fn connect_fails_if_an_answer_is_missing() {
    let (url, code) = websocket(code_of_close);
    let (exit, _, err) = run(&["connect", "--timeout", "50ms", &url, "anybody?"]);
    assert_eq!(exit, 1);
    assert!(err.contains("0 of 1 messages came in time; the route must echo or broadcast (on_message)"), "{err}");
    assert_eq!(code.recv_timeout(DEADLINE).unwrap(), 1000);
}

#[test]
#[expect(clippy::result_large_err, reason = "tungstenite's own type")]
fn connect_offers_a_subprotocol() {
    let (port, offered) = server(|stream| {
        let mut offered = None;
        let choose = |request: &Request, mut response: Response| {
            offered = request.headers().get("sec-websocket-protocol").cloned();
            response.headers_mut().insert("sec-websocket-protocol", "chat".parse().unwrap());
            Ok(response)
        };
        let mut socket = tungstenite::accept_hdr(stream, choose).unwrap();
        echo(&mut socket);
        offered.unwrap()
    });
    let (code, out, err) = run(&["connect", "--subprotocol", "chat", &format!("ws://127.0.0.1:{port}/"), "x"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "x\n", "opened, subprotocol chat\nclosed 1000\n"));
    assert_eq!(offered.recv_timeout(DEADLINE).unwrap(), "chat");
}

#[test]
fn usage_errors_exit_with_64_and_help_with_0() {
    for args in [
        &[][..],
        &["frob"],
        &["publish"],
        &["publish", "ftp://h/", "x"],
        &["publish", "127.0.0.1:8888/publish/news", "x"],
        &["publish", "--url", "http://h/p", "news", "x"],
        &["publish", "news", "--bianry"],
        &["connect", "ws://h/", "x", "--timout", "1s"],
        &["subscribe", "news"],
        &["subscribe", "--count", "0", "ws://h/"],
        &["subscribe", "--timeout", "soon", "ws://h/"],
        &["connect", "wsss://h/"],
    ] {
        assert_eq!(run(args).0, 64, "{args:?}");
    }
    for args in [&["--help"][..], &["--version"], &["publish", "--help"], &["connect", "-h"]] {
        let (code, out, err) = run(args);
        assert_eq!((code, out.contains("push"), err.as_str()), (0, true, ""), "{args:?}");
    }
}
