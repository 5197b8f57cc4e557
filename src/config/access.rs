//! `[key.NAME]`, and the references of routes to keys.
//!
//! A key is a secret that a program shows. It must be declared. A key that no route names is a warning.

use std::cell::Cell;
use std::sync::Arc;

use super::ChannelPattern;
use super::keys;
use super::network::Network;
use super::reader::{Item, Table};
use super::report::{Problem, Report};
use super::secret::Secret;

/// `[key.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct AccessKey {
    /// NAME in `[key.NAME]`.
    pub name: Arc<str>,
    /// What a program shows: one of these.
    pub secrets: Vec<Secret>,
    /// The channels it may publish on; `None`: all.
    pub publish: Option<Vec<ChannelPattern>>,
    /// The addresses it is good from; `None`: all.
    pub addresses: Option<Vec<Network>>,
}

/// The keys that the file declares, in its order.
pub(super) struct AccessKeys<'a> {
    declared: Vec<Declared<'a>>,
}

struct Declared<'a> {
    item: Item<'a>,
    key: Option<AccessKey>,
    used: Cell<bool>,
}

impl<'a> AccessKeys<'a> {
    /// Reads every `[key.NAME]`.
    pub(super) fn read(top: &Table<'a>) -> AccessKeys<'a> {
        let declared = |item: Item<'a>| Declared { item, key: read(item), used: Cell::new(false) };
        AccessKeys { declared: top.named("key").into_iter().map(declared).collect() }
    }

    /// The keys whose names are the values of `keys` in the table of a route.
    pub(super) fn of_route(&self, table: &Table<'a>) -> Option<Vec<AccessKey>> {
        let item = table.item("keys")?;
        let mut keys: Vec<AccessKey> = Vec::new();
        for item in item.strings()? {
            let name = item.text("the name of a key")?;
            let Some(declared) = self.declared.iter().find(|declared| declared.item.key() == name) else {
                let known = self.declared.iter().map(|declared| declared.item.key());
                let problem = item.error(format!("there is no key `{name}`")).label("not declared").absence();
                item.note(problem.help(format!("declare it with `[key.{name}]`")).meant(name, known));
                continue;
            };
            declared.used.set(true);
            if keys.iter().any(|key| &*key.name == name) {
                item.note(item.error("this key is listed twice"));
            }
            keys.extend(declared.key.clone());
        }
        Some(keys)
    }

    /// Warns of keys that no route names.
    pub(super) fn note_unused(&self, report: &Report<'_>) {
        for declared in self.declared.iter().filter(|declared| !declared.used.get()) {
            let name = declared.item.key();
            let problem = Problem::warning(declared.item.key_span(), format!("no route accepts the key `{name}`"));
            report.note(problem.help(format!("add `keys = [\"{name}\"]` to a route, or remove the key")));
        }
    }
}

fn read(item: Item<'_>) -> Option<AccessKey> {
    item.note_bad_name();
    let table = item.table(&keys::KEY)?;
    let help = "add where it is: `secret = { file = \"PATH\" }`; `pushctl key new` makes one";
    let secret = table.required("secret", help);
    let secrets = secret.map(|item| item.secrets()).unwrap_or_default();
    // RFC 6750, section 2.1: what can be shown.
    let is_shown = |secret: &Secret| secret.bytes().iter().all(|byte| byte.is_ascii_graphic());
    if let Some(item) = secret.filter(|_| !secrets.iter().all(is_shown)) {
        let problem = item.error("this secret cannot be shown in a request");
        item.note(problem.label("expected letters, digits and signs of ASCII, without spaces"));
    }
    Some(AccessKey {
        name: item.key().into(),
        secrets,
        publish: table.item("publish").map(|item| item.channel_patterns()),
        addresses: table.item("addresses").map(|item| networks(item)),
    })
}

/// The networks of a list.
pub(super) fn networks(item: Item<'_>) -> Vec<Network> {
    let network = |item: Item<'_>| match item.text("a network")?.parse() {
        Ok(network) => Some(network),
        Err(help) => {
            item.note(item.error("this is not a network").label("expected addresses").help(help));
            None
        }
    };
    item.strings().unwrap_or_default().into_iter().filter_map(network).collect()
}
