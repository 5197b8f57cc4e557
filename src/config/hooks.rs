//! `[hook.NAME]`, and the references of routes to hooks.
//!
//! A hook is a set of addresses of the backend that are asked what a client may do. It must be declared. A hook that no route names is a
//! warning.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::header::HeaderName;
use rustls::pki_types::CertificateDer;

use super::keys;
use super::limits::HOOK_FIELDS_MAX;
use super::reader::{Item, Table};
use super::report::{Problem, Report};
use super::secret::Secret;

/// `[hook.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct Hook {
    /// NAME in `[hook.NAME]`.
    pub name: Arc<str>,
    /// The address that is asked whether a client may connect.
    pub connect: Option<Uri>,
    /// The address that is asked whether a message is published.
    pub publish: Option<Uri>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// The maximum size of an answer.
    pub answer_bytes_max: usize,
    /// The maximum number of questions in flight.
    pub requests_max: usize,
    /// What applies without an answer.
    pub on_error: OnError,
    /// The header fields of the client's request that are passed on.
    pub headers: Vec<HeaderName>,
    /// The certificates that sign that of the backend; `None`: those that the system trusts.
    pub authorities: Option<Vec<CertificateDer<'static>>>,
    /// Each of them signs the questions.
    pub secrets: Vec<Secret>,
}

/// `on_error`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The client is refused for now, the message is not published.
    Deny,
    /// As if there were no hook.
    Allow,
}

/// The hooks that the file declares, in its order.
pub(super) struct Hooks<'a> {
    declared: Vec<Declared<'a>>,
}

struct Declared<'a> {
    item: Item<'a>,
    hook: Option<Hook>,
    used: Cell<bool>,
}

impl<'a> Hooks<'a> {
    /// Reads every `[hook.NAME]`.
    pub(super) fn read(top: &Table<'a>) -> Hooks<'a> {
        let declared = |item: Item<'a>| Declared { item, hook: read(item), used: Cell::new(false) };
        Hooks { declared: top.named("hook").into_iter().map(declared).collect() }
    }

    /// The name of the hook of a route, which has an address for what `asked` names.
    pub(super) fn of_route(&self, table: &Table<'a>, asked: &str) -> Option<Arc<str>> {
        let item = table.item("hook")?;
        let name = item.text("the name of a hook")?;
        let Some(declared) = self.declared.iter().find(|declared| declared.item.key() == name) else {
            let known = self.declared.iter().map(|declared| declared.item.key());
            let problem = item.error(format!("there is no hook `{name}`")).label("not declared").absence();
            item.note(problem.help(format!("declare it with `[hook.{name}]`")).meant(name, known));
            return None;
        };
        declared.used.set(true);
        let hook = declared.hook.as_ref()?;
        let is_asked = if asked == "connect" { hook.connect.is_some() } else { hook.publish.is_some() };
        if !is_asked {
            let problem = item.error(format!("`{name}` is not asked on this route"));
            let problem =
                problem.label(format!("it has no `{asked}`")).also(declared.item.key_span(), "the hook is here");
            item.note(problem.help(format!("add `{asked} = \"URL\"` to the hook")).absence());
        }
        Some(hook.name.clone())
    }

    /// Reports a hook with `publish` on a websocket route whose clients publish.
    pub(super) fn note_unasked(&self, table: &Table<'a>) {
        let Some(item) = table.item("hook") else { return };
        let found = self.declared.iter().find(|declared| item.as_text() == Some(declared.item.key()));
        let Some(declared) = found.filter(|found| found.hook.as_ref().is_some_and(|hook| hook.publish.is_some()))
        else {
            return;
        };
        let problem = item.error("a hook is not asked about the messages of WebSockets");
        let problem = problem.label("this hook has `publish`, and the route has `on_message = \"broadcast\"`");
        let problem = problem.also(declared.item.key_span(), "the hook is here");
        item.note(problem.help("use a hook without `publish` here, and let clients publish by a publish route"));
    }

    /// Warns of hooks that no route names.
    pub(super) fn note_unused(&self, report: &Report<'_>) {
        for declared in self.declared.iter().filter(|declared| !declared.used.get()) {
            let name = declared.item.key();
            let problem = Problem::warning(declared.item.key_span(), format!("no route asks the hook `{name}`"));
            report.note(problem.help(format!("add `hook = \"{name}\"` to a route, or remove the hook")));
        }
    }

    /// The hooks.
    pub(super) fn into_hooks(self) -> Vec<Hook> {
        self.declared.into_iter().filter_map(|declared| declared.hook).collect()
    }
}

fn read(item: Item<'_>) -> Option<Hook> {
    item.note_bad_name();
    let table = item.table(&keys::HOOK)?;
    let secret = table.item("secret");
    let hook = Hook {
        name: item.key().into(),
        connect: table.item("connect").and_then(|item| address(&item)),
        publish: table.item("publish").and_then(|item| address(&item)),
        timeout: table.duration("timeout"),
        answer_bytes_max: table.size("answer_max"),
        requests_max: table.count("requests_max"),
        on_error: table.choice("on_error", &ON_ERROR),
        headers: table.value("headers", |item| headers(*item)),
        authorities: table.item("ca").and_then(|item| item.authorities("ca")).map(|(_, authorities)| authorities),
        secrets: secret.map(|item| item.secrets()).unwrap_or_default(),
    };
    let set: Vec<_> = ["connect", "publish"].into_iter().filter_map(|key| table.item(key)).collect();
    if set.is_empty() {
        let problem = Problem::warning(item.key_span(), "this hook asks about nothing");
        item.note(problem.help("add `connect = \"URL\"` or `publish = \"URL\"`").absence());
    }
    let is_far = |uri: &Uri| {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_near = host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
        uri.scheme_str() == Some("http") && !is_near
    };
    for item in
        set.iter().filter(|item| item.as_text().and_then(|text| text.parse().ok()).is_some_and(|uri| is_far(&uri)))
    {
        let problem = Problem::warning(item.span(), "this address is asked without encryption");
        let label = "everybody on the way can read the questions and change the answers";
        item.note(problem.label(label).help("use https"));
    }
    Some(hook)
}

/// An address of the backend.
fn address(item: &Item<'_>) -> Option<Uri> {
    let text = item.text("an address, as `\"https://www.example.com/hooks\"`")?;
    let wrong = |label: &str| {
        let problem = item.error("this is not an address that can be asked").label(label);
        item.note(problem.help("for example `\"http://127.0.0.1:9000/connect\"`"));
        None
    };
    let Ok(uri) = text.parse::<Uri>() else { return wrong("expected a URL") };
    match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(authority)) if authority.as_str().contains('@') => {
            wrong("a user and a password are not sent; `secret` signs the questions")
        }
        (Some("http" | "https"), Some(_)) if text.contains('#') => wrong("a fragment is not sent"),
        (Some("http" | "https"), Some(_)) => Some(uri),
        _ => wrong("expected `http://` or `https://` and the name of a host"),
    }
}

/// Fields that belong to the connection or to the question itself.
const OWN: [&str; 16] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-pushd-signature",
    "accept-encoding",
];

fn headers(item: Item<'_>) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for item in item.strings()? {
        let text = item.text("the name of a header field")?;
        match HeaderName::from_bytes(text.as_bytes()) {
            Ok(name) if OWN.contains(&name.as_str()) => {
                let problem = item.error("this header field cannot be passed on");
                item.note(problem.label("it belongs to one connection, or pushd sets it"));
            }
            Ok(name) if names.contains(&name) => item.note(item.error("this header field is listed twice")),
            Ok(_) if names.len() == HOOK_FIELDS_MAX => {
                item.note(item.error("too many header fields").label(format!("at most {HOOK_FIELDS_MAX}")));
                break;
            }
            Ok(name) => names.push(name),
            Err(_) => {
                let problem = item.error("this is not the name of a header field");
                item.note(problem.label("expected letters, digits and `-`"));
            }
        }
    }
    Some(names)
}

pub(super) const ON_ERROR: [(&str, OnError); 2] = [("deny", OnError::Deny), ("allow", OnError::Allow)];
