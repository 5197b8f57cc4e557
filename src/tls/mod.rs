//! TLS 1.2 and 1.3 (RFC 5246, RFC 8446) by rustls: what a server offers, and what encrypts a connection.
//!
//! - [`Acceptor`]: the certificates of a server and the rules of its handshakes. A reload makes a new one; connections keep theirs.
//! - [`Channel`]: one connection. It has no socket: each call is given one, which does not block.

mod channel;

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, ServerConnection};

pub use channel::Channel;

use crate::config;

/// HTTP/1.1 in ALPN (RFC 7301).
const HTTP1: &[u8] = b"http/1.1";

/// What a server offers.
#[derive(Clone)]
pub struct Acceptor(Arc<ServerConfig>);

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}

impl Acceptor {
    /// The acceptor for these certificates. `None`: there is none, because their files were not read.
    pub fn new(tls: &config::Tls) -> Option<Acceptor> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certificates = tls.certificates.iter().filter_map(|one| Some((one.names.clone(), one.certified()?)));
        let certificates: Vec<_> = certificates.collect();
        if certificates.is_empty() {
            return None;
        }
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().ok()?;
        let builder = match &tls.client_ca {
            None => builder.with_no_client_auth(),
            Some((_, trusted)) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(trusted.iter().cloned());
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().ok()?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(Certificates(certificates)));
        config.alpn_protocols = vec![HTTP1.to_vec()];
        // Tickets keep the state of old connections with the client, not here.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if let Ok(ticketer) = Ticketer::new() {
            config.ticketer = ticketer;
        }
        Some(Acceptor(Arc::new(config)))
    }

    /// What encrypts a new connection.
    ///
    /// # Errors
    /// rustls refuses; it does not with a configuration that was accepted.
    pub fn channel(&self) -> io::Result<Channel> {
        Ok(Channel::new(ServerConnection::new(self.0.clone()).map_err(io::Error::other)?))
    }
}

/// Each certificate with the names that it is for.
#[derive(Debug)]
struct Certificates(Vec<(Vec<String>, Arc<CertifiedKey>)>);

impl ResolvesServerCert for Certificates {
    /// The certificate for the name that the client asks for (RFC 6066, section 3), else the first one.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().map(str::to_ascii_lowercase);
        let fitting = asked.and_then(|asked| self.0.iter().find(|(names, _)| is_one_of(names, &asked)));
        fitting.or(self.0.first()).map(|(_, key)| key.clone())
    }
}

/// Whether a certificate with these names is for `asked`. A star stands for one label (RFC 6125, section 6.4.3).
fn is_one_of(names: &[String], asked: &str) -> bool {
    let rest = asked.split_once('.').map(|(_, rest)| rest);
    names.iter().any(|name| name == asked || rest.is_some() && name.strip_prefix("*.") == rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_label() {
        let names = ["a.example", "*.b.example"].map(str::to_owned);
        for (asked, fits) in [
            ("a.example", true),
            ("b.example", false),
            ("x.b.example", true),
            ("x.y.b.example", false),
            ("x.a.example", false),
            ("", false),
        ] {
            assert_eq!(is_one_of(&names, asked), fits, "{asked}");
        }
    }
}
