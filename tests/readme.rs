//! The content of the README and of the pages in `docs` is right: their configurations are valid, their links exist,
//! and the README's examples work in order.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pushd::config;

use common::http::{metric, publish};
use common::ws::Ws;
use common::{until, until_true};

/// Every page, with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = root.join("docs").read_dir().unwrap().map(|entry| entry.unwrap().path());
    let pages = docs.chain([root.join("README.md")]).filter(|path| path.extension().is_some_and(|e| e == "md"));
    let pages: Vec<_> = pages.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect();
    assert!(pages.len() > 3, "{pages:?}");
    pages
}

#[test]
fn the_configurations_shown_are_valid() {
    let mut routes = 0;
    for (page, text) in pages() {
        let blocks = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        for whole in blocks.filter(|block| block.contains(".routes]")) {
            let config = config::parse(&page, whole).unwrap_or_else(|errors| panic!("{errors}"));
            assert!(config.warnings.is_empty(), "{}", config.warnings[0]);
            routes += config.servers.iter().map(|server| server.routes.len()).sum::<usize>();
        }
    }
    assert!(routes > 8, "{routes}");
}

#[test]
fn links_have_a_target() {
    let mut followed = 0;
    for (page, text) in pages() {
        let links = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
        for link in links.filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link}", page.display());
            let anchor = |line: &str| line.trim_start_matches(['#', ' ']).to_lowercase().replace(' ', "-");
            let found = heading.is_empty()
                || std::fs::read_to_string(&target)
                    .unwrap()
                    .lines()
                    .any(|line| line.starts_with('#') && anchor(line) == heading);
            assert!(found, "{}: {link}", page.display());
            followed += 1;
        }
    }
    assert!(followed > 15, "{followed}");
}

#[test]
fn every_page_is_linked_from_the_readme() {
    let readme = include_str!("../README.md");
    let names = pages().into_iter().map(|(page, _)| page.file_name().unwrap().to_str().unwrap().to_owned());
    let lost: BTreeSet<_> =
        names.filter(|name| name != "README.md" && !readme.contains(&format!("(docs/{name})"))).collect();
    assert_eq!(lost, BTreeSet::new());
}

/// A directory like the checkout in the README, with a port of its own. It has the named files, the built programs, and
/// replacements for programs that would not end (`tail -F`) or would build (`cargo`).
struct Checkout {
    directory: tempfile::TempDir,
    port: String,
}

impl Checkout {
    fn new() -> Checkout {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let checkout = Checkout { directory, port };
        for folder in ["config/conf.d", "target/release", "bin"] {
            fs::create_dir_all(checkout.path(folder)).unwrap();
        }
        checkout.write("config/pushd.toml", config::DEFAULT);
        symlink(env!("CARGO_BIN_EXE_pushd"), checkout.path("target/release/pushd")).unwrap();
        // The default publish URL has the port of the README's server, so this script sets another one.
        let pushctl = format!(
            "#!/bin/sh\n[ \"$1\" = publish ] && shift && set -- publish --url http://127.0.0.1:{} \"$@\"\nexec {} \"$@\"\n",
            checkout.port,
            env!("CARGO_BIN_EXE_pushctl")
        );
        let cargo = "#!/bin/sh\n[ \"$1\" = build ] && exit\nprogram=pushd\n\
             while [ \"$1\" != -- ]; do [ \"$1\" = pushctl ] && program=pushctl; shift; done\nshift\n\
             exec target/release/$program \"$@\"\n";
        let tail = "#!/bin/sh\ntest \"$1\" = -F && cat \"$2\"\n";
        for (name, text) in [("target/release/pushctl", &*pushctl), ("bin/cargo", cargo), ("bin/tail", tail)] {
            let path = checkout.path(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        checkout
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file as in the README, with the other port.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text.replace("8888", &self.port)).unwrap();
    }

    fn address(&self) -> SocketAddr {
        format!("127.0.0.1:{}", self.port).parse().unwrap()
    }

    /// The command that runs a block of the README.
    fn command(&self, program: &str, arguments: &[&str], block: &str) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        command
            .args(arguments)
            .arg(block.replace("8888", &self.port))
            .current_dir(self.directory.path())
            .env("PATH", path);
        command
    }

    /// Runs a block to its end. Returns its output.
    fn run(&self, program: &str, arguments: &[&str], block: &str) -> String {
        let ran = self.command(program, arguments, block).output().unwrap();
        let printed = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(ran.status.success(), "{block}\n{printed}{}", String::from_utf8_lossy(&ran.stderr));
        printed
    }

    fn pid(&self) -> Option<i32> {
        fs::read_to_string(self.path("pushd.pid")).ok()?.strip_suffix('\n')?.parse().ok()
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The blocks of the README in one language, in order.
fn blocks(language: &str) -> Vec<&'static str> {
    let readme = include_str!("../README.md");
    let fence = format!("```{language}\n");
    let blocks = readme.split(fence.as_str()).skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap()).collect()
}

/// The only block in this language that contains these words.
fn block(language: &str, words: &str) -> &'static str {
    let found: Vec<_> = blocks(language).into_iter().filter(|block| block.contains(words)).collect();
    assert_eq!(found.len(), 1, "{language} with {words:?}: {found:?}");
    found[0]
}

/// Whether a program is installed, and exits with 0 when run with these arguments.
fn has(program: &str, arguments: &[&str]) -> bool {
    let tried = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

#[test]
fn the_examples_work_in_order() {
    let checkout = Checkout::new();
    let mut first = checkout.command("sh", &["-ec"], block("sh", "-n -c config/pushd.toml")).spawn().unwrap();
    until("the first server", || checkout.pid());

    // The page's own script, if there is a Node.js with WebSocket; otherwise a client of the test.
    let node = has("node", &["-e", "new WebSocket('ws://127.0.0.1:1').onerror = () => process.exit(0)"]);
    let mut page = node.then(|| {
        let output = fs::File::create(checkout.path("output")).unwrap();
        checkout.command("node", &["-e"], block("js", "connect();")).stdout(output).spawn().unwrap()
    });
    let mut client = (!node).then(|| Ws::open(checkout.address(), "/ws?channel=news"));
    until_true("a subscriber", || metric(checkout.address(), "pushd_hub_sessions{hub=\"push\"}") == 1);

    let (curl, shown) = block("sh", "-d 'Hello'").trim_end().split_once("\n# ").unwrap();
    // Its position is another one each time.
    let (expected, _) = shown.split_once("\"id\"").unwrap();
    for printed in [curl, block("sh", "publish news Hello")].map(|command| checkout.run("sh", &["-ec"], command)) {
        assert!(printed.starts_with(expected) && printed.contains("\"id\":\""), "{printed}");
    }
    let mut published = 2;
    for (language, program, argument) in [("python", "python3", "-c"), ("php", "php", "-r")] {
        if has(program, &[argument, ""]) {
            let printed = checkout.run(program, &[argument], blocks(language)[0]);
            assert!(printed.contains(expected), "{language}: {printed}");
            published += 1;
        }
    }
    if let Some(client) = &mut client {
        (0..published).for_each(|_| client.expect_text("Hello"));
    }
    if let Some(page) = &mut page {
        let output = || fs::read_to_string(checkout.path("output")).unwrap();
        until_true("the output of the page", || output() == "Hello\n".repeat(published));
        page.kill().unwrap();
        page.wait().unwrap();
    }

    // The stream in a terminal. The page's `EventSource` is tested in `tests/browser`.
    let shown = fs::File::create(checkout.path("stream")).unwrap();
    let stream = format!("exec {}", block("sh", "the same in a terminal"));
    let mut stream = checkout.command("sh", &["-ec"], &stream).stdout(shown).stderr(Stdio::null()).spawn().unwrap();
    until_true("the event", || {
        publish(checkout.address(), "/publish/news", "Hello");
        fs::read_to_string(checkout.path("stream")).unwrap().contains("data: Hello\n\n")
    });
    stream.kill().unwrap();
    stream.wait().unwrap();
    let shown = fs::File::create(checkout.path("missed")).unwrap();
    let missed = format!("exec {}", block("sh", "since=earliest"));
    let mut missed = checkout.command("sh", &["-ec"], &missed).stdout(shown).stderr(Stdio::null()).spawn().unwrap();
    until_true("all that was published", || {
        let printed = fs::read_to_string(checkout.path("missed")).unwrap();
        printed.matches("data: Hello\n\n").count() > published
    });
    missed.kill().unwrap();
    missed.wait().unwrap();

    // Pages of other origins, once they are listed.
    for port in ["9999", &checkout.port] {
        let fields = [&*format!("Origin: http://localhost:{port}")];
        assert_eq!(Ws::ask(checkout.address(), "/ws", &fields).0.status, if port == "9999" { 403 } else { 101 });
    }
    assert_eq!(Ws::ask(checkout.address(), "/ws", &["Origin: http://127.0.0.1:9999"]).0.status, 403);
    checkout.write("config/conf.d/pages.toml", block("toml", "http://127.0.0.1:9999"));
    checkout.run("sh", &["-ec"], "kill -HUP \"$(cat pushd.pid)\"");
    until_true("the listed page", || {
        Ws::ask(checkout.address(), "/ws", &["Origin: http://127.0.0.1:9999"]).0.status == 101
    });
    checkout.write("config/conf.d/pages.toml", block("toml", "hosts = "));
    checkout.run("target/release/pushd", &["--check", "-c"], "config/pushd.toml");

    // Ctrl-C, and then the configuration file shown in the README.
    kill(Pid::from_raw(checkout.pid().unwrap()), Signal::SIGINT).unwrap();
    assert!(first.wait().unwrap().success());
    checkout.write("hub.toml", block("toml", "[feed.clock]"));
    checkout.run("sh", &["-ec"], block("sh", "--check -c hub.toml"));
    let printed = checkout.run("sh", &["-ec"], block("sh", "tail -F"));
    for part in [
        "{\"channel\":\"all\",\"subscribers\":1}",
        "data: hi\n\n",
        "{\"channel\":\"user/7/1\",\"subscribers\":0}",
        "<h1>It works</h1>",
        "Log opened",
        "pushd is running",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    until_true("its end", || checkout.pid().is_none());
}

#[test]
fn every_block_is_tested() {
    let tried = ["js", "php", "python", "toml", "sh", "nginx", "text"];
    let readme = include_str!("../README.md");
    let fences: Vec<_> =
        readme.lines().filter_map(|line| line.strip_prefix("```")).filter(|rest| !rest.is_empty()).collect();
    assert!(fences.len() > 10 && fences.iter().all(|language| tried.contains(language)), "{fences:?}");
    // Not run: the tests themselves, and commands that would change the machine.
    let untried = |block: &&str| block.contains("sudo ") || *block == "cargo test\n";
    assert_eq!(blocks("sh").iter().filter(|block| !untried(block)).count(), 7);
}
