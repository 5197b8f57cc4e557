//! `pushctl check`, `status`, `reload` and `stop`, from outside, against a pushd of the test.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use common::until_true;
use nix::sys::signal::{Signal, kill};
use pushd::daemon::pidfile::Pidfile;
use tempfile::TempDir;

const CONFIG: &str = r#"
[daemon]
rundir = "run"
grace = "60s"

[server.main]
listen = "127.0.0.1:0"

[server.main.routes]
"/ws" = { websocket = "push" }
"/metrics" = { metrics = true }

[hub.push]
"#;

/// A directory with a configuration and a run directory.
struct Site {
    dir: TempDir,
}

/// A pushd in the foreground.
struct Daemon {
    child: Child,
    log: BufReader<ChildStderr>,
    port: u16,
}

impl Site {
    fn new() -> Site {
        let site = Site { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(site.path("run")).unwrap();
        site.write(CONFIG);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, config: &str) {
        fs::write(self.path("pushd.toml"), config).unwrap();
    }

    /// Runs pushctl in the directory. Returns exit code, standard output and standard error.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_pushctl")).args(args).current_dir(self.dir.path()).output();
        let output = output.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn start(&self) -> Daemon {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pushd"));
        command.args(["-n", "-c"]).arg(self.path("pushd.toml")).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut daemon = Daemon { child, log, port: 0 };
        let line = daemon.wait_for("Listening on 127.0.0.1:");
        let port = line.split_once("127.0.0.1:").unwrap().1;
        daemon.port = port.split(' ').next().unwrap().trim().parse().unwrap();
        // It is written a moment after that line.
        let pidfile = self.path("run/pushd.pid");
        until_true("the PID", || fs::read_to_string(&pidfile).is_ok_and(|pid| !pid.is_empty()));
        daemon
    }
}

impl Daemon {
    /// The next line of the log that contains `words`.
    fn wait_for(&mut self, words: &str) -> String {
        let mut before = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.log.read_line(&mut line).unwrap(), 0, "the log ends without {words:?}: {before}");
            if line.contains(words) {
                return line;
            }
            before += &line;
        }
    }

    fn end(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn check_reports_the_same_as_pushd() {
    let site = Site::new();
    let pushd = |args: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_pushd")).args(args).current_dir(site.dir.path()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr).replace("pushd: ", ""))
    };
    for (extra, code) in [("", 0), ("x = 1\n[hub.unused]\n", 78), ("[hub.unused]\n", 0)] {
        site.write(&format!("{CONFIG}{extra}"));
        let (found, out, err) = site.run(&["check", "pushd.toml"]);
        assert_eq!(found, code, "{err}");
        assert_eq!(out.contains("good"), code == 0, "{out}");
        let file = site.path("pushd.toml");
        let file = file.to_str().unwrap();
        assert_eq!((found, out, err.replace("pushctl: ", "")), pushd(&["--check", "-c", file]), "{extra}");
    }
    let (code, _, err) = site.run(&["check", "none.toml"]);
    assert_eq!(code, 78);
    assert!(err.contains("none.toml") && err.contains("does not exist"), "{err}");
}

#[test]
fn a_pushd_that_does_not_run_is_reported_by_the_exit_code() {
    let site = Site::new();
    // A stale PID of a process that runs: this one.
    fs::write(site.path("run/pushd.pid"), format!("{}\n", std::process::id())).unwrap();
    let file = ["--config", "pushd.toml"];
    for (command, code) in [("status", 3), ("stop", 1), ("reload", 1)] {
        let (found, out, err) = site.run(&[&[command], &file[..]].concat());
        assert_eq!(found, code, "{command}: {err}");
        let output = format!("{out}{err}");
        assert!(output.contains("not running") && output.contains("run/pushd.pid"), "{command}: {output}");
    }
    for args in [&["status", "-c", "none.toml"][..], &["stop", "-c", "none.toml"], &["reload", "-c", "none.toml"]] {
        assert_eq!(site.run(args).0, 78, "{args:?}");
    }
}

#[test]
fn a_pushd_that_runs_on_another_configuration_is_left_alone() {
    let site = Site::new();
    let mut daemon = site.start();
    fs::write(site.path("other.toml"), CONFIG).unwrap();
    let pid = daemon.child.id();
    for (command, expected) in [("status", 3), ("reload", 1), ("stop", 1)] {
        let (code, out, err) = site.run(&[command, "-c", "other.toml"]);
        let output = format!("{out}{err}");
        assert_eq!(code, expected, "{command}: {output}");
        let words = format!("PID {pid} ({}) runs on ", site.path("run/pushd.pid").display());
        assert!(output.contains(&words) && output.contains("pushd.toml, not on "), "{command}: {output}");
        assert_eq!(command == "status", !output.contains("nothing was done; --pidfile "), "{output}");
    }
    assert!(daemon.child.try_wait().unwrap().is_none());
    // The same file under another name is accepted, and a named pidfile in any case.
    std::os::unix::fs::symlink("pushd.toml", site.path("link.toml")).unwrap();
    let (code, out, err) = site.run(&["reload", "-c", "link.toml"]);
    assert_eq!((code, out.contains("run/pushd.pid), has reloaded")), (0, true), "{err}");
    let (code, out, err) = site.run(&["stop", "-c", "other.toml", "--pidfile", "run/pushd.pid"]);
    let stopped = format!("pushd, PID {pid} ({}), has stopped\n", site.path("run/pushd.pid").display());
    assert_eq!((code, out), (0, stopped), "{err}");
    assert_eq!(daemon.end().code(), Some(0));
}

#[test]
fn a_named_configuration_never_means_the_pushd_of_this_directory() {
    let site = Site::new();
    let mut daemon = site.start();
    // This file does not name the pidfile, but a pushd started here with it would use the same one.
    fs::write(site.path("run/plain.toml"), CONFIG.replace("rundir = \"run\"", "")).unwrap();
    let run = |args: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_pushctl")).args(args).current_dir(site.path("run")).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, err) = run(&["stop", "-c", "plain.toml"]);
    assert_eq!((code, err.contains("runs on ")), (1, true), "{err}");
    assert!(daemon.child.try_wait().unwrap().is_none());
}

#[test]
fn the_lock_shows_which_process_runs() {
    let site = Site::new();
    let pidfile = site.path("run/pushd.pid");
    let mut lock = Pidfile::lock(&pidfile).unwrap();
    let status = || site.run(&["status", "-c", "pushd.toml"]);
    let (code, out, _) = status();
    assert_eq!((code, out.contains("starting")), (0, true), "{out}");
    lock.write().unwrap();
    let (code, out, _) = status();
    assert_eq!((code, out.contains(&format!("running, PID {}", std::process::id()))), (0, true), "{out}");
    let named = site.run(&["status", "--pidfile", "run/pushd.pid"]);
    assert_eq!((named.0, named.1), (0, out));
    // A PID that the holder did not write: no process is signalled.
    let mut bystander = Command::new("sleep").arg("600").spawn().unwrap();
    fs::write(&pidfile, format!("{}\n", bystander.id())).unwrap();
    for command in ["stop", "reload"] {
        let (code, _, err) = site.run(&[command, "-c", "pushd.toml"]);
        assert_eq!((code, err.contains("nothing was done")), (1, true), "{err}");
    }
    assert_eq!(bystander.try_wait().unwrap(), None);
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn status_shows_metrics() {
    let site = Site::new();
    let daemon = site.start();
    let _client = tungstenite::connect(format!("ws://127.0.0.1:{}/ws", daemon.port)).unwrap();
    let metrics = format!("http://127.0.0.1:{}/metrics", daemon.port);
    let (code, out, err) = site.run(&["status", "-c", "pushd.toml", "--url", &metrics]);
    assert_eq!((code, err.as_str()), (0, ""));
    let figures: Vec<(&str, &str)> = out.lines().skip(1).map(word_and_figure).collect();
    let expected =
        [("connections", "2"), ("sessions", "1"), ("channels", "1"), ("publications", "0"), ("deliveries", "0")];
    assert_eq!(figures, expected, "{out}");
    let (code, out, err) = site.run(&["status", "-c", "pushd.toml", "--url", "http://127.0.0.1:1/metrics"]);
    assert_eq!((code, out.lines().count(), err.contains("no figures")), (0, 1, true), "{out}{err}");
}

fn word_and_figure(line: &str) -> (&str, &str) {
    let mut words = line.split_whitespace();
    (words.next().unwrap(), words.next().unwrap())
}

#[test]
fn reload_refuses_an_invalid_file_and_reports_a_valid_one() {
    let site = Site::new();
    let mut daemon = site.start();
    site.write(&format!("{CONFIG}\nmesage_max = 5"));
    let (code, out, err) = site.run(&["reload", "-c", "pushd.toml"]);
    assert_eq!((code, out.as_str()), (78, ""));
    assert!(err.contains("nothing has changed") && err.contains("did you mean"), "{err}");
    site.write(CONFIG);
    let (code, out, _) = site.run(&["reload", "-c", "pushd.toml"]);
    assert_eq!((code, out.contains(&format!("PID {}", daemon.child.id()))), (0, true), "{out}");
    // The first line about a reload in the log: the invalid file was never sent to pushd.
    assert!(daemon.wait_for("Reload").contains("Reloaded"));
    let (code, _, err) = site.run(&["reload", "--pidfile", "run/pushd.pid"]);
    assert_eq!((code, err.contains("pushd itself checks the file")), (0, true), "{err}");
    daemon.wait_for("Reloaded");
}

#[test]
fn reload_waits_for_the_outcome_and_reports_it() {
    let site = Site::new();
    let mut daemon = site.start();
    let reload = || site.run(&["reload", "-c", "pushd.toml"]);
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    let with = |address: &str| CONFIG.replace("\"127.0.0.1:0\"", &format!("[\"127.0.0.1:0\", \"{address}\"]"));
    site.write(&with(&taken));
    let (code, out, err) = reload();
    assert_eq!((code, out.as_str()), (69, ""));
    for words in ["has refused it, nothing has changed", &taken, "another program uses this port"] {
        assert!(err.contains(words), "{err}");
    }
    daemon.wait_for("Reload refused");
    drop(other);
    // A setting that only a restart can change is not a failure, but it is reported.
    site.write(&with(&taken).replace("[daemon]", "[daemon]\nworkers = 3"));
    let (code, out, err) = reload();
    assert_eq!((code, out.contains("has reloaded")), (0, true), "{err}");
    assert!(err.contains("changed only by a restart: daemon.workers"), "{err}");
    // The reload is complete when the command returns.
    assert!(std::net::TcpStream::connect(&taken).is_ok());
    // Several at once: each gets the outcome of a reload that began after its request.
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| assert_eq!(reload().0, 0));
        }
    });
    // As with a version that writes no report beside its pidfile.
    fs::remove_file(site.path("run/pushd.pid.reload")).unwrap();
    let (code, out, _) = reload();
    assert_eq!((code, out.contains("its log says")), (0, true), "{out}");
}

#[test]
fn a_reload_fails_if_the_process_ends_meanwhile() {
    let site = Site::new();
    let mut daemon = site.start();
    assert_eq!(site.run(&["reload", "-c", "pushd.toml"]).0, 0);
    let pid = nix::unistd::Pid::from_raw(daemon.child.id().try_into().unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    let mut reload = Command::new(env!("CARGO_BIN_EXE_pushctl"));
    reload
        .args(["reload", "-c", "pushd.toml"])
        .current_dir(site.dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let reload = reload.spawn().unwrap();
    // While stopped, it handles no other signal. Whether it is killed before or after that signal, the reload fails.
    kill(pid, Signal::SIGKILL).unwrap();
    let ended = reload.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    daemon.end();
    // The report that it leaves behind neither prevents a start nor is believed.
    assert!(site.path("run/pushd.pid.reload").exists());
    let _daemon = site.start();
    assert_eq!(site.run(&["reload", "-c", "pushd.toml"]).0, 0);
}

#[test]
fn stop_waits_for_a_graceful_end() {
    let site = Site::new();
    let mut daemon = site.start();
    // The file is invalid by now; that does not matter.
    site.write(&format!("{CONFIG}\nnonsense"));
    let (code, out, err) = site.run(&["stop", "-c", "pushd.toml"]);
    assert_eq!((code, out.contains("has stopped")), (0, true), "{err}");
    assert_eq!(fs::read_dir(site.path("run")).unwrap().count(), 0);
    daemon.wait_for("Received SIGINT, shutting down");
    assert_eq!(daemon.end().code(), Some(0));
    assert_eq!(site.run(&["stop", "--pidfile", "run/pushd.pid"]).0, 1);
}

#[test]
fn stop_now_does_not_wait_for_clients() {
    let site = Site::new();
    let mut daemon = site.start();
    // A client that never answers the close: without --now it would be waited for.
    let _client = tungstenite::connect(format!("ws://127.0.0.1:{}/ws", daemon.port)).unwrap();
    let (code, out, err) = site.run(&["stop", "--now", "-c", "pushd.toml"]);
    assert_eq!((code, out.contains("has stopped")), (0, true), "{err}");
    assert_eq!(daemon.end().code(), Some(1));
}
