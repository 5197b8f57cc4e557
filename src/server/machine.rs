//! The machine's own names, as far as they are known without asking the network: what clients that mean this machine call it.
//!
//! Its host name, whole and without its domain; that with `.local`, by which multicast DNS knows it; and the names that
//! `/etc/hosts` has beside it, where its full name usually stands. Looked up at the start and with each reload.

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

/// Those of `host` by a table of hosts (hosts(5)).
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
    fn a_machine_has_the_names_of_its_line() {
        let table =
            "127.0.0.1 localhost\n127.0.1.1 web1.example.com web1 # web2\n0.0.0.0 ads.example\n10.0.0.2 web2 db\n";
        assert_eq!(names_of("web1", table), ["web1", "web1", "web1.local", "web1.example.com", "web1"]);
        assert_eq!(names_of("web3.example.org", table), ["web3.example.org", "web3", "web3.local"]);
        assert_eq!(names_of("", table), [""; 0]);
    }
}
