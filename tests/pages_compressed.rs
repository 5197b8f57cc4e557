//! Pages in the content coding that a client prefers: files that lie compressed beside a file, and text that is compressed.

mod common;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use common::http::{Answer, ask};
use common::{PLAIN, Pushd, Start, until, until_true};

/// Starts pushd with a static route at `/`, with these keys, and files in `www`.
fn serve(keys: &str, files: &[(&str, &[u8])]) -> Pushd {
    let route = format!("\"/\" = {{ static = \"www\"{keys} }}");
    let pushd = Start::new(&PLAIN.replace("\"/\" = { page = \"live\" }", &route));
    fs::create_dir(pushd.path().join("www")).unwrap();
    for (name, bytes) in files {
        write(&pushd.path().join("www").join(name), bytes, 60);
    }
    pushd.run()
}

/// Writes a file that was modified this many seconds ago.
fn write(path: &Path, bytes: &[u8], age: u64) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
}

fn get(address: SocketAddr, path: &str, accepted: &str) -> Answer {
    ask(address, "GET", path, &[&format!("Accept-Encoding: {accepted}")], b"")
}

/// The coding of an answer.
fn coding(answer: &Answer) -> &str {
    answer.field("content-encoding").unwrap_or("")
}

fn text() -> Vec<u8> {
    "<p>The same line, many times over.</p>\n".repeat(400).into_bytes()
}

fn unpack(answer: &Answer) -> Vec<u8> {
    let mut unpacked = Vec::new();
    let mut packed = answer.body.as_slice();
    match coding(answer) {
        "br" => brotli::BrotliDecompress(&mut packed, &mut unpacked).unwrap(),
        "zstd" => unpacked = zstd::stream::decode_all(packed).unwrap(),
        "gzip" => drop(flate2::read::GzDecoder::new(packed).read_to_end(&mut unpacked).unwrap()),
        _ => unpacked = answer.body.clone(),
    }
    unpacked
}

/// Requests a path until the answer has this coding: a file that has just changed is not compressed yet.
fn until_coded(address: SocketAddr, path: &str, accepted: &str, expected: &str) -> Answer {
    until(expected, || Some(get(address, path, accepted)).filter(|answer| coding(answer) == expected))
}

#[test]
fn a_compressed_file_beside_the_file_is_sent_by_quality() {
    let files: &[(&str, &[u8])] = &[
        ("app.js", b"let a = 'as it is'"),
        ("app.js.br", b"the br bytes"),
        ("app.js.zst", b"the zst bytes"),
        ("app.js.gz", b"the gz bytes"),
        ("photo.png", b"png"),
    ];
    let pushd = serve(", compress = false", files);
    let address = pushd.address();
    // Twice: the second answer may come from the cache.
    for _ in 0..2 {
        for (accepted, expected, bytes) in [
            ("gzip, deflate, br, zstd", "br", "the br bytes"),
            ("gzip, zstd", "zstd", "the zst bytes"),
            ("gzip", "gzip", "the gz bytes"),
            ("br;q=0.5, gzip;q=0.8", "gzip", "the gz bytes"),
            ("br;q=0, *", "zstd", "the zst bytes"),
            ("identity, br;q=0.9", "", "let a = 'as it is'"),
            ("deflate", "", "let a = 'as it is'"),
            ("identity;q=0, gzip;q=0.1", "gzip", "the gz bytes"),
            ("*;q=0", "", "let a = 'as it is'"),
        ] {
            let answer = get(address, "/app.js", accepted);
            assert_eq!((answer.status, coding(&answer), answer.text()), (200, expected, bytes), "{accepted}");
            assert_eq!(answer.field("vary"), Some("Accept-Encoding"), "{accepted}");
            assert_eq!(answer.field("content-type"), Some("text/javascript; charset=utf-8"), "{accepted}");
            assert_eq!(answer.field("content-length"), Some(&*bytes.len().to_string()), "{accepted}");
            let head = ask(address, "HEAD", "/app.js", &[&format!("Accept-Encoding: {accepted}")], b"");
            for name in ["content-encoding", "content-length", "content-type", "vary"] {
                assert_eq!(head.field(name), answer.field(name), "{accepted} {name}");
            }
        }
        let plain = ask(address, "GET", "/app.js", &[], b"");
        assert_eq!((coding(&plain), plain.field("vary")), ("", Some("Accept-Encoding")));
        let photo = get(address, "/photo.png", "gzip, br");
        assert_eq!((coding(&photo), photo.field("vary")), ("", None), "it has no other coding");
        let itself = get(address, "/app.js.gz", "gzip");
        assert_eq!((coding(&itself), itself.field("content-type")), ("", Some("application/gzip")));
    }
}

#[test]
fn each_coding_has_a_tag_of_its_own_and_ranges_are_of_the_coding() {
    let pushd = serve(", compress = false", &[("a.txt", b"0123456789"), ("a.txt.gz", b"gzipped bytes")]);
    let address = pushd.address();
    let strong = |accepted: &str| {
        let tag = || get(address, "/a.txt", accepted).field("etag").unwrap().to_owned();
        until("a strong tag", || Some(tag()).filter(|tag| !tag.starts_with("W/")))
    };
    let (plain, gzip) = (strong("identity"), strong("gzip"));
    assert_ne!(plain, gzip);
    for (accepted, held, status) in
        [("gzip", &gzip, 304), ("gzip", &plain, 200), ("identity", &plain, 304), ("identity", &gzip, 200)]
    {
        let fields = [&format!("Accept-Encoding: {accepted}"), &*format!("If-None-Match: {held}")];
        let answer = ask(address, "GET", "/a.txt", &fields, b"");
        assert_eq!(answer.status, status, "{accepted} {held}");
        assert_eq!(answer.field("vary"), Some("Accept-Encoding"));
    }
    let fields = ["Accept-Encoding: gzip", "Range: bytes=0-3", &*format!("If-Range: {gzip}")];
    let part = ask(address, "GET", "/a.txt", &fields, b"");
    assert_eq!((part.status, part.text(), coding(&part)), (206, "gzip", "gzip"));
    assert_eq!(part.field("content-range"), Some("bytes 0-3/13"));
    // The date is that of several codings, so it does not prove that the parts fit.
    let date = part.field("last-modified").unwrap().to_owned();
    let fields = ["Accept-Encoding: gzip", "Range: bytes=0-3", &*format!("If-Range: {date}")];
    assert_eq!(ask(address, "GET", "/a.txt", &fields, b"").status, 200);
}

#[test]
fn a_compressed_file_that_is_older_or_leads_elsewhere_is_not_sent() {
    let pushd = serve(", compress = false", &[("a.txt", b"plain"), ("b.txt", b"plain"), ("c.txt", b"plain")]);
    let (address, www) = (pushd.address(), pushd.path().join("www"));
    write(&www.join("a.txt.gz"), b"older", 120);
    write(&pushd.path().join("secret"), b"secret", 0);
    std::os::unix::fs::symlink("../secret", www.join("b.txt.gz")).unwrap();
    fs::create_dir(www.join("c.txt.gz")).unwrap();
    for path in ["/a.txt", "/b.txt", "/c.txt"] {
        let answer = get(address, path, "gzip");
        assert_eq!((answer.status, coding(&answer), answer.text()), (200, "", "plain"), "{path}");
    }
}

#[test]
fn a_change_beside_a_cached_file_is_noticed() {
    let pushd = serve(", compress = false", &[("a.txt", b"plain")]);
    let (address, www) = (pushd.address(), pushd.path().join("www"));
    let tag = || ask(address, "GET", "/a.txt", &[], b"").field("etag").unwrap().to_owned();
    until_true("a cached file", || !tag().starts_with("W/"));
    assert_eq!(coding(&get(address, "/a.txt", "gzip")), "");
    write(&www.join("a.txt.gz"), b"packed", 0);
    assert_eq!(until_coded(address, "/a.txt", "gzip", "gzip").text(), "packed");
    // Changed or deleted, it is noticed at once.
    write(&www.join("a.txt.gz"), b"changed", 0);
    assert_eq!(get(address, "/a.txt", "gzip").text(), "changed");
    fs::remove_file(www.join("a.txt.gz")).unwrap();
    assert_eq!(get(address, "/a.txt", "gzip").text(), "plain");
    // Only the file is edited.
    write(&www.join("a.txt.gz"), b"packed", 30);
    assert_eq!(until_coded(address, "/a.txt", "gzip", "gzip").text(), "packed");
    write(&www.join("a.txt"), b"edited", 0);
    assert_eq!(get(address, "/a.txt", "gzip").text(), "edited");
}

#[test]
fn text_is_compressed_once_it_has_settled() {
    let text = text();
    let files: &[(&str, &[u8])] =
        &[("page.html", &text), ("small.html", b"<p>small"), ("photo.png", &text), ("index.html", &text)];
    let pushd = serve("", files);
    let address = pushd.address();
    for (accepted, expected) in [("gzip, deflate, br, zstd", "br"), ("gzip, zstd", "zstd"), ("gzip", "gzip")] {
        let answer = until_coded(address, "/page.html", accepted, expected);
        assert!(answer.body.len() < text.len() / 10 && unpack(&answer) == text, "{accepted}");
        assert_eq!(answer.field("vary"), Some("Accept-Encoding"));
        let tag = answer.field("etag").unwrap();
        assert!(tag.starts_with('"'), "{tag}");
        let fields = [format!("Accept-Encoding: {accepted}"), format!("If-None-Match: {tag}")];
        assert_eq!(ask(address, "GET", "/page.html", &[&fields[0], &fields[1]], b"").status, 304);
        let fields = [format!("Accept-Encoding: {accepted}"), "Range: bytes=1-3".to_owned()];
        let part = ask(address, "GET", "/page.html", &[&fields[0], &fields[1]], b"");
        assert_eq!((part.status, &part.body[..]), (206, &answer.body[1..4]), "{accepted}");
        let head = ask(address, "HEAD", "/page.html", &[&fields[0]], b"");
        assert_eq!(head.field("content-length"), Some(&*answer.body.len().to_string()));
    }
    assert!(unpack(&until_coded(address, "/", "gzip", "gzip")) == text);
    let plain = ask(address, "GET", "/page.html", &[], b"");
    assert!(plain.body == text && coding(&plain).is_empty());
    assert_eq!(coding(&get(address, "/small.html", "gzip")), "");
    assert_eq!(coding(&get(address, "/photo.png", "gzip")), "");
    // An edit is sent at once, as it is.
    let edited = [b"edited".as_slice(), &text].concat();
    write(&pushd.path().join("www/page.html"), &edited, 0);
    assert!(get(address, "/page.html", "gzip").body == edited);
    assert!(unpack(&until_coded(address, "/page.html", "gzip", "gzip")) == edited);
}

#[test]
fn a_route_may_leave_text_as_it_is() {
    let text = text();
    let pushd = serve(", compress = false", &[("page.html", &text)]);
    let address = pushd.address();
    let strong = || get(address, "/page.html", "gzip, br, zstd");
    until_true("a settled file", || !strong().field("etag").unwrap().starts_with("W/"));
    let answer = strong();
    assert!(answer.body == text && coding(&answer).is_empty());
}
