//! The certificate of the servers that use TLS: made anew for each run, for 127.0.0.1, with a key of the curve P-256.

use std::fs;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

/// A certificate that signs itself, in files.
pub struct Certificate {
    directory: TempDir,
    client: Arc<ClientConfig>,
}

impl Certificate {
    /// Makes one.
    pub fn new() -> Result<Certificate, Box<dyn std::error::Error>> {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join("certificate.pem"), made.cert.pem())?;
        fs::write(directory.path().join("key.pem"), made.signing_key.serialize_pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let client = Arc::new(versions.with_root_certificates(roots).with_no_client_auth());
        Ok(Certificate { directory, client })
    }

    /// The settings of a client that trusts it.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }

    /// The line of a configuration that uses it.
    pub fn key(&self) -> String {
        self.named_in("tls = { certificate = \"{certificate}\", key = \"{key}\" }")
    }

    /// `text` with the paths of its files.
    pub fn named_in(&self, text: &str) -> String {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        text.replace("{certificate}", &path("certificate.pem")).replace("{key}", &path("key.pem"))
    }
}
