//! The packaged units agree with the program they start, with each other, and with the other files for systemd.
//!
//! `systemd-analyze` checks them from systemd's side; these tests check them from pushd's side.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use pushd::config::Daemon;
use pushd::config::limits::{HANDOVER, LISTEN_BACKLOG, LOG_CLOSE_TIMEOUT};
use pushd::config::{self, Listen};
use pushd::daemon::Exit;

const UNIT: &str = include_str!("../packaging/systemd/pushd.service");
const SOCKET_SERVICE: &str = include_str!("../packaging/systemd/pushd-socket.service");
const SOCKET: &str = include_str!("../packaging/systemd/pushd-socket.socket");
const DROP_IN: &str = include_str!("../config/examples/systemd/socket.toml");
const SYSUSERS: &str = include_str!("../packaging/sysusers.d/pushd.conf");
const TMPFILES: &str = include_str!("../packaging/tmpfiles.d/pushd.conf");

fn values(key: &str) -> Vec<&'static str> {
    let values: Vec<_> = UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect();
    assert!(!values.is_empty(), "{key} is not set");
    values
}

#[test]
fn systemd_waits_longer_than_the_grace() {
    let seconds = values("TimeoutStopSec")[0].strip_suffix('s').unwrap().parse().unwrap();
    assert!(Duration::from_secs(seconds) > Daemon::default().grace + LOG_CLOSE_TIMEOUT);
}

#[test]
fn errors_that_a_restart_cannot_fix_are_not_retried() {
    let codes: Vec<u8> = values("RestartPreventExitStatus")[0].split(' ').map(|code| code.parse().unwrap()).collect();
    assert_eq!(codes, [Exit::Usage.code(), Exit::Config.code()]);
}

#[test]
fn a_reload_uses_the_file_of_the_start() {
    let start: Vec<_> = values("ExecStart")[0].split(' ').collect();
    assert_eq!(start, ["/usr/bin/pushd", "-n", "-c", pushd::cli::CONFIG]);
    assert_eq!(values("ExecReload"), [format!("/usr/bin/pushctl reload --config {}", pushd::cli::CONFIG)]);
}

/// At a start limit systemd would close the descriptors of the sessions. Only the pause keeps a failing process from
/// spinning.
#[test]
fn no_start_limit_loses_the_sessions() {
    for unit in [UNIT, SOCKET_SERVICE] {
        let unit_part = settings(unit, "[Unit]\n");
        assert!(unit_part.contains("StartLimitIntervalSec=0"), "{unit_part:?}");
    }
    let pause: u64 = values("RestartSec")[0].strip_suffix('s').unwrap().parse().unwrap();
    assert!((1..=10).contains(&pause), "{pause}");
}

/// The settings of `text` in the section with this title.
fn settings<'t>(text: &'t str, title: &str) -> BTreeSet<&'t str> {
    let part = text.split(title).nth(1).unwrap_or_else(|| panic!("no {title}")).split("\n[").next().unwrap();
    let lines = part.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let lines: BTreeSet<_> = lines.collect();
    assert!(!lines.is_empty(), "{title}");
    lines
}

#[test]
fn the_service_with_sockets_differs_only_in_its_network() {
    let (plain, socket) = (settings(UNIT, "[Service]\n"), settings(SOCKET_SERVICE, "[Service]\n"));
    assert!(plain.len() > 40, "{plain:?}");
    let only = |some: &BTreeSet<&'static str>, others| some.difference(others).copied().collect::<Vec<_>>();
    assert_eq!(only(&plain, &socket), ["RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX"]);
    assert_eq!(only(&socket, &plain), ["PrivateNetwork=yes", "RestrictAddressFamilies=AF_UNIX"]);
    for unit in [SOCKET_SERVICE, SOCKET] {
        assert!(settings(unit, "[Unit]\n").contains("Conflicts=pushd.service"));
    }
}

/// The default file with the shipped drop-in uses the sockets of the socket unit, which are for this machine only.
#[test]
fn the_socket_unit_matches_the_drop_in() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("conf.d")).unwrap();
    std::fs::write(directory.path().join("config.toml"), config::DEFAULT).unwrap();
    std::fs::write(directory.path().join("conf.d/socket.toml"), DROP_IN).unwrap();
    let config = config::load(&directory.path().join("config.toml")).unwrap_or_else(|errors| panic!("{errors}"));
    let socket = settings(SOCKET, "[Socket]\n");
    let value = |key: &str| socket.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap();
    assert_eq!(config.servers[0].listen, [Listen::Systemd(value("FileDescriptorName").to_owned())]);
    assert_eq!(value("Service"), "pushd-socket.service");
    assert_eq!(value("Backlog"), LISTEN_BACKLOG.to_string());
    let address: SocketAddr = value("ListenStream").parse().unwrap();
    assert!(address.ip().is_loopback() && address.port() < 1024, "{address}");
}

#[test]
fn the_user_of_the_services_is_the_one_that_is_created() {
    let made: Vec<_> = SYSUSERS.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(made, ["u pushd - \"Push server\""]);
    let directories: Vec<_> = TMPFILES.lines().filter(|line| !line.starts_with('#')).collect();
    let of_the_unit = [("run", "RuntimeDirectory"), ("var/lib", "StateDirectory"), ("var/log", "LogsDirectory")]
        .map(|(below, key)| format!("d /{below}/{} 0755 pushd pushd", values(key)[0]));
    assert_eq!(directories, of_the_unit);
    assert_eq!(values("User"), ["pushd"]);
    assert!(!UNIT.contains("\nDynamicUser="));
}

#[test]
fn a_restart_keeps_the_sessions() {
    assert_eq!(values("RestartKillSignal"), ["SIGUSR2"]);
    // The state and the addresses, and the records and a pipe for each of two hundred shards.
    assert!(values("FileDescriptorStoreMax")[0].parse::<usize>().unwrap() >= 512);
    assert_eq!(values("RuntimeDirectoryPreserve"), ["restart"]);
    // The handover ends before systemd kills the process.
    let seconds = values("TimeoutStopSec")[0].strip_suffix('s').unwrap().parse().unwrap();
    assert!(Duration::from_secs(seconds) > Daemon::default().grace / 3 + HANDOVER + LOG_CLOSE_TIMEOUT);
}
