//! A start as root for another user: files that root opens by name cannot be used against it. Only root can run these
//! tests; for other users they do nothing.

mod common;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use common::daemon::{Daemon, directory_with, pushd};
use common::{PLAIN, Start, run};
use nix::sys::signal::Signal;
use nix::unistd::Uid;
use pushd::daemon::pidfile::Pidfile;

/// The user that root becomes, and a third one; by number, because names differ between machines.
const USER: u32 = 65534;
const STRANGER: u32 = 65533;
/// How often the race is tried.
const STARTS: usize = 20;

fn arguments(user: u32) -> [String; 4] {
    ["-u", &user.to_string(), "-g", &user.to_string()].map(str::to_owned)
}

/// A pushd with a Unix socket, to be started by root for the user. `owner` owns its directory.
fn for_the_user(owner: u32) -> Start {
    let words = arguments(USER);
    let start = Start::new(&PLAIN.replace("\"127.0.0.1:0\"", "[\"127.0.0.1:0\", \"unix:hub.sock\"]"));
    fs::set_permissions(start.path(), Permissions::from_mode(0o755)).unwrap();
    chown(start.path(), Some(owner), Some(owner)).unwrap();
    start.arguments(&words.each_ref().map(String::as_str)).arguments(&["-l", "pushd.log"])
}

#[test]
fn a_socket_replaced_by_a_link_does_not_give_away_a_file_of_roots() {
    if !Uid::effective().is_root() {
        return;
    }
    let victims = tempfile::tempdir().unwrap();
    let victim = victims.path().join("victim");
    fs::write(&victim, "root's").unwrap();
    for _ in 0..STARTS {
        let start = for_the_user(USER);
        let socket = start.path().join("hub.sock");
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    if socket.symlink_metadata().is_ok_and(|found| found.file_type().is_socket()) {
                        let _ = fs::remove_file(&socket).and_then(|()| symlink(&victim, &socket));
                        return;
                    }
                }
            });
            let started = start.try_run();
            over.store(true, Ordering::Relaxed);
            match started {
                Ok(mut pushd) => assert_eq!(pushd.end(Signal::SIGTERM), 0),
                // The link was there before pushd could open the socket that it bound.
                Err(why) => assert!(why.contains("cannot listen on unix:"), "{why}"),
            }
        });
        assert_eq!(victim.metadata().unwrap().uid(), 0, "the user was given a file of root's");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "root's");
    }
}

#[test]
fn files_that_root_creates_belong_to_the_user() {
    if !Uid::effective().is_root() {
        return;
    }
    for owner in [USER, 0] {
        let pushd = for_the_user(owner).run();
        for name in ["hub.sock", "pushd.pid", "pushd.log"] {
            let found = pushd.path().join(name).metadata().unwrap();
            assert_eq!((found.uid(), found.gid()), (USER, USER), "{name} in a directory of {owner}");
        }
        let status = fs::read_to_string(format!("/proc/{}/status", pushd.pid())).unwrap();
        let ids = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
        assert_eq!(ids.split_whitespace().skip(1).collect::<Vec<_>>(), ["65534"; 4], "all ids are changed");
    }
}

#[test]
fn root_creates_nothing_in_a_directory_that_a_third_user_can_change() {
    if !Uid::effective().is_root() {
        return;
    }
    for (config, words) in [
        (PLAIN.to_owned(), "pushd.pid"),
        (PLAIN.replace("127.0.0.1:0", "unix:strange/hub.sock"), "hub.sock"),
        (format!("{PLAIN}\n[log]\nfile = \"strange/pushd.log\"\n"), "pushd.log"),
    ] {
        let directory = directory_with(&config);
        let strange = directory.path().join("strange");
        fs::create_dir(&strange).unwrap();
        for (path, owner) in
            [(strange.as_path(), STRANGER), (directory.path(), if words == "pushd.pid" { STRANGER } else { USER })]
        {
            chown(path, Some(owner), Some(owner)).unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        }
        let words_of = arguments(USER);
        let ran = run(pushd(directory.path(), &["-c", "hub.toml"]).args(&words_of));
        assert_eq!(ran.code(), 77, "{}", ran.stderr);
        assert!(ran.stderr.contains(words) && ran.stderr.contains("others than root"), "{}", ran.stderr);
        assert!(!directory.path().join(words).exists() && !strange.join(words).exists());
    }
}

#[test]
fn every_user_may_ask_whether_it_runs() {
    if !Uid::effective().is_root() {
        return;
    }
    let directory = directory_with(PLAIN);
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let daemon = Daemon::launch(&mut pushd(directory.path(), &["-c", "hub.toml"]), directory.path());
    let mode = |name: &str| directory.path().join(name).metadata().unwrap().mode() & 0o777;
    assert_eq!((mode("pushd.pid"), mode("pushd.log")), (0o644, 0o640));
    let status = as_a_stranger(directory.path(), "status");
    assert_eq!(
        status,
        (0, format!("pushd is running, PID {} ({})\n", daemon.pid, directory.path().join("pushd.pid").display()))
    );
    let (code, message) = as_a_stranger(directory.path(), "stop");
    assert_eq!(code, 77);
    assert!(message.contains("no permission to signal"), "{message}");
    assert_eq!(daemon.end(Signal::SIGTERM), 0);
    assert_eq!(as_a_stranger(directory.path(), "status").0, 3);
}

#[test]
fn root_signals_no_process_that_another_user_names() {
    if !Uid::effective().is_root() {
        return;
    }
    let directory = directory_with(PLAIN);
    let pidfile = directory.path().join("pushd.pid");
    let lock = Pidfile::lock(&pidfile).unwrap();
    chown(&pidfile, Some(USER), Some(USER)).unwrap();
    // A process of root's that has the file open by chance.
    let mut bystander = Command::new("sleep").arg("600").stdin(File::open(&pidfile).unwrap()).spawn().unwrap();
    fs::write(&pidfile, format!("{}\n", bystander.id())).unwrap();
    for command in ["stop", "reload"] {
        let ran = run(Command::new(env!("CARGO_BIN_EXE_pushctl")).args([command, "--pidfile"]).arg(&pidfile));
        assert_eq!(ran.code(), 77, "{}", ran.stderr);
        assert!(ran.stderr.contains("root does not signal a process that another user names"), "{}", ran.stderr);
    }
    assert_eq!(bystander.try_wait().unwrap(), None);
    bystander.kill().and_then(|()| bystander.wait()).unwrap();
    drop(lock);
}

/// The output of pushctl for a third user.
fn as_a_stranger(path: &Path, command: &str) -> (i32, String) {
    use std::os::unix::process::CommandExt;
    // Other users may not be able to read the build directory.
    let binary = path.join("pushctl");
    if !binary.exists() {
        fs::copy(env!("CARGO_BIN_EXE_pushctl"), &binary).unwrap();
    }
    let pidfile = path.join("pushd.pid");
    let mut ctl = Command::new(binary);
    ctl.arg(command).arg("--pidfile").arg(pidfile).uid(STRANGER).gid(STRANGER).current_dir("/");
    let ran = run(&mut ctl);
    (ran.code(), ran.stdout + &ran.stderr)
}
