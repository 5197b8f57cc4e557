//! The command of a feed: what it inherits, and when it is started again.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{PLAIN, Start, start, until, until_true};

fn with_command(script: &str) -> String {
    format!("{PLAIN}\n[feed.f]\nhub = \"push\"\nchannel = \"all\"\ncommand = [\"sh\", \"-c\", '''{script}''']\n")
}

#[test]
fn a_command_inherits_everything_but_the_services_own_variables() {
    let script =
        "ls /proc/self/fd > open; { env; sed s/^/fd=/ open; readlink /proc/$$/fd/0 | sed s/^/in=/; grep ^Sig /proc/self/status
        echo umask=$(umask); echo group=$(ps -o pgid= -p $$) leader=$$; echo files=$(ulimit -Sn)/$(ulimit -Hn); } > report
        mv report all; exec sleep 1000";
    let before = "exec 7</dev/null 8>/dev/null; trap '' USR2 QUIT; ulimit -Sn 300; umask 027
        export NOTIFY_SOCKET=/nonexistent WATCHDOG_USEC=9 WATCHDOG_PID=1 LISTEN_FDS=1 LISTEN_PID=1 LISTEN_FDNAMES=a LISTEN_PIDFDID=1
        export FDSTORE=9 JOURNAL_STREAM=1:2 SYSTEMD_EXEC_PID=1 CREDENTIALS_DIRECTORY=/c OTHER=kept";
    let pushd = Start::new(&with_command(script)).after(before).run();
    let report = until("the report of the command", || fs::read_to_string(pushd.path().join("all")).ok());
    let values =
        |key: &str| report.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect::<Vec<_>>();
    let begins = |words: &[&str]| report.lines().find(|line| words.iter().any(|word| line.starts_with(word)));
    assert_eq!(begins(&["NOTIFY", "WATCHDOG", "LISTEN", "FDSTORE", "JOURNAL", "SYSTEMD"]), None, "{report}");
    assert_eq!((values("OTHER"), values("CREDENTIALS_DIRECTORY")), (vec!["kept"], vec!["/c"]));
    // The last descriptor is the directory that ls reads.
    assert_eq!((values("fd"), values("in")), (vec!["0", "1", "2", "3"], vec!["/dev/null"]), "{report}");
    assert_eq!(values("umask"), ["0027"]);
    let files = values("files")[0];
    assert!(files.starts_with("300/") && files != "300/300", "{files}");
    // None of the signals below 32 is blocked or ignored; pushd does not use any others.
    for signals in ["SigBlk:", "SigIgn:"] {
        let mask = report.lines().find_map(|line| line.strip_prefix(signals)).unwrap().trim();
        assert_eq!(u64::from_str_radix(mask, 16).unwrap() & 0x7fff_ffff, 0, "{signals} {mask}");
    }
}

#[test]
fn a_command_that_exits_with_0_is_started_again_at_a_constant_interval() {
    let began = Instant::now();
    let pushd = start(&with_command("echo x >> runs"));
    let runs = || fs::read_to_string(pushd.path().join("runs")).unwrap_or_default().lines().count();
    until_true("five runs", || runs() >= 5);
    // If the pause doubled each time, the fifth run would come after 7.5 s.
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    let log = pushd.log();
    assert_eq!(log.matches("sh started").count(), 1, "{log}");
    let words = "sh ended with 0, again in 500ms; further such runs are logged at level debug";
    assert_eq!(log.matches(words).count(), 1, "{log}");
}
