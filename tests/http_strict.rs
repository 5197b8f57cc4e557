//! HTTP and WebSocket to the letter: a corpus of requests, each with the results that the RFC allows.
//!
//! `tests/http_strict/*.txt` contain one request a line: `SECTION | OUTCOMES | WHY | BYTES`. Each is sent to the same
//! pushd on a connection of its own, first as a whole and then byte by byte, and pushd must still serve after it. See
//! [`corpus`] for the syntax of a line, and [`play`] for the outcomes.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use common::http::{Answer, get};
use common::wire::Wire;
use common::ws::{CLOSE, PING, PONG, TEXT, close_payload, frame, take_frame};
use common::{Pushd, Start};

/// The minimum number of lines.
const LINES_MIN: usize = 300;
/// Longer requests are not sent byte by byte; they test the length.
const DRIBBLED_BYTES_MAX: usize = 4096;
/// How long pushd may send nothing: longer than its timeouts.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How much memory the process may gain after the corpus was played several times, in bytes.
const GROWTH_BYTES_MAX: usize = 4 << 20;

const CONFIG: &str = r#"
[server.main]
listen = "127.0.0.1:0"
hosts = "any"
header_timeout = "3s"
body_timeout = "3s"
[server.main.routes]
"/ws" = { websocket = "push" }
"/echo" = { websocket = "push", on_message = "echo" }
"/old" = { websocket = "push", on_message = "echo", draft76 = true }
"/publish/{channel}" = { publish = "push", channel = "{channel}" }
"/form" = { publish = "push", methods = ["GET", "POST"], channel = "all", message = "{m=}" }
"/metrics" = { metrics = true }
"/healthz" = { health = true }
"/readyz" = { ready = true }
"/files/" = { static = "." }
"/" = { page = "live" }
[hub.push]
message_max = "300"
[daemon]
workers = 1
"#;

/// The file for static requests.
const FILE: (&str, &str) = ("page.html", "<p>a page</p>\n");

/// A request and its allowed outcomes.
struct Line {
    /// File and line number.
    location: String,
    /// The allowed outcomes; see [`play`].
    outcomes: Vec<String>,
    bytes: Vec<u8>,
    /// The client closes its sending side after the request.
    finishes: bool,
}

/// Reads the corpus. In the bytes of a line, `↵` is CR LF, and a backslash escapes as in C. `{N*TEXT}` is TEXT repeated
/// N times. `{FF:TEXT}` is a frame of a client with that first byte. `{NAME}` is the content of an earlier line `NAME =
/// …`. `{FIN}` at the end closes the sending side.
fn corpus() -> Vec<Line> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/http_strict");
    let files: BTreeSet<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut lines = Vec::new();
    for file in files {
        let mut names = BTreeMap::new();
        for (number, text) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            let location = format!("{}:{}", file.file_name().unwrap().display(), number + 1);
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            if let [section, outcomes, why, bytes] = text.splitn(4, " | ").map(str::trim).collect::<Vec<_>>()[..] {
                assert!(section.starts_with(|c: char| c.is_ascii_digit()) && !why.is_empty(), "{location}: {text}");
                let (bytes, finishes) = bytes.strip_suffix("{FIN}").map_or((bytes, false), |bytes| (bytes, true));
                let outcomes = outcomes.split(" or ").map(|outcome| outcome.trim().to_owned()).collect();
                lines.push(Line { outcomes, bytes: expand(bytes, &names, &location), finishes, location });
            } else {
                let (name, bytes) = text.split_once(" = ").unwrap_or_else(|| panic!("{location}: {text}"));
                names.insert(name.trim().to_owned(), expand(bytes, &names, &location));
            }
        }
    }
    lines
}

fn expand(text: &str, names: &BTreeMap<String, Vec<u8>>, location: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        rest = match first {
            '↵' => {
                bytes.extend(b"\r\n");
                after
            }
            '\\' => {
                let (byte, length) = match after.as_bytes()[0] {
                    b'r' => (b'\r', 1),
                    b'n' => (b'\n', 1),
                    b't' => (b'\t', 1),
                    b'0' => (0, 1),
                    b'x' => (u8::from_str_radix(&after[1..3], 16).unwrap(), 3),
                    other => (other, 1),
                };
                bytes.push(byte);
                &after[length..]
            }
            '{' => {
                let (macro_, after) = after.split_once('}').unwrap_or_else(|| panic!("{location}: {rest}"));
                if let Some((count, text)) = macro_.split_once('*') {
                    bytes.extend(expand(text, names, location).repeat(count.parse().unwrap()));
                } else if let Some((first, text)) = macro_.split_once(':') {
                    let first = u8::from_str_radix(first, 16).unwrap();
                    bytes.extend(frame(first, &expand(text, names, location)));
                } else {
                    bytes.extend(names.get(macro_).unwrap_or_else(|| panic!("{location}: no {macro_}")));
                }
                after
            }
            other => {
                bytes.extend(other.to_string().as_bytes());
                after
            }
        };
    }
    bytes
}

/// Sends a line and returns the outcome: the statuses of the responses in order, after a 101 the frames (`text`,
/// `pong`, `close-CODE`…), and `close` if pushd closed the connection. If it did not, one more request must be answered
/// after that, and nothing but its response may arrive.
fn play(address: SocketAddr, line: &Line, byte_by_byte: bool) -> String {
    let mut wire = Wire::connect(address);
    if byte_by_byte && line.bytes.len() <= DRIBBLED_BYTES_MAX {
        // If pushd has closed the connection, the rest cannot be sent.
        let _ = line.bytes.iter().all(|byte| wire.try_send(&[*byte]));
    } else {
        wire.try_send(&line.bytes);
    }
    if line.finishes {
        wire.finish();
    }
    // The number of responses to wait for before the test checks whether the connection is still open.
    let open = |outcome: &&String| !outcome.ends_with("close") && !outcome.contains("close-");
    let finals = |outcome: &str| outcome.split_whitespace().filter(|part| *part != "100").count();
    let awaited = line.outcomes.iter().filter(open).map(|outcome| finals(outcome)).max();
    let mut came: Vec<String> = Vec::new();
    let mut upgraded = false;
    let mut asked = false;
    loop {
        if !asked && awaited == Some(finals(&came.join(" "))) && !line.finishes {
            asked = true;
            let probe = b"GET /readyz HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n";
            wire.try_send(&if upgraded { frame(PING, b"probe") } else { probe.to_vec() });
        }
        if wire.is_silent_for(SILENCE_MAX) {
            came.push("and then nothing".to_owned());
            break;
        }
        if !wire.has_more() {
            came.push("close".to_owned());
            break;
        }
        if upgraded {
            let (first, payload) = take_frame(&mut wire);
            if asked && (first, &payload[..]) == (PONG, &b"probe"[..]) {
                break;
            }
            came.push(match first {
                TEXT => "text".to_owned(),
                PONG => "pong".to_owned(),
                CLOSE => format!("close-{}", u16::from_be_bytes([payload[0], payload[1]])),
                other => format!("frame-{other:02x}"),
            });
            if first == CLOSE {
                wire.try_send(&frame(CLOSE, &close_payload(1000, "")));
                wire.expect_end();
                break;
            }
            continue;
        }
        let is_head = came.is_empty() && line.bytes.starts_with(b"HEAD ");
        let mut answer = Answer::read_head(&mut wire);
        let length = answer.field("content-length").map_or(0, |length| length.parse().unwrap());
        if !is_head {
            answer.body = wire.take(length);
        }
        if asked && answer.body == b"ready\n" {
            assert!(!wire.has_more(), "{}: more bytes after the last response", line.location);
            break;
        }
        upgraded = answer.status == 101;
        came.push(answer.status.to_string());
    }
    came.join(" ")
}

fn resident_bytes(pushd: &Pushd) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", pushd.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[test]
fn every_request_has_an_outcome_that_its_rfc_allows() {
    let lines = corpus();
    assert!(lines.len() >= LINES_MIN, "only {} lines", lines.len());
    let start = Start::new(CONFIG);
    fs::write(start.path().join(FILE.0), FILE.1).unwrap();
    let pushd = start.run();
    let address = pushd.address();
    let mut wrong = Vec::new();
    let mut resident = Vec::new();
    for pass in 0..4 {
        let byte_by_byte = pass == 1;
        // Requests that wait for a timeout are sent only once.
        for line in
            lines.iter().filter(|line| pass == 0 || !line.outcomes.iter().any(|outcome| outcome.contains("408")))
        {
            let came = play(address, line, byte_by_byte);
            if !line.outcomes.contains(&came) {
                let how = if byte_by_byte { ", byte by byte" } else { "" };
                wrong.push(format!("{}{how}: {came}, not {}", line.location, line.outcomes.join(" or ")));
            }
            assert_eq!(get(address, "/healthz").status, 200, "after {}", line.location);
        }
        resident.push(resident_bytes(&pushd));
        assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), lines.len(), wrong.join("\n"));
    }
    let grown = resident[3].saturating_sub(resident[1]);
    assert!(grown < GROWTH_BYTES_MAX, "the process grew by {grown} bytes: {resident:?}");
}
