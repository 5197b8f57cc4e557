//! TLS towards a server: which certificates are trusted, and under which name one must be issued.
//!
//! The certificates of the system are trusted; the variables SSL_CERT_FILE and SSL_CERT_DIR name others, as for curl. A certificate that
//! is itself in that file is trusted, too: so a self-signed one can be used, as it is for tests.

use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::fault::Fault;
use super::url::{Address, Url};
use crate::daemon::exit::Exit;

/// The settings of a client, with the certificates that are trusted now.
///
/// # Errors
/// No certificate is trusted.
pub(super) fn client() -> Result<Arc<ClientConfig>, Fault> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs.iter().cloned());
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(|| "none were found".to_owned(), ToString::to_string);
        let message = format!("no certificates are trusted: {why}; SSL_CERT_FILE=FILE names a file with some");
        return Err(Fault::new(Exit::Unavailable, message));
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let wrong = |error: &dyn std::fmt::Display| Fault::new(Exit::System, format!("cannot prepare TLS: {error}"));
    let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let usual = usual.map_err(|error| wrong(&error))?;
    let verifier = Verifier { usual, trusted: found.certs, provider: provider.clone() };
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let settings = versions.map_err(|error| wrong(&error))?;
    let settings = settings.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut client = settings.with_no_client_auth();
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(client))
}

/// The name that the certificate of this server must have.
///
/// # Errors
/// The address has no such name.
pub(super) fn name(url: &Url) -> Result<ServerName<'static>, Fault> {
    let unnamed = |what: String| Fault::new(Exit::Usage, format!("{what} is not a name that a certificate can have"));
    match &url.address {
        Address::Tcp(host, _) => ServerName::try_from(host.clone()).map_err(|_| unnamed(format!("'{host}'"))),
        Address::Unix(_) => Err(unnamed(url.address.to_string())),
    }
}

/// What would help where a handshake failed.
pub(super) fn hint(error: &io::Error) -> &'static str {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            ". If it is yours, SSL_CERT_FILE=FILE names the file with the certificate that is to be trusted"
        }
        Some(Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })) => {
            ". Use a name that the certificate is for"
        }
        Some(Error::InvalidMessage(_)) => ". It does not seem to use TLS: try http",
        _ => "",
    }
}

/// The usual rules, and certificates that are trusted as they are.
#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.trusted.contains(certificate) {
            verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        self.usual.verify_server_cert(certificate, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}
