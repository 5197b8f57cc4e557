//! The promises of a static route, tested on a real directory.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http_body_util::BodyExt;
use nix::sys::stat::Mode;
use tempfile::TempDir;

use std::path::PathBuf;

use http::{HeaderMap, Uri};

use super::open::Root;
use super::*;
use crate::config;

const SECRET: &str = "not for the public";

/// `site/` contains the files; `secret` is beside it.
struct Fixture {
    directory: TempDir,
    site: config::Static,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn field(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Fixture {
    fn new() -> Fixture {
        let directory = TempDir::new().unwrap();
        let root = directory.path().join("site");
        fs::create_dir_all(root.join("sub/empty")).unwrap();
        fs::create_dir_all(root.join("indexed")).unwrap();
        fs::create_dir_all(root.join(".well-known")).unwrap();
        fs::write(directory.path().join("secret"), SECRET).unwrap();
        fs::write(root.join("page.html"), "<p>hello").unwrap();
        fs::write(root.join("sub/notes.txt"), "0123456789").unwrap();
        fs::write(root.join("indexed/index.html"), "the index").unwrap();
        fs::write(root.join(".env"), SECRET).unwrap();
        fs::write(root.join(".well-known/security.txt"), "Contact: x").unwrap();
        let index = vec!["index.html".to_owned(), "index.htm".to_owned()];
        Fixture { directory, site: config::Static { index, ..config::Static::plain(root) } }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.site.root.join(name)
    }

    async fn ask(&self, method: Method, target: &str, fields: &[(&'static str, &str)]) -> Answer {
        let uri: Uri = target.parse().unwrap();
        let rest = uri.path().strip_prefix('/').unwrap().to_owned();
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let pages = Pages::new(&self.site);
        let answer = respond(&pages, &Files::default(), &pages.ask(&method, &uri, &headers, &rest)).await;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn load(&self, target: &str) -> Answer {
        self.ask(Method::GET, target, &[]).await
    }

    async fn status(&self, target: &str) -> u16 {
        let answer = self.load(target).await;
        assert!(!answer.text().contains(SECRET), "{target} gave the secret away");
        answer.status
    }
}

#[tokio::test]
async fn a_file_is_sent_with_its_header_fields() {
    let fixture = Fixture::new();
    let answer = fixture.load("/page.html?v=1").await;
    assert_eq!((answer.status, answer.text()), (200, "<p>hello"));
    assert_eq!(answer.field("content-type"), "text/html; charset=utf-8");
    assert_eq!(answer.field("content-length"), "8");
    assert_eq!(answer.field("x-content-type-options"), "nosniff");
    assert_eq!(answer.field("cache-control"), "no-cache");
    assert_eq!(answer.field("accept-ranges"), "bytes");
    let metadata = fs::metadata(fixture.path("page.html")).unwrap();
    let written = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
    let changed = metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec();
    let tag = format!("{:x}-{written:x}-{changed:x}-8", metadata.ino());
    assert_eq!(answer.field("etag"), format!("W/\"{tag}-new\""));
    let answer = settled(&fixture, "/page.html").await;
    assert_eq!(answer.field("etag"), format!("\"{tag}\""));
    assert_eq!(answer.field("last-modified"), httpdate::fmt_http_date(metadata.modified().unwrap()));

    let head = fixture.ask(Method::HEAD, "/page.html", &[("range", "bytes=0-1")]).await;
    assert_eq!((head.status, head.text()), (200, ""));
    for name in ["content-type", "content-length", "etag", "last-modified", "cache-control"] {
        assert_eq!(head.field(name), answer.field(name), "{name}");
    }
}

#[tokio::test]
async fn large_files_are_streamed_completely_and_in_part() {
    let fixture = Fixture::new();
    let bytes: Vec<u8> = (0..300_000_u32).map(|i| (i % 253) as u8).collect();
    fs::write(fixture.path("large.bin"), &bytes).unwrap();
    let answer = fixture.load("/large.bin").await;
    assert_eq!(answer.field("content-type"), "application/octet-stream");
    assert_eq!(answer.field("content-length"), "300000");
    assert!(answer.body == bytes);
    let part = fixture.ask(Method::GET, "/large.bin", &[("range", "bytes=1000-200999")]).await;
    assert_eq!((part.status, part.field("content-range")), (206, "bytes 1000-200999/300000"));
    assert!(part.body == bytes[1000..=200_999]);
    fs::write(fixture.path("none.txt"), "").unwrap();
    let empty = fixture.load("/none.txt").await;
    assert_eq!((empty.status, empty.field("content-length")), (200, "0"));
}

#[tokio::test]
async fn a_range_is_answered_with_its_bytes_or_with_416() {
    let fixture = Fixture::new();
    let whole = fixture.load("/sub/notes.txt").await;
    let part = fixture.ask(Method::GET, "/sub/notes.txt", &[("range", "bytes=2-4")]).await;
    assert_eq!((part.status, part.text()), (206, "234"));
    assert_eq!((part.field("content-range"), part.field("content-length")), ("bytes 2-4/10", "3"));
    assert_eq!(part.field("etag"), whole.field("etag"));
    let outside = fixture.ask(Method::GET, "/sub/notes.txt", &[("range", "bytes=10-")]).await;
    assert_eq!((outside.status, outside.field("content-range")), (416, "bytes */10"));
    for ignored in ["bytes=5-3", "lines=1-2", "bytes=0-1,3-4"] {
        let answer = fixture.ask(Method::GET, "/sub/notes.txt", &[("range", ignored)]).await;
        assert_eq!((answer.status, answer.text()), (200, "0123456789"), "{ignored}");
    }
    let other = fixture.ask(Method::GET, "/sub/notes.txt", &[("range", "bytes=2-4"), ("if-range", "\"x\"")]).await;
    assert_eq!((other.status, other.text()), (200, "0123456789"));
}

#[tokio::test]
async fn a_file_that_the_client_has_is_not_sent_again() {
    let fixture = Fixture::new();
    let first = fixture.load("/page.html").await;
    for (name, value) in [("if-none-match", first.field("etag")), ("if-modified-since", first.field("last-modified"))] {
        for method in [Method::GET, Method::HEAD] {
            let again = fixture.ask(method, "/page.html", &[(name, value)]).await;
            assert_eq!((again.status, again.text()), (304, ""), "{name}");
            for name in ["etag", "last-modified", "cache-control"] {
                assert_eq!(again.field(name), first.field(name), "{name}");
            }
            assert!(!again.headers.contains_key("content-length"));
        }
    }
    let failed = fixture.ask(Method::GET, "/page.html", &[("if-match", "\"x\"")]).await;
    assert_eq!(failed.status, 412);
    // Changed within the same second, with the same length: the date is the same, the tag differs.
    let file = File::options().write(true).open(fixture.path("page.html")).unwrap();
    file.set_modified(fs::metadata(fixture.path("page.html")).unwrap().modified().unwrap() + Duration::from_nanos(1))
        .unwrap();
    let changed = fixture.ask(Method::GET, "/page.html", &[("if-none-match", first.field("etag"))]).await;
    assert_eq!(changed.status, 200);
}

#[tokio::test]
async fn dates_that_cannot_be_sent_are_left_out() {
    let fixture = Fixture::new();
    let file = File::options().write(true).open(fixture.path("page.html")).unwrap();
    let long = Duration::from_secs(1_000_000);
    for time in [UNIX_EPOCH - long, SystemTime::now() + long] {
        file.set_modified(time).unwrap();
        let answer = fixture.load("/page.html").await;
        assert_eq!((answer.status, answer.field("last-modified")), (200, ""));
        assert!(answer.field("etag").ends_with('"'));
    }
    file.set_modified(UNIX_EPOCH + Duration::from_millis(2_999)).unwrap();
    assert_eq!(fixture.load("/page.html").await.field("last-modified"), "Thu, 01 Jan 1970 00:00:02 GMT");
}

/// Repeats the request until the tag is strong, which it becomes once a change would be visible.
async fn settled(fixture: &Fixture, target: &str) -> Answer {
    let began = Instant::now();
    loop {
        let answer = fixture.load(target).await;
        if answer.field("etag").starts_with('"') {
            return answer;
        }
        assert!(answer.field("etag").starts_with("W/\""), "{}", answer.field("etag"));
        assert!(began.elapsed() < Duration::from_secs(60), "never settled");
        // Polled up to the deadline.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn changed_content_is_detected_even_with_the_same_size_and_time() {
    let fixture = Fixture::new();
    let path = fixture.path("page.html");
    for seconds in [0, 1, 1_000_000_000] {
        let put = |bytes: &str| {
            fs::write(&path, bytes).unwrap();
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        put("<p>first");
        let first = settled(&fixture, "/page.html").await;
        let (tag, date) = (first.field("etag"), first.field("last-modified"));
        assert_eq!(date.is_empty(), seconds < 2, "a date that all versions have is left out");
        let again = fixture.ask(Method::GET, "/page.html", &[("if-none-match", tag)]).await;
        assert_eq!(again.status, 304);
        // Twice: for a fresh file, and for a settled one that is cached.
        for replaced in ["<p>other", "<p>third"] {
            put(replaced);
            for settle in [false, true] {
                if settle {
                    settled(&fixture, "/page.html").await;
                }
                let now = fixture.ask(Method::GET, "/page.html", &[("if-none-match", tag)]).await;
                assert_eq!((now.status, now.text()), (200, replaced), "{seconds}");
                let held = if date.is_empty() { "Thu, 01 Jan 1970 00:00:01 GMT" } else { date };
                for held in [tag, held] {
                    let part =
                        fixture.ask(Method::GET, "/page.html", &[("range", "bytes=3-"), ("if-range", held)]).await;
                    assert_eq!((part.status, part.text()), (200, replaced), "{seconds} {held}");
                }
            }
        }
        // Another file is moved to its path.
        fs::rename(fixture.path("sub/notes.txt"), fixture.path("aside")).unwrap();
        fs::write(fixture.path("sub/notes.txt"), "<p>moved").unwrap();
        let time = UNIX_EPOCH + Duration::from_secs(seconds);
        File::options().write(true).open(fixture.path("sub/notes.txt")).unwrap().set_modified(time).unwrap();
        fs::rename(fixture.path("sub/notes.txt"), &path).unwrap();
        fs::rename(fixture.path("aside"), fixture.path("sub/notes.txt")).unwrap();
        let moved = fixture.ask(Method::GET, "/page.html", &[("if-none-match", tag)]).await;
        assert_eq!((moved.status, moved.text()), (200, "<p>moved"));
    }
}

#[tokio::test]
async fn the_number_of_files_sent_at_once_is_limited() {
    let fixture = Fixture::new();
    let files = Files::default();
    files.allow(1);
    for name in ["one.bin", "two.bin"] {
        fs::write(fixture.path(name), vec![7; 300_000]).unwrap();
    }
    let load = async |name: &str| {
        let uri: Uri = format!("/{name}").parse().unwrap();
        let pages = Pages::new(&fixture.site);
        respond(&pages, &files, &pages.ask(&Method::GET, &uri, &HeaderMap::new(), name)).await
    };
    let first = load("one.bin").await;
    let again = load("one.bin").await;
    let refused = load("two.bin").await;
    assert_eq!((first.status(), again.status(), refused.status().as_u16()), (StatusCode::OK, StatusCode::OK, 503));
    assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
    assert_eq!(again.into_body().collect().await.unwrap().to_bytes().len(), 300_000);
    drop(first);
    assert_eq!(load("two.bin").await.status(), 200);
}

#[tokio::test]
async fn requests_at_the_same_time_share_one_listing() {
    let mut fixture = Fixture::new();
    fixture.site.listing = true;
    let root = Root::open(&fixture.site.root).unwrap();
    let directory = || listing::ListedDirectory::new(&fixture.site.root, Path::new("sub"), "/sub/");
    let arrived = Instant::now();
    let first = listing::page(&root, directory(), arrived).unwrap();
    let shared = listing::page(&root, directory(), arrived).unwrap();
    assert_eq!(first.as_ptr(), shared.as_ptr(), "it was made after this request arrived");
    // The directory may have changed without a visible sign.
    let later = listing::page(&root, directory(), Instant::now()).unwrap();
    assert_ne!(first.as_ptr(), later.as_ptr());
    fs::write(fixture.path("sub/new.txt"), "").unwrap();
    assert!(fixture.load("/sub/").await.text().contains("new.txt"), "a change is visible at once");
}

#[tokio::test]
async fn only_reading_is_allowed() {
    let fixture = Fixture::new();
    let options = fixture.ask(Method::OPTIONS, "/page.html", &[]).await;
    assert_eq!((options.status, options.field("allow")), (204, "GET, HEAD, OPTIONS"));
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::TRACE] {
        let answer = fixture.ask(method, "/page.html", &[]).await;
        assert_eq!((answer.status, answer.field("allow")), (405, "GET, HEAD, OPTIONS"));
    }
}

#[tokio::test]
async fn no_spelling_leaves_the_root_or_reveals_hidden_files() {
    let fixture = Fixture::new();
    for target in [
        "/../secret",
        "/%2e%2e/secret",
        "/%2E%2E/secret",
        "/.%2e/secret",
        "/sub/../../secret",
        "/sub/%2e%2e/%2e%2e/secret",
        "/..%2fsecret",
        "/%2e%2e%2fsecret",
        "/sub%2f..%2f..%2fsecret",
        "/%252e%252e/secret",
        "//secret",
        "/../../../../etc/passwd",
        "//etc/passwd",
        "/%2fetc%2fpasswd",
        "/..%5csecret",
        "/..%c0%afsecret",
        "/%c0%ae%c0%ae/secret",
        "/.env",
        "/%2eenv",
        "/sub/.",
        "/./page.html",
        "/absent",
        "/page.html/x",
        "/page.html/",
    ] {
        assert_eq!(fixture.status(target).await, 404, "{target}");
    }
    assert_eq!(fixture.status("/page.html%00.txt").await, 400);
    assert_eq!(fixture.status("/%zz").await, 400);
    assert_eq!(fixture.status(&format!("/{}", "a".repeat(300))).await, 404);
    assert_eq!(fixture.status(&format!("/{}", "a/".repeat(3000))).await, 414);
    let known = fixture.load("/.well-known/security.txt").await;
    assert_eq!((known.status, known.text()), (200, "Contact: x"));
    assert_eq!(fixture.load("/absent").await.text(), "404: no such file below this path\n");
}

#[tokio::test]
async fn links_are_followed_within_the_root_only() {
    let fixture = Fixture::new();
    symlink("sub/notes.txt", fixture.path("inside")).unwrap();
    symlink("../page.html", fixture.path("sub/up")).unwrap();
    // The layout of container volumes: through a hidden directory below the root.
    symlink("..data/x", fixture.path("mounted")).unwrap();
    fs::create_dir(fixture.path("..data")).unwrap();
    fs::write(fixture.path("..data/x"), "mounted").unwrap();
    symlink("../secret", fixture.path("outside")).unwrap();
    symlink(fixture.directory.path(), fixture.path("above")).unwrap();
    symlink(fixture.path("page.html"), fixture.path("absolute")).unwrap();
    symlink("/proc/self/root", fixture.path("magic")).unwrap();
    symlink("loop", fixture.path("loop")).unwrap();
    assert_eq!(fixture.load("/inside").await.text(), "0123456789");
    assert_eq!(fixture.load("/sub/up").await.text(), "<p>hello");
    assert_eq!(fixture.load("/mounted").await.text(), "mounted");
    for target in ["/outside", "/above/secret", "/above/", "/above", "/absolute", "/magic/etc/passwd", "/loop"] {
        assert_eq!(fixture.status(target).await, 404, "{target}");
    }
}

#[tokio::test]
async fn the_root_may_be_a_link_and_may_be_replaced() {
    let mut fixture = Fixture::new();
    let link = fixture.directory.path().join("current");
    symlink(&fixture.site.root, &link).unwrap();
    fixture.site.root = link.clone();
    assert_eq!(fixture.status("/page.html").await, 200);
    fs::remove_file(&link).unwrap();
    let gone = fixture.load("/page.html").await;
    assert_eq!((gone.status, gone.field("retry-after")), (503, "1"));
    fs::create_dir(&link).unwrap();
    assert_eq!(fixture.status("/page.html").await, 404);
}

#[tokio::test]
async fn special_files_are_absent_and_block_nothing() {
    let fixture = Fixture::new();
    nix::unistd::mkfifo(&fixture.path("fifo"), Mode::from_bits_truncate(0o644)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(fixture.path("socket")).unwrap();
    for target in ["/fifo", "/socket"] {
        let status = tokio::time::timeout(Duration::from_secs(5), fixture.status(target)).await.unwrap();
        assert_eq!(status, 404, "{target}");
    }
    let root = Root::open(Path::new("/dev")).unwrap();
    assert!(matches!(root.look(Path::new("null")), Err(refusal) if refusal.status == 404));
}

#[tokio::test]
async fn a_file_without_read_permission_is_forbidden() {
    if nix::unistd::geteuid().is_root() {
        return; // Root reads everything.
    }
    let fixture = Fixture::new();
    fs::set_permissions(fixture.path("page.html"), fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(fixture.status("/page.html").await, 403);
}

#[tokio::test]
async fn directories_need_a_slash_and_are_served_by_their_index() {
    let fixture = Fixture::new();
    let redirect = fixture.load("/indexed?a=1&b=%2f").await;
    assert_eq!((redirect.status, redirect.field("location")), (301, "./indexed/?a=1&b=%2f"));
    assert_eq!(fixture.load("/sub/empty").await.field("location"), "./empty/");
    let index = fixture.load("/indexed/").await;
    assert_eq!((index.status, index.text()), (200, "the index"));
    assert_eq!(index.field("content-type"), "text/html; charset=utf-8");
    assert_eq!(fixture.status("/sub/").await, 404);
    fs::write(fixture.path("sub/index.htm"), "second choice").unwrap();
    assert_eq!(fixture.load("/sub/").await.text(), "second choice");
    fs::create_dir(fixture.path("sub/index.html")).unwrap();
    assert_eq!(fixture.load("/sub/").await.text(), "second choice");

    // A route at `/doc`, requested without the slash.
    let (pages, uri) = (Pages::new(&fixture.site), "/doc?q".parse().unwrap());
    let bare = respond(&pages, &Files::default(), &pages.ask(&Method::GET, &uri, &HeaderMap::new(), "")).await;
    assert_eq!(bare.headers()[header::LOCATION], "./doc/?q");
    // A name that looks like a scheme, and a path that looks like a host.
    fs::create_dir(fixture.path("a:b")).unwrap();
    assert_eq!(fixture.load("/a:b").await.field("location"), "./a:b/");
}

#[tokio::test]
async fn a_listing_shows_only_what_can_be_requested() {
    let mut fixture = Fixture::new();
    fixture.site.listing = true;
    fs::write(fixture.path("a <b> & \"c\"?.txt"), "x").unwrap();
    symlink("../secret", fixture.path("outside")).unwrap();
    symlink("page.html", fixture.path("inside")).unwrap();
    nix::unistd::mkfifo(&fixture.path("fifo"), Mode::from_bits_truncate(0o644)).unwrap();
    let listing = fixture.load("/").await;
    assert_eq!((listing.status, listing.field("content-type")), (200, "text/html; charset=utf-8"));
    let page = listing.text();
    assert!(page.contains(
        "<a href=\"a%20%3Cb%3E%20%26%20%22c%22%3F.txt\"><bdi>a &lt;b&gt; &amp; &quot;c&quot;?.txt</bdi></a>"
    ));
    assert!(page.contains("<a href=\"sub/\"><bdi>sub</bdi>/</a>"));
    assert!(page.contains("inside"));
    for hidden in ["outside", "fifo", ".env", ".well-known", "Parent", "href=\"../\""] {
        assert!(!page.contains(hidden), "{hidden}");
    }
    assert!(page.find("sub/").unwrap() < page.find("a%20").unwrap(), "directories come first");
    let below = fixture.load("/sub/").await;
    assert!(below.text().contains("href=\"../\""));
    assert!(below.text().contains("<td class=\"n\">10 B</td>"));
    assert!(fixture.load("/sub/empty/").await.text().contains("empty"));
    assert_eq!(fixture.load("/indexed/").await.text(), "the index");
    let head = fixture.ask(Method::HEAD, "/sub/", &[]).await;
    assert_eq!((head.text(), head.field("content-length")), ("", below.field("content-length")));
}

/// The bytes that a client receives after it sent `requests` on one connection.
async fn on_the_wire(site: config::Static, requests: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let site = site.clone();
        async move {
            let rest = request.uri().path().trim_start_matches('/').to_owned();
            let pages = Pages::new(&site);
            let ask = pages.ask(request.method(), request.uri(), request.headers(), &rest);
            Ok::<_, std::convert::Infallible>(respond(&pages, &Files::default(), &ask).await)
        }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(hyper_util::rt::TokioIo::new(server), service);
    client.write_all(requests.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    let (served, read) = tokio::join!(connection, client.read_to_end(&mut received));
    served.unwrap();
    read.unwrap();
    String::from_utf8(received).unwrap()
}

#[tokio::test]
async fn responses_without_a_body_do_not_confuse_the_connection() {
    let fixture = Fixture::new();
    let etag = fixture.load("/page.html").await.field("etag").to_owned();
    let received = on_the_wire(
        fixture.site.clone(),
        &format!(
            "HEAD /page.html HTTP/1.1\r\nHost: a\r\n\r\n\
             GET /page.html HTTP/1.1\r\nHost: a\r\nIf-None-Match: {etag}\r\n\r\n\
             OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n\
             HEAD /absent HTTP/1.1\r\nHost: a\r\n\r\n\
             GET /page.html HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        ),
    )
    .await;
    let answers: Vec<&str> = received.split("HTTP/1.1 ").skip(1).collect();
    let statuses: Vec<&str> = answers.iter().map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "304", "204", "404", "200"], "{received}");
    assert!(answers[..4].iter().all(|answer| answer.ends_with("\r\n\r\n")), "{received}");
    assert!(answers[0].contains("content-length: 8\r\n") && answers[4].ends_with("\r\n\r\n<p>hello"), "{received}");
    assert!(!answers[1].contains("content-length") && !answers[2].contains("content-length"), "{received}");
}

#[tokio::test]
async fn a_huge_directory_is_listed_in_part_with_a_note() {
    use crate::config::limits::LISTING_ENTRIES_MAX;
    let mut fixture = Fixture::new();
    fixture.site.listing = true;
    for n in 1..LISTING_ENTRIES_MAX {
        fs::hard_link(fixture.path("page.html"), fixture.path(&format!("sub/empty/{n}"))).unwrap();
    }
    let fits = fixture.load("/sub/empty/").await;
    assert_eq!(fits.text().matches("<tr><td>").count(), LISTING_ENTRIES_MAX - 1);
    assert!(!fits.text().contains("Only"));
    fs::write(fixture.path("sub/empty/one"), "").unwrap();
    fs::write(fixture.path("sub/empty/another"), "").unwrap();
    let cut = fixture.load("/sub/empty/").await;
    assert_eq!(cut.text().matches("<tr><td>").count(), LISTING_ENTRIES_MAX);
    assert!(cut.text().contains("<p>Only 10000 names of this directory are shown.</p>"));
    // Hidden entries are examined, too, and count.
    fs::create_dir(fixture.path("hidden")).unwrap();
    for n in 0..=LISTING_ENTRIES_MAX {
        fs::hard_link(fixture.path("page.html"), fixture.path(&format!("hidden/.{n}"))).unwrap();
    }
    assert!(fixture.load("/hidden/").await.text().contains("<p>Only 0 names of this directory are shown.</p>"));
}

#[test]
fn no_request_escapes_the_root() {
    let fixture = Fixture::new();
    symlink("../secret", fixture.path("out")).unwrap();
    symlink("..", fixture.path("above")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let piece = proptest::sample::select(vec![
        "/",
        "/",
        "..",
        "%2e%2e",
        ".%2E",
        "%2f",
        "%5c",
        "%00",
        "%252e",
        "secret",
        "sub",
        "out",
        "above",
        "page.html",
        ".env",
        "?",
    ]);
    proptest::test_runner::TestRunner::default()
        .run(&proptest::collection::vec(piece, 0..10), |pieces| {
            runtime.block_on(fixture.status(&format!("/{}", pieces.concat())));
            Ok(())
        })
        .unwrap();
}
