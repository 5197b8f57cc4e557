//! The differences between two configurations, and their effect on a running pushd: `pushctl diff`.

use super::keys::{self, Change};
use super::settings::{Provenance, Setting, Settings};

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The name of the key or the table: `hub.push.ping`.
    pub name: String,
    /// When it takes effect.
    pub change: Change,
    /// The old and the new value, and the effect of the change.
    pub text: String,
    /// Where the new value is set.
    pub provenance: Provenance,
}

/// All differences of `new` from `now`, in the order of `new`; removed tables are last.
pub fn differences(now: &[Settings], new: &[Settings]) -> Vec<Difference> {
    let mut found = Vec::new();
    for table in new {
        match find(now, table) {
            Some(before) if before.section == table.section => found.extend(keys_of(before, table)),
            Some(before) => {
                let (is, was) = (table.section.title, before.section.title);
                found.push(whole(table, format!("{is}, was {was}{}", end_of_clients(before))));
            }
            None if is_reported_above(now, table) => {}
            None => found.push(whole(table, "new".to_owned())),
        }
    }
    for table in now {
        if find(new, table).is_none() && !is_reported_above(new, table) {
            let ends = |below: &&Settings| below.path.starts_with(&table.path) && !end_of_clients(below).is_empty();
            let text = format!("removed{}", now.iter().find(ends).map_or("", end_of_clients));
            found.push(Difference { provenance: Provenance::Default, ..whole(table, text) });
        }
    }
    found
}

fn find<'s>(tables: &'s [Settings], table: &Settings) -> Option<&'s Settings> {
    tables.iter().find(|other| other.path == table.path)
}

/// Whether a table that is missing from `others` is reported elsewhere: with its server, or as a key that is a table or `false`.
fn is_reported_above(others: &[Settings], table: &Settings) -> bool {
    let server = table.path.len() > 2 && table.path[0] == "server";
    [&keys::ROTATE, &keys::HISTORY].contains(&table.section)
        || server && !others.iter().any(|other| other.path == table.path[..2])
}

fn whole(table: &Settings, text: String) -> Difference {
    Difference { name: table.name(), change: Change::AtOnce, text, provenance: table.provenance.clone() }
}

/// What happens to the clients of a route that is removed.
fn end_of_clients(table: &Settings) -> &'static str {
    match table.section {
        section if section == &keys::WEBSOCKET => "; its sessions are closed with 1001",
        section if section == &keys::EVENTS => "; its streams end",
        _ => "",
    }
}

fn keys_of(before: &Settings, table: &Settings) -> Vec<Difference> {
    let mut names: Vec<_> = table.keys.iter().map(|setting| setting.key).collect();
    names.extend(before.keys.iter().map(|setting| setting.key).filter(|key| !table.keys.iter().any(|s| s.key == *key)));
    let mut found = Vec::new();
    for key in names {
        let of = |table: &Settings| table.keys.iter().find(|setting| setting.key == key).cloned();
        let (was, is) = (of(before), of(table));
        if was.as_ref().zip(is.as_ref()).is_some_and(|(was, is)| was.is_as(is)) {
            continue;
        }
        let consequence = match key.name {
            "websocket" | "events" => end_of_clients(table),
            // It is checked for each request.
            "origins" if table.section == &keys::SERVER => "; publishing goes by it at once",
            _ if table.section == &keys::FEED => "; the feed begins anew",
            _ => "",
        };
        let by_default = is.as_ref().is_some_and(|is| is.value.is_some() && is.provenance == Provenance::Default);
        let default = if by_default { " (default)" } else { "" };
        found.push(Difference {
            name: format!("{}.{}", table.name(), key.name),
            change: key.change,
            text: format!("{} -> {}{default}{consequence}", shown(was.as_ref()), shown(is.as_ref())),
            provenance: is.map_or(Provenance::Default, |is| is.provenance),
        });
    }
    found
}

fn shown(setting: Option<&Setting>) -> &str {
    match setting {
        Some(setting) => setting.value.as_deref().unwrap_or("not set"),
        // Here it is a table, on the other side `false`.
        None => "on",
    }
}
