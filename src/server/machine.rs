//! The names of this machine, as far as they are known without asking the network.
//!
//! They are its host name, with and without its domain; the short name with `.local`, used by multicast DNS; and the
//! other names on its line of `/etc/hosts`, where its full name usually is. They are looked up at the start and at each
//! reload.

use std::fs::File;
use std::io::Read as _;

use crate::config::limits::HOSTS_FILE_BYTES_MAX;

/// All its names.
pub(super) fn names() -> Vec<String> {
    let Some(host) = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok()) else {
        return Vec::new();
    };
    let mut bytes = Vec::new();
    let read = File::open("/etc/hosts").and_then(|file| file.take(HOSTS_FILE_BYTES_MAX).read_to_end(&mut bytes));
    if let Err(error) = read {
        log::debug!("/etc/hosts: {error}");
    }
    names_of(&host, &String::from_utf8_lossy(&bytes))
}

/// The names of `host` according to a hosts table (hosts(5)).
fn names_of(host: &str, table: &str) -> Vec<String> {
    let short = host.split('.').next().unwrap_or(host);
    if short.is_empty() {
        return Vec::new();
    }
    let mut names = vec![host.to_owned(), short.to_owned(), format!("{short}.local")];
    for line in table.lines() {
        let line = line.split('#').next().unwrap_or_default();
        // The first word is the address.
        let beside = line.split_ascii_whitespace().skip(1);
        if beside.clone().any(|name| name.eq_ignore_ascii_case(host) || name.eq_ignore_ascii_case(short)) {
            names.extend(beside.map(str::to_owned));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_all_names_on_its_line() {
        let table =
            "127.0.0.1 localhost\n127.0.1.1 web1.example.com web1 # web2\n0.0.0.0 ads.example\n10.0.0.2 web2 db\n";
        assert_eq!(names_of("web1", table), ["web1", "web1", "web1.local", "web1.example.com", "web1"]);
        assert_eq!(names_of("web3.example.org", table), ["web3.example.org", "web3", "web3.local"]);
        assert_eq!(names_of("", table), [""; 0]);
    }
}
