//! The unit that ships agrees with the program it starts.
//!
//! `systemd-analyze` knows systemd's side; this is ours.

use std::time::Duration;

use pushd::config::limits::{GRACE, LOG_CLOSE_TIMEOUT};
use pushd::daemon::Exit;

const UNIT: &str = include_str!("../packaging/systemd/pushd.service");

fn values(key: &str) -> Vec<&'static str> {
    let values: Vec<_> = UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect();
    assert!(!values.is_empty(), "{key} is not said");
    values
}

#[test]
fn systemd_waits_longer_than_the_grace() {
    let seconds = values("TimeoutStopSec")[0].strip_suffix('s').unwrap().parse().unwrap();
    assert!(Duration::from_secs(seconds) > GRACE + LOG_CLOSE_TIMEOUT);
}

#[test]
fn what_does_not_heal_is_not_tried_again() {
    let codes: Vec<u8> = values("RestartPreventExitStatus")[0].split(' ').map(|code| code.parse().unwrap()).collect();
    assert_eq!(codes, [Exit::Usage.code(), Exit::Config.code()]);
}

#[test]
fn a_reload_checks_the_file_that_runs() {
    let start: Vec<_> = values("ExecStart")[0].split(' ').collect();
    assert_eq!(start, ["/usr/bin/pushd", "-n", "-c", pushd::cli::CONFIG]);
    let reload = values("ExecReload");
    assert_eq!(reload.len(), 2);
    assert_eq!(reload[0], format!("/usr/bin/pushctl check {}", pushd::cli::CONFIG));
    assert_eq!(reload[1], "/bin/sh -c 'kill -HUP ${MAINPID}'");
}
