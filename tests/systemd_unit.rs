//! The units that ship agree with the program they start, with each other, and with what else ships for systemd.
//!
//! `systemd-analyze` knows systemd's side; this is ours.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use pushd::config::limits::{GRACE, HANDOVER, LISTEN_BACKLOG, LOG_CLOSE_TIMEOUT};
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
fn a_reload_is_of_the_file_that_runs() {
    let start: Vec<_> = values("ExecStart")[0].split(' ').collect();
    assert_eq!(start, ["/usr/bin/pushd", "-n", "-c", pushd::cli::CONFIG]);
    assert_eq!(values("ExecReload"), [format!("/usr/bin/pushctl reload --config {}", pushd::cli::CONFIG)]);
}

/// At a limit systemd would drop the clients that it keeps; what is left to keep a process that fails from spinning is the pause.
#[test]
fn no_limit_of_starts_loses_the_clients() {
    for unit in [UNIT, SOCKET_SERVICE] {
        let unit_part = said(unit, "[Unit]\n");
        assert!(unit_part.contains("StartLimitIntervalSec=0"), "{unit_part:?}");
    }
    let pause: u64 = values("RestartSec")[0].strip_suffix('s').unwrap().parse().unwrap();
    assert!((1..=10).contains(&pause), "{pause}");
}

/// The lines of `text` that say something, in the part that a title begins.
fn said<'t>(text: &'t str, title: &str) -> BTreeSet<&'t str> {
    let part = text.split(title).nth(1).unwrap_or_else(|| panic!("no {title}")).split("\n[").next().unwrap();
    let lines = part.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let lines: BTreeSet<_> = lines.collect();
    assert!(!lines.is_empty(), "{title}");
    lines
}

#[test]
fn the_service_with_sockets_differs_only_in_its_network() {
    let (plain, socket) = (said(UNIT, "[Service]\n"), said(SOCKET_SERVICE, "[Service]\n"));
    assert!(plain.len() > 40, "{plain:?}");
    let only = |some: &BTreeSet<&'static str>, others| some.difference(others).copied().collect::<Vec<_>>();
    assert_eq!(only(&plain, &socket), ["RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX"]);
    assert_eq!(only(&socket, &plain), ["PrivateNetwork=yes", "RestrictAddressFamilies=AF_UNIX"]);
    for unit in [SOCKET_SERVICE, SOCKET] {
        assert!(said(unit, "[Unit]\n").contains("Conflicts=pushd.service"));
    }
}

/// The default file with the drop-in that ships takes what the socket unit opens, on this machine only.
#[test]
fn the_socket_is_the_one_that_the_drop_in_names() {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("conf.d")).unwrap();
    std::fs::write(place.path().join("config.toml"), config::DEFAULT).unwrap();
    std::fs::write(place.path().join("conf.d/socket.toml"), DROP_IN).unwrap();
    let config = config::load(&place.path().join("config.toml")).unwrap_or_else(|errors| panic!("{errors}"));
    let socket = said(SOCKET, "[Socket]\n");
    let value = |key: &str| socket.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap();
    assert_eq!(config.servers[0].listen, [Listen::Systemd(value("FileDescriptorName").to_owned())]);
    assert_eq!(value("Service"), "pushd-socket.service");
    assert_eq!(value("Backlog"), LISTEN_BACKLOG.to_string());
    let address: SocketAddr = value("ListenStream").parse().unwrap();
    assert!(address.ip().is_loopback() && address.port() < 1024, "{address}");
}

#[test]
fn the_user_of_the_services_is_the_one_that_is_made() {
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
fn a_restart_keeps_the_clients() {
    assert_eq!(values("RestartKillSignal"), ["SIGUSR2"]);
    // State and addresses, and for each of two hundred shards its records and a pipe.
    assert!(values("FileDescriptorStoreMax")[0].parse::<usize>().unwrap() >= 512);
    assert_eq!(values("RuntimeDirectoryPreserve"), ["restart"]);
    // It is over before systemd kills.
    let seconds = values("TimeoutStopSec")[0].strip_suffix('s').unwrap().parse().unwrap();
    assert!(Duration::from_secs(seconds) > GRACE / 3 + HANDOVER + LOG_CLOSE_TIMEOUT);
}
