//! A static route, compiled: its configuration, with the header fields that its answers have.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, Uri};

use super::auth::Gate;
use super::{Body, CACHE_CONTROL, cors};
use crate::config;
use crate::http::Client;
use crate::http::access::User;
use crate::http::fields::Fields;
use crate::http::hosts::Hosts;
use crate::http::origin;

/// A static route.
#[derive(Debug)]
pub struct Pages {
    pub(super) route: config::Static,
    headers: Fields,
    /// A hash of what decides the header of a file. Routes of the same directory may differ in it.
    pub(super) flavour: u64,
    /// Who may read the files; `None`: everybody.
    pub(super) gate: Option<Gate>,
    /// Whether it was logged that a page of the route is missing.
    has_warned: AtomicBool,
}

/// A request to a static route.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'r> {
    /// Its method.
    pub method: &'r Method,
    /// Its target.
    pub uri: &'r Uri,
    /// Its header fields.
    pub headers: &'r HeaderMap,
    /// The rest of the path after the route's own path, still encoded, without a leading slash.
    pub rest: &'r str,
    pub(super) pages: &'r Pages,
    /// The origin of the page that sent it, if the route lets it read the answer.
    pub(super) origin: Option<&'r str>,
}

impl<'r> Ask<'r> {
    /// The same request, from a `client` of the server with the names `hosts`.
    pub(in crate::http) fn from(self, hosts: &Hosts, client: &Client) -> Ask<'r> {
        let origins = self.pages.route.origins.as_ref();
        let origin = origins.and_then(|origins| origin::allowed(origins, self.headers, hosts, client.on_loopback));
        Ask { origin, ..self }
    }
}

impl Pages {
    /// Compiles a route.
    pub fn new(route: &config::Static) -> Arc<Pages> {
        let mut hasher = DefaultHasher::new();
        (route.compress, &route.cache).hash(&mut hasher);
        Arc::new(Pages {
            headers: Fields::new(&route.headers),
            flavour: hasher.finish(),
            gate: route.passwords.as_ref().map(Gate::new),
            route: route.clone(),
            has_warned: AtomicBool::new(false),
        })
    }

    /// A request to it.
    pub fn ask<'r>(&'r self, method: &'r Method, uri: &'r Uri, headers: &'r HeaderMap, rest: &'r str) -> Ask<'r> {
        Ask { method, uri, headers, rest, pages: self, origin: None }
    }

    /// The value of `Cache-Control` for the file at `path` below the directory.
    pub(super) fn cache_control(&self, path: &Path) -> HeaderValue {
        let control = self.route.cache.control(path.as_os_str().as_bytes());
        control.and_then(|control| HeaderValue::from_str(control).ok()).unwrap_or(CACHE_CONTROL)
    }

    /// The file that is sent with an answer of this status.
    pub(super) fn error_page(&self, status: u16) -> Option<&str> {
        self.route.errors.iter().find(|(of, _)| *of == status).map(|(_, file)| file.as_str())
    }

    /// Logs once that a page of the route is missing.
    pub(super) fn warn_missing(&self, file: &str) {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            let directory = self.route.root.display();
            log::warn!(
                "{file} cannot be sent from {directory}, although the route names it; requests get text instead"
            );
        }
    }

    /// Adds the fields that every answer of the route has, and the user for the access log.
    pub(super) fn finish(&self, ask: &Ask<'_>, user: Option<User>, answer: &mut Response<Body>) {
        if let Some(user) = user {
            answer.extensions_mut().insert(user);
        }
        let fields = answer.headers_mut();
        if let Some(origins) = &self.route.origins {
            cors::allow(origins, ask.origin, fields);
        }
        self.headers.set(fields);
    }
}

/// Adds a name to `Vary`.
pub(super) fn vary(fields: &mut HeaderMap, name: &'static str) {
    let value = match fields.get(header::VARY).and_then(|value| value.to_str().ok()) {
        Some(others) => HeaderValue::from_str(&format!("{others}, {name}")).ok(),
        None => Some(HeaderValue::from_static(name)),
    };
    if let Some(value) = value {
        fields.insert(header::VARY, value);
    }
}
