//! The log: its destinations, reopening, rotation, and the bound on its size.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::daemon::{Daemon, directory_with, pushd};
use common::http::get;
use common::ws::Ws;
use common::{PLAIN, Start, address_in, run, start, until, until_true};
use nix::sys::signal::{Signal, kill};

#[test]
fn in_the_foreground_the_log_goes_to_the_configured_target() {
    let mut to_stderr = start(PLAIN);
    assert_eq!(to_stderr.end(Signal::SIGINT), 0);
    assert!(to_stderr.log().contains("Log opened") && to_stderr.log().contains("Server Shut Down"));
    assert!(!to_stderr.path().join("pushd.log").exists());
    let text = |pushd: &common::Pushd, name: &str| fs::read_to_string(pushd.path().join(name)).unwrap();
    assert_eq!(text(&to_stderr, "stdout"), "");

    let mut to_stdout = Start::new(PLAIN).arguments(&["-l", "-"]).run();
    assert_eq!(to_stdout.end(Signal::SIGINT), 0);
    assert!(text(&to_stdout, "stdout").contains("Server Shut Down"));
    assert_eq!(to_stdout.log(), "");

    let mut to_file = Start::new(PLAIN).arguments(&["-l", "own.log", "--debug"]).run();
    let address =
        until("the address", || address_in(&fs::read_to_string(to_file.path().join("own.log")).ok()?, "main"));
    get(address, "/nowhere");
    get(address, "/healthz");
    assert_eq!(to_file.end(Signal::SIGINT), 0);
    assert!(text(&to_file, "own.log").contains("GET /healthz 200"));
    assert_eq!((to_file.log(), text(&to_file, "stdout")), (String::new(), String::new()));
}

/// Shell commands that make standard error look like the journal, as under systemd.
const UNDER_THE_JOURNAL: &str = "export JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2)";

#[test]
fn the_journal_gets_priorities_and_no_times() {
    let mut pushd = Start::new(PLAIN).after(UNDER_THE_JOURNAL).run();
    assert!(pushd.reload("bogus").starts_with("<3>[pushd#error] Reload refused"));
    assert_eq!(pushd.end(Signal::SIGTERM), 0);
    let (errors, others): (Vec<_>, Vec<_>) =
        pushd.log().lines().map(str::to_owned).partition(|line| line.starts_with("<3>"));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(others.iter().all(|line| line.starts_with("<6>[")), "{others:?}");
    assert_eq!(others.last().unwrap(), "<6>[pushd#info] Server Shut Down");

    // The same in JSON format.
    let mut pushd = Start::new(&format!("{PLAIN}\n[log]\nformat = \"json\"\n")).after(UNDER_THE_JOURNAL).run();
    assert_eq!(pushd.end(Signal::SIGTERM), 0);
    assert!(pushd.log().lines().all(|line| line.starts_with("<6>{\"time\":\"")), "{}", pushd.log());

    // The variable was inherited, but standard error leads elsewhere: then it does not count.
    let mut pushd = Start::new(PLAIN).after("export JOURNAL_STREAM=1:2").run();
    assert_eq!(pushd.end(Signal::SIGTERM), 0);
    assert!(!pushd.log().contains('<'), "{}", pushd.log());
}

#[test]
fn the_journal_receives_the_reason_of_a_failed_start() {
    let directory = directory_with("bogus = 1\n\nother = 2\n");
    for program in [&[common::PUSHD, "-n", "-c"][..], &[env!("CARGO_BIN_EXE_pushctl"), "check"]] {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{UNDER_THE_JOURNAL}; exec \"$@\""), "sh"]);
        let ran = run(command.args(program).arg("hub.toml").current_dir(directory.path()));
        assert_eq!(ran.code(), 78, "{}", ran.stderr);
        assert!(ran.stderr.lines().count() > 4 && ran.stderr.contains("hub.toml:3:1"), "{}", ran.stderr);
        assert!(ran.stderr.lines().all(|line| line.starts_with("<3>")), "{}", ran.stderr);
    }
}

#[test]
fn the_log_says_which_side_closed_a_connection() {
    let log = "channels = [\"{channel=all}\"], log = \"connections\" }";
    let mut pushd = start(&PLAIN.replacen("channels = [\"{channel=all}\"] }", log, 1));
    let client = Ws::open(pushd.address(), "/ws");
    let name = client.wire.local_address();
    client.close();
    pushd.logged(&format!("{name} connection closed: by the client\n"));
    let mut client = Ws::open(pushd.address(), "/ws");
    let name = client.wire.local_address();
    pushd.signal(Signal::SIGTERM);
    client.expect_close(1001, "going away");
    assert_eq!(pushd.wait(), 0);
    pushd.logged(&format!("{name} connection closed: by the server, 1001\n"));
}

#[test]
fn the_address_of_a_client_that_resets_is_in_every_log_line() {
    let log = "channels = [\"{channel=all}\"], log = \"connections\" }";
    for workers in [1, 4] {
        let config = PLAIN.replacen("channels = [\"{channel=all}\"] }", log, 1);
        let pushd = start(&format!("{config}[daemon]\nworkers = {workers}\n"));
        let names: Vec<_> = (0..8)
            .map(|_| {
                let client = Ws::open(pushd.address(), "/ws");
                let name = client.wire.local_address();
                client.wire.reset();
                name
            })
            .collect();
        pushd.logged_times(" connection closed: ", names.len());
        let log = pushd.log();
        for name in names {
            for words in ["new connection on /ws", "connection closed: "] {
                assert!(log.contains(&format!("{name} {words}")), "{name} {words} in {log}");
            }
        }
    }
}

#[test]
fn a_missing_file_of_a_feed_is_logged() {
    let feed = "[feed.lines]\nhub = \"push\"\nchannel = \"all\"\ntail = \"typo.log\"\n";
    let pushd = start(&format!("{PLAIN}{feed}"));
    pushd.logged("feed lines: waits for ");
    pushd.logged("typo.log, which is not there yet");
}

#[test]
fn a_moved_log_is_reopened() {
    let directory = directory_with(PLAIN);
    let daemon = Daemon::launch(&mut pushd(directory.path(), &["-c", "hub.toml"]), directory.path());
    let (log, moved) = (directory.path().join("pushd.log"), directory.path().join("moved.log"));
    fs::set_permissions(&log, Permissions::from_mode(0o604)).unwrap();
    fs::rename(&log, &moved).unwrap();
    kill(daemon.pid, Signal::SIGUSR1).unwrap();
    until_true("a new log", || fs::read_to_string(&log).is_ok_and(|log| log.contains("Log opened")));
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o604, "the mode is kept");
    assert_eq!(daemon.end(Signal::SIGTERM), 0);
    assert!(fs::read_to_string(&log).unwrap().contains("Server Shut Down"));
    let moved = fs::read_to_string(&moved).unwrap();
    assert!(moved.contains("Listening on") && !moved.contains("Server Shut Down"), "{moved}");
}

#[test]
fn a_growing_log_is_rotated_and_the_number_of_files_is_bounded() {
    let chatty = PLAIN.replace("on_message = \"echo\"", "on_message = \"echo\", log = \"messages\"");
    let directory = directory_with(&format!("{chatty}\n[log]\nrotate = {{ size = \"4KB\", keep = 3 }}\n"));
    let daemon = Daemon::launch(&mut pushd(directory.path(), &["-c", "hub.toml"]), directory.path());
    let mut client = Ws::open(daemon.address(), "/echo");
    fs::set_permissions(directory.path().join("pushd.log"), Permissions::from_mode(0o640)).unwrap();
    for number in 0..400 {
        client.text(&format!("message {number:04}"));
        client.expect_text(&format!("message {number:04}"));
    }
    client.close();
    assert_eq!(daemon.end(Signal::SIGTERM), 0);
    let mut names: Vec<String> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["hub.toml", "pushd.log", "pushd.log.1", "pushd.log.2", "pushd.log.3"]);
    let mut kept = String::new();
    for name in names[1..].iter().skip(1).rev().chain([&names[1]]) {
        let path = directory.path().join(name);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.len() <= 4000 && text.lines().next().unwrap().contains("Log opened"), "{name}: {text}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640, "{name}");
        kept += &text;
    }
    // From the oldest kept message to the last, none is missing.
    let numbers: Vec<usize> =
        kept.lines().filter_map(|line| line.split_once("message received message ")?.1.parse().ok()).collect();
    assert!(numbers.len() > 50, "{}", numbers.len());
    assert_eq!(numbers, (400 - numbers.len()..400).collect::<Vec<_>>());
}
