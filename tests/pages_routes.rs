//! What a static route adds to its files: header fields, rules for caches, a fallback, error pages, pages of other origins. And
//! routes that redirect.

mod common;

use std::fs;
use std::net::SocketAddr;

use common::http::{Answer, ask, get};
use common::{PLAIN, Pushd, Start, until};

/// Starts pushd with these routes instead of the page at `/`, and files in `www`.
fn serve(routes: &str, files: &[(&str, &str)]) -> Pushd {
    let pushd = Start::new(&PLAIN.replace("\"/\" = { page = \"live\" }", routes));
    for (name, text) in files {
        let path = pushd.path().join("www").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    pushd.run()
}

const HTML: &str = "Accept: text/html,application/xhtml+xml,*/*;q=0.8";

/// Requests a path until the answer is from memory, where the tag is strong. Returns the answers before and after.
fn twice(address: SocketAddr, path: &str) -> [Answer; 2] {
    let is_settled = |answer: &Answer| answer.field("etag").is_some_and(|tag| !tag.starts_with("W/"));
    [get(address, path), until("a settled file", || Some(get(address, path)).filter(is_settled)), get(address, path)]
        .into_iter()
        .step_by(2)
        .collect::<Vec<_>>()
        .try_into()
        .unwrap()
}

#[test]
fn header_fields_are_in_every_answer_of_the_route() {
    let headers = "headers = { \"X-Frame-Options\" = \"DENY\", Referrer-Policy = \"no-referrer\", \
                   \"Content-Security-Policy\" = \"default-src 'self'\" }";
    let pushd = serve(
        &format!("\"/\" = {{ static = \"www\", listing = true, {headers} }}\n\"/plain\" = {{ static = \"www\" }}"),
        &[("a.html", "a"), ("sub/b.txt", "b")],
    );
    let address = pushd.address();
    let tag = get(address, "/a.html").field("etag").unwrap().to_owned();
    for answer in [
        get(address, "/a.html"),
        get(address, "/none"),
        get(address, "/sub"),
        get(address, "/sub/"),
        ask(address, "HEAD", "/a.html", &[], b""),
        ask(address, "POST", "/a.html", &[], b""),
        ask(address, "OPTIONS", "/a.html", &[], b""),
        ask(address, "GET", "/a.html", &[&format!("If-None-Match: {tag}")], b""),
    ] {
        assert_eq!(answer.field("x-frame-options"), Some("DENY"), "{answer:?}");
        assert_eq!(answer.field("referrer-policy"), Some("no-referrer"), "{answer:?}");
        assert_eq!(answer.field("content-security-policy"), Some("default-src 'self'"), "{answer:?}");
    }
    for answer in twice(address, "/plain/a.html") {
        assert_eq!((answer.status, answer.field("x-frame-options")), (200, None));
    }
    for answer in twice(address, "/a.html") {
        assert_eq!(answer.field("x-frame-options"), Some("DENY"));
    }
}

#[test]
fn header_fields_of_the_server_are_in_every_answer_that_has_no_own() {
    let routes = "\"/\" = { static = \"www\", headers = { X-Frame-Options = \"SAMEORIGIN\" } }\n\"/plain\" = { static = \"www\" }";
    let server = "headers = { Strict-Transport-Security = \"max-age=31536000\", X-Frame-Options = \"DENY\" }";
    let config = PLAIN.replace("\"/\" = { page = \"live\" }", routes);
    let pushd = Start::new(&config.replace("[server.main.routes]", &format!("{server}\n[server.main.routes]")));
    fs::create_dir(pushd.path().join("www")).unwrap();
    fs::write(pushd.path().join("www/a.txt"), "a").unwrap();
    let pushd = pushd.run();
    let address = pushd.address();
    for (path, frame) in [
        ("/a.txt", "SAMEORIGIN"),
        ("/plain/a.txt", "DENY"),
        ("/plain/none", "DENY"),
        ("/metrics", "DENY"),
        ("/publish/all", "DENY"),
    ] {
        for answer in [get(address, path), get(address, path)] {
            assert_eq!(answer.field("strict-transport-security"), Some("max-age=31536000"), "{path}");
            assert_eq!(answer.field("x-frame-options"), Some(frame), "{path}");
        }
    }
    let foreign = ask(address, "GET", "/a.txt", &["Host: evil.example"], b"");
    assert_eq!((foreign.status, foreign.field("x-frame-options")), (421, Some("DENY")));
}

#[test]
fn the_longest_pattern_decides_how_long_caches_keep_a_file() {
    let rules = "cache = { \"assets/**\" = \"365d immutable\", \"*.html\" = \"1h\", \"**\" = \"never\", \
                 \"assets/private/*\" = \"10m private\" }";
    let pushd = serve(
        &format!("\"/\" = {{ static = \"www\", {rules} }}\n\"/plain\" = {{ static = \"www\" }}"),
        &[("index.html", ""), ("assets/a.js", ""), ("assets/private/b.js", ""), ("c.txt", "")],
    );
    let address = pushd.address();
    for (path, control) in [
        ("/assets/a.js", "max-age=31536000, immutable"),
        ("/assets/private/b.js", "private, max-age=600"),
        ("/", "max-age=3600"),
        ("/index.html", "max-age=3600"),
        ("/c.txt", "no-store"),
        ("/plain/c.txt", "no-cache"),
    ] {
        for answer in twice(address, path) {
            assert_eq!((answer.status, answer.field("cache-control")), (200, Some(control)), "{path}");
        }
    }
    assert_eq!(get(address, "/none").field("cache-control"), Some("no-cache"));
}

#[test]
fn a_browser_gets_the_fallback_for_a_path_without_a_file() {
    let pushd = serve(
        "\"/\" = { static = \"www\", fallback = \"app.html\" }",
        &[("app.html", "<p>app"), ("a.txt", "a"), ("sub/b.txt", "b")],
    );
    let address = pushd.address();
    // Twice: the second answer may come from the cache.
    for _ in 0..2 {
        for path in ["/users/7", "/users/7/", "/sub/", "/a.txt/", "/%C3%A4"] {
            let page = ask(address, "GET", path, &[HTML], b"");
            assert_eq!((page.status, page.text()), (200, "<p>app"), "{path}");
            assert_eq!(page.field("content-type"), Some("text/html; charset=utf-8"));
            assert!(page.field("vary").unwrap().contains("Accept-Encoding, Accept"), "{page:?}");
            for fields in [&[][..], &["Accept: */*"], &["Accept: application/json"]] {
                let none = ask(address, "GET", path, fields, b"");
                assert_eq!((none.status, none.field("vary")), (404, Some("Accept")), "{path} {fields:?}");
            }
        }
        assert_eq!(ask(address, "GET", "/a.txt", &[HTML], b"").text(), "a");
        let head = ask(address, "HEAD", "/users/7", &[HTML], b"");
        assert_eq!((head.status, head.field("content-length")), (200, Some("6")));
        assert_eq!(ask(address, "POST", "/users/7", &[HTML], b"").status, 405);
        assert_eq!(ask(address, "GET", "/.env", &[HTML], b"").status, 404, "a hidden name");
        assert_eq!(ask(address, "GET", "/..%2f", &[HTML], b"").status, 404);
    }
    let tag = ask(address, "GET", "/users/7", &[HTML], b"").field("etag").unwrap().to_owned();
    let held = format!("If-None-Match: {tag}");
    assert_eq!(ask(address, "GET", "/users/8", &[HTML, &held], b"").status, 304);
}

#[test]
fn an_error_has_the_page_of_the_route() {
    let pushd = serve(
        "\"/\" = { static = \"www\", errors = { 404 = \"errors/404.html\", 405 = \"errors/405.json\", 416 = \"gone.html\" } }",
        &[("errors/404.html", "<p>no such page"), ("errors/405.json", "{}"), ("a.txt", "a")],
    );
    let address = pushd.address();
    for fields in [&[][..], &["If-None-Match: *"], &["Range: bytes=0-1"]] {
        let none = ask(address, "GET", "/none", fields, b"");
        assert_eq!((none.status, none.text()), (404, "<p>no such page"), "{fields:?}");
        assert_eq!(none.field("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!((none.field("etag"), none.field("last-modified"), none.field("accept-ranges")), (None, None, None));
    }
    let refused = ask(address, "POST", "/a.txt", &[], b"");
    assert_eq!((refused.status, refused.text()), (405, "{}"));
    assert_eq!(refused.field("allow"), Some("GET, HEAD, OPTIONS"));
    let head = ask(address, "HEAD", "/none", &[], b"");
    assert_eq!((head.status, head.field("content-length")), (404, Some("15")));
    // A page that is missing is replaced by text.
    let outside = ask(address, "GET", "/a.txt", &["Range: bytes=7-"], b"");
    assert_eq!((outside.status, outside.field("content-range")), (416, Some("bytes */1")));
    assert!(outside.text().starts_with("416: "), "{outside:?}");
    pushd.logged("gone.html cannot be sent from ");
    assert_eq!(get(address, "/a.txt").text(), "a");
}

#[test]
fn scripts_of_listed_origins_may_read_files() {
    let pushd = serve(
        "\"/\" = { static = \"www\", origins = [\"https://www.example.com\"] }\n\
         \"/any\" = { static = \"www\", origins = \"any\" }\n\"/plain\" = { static = \"www\" }",
        &[("a.json", "{}")],
    );
    let address = pushd.address();
    let of = |path: &str, origin: &str| ask(address, "GET", path, &[&format!("Origin: {origin}")], b"");
    for _ in 0..2 {
        let allowed = of("/a.json", "https://www.example.com");
        assert_eq!(allowed.field("access-control-allow-origin"), Some("https://www.example.com"));
        assert_eq!(allowed.field("access-control-allow-credentials"), Some("true"));
        assert_eq!(allowed.field("vary"), Some("Accept-Encoding, Origin"));
        let foreign = of("/a.json", "https://evil.example");
        assert_eq!((foreign.status, foreign.field("access-control-allow-origin")), (200, None));
        assert_eq!(foreign.field("vary"), Some("Accept-Encoding, Origin"));
        assert_eq!(get(address, "/a.json").field("vary"), Some("Accept-Encoding, Origin"));
        let any = of("/any/a.json", "https://evil.example");
        assert_eq!(any.field("access-control-allow-origin"), Some("*"));
        assert_eq!(any.field("access-control-allow-credentials"), None);
        let plain = of("/plain/a.json", "https://www.example.com");
        assert_eq!((plain.status, plain.field("access-control-allow-origin")), (200, None));
    }
    let preflight = |path: &str| {
        let fields = [
            "Origin: https://www.example.com",
            "Access-Control-Request-Method: GET",
            "Access-Control-Request-Headers: range",
        ];
        ask(address, "OPTIONS", path, &fields, b"")
    };
    let answer = preflight("/a.json");
    assert_eq!(answer.status, 204);
    assert_eq!(answer.field("access-control-allow-origin"), Some("https://www.example.com"));
    assert_eq!(answer.field("access-control-allow-methods"), Some("GET, HEAD, OPTIONS"));
    assert!(answer.field("access-control-allow-headers").unwrap().contains("range"));
    assert_eq!(preflight("/plain/a.json").field("access-control-allow-methods"), None);
}

#[test]
fn a_redirect_leads_to_its_target_and_nowhere_else() {
    let pushd = serve(
        "\"/old\" = { redirect = \"/new\" }\n\
         \"/docs\" = { redirect = \"https://docs.example.com/{rest}\", status = 308 }\n\
         \"/users/{name}/{page}\" = { redirect = \"https://example.com/{page}?user={name}#top\", status = 301 }\n\
         \"/here\" = { redirect = \"/{rest}\", status = 307 }",
        &[],
    );
    let address = pushd.address();
    for (path, status, location) in [
        ("/old", 302, "/new"),
        ("/old?a=1&b=%2f", 302, "/new?a=1&b=%2f"),
        ("/docs", 308, "https://docs.example.com/"),
        ("/docs/", 308, "https://docs.example.com/"),
        ("/docs/a/b%20c?x", 308, "https://docs.example.com/a/b%20c?x"),
        ("/docs//evil.example", 308, "https://docs.example.com/evil.example"),
        ("/users/a%2Fb/c%26d", 301, "https://example.com/c%26d?user=a%2Fb#top"),
        ("/users/a/b?q=1", 301, "https://example.com/b?user=a&q=1#top"),
        ("/users/%C3%A4%0D%0Ax/b", 301, "https://example.com/b?user=%C3%A4%0D%0Ax#top"),
        ("/users/..%2f/b?user=x", 301, "https://example.com/b?user=..%2F&user=x#top"),
        ("/here/a", 307, "/a"),
        ("/here//evil.example", 307, "/evil.example"),
        ("/here////evil.example/%2e%2e", 307, "/evil.example/%2e%2e"),
        ("/here/%2Fevil.example", 307, "/%2Fevil.example"),
        ("/here/%5Cevil.example", 307, "/%5Cevil.example"),
    ] {
        for method in ["GET", "HEAD", "POST"] {
            let answer = ask(address, method, path, &[], b"");
            assert_eq!((answer.status, answer.field("location")), (status, Some(location)), "{method} {path}");
        }
    }
    assert_eq!(get(address, "/old").field("cache-control"), Some("no-store"));
    assert_eq!(get(address, "/docs").field("cache-control"), None);
    // What hyper lets through in a path must not reach a browser as a slash.
    for odd in ["/here/\\evil.example", "/here/\t/evil.example"] {
        let answer = ask(address, "GET", odd, &[], b"");
        assert!(answer.status == 400 || answer.field("location") == Some("/%5Cevil.example"), "{odd:?}: {answer:?}");
    }
    assert_eq!(get(address, "/old/x").status, 404);
}
