//! Certificates whose files change: they are read again by themselves, so that a program that renews them need not tell pushd.
//!
//! The files are looked at every few seconds. While a program replaces them, a certificate may not fit its key yet. That is logged, and
//! the old one is kept; when the other file has changed, too, both are read again.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::Server;
use crate::config::limits::CERTIFICATE_WATCH;
use crate::config::{Certificate, Config};

/// What distinguishes one state of a file from another: its inode, its size, and when it was changed.
type State = Option<(u64, u64, i64, i64)>;

/// The files as they were at the last look.
#[derive(Debug, Default)]
pub(super) struct Watch {
    looked: Option<Instant>,
    states: HashMap<PathBuf, State>,
}

impl Watch {
    /// Whether it is time to look.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.looked.is_none_or(|looked| now.duration_since(looked) >= CERTIFICATE_WATCH);
        if is_due {
            self.looked = Some(now);
        }
        is_due
    }

    /// Whether a file of the certificate is not as it was. What is seen for the first time is as it was.
    fn has_changed(&mut self, certificate: &Certificate) -> bool {
        let files = [Some(&certificate.certificate), Some(&certificate.key), certificate.ocsp.as_ref()];
        let changed = files.into_iter().flatten().map(|file| {
            let state = state(file);
            self.states.insert(file.clone(), state).is_some_and(|before| before != state)
        });
        // All are looked at.
        changed.fold(false, |any, one| any | one)
    }
}

fn state(file: &Path) -> State {
    let found = fs::metadata(file).ok()?;
    Some((found.ino(), found.size(), found.ctime(), found.ctime_nsec()))
}

impl Server {
    /// Takes certificates whose files have changed. Connections keep theirs.
    pub fn renew_certificates(&mut self) {
        if !self.certificates.is_due(Instant::now()) {
            return;
        }
        let mut config = self.config.clone();
        if self.read_changed(&mut config)
            && let Err(error) = self.reload(config)
        {
            log::error!("the new certificates cannot be used: {error}");
        }
    }

    /// Reads what has changed into `config`. Returns whether anything has.
    fn read_changed(&mut self, config: &mut Config) -> bool {
        let mut has_changed = false;
        let all =
            config.servers.iter_mut().filter_map(|server| server.tls.as_mut()).flat_map(|tls| &mut tls.certificates);
        for certificate in all {
            if !self.certificates.has_changed(certificate) {
                continue;
            }
            let file = certificate.certificate.display().to_string();
            match certificate.load_again() {
                Ok(read) => {
                    log::info!("The certificate {file} is read again");
                    *certificate = read;
                    has_changed = true;
                }
                Err(why) => {
                    log::error!("the certificate {file} has changed, and the old one is kept: {why}");
                }
            }
        }
        has_changed
    }
}
