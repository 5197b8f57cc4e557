//! `tls` in `[server.NAME]`: certificates with their keys, as they are in their files now.
//!
//! The files are read with the configuration, so a certificate that does not fit its key is a mistake in the configuration, and a
//! reload that finds one changes nothing.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use toml::de::DeValue;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::Config;
use super::keys;
use super::limits::{CERTIFICATE_BYTES_MAX, CERTIFICATE_EXPIRY_SOON, CERTIFICATES_MAX};
use super::reader::Item;
use super::report::Problem;
use super::secret::{self, Secret};
use super::text_file::{self, Pipes};

/// `tls`
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// The certificates, never none. The first one is for clients that name no known server.
    pub certificates: Vec<Certificate>,
    /// The certificates of those that must have signed that of a client, from this file; `None`: clients need none.
    pub client_ca: Option<(PathBuf, Vec<CertificateDer<'static>>)>,
}

/// A certificate with its key.
#[derive(Debug, Clone, PartialEq)]
pub struct Certificate {
    /// Its file.
    pub certificate: PathBuf,
    /// The file of its key.
    pub key: PathBuf,
    /// The file of the OCSP response that is sent with it.
    pub ocsp: Option<PathBuf>,
    /// The names that it is for, in lower case.
    pub names: Vec<String>,
    /// When it expires, in seconds since 1970.
    pub expires: i64,
    chain: Vec<CertificateDer<'static>>,
    private: Secret,
    ocsp_response: Option<Vec<u8>>,
}

/// Why a certificate cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// Which key of the table names the file.
    pub key: &'static str,
    /// What is wrong.
    pub what: String,
    /// Why.
    pub why: String,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

impl Certificate {
    /// Reads a certificate, the chain behind it, and its key, all in PEM (RFC 7468).
    ///
    /// # Errors
    /// A file cannot be read, or the two do not fit.
    pub fn load(certificate: &Path, key: &Path, ocsp: Option<&Path>) -> Result<Certificate, Unusable> {
        let wrong = |key, what: &str, why: String| Unusable { key, what: what.to_owned(), why };
        let chain = chain("certificate", certificate)?;
        let pem = content(key).map_err(|why| wrong("key", "this key cannot be read", why))?;
        let private = PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|_| wrong("key", "this file contains no private key", "expected PRIVATE KEY in PEM".to_owned()))?;
        CertifiedKey::from_der(chain.clone(), private, &aws_lc_rs::default_provider()).map_err(
            |error| match error {
                rustls::Error::InconsistentKeys(_) => wrong(
                    "key",
                    "this key does not belong to the certificate",
                    "its public key is another one".to_owned(),
                ),
                error => wrong("key", "this key cannot be used", error.to_string()),
            },
        )?;
        let (names, expires) = described(&chain[0])
            .ok_or_else(|| wrong("certificate", "this certificate cannot be read", "it is not of X.509".to_owned()))?;
        let ocsp_response = ocsp.map(content).transpose();
        let ocsp_response = ocsp_response.map_err(|why| wrong("ocsp", "this OCSP response cannot be read", why))?;
        let (certificate, key, ocsp) = (certificate.to_owned(), key.to_owned(), ocsp.map(Path::to_owned));
        Ok(Certificate { certificate, key, ocsp, names, expires, chain, private: Secret::new(&pem), ocsp_response })
    }

    /// The same from its files as they are now.
    ///
    /// # Errors
    /// As [`load`](Certificate::load).
    pub fn load_again(&self) -> Result<Certificate, Unusable> {
        Certificate::load(&self.certificate, &self.key, self.ocsp.as_deref())
    }

    /// The certificate as rustls uses it. `None`: it is a parsed configuration, whose files were not read.
    pub fn certified(&self) -> Option<Arc<CertifiedKey>> {
        let private = PrivateKeyDer::from_pem_slice(self.private.bytes()).ok()?;
        let mut key = CertifiedKey::from_der(self.chain.clone(), private, &aws_lc_rs::default_provider()).ok()?;
        key.ocsp.clone_from(&self.ocsp_response);
        Some(Arc::new(key))
    }

    /// A sentence, if it has expired `now`, in seconds since 1970, or does so soon.
    fn warning(&self, now: i64) -> Option<String> {
        let (file, left) = (self.certificate.display(), self.expires - now);
        match left {
            ..=0 => Some(format!("the certificate {file} has expired: clients refuse it")),
            1.. if left < CERTIFICATE_EXPIRY_SOON.as_secs() as i64 => {
                Some(format!("the certificate {file} expires in {} days", left / 86_400))
            }
            _ => None,
        }
    }
}

fn content(path: &Path) -> Result<Vec<u8>, String> {
    match text_file::read(path, Pipes::Refused, CERTIFICATE_BYTES_MAX as u64 + 1) {
        Ok(content) if content.len() > CERTIFICATE_BYTES_MAX => Err(format!("more than {CERTIFICATE_BYTES_MAX} bytes")),
        Ok(content) => Ok(content),
        Err(error) => Err(format!("{}: {}", path.display(), secret::unreadable(&error))),
    }
}

fn chain(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let wrong = |what: &str, why: String| Unusable { key, what: what.to_owned(), why };
    let pem = content(path).map_err(|why| wrong("this certificate cannot be read", why))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(wrong("this file contains no certificate", "expected CERTIFICATE in PEM".to_owned())),
    }
}

/// The names of a certificate, and when it expires.
fn described(certificate: &CertificateDer<'_>) -> Option<(Vec<String>, i64)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|extension| &extension.value.general_names).into_iter().flatten();
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    Some((names.collect(), certificate.validity().not_after.timestamp()))
}

impl Config {
    /// A sentence for each certificate that has expired `now`, in seconds since 1970, or does so soon.
    pub fn expiring(&self, now: i64) -> Vec<String> {
        let certificates =
            self.servers.iter().filter_map(|server| server.tls.as_ref()).flat_map(|tls| &tls.certificates);
        certificates.filter_map(|certificate| certificate.warning(now)).collect()
    }
}

impl Item<'_> {
    /// The certificates of a server.
    pub(super) fn tls(&self) -> Option<Tls> {
        let items = match self.value.get_ref() {
            DeValue::Array(values) if (1..=CERTIFICATES_MAX).contains(&values.len()) => {
                values.iter().map(|value| self.with_value(value)).collect()
            }
            DeValue::Array(_) => {
                let problem = self.error("`tls` takes one certificate or several");
                self.note(problem.label(format!("expected 1 to {CERTIFICATES_MAX}")));
                return None;
            }
            _ => vec![*self],
        };
        let mut client_ca = None;
        let mut certificates = Vec::new();
        for item in items {
            let table = item.table(&keys::TLS)?;
            if let Some(item) = table.item("client_ca") {
                client_ca = item.authorities("client_ca");
            }
            let ocsp = table.item("ocsp").and_then(|item| item.path());
            let help = |key: &str| format!("add the file: `{key} = \"PATH\"`");
            let certificate = table.required("certificate", &help("certificate")).and_then(|item| item.path());
            let key = table.required("key", &help("key")).and_then(|item| item.path());
            let (Some(certificate), Some(key)) = (certificate, key) else { continue };
            if !self.report.reads_files {
                certificates.push(Certificate::unread(certificate, key, ocsp));
                continue;
            }
            match Certificate::load(&certificate, &key, ocsp.as_deref()) {
                Ok(read) => {
                    if let Some(item) = table.item("key") {
                        item.warn_if_open(&read.key, "key");
                    }
                    certificates.push(read);
                }
                Err(Unusable { key, what, why }) => {
                    let span = table.item(key).map_or_else(|| table.span(), |item| item.span());
                    self.note(Problem::error(span, what).label(why));
                }
            }
        }
        (!certificates.is_empty()).then_some(Tls { certificates, client_ca })
    }

    fn path(&self) -> Option<PathBuf> {
        Some(self.base().join(self.text("the path of a file")?))
    }

    /// The certificates in the file that it names. None, if the files are only parsed.
    pub(super) fn authorities(&self, key: &'static str) -> Option<(PathBuf, Vec<CertificateDer<'static>>)> {
        let path = self.path()?;
        if !self.report.reads_files {
            return Some((path, Vec::new()));
        }
        match chain(key, &path) {
            Ok(chain) => Some((path, chain)),
            Err(Unusable { what, why, .. }) => {
                self.note(self.error(what).label(why));
                None
            }
        }
    }
}

impl Certificate {
    /// Of a configuration that is only parsed.
    fn unread(certificate: PathBuf, key: PathBuf, ocsp: Option<PathBuf>) -> Certificate {
        let (names, chain) = (Vec::new(), Vec::new());
        let private = Secret::new(b"");
        Certificate { certificate, key, ocsp, names, expires: 0, chain, private, ocsp_response: None }
    }
}
