//! The HTTP client of a hook. Connections are kept for the next question. Redirects are not followed, because the operator has named the
//! address that is trusted.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};

use super::question::Question;
use super::signature::signature;
use crate::config;
use crate::config::limits::{HOOK_IDLE, HOOK_IDLE_CONNECTIONS_MAX};

/// The field with the signature.
const SIGNATURE: HeaderName = HeaderName::from_static("x-pushd-signature");
const OURSELVES: HeaderValue = HeaderValue::from_static(concat!("pushd/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A client with its connections.
#[derive(Debug)]
pub(super) struct Client(legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Client {
    /// The client of this hook.
    pub(super) fn new(config: &config::Hook) -> Result<Client, String> {
        let mut plain = HttpConnector::new();
        plain.enforce_http(false);
        plain.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new().with_tls_config(trusting(config)?).https_or_http().enable_http1();
        let connector = connector.wrap_connector(plain);
        let mut client = legacy::Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(HOOK_IDLE);
        client.pool_max_idle_per_host(HOOK_IDLE_CONNECTIONS_MAX);
        Ok(Client(client.build(connector)))
    }

    /// Sends a question. Returns the body of the answer.
    pub(super) async fn ask(&self, config: &config::Hook, uri: &Uri, question: &Question) -> Result<Bytes, String> {
        let body = question.body()?;
        let answer = match self.0.request(request(config, uri, question, &body)).await {
            // The backend may have closed a connection that it had kept, just as the question was sent.
            Err(error) if !error.is_connect() => self.0.request(request(config, uri, question, &body)).await,
            answer => answer,
        };
        let answer = answer.map_err(|error| in_words(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(format!("the status is {}, expected 200", answer.status().as_u16()));
        }
        let limited = Limited::new(answer.into_body(), config.answer_bytes_max);
        match limited.collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                Err(format!("the answer has more than {} bytes, see `answer_max`", config.answer_bytes_max))
            }
            Err(error) => Err(in_words(error.as_ref())),
        }
    }
}

fn request(config: &config::Hook, uri: &Uri, question: &Question, body: &Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.clone();
    let fields = request.headers_mut();
    fields.insert(USER_AGENT, OURSELVES);
    fields.insert(ACCEPT, JSON);
    // Those of the client replace ours.
    fields.extend(question.fields.clone());
    fields.insert(CONTENT_TYPE, JSON);
    if !config.secrets.is_empty() {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if let Ok(value) = HeaderValue::from_str(&signature(&config.secrets, seconds, body)) {
            fields.insert(SIGNATURE, value);
        }
    }
    request
}

/// The settings of TLS: the certificates of the hook, or those that the system trusts.
fn trusting(config: &config::Hook) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let is_https =
        [&config.connect, &config.publish].into_iter().flatten().any(|uri| uri.scheme_str() == Some("https"));
    match &config.authorities {
        Some(authorities) => {
            roots.add_parsable_certificates(authorities.iter().cloned());
        }
        None if is_https => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        None => {}
    }
    if is_https && roots.is_empty() {
        return Err("no certificates are trusted; `ca = \"FILE\"` names some".to_owned());
    }
    let versions = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let versions = versions.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

/// An error with its reasons.
fn in_words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        source = error.source();
    }
    text
}
