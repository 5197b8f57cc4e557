//! The six shipped examples. Each runs unchanged except for its ports, and does exactly what the system it replaces
//! did.

mod common;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use common::http::get;
use common::ws::{BINARY, CLOSE, Hixie, TEXT, Ws, close_payload};
use common::{Pushd, Start, copy_tree, until_true};
use nix::sys::signal::Signal;

/// Generates a test for each example, and the list of all examples.
macro_rules! examples {
    ($($test:ident $file:literal $ports:expr,)*) => {
        /// Each example with its ports, in the order of its file.
        const EXAMPLES: &[(&str, &[u16])] = &[$(($file, &$ports),)*];
        $(#[test]
        fn $test() {
            let (_, ports) = EXAMPLES.iter().find(|(file, _)| *file == $file).unwrap();
            let mut example = Example::new($file, ports);
            scenes::$test(&mut example);
        })*
    };
}

examples! {
    server_push "server-push.toml" [8888],
    hello_world "hello-world.toml" [8888],
    streaming "streaming.toml" [8888],
    echo "echo.toml" [8888],
    techops "techops.toml" [5000, 8000],
    tick "tick.toml" [9876, 8888],
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples")
}

#[test]
fn every_example_is_tested() {
    let names = fs::read_dir(shipped()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = names.filter(|name| name.ends_with(".toml")).collect();
    files.sort();
    let mut tested: Vec<_> = EXAMPLES.iter().map(|(file, _)| (*file).to_owned()).collect();
    tested.sort();
    assert_eq!(files, tested);
    assert_eq!(tested.len(), 6);
}

/// Runs a configuration in a copy of the examples' directory.
fn run(config: &str) -> Pushd {
    let start = Start::new(config);
    copy_tree(&shipped(), start.path());
    fs::create_dir(start.path().join("www/techops/listed")).unwrap();
    fs::write(start.path().join("www/techops/listed/one.txt"), "a file").unwrap();
    start.run()
}

/// An example that runs on its own ports.
struct Example {
    /// Its configuration as it runs: as shipped, except for the ports.
    config: String,
    pushd: Pushd,
}

impl Example {
    /// Copies all examples as they are shipped, and runs one of them.
    fn new(file: &str, ports: &[u16]) -> Example {
        let mut config = fs::read_to_string(shipped().join(file)).unwrap();
        assert_eq!(config.matches("\nlisten = ").count(), ports.len(), "{file}");
        for (number, port) in ports.iter().enumerate() {
            let (theirs, ours) =
                (format!("listen = \"127.0.0.1:{port}\""), format!("listen = \"127.0.0.{}:0\"", number + 1));
            assert_eq!(config.matches(&theirs).count(), 1, "{file} on {port}");
            config = config.replace(&theirs, &ours);
        }
        Example { pushd: run(&config), config }
    }

    fn address(&self) -> SocketAddr {
        self.pushd.address()
    }

    fn path(&self, file: &str) -> PathBuf {
        self.pushd.path().join(file)
    }

    /// Checks that the page at this address is the shipped one.
    fn serves_page(&self, address: SocketAddr, file: &str) {
        let answer = get(address, "/");
        assert_eq!(answer.status, 200);
        assert!(answer.field("content-type").unwrap().starts_with("text/html"), "{answer:?}");
        let page = fs::read_to_string(shipped().join(file)).unwrap();
        assert!(page.contains("new WebSocket("));
        assert!(answer.text() == page, "another page than {file}");
    }
}

mod scenes {
    use super::*;

    pub fn server_push(example: &mut Example) {
        let address = example.address();
        example.serves_page(address, "www/server-push/index.html");
        let push = |arguments: &str, reached: u64| {
            let answer = get(address, &format!("/push?{arguments}"));
            assert_eq!((answer.status, answer.json()["subscribers"].as_u64()), (200, Some(reached)), "{arguments}");
        };
        let mut first = Ws::open(address, "/ws?userid=7&compid=1");
        let mut second = Ws::open(address, "/ws?userid=7&compid=1");
        let mut component = Ws::open(address, "/ws?userid=7&compid=2");
        let mut user = Ws::open(address, "/ws?userid=8&compid=1");
        // To every socket of the pair, and to no other.
        push("userid=7&compid=1&message=hello+pair", 2);
        first.expect_text("hello pair");
        second.expect_text("hello pair");
        push("userid=8&compid=1&message=h%C3%A9", 1);
        user.expect_text("hé");
        push("userid=7&compid=9&message=nobody", 0);
        // To everyone.
        let answer = get(address, "/pushtoall?message=to+all");
        assert_eq!((answer.status, answer.json()["subscribers"].as_u64()), (200, Some(4)));
        for client in [&mut first, &mut second, &mut component, &mut user] {
            client.expect_text("to all");
            client.expect_nothing();
        }
        // A missing argument is refused.
        for (target, name) in [("userid=7", "compid"), ("compid=1", "userid"), ("", "userid")] {
            let (answer, _) = Ws::ask(address, &format!("/ws?{target}"), &[]);
            assert_eq!(answer.status, 400, "{target}");
            assert!(answer.text().contains(name), "{answer:?}");
        }
        for target in ["/push?userid=7&compid=1", "/push?userid=7&message=m", "/push?compid=1&message=m", "/pushtoall"]
        {
            assert_eq!(get(address, target).status, 400, "{target}");
        }
        // Messages of clients are logged, and not forwarded.
        first.text("from the client");
        example.pushd.logged("message received from the client");
        for client in [&mut first, &mut second, &mut component, &mut user] {
            client.expect_nothing();
        }
        // A closed socket is removed, with or without a closing handshake.
        second.close();
        push("userid=7&compid=1&message=one+left", 1);
        first.expect_text("one left");
        drop(user);
        until_true("the dropped client is removed", || {
            get(address, "/push?userid=8&compid=1&message=x").json()["subscribers"] == 0
        });
    }

    pub fn hello_world(example: &mut Example) {
        let address = example.address();
        example.serves_page(address, "www/hello-world/index.html");
        // The tutorial's page is opened from a file.
        let (answer, mut client) = Ws::ask(address, "/ws", &["Origin: null"]);
        assert_eq!(answer.status, 101);
        client.expect_text("Hello World");
        let name = client.wire.local_address();
        example.pushd.logged(&format!("{name} new connection"));
        let mut other = Ws::open(address, "/ws");
        other.expect_text("Hello World");
        client.text("how are you?");
        example.pushd.logged(&format!("{name} message received how are you?"));
        client.expect_nothing();
        other.expect_nothing();
        assert!(!example.pushd.log().contains("connection closed"));
        client.close();
        example.pushd.logged(&format!("{name} connection closed"));
        assert_eq!(example.pushd.log().matches("connection closed").count(), 1);
    }

    pub fn echo(example: &mut Example) {
        let address = example.address();
        example.serves_page(address, "www/echo/index.html");
        let mut other = Ws::open(address, "/ws");
        let mut client = Ws::open(address, "/ws");
        // The client of the document.
        client.text("Hello Chetan");
        client.expect_text("Hello Chetan");
        client.send(BINARY, &[0, 1, 0xfe, 0xff]);
        assert_eq!(client.next(), (BINARY, vec![0, 1, 0xfe, 0xff]));
        client.text("");
        client.expect_text("");
        // A size that is not a multiple of a power of two.
        let mut largest = (0..251).collect::<Vec<u8>>().repeat((16 << 20) / 251 + 1);
        largest.truncate(16 << 20);
        client.send(BINARY, &largest);
        let (first, echoed) = client.next();
        assert!(first == BINARY && echoed == largest, "{} bytes came back", echoed.len());
        other.expect_nothing();
        client.send(TEXT, &vec![b'x'; (16 << 20) + 1]);
        client.expect_close(1009, "at most 16777216 bytes");
        for words in
            ["new connection", "message received Hello Chetan", "message received (4 bytes)", "connection closed"]
        {
            example.pushd.logged(words);
        }
        other.close();
    }

    pub fn techops(example: &mut Example) {
        let (hub, pages) = (example.pushd.address_of("hub"), example.pushd.address_of("pages"));
        example.serves_page(pages, "www/techops/index.html");
        let listing = get(pages, "/listed/");
        assert_eq!(listing.status, 200);
        assert!(listing.text().contains("one.txt"), "{}", listing.text());
        assert_eq!(get(pages, "/listed/one.txt").text(), "a file");
        assert_eq!(get(pages, "/not-there").status, 404);

        let page = format!("Origin: http://{pages}");
        let (answer, mut sender) = Ws::ask(hub, "/", &[&page]);
        assert_eq!(answer.status, 101, "the page comes from another port");
        let mut other = Ws::open(hub, "/");
        let mut old = Hixie::open(hub, "/");
        // To all clients, including the sender, in every protocol.
        sender.text("from the sender");
        for received in [sender.next_text(), other.next_text(), old.next_text()] {
            assert_eq!(received, "from the sender");
        }
        old.text("from long ago");
        for received in [sender.next_text(), other.next_text(), old.next_text()] {
            assert_eq!(received, "from long ago");
        }
        // Binary messages are ignored.
        sender.send(BINARY, b"not text");
        sender.text("after it");
        for received in [sender.next_text(), other.next_text(), old.next_text()] {
            assert_eq!(received, "after it");
        }
        old.close();
        sender.close();
        other.text("alone");
        other.expect_text("alone");
        other.close();
        assert_eq!(example.pushd.end(Signal::SIGINT), 0);

        // As a daemon like twistd: its files are in the start directory, and `kill -INT` ends it.
        let daemon = common::daemon::Daemon::launch(
            &mut common::daemon::pushd(example.pushd.path(), &["-c", "pushd.toml"]),
            example.pushd.path(),
        );
        let address = common::until("the address", || common::address_in(&daemon.log(), "hub"));
        let mut client = Ws::open(address, "/");
        client.text("still the same");
        client.expect_text("still the same");
        client.close();
        assert_eq!(daemon.end(Signal::SIGINT), 0);
        assert!(fs::read_to_string(example.path("pushd.log")).unwrap().contains("Received SIGINT, shutting down"));
        assert!(!example.path("pushd.pid").exists());
    }

    pub fn tick(example: &mut Example) {
        example.serves_page(example.pushd.address_of("pages"), "www/tick/index.html");
        // First without the feed, so that clients are connected before its first tick.
        let (rest, feed) = example.config.split_once("[feed.tick]").unwrap();
        assert!(feed.contains("every = \"1s\"") && !rest.contains("[feed"), "{}", example.config);
        example.pushd = run(rest);
        let (socket, pages) = (example.pushd.address_of("socket"), example.pushd.address_of("pages"));
        let page = format!("Origin: http://{pages}");
        let (answer, mut modern) = Ws::ask(socket, "/", &[&page]);
        assert_eq!(answer.status, 101);
        let mut old = Hixie::open(socket, "/");
        example.pushd.reload(&example.config);
        let began = std::time::Instant::now();
        for number in 0..3 {
            modern.expect_text(&format!("tick:{number}"));
            old.expect_text(&format!("tick:{number}"));
        }
        let took = began.elapsed().as_millis();
        // A tick may be late on a busy machine, but missed ticks must not be made up for.
        assert!(took >= 1500, "three ticks in {took} ms");
        // A message is sent to all clients, including its sender, between the ticks.
        let next_message = |next: &mut dyn FnMut() -> String| loop {
            let text = next();
            if !text.starts_with("tick:") {
                break text;
            }
        };
        modern.text("hello: there");
        assert_eq!(next_message(&mut || modern.next_text()), "msg:hello: there");
        assert_eq!(next_message(&mut || old.next_text()), "msg:hello: there");
        old.text("hello back");
        assert_eq!(next_message(&mut || modern.next_text()), "msg:hello back");
        assert_eq!(next_message(&mut || old.next_text()), "msg:hello back");
        // A client that connects later receives the same numbers as the others.
        let mut late = Ws::open(socket, "/");
        let number = late.next_text();
        assert!(!number.ends_with(":0"), "{number}");
        assert_eq!(skip_to_tick(&mut modern, &number), number);
        // The closing handshake of the draft, started by the client and by the server.
        old.wire.send(&[0xff, 0x00]);
        while old.next_or_close().is_some() {}
        old.wire.expect_end();
        let mut old = Hixie::open(socket, "/");
        // Ctrl-C.
        example.pushd.signal(Signal::SIGINT);
        while old.next_or_close().is_some() {}
        old.wire.try_send(&[0xff, 0x00]);
        old.wire.expect_end();
        for mut client in [modern, late] {
            until_true("the close", || client.next().0 == CLOSE);
            client.send(CLOSE, &close_payload(1001, ""));
            client.wire.expect_end();
        }
        assert_eq!(example.pushd.wait(), 0);
    }

    /// Reads messages up to this tick.
    fn skip_to_tick(client: &mut Ws, tick: &str) -> String {
        common::until("the same tick", || Some(client.next_text()).filter(|text| text == tick))
    }

    pub fn streaming(example: &mut Example) {
        let address = example.address();
        example.serves_page(address, "www/streaming/index.html");
        let mut first = Ws::open(address, "/ws");
        let mut second = Ws::open(address, "/ws");
        // The lines of a command: here the load of this machine.
        let load = loop {
            let text = first.next_text();
            if let Some(load) = text.strip_prefix("load ") {
                load.parse::<f64>().unwrap();
                break text;
            }
        };
        common::until("the same for all", || Some(second.next_text()).filter(|text| *text == load));
        // The lines appended to the file, and none from before.
        let mut file = OpenOptions::new().append(true).open(example.path("streaming.log")).unwrap();
        file.write_all(b"42\n43 is half a").unwrap();
        file.write_all(b" line\n").unwrap();
        for client in [&mut first, &mut second] {
            let mut received = Vec::new();
            while received.len() < 2 {
                received.extend(client.next_text().strip_prefix("log ").map(str::to_owned));
            }
            assert_eq!(received, ["42", "43 is half a line"]);
        }
        example.pushd.logged("feed load: sh started, PID ");
    }
}
