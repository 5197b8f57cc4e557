//! The process: the launcher's report, one pushd at a time, signals whatever the parent ignored.

mod common;

use std::fs::{self, File, Permissions, TryLockError};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;

use common::daemon::{Daemon, directory_with, pushd};
use common::http::{get, publish};
use common::ws::Ws;
use common::{DEADLINE, PLAIN, PUSHD, Start, address_in, run, until, until_true};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, SockAddr, Socket, Type};

/// Checks that a start fails with this code and these words, as a daemon and in the foreground, and leaves no pidfile.
fn fails(path: &Path, arguments: &[&str], code: i32, words: &str) {
    for foreground in [&[][..], &["-n"]] {
        let ran = run(&mut pushd(path, &[arguments, foreground].concat()));
        assert_eq!(ran.code(), code, "{}", ran.stderr);
        assert!(ran.stderr.contains(words), "{words:?} in {:?}", ran.stderr);
        assert_eq!(ran.stdout, "");
        assert!(!path.join("pushd.pid").exists(), "a pidfile remains");
    }
}

#[test]
fn the_launcher_exits_when_the_daemon_serves() {
    for (signal, name) in [(Signal::SIGINT, "SIGINT"), (Signal::SIGTERM, "SIGTERM")] {
        let directory = directory_with(PLAIN);
        let daemon = Daemon::launch(&mut pushd(directory.path(), &["-c", "hub.toml"]), directory.path());
        let address = daemon.address();
        assert_eq!(get(address, "/healthz").text(), "ok\n");
        // The pidfile is locked while the process runs.
        let file = File::open(directory.path().join("pushd.pid")).unwrap();
        assert!(matches!(file.try_lock(), Err(TryLockError::WouldBlock)));
        // It has a session of its own, without a terminal. Its working directory is the one it was started in.
        let proc = PathBuf::from(format!("/proc/{}", daemon.pid));
        assert_eq!(fs::read_link(proc.join("cwd")).unwrap(), directory.path().canonicalize().unwrap());
        for stream in 0..3 {
            assert_eq!(fs::read_link(proc.join(format!("fd/{stream}"))).unwrap(), Path::new("/dev/null"));
        }
        let stat = fs::read_to_string(proc.join("stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        assert_ne!(fields[3], nix::unistd::getsid(None).unwrap().to_string(), "another session");
        assert_eq!(fields[4], "0", "no terminal");

        let mut client = Ws::open(address, "/ws");
        kill(daemon.pid, signal).unwrap();
        client.expect_close(1001, "going away");
        assert_eq!(daemon.wait(), 0);
        assert!(!directory.path().join("pushd.pid").exists());
        let log = fs::read_to_string(directory.path().join("pushd.log")).unwrap();
        let offsets =
            ["Log opened", "Listening on 127.0.0.1:", &format!("Received {name}, shutting down"), "Server Shut Down"]
                .map(|words| log.find(words).unwrap_or_else(|| panic!("no {words:?} in {log}")));
        assert!(offsets.is_sorted(), "{log}");
        for line in log.lines() {
            line.split_once(' ')
                .unwrap()
                .0
                .parse::<jiff::Timestamp>()
                .unwrap_or_else(|error| panic!("{error}: {line}"));
        }
    }
}

/// The output of a command, read until it and all processes it started have closed it.
fn read_to_the_end(command: &mut Command) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (sender, ended) = channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    ended.recv_timeout(DEADLINE).expect("a process still holds the output of a command that has ended").unwrap()
}

#[test]
fn the_daemon_does_not_keep_the_launchers_output_open() {
    let directory = directory_with(PLAIN);
    set_child_subreaper(true).unwrap();
    let output = read_to_the_end(&mut pushd(directory.path(), &["-c", "hub.toml"]));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(Daemon::adopt(&directory.path().join("pushd.pid")).end(Signal::SIGTERM), 0);
}

#[test]
fn a_taken_port_exits_with_69() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = directory_with(&PLAIN.replace("\"127.0.0.1:0\"", &format!("[\"unix:hub.sock\", \"{address}\"]")));
    fails(
        directory.path(),
        &["-c", "hub.toml"],
        69,
        &format!("cannot listen on {address}: another program uses this port"),
    );
    assert!(!directory.path().join("hub.sock").exists(), "a Unix socket remains");
}

#[test]
fn a_unix_socket_with_a_full_backlog_counts_as_taken() {
    let directory = directory_with(&PLAIN.replace("127.0.0.1:0", "unix:hub.sock"));
    let owner = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let address = SockAddr::unix(directory.path().join("hub.sock")).unwrap();
    owner.bind(&address).and_then(|()| owner.listen(0)).unwrap();
    // Fill the backlog.
    let waiting: Vec<Socket> = std::iter::from_fn(|| {
        let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        client.connect(&address).is_ok().then_some(client)
    })
    .collect();
    assert!(!waiting.is_empty());
    fails(directory.path(), &["-c", "hub.toml"], 69, "hub.sock: another program uses it");
}

#[test]
fn the_exit_code_is_right_even_if_the_message_cannot_be_written() {
    let directory = directory_with(PLAIN);
    for foreground in [&[][..], &["-n"]] {
        let mut command = pushd(directory.path(), &[&["-c", "hub.toml", "-l", "no/such.log"], foreground].concat());
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert_eq!(command.stdin(Stdio::null()).stderr(full).status().unwrap().code(), Some(73));
    }
}

#[test]
fn a_start_that_fails_late_leaves_no_feed_command_running() {
    let feed = "[feed.f]\nhub = \"push\"\nchannel = \"all\"\ncommand = [\"sleep\", \"600\"]\n";
    let directory = directory_with(&format!("{PLAIN}{feed}"));
    // No file can be written, as on a full disk, and all started processes hold this test's output.
    let script = "trap '' XFSZ; ulimit -f 0; exec 9>&1; exec \"$0\" -n -c hub.toml";
    // Several times, because the failure may come before the command has started.
    for _ in 0..20 {
        let ran = read_to_the_end(Command::new("/bin/sh").args(["-c", script, PUSHD]).current_dir(directory.path()));
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(71), "{said}");
        assert!(said.contains("cannot open the pidfile"), "{said}");
    }
}

#[test]
fn a_second_pushd_exits_with_69_and_disturbs_nothing() {
    let directory = directory_with(PLAIN);
    let daemon = Daemon::launch(&mut pushd(directory.path(), &["-c", "hub.toml"]), directory.path());
    let mut client = Ws::open(daemon.address(), "/ws");
    let (log, address) = (daemon.log(), daemon.address());
    for arguments in [&["-c", "hub.toml"][..], &["-c", "hub.toml", "-n"]] {
        let ran = run(&mut pushd(directory.path(), arguments));
        assert_eq!(ran.code(), 69, "{}", ran.stderr);
        assert!(ran.stderr.contains(&format!("Another pushd is running, PID {}\n", daemon.pid)), "{}", ran.stderr);
        assert_eq!(fs::read_to_string(directory.path().join("pushd.pid")).unwrap(), format!("{}\n", daemon.pid));
    }
    assert_eq!(publish(address, "/publish/all", "undisturbed"), 1);
    client.expect_text("undisturbed");
    client.close();
    assert_eq!(daemon.log(), log);
    // With other files a second pushd can run.
    let other = run(&mut pushd(directory.path(), &["-c", "hub.toml", "--pidfile", "b.pid", "-l", "b.log"]));
    assert_eq!(other.code(), 0, "{}", other.stderr);
    assert_eq!(Daemon::adopt(&directory.path().join("b.pid")).end(Signal::SIGTERM), 0);
    assert!(directory.path().join("pushd.pid").exists() && !directory.path().join("b.pid").exists());
    assert_eq!(daemon.end(Signal::SIGTERM), 0);
}

#[test]
fn a_stale_pidfile_does_not_prevent_a_start() {
    let directory = directory_with(PLAIN);
    let pidfile = directory.path().join("pushd.pid");
    let launch = || Daemon::launch(&mut pushd(directory.path(), &["-c", "hub.toml"]), directory.path());
    let ours = std::process::id().to_string();
    for left in ["", "4000000\n", "no number\0\n", "99999999999999999999\n", "-1\n", &ours] {
        fs::write(&pidfile, left).unwrap();
        assert_eq!(launch().end(Signal::SIGTERM), 0, "{left:?}");
        assert!(!pidfile.exists());
    }
    // The pidfile of a process that was killed.
    let daemon = launch();
    let killed = daemon.pid;
    drop(daemon);
    assert_eq!(fs::read_to_string(&pidfile).unwrap(), format!("{killed}\n"));
    assert_eq!(launch().end(Signal::SIGTERM), 0);
}

#[test]
fn a_pidfile_that_another_program_replaced_is_not_removed() {
    let directory = directory_with(PLAIN);
    let daemon = Daemon::launch(&mut pushd(directory.path(), &["-c", "hub.toml"]), directory.path());
    let pidfile = directory.path().join("pushd.pid");
    fs::remove_file(&pidfile).unwrap();
    fs::write(&pidfile, "another's\n").unwrap();
    assert_eq!(daemon.end(Signal::SIGTERM), 0);
    assert_eq!(fs::read_to_string(&pidfile).unwrap(), "another's\n");
}

#[test]
fn a_unix_socket_that_another_program_replaced_is_not_removed() {
    let config = PLAIN.replace("\"127.0.0.1:0\"", "[\"127.0.0.1:0\", \"unix:hub.sock\"]");
    for reloads in [false, true] {
        let mut pushd = Start::new(&config).run();
        let path = pushd.path().join("hub.sock");
        fs::remove_file(&path).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        if reloads {
            let outcome = pushd.reload(PLAIN);
            assert!(outcome.contains("Reloaded"), "{outcome}");
        } else {
            assert_eq!(pushd.end(Signal::SIGTERM), 0);
        }
        UnixStream::connect(&path).expect("the socket exists");
        other.accept().expect("it belongs to the other program");
        assert!(pushd.log().contains("hub.sock is not the socket that was bound there"), "{}", pushd.log());
    }
}

#[test]
fn a_log_that_cannot_be_created_exits_with_73() {
    let directory = directory_with(PLAIN);
    fails(directory.path(), &["-c", "hub.toml", "-l", "no/such/place.log"], 73, "no/such/place.log");
    fails(directory.path(), &["-c", "hub.toml", "-l", "."], 73, "cannot open the log");
    fails(directory.path(), &["-c", "hub.toml", "--pidfile", "no/such.pid"], 73, "no/such.pid");
}

#[test]
fn a_bad_configuration_exits_with_78_and_names_the_line() {
    let directory = directory_with("[server.main]\nlisten = \"8888\"\nlisen = \"x\"\n");
    fails(directory.path(), &["-c", "hub.toml"], 78, "hub.toml:2:10");
    fails(directory.path(), &["-c", "hub.toml"], 78, "did you mean");
    fails(directory.path(), &["-c", "not-there.toml"], 78, "not-there.toml");
    let directory = directory_with(PLAIN);
    fails(directory.path(), &["-c", "hub.toml", "-d", "not-there"], 78, "not-there");
    fails(directory.path(), &["-c", "hub.toml", "-u", "nobody-of-that-name"], 78, "nobody-of-that-name");
}

#[test]
fn a_missing_permission_exits_with_77() {
    let directory = directory_with(PLAIN);
    let closed = directory.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::write(closed.join("pidfile.toml"), PLAIN).unwrap();
    fs::write(closed.join("socket.toml"), PLAIN.replace("127.0.0.1:0", "unix:hub.sock")).unwrap();
    let binary = directory.path().join("pushd");
    fs::copy(PUSHD, &binary).unwrap();
    for (path, mode) in [(directory.path(), 0o777), (closed.as_path(), 0o555)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    for (file, path, words) in
        [("closed/socket.toml", directory.path(), "no permission"), ("pidfile.toml", closed.as_path(), "pushd.pid")]
    {
        for foreground in [&[][..], &["-n"]] {
            let mut command = Command::new(&binary);
            command.args(["-c", file]).args(foreground).current_dir(path);
            if nix::unistd::Uid::effective().is_root() {
                // Root has every permission.
                command.uid(65534).gid(65534);
            }
            let ran = run(&mut command);
            assert_eq!(ran.code(), 77, "{file}: {}", ran.stderr);
            assert!(ran.stderr.contains(words), "{words:?} in {:?}", ran.stderr);
        }
    }
    fs::set_permissions(&closed, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_wrong_command_line_exits_with_64() {
    let directory = directory_with(PLAIN);
    for (arguments, words) in [
        (&["--no-such-switch"][..], "--no-such-switch"),
        (&["-c"], "--config"),
        (&["stray"], "stray"),
        (&["-c", "hub.toml", "--umask", "9"], "octal"),
        (&["-c", "hub.toml", "-l", "-"], "nodaemon"),
    ] {
        let ran = run(&mut pushd(directory.path(), arguments));
        assert_eq!(ran.code(), 64, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(words), "{words:?} in {:?}", ran.stderr);
    }
    let version = run(&mut pushd(directory.path(), &["--version"]));
    assert_eq!((version.code(), &version.stdout[..]), (0, concat!("pushd ", env!("CARGO_PKG_VERSION"), "\n")));
    let help = run(&mut pushd(directory.path(), &["--help"]));
    assert_eq!((help.code(), &help.stderr[..]), (0, ""));
    for switch in [
        "--nodaemon",
        "--logfile",
        "--pidfile",
        "--rundir",
        "--umask",
        "--uid",
        "--gid",
        "--syslog",
        "--prefix",
        "--debug",
        "--check",
        "--rehearse",
    ] {
        assert!(help.stdout.contains(switch), "{switch}");
    }
}

#[test]
fn a_configuration_can_be_read_from_a_pipe_once() {
    let pushd = Start::new("")
        .after(
            "mkfifo conf; cat > conf <<'END' &\n[server.main]\nlisten = \"127.0.0.1:0\"\n\
        routes.\"/healthz\" = { health = true }\nEND\nset -- -n -c conf",
        )
        .run();
    assert_eq!(get(pushd.address(), "/healthz").text(), "ok\n");
    pushd.signal(Signal::SIGHUP);
    pushd.logged("conf: this is a pipe, not a file");
    let directory = directory_with(PLAIN);
    let file = File::open(directory.path().join("hub.toml")).unwrap();
    let checked = Command::new(PUSHD).args(["--check", "-c", "/dev/stdin"]).stdin(file).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn a_check_reports_everything_and_changes_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = directory_with(&PLAIN.replace("127.0.0.1:0", &taken.local_addr().unwrap().to_string()));
    let good = run(&mut pushd(directory.path(), &["--check", "-c", "hub.toml"]));
    assert_eq!((good.code(), &good.stderr[..]), (0, ""));
    assert!(good.stdout.contains("the configuration is good"), "{}", good.stdout);
    fs::write(directory.path().join("bad.toml"), PLAIN.replace("on_message", "on_mesage").replace("\"/ws\"", "\"ws\""))
        .unwrap();
    // The exit code is right even if the output is not read.
    let mut unread = pushd(directory.path(), &["--check", "-c", "hub.toml"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(unread.stdin(Stdio::null()).stdout(writer).status().unwrap().code(), Some(0));
    let bad = run(&mut pushd(directory.path(), &["--check", "-c", "bad.toml"]));
    assert_eq!((bad.code(), &bad.stdout[..]), (78, ""));
    for words in ["bad.toml:5:1", "bad.toml:6:33", "bad.toml:7:63", "write `/ws`", "did you mean `on_message`?"] {
        assert!(bad.stderr.contains(words), "{words:?} in {}", bad.stderr);
    }
    let mut names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["bad.toml", "hub.toml"]);
}

#[test]
fn a_configuration_without_its_switch_gets_a_hint() {
    let directory = tempfile::tempdir().unwrap();
    fails(directory.path(), &["hub.toml"], 64, "tip: a configuration is named with -c: -c hub.toml");
}

#[test]
fn an_unreadable_configuration_exits_with_77_and_not_78() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(at("closed.toml"), "").unwrap();
    fs::set_permissions(at("closed.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    let programs = [("pushd", env!("CARGO_BIN_EXE_pushd")), ("pushctl", env!("CARGO_BIN_EXE_pushctl"))];
    for (name, built) in programs {
        fs::copy(built, at(name)).unwrap();
    }
    for (program, arguments) in [
        ("pushd", &["-n", "-c"][..]),
        ("pushd", &["--check", "-c"]),
        ("pushctl", &["check"]),
        ("pushctl", &["status", "-c"]),
    ] {
        let mut asked = Command::new(at(program));
        let ran = run(asked.args(arguments).arg(at("closed.toml")).uid(65534).gid(65534).current_dir("/"));
        assert_eq!(
            (ran.code(), ran.stderr.contains("no permission to read it")),
            (77, true),
            "{arguments:?}: {}",
            ran.stderr
        );
    }
}

#[test]
fn a_rehearsal_finds_the_errors_of_a_start_and_accepts_the_running_processs_port() {
    let directory = directory_with(PLAIN);
    let daemon = Daemon::launch(&mut pushd(directory.path(), &["-c", "hub.toml"]), directory.path());
    let rehearse = |address: &str| {
        fs::write(directory.path().join("next.toml"), PLAIN.replace("\"127.0.0.1:0\"", &format!("[\"{address}\"]")))
            .unwrap();
        run(&mut pushd(directory.path(), &["--rehearse", "-c", "next.toml"]))
    };
    let own = daemon.address().to_string();
    let good = rehearse(&own);
    assert_eq!((good.code(), &good.stderr[..]), (0, ""));
    assert!(good.stdout.contains("pushd could start with it"), "{}", good.stdout);
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = rehearse(&other.local_addr().unwrap().to_string());
    assert_eq!((taken.code(), &taken.stdout[..]), (69, ""));
    assert!(taken.stderr.contains("another program uses this port"), "{}", taken.stderr);
    assert_eq!(daemon.end(Signal::SIGTERM), 0);
    // After it has ended, the same port belongs to another program.
    let held = TcpListener::bind(&own).unwrap();
    let all = rehearse(&format!("{own}\", \"unix:none/s")).stderr;
    assert!(all.contains(&own) && all.contains("unix:"), "{all}");
    drop(held);
    fs::remove_file(directory.path().join("pushd.log")).unwrap();
    assert_eq!(rehearse("127.0.0.1:0").code(), 0);
    // A directory is not a log, and every file that cannot be created is reported.
    for pidfile in ["none/pushd.pid", "."] {
        let found =
            run(&mut pushd(directory.path(), &["--rehearse", "-c", "next.toml", "-l", "/etc", "--pidfile", pidfile]));
        assert_eq!(found.code(), 73, "{}", found.stderr);
        for words in ["cannot open the log /etc", "cannot open the pidfile"] {
            assert!(found.stderr.contains(words), "{pidfile}: {}", found.stderr);
        }
    }
    assert!(!directory.path().join("pushd.log").exists() && !directory.path().join("pushd.pid").exists());
}

#[test]
fn the_default_configuration_is_the_shipped_file() {
    let directory = tempfile::tempdir().unwrap();
    let printed = run(&mut pushd(directory.path(), &["--print-default-config"]));
    let shipped = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/pushd.toml")).unwrap();
    assert_eq!((printed.code(), printed.stdout), (0, shipped));
}

#[test]
fn relative_paths_are_relative_to_the_documented_directory() {
    let directory = directory_with("");
    let (conf, run_in, elsewhere) =
        (directory.path().join("conf"), directory.path().join("run"), directory.path().join("elsewhere"));
    for folder in [&conf, &run_in, &elsewhere, &conf.join("www")] {
        fs::create_dir(folder).unwrap();
    }
    fs::write(conf.join("www/index.html"), "pages beside the file").unwrap();
    fs::write(conf.join("hub.toml"), PLAIN.replace("{ page = \"live\" }", "{ static = \"www\" }")).unwrap();
    // In another directory, and in one that a switch names.
    for (arguments, path) in
        [(&["-c", "../conf/hub.toml"][..], &elsewhere), (&["-c", "../conf/hub.toml", "-d", "../run"], &run_in)]
    {
        let daemon = Daemon::launch(&mut pushd(&elsewhere, arguments), path);
        let address = daemon.address();
        assert_eq!(get(address, "/").text(), "pages beside the file");
        // A reload finds the file again, although the working directory is another one.
        kill(daemon.pid, Signal::SIGHUP).unwrap();
        until_true("a reload", || daemon.log().contains("Reloaded "));
        assert_eq!(get(address, "/").text(), "pages beside the file");
        assert_eq!(daemon.end(Signal::SIGTERM), 0);
        assert!(path.join("pushd.log").exists());
    }
    assert_eq!(fs::read_dir(&conf).unwrap().count(), 2, "nothing was written beside the file");
}

#[test]
fn the_mask_applies_to_sockets_too() {
    let config = PLAIN.replace("\"127.0.0.1:0\"", "[\"127.0.0.1:0\", \"unix:pushd.sock\"]");
    for (arguments, mode) in [(&["-c", "hub.toml"][..], 0o700), (&["-c", "hub.toml", "--umask", "007"], 0o770)] {
        let directory = directory_with(&config);
        let daemon = Daemon::launch(&mut pushd(directory.path(), arguments), directory.path());
        let socket = fs::metadata(directory.path().join("pushd.sock")).unwrap();
        assert_eq!(socket.permissions().mode() & 0o777, mode);
        assert_eq!(daemon.end(Signal::SIGTERM), 0);
    }
}

#[test]
fn signals_work_even_if_the_parent_ignored_them() {
    let mut pushd = Start::new(PLAIN).after("trap '' INT TERM HUP USR1").run();
    pushd.signal(Signal::SIGHUP);
    pushd.logged("Reloaded ");
    assert_eq!(pushd.end(Signal::SIGINT), 0);
    let mut pushd = Start::new(PLAIN).after("trap '' INT TERM").run();
    assert_eq!(pushd.end(Signal::SIGTERM), 0);
    // As a daemon, and from a shell that ignores SIGINT, as for the background jobs of a script.
    let directory = directory_with(PLAIN);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' INT HUP; exec \"$0\" -c hub.toml", PUSHD]).current_dir(directory.path());
    assert_eq!(Daemon::launch(&mut shell, directory.path()).end(Signal::SIGINT), 0);
}

#[test]
fn the_pidfile_has_a_pid_only_once_the_process_serves() {
    for _ in 0..5 {
        // Started without `Start`, so that the test waits only for the PID.
        let directory = directory_with(PLAIN);
        let log = directory.path().join("log");
        let mut command = pushd(directory.path(), &["-n", "-c", "hub.toml", "-l", "log"]);
        let mut child = command.stdin(Stdio::null()).spawn().unwrap();
        let number = until("the number", || {
            fs::read_to_string(directory.path().join("pushd.pid")).ok().filter(|text| text.ends_with('\n'))
        });
        // Beside the threads of main, the log and the signals, those that serve exist already.
        let threads = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap().count();
        let address = until("the address", || address_in(&fs::read_to_string(&log).ok()?, "main"));
        let answered = get(address, "/readyz").status;
        kill(Pid::from_raw(number.trim().parse().unwrap()), Signal::SIGTERM).unwrap();
        assert_eq!((until("its end", || child.try_wait().unwrap()).code(), answered), (Some(0), 200));
        assert_eq!(number.trim(), child.id().to_string());
        assert!(threads > 3, "{threads}: no thread serves yet");
    }
}
